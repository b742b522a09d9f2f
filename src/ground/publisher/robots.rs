//! A robot account at Harbor for each satellite: what it may pull, and its secret.
//!
//! All of it follows from rows: the satellites that read their state there, and the images of their
//! groups.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};

use axum::http::StatusCode;

use super::{GIVING_MAX, PROJECT, Publisher, database};
use crate::fleet::state::GroupState;
use crate::ground::fault::Fault;
use crate::ground::harbor::{Harbor, ROBOT_RENEW_SECONDS};
use crate::ground::registry::Error;
use crate::ground::store::{Robot, Rows, Satellite, Store};
use crate::ground::{clock, secret};

impl Publisher {
    /// Brings the robot accounts up to date: what Harbor refuses, in a line.
    pub async fn robots(&self, store: &Store, harbor: &Harbor) -> Result<String, Error> {
        let mut read = store.read().await.map_err(database)?;
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
            match self.ensure(store, harbor, &name, &wanted).await {
                Ok(_) => {}
                Err(error) if error.is_passing => return Err(error),
                Err(error) => refusal = error.message,
            }
        }
        // Of satellites that are revoked, deleted, or read their state elsewhere.
        for robot in known.into_values() {
            harbor.delete_robot(robot.robot_id).await?;
            let mut write = store.write().await.map_err(database)?;
            write.rows().forget_robot(&self.url, &robot.satellite).await.map_err(database)?;
            write.commit().await.map_err(database)?;
        }
        Ok(refusal)
    }

    /// Makes a robot account, or updates the projects and the time of one.
    async fn ensure(
        &self,
        store: &Store,
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
        let mut write = store.write().await.map_err(database)?;
        write.rows().put_robot(&self.url, &robot).await.map_err(database)?;
        write.commit().await.map_err(database)?;
        Ok(made.id)
    }

    /// Makes a secret good at the target, before it is sent to a satellite.
    pub async fn enable_secret(
        &self,
        store: &Store,
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
        let mut read = store.read().await?;
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
                self.ensure(store, harbor, &satellite.name, &wanted).await.map_err(failed)?
            }
        };
        let hash = secret::hash(given);
        // Another request may have been given a later one while this one waited.
        let mut read = store.read().await?;
        let now = read.rows().satellite_by_id(satellite.id).await?;
        drop(read);
        if now.and_then(|now| now.next_secret_hash).as_ref() != Some(&hash) {
            let message = "other credentials were given meanwhile, try again";
            return Err(Fault::new(StatusCode::SERVICE_UNAVAILABLE, message));
        }
        harbor.set_secret(robot_id, given).await.map_err(failed)?;
        let mut write = store.write().await?;
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

/// A project that was not there, or a time that Harbor did not grant, is asked for again after
/// this.
const MISSING_SECONDS: i64 = 600;
