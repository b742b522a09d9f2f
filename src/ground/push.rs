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

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::app::App;
use super::fault::Fault;
use super::journal::Kind;
use super::publisher::{PROJECT, Publisher, database};
use super::registry::Error;
use super::store::{Duty, Lead, Publishing, Unpushed};
use super::{clock, journal};

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
            refusal = self.robots(&app.store, harbor).await?;
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
const NOTE_SECONDS: i64 = 60;
