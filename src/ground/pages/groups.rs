//! Groups, and the images of one as lines of text.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::{Form, Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use maud::{Markup, html};

use super::view::{digest_link, page, token, version};
use super::waiting::waiting_tags;
use super::{Visitor, forms};
use crate::fleet::state::{Artifact, GroupState};
use crate::fleet::{shown, valid_name};
use crate::ground::api::{Expected, Version, put_group};
use crate::ground::app::App;
use crate::ground::fault::Fault;
use crate::ground::model::Mode;
use crate::ground::store::GroupTag;

pub async fn list(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Query(form): Query<forms::NewGroup>,
) -> Result<Response, Fault> {
    if valid_name(&form.name) {
        return Ok(Redirect::to(&format!("/console/groups/{}", form.name)).into_response());
    }
    let groups = app.store.read().await?.rows().groups().await?;
    let content = html! {
        h1 { "Groups" }
        @if groups.is_empty() {
            p.notice { "No group yet. A group is a list of images; satellites hold those of their groups." }
        } @else {
            table {
                thead { tr { th { "Group" } th { "Registry" } th.number { "Images" } } }
                tbody { @for group in &groups { tr {
                    td { a href={ "/console/groups/" (group.state.group) } { (group.state.group) } }
                    td { (group.state.registry) }
                    td.number { (group.state.artifacts.len()) }
                } } }
            }
        }
        h2 { "New group" }
        form.row method="get" action="/console/groups" {
            label { "Name" input name="name" required pattern="[a-z0-9][a-z0-9._\\-]*"; }
            button.plain { "Choose its images" }
        }
    };
    Ok(page(Some(&visitor), "Groups", &content).into_response())
}

pub async fn edit(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Path(name): Path<String>,
) -> Result<Markup, Fault> {
    let mut read = app.store.read().await?;
    let mut rows = read.rows();
    let group = rows.group(&name).await?;
    let members = match &group {
        Some(group) => rows.group_satellites(group.id).await?,
        None => Vec::new(),
    };
    let tags = match &group {
        Some(group) => rows.group_tags(group.id).await?,
        None => Vec::new(),
    };
    let is_there = group.is_some();
    let shown = group.as_ref().map(|group| Version::of_group(&app, group).tag());
    let shown = shown.unwrap_or_default();
    let mode = group.as_ref().map_or(Mode::Off, |group| group.tags);
    let state = group.map(|group| group.state).unwrap_or_default();
    let lines = to_lines(&state);
    let platforms = state.platforms.join(" ");
    let typed = Typed {
        version: &shown,
        registry: &state.registry,
        platforms: &platforms,
        images: &lines,
        tags: mode.word(),
    };
    let form = editor(&visitor, &name, &typed, None, None);
    let content = html! {
        (form)
        @if is_there {
            p { a href={ "/console/rollouts/new?group=" (name) } { "Change its images batch by batch" } }
        }
        @if mode != Mode::Off { (tag_table(&visitor, &name, mode, &tags)) }
        h2 { "Satellites: " (members.len()) }
        @for satellite in members.iter().take(MEMBERS_MAX) {
            a href={ "/console/satellites/" (satellite.name) } { (satellite.name) } " "
        }
        @if members.len() > MEMBERS_MAX { "..." }
    };
    Ok(page(Some(&visitor), &name, &content))
}

/// What tags mean to the fleet, and at their registry.
fn tag_table(visitor: &Visitor, name: &str, mode: Mode, tags: &[GroupTag]) -> Markup {
    let is_pinned = mode == Mode::Pin;
    let waiting: Vec<&GroupTag> = tags.iter().filter(|tag| is_pinned && tag.is_waiting()).collect();
    html! {
        h2 { "Tags" }
        @if tags.is_empty() { p.muted { "The registry has not been asked yet." } }
        @if !waiting.is_empty() { (waiting_tags(visitor, name, &waiting, "group")) }
        @if !tags.is_empty() { div.scroll { table {
            thead { tr { th { "Tag" } th { "Satellites get" } th { "The registry says" } } }
            tbody { @for tag in tags.iter().take(MEMBERS_MAX) { tr {
                td { (tag.name()) }
                td { (short(&tag.digest)) }
                td {
                    @if !tag.problem.is_empty() { span.problem { (tag.problem) } }
                    @else if !tag.is_waiting() { "the same" }
                    @else if is_pinned { (short(&tag.seen)) ", which waits for approval" }
                    @else { (short(&tag.seen)) ", which comes next" }
                }
            } } }
        } } }
    }
}

fn short(digest: &str) -> Markup {
    html! { @if digest.is_empty() { "-" } @else { (digest_link(digest)) } }
}

/// What the fields of the form hold.
struct Typed<'a> {
    version: &'a str,
    registry: &'a str,
    platforms: &'a str,
    images: &'a str,
    tags: &'a str,
}

fn editor(
    visitor: &Visitor,
    name: &str,
    typed: &Typed<'_>,
    problem: Option<&str>,
    changes: Option<&Markup>,
) -> Markup {
    html! {
        h1 { "Group " (name) }
        @if let Some(changes) = changes { (changes) }
        @if let Some(problem) = problem { p.problem role="alert" { (problem) } }
        @if problem.is_some() { p { a href={ "/console/groups/" (name) } { "Show the group as it is" } } }
        form method="post" {
            (token(visitor)) (version(typed.version))
            label {
                "Registry the images come from"
                input name="registry" value=(typed.registry) placeholder="https://registry.example";
            }
            label {
                "Platforms to hold, with spaces between, or all; the device's own when empty"
                input name="platforms" value=(typed.platforms) placeholder="linux/arm/v7";
            }
            label {
                "Images, one a line: repository:tag, repository@sha256:..., or repository:tag@sha256:..."
                textarea name="images" spellcheck="false" { (typed.images) }
            }
            label {
                "Tags"
                select name="tags" {
                    @for (mode, meaning) in MODES {
                        option value=(mode.word()) selected[mode.word() == typed.tags] { (meaning) }
                    }
                }
            }
            div.row {
                button.plain name="step" value=(LOOK) { "Show what changes" }
                button { "Save" }
            }
        }
    }
}

/// What a state would change of a group, for people to look at before it is saved.
async fn changes(app: &App, mut state: GroupState, mode: Option<Mode>) -> Result<Markup, Fault> {
    let mut read = app.store.read().await?;
    let mut rows = read.rows();
    let group = rows.group(&state.group).await?;
    let members = match &group {
        Some(group) => rows.group_satellites(group.id).await?.len(),
        None => 0,
    };
    let held = group.as_ref().map_or(Mode::Off, |group| group.tags);
    let before = group.map(|group| group.state).unwrap_or_default();
    complete(&before.artifacts, &mut state.artifacts);
    state.check()?;
    state.registry.truncate(state.registry.trim_end_matches('/').len());
    let lines = |state: &GroupState| to_lines(state).lines().map(str::to_owned).collect();
    let (was, is): (BTreeSet<String>, BTreeSet<String>) = (lines(&before), lines(&state));
    let others = [
        ("registry", before.registry.clone(), state.registry.clone()),
        ("platforms", before.platforms.join(" "), state.platforms.join(" ")),
        ("tags", held.word().to_owned(), mode.unwrap_or(held).word().to_owned()),
    ];
    let others: Vec<_> = others.into_iter().filter(|(_, was, is)| was != is).collect();
    let or_none = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    Ok(html! {
        div.notice role="status" {
            @if was == is && others.is_empty() { p { "Nothing changes." } }
            @else { p { "Saved, it changes for " (members) " satellites:" } }
            @for image in was.difference(&is) { div.bad { "- " code { (image) } } }
            @for image in is.difference(&was) { div.good { "+ " code { (image) } } }
            @for (what, was, is) in &others {
                div { (what) ": " code { (or_none(was)) } " becomes " code { (or_none(is)) } }
            }
        }
    })
}

pub async fn save(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Path(name): Path<String>,
    Form(form): Form<forms::Group>,
) -> Result<Response, Fault> {
    visitor.check_editor(&form.form_token)?;
    let read = from_lines(&form.images).and_then(|images| Ok((images, mode(&form.tags)?)));
    let read = read.map(|(artifacts, mode)| {
        let state = GroupState {
            group: name.clone(),
            registry: form.registry.trim().to_owned(),
            artifacts,
            platforms: forms::words(&form.platforms).collect(),
            staged: None,
        };
        (state, mode)
    });
    let is_look = form.step == LOOK;
    let saved = match read {
        Ok((state, mode)) if is_look => changes(&app, state, mode).await.map(Some),
        Ok((state, mode)) => {
            let expected = match form.version.as_str() {
                "" => Expected::Absent,
                tag => Expected::shown(tag),
            };
            put_group(&app, visitor.actor(), &expected, (state, mode), complete).await.map(|_| None)
        }
        Err(fault) => Err(fault),
    };
    let typed = Typed {
        version: &form.version,
        registry: &form.registry,
        platforms: &form.platforms,
        images: &form.images,
        tags: &form.tags,
    };
    match saved {
        Ok(None) => Ok(Redirect::to(&format!("/console/groups/{name}")).into_response()),
        Ok(Some(changes)) => {
            let editor = editor(&visitor, &name, &typed, None, Some(&changes));
            Ok(page(Some(&visitor), &name, &editor).into_response())
        }
        // What was typed is not lost.
        Err(fault) if KEPT.contains(&fault.status) => {
            let problem = Some(fault.message.as_str());
            let editor = editor(&visitor, &name, &typed, problem, None);
            Ok((fault.status, page(Some(&visitor), &name, &editor)).into_response())
        }
        Err(fault) => Err(fault),
    }
}

/// As before where the form does not say.
fn mode(word: &str) -> Result<Option<Mode>, Fault> {
    match Mode::parse(word) {
        None if !word.is_empty() => {
            Err(Fault::bad(format!("tags {}: expected off, follow or pin", shown(word))))
        }
        mode => Ok(mode),
    }
}

pub fn from_lines(text: &str) -> Result<Vec<Artifact>, Fault> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    Ok(lines.map(Artifact::parse).collect::<Result<_, _>>()?)
}

/// Restores to the images of the lines what lines do not say and the group had: labels, types,
/// several tags of one image, and the images that are to be removed.
pub fn complete(before: &[Artifact], lines: &mut Vec<Artifact>) {
    let mut after: Vec<(Option<usize>, Artifact)> = Vec::new();
    for mut line in lines.drain(..) {
        let found = before
            .iter()
            .enumerate()
            .filter(|(_, old)| !old.deleted)
            .map(|(place, old)| (likeness(old, &line), place, old))
            .filter(|(likeness, ..)| *likeness > 0)
            .max_by_key(|(likeness, place, _)| (*likeness, std::cmp::Reverse(*place)));
        let place = found.map(|(_, place, _)| place);
        if let Some((_, _, old)) = found {
            line.labels.clone_from(&old.labels);
            line.kind.clone_from(&old.kind);
        }
        let joined = after.last_mut().filter(|(last, artifact)| {
            last.is_some()
                && *last == place
                && artifact.digest == line.digest
                && !artifact.tags.is_empty()
                && !line.tags.is_empty()
        });
        match joined {
            Some((_, artifact)) => artifact.tags.append(&mut line.tags),
            None => after.push((place, line)),
        }
    }
    let mut after: Vec<Artifact> = after.into_iter().map(|(_, artifact)| artifact).collect();
    // A line that names an image that was to be removed brings it back.
    let removed = before.iter().filter(|old| old.deleted);
    let removed = removed.filter(|old| after.iter().all(|line| likeness(old, line) == 0));
    let removed: Vec<Artifact> = removed.cloned().collect();
    after.extend(removed);
    *lines = after;
}

/// How surely both are the same image: by tag and digest, by tag, by digest, or not at all.
fn likeness(old: &Artifact, line: &Artifact) -> u8 {
    if old.repository != line.repository {
        return 0;
    }
    let same_digest = old.digest == line.digest;
    if old.tags.is_empty() && line.tags.is_empty() {
        return if same_digest { 3 } else { 0 };
    }
    let tag = line.tags.iter().any(|tag| old.tags.contains(tag));
    let digest = same_digest && !line.digest.is_empty();
    2 * u8::from(tag) + u8::from(digest || (tag && same_digest))
}

/// One line for each tag. What is to be removed has none.
pub fn to_lines(state: &GroupState) -> String {
    let artifacts = state.artifacts.iter().filter(|artifact| !artifact.deleted);
    artifacts.flat_map(Artifact::references).map(|image| image + "\n").collect()
}

/// With these answers what was typed stays in the form.
const KEPT: [StatusCode; 2] = [StatusCode::BAD_REQUEST, StatusCode::PRECONDITION_FAILED];
const MEMBERS_MAX: usize = 200;
/// The step of the form that saves nothing.
const LOOK: &str = "look";
const MODES: [(Mode, &str); 3] = [
    (Mode::Off, "Each satellite asks the registry for itself"),
    (Mode::Follow, "Asked here, and followed by all satellites together"),
    (Mode::Pin, "Asked here, and kept until another is approved"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_images() {
        let digest = "sha256:3e38f337856c3763a9ffe3a11da3bf216616964dcc7454c918229773c6d8a56a";
        let text = format!("library/nginx:1.25@{digest}\na/b@{digest}\nc:1\n");
        let artifacts = from_lines(&format!("  \n{text}")).unwrap();
        let state = GroupState { group: "g".into(), artifacts, ..GroupState::default() };
        state.check().unwrap();
        assert_eq!(to_lines(&state), text);
        assert!(from_lines("a:1\na").err().unwrap().message.contains("a tag or a digest"));
    }

    #[test]
    fn lines_lose_nothing_that_the_api_said() {
        let digest = "sha256:3e38f337856c3763a9ffe3a11da3bf216616964dcc7454c918229773c6d8a56a";
        let image = |repository: &str, tags: &[&str], kind: &str, labels| Artifact {
            repository: repository.into(),
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            kind: kind.into(),
            digest: digest.into(),
            labels: Some(serde_json::json!([labels])),
            ..Artifact::default()
        };
        let removed = Artifact { deleted: true, ..image("gone", &["1"], "IMAGE", "g") };
        let before = vec![
            image("a", &["1", "2"], "CHART", "one"),
            removed.clone(),
            image("a", &["3"], "", "two"),
        ];
        let state = GroupState { artifacts: before.clone(), ..GroupState::default() };
        let text = to_lines(&state);
        assert!(!text.contains("gone"), "{text}");
        let saved = |text: &str| {
            let mut lines = from_lines(text).unwrap();
            complete(&before, &mut lines);
            lines
        };
        let kept = vec![before[0].clone(), before[2].clone(), removed];
        assert_eq!(saved(&text), kept);
        // A line less is an image less, and a new one is new.
        let other = saved("a:2\nb:1\n");
        assert_eq!((&other[0].tags, &other[0].kind), (&vec!["2".to_owned()], &"CHART".to_owned()));
        assert_eq!((&other[0].labels, &other[1].labels), (&before[0].labels, &None));
        assert!(other[2].deleted && other.len() == 3);
        // Naming it is wanting it.
        let back = saved("gone:1");
        assert!(back.len() == 1 && !back[0].deleted);
    }
}
