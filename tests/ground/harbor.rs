//! A stand-in for Harbor 2.15, in front of a real docker-registry: the part of its API that Ground
//! Control asks, and its tokens. It is no Harbor; what it answers is what one was recorded to answer.
//!
//! A wrong secret still gets a token, one without access. A refused request with an Authorization
//! gets a Basic challenge, one without a Bearer challenge. A robot's PUT replaces its permissions, its
//! time counts from when it was made, PATCH with a secret answers `{}`, and a token outlives its robot.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use moonlet::clock::date::rfc3339;

use crate::harness::Client;
use crate::registry::Registry;

pub const USER: &str = "admin";
pub const SECRET: &str = "Harbor12345";

#[derive(Clone)]
pub struct Robot {
    pub body: Value,
    pub secret: String,
    created: i64,
}

#[derive(Default)]
pub struct State {
    /// Names, and whether they are public.
    pub projects: BTreeMap<String, bool>,
    pub robots: BTreeMap<i64, Robot>,
    /// What each token opens: project and actions.
    tokens: Vec<Vec<(String, String)>>,
    robots_made: i64,
    /// How many days its clock is ahead: a month passes in a test.
    pub days: i64,
    /// Names of replication policies.
    pub policies: Vec<String>,
    /// The answer to all that is asked of the API, if it is not itself.
    pub refuses: Option<u16>,
    /// Method and path of what was asked, without the registry's.
    pub asked: Vec<String>,
}

/// The stand-in; it answers for as long as the test runs.
pub struct Harbor {
    pub address: SocketAddr,
    pub state: Arc<Mutex<State>>,
    pub registry: Registry,
}

struct Asked {
    method: String,
    path: String,
    query: BTreeMap<String, Vec<String>>,
    target: String,
    lines: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Harbor {
    pub fn start(registry: Registry) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state: Arc<Mutex<State>> = Arc::default();
        let (shared, behind) = (Arc::clone(&state), registry.address);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let state = Arc::clone(&shared);
                std::thread::spawn(move || serve(stream.unwrap(), &state, address, behind));
            }
        });
        Self { address, state, registry }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The robot of a satellite, if there is one.
    pub fn robot(&self, satellite: &str) -> Option<Robot> {
        let state = self.state.lock().unwrap();
        let name = format!("robot${satellite}");
        state.robots.values().find(|robot| robot.body["name"] == name.as_str()).cloned()
    }

    /// The projects that it may pull from.
    pub fn projects_of(&self, satellite: &str) -> Vec<String> {
        let permissions = self.robot(satellite).map(|robot| robot.body["permissions"].clone());
        let permissions = permissions.unwrap_or_default();
        let list = permissions.as_array().cloned().unwrap_or_default();
        let pull = json!([{ "resource": "repository", "action": "pull" }]);
        assert!(list.iter().all(|one| one["access"] == pull), "more than pull: {list:?}");
        list.iter().map(|one| one["namespace"].as_str().unwrap().to_owned()).collect()
    }
}

fn serve(mut stream: TcpStream, state: &Mutex<State>, own: SocketAddr, behind: SocketAddr) {
    let Some(asked) = read(&stream) else { return };
    let (status, lines, body) = if asked.path.starts_with("/v2") {
        registry(&asked, state, own, behind)
    } else {
        let mut state = state.lock().unwrap();
        let (status, body) = api(&asked, &mut state);
        (status, "Content-Type: application/json\r\n".to_owned(), body.to_string().into_bytes())
    };
    let has_length = lines.to_ascii_lowercase().contains("content-length:");
    let length =
        if has_length { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    let head = format!("HTTP/1.1 {status} x\r\nConnection: close\r\n{length}{lines}\r\n");
    let _ = stream.write_all(head.as_bytes());
    if asked.method != "HEAD" {
        let _ = stream.write_all(&body);
    }
}

fn read(stream: &TcpStream) -> Option<Asked> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        lines.push((name.to_ascii_lowercase(), value.to_owned()));
    }
    let value =
        |wanted: &str| lines.iter().find(|(name, _)| name == wanted).map(|(_, value)| value);
    let mut body = Vec::new();
    if value("transfer-encoding").is_some() {
        // As Go uploads: pieces, each after its length.
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            let length = usize::from_str_radix(line.trim(), 16).ok()?;
            let mut piece = vec![0; length + 2];
            reader.read_exact(&mut piece).ok()?;
            if length == 0 {
                break;
            }
            body.extend_from_slice(&piece[..length]);
        }
    } else {
        body = vec![0; value("content-length").map_or(0, |value| value.parse().unwrap())];
        reader.read_exact(&mut body).ok()?;
    }
    let (path, text) = target.split_once('?').unwrap_or((&target, ""));
    let mut query: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in url::form_urlencoded::parse(text.as_bytes()) {
        query.entry(name.into_owned()).or_default().push(value.into_owned());
    }
    Some(Asked { method, path: path.to_owned(), query, lines, body, target: target.clone() })
}

impl Asked {
    fn authorization(&self) -> Option<&str> {
        let found = self.lines.iter().find(|(name, _)| name == "authorization");
        found.map(|(_, value)| value.as_str())
    }

    fn basic(&self) -> Option<(String, String)> {
        let text = STANDARD.decode(self.authorization()?.strip_prefix("Basic ")?).unwrap();
        let text = String::from_utf8(text).unwrap();
        let (name, secret) = text.split_once(':').unwrap();
        Some((name.to_owned(), secret.to_owned()))
    }

    fn one(&self, name: &str) -> &str {
        self.query.get(name).and_then(|values| values.first()).map_or("", String::as_str)
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

fn error(status: u16, code: &str, message: &str) -> (u16, Value) {
    (status, json!({ "errors": [{ "code": code, "message": message }] }))
}

fn api(asked: &Asked, state: &mut State) -> (u16, Value) {
    state.asked.push(format!("{} {}", asked.method, asked.path));
    if let Some(status) = state.refuses {
        return error(status, "UNKNOWN", "the stand-in refuses");
    }
    if asked.path == "/service/token" {
        return token(asked, state);
    }
    if asked.path == "/api/v2.0/health" {
        return (200, json!({ "status": "healthy", "components": [] }));
    }
    if asked.basic() != Some((USER.to_owned(), SECRET.to_owned())) {
        return error(401, "UNAUTHORIZED", "unauthorized");
    }
    let path = asked.path.strip_prefix("/api/v2.0/").unwrap_or_default();
    let parts: Vec<&str> = path.split('/').collect();
    match (asked.method.as_str(), parts.as_slice()) {
        ("HEAD", ["projects"]) => {
            let there = state.projects.contains_key(asked.one("project_name"));
            (if there { 200 } else { 404 }, Value::Null)
        }
        ("GET", ["projects", name]) => match state.projects.get(*name) {
            Some(public) => {
                (200, json!({ "name": name, "metadata": { "public": public.to_string() } }))
            }
            None => error(404, "NOT_FOUND", &format!("project {name} not found")),
        },
        ("POST", ["projects"]) => {
            let body = asked.json();
            let name = body["project_name"].as_str().unwrap().to_owned();
            if state.projects.contains_key(&name) {
                return error(409, "CONFLICT", &format!("The project named {name} already exists"));
            }
            let public = body["public"] == true || body["metadata"]["public"] == "true";
            state.projects.insert(name, public);
            (201, Value::Null)
        }
        // Go's Ground Control wants each of its groups to be a replication policy.
        ("GET", ["replication", "policies"]) => {
            let wanted = asked.one("q").strip_prefix("name=").unwrap_or_default();
            let there = state.policies.iter().filter(|name| *name == wanted);
            (200, there.map(|name| json!({ "id": 1, "name": name, "enabled": true })).collect())
        }
        ("GET", ["robots"]) => {
            let wanted = asked.one("q").strip_prefix("name=").unwrap_or_default().to_owned();
            let full = format!("robot${wanted}");
            let found = state.robots.values().filter(|robot| robot.body["name"] == full.as_str());
            (200, found.map(|robot| robot.body.clone()).collect())
        }
        ("POST", ["robots"]) => add_robot(asked.json(), state),
        (method, ["robots", id]) => {
            let Some(id) = id.parse().ok().filter(|id| state.robots.contains_key(id)) else {
                return error(404, "NOT_FOUND", &format!("robot {id} not found"));
            };
            robot(method, id, &asked.json(), state)
        }
        _ => error(404, "NOT_FOUND", "the stand-in knows no such path"),
    }
}

/// Whether permissions and duration are such as Harbor takes.
fn check_robot(body: &Value, state: &State) -> Option<(u16, Value)> {
    let days = body["duration"].as_i64().unwrap_or_default();
    if days == 0 || days < -1 {
        let message = format!("bad request error duration input: {days}");
        return Some(error(400, "BAD_REQUEST", &message));
    }
    for one in body["permissions"].as_array().unwrap() {
        let name = one["namespace"].as_str().unwrap();
        if !state.projects.contains_key(name) {
            return Some(error(404, "NOT_FOUND", &format!("project {name} not found")));
        }
    }
    None
}

fn add_robot(mut body: Value, state: &mut State) -> (u16, Value) {
    if let Some(refusal) = check_robot(&body, state) {
        return refusal;
    }
    let name = format!("robot${}", body["name"].as_str().unwrap());
    if state.robots.values().any(|robot| robot.body["name"] == name.as_str()) {
        return error(409, "CONFLICT", &format!("robot account 0:{name} already exists"));
    }
    state.robots_made += 1;
    let (id, created) = (state.robots_made, state.now());
    let expires_at = created + body["duration"].as_i64().unwrap() * 86_400;
    body["id"] = json!(id);
    body["name"] = json!(name);
    body["expires_at"] = json!(expires_at);
    body["creation_time"] = json!(rfc3339(u64::try_from(created).unwrap()));
    let secret = format!("Made{id}ByHarbor");
    let answer = json!({ "id": id, "name": name, "secret": secret, "expires_at": expires_at,
        "creation_time": body["creation_time"] });
    state.robots.insert(id, Robot { body, secret, created });
    (201, answer)
}

fn robot(method: &str, id: i64, body: &Value, state: &mut State) -> (u16, Value) {
    let held = state.robots[&id].clone();
    match method {
        "GET" => (200, held.body),
        "PUT" => {
            if let Some(refusal) = check_robot(body, state) {
                return refusal;
            }
            if body["name"] != held.body["name"] || body["level"] != held.body["level"] {
                return error(400, "BAD_REQUEST", "cannot update the level or name of robot");
            }
            let robot = state.robots.get_mut(&id).unwrap();
            robot.body["permissions"] = body["permissions"].clone();
            robot.body["description"] = body["description"].clone();
            let days = body["duration"].as_i64().unwrap();
            robot.body["expires_at"] = json!(held.created + days * 86_400);
            (200, Value::Null)
        }
        "PATCH" => {
            let robot = state.robots.get_mut(&id).unwrap();
            let Some(secret) = body["secret"].as_str() else {
                robot.secret = format!("Refreshed{id}");
                return (200, json!({ "secret": robot.secret }));
            };
            let has = |test: fn(char) -> bool| secret.chars().any(test);
            let is_good = (8..=128).contains(&secret.len())
                && has(|sign| sign.is_ascii_uppercase())
                && has(|sign| sign.is_ascii_lowercase())
                && has(|sign| sign.is_ascii_digit());
            if !is_good {
                return error(400, "BAD_REQUEST", "the secret must be 8-128, inclusively, ...");
            }
            robot.secret = secret.to_owned();
            (200, json!({}))
        }
        "DELETE" => {
            state.robots.remove(&id);
            (200, Value::Null)
        }
        _ => error(405, "METHOD_NOT_ALLOWED", "no"),
    }
}

/// A token for what the asker may do of what is asked for; nothing, for a wrong secret.
fn token(asked: &Asked, state: &mut State) -> (u16, Value) {
    let mut granted = Vec::new();
    for scope in asked.query.get("scope").into_iter().flatten() {
        let Some(rest) = scope.strip_prefix("repository:") else { continue };
        let (repository, actions) = rest.rsplit_once(':').unwrap();
        let project = repository.split('/').next().unwrap();
        match asked.basic() {
            Some((name, secret)) if (name.as_str(), secret.as_str()) == (USER, SECRET) => {
                granted.push((project.to_owned(), actions.to_owned()));
            }
            Some((name, secret)) => {
                let now = state.now();
                let robot = state.robots.values().find(|robot| {
                    robot.body["name"] == name.as_str()
                        && robot.secret == secret
                        && robot.body["expires_at"].as_i64().is_some_and(|end| now < end)
                });
                let permissions = robot.map(|robot| robot.body["permissions"].clone());
                let permissions = permissions.unwrap_or_default();
                if permissions
                    .as_array()
                    .is_some_and(|all| all.iter().any(|one| one["namespace"] == project))
                {
                    granted.push((project.to_owned(), "pull".to_owned()));
                }
            }
            None if state.projects.get(project) == Some(&true) => {
                granted.push((project.to_owned(), "pull".to_owned()));
            }
            None => {}
        }
    }
    state.tokens.push(granted);
    let token = format!("token{}", state.tokens.len() - 1);
    (200, json!({ "token": token, "access_token": "", "expires_in": 1800 }))
}

/// The registry behind, for those whose token opens it.
fn registry(
    asked: &Asked,
    state: &Mutex<State>,
    own: SocketAddr,
    behind: SocketAddr,
) -> (u16, String, Vec<u8>) {
    let words = ["/manifests/", "/blobs/", "/tags/", "/referrers/"];
    let end = words.iter().find_map(|word| asked.path.find(word));
    let repository = end.map_or("", |end| &asked.path[4..end]);
    let action = match asked.method.as_str() {
        "GET" | "HEAD" => "pull",
        "DELETE" => "delete",
        _ => "push",
    };
    let refused = state.lock().unwrap().refuses;
    let token = asked.authorization().and_then(|text| text.strip_prefix("Bearer token"));
    let granted = token.and_then(|text| text.parse::<usize>().ok()).map(|place| {
        let state = state.lock().unwrap();
        let project = repository.split('/').next().unwrap();
        let has = |(name, actions): &(String, String)| {
            name == project && actions.split(',').any(|one| one == action)
        };
        repository.is_empty() || state.tokens.get(place).is_some_and(|all| all.iter().any(has))
    });
    if let Some(status) = refused {
        return (status, String::new(), Vec::new());
    }
    if granted != Some(true) {
        let challenge = match asked.authorization() {
            Some(_) => "Basic realm=\"harbor\"".to_owned(),
            None => format!(
                "Bearer realm=\"http://{own}/service/token\",service=\"harbor-registry\",\
                 scope=\"repository:{repository}:{action}\""
            ),
        };
        let body = json!({ "errors": [{ "code": "UNAUTHORIZED", "message": "unauthorized" }] });
        return (401, format!("Www-Authenticate: {challenge}\r\n"), body.to_string().into_bytes());
    }
    let kept = ["content-type", "content-range", "accept", "range"];
    let lines: String = asked
        .lines
        .iter()
        .filter(|(name, _)| kept.contains(&name.as_str()))
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    // What is asked for is bytes: a body of the test's own is never anything else.
    let head = format!(
        "{} {} HTTP/1.1\r\nHost: {own}\r\nConnection: close\r\nContent-Length: {}\r\n{lines}\r\n",
        asked.method,
        asked.target,
        asked.body.len()
    );
    let answer = Client::at(behind).send(&[head.as_bytes(), &asked.body].concat());
    let lines = answer.head.lines().skip(1).filter(|line| {
        let name = line.to_ascii_lowercase();
        !["connection", "transfer-encoding", "date"].iter().any(|word| name.starts_with(word))
    });
    let lines: String = lines.map(|line| format!("{line}\r\n")).collect();
    (answer.status, lines, answer.body)
}

impl State {
    /// Seconds since 1970, by its own clock.
    pub fn now(&self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        i64::try_from(since.as_secs()).unwrap() + self.days * 86_400
    }
}
