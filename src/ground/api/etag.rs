//! Which version of a thing a change is meant for, so that two people who change the same thing do
//! not undo each other's work unseen.
//!
//! An `ETag` is made of what the thing is, part by part: `"images-1f0c....registry-77aa...."`. It
//! needs no counter, it is the same on every replica, and when it is stale it says which part has
//! changed. A change may be made against some of the parts only. It is held against the rows of the
//! transaction that makes the change. Without `If-Match` a change is made whatever was there: that
//! is what Go's clients do.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::listing::labels_of;
use crate::fleet::shown;
use crate::ground::app::App;
use crate::ground::clock;
use crate::ground::fault::Fault;
use crate::ground::labels::Labels;
use crate::ground::store::{Config, Group, Rollout, Rows, Satellite, User};

/// What a thing is, in parts that have names. The key is the server's: what a tag is made of may be
/// a password.
#[derive(Clone)]
pub struct Version {
    /// What it is of, as the audit log names it.
    kind: &'static str,
    name: String,
    parts: Vec<(&'static str, String)>,
}

impl Version {
    fn new(
        app: &App,
        kind: &'static str,
        (id, name): (i64, &str),
        parts: &[(&'static str, Value)],
    ) -> Self {
        let part = |(part, value): &(&'static str, Value)| {
            // What was deleted and made again under the same name is another.
            let text = format!("version {kind} {id} {part} {value}");
            let hash = blake3::keyed_hash(&app.seal_key, text.as_bytes()).to_hex();
            (*part, hash.chars().take(HASH_CHARS).collect())
        };
        Self { kind, name: name.to_owned(), parts: parts.iter().map(part).collect() }
    }

    pub fn of_group(app: &App, group: &Group) -> Self {
        let state = &group.state;
        let parts = [
            ("images", json!(state.artifacts)),
            ("platforms", json!(state.platforms)),
            ("registry", json!(state.registry)),
            ("staged", json!(state.staged)),
            ("tags", json!(group.tags.word())),
        ];
        Self::new(app, "group", (group.id, &state.group), &parts)
    }

    pub fn of_config(app: &App, config: &Config) -> Self {
        let parts = [("values", json!(config.config))];
        Self::new(app, "config", (config.id, &config.name), &parts)
    }

    pub fn of_satellite(
        app: &App,
        satellite: &Satellite,
        groups: &[String],
        config: &str,
        labels: &Labels,
    ) -> Self {
        let parts =
            [("config", json!(config)), ("groups", json!(groups)), ("labels", json!(labels))];
        Self::new(app, "satellite", (satellite.id, &satellite.name), &parts)
    }

    /// The same, read.
    pub async fn read_satellite(
        app: &App,
        rows: &mut Rows<'_>,
        satellite: &Satellite,
    ) -> Result<Self, Fault> {
        let groups = rows.satellite_groups(satellite.id).await?;
        let config = rows.satellite_config(satellite.id).await?;
        let labels = labels_of(rows, satellite).await?;
        Ok(Self::of_satellite(app, satellite, &groups, &config, &labels))
    }

    /// A batch that began and a phase are what people decide on, who see it before they do.
    pub fn of_rollout(app: &App, rollout: &Rollout) -> Self {
        let parts = [("batch", json!(rollout.batch)), ("phase", json!(rollout.phase.word()))];
        Self::new(app, "rollout", (rollout.id, &rollout.name), &parts)
    }

    pub fn of_user(app: &App, user: &User) -> Self {
        let parts = [("password", json!(user.password_hash)), ("role", json!(user.role.word()))];
        Self::new(app, "user", (user.id, &user.username), &parts)
    }

    /// The tag, in its quotes.
    pub fn tag(&self) -> String {
        self.tag_of(|_| true)
    }

    /// The tag of one part.
    pub fn part(&self, part: &str) -> String {
        self.tag_of(|name| name == part)
    }

    fn tag_of(&self, wanted: impl Fn(&str) -> bool) -> String {
        let parts = self.parts.iter().filter(|(part, _)| wanted(part));
        let parts: Vec<String> = parts.map(|(part, hash)| format!("{part}-{hash}")).collect();
        format!("\"{}\"", parts.join("."))
    }

    /// An answer of this version.
    pub fn with(&self, answer: impl IntoResponse) -> Response {
        ([(header::ETAG, self.tag())], answer).into_response()
    }

    /// The parts that are not what the tag says; a part that there is not has changed too.
    fn changed<'t>(&self, tag: &'t str) -> Vec<&'t str> {
        let is_same = |(part, hash): (&str, &str)| {
            self.parts.iter().any(|(name, is)| *name == part && is == hash)
        };
        let parts = tag.split('.').map(|part| part.split_once('-').unwrap_or((part, "")));
        parts.filter(|part| !is_same(*part)).map(|(part, _)| part).collect()
    }
}

/// What a change expects to find.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Expected {
    /// Anything, or nothing.
    #[default]
    Any,
    /// One of these, without their quotes: `*` is whatever there is.
    One(Vec<String>),
    /// Nothing.
    Absent,
    /// A header that cannot be understood.
    Malformed(String),
}

impl Expected {
    /// What a form of the console was made from.
    pub fn shown(tag: &str) -> Self {
        parse(tag)
    }

    fn of(headers: &HeaderMap) -> Self {
        if headers.contains_key(header::IF_MATCH) {
            let lines = headers.get_all(header::IF_MATCH).iter();
            let lines = lines.map(|line| String::from_utf8_lossy(line.as_bytes()).into_owned());
            return parse(&lines.collect::<Vec<_>>().join(","));
        }
        match headers.get(header::IF_NONE_MATCH) {
            Some(any) if any.as_bytes().trim_ascii() == b"*" => Self::Absent,
            _ => Self::Any,
        }
    }

    /// Holds what is there against what is expected, in the transaction of the change.
    pub async fn check(&self, rows: &mut Rows<'_>, found: &Version) -> Result<(), Fault> {
        let Version { kind, name, .. } = found;
        let why = match self {
            Self::Any => return Ok(()),
            Self::Malformed(text) => {
                let text = shown(text);
                return Err(Fault::bad(format!("If-Match {text}: expected \"TAG\" or *")));
            }
            Self::Absent => "exists: expected none of that name".to_owned(),
            Self::One(tags) => {
                let mut nearest: Option<Vec<&str>> = None;
                for tag in tags {
                    let changed = found.changed(tag);
                    if tag == "*" || changed.is_empty() {
                        return Ok(());
                    }
                    if nearest.as_ref().is_none_or(|nearest| changed.len() < nearest.len()) {
                        nearest = Some(changed);
                    }
                }
                let changed = nearest.unwrap_or_default();
                let known = found.parts.iter().map(|(part, _)| *part);
                let known: Vec<&str> = known.filter(|part| changed.contains(part)).collect();
                match known.is_empty() {
                    true => "is not what If-Match says".to_owned(),
                    false => format!("has changed since it was read ({})", known.join(", ")),
                }
            }
        };
        let last = rows.last_change(kind, name).await?;
        let last = last.map_or_else(String::new, |entry| {
            format!("; the last change is {} by {}", clock::rfc3339(entry.at), entry.actor)
        });
        Err(failed(format!("{kind} {name} {why}{last}")))
    }

    /// The same where there is nothing.
    pub fn check_absent(&self, kind: &str, name: &str) -> Result<(), Fault> {
        match self {
            Self::Any | Self::Absent => Ok(()),
            Self::One(_) | Self::Malformed(_) => {
                let name = shown(name);
                Err(failed(format!("{kind} {name} does not exist any more, or never did")))
            }
        }
    }
}

fn failed(message: String) -> Fault {
    Fault::new(StatusCode::PRECONDITION_FAILED, message)
}

impl<S: Sync> FromRequestParts<S> for Expected {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::of(&parts.headers))
    }
}

/// The tags of a header. A weak one says nothing that a change could rely on and matches nothing.
fn parse(text: &str) -> Expected {
    let mut tags = Vec::new();
    for one in text.split(',').map(str::trim).filter(|one| !one.is_empty()) {
        let bare = match one.strip_prefix("W/") {
            Some(_) => Some("weak"),
            None if one == "*" => Some(one),
            None => one.strip_prefix('"').and_then(|one| one.strip_suffix('"')),
        };
        match bare {
            Some(bare) if tags.len() < TAGS_MAX => tags.push(bare.to_owned()),
            _ => return Expected::Malformed(text.to_owned()),
        }
    }
    if tags.is_empty() { Expected::Malformed(text.to_owned()) } else { Expected::One(tags) }
}

/// Of one header.
const TAGS_MAX: usize = 16;
/// 64 bits: nothing is gained by finding two alike.
const HASH_CHARS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_tags() {
        let one = |tags: &[&str]| Expected::One(tags.iter().map(|tag| (*tag).into()).collect());
        assert_eq!(parse("\"a-1.b-2\""), one(&["a-1.b-2"]));
        assert_eq!(parse(" \"a\" ,\"b\""), one(&["a", "b"]));
        assert_eq!(parse("*"), one(&["*"]));
        assert_eq!(parse("W/\"a-1\""), one(&["weak"]));
        for bad in ["", "a", "\"a", "\"a\" b", &"\"a\",".repeat(17)] {
            assert_eq!(parse(bad), Expected::Malformed(bad.to_owned()), "{bad}");
        }
    }

    #[test]
    fn a_tag_says_what_changed() {
        let parts = vec![("images", "1".to_owned()), ("registry", "2".to_owned())];
        let version = Version { kind: "group", name: "g".to_owned(), parts };
        assert_eq!(
            (version.tag(), version.part("registry")),
            ("\"images-1.registry-2\"".to_owned(), "\"registry-2\"".to_owned())
        );
        assert!(version.changed("registry-2").is_empty());
        assert_eq!(version.changed("images-0.registry-2"), ["images"]);
        assert_eq!(version.changed("images-1.later-3"), ["later"]);
        assert_eq!(version.changed(""), [""]);
    }
}
