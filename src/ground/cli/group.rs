//! `group`: images that satellites hold together.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::document::{self, Kind};
use super::http::{Expected, Method, Request, Server};
use super::output::{Output, Table, elements, say, text};
use super::{Failure, apply, fleet, plan};
use crate::fleet::shown;
use crate::fleet::state::{Artifact, GroupState};
use crate::ground::model::Mode;

#[derive(Subcommand)]
pub enum Verb {
    /// List groups
    #[command(after_help = "Example: ground-control group ls -o yaml > groups.yaml")]
    Ls,
    /// Show a group: its images and its satellites
    #[command(after_help = "Example: ground-control group show web")]
    Show {
        /// The group
        name: String,
    },
    /// Make a group, or change its images
    #[command(after_help = "Examples:
  ground-control group set web --registry https://registry.example library/nginx:1.27
  ground-control group set web --add library/redis:8 --remove library/nginx:1.25
  ground-control group set web --tags follow

An image is REPOSITORY:TAG, REPOSITORY@DIGEST or REPOSITORY:TAG@DIGEST.")]
    Set {
        /// The group
        name: String,
        #[command(flatten)]
        images: Images,
        /// Who looks tags up: off, each satellite for itself; follow, the server for all of them;
        /// pin, the server, and what they mean stays until it is approved
        #[arg(long, value_name = "MODE", value_parser = mode)]
        tags: Option<Mode>,
    },
    /// Show what the tags of a group mean to its satellites, and at their registry
    #[command(after_help = "Example: ground-control group tags web")]
    Tags {
        /// The group
        name: String,
    },
    /// Let satellites have what tags of a group mean now at their registry
    #[command(after_help = "\
Examples:
  ground-control group approve web
  ground-control group approve web library/nginx:1.27@sha256:3e38...")]
    Approve {
        /// The group
        name: String,
        /// What was looked at, as REPOSITORY:TAG@DIGEST: refused when the tag means another by now.
        /// Without it all that waits
        #[arg(value_name = "IMAGE")]
        images: Vec<String>,
    },
    /// Show what documents of groups would change; exits with 1 where something would
    #[command(after_help = "Example: ground-control group diff -f fleet.yaml")]
    Diff {
        /// YAML documents, as for apply; those of other kinds are left alone
        #[arg(short, long, required = true, value_name = "FILE")]
        file: Vec<PathBuf>,
    },
    /// Put a satellite into a group
    #[command(after_help = "Example: ground-control group add-satellite web gateway-17")]
    AddSatellite {
        /// The group
        name: String,
        /// The satellite
        satellite: String,
    },
    /// Take a satellite out of a group
    #[command(after_help = "Example: ground-control group rm-satellite web gateway-17")]
    RmSatellite {
        /// The group
        name: String,
        /// The satellite
        satellite: String,
    },
    /// Remove a group; its satellites remove its images
    #[command(after_help = "Example: ground-control group rm web")]
    Rm {
        /// The group
        name: String,
    },
}

/// How a group is to be changed.
#[derive(Args)]
pub struct Images {
    /// The images that it is to have in place of those it has
    #[arg(value_name = "IMAGE", conflicts_with_all = ["add", "remove"])]
    images: Vec<String>,
    /// An image more; may be repeated
    #[arg(long, value_name = "IMAGE")]
    add: Vec<String>,
    /// An image less; may be repeated
    #[arg(long, value_name = "IMAGE")]
    remove: Vec<String>,
    /// The registry that the images come from
    #[arg(long, value_name = "URL")]
    registry: Option<String>,
    /// A platform that is held, or all; may be repeated; without any, each device's own
    #[arg(long, value_name = "OS/ARCH")]
    platform: Vec<String>,
}

impl Images {
    /// Changes a group, and holds the result to its grammar.
    pub fn change(&self, group: &mut GroupState) -> Result<(), Failure> {
        if let Some(registry) = &self.registry {
            registry.trim_end_matches('/').clone_into(&mut group.registry);
        }
        if !self.platform.is_empty() {
            group.platforms.clone_from(&self.platform);
        }
        if !self.images.is_empty() {
            group.artifacts.clear();
        }
        change_images(group, self.images.iter().chain(&self.add), &self.remove)?;
        group.check().map_err(|error| error.to_string().into())
    }
}

pub fn run(verb: Verb, server: &Server, output: Output) -> Result<ExitCode, Failure> {
    match verb {
        Verb::Ls => list(server, output)?,
        Verb::Show { name } => show(server, &name, output)?,
        Verb::Set { name, images, tags } => {
            let before = server.find(&["api", "groups", &name])?;
            let version = before.as_ref().map_or(Expected::Absent, Expected::of);
            let held = before.as_ref().map_or(Mode::Off, fleet::mode);
            let before = before.as_ref().map(fleet::group).transpose()?;
            let mut group = before.clone().unwrap_or_default();
            name.clone_into(&mut group.group);
            images.change(&mut group)?;
            let mut step = plan::group_step(&name, before.as_ref(), &group);
            if let Some(mode) = tags {
                step.take_tags(&group, held, mode);
            }
            step.expect(&version);
            apply::carry_out(server, &step)?;
            say(&format!("group/{name} {}", step.action.word()))?;
        }
        Verb::Tags { name } => tags(server, &name, output)?,
        Verb::Approve { name, images } => {
            let looked_at = match images.is_empty() {
                true => waiting(server, &name)?,
                false => looked_at(&images)?,
            };
            let path = ["api", "groups", &name, "tags", "approve"];
            let body = json!({ "tags": looked_at });
            let answer = ask(server, &name, &Request::new(Method::Post, &path, Some(body)))?;
            let approved = answer.get("approved").and_then(Value::as_object);
            for (tag, digest) in approved.into_iter().flatten() {
                say(&format!("{tag} {}", digest.as_str().unwrap_or_default()))?;
            }
            let count = approved.map_or(0, serde_json::Map::len);
            say(&format!("group/{name} approved, {count} changed"))?;
        }
        Verb::Diff { file } => {
            let mut documents = document::read(&file)?;
            documents.retain(|document| document.kind() == Kind::Group);
            return apply::diff(server, &documents);
        }
        Verb::AddSatellite { name, satellite } => {
            member(server, &name, &satellite, true)?;
            say(&format!("satellite/{satellite} joined group/{name}"))?;
        }
        Verb::RmSatellite { name, satellite } => {
            member(server, &name, &satellite, false)?;
            say(&format!("satellite/{satellite} left group/{name}"))?;
        }
        Verb::Rm { name } => {
            let request = Request::new(Method::Delete, &["api", "groups", &name], None);
            ask(server, &name, &request)?;
            say(&format!("group/{name} removed"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn ask(server: &Server, name: &str, request: &Request) -> Result<Value, Failure> {
    server.ask_of("group", name, || server.names("groups", "GroupName"), request)
}

fn list(server: &Server, output: Output) -> Result<(), Failure> {
    let mut table = Table::new(&["NAME", "REGISTRY", "IMAGES", "PLATFORMS", "UPDATED"]);
    let mut documents = Vec::new();
    for answer in elements(server.get(&["api", "groups"])?) {
        let group = fleet::group(&answer)?;
        let images = fleet::images(std::iter::once(&group)).len().to_string();
        let (platforms, updated) = (group.platforms.join(","), text(&answer, "UpdatedAt"));
        documents.push(written(&group, fleet::mode(&answer)));
        table.row(vec![group.group, group.registry, images, platforms, updated]);
    }
    output.many(&documents, &table)
}

fn show(server: &Server, name: &str, output: Output) -> Result<(), Failure> {
    let request = Request::new(Method::Get, &["api", "groups", name], None);
    let answer = ask(server, name, &request)?;
    let group = fleet::group(&answer)?;
    let members = elements(server.get(&["api", "groups", name, "satellites"])?);
    let members: Vec<String> = members.iter().map(|member| text(member, "Name")).collect();
    let mode = fleet::mode(&answer);
    output.one(&written(&group, mode), || {
        let or_none = |text: String| if text.is_empty() { "-".to_owned() } else { text };
        let head = [
            ("group", name.to_owned()),
            ("registry", or_none(group.registry.clone())),
            ("platforms", or_none(group.platforms.join(", "))),
            ("tags", mode.word().to_owned()),
            ("satellites", format!("{} {}", members.len(), members.join(" "))),
        ];
        let head = head.iter().map(|(key, value)| format!("{key:<12}{}\n", value.trim_end()));
        let mut table = Table::new(&["IMAGE"]);
        for image in fleet::images(std::iter::once(&group)) {
            table.row(vec![image]);
        }
        head.collect::<String>() + "\n" + &table.draw()
    })
}

fn tags(server: &Server, name: &str, output: Output) -> Result<(), Failure> {
    let request = Request::new(Method::Get, &["api", "groups", name, "tags"], None);
    let answer = ask(server, name, &request)?;
    let tags = answer.get("tags").cloned().unwrap_or_default();
    let rows = elements(tags);
    let mut table = Table::new(&["TAG", "SATELLITES GET", "REGISTRY SAYS", "CHECKED", "PROBLEM"]);
    for tag in &rows {
        let what = format!("{}:{}", text(tag, "repository"), text(tag, "tag"));
        let rest = ["digest", "seen", "checked_at", "problem"].map(|key| text(tag, key));
        table.row([what].into_iter().chain(rest).collect());
    }
    output.many(&rows, &table)
}

/// What waits for approval now: digests by tags.
fn waiting(server: &Server, name: &str) -> Result<BTreeMap<String, String>, Failure> {
    let request = Request::new(Method::Get, &["api", "groups", name, "tags"], None);
    let answer = ask(server, name, &request)?;
    let tags = elements(answer.get("tags").cloned().unwrap_or_default());
    let waits =
        |tag: &&Value| !text(tag, "seen").is_empty() && text(tag, "seen") != text(tag, "digest");
    let named = |tag: &Value| {
        (format!("{}:{}", text(tag, "repository"), text(tag, "tag")), text(tag, "seen"))
    };
    Ok(tags.iter().filter(waits).map(named).collect())
}

/// The same of images as `library/nginx:1.27@sha256:...`.
fn looked_at(images: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    let named = images.iter().map(|image| {
        let (tag, digest) = image.split_once('@').ok_or_else(|| {
            Failure::from(format!("image {}: expected REPOSITORY:TAG@DIGEST", shown(image)))
        })?;
        Ok((tag.to_owned(), digest.to_owned()))
    });
    named.collect()
}

fn mode(word: &str) -> Result<Mode, String> {
    Mode::parse(word).ok_or_else(|| "expected off, follow or pin".to_owned())
}

/// The document that makes this group.
fn written(group: &GroupState, mode: Mode) -> Value {
    let mut spec = json!(group);
    if let Value::Object(fields) = &mut spec {
        fields.remove("group");
        if mode != Mode::Off {
            fields.insert("tags".to_owned(), json!(mode.word()));
        }
    }
    document::written(Kind::Group, &group.group, spec, None)
}

fn member(server: &Server, name: &str, satellite: &str, join: bool) -> Result<(), Failure> {
    let request = plan::membership(satellite, name, join);
    let satellites = || server.names("satellites", "Name");
    // Either of the two may be what is not there.
    let asked = server.ask_of("satellite", satellite, satellites, &request);
    match asked {
        Err(failure) if failure.message.contains("Group Not Found") => {
            let known = server.names("groups", "GroupName").unwrap_or_default();
            Err(super::http::missing("group", name, &known))
        }
        asked => asked.map(drop),
    }
}

fn change_images<'a>(
    group: &mut GroupState,
    add: impl Iterator<Item = &'a String>,
    remove: &[String],
) -> Result<(), Failure> {
    for image in remove {
        if !take_out(group, &artifact(image)?) {
            let group = &group.group;
            return Err(format!("image {image:?}: not in group {group:?}").into());
        }
    }
    for image in add {
        let new = artifact(image)?;
        let is_there = |held: &Artifact| {
            !held.deleted
                && held.repository == new.repository
                && held.digest == new.digest
                && new.tags.iter().all(|tag| held.tags.contains(tag))
                && (held.tags.is_empty() == new.tags.is_empty())
        };
        if group.artifacts.iter().any(is_there) {
            continue;
        }
        // A tag means one thing: what it meant before goes.
        take_out(group, &new);
        // A digest is of one tag, and shares its row with no other.
        let joins = |held: &&mut Artifact| {
            held.repository == new.repository
                && held.digest.is_empty()
                && new.digest.is_empty()
                && !held.deleted
        };
        match group.artifacts.iter_mut().find(joins) {
            Some(held) => held.tags.extend(new.tags),
            None => group.artifacts.push(new),
        }
    }
    Ok(())
}

/// Takes an image out of a group, by its tag, or by its digest if it has none; false if it is not
/// there.
fn take_out(group: &mut GroupState, gone: &Artifact) -> bool {
    let tag = gone.tags.first();
    let mut found = false;
    group.artifacts.retain_mut(|held| {
        let is_there = held.repository == gone.repository
            && match tag {
                Some(tag) => held.tags.contains(tag),
                None => held.tags.is_empty() && held.digest == gone.digest,
            };
        if is_there {
            found = true;
            held.tags.retain(|held| Some(held) != tag);
        }
        !is_there || !held.tags.is_empty()
    });
    found
}

fn artifact(image: &str) -> Result<Artifact, Failure> {
    Artifact::parse(image).map_err(|error| {
        format!("image {image:?}: {error}; without its registry, which --registry names").into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(add: &[&str], remove: &[&str]) -> Result<Vec<String>, Failure> {
        let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let mut group = GroupState::default();
        change_images(&mut group, owned(&["a:1", "a:2", "b:1"]).iter(), &[])?;
        change_images(&mut group, owned(add).iter(), &owned(remove))?;
        Ok(fleet::images(std::iter::once(&group)).into_iter().collect())
    }

    #[test]
    fn images_come_and_go() {
        assert_eq!(changed(&["a:3", "b:1"], &["a:1"]).unwrap(), ["a:2", "a:3", "b:1"]);
        assert_eq!(changed(&[], &["b:1"]).unwrap(), ["a:1", "a:2"]);
        let digest = format!("b@sha256:{}", "0".repeat(64));
        assert_eq!(changed(&[&digest], &[]).unwrap().last(), Some(&digest));
        assert_eq!(changed(&[], &["a:1", "a:2"]).unwrap(), ["b:1"]);
        let mut both = GroupState::default();
        change_images(&mut both, [digest.clone(), "b:1".to_owned()].iter(), &[]).unwrap();
        change_images(&mut both, [].iter(), &["b:1".to_owned()]).unwrap();
        assert_eq!(fleet::images(std::iter::once(&both)), [digest].into(), "a digest stays");
        // A tag means one thing.
        let zeros = format!("a:1@sha256:{}", "0".repeat(64));
        assert_eq!(changed(&[&zeros], &[]).unwrap(), [zeros.as_str(), "a:2", "b:1"]);
        assert_eq!(changed(&[&zeros, "a:1"], &[]).unwrap(), ["a:1", "a:2", "b:1"]);
        for bad in ["a", "a@x", "h:5000/a:1", "https://h/a:1"] {
            assert!(changed(&[bad], &[]).is_err(), "{bad}");
        }
        let message = changed(&[], &["a:9"]).unwrap_err().message;
        assert!(message.starts_with("image \"a:9\": not in group"), "{message}");
    }
}
