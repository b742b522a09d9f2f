//! `[[upstream]]`: where images come from.

use std::ops::Range;
use std::path::PathBuf;

use url::Url;

use super::Upstream;
use super::table::masked;
use super::table::{Reader, Table};
use crate::oci::registry_name;

impl<'a> Reader<'a> {
    /// One upstream, and where it stands; none where its name or address cannot be used.
    pub fn upstream(&mut self, mut table: Table<'a>) -> Option<(Range<usize>, Upstream)> {
        let span = table.span.clone();
        let registry = self.registry(&mut table);
        let url = self.url(&mut table);
        let username = self.text(&mut table, "username");
        let password_file = self.text(&mut table, "password_file").map(PathBuf::from);
        let (ca_file, client_cert, client_key) = self.tls_files(&mut table);
        if username.is_some() != password_file.is_some() {
            self.wrong(&table, "username and password_file", "both or neither");
        }
        let pull_through = self.pull_through(&mut table);
        self.finish(table, &UPSTREAM_KEYS);
        let registry = registry?;
        let url = match url {
            Some(url) => url?,
            None => implied(&registry)?.url,
        };
        let upstream = Upstream {
            registry,
            url,
            username,
            password_file,
            password: None,
            ca_file,
            client_cert,
            client_key,
            pull_through,
        };
        Some((span, upstream))
    }

    /// The name of a registry.
    pub fn registry(&mut self, table: &mut Table<'a>) -> Option<String> {
        let expected = "a host with an optional port, as images name it, such as \"docker.io\"";
        let Some((span, text)) = self.spanned(table, "registry") else {
            self.wrong(table, "registry", expected);
            return None;
        };
        let name = registry_name(&text);
        if name.is_none() {
            let key = format!("{} registry", table.name);
            self.problem(span, &key, &format!("{:?}", masked(&text)), expected);
        }
        name
    }

    /// The address of an upstream, without the `/v2` that people copy along; `Some(None)` for one
    /// that cannot be used.
    pub fn url(&mut self, table: &mut Table<'a>) -> Option<Option<Url>> {
        let (span, text) = self.spanned(table, "url")?;
        let url = text.parse::<Url>().ok().filter(|url| url.host_str().is_some());
        let expected = match &url {
            None => "an http or https URL such as \"https://registry-1.docker.io\"",
            Some(url) if !matches!(url.scheme(), "http" | "https") => "http or https",
            Some(url) if !url.username().is_empty() || url.password().is_some() => {
                "no credentials in it: they go into username and password_file"
            }
            Some(url) if url.query().is_some() => "no query",
            Some(url) if url.fragment().is_some() => "no fragment",
            Some(_) => "",
        };
        if !expected.is_empty() {
            let key = format!("{} url", table.name);
            self.problem(span, &key, &format!("{:?}", masked(&text)), expected);
            return Some(None);
        }
        let url = url.map(|mut url| {
            let path = url.path().trim_end_matches('/');
            let path = path.strip_suffix("/v2").unwrap_or(path).to_owned();
            url.set_path(&path);
            url
        });
        Some(url)
    }

    /// `ca_file`, `client_cert` and `client_key`.
    pub fn tls_files(
        &mut self,
        table: &mut Table<'a>,
    ) -> (Option<PathBuf>, Option<PathBuf>, Option<PathBuf>) {
        if let Some(span) = table.span_of("client_cert") {
            self.check_key(span, &format!("{} client_cert", table.name), "client-certs");
        }
        let mut path = |key| self.text(table, key).map(PathBuf::from);
        let files = (path("ca_file"), path("client_cert"), path("client_key"));
        if files.1.is_some() != files.2.is_some() {
            self.wrong(table, "client_cert and client_key", "both or neither");
        }
        files
    }
}

/// The upstream of an image whose registry has no `[[upstream]]`.
pub fn implied(registry: &str) -> Option<Upstream> {
    let host = if registry == "docker.io" { "registry-1.docker.io" } else { registry };
    let url = Url::parse(&format!("https://{host}")).ok()?;
    Some(Upstream {
        registry: registry.to_owned(),
        url,
        username: None,
        password_file: None,
        password: None,
        ca_file: None,
        client_cert: None,
        client_key: None,
        pull_through: None,
    })
}

const UPSTREAM_KEYS: [&str; 11] = [
    "registry",
    "url",
    "username",
    "password_file",
    "ca_file",
    "client_cert",
    "client_key",
    "pull_through",
    "tag_ttl",
    "allow",
    "deny",
];
