//! Harbor's own API, as far as Ground Control needs it: projects, and one robot account for each
//! satellite.
//!
//! A robot may pull, and nothing else, from the project of the state and from those of its groups'
//! images. Its secret is made here and only sent there: what is kept is a hash. A robot of the same
//! name that somebody else made is left alone.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

use super::http::{Answer, Ask, Client, Method};
use super::registry::Error;
use super::secret::ROBOT_PREFIX;

/// A Harbor, and who we are to it.
pub struct Harbor {
    base: String,
    basic: String,
    client: Client,
}

/// A robot as Harbor knows it.
#[derive(Deserialize)]
pub struct Robot {
    pub id: i64,
    pub name: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    creation_time: String,
    /// Seconds since 1970; -1 for never.
    #[serde(default)]
    pub expires_at: i64,
}

impl Harbor {
    pub fn new(base: &str, (name, secret): (&str, &str), client: Client) -> Self {
        let basic = format!("Basic {}", STANDARD.encode(format!("{name}:{secret}")));
        Self { base: base.trim_end_matches('/').to_owned(), basic, client }
    }

    /// Makes a private project, unless it is there. What is wrong with one that is, in a line.
    pub async fn ensure_project(&self, name: &str) -> Result<Option<String>, Error> {
        let found = self.ask(Method::GET, &format!("projects/{name}"), None).await?;
        if found.status.as_u16() == 200 {
            let project: Value = parse("a project", &found)?;
            let public = project.pointer("/metadata/public").and_then(Value::as_str);
            return Ok((public == Some("true")).then(|| {
                format!("project {name} is public: anyone reads the fleet's state there")
            }));
        }
        // A missing project is 404 to an administrator and 403 to others.
        let body = json!({ "project_name": name, "metadata": { "public": "false" },
            "storage_limit": -1 });
        let made = self.ask(Method::POST, "projects", Some(body)).await?;
        match made.status.as_u16() {
            // Another replica may have been quicker.
            201 | 409 => Ok(None),
            _ => Err(Error::of(&format!("making project {name}"), &made)),
        }
    }

    /// Those of the projects that there are.
    async fn existing(&self, projects: &BTreeSet<String>) -> Result<BTreeSet<String>, Error> {
        let mut existing = BTreeSet::new();
        for name in projects {
            let path = format!("projects?project_name={name}");
            let found = self.ask(Method::HEAD, &path, None).await?;
            match found.status.as_u16() {
                200 => _ = existing.insert(name.clone()),
                404 => {}
                _ => return Err(Error::of(&format!("project {name}"), &found)),
            }
        }
        Ok(existing)
    }

    /// Makes the robot of a satellite, or updates the one that is there to these projects and
    /// another month. Projects that are not there yet are left out; those that the robot has are
    /// returned.
    pub async fn ensure_robot(
        &self,
        satellite: &str,
        projects: &BTreeSet<String>,
        now_seconds: i64,
    ) -> Result<(Robot, BTreeSet<String>), Error> {
        let projects = self.existing(projects).await?;
        let what = format!("robot account of {satellite}");
        let found = match self.robot(satellite).await? {
            Some(robot) => robot,
            None => match self.add_robot(satellite, &projects).await? {
                Ok(robot) => return Ok((robot, projects)),
                // An enrolment and a round may make it at once.
                Err(taken) => self.robot(satellite).await?.ok_or(taken)?,
            },
        };
        if found.description != DESCRIPTION && found.description != GO_DESCRIPTION {
            return Err(Error::refused(format!(
                "{what}: {} is there, and not Ground Control's: expected another name",
                found.name
            )));
        }
        let created = super::clock::parse(&found.creation_time).unwrap_or_default();
        let days = (now_seconds - created / super::clock::SECOND).max(0) / DAY_SECONDS;
        // Harbor counts the days of a robot from when it was made.
        let mut body = body_of(&found.name, &projects, days + ROBOT_DAYS);
        if let Some(fields) = body.as_object_mut() {
            fields.insert("id".to_owned(), json!(found.id));
            fields.insert("disable".to_owned(), json!(false));
            fields.insert("editable".to_owned(), json!(true));
        }
        let path = format!("robots/{}", found.id);
        let put = self.ask(Method::PUT, &path, Some(body)).await?;
        if !put.status.is_success() {
            return Err(Error::of(&what, &put));
        }
        let robot = self.ask(Method::GET, &path, None).await?;
        if robot.status.as_u16() != 200 {
            return Err(Error::of(&what, &robot));
        }
        Ok((parse(&what, &robot)?, projects))
    }

    /// Makes a robot; the inner error is that there is one.
    async fn add_robot(
        &self,
        satellite: &str,
        projects: &BTreeSet<String>,
    ) -> Result<Result<Robot, Error>, Error> {
        let what = format!("robot account of {satellite}");
        let body = body_of(satellite, projects, ROBOT_DAYS);
        let made = self.ask(Method::POST, "robots", Some(body)).await?;
        match made.status.as_u16() {
            201 => {}
            409 => return Ok(Err(Error::of(&what, &made))),
            _ => return Err(Error::of(&what, &made)),
        }
        let robot: Robot = parse(&what, &made)?;
        if robot.name != format!("{ROBOT_PREFIX}{satellite}") {
            // Satellites say to Ground Control who they are by the same name.
            let name = robot.name;
            return Err(Error::refused(format!(
                "{what}: Harbor names it {name}: expected the prefix {ROBOT_PREFIX} for robots in \
                 its settings"
            )));
        }
        Ok(Ok(robot))
    }

    async fn robot(&self, satellite: &str) -> Result<Option<Robot>, Error> {
        let path = format!("robots?q=name%3D{satellite}&page_size=100");
        let found = self.ask(Method::GET, &path, None).await?;
        if found.status.as_u16() != 200 {
            return Err(Error::of(&format!("robot account of {satellite}"), &found));
        }
        let robots: Vec<Robot> = parse("robot accounts", &found)?;
        let name = format!("{ROBOT_PREFIX}{satellite}");
        Ok(robots.into_iter().find(|robot| robot.name == name))
    }

    /// Sets a robot's secret.
    pub async fn set_secret(&self, robot_id: i64, secret: &str) -> Result<(), Error> {
        let body = json!({ "secret": secret });
        let set = self.ask(Method::PATCH, &format!("robots/{robot_id}"), Some(body)).await?;
        match set.status.is_success() {
            true => Ok(()),
            false => Err(Error::of("a robot account's secret", &set)),
        }
    }

    /// Ends a robot; one that is gone is ended.
    pub async fn delete_robot(&self, robot_id: i64) -> Result<(), Error> {
        let deleted = self.ask(Method::DELETE, &format!("robots/{robot_id}"), None).await?;
        match deleted.status.as_u16() {
            200..=299 | 404 => Ok(()),
            _ => Err(Error::of("deleting a robot account", &deleted)),
        }
    }

    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> Result<Answer, Error> {
        let url = format!("{}/api/v2.0/{path}", self.base);
        let mut headers =
            vec![("authorization", self.basic.clone()), ("accept", "application/json".to_owned())];
        if body.is_some() {
            headers.push(("content-type", "application/json".to_owned()));
        }
        let body = body.map(|body| body.to_string().into_bytes());
        let answer = self.client.send(Ask { method, url: &url, headers, body }).await;
        let answer = answer.map_err(|error| Error::passing(format!("{}: {error}", self.base)))?;
        match answer.status.is_redirection() {
            // It could lead elsewhere, and take our credentials along.
            true => Err(Error::refused(format!("{}: answers with a redirect", self.base))),
            false => Ok(answer),
        }
    }
}

/// Pulling is the only right that reading state and images takes.
fn body_of(name: &str, projects: &BTreeSet<String>, days: i64) -> Value {
    let permission = |project| {
        json!({ "kind": "project", "namespace": project,
            "access": [{ "resource": "repository", "action": "pull" }] })
    };
    json!({
        "name": name,
        "description": DESCRIPTION,
        "level": "system",
        "duration": days,
        "permissions": projects.iter().map(permission).collect::<Value>(),
    })
}

fn parse<T: for<'de> Deserialize<'de>>(what: &str, answer: &Answer) -> Result<T, Error> {
    serde_json::from_slice(&answer.body)
        .map_err(|_| Error::refused(format!("{what}: the answer is not Harbor's: is this one?")))
}

const DESCRIPTION: &str = "managed by ground-control";
/// Of the robots that Go's Ground Control makes: a fleet that moves keeps them.
const GO_DESCRIPTION: &str = "managed by ground-control should not edit";
/// A robot that is looked after never ends. One whose Ground Control is gone does.
const ROBOT_DAYS: i64 = 30;
/// A robot with less than this left is given another month.
pub const ROBOT_RENEW_SECONDS: i64 = 20 * DAY_SECONDS;
const DAY_SECONDS: i64 = 24 * 3600;
