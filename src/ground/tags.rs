//! What the tags of groups mean, looked up for the whole fleet, so that it moves together.
//!
//! A group whose tags are resolved is published with digests in their place. The registries are
//! asked by HEAD at an interval, each one tag at a time and so many a second, by one server for
//! all. Where a registry does not answer, or knows no such tag, nothing changes: the last answer
//! counts, and a tag that was never resolved goes out as it is. A tag that moved is an event, and
//! then either followed at once or kept until a person approves it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::app::App;
use super::fault::Fault;
use super::http::Client;
use super::journal::Kind;
use super::model::Mode;
use super::registry::{Error, Registry};
use super::store::{Duty, Group, GroupTag, Lead};
use super::{clock, journal, publish};
use crate::fleet::config::Taken;
use crate::fleet::state::{ARTIFACTS_MAX, GroupState};

/// The tags that are to be resolved: repository and tag.
fn wanted(state: &GroupState) -> BTreeSet<(String, String)> {
    let artifacts = state.artifacts.iter().filter(|one| one.digest.is_empty() && !one.deleted);
    let tags =
        artifacts.flat_map(|one| one.tags.iter().map(|tag| (one.repository.clone(), tag.clone())));
    tags.take(ARTIFACTS_MAX).collect()
}

/// Runs until it is dropped.
pub async fn run(app: Arc<App>, interval: Duration) {
    let mut lead: Option<Lead> = None;
    let mut watch = Watch::default();
    let mut rounds = tokio::time::interval(ROUND);
    rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = rounds.tick() => {}
            Some(turn) = watch.turns.join_next() => {
                match turn {
                    Ok(turn) => watch.end(&app, turn).await,
                    // Which registry it was of is not known: all are asked anew.
                    Err(error) => {
                        tracing::error!("watching tags: {error}");
                        watch = Watch::default();
                    }
                }
                continue;
            }
        }
        let holds = match &mut lead {
            Some(lead) => lead.holds().await,
            None => false,
        };
        if !holds {
            // Another server asks now.
            watch = Watch::default();
            lead = match app.store.lead(Duty::Tags).await {
                Ok(lead) => lead,
                Err(error) => {
                    tracing::warn!("watching tags: {error}");
                    None
                }
            };
        }
        if lead.is_some()
            && let Err(fault) = watch.begin(&app, interval).await
        {
            tracing::warn!("watching tags: {}", fault.message);
        }
    }
}

/// What is asked of one registry in a turn: group, and the tag as it was.
type Asked = Vec<(i64, String, GroupTag)>;

/// What one registry answered.
struct Turn {
    base: String,
    seen: Asked,
    is_away: bool,
}

/// The registries that are asked, each in a turn of its own: none waits for another.
#[derive(Default)]
struct Watch {
    turns: JoinSet<Turn>,
    busy: BTreeSet<String>,
    /// Those that are left alone: how long, and until when.
    resting: BTreeMap<String, (Duration, Instant)>,
    /// When each was asked last: who waited longest comes first.
    asked: BTreeMap<String, Instant>,
}

impl Watch {
    /// Begins the turns that are due.
    async fn begin(&mut self, app: &App, interval: Duration) -> Result<(), Fault> {
        let mut due = due(app, interval).await?;
        self.asked.retain(|base, _| due.contains_key(base) || self.busy.contains(base));
        let now = Instant::now();
        due.retain(|base, _| {
            let rests = self.resting.get(base).is_some_and(|(_, until)| *until > now);
            !rests && !self.busy.contains(base)
        });
        let mut due: Vec<(String, Asked)> = due.into_iter().collect();
        due.sort_by_key(|(base, _)| self.asked.get(base).copied());
        due.truncate(REGISTRIES_MAX.saturating_sub(self.busy.len()));
        for (base, asked) in due {
            let registry = registry(app, &base).await?;
            self.busy.insert(base.clone());
            self.asked.insert(base.clone(), now);
            self.turns.spawn(async move {
                let (seen, is_away) = look(&registry, asked).await;
                Turn { base, seen, is_away }
            });
        }
        Ok(())
    }

    /// Keeps what a turn saw.
    async fn end(&mut self, app: &App, turn: Turn) {
        let Turn { base, seen, is_away } = turn;
        self.busy.remove(&base);
        if is_away {
            let pause = self.resting.get(&base).map(|(pause, _)| (*pause * 2).min(PAUSE_MAX));
            let pause = pause.unwrap_or(PAUSE_MIN);
            self.resting.insert(base.clone(), (pause, Instant::now() + pause));
        } else {
            self.resting.remove(&base);
        }
        let mut groups: BTreeMap<String, Vec<GroupTag>> = BTreeMap::new();
        for (_, name, tag) in seen {
            groups.entry(name).or_default().push(tag);
        }
        for (name, tags) in groups {
            if let Err(fault) = take(app, &name, &base, &tags).await {
                tracing::warn!("tags of group {name}: {}", fault.message);
                // Not asked each second for what cannot be kept.
                self.resting.insert(base.clone(), (PAUSE_MIN, Instant::now() + KEEP_PAUSE));
            }
        }
    }
}

/// What is to be looked at, by registry.
async fn due(app: &App, interval: Duration) -> Result<BTreeMap<String, Asked>, Fault> {
    let before = clock::now() - i64::try_from(interval.as_micros()).unwrap_or(i64::MAX);
    let mut due: BTreeMap<String, Asked> = BTreeMap::new();
    let mut read = app.store.read().await?;
    let mut rows = read.rows();
    for group in rows.groups().await? {
        if group.tags == Mode::Off {
            continue;
        }
        let own = registry_of(app, &group);
        if own.is_empty() {
            continue;
        }
        let known = rows.group_tags(group.id).await?;
        let asked = due.entry(own.to_owned()).or_default();
        for (repository, tag) in wanted(&group.state) {
            let found = known.iter().find(|one| one.repository == repository && one.tag == tag);
            let one = found.cloned().unwrap_or(GroupTag { repository, tag, ..GroupTag::default() });
            if one.checked_at <= before && asked.len() < ASKED_MAX {
                asked.push((group.id, group.state.group.clone(), one));
            }
        }
    }
    due.retain(|_, asked| !asked.is_empty());
    Ok(due)
}

/// Where a group's tags are asked for; empty where it names no registry and there is none.
fn registry_of<'a>(app: &'a App, group: &'a Group) -> &'a str {
    if group.state.registry.is_empty() { app.home() } else { &group.state.registry }
}

/// A registry with the credentials that satellites are given for it, or that publishing has.
async fn registry(app: &App, base: &str) -> Result<Registry, Fault> {
    let failed = |error: String| Fault::internal("a client of a registry", &error);
    if let Some(publisher) = app.publisher.as_ref().filter(|publisher| publisher.url == base) {
        return Ok(publisher.reader());
    }
    let configs = app.store.read().await?.rows().configs().await?;
    let taken = configs.iter().filter_map(|one| serde_json::from_str::<Taken>(&one.config).ok());
    let mut given = taken.flat_map(|taken| taken.moonlet.registries);
    let plain = |url: &str| url.trim_end_matches('/').to_ascii_lowercase();
    let found = given.find(|one| plain(&one.url) == plain(base));
    let credentials = found.map(|one| (one.username, one.password));
    Ok(Registry::new(base, credentials, Client::new(None).map_err(failed)?))
}

/// Asks a registry, one tag after the other; whether it did not answer.
async fn look(registry: &Registry, asked: Asked) -> (Asked, bool) {
    let mut seen = Vec::new();
    let begun = Instant::now();
    for (group, name, mut tag) in asked {
        // The rest is due still, and comes when others had their turn.
        if begun.elapsed() > TURN_MAX {
            break;
        }
        let answer = tokio::time::timeout(ANSWER_MAX, registry.resolve(&tag.repository, &tag.tag));
        let answer = answer.await.unwrap_or_else(|_| {
            let seconds = ANSWER_MAX.as_secs();
            Err(Error::passing(format!("no answer within {seconds} s")))
        });
        tag.checked_at = clock::now();
        let is_away = answer.as_ref().is_err_and(|error| error.is_passing);
        match answer {
            Ok(Some(digest)) => {
                tag.seen = digest.to_string();
                tag.problem.clear();
            }
            Ok(None) => tag.problem = "the registry has no such tag".to_owned(),
            Err(error) => tag.problem = error.message,
        }
        seen.push((group, name, tag));
        // The others would not be answered either.
        if is_away {
            return (seen, true);
        }
        tokio::time::sleep(BETWEEN).await;
    }
    (seen, false)
}

/// Keeps what was seen of a group's tags, and what follows from it.
async fn take(app: &App, name: &str, base: &str, seen: &[GroupTag]) -> Result<(), Fault> {
    let mut write = app.store.change().await?;
    let mut rows = write.rows();
    let Some(group) = rows.group(name).await? else { return Ok(()) };
    // It may have been changed while the registry was asked.
    if group.tags == Mode::Off || registry_of(app, &group) != base {
        return Ok(());
    }
    let wanted = wanted(&group.state);
    let known = rows.group_tags(group.id).await?;
    // Two changes are not published at once.
    let is_busy = rows.active_rollout(group.id).await?.is_some();
    for tag in seen {
        if !wanted.contains(&(tag.repository.clone(), tag.tag.clone())) {
            continue;
        }
        let before =
            known.iter().find(|one| (&one.repository, &one.tag) == (&tag.repository, &tag.tag));
        let before = before.cloned().unwrap_or_default();
        let mut tag = GroupTag { digest: before.digest.clone(), ..tag.clone() };
        let is_new = !tag.seen.is_empty() && tag.seen != tag.digest;
        if is_new && !before.seen.is_empty() && before.seen != tag.seen {
            let what = format!("{}:{}", tag.repository, tag.tag);
            let message = format!("{} is {} now, and was {}", what, tag.seen, before.seen);
            rows.add_event(&journal::event(Kind::TagMoved, "", name, &message)).await?;
        }
        if is_new && !is_busy && (tag.digest.is_empty() || group.tags == Mode::Follow) {
            tag.digest.clone_from(&tag.seen);
        }
        rows.put_group_tag(group.id, &tag).await?;
    }
    for gone in known {
        if !wanted.contains(&(gone.repository.clone(), gone.tag.clone())) {
            rows.forget_group_tag(group.id, &gone).await?;
        }
    }
    publish::group(&mut rows, &group).await?;
    write.commit().await?;
    Ok(())
}

const ROUND: Duration = Duration::from_secs(1);
/// Between two tags of one registry.
const BETWEEN: Duration = Duration::from_millis(50);
/// Of one registry in a turn, and how long that may take.
const ASKED_MAX: usize = 100;
const TURN_MAX: Duration = Duration::from_secs(30);
/// Of one tag, with what a token takes.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// That are asked side by side.
const REGISTRIES_MAX: usize = 64;
const PAUSE_MIN: Duration = Duration::from_secs(2);
const PAUSE_MAX: Duration = Duration::from_secs(600);
/// After what was seen could not be kept.
const KEEP_PAUSE: Duration = Duration::from_secs(60);
