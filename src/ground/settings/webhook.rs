//! Where events are sent, as the settings have it.

use url::Url;

/// Where events go, and the key that signs them.
#[derive(Clone)]
pub struct Webhook {
    pub url: Url,
    pub secret: String,
}

impl std::fmt::Debug for Webhook {
    /// Leaves the secret out, and the URL, which may hold one.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Webhook").finish_non_exhaustive()
    }
}

impl Webhook {
    /// Checks a URL and a secret. Errors quote neither: a URL may hold a secret too.
    pub fn new(url: &str, secret: &str) -> Result<Self, String> {
        let parsed = Url::parse(url).ok().filter(|url| {
            ["http", "https"].contains(&url.scheme())
                && url.host_str().is_some_and(|host| !host.is_empty())
                && url.username().is_empty()
                && url.password().is_none()
        });
        let url = parsed.ok_or("webhook_url: expected https://host/path or http://host/path")?;
        if secret.len() < SECRET_BYTES_MIN {
            let length = secret.len();
            return Err(format!(
                "webhook_secret: {length} bytes, expected at least {SECRET_BYTES_MIN}"
            ));
        }
        Ok(Self { url, secret: secret.to_owned() })
    }
}

const SECRET_BYTES_MIN: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_webhook_is_refused_and_not_quoted() {
        let good = "a secret of sixteen";
        for (url, secret) in [
            ("", good),
            ("ftp://h/hunter2", good),
            ("https://u:hunter2@h/", good),
            ("https://h/", "hunter2"),
        ] {
            let error = Webhook::new(url, secret).unwrap_err();
            assert!(error.contains("expected") && !error.contains("hunter2"), "{error}");
        }
    }
}
