//! What a satellite is to hold against what it said it holds.
//!
//! A satellite is judged on axes that do not hide each other: its connection and its lifecycle are
//! in its row, and here are whether it is up to date and whether it is well, with the reason. Both
//! are decided once, when a report comes, and kept in a row for all who ask: nothing is assumed of
//! a satellite that says nothing. A change of what is desired takes `UpToDate` away until the next
//! one.
//!
//! Moonlets say of each image where it stands and why. Go satellites list what they hold, under
//! digests of their own making (a copy there is another manifest), so that of them a tag that is
//! held counts as in sync.

use std::collections::{BTreeMap, BTreeSet};

use crate::fleet::report::{Details, IMAGES_MAX, ImageStatus, Report};
use crate::fleet::state::GroupState;
use crate::ground::model::{Health, Outcome, Updated};
use crate::oci::Reference;
use crate::units::ByteCount;

/// One desired image on one satellite.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// `registry/repository:tag`.
    pub reference: String,
    /// The group that wants it.
    pub group: String,
    /// What the tag is to mean; empty where the group does not say.
    pub desired_digest: String,
    /// What the satellite holds under it; empty when nothing.
    pub digest: String,
    /// As the satellite names it; `missing` where it holds nothing.
    pub state: String,
    pub reason: String,
    pub held_bytes: u64,
    pub total_bytes: u64,
    pub in_sync: bool,
    /// The image without its registry: how a satellite serves it.
    pub name: String,
}

/// What was published for a satellite.
#[derive(Default)]
pub struct Published {
    /// Digests of its state and its configuration.
    pub state: Option<String>,
    pub config: Option<String>,
    /// What its groups said before; only looked at where it lists what they do not want.
    pub earlier: Vec<GroupState>,
}

/// What a report amounts to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assessment {
    pub images: Vec<Standing>,
    /// What it does by something that was published before, if it does.
    pub earlier: Option<String>,
    pub updated: Updated,
    pub health: Health,
    /// Why it is not up to date or not well, in a line; empty otherwise.
    pub reason: String,
}

/// Compares what the groups want, and what is published, with a report. Images without a registry
/// are those of `url`.
pub fn assess(
    url: &str,
    groups: &[GroupState],
    published: &Published,
    report: &Report,
) -> Assessment {
    let images = standings(url, groups, Some(report));
    let behind: Vec<&Standing> = images.iter().filter(|image| !image.in_sync).collect();
    let earlier = earlier(url, groups, published, report);
    let updated = if behind.is_empty() && earlier.is_none() {
        Updated::UpToDate
    } else if behind
        .iter()
        .all(|image| ["pending", "syncing", "waiting", STAGED].contains(&&*image.state))
    {
        Updated::Updating
    } else {
        Updated::OutOfDate
    };
    let (health, mut reason) = health(report);
    if let (true, Some(first)) = (reason.is_empty(), behind.first()) {
        reason = line(&first.reference, &first.state, &first.reason);
        if behind.len() > 1 {
            reason.push_str(&format!(" (and {} more)", behind.len() - 1));
        }
    }
    if reason.is_empty() {
        reason = earlier.clone().unwrap_or_default();
    }
    Assessment { updated, health, reason, images, earlier }
}

/// Where a satellite is with one of its groups, and why it is not updated.
pub fn outcome(assessment: &Assessment, group: &str) -> (Outcome, String) {
    if let Some(earlier) = &assessment.earlier {
        return (Outcome::Updating, earlier.clone());
    }
    let mut behind =
        assessment.images.iter().filter(|image| image.group == group && !image.in_sync);
    let failed = behind.clone().find(|image| image.state == FAILED);
    match failed.or_else(|| behind.next()) {
        None => (Outcome::Updated, String::new()),
        Some(image) => {
            let outcome = if failed.is_some() { Outcome::Failed } else { Outcome::Updating };
            (outcome, line(&image.reference, &image.state, &image.reason))
        }
    }
}

/// What a Moonlet says it does by something that was published before; None where all is current.
fn earlier(
    url: &str,
    groups: &[GroupState],
    published: &Published,
    report: &Report,
) -> Option<String> {
    report.moonlet.as_ref()?;
    for (what, reported, current) in [
        ("state", &report.latest_state_digest, &published.state),
        ("configuration", &report.latest_config_digest, &published.config),
    ] {
        if !reported.is_empty() && current.as_ref().is_some_and(|current| current != reported) {
            return Some(format!("it has not applied the current {what} yet"));
        }
    }
    // What no group ever wanted is of the device's own configuration, and stays.
    let before: BTreeSet<(String, String)> =
        wanted(url, &published.earlier).map(|wanted| key(&wanted.reference)).collect();
    let image = surplus(url, groups, report).find(|image| {
        parse(&image.reference).is_some_and(|reference| before.contains(&key(&reference)))
    })?;
    Some(line(&image.reference, &image.state, "no group wants it any more"))
}

/// The images that a Moonlet lists and its groups do not want. Those of its own configuration are
/// among them.
pub fn surplus<'a>(
    url: &str,
    groups: &[GroupState],
    report: &'a Report,
) -> impl Iterator<Item = &'a ImageStatus> + use<'a> {
    let wanted: BTreeSet<(String, String)> =
        wanted(url, groups).map(|wanted| key(&wanted.reference)).collect();
    let listed = report.moonlet.iter().flat_map(|details| &details.images);
    listed.filter(move |image| {
        parse(&image.reference).is_some_and(|reference| !wanted.contains(&key(&reference)))
    })
}

fn health(report: &Report) -> (Health, String) {
    let Some(details) = &report.moonlet else { return (Health::Healthy, String::new()) };
    if let Some(failed) = details.images.iter().find(|image| is_failed(image)) {
        return (Health::Error, line(&failed.reference, &failed.state, &failed.reason));
    }
    if let Some(problem) = details.problems.first() {
        return (Health::Degraded, problem.clone());
    }
    if let Some(image) = details.images.iter().find(|image| image.state == UNCHECKED) {
        return (Health::Degraded, line(&image.reference, &image.state, &image.reason));
    }
    if is_flash_worn(details) {
        let percent = details.flash_used_percent.unwrap_or_default();
        return (Health::Degraded, format!("flash: {percent:.0} % of its rated life is used"));
    }
    if is_storage_nearly_full(report) {
        let used = ByteCount(storage_needed_bytes(report));
        let size = ByteCount(details.storage_size_bytes);
        return (Health::Degraded, format!("storage: {used} of {size} are in use"));
    }
    (Health::Healthy, String::new())
}

/// Whether the last attempt at an image failed.
pub fn is_failed(image: &ImageStatus) -> bool {
    image.state == FAILED
}

/// Whether little of the flash's rated life is left.
pub fn is_flash_worn(details: &Details) -> bool {
    details.flash_used_percent.is_some_and(|percent| percent >= FLASH_WORN_PERCENT)
}

/// Whether little of the store is left.
pub fn is_storage_nearly_full(report: &Report) -> bool {
    let size = report.moonlet.as_ref().map_or(0, |details| details.storage_size_bytes);
    size > 0 && storage_needed_bytes(report) / STORAGE_FULL_PERCENT >= size / 100
}

/// What is in use of a store and cannot be evicted: a full cache is no trouble.
pub fn storage_needed_bytes(report: &Report) -> u64 {
    let cached = report.moonlet.as_ref().map_or(0, |details| details.storage_cached_bytes);
    report.storage_used_bytes.saturating_sub(cached)
}

/// The names and digests of the images that a satellite holds.
pub fn held(report: &Report) -> BTreeSet<(String, String)> {
    let reported = Reported::of(report);
    let listed = reported.cached.into_iter().map(|(name, (digest, _))| (name, digest));
    let named = reported.detailed.into_iter().flatten();
    let named = named.flat_map(|(name, images)| {
        let held = images.into_iter().filter(|(_, image)| !image.digest.is_empty());
        held.map(move |(_, image)| (name.clone(), image.digest.clone()))
    });
    // PostgreSQL keeps no NUL in a text. A reference has none, but a digest is what came.
    listed.chain(named).filter(|(_, digest)| !digest.contains('\0')).collect()
}

/// A report by the names of its images.
struct Reported<'a> {
    /// Registry and image; None of a satellite that does not say.
    detailed: Option<BTreeMap<String, Vec<(String, &'a ImageStatus)>>>,
    /// Digest and bytes.
    cached: BTreeMap<String, (String, u64)>,
}

impl<'a> Reported<'a> {
    fn of(report: &'a Report) -> Self {
        let detailed = report.moonlet.as_ref().map(|details| {
            let mut images: BTreeMap<String, Vec<_>> = BTreeMap::new();
            for image in &details.images {
                if let Some(reference) = parse(&image.reference) {
                    images.entry(name(&reference)).or_default().push((reference.registry, image));
                }
            }
            images
        });
        let cached = report.cached_images.iter().filter_map(|image| {
            let (front, digest) = image.reference.split_once('@').unwrap_or((&image.reference, ""));
            let bytes = u64::try_from(image.size_bytes).unwrap_or(0);
            // Without its digest a text without a tag would be the tag `latest`.
            let mut reference = parse(front)?;
            if !digest.is_empty() && !front.ends_with(":latest") {
                reference.tag = reference.tag.filter(|tag| tag != "latest");
                reference.digest = digest.parse().ok();
            }
            Some((name(&reference), (digest.to_owned(), bytes)))
        });
        Self { detailed, cached: cached.collect() }
    }

    fn standing(&self, wanted: &Reference, is_staged: bool, mut image: Standing) -> Standing {
        if let Some(detailed) = &self.detailed {
            let found = detailed.get(&image.name).map_or(&[][..], Vec::as_slice);
            let own = found.iter().filter(|(registry, _)| *registry == wanted.registry);
            let mut fitting = own.clone().filter(|(_, one)| (one.state == STAGED) == is_staged);
            // It lists what it is to hold later behind what it is to hold now.
            let other = if is_staged { own.clone().next_back() } else { own.clone().next() };
            let Some((_, status)) = fitting.next().or(other).or(found.first()) else {
                image.reason = "the satellite has not said anything of it".to_owned();
                return image;
            };
            image.state.clone_from(&status.state);
            image.reason.clone_from(&status.reason);
            image.digest.clone_from(&status.digest);
            (image.held_bytes, image.total_bytes) = (status.held_bytes, status.total_bytes);
            let is_held = status.state == "held" || status.state.starts_with("held ");
            // What it has under its tag already is not staged any more.
            let is_held = is_held || (is_staged && status.state == STAGED);
            let is_same = image.desired_digest.is_empty() || image.desired_digest == status.digest;
            // A later attempt may wait or have failed: what is desired by digest is whole all the
            // same.
            let is_whole = !is_staged
                && status.state != STAGED
                && !image.desired_digest.is_empty()
                && status.total_bytes > 0
                && status.held_bytes == status.total_bytes;
            image.in_sync = is_same && (is_held || is_whole);
            if is_held && !is_same && image.reason.is_empty() {
                image.reason = "another digest is desired".to_owned();
            }
        } else if let Some((digest, bytes)) = self.cached.get(&image.name) {
            "held".clone_into(&mut image.state);
            image.digest.clone_from(digest);
            (image.held_bytes, image.total_bytes) = (*bytes, *bytes);
            image.in_sync = true;
        }
        image
    }
}

/// What groups want, image by image, and what a report says of each.
pub fn standings(url: &str, groups: &[GroupState], report: Option<&Report>) -> Vec<Standing> {
    let reported = report.map(Reported::of);
    let mut seen = BTreeMap::new();
    let mut images = Vec::new();
    for Wanted { reference: wanted, group, digest, deleted, is_staged } in wanted(url, groups) {
        let reference = wanted.to_string();
        // Go satellites stage nothing. What is held now has nothing to wait for, and what is
        // removed then is there until then.
        let is_now = is_staged
            && (deleted
                || reported.as_ref().is_some_and(|one| one.detailed.is_none())
                || seen.get(&(reference.clone(), false)) == Some(&(digest, false)));
        let is_full = images.len() == IMAGES_MAX;
        let place = (reference.clone(), is_staged);
        if is_full || is_now || seen.insert(place, (digest, deleted)).is_some() {
            continue;
        }
        let image = Standing {
            reference,
            group: group.to_owned(),
            desired_digest: digest.to_owned(),
            state: "missing".to_owned(),
            name: name(&wanted),
            ..Standing::default()
        };
        let image = match &reported {
            Some(reported) => reported.standing(&wanted, is_staged, image),
            None => Standing { state: "unknown".to_owned(), ..image },
        };
        match (deleted, image.digest.is_empty() || image.state == STAGED) {
            (false, _) => images.push(image),
            // What is to be removed and is gone is no image any more.
            (true, true) => {}
            (true, false) => images.push(Standing {
                in_sync: false,
                reason: "it is to be removed".to_owned(),
                ..image
            }),
        }
    }
    images
}

/// An image that a group wants.
struct Wanted<'a> {
    reference: Reference,
    group: &'a str,
    digest: &'a str,
    /// It is to be removed.
    deleted: bool,
    /// It is to be kept for later.
    is_staged: bool,
}

/// The images that groups want, those that are staged behind all others.
fn wanted<'a>(url: &'a str, groups: &'a [GroupState]) -> impl Iterator<Item = Wanted<'a>> {
    let now = groups.iter().map(|group| (&*group.group, &*group.registry, &group.artifacts, false));
    let staged = groups.iter().filter_map(|group| {
        let staged = group.staged.as_ref()?;
        Some((&*group.group, &*staged.registry, &staged.artifacts, true))
    });
    now.chain(staged).flat_map(move |(group, registry, artifacts, is_staged)| {
        let registry = if registry.is_empty() { url } else { registry };
        let host = registry.split_once("://").map_or(registry, |(_, host)| host);
        let host = host.trim_end_matches('/');
        artifacts.iter().flat_map(move |artifact| {
            let repository = &artifact.repository;
            let by_digest = artifact.tags.is_empty().then(|| format!("@{}", artifact.digest));
            let tags = artifact.tags.iter().map(|tag| format!(":{tag}"));
            tags.chain(by_digest).filter_map(move |end| {
                let reference = parse(&format!("{host}/{repository}{end}"))?;
                let (digest, deleted) = (artifact.digest.as_str(), artifact.deleted);
                Some(Wanted { reference, group, digest, deleted, is_staged })
            })
        })
    })
}

fn parse(text: &str) -> Option<Reference> {
    text.parse().ok()
}

/// An image without its registry, which is the satellite's own where it serves it.
fn name(reference: &Reference) -> String {
    match (&reference.tag, &reference.digest) {
        (Some(tag), _) => format!("{}:{tag}", reference.repository),
        (None, Some(digest)) => format!("{}@{digest}", reference.repository),
        (None, None) => reference.repository.clone(),
    }
}

/// An image and its registry, for comparing.
fn key(reference: &Reference) -> (String, String) {
    (reference.registry.clone(), name(reference))
}

fn line(reference: &str, state: &str, reason: &str) -> String {
    let reason = if reason.is_empty() { String::new() } else { format!(": {reason}") };
    let line = format!("{reference}: {state}{reason}");
    line.chars().filter(|sign| *sign != '\0').take(REASON_CHARS_MAX).collect()
}

/// The state word of an image that cannot be had.
const FAILED: &str = "failed";
/// That of one that is held whole and whose registry cannot be asked.
const UNCHECKED: &str = "held (registry unavailable)";
/// That of one that is kept for later.
const STAGED: &str = "staged";
const FLASH_WORN_PERCENT: f64 = 90.0;
const STORAGE_FULL_PERCENT: u64 = 95;
const REASON_CHARS_MAX: usize = 1024;

#[cfg(test)]
mod tests;
