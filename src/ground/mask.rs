//! Secrets inside configurations. Satellites read them; people see a mask in their place, and a mask
//! that comes back stands for the secret that is kept.
//!
//! What is a secret is decided by its key, so that those in a part that is only handed on, such as
//! `zot_config`, are masked too.

use serde_json::Value;

use super::fault::Fault;

/// Stands for a secret in answers, pages and the audit log.
pub const MASK: &str = "********";

/// Puts the mask in the place of every secret.
pub fn hide(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                match value {
                    Value::String(text) if is_secret(key) && !text.is_empty() => {
                        MASK.clone_into(text);
                    }
                    _ => hide(value),
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(hide),
        _ => {}
    }
}

/// Puts the secrets of `kept` in the place of masks. A mask where nothing is kept is an error.
pub fn restore(value: &mut Value, kept: &Value) -> Result<(), Fault> {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let kept = kept.get(key);
                if !is_secret(key) || value != MASK {
                    restore(value, kept.unwrap_or(&Value::Null))?;
                    continue;
                }
                *value = kept.filter(|kept| kept.is_string()).cloned().ok_or_else(|| {
                    Fault::bad(format!(
                        "{key} {MASK:?}: expected a secret, for none is kept here that the mask \
                         could stand for"
                    ))
                })?;
            }
        }
        Value::Array(list) => {
            let kept = kept.as_array().map_or(&[][..], Vec::as_slice);
            for (place, value) in list.iter_mut().enumerate() {
                let partner = partner(value, place, kept).unwrap_or(&Value::Null);
                restore(value, partner)?;
            }
        }
        _ => {}
    }
    Ok(())
}

/// The element that an element of a list was before: a registry is known by its URL and user.
fn partner<'a>(value: &Value, place: usize, kept: &'a [Value]) -> Option<&'a Value> {
    let Some(url) = value.get("url") else { return kept.get(place) };
    let same_url = || kept.iter().filter(|kept| kept.get("url") == Some(url));
    let user = value.get("username");
    same_url().find(|kept| kept.get("username") == user).or_else(|| same_url().next())
}

fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    key.contains("password") || key.contains("secret")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn config() -> Value {
        json!({
            "app_config": {"local_registry": {"url": "http://l", "password": "one"}},
            "zot_config": {"http": {"auth": {"ldap": {"bindPassword": "two"}}}},
            "moonlet": {"registries": [
                {"url": "https://a", "username": "u", "password": "three"},
                {"url": "https://a", "username": "v", "password": "four"},
                {"url": "https://b", "username": "u", "password": "five"},
            ]},
        })
    }

    #[test]
    fn what_was_hidden_comes_back() {
        let mut shown = config();
        hide(&mut shown);
        let text = shown.to_string();
        for secret in ["one", "two", "three", "four", "five"] {
            assert!(!text.contains(&format!("\"{secret}\"")), "{text}");
        }
        // In another order, with one less.
        let list = shown["moonlet"]["registries"].as_array_mut().unwrap();
        list.remove(0);
        list.swap(0, 1);
        restore(&mut shown, &config()).unwrap();
        let list = &shown["moonlet"]["registries"];
        assert_eq!((&list[0]["password"], &list[1]["password"]), (&json!("five"), &json!("four")));
        assert_eq!(shown["app_config"], config()["app_config"]);
        assert_eq!(shown["zot_config"], config()["zot_config"]);
    }

    #[test]
    fn a_mask_for_nothing_is_refused() {
        let mut other = json!({"moonlet": {"registries": [
            {"url": "https://evil", "username": "u", "password": MASK}]}});
        let fault = restore(&mut other, &config()).unwrap_err();
        assert!(fault.message.starts_with("password \"********\": expected"), "{}", fault.message);
        assert!(restore(&mut json!({"password": MASK}), &Value::Null).is_err());
        let mut own = json!({"password": "new"});
        restore(&mut own, &Value::Null).unwrap();
        assert_eq!(own["password"], "new");
    }
}
