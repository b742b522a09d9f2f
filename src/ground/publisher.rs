//! Puts what was published into another registry: what the database says is compared with what was
//! put there, and what differs is put there again.
//!
//! The comparison is the queue. A change commits and is answered without waiting for a registry; a
//! crash between the two, or a registry that was away, leaves a difference that the next round
//! finds. One server does it for all. What was put there is looked at again each hour, so that a
//! registry that lost something gets it back. With Harbor, each satellite's robot account follows
//! from the same rows.
//!
//! A failure that says nothing of the artifact ends the round, and the pauses between rounds grow;
//! what the registry refuses of one artifact holds up no other, but for the states that name it.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use tokio::sync::Mutex;

use super::app::App;
use super::fault::Fault;
use super::harbor::{Harbor, ROBOT_RENEW_SECONDS};
use super::http::Client;
use super::journal::Kind;
use super::registry::{Error, Registry};
use super::signer::Signer;
use super::store::{Duty, Lead, Publishing, Robot, Rows, Satellite, Unpushed};
use super::{clock, journal, secret};
use crate::fleet::state::GroupState;

/// Where artifacts are put, by the settings.
#[derive(Clone)]
pub struct Target {
    pub is_harbor: bool,
    /// Scheme and host, without a slash at the end.
    pub url: String,
    pub credentials: Option<(String, String)>,
    pub ca_file: Option<PathBuf>,
    /// Key and certificate of the tokens that the registry takes, if it asks this server for them.
    pub token: Option<(PathBuf, PathBuf)>,
}

impl std::fmt::Debug for Target {
    /// Leaves the credentials out.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Target").field("url", &self.url).finish_non_exhaustive()
    }
}

/// A registry that artifacts are put into.
pub struct Publisher {
    /// Scheme and host, as satellites are given it.
    pub url: String,
    registry: Registry,
    credentials: Option<(String, String)>,
    client: Client,
    harbor: Option<Harbor>,
    /// Where the registry asks this server who may do what.
    pub signer: Option<Signer>,
    /// Two secrets for one robot would cross.
    giving: [Mutex<()>; GIVING_MAX],
}

/// What a server that publishes remembers between rounds.
#[derive(Default)]
struct Memory {
    lead: Option<Lead>,
    /// The newest artifact when all was done, and when that was.
    done: Option<(i64, Instant)>,
    project_checked: Option<Instant>,
    warning: String,
    /// What the registry refuses, since how many rounds, and when it is tried again.
    refused: BTreeMap<String, (u32, Instant)>,
}

impl Publisher {
    pub fn new(target: Target) -> Result<Self, String> {
        let client = Client::new(target.ca_file.as_deref())?;
        let harbor = match (&target.credentials, target.is_harbor) {
            (Some((name, secret)), true) => {
                Some(Harbor::new(&target.url, (name, secret), client.clone()))
            }
            _ => None,
        };
        let Target { url, credentials, token, .. } = target;
        let signer = token.map(|(key, certificate)| Signer::open(&key, &certificate));
        let signer = signer.transpose()?;
        let registry = Registry::new(&url, credentials.clone(), client.clone());
        let giving = Default::default();
        Ok(Self { url, registry, credentials, client, harbor, signer, giving })
    }

    /// Whether these are the credentials that this server has for the registry.
    pub fn is_own(&self, username: &str, password: &str) -> bool {
        // Hashes take as long to compare whatever they are of.
        let hash =
            |name: &str, password: &str| blake3::hash(format!("{name}:{password}").as_bytes());
        let own = self.credentials.as_ref().map(|(name, password)| hash(name, password));
        own == Some(hash(username, password))
    }

    /// The same registry, for who only reads.
    pub fn reader(&self) -> Registry {
        Registry::new(&self.url, self.credentials.clone(), self.client.clone())
    }

    /// What it is, for people.
    pub fn kind(&self) -> &'static str {
        if self.harbor.is_some() { "harbor" } else { "registry" }
    }

    /// A secret that the target takes.
    pub fn secret(&self, random: String) -> String {
        // Harbor wants an upper-case letter.
        if self.harbor.is_some() { format!("Gc1{random}") } else { random }
    }

    /// Runs until it is dropped.
    pub async fn run(self: Arc<Self>, app: Arc<App>) {
        let mut memory = Memory::default();
        let mut pause = ROUND;
        loop {
            tokio::time::sleep(pause).await;
            match self.round(&app, &mut memory).await {
                Ok(()) => pause = ROUND,
                Err(error) => {
                    pause = (pause * 2).min(PAUSE_MAX);
                    let (url, seconds) = (&self.url, pause.as_secs());
                    tracing::warn!("publishing to {url}: {error}; next attempt in {seconds} s");
                }
            }
        }
    }

    /// Does what there is to do, if this server is the one that does it.
    async fn round(&self, app: &App, memory: &mut Memory) -> Result<(), String> {
        let has_lead = match &mut memory.lead {
            Some(lead) => lead.holds().await,
            None => false,
        };
        if !has_lead {
            *memory = Memory { lead: app.store.lead(Duty::Publishing).await?, ..Memory::default() };
            if memory.lead.is_none() {
                return Ok(());
            }
        }
        let failed = |error: sqlx::Error| error.to_string();
        let mark = app.store.read().await.map_err(failed)?.rows().published_mark().await;
        let mark = mark.map_err(failed)?;
        if memory.done.is_some_and(|(done, at)| done == mark && at.elapsed() < LOOK_AGAIN) {
            return Ok(());
        }
        memory.done = None;
        let outcome = self.pass(app, memory).await;
        let problem = match &outcome {
            Ok(refusal) if refusal.is_empty() => memory.warning.clone(),
            Ok(refusal) => refusal.clone(),
            Err(error) => error.message.clone(),
        };
        let noted = self.note(app, &problem).await.map_err(|fault| fault.message);
        match outcome {
            Ok(_) => {
                memory.done = Some((mark, Instant::now()));
                noted
            }
            Err(error) => {
                app.metrics.publish_failures.add_one();
                Err(error.message)
            }
        }
    }

    /// Brings the target up to date: what it refuses, in a line.
    async fn pass(&self, app: &App, memory: &mut Memory) -> Result<String, Error> {
        let mut refusal = String::new();
        if let Some(harbor) = &self.harbor {
            if memory.project_checked.is_none_or(|at| at.elapsed() > CHECK) {
                memory.warning = harbor.ensure_project(PROJECT).await?.unwrap_or_default();
                memory.project_checked = Some(Instant::now());
            }
            refusal = self.robots(app, harbor).await?;
        }
        while let Some(message) = self.push_some(app, memory).await? {
            if !message.is_empty() {
                refusal = message;
            }
        }
        if let (true, Some(repository)) = (refusal.is_empty(), memory.refused.keys().next()) {
            refusal = format!("{repository} was refused");
        }
        self.clean(app).await?;
        self.check(app).await?;
        Ok(refusal)
    }

    /// Puts some of what is missing there: what was refused of it, in a line. None where nothing
    /// could be put there.
    async fn push_some(&self, app: &App, memory: &mut Memory) -> Result<Option<String>, Error> {
        let mut read = app.store.read().await.map_err(database)?;
        let unpushed = read.rows().unpushed(&self.url, LISTED_MAX).await.map_err(database)?;
        drop(read);
        let mut refusal = String::new();
        let mut pushed = 0;
        for one in unpushed {
            if memory.is_waiting(&one.repository) {
                continue;
            }
            match self.push(app, &one, memory).await {
                Ok(true) => pushed += 1,
                Ok(false) => {}
                Err(error) if error.is_passing => return Err(error),
                Err(error) => {
                    memory.refuse(&one.repository);
                    refusal = error.message;
                }
            }
            // What was changed meanwhile does not wait behind all of a large fleet.
            if pushed == BATCH_MAX {
                break;
            }
        }
        Ok((pushed > 0 || !refusal.is_empty()).then_some(refusal))
    }

    /// False for what has to wait for what it names.
    async fn push(&self, app: &App, one: &Unpushed, memory: &mut Memory) -> Result<bool, Error> {
        let mut read = app.store.read().await.map_err(database)?;
        let found = read.rows().artifact(&one.repository, &one.digest).await.map_err(database)?;
        drop(read);
        // Changed meanwhile: the next look has what came after.
        let Some((artifact, content)) = found else { return Ok(false) };
        if memory.names_refused(&content) {
            return Ok(false);
        }
        if self.registry.publish(&one.repository, &artifact).await? {
            app.metrics.published.add_one();
        }
        memory.refused.remove(&one.repository);
        // If the server loses power, it is found to be there.
        let mut write = app.store.report().await.map_err(database)?;
        let (repository, digest) = (&one.repository, &one.digest);
        let set = write.rows().set_pushed(&self.url, repository, digest, clock::now()).await;
        set.map_err(database)?;
        write.commit().await.map_err(database)?;
        Ok(true)
    }

    /// Takes away what nothing wants any more, as far as the registry lets it.
    async fn clean(&self, app: &App) -> Result<(), Error> {
        let mut read = app.store.read().await.map_err(database)?;
        let surplus = read.rows().surplus_pushed(&self.url, CHECKS_MAX).await.map_err(database)?;
        drop(read);
        for repository in surplus {
            match self.registry.remove(&repository).await {
                Ok(true) => {}
                Ok(false) => tracing::info!("{repository}: {} deletes nothing", self.url),
                Err(error) if error.is_passing => return Err(error),
                Err(error) => {
                    tracing::warn!("{repository} stays at {}: {}", self.url, error.message)
                }
            }
            let mut write = app.store.report().await.map_err(database)?;
            write.rows().forget_pushed(&self.url, &repository).await.map_err(database)?;
            write.commit().await.map_err(database)?;
        }
        Ok(())
    }

    /// Looks whether what was put there is still there.
    async fn check(&self, app: &App) -> Result<(), Error> {
        let now = clock::now();
        let before = now - i64::try_from(CHECK.as_micros()).unwrap_or(i64::MAX);
        let mut read = app.store.read().await.map_err(database)?;
        let unchecked = read.rows().unchecked_pushed(&self.url, before, CHECKS_MAX).await;
        drop(read);
        for (repository, digest) in unchecked.map_err(database)? {
            let there = self.registry.resolve(&repository, "latest").await?;
            let is_there = there.is_some_and(|there| there.to_string() == digest);
            let mut write = app.store.report().await.map_err(database)?;
            let mut rows = write.rows();
            if is_there {
                rows.set_pushed(&self.url, &repository, &digest, now).await.map_err(database)?;
            } else {
                tracing::warn!("{repository}: {} has lost it", self.url);
                rows.forget_pushed(&self.url, &repository).await.map_err(database)?;
            }
            write.commit().await.map_err(database)?;
        }
        Ok(())
    }

    /// Brings the robot accounts up to date: what Harbor refuses, in a line.
    async fn robots(&self, app: &App, harbor: &Harbor) -> Result<String, Error> {
        let mut read = app.store.read().await.map_err(database)?;
        let mut rows = read.rows();
        let mut known: BTreeMap<String, Robot> = BTreeMap::new();
        for robot in rows.robots(&self.url).await.map_err(database)? {
            known.insert(robot.satellite.clone(), robot);
        }
        let homed = rows.homed(&self.url).await.map_err(database)?;
        let projects = self.projects(&mut rows).await.map_err(database)?;
        drop(read);
        let mut refusal = String::new();
        let now = clock::now();
        for (name, groups) in homed {
            let robot = known.remove(&name);
            let wanted = wanted_projects(&projects, &groups);
            if robot.as_ref().is_some_and(|robot| is_current(robot, &wanted, now)) {
                continue;
            }
            match self.ensure(app, harbor, &name, &wanted).await {
                Ok(_) => {}
                Err(error) if error.is_passing => return Err(error),
                Err(error) => refusal = error.message,
            }
        }
        // Of satellites that are revoked, deleted, or read their state elsewhere.
        for robot in known.into_values() {
            harbor.delete_robot(robot.robot_id).await?;
            let mut write = app.store.write().await.map_err(database)?;
            write.rows().forget_robot(&self.url, &robot.satellite).await.map_err(database)?;
            write.commit().await.map_err(database)?;
        }
        Ok(refusal)
    }

    /// Makes a robot account, or updates the projects and the time of one.
    async fn ensure(
        &self,
        app: &App,
        harbor: &Harbor,
        satellite: &str,
        wanted: &BTreeSet<String>,
    ) -> Result<i64, Error> {
        let now = clock::now();
        let (made, projects) = harbor.ensure_robot(satellite, wanted, now / clock::SECOND).await?;
        let robot = Robot {
            satellite: satellite.to_owned(),
            robot_id: made.id,
            projects: joined(&projects),
            wanted: joined(wanted),
            expires_at: made.expires_at,
            secret_hash: String::new(),
            updated_at: now,
        };
        let mut write = app.store.write().await.map_err(database)?;
        write.rows().put_robot(&self.url, &robot).await.map_err(database)?;
        write.commit().await.map_err(database)?;
        Ok(made.id)
    }

    /// Makes a secret good at the target, before it is sent to a satellite.
    pub async fn enable_secret(
        &self,
        app: &App,
        satellite: &Satellite,
        given: &str,
    ) -> Result<(), Fault> {
        let Some(harbor) = &self.harbor else { return Ok(()) };
        let failed = |error: Error| {
            tracing::warn!(
                "satellite {} waits for its credentials: {}",
                satellite.name,
                error.message
            );
            let message = "the registry that holds the state issues no credentials now, try again";
            Fault::new(StatusCode::SERVICE_UNAVAILABLE, message)
        };
        let place = BuildHasherDefault::<DefaultHasher>::default().hash_one(satellite.id);
        let place = usize::try_from(place % GIVING_MAX as u64).unwrap_or_default();
        let _turn = match self.giving.get(place) {
            Some(turn) => Some(turn.lock().await),
            None => None,
        };
        let mut read = app.store.read().await?;
        let mut rows = read.rows();
        let known = rows.robot(&self.url, &satellite.name).await?;
        let robot_id = match known {
            Some(robot) => robot.robot_id,
            None => {
                let projects = self.projects(&mut rows).await?;
                let homed = rows.homed(&self.url).await?;
                drop(read);
                let groups = homed.get(&satellite.name).cloned().unwrap_or_default();
                let wanted = wanted_projects(&projects, &groups);
                harbor.ensure_project(PROJECT).await.map_err(failed)?;
                self.ensure(app, harbor, &satellite.name, &wanted).await.map_err(failed)?
            }
        };
        let hash = secret::hash(given);
        // Another request may have been given a later one while this one waited.
        let mut read = app.store.read().await?;
        let now = read.rows().satellite_by_id(satellite.id).await?;
        drop(read);
        if now.and_then(|now| now.next_secret_hash).as_ref() != Some(&hash) {
            let message = "other credentials were given meanwhile, try again";
            return Err(Fault::new(StatusCode::SERVICE_UNAVAILABLE, message));
        }
        harbor.set_secret(robot_id, given).await.map_err(failed)?;
        let mut write = app.store.write().await?;
        write.rows().set_robot_secret(&self.url, &satellite.name, &hash).await?;
        write.commit().await?;
        Ok(())
    }

    /// Whether the target has another secret than the one that a satellite uses: the answer that
    /// carried the newest was lost.
    pub async fn is_behind(
        &self,
        rows: &mut Rows<'_>,
        satellite: &Satellite,
    ) -> Result<bool, Fault> {
        if self.harbor.is_none() || satellite.home != self.url {
            return Ok(false);
        }
        let robot = rows.robot(&self.url, &satellite.name).await?;
        Ok(robot.is_some_and(|robot| satellite.secret_hash.as_ref() != Some(&robot.secret_hash)))
    }

    /// The projects of each group's images, by the groups' ids: those that are in this Harbor.
    async fn projects(
        &self,
        rows: &mut Rows<'_>,
    ) -> Result<BTreeMap<i64, BTreeSet<String>>, sqlx::Error> {
        let mut projects: BTreeMap<i64, BTreeSet<String>> = BTreeMap::new();
        for group in rows.groups().await? {
            projects.entry(group.id).or_default().extend(self.projects_of(&group.state));
        }
        // What a rollout brings can be read before it is released.
        for rollout in rows.active_rollouts().await? {
            let state = self.projects_of(&rollout.state);
            projects.entry(rollout.group_id).or_default().extend(state);
        }
        Ok(projects)
    }

    fn projects_of(&self, state: &GroupState) -> BTreeSet<String> {
        if !state.registry.is_empty() && !self.url.eq_ignore_ascii_case(&state.registry) {
            return BTreeSet::new();
        }
        let repositories = state.artifacts.iter().map(|artifact| artifact.repository.as_str());
        repositories
            .filter_map(|name| name.split_once('/'))
            .map(|(name, _)| name.to_owned())
            .collect()
    }

    /// Keeps how it goes, and says so when that changes.
    async fn note(&self, app: &App, problem: &str) -> Result<(), Fault> {
        let now = clock::now();
        let before = app.store.read().await?.rows().publishing(&self.url).await?;
        let is_recent = before.good_at.is_some_and(|at| now - at < NOTE_SECONDS * clock::SECOND);
        if before.problem == problem && (is_recent || !problem.is_empty()) {
            return Ok(());
        }
        let was_good = before.problem.is_empty();
        let how = Publishing {
            problem: problem.to_owned(),
            problem_since: if was_good { now } else { before.problem_since },
            good_at: if problem.is_empty() { Some(now) } else { before.good_at },
        };
        let mut write = app.store.write().await?;
        let mut rows = write.rows();
        rows.set_publishing(&self.url, &how).await?;
        let event = match (was_good, problem.is_empty()) {
            (true, false) => Some((Kind::PublishFailed, problem)),
            (false, true) => Some((Kind::PublishRestored, "all is published again")),
            _ => None,
        };
        if let Some((kind, message)) = event {
            rows.add_event(&journal::event(kind, "", &self.url, message)).await?;
        }
        write.commit().await?;
        Ok(())
    }
}

impl Memory {
    /// Whether a repository was refused a moment ago.
    fn is_waiting(&self, repository: &str) -> bool {
        self.refused.get(repository).is_some_and(|(_, at)| *at > Instant::now())
    }

    /// Whether a state names what was refused.
    fn names_refused(&self, content: &str) -> bool {
        self.refused.keys().any(|name| content.contains(&format!("/{name}:")))
    }

    fn refuse(&mut self, repository: &str) {
        if self.refused.len() >= REFUSED_MAX {
            self.refused.clear();
        }
        let (times, at) = self.refused.entry(repository.to_owned()).or_insert((0, Instant::now()));
        *times += 1;
        *at = Instant::now() + (ROUND * 2_u32.pow((*times).min(10))).min(PAUSE_MAX);
    }
}

fn is_current(robot: &Robot, wanted: &BTreeSet<String>, now: i64) -> bool {
    let seconds = now / clock::SECOND;
    let lives = robot.expires_at < 0 || robot.expires_at - seconds > ROBOT_RENEW_SECONDS;
    let is_recent = now - robot.updated_at < MISSING_SECONDS * clock::SECOND;
    robot.wanted == joined(wanted) && ((lives && robot.projects == robot.wanted) || is_recent)
}

fn wanted_projects(
    projects: &BTreeMap<i64, BTreeSet<String>>,
    groups: &BTreeSet<i64>,
) -> BTreeSet<String> {
    let of_groups = groups.iter().filter_map(|group| projects.get(group)).flatten().cloned();
    of_groups.chain([PROJECT.to_owned()]).collect()
}

fn joined(projects: &BTreeSet<String>) -> String {
    projects.iter().map(String::as_str).collect::<Vec<_>>().join(",")
}

fn database(error: sqlx::Error) -> Error {
    Error::passing(format!("database: {error}"))
}

/// The project of Go's state artifacts.
const PROJECT: &str = "satellite";
const ROUND: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(300);
/// Satellites that are revoked or deleted publish nothing, and are found by looking.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// What was put there is looked at as often, a few at a time.
const CHECK: Duration = Duration::from_secs(3600);
const CHECKS_MAX: i64 = 50;
const BATCH_MAX: usize = 200;
/// Of what is missing at the target.
const LISTED_MAX: i64 = 100_000;
const REFUSED_MAX: usize = 1000;
const GIVING_MAX: usize = 16;
/// A project that was not there, or a time that Harbor did not grant, is asked for again after
/// this.
const MISSING_SECONDS: i64 = 600;
const NOTE_SECONDS: i64 = 60;
