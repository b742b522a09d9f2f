//! Starts the program, speaks HTTP to it, and reads artifacts as go-containerregistry does.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use moonlet::oci::Digest;
use serde_json::Value;

pub use crate::common::http::{Answer, Client};

pub const PASSWORD: &str = "Correct-horse-1";
pub const CONFIG: &str = r#"{"config_name":"c1","config":{"app_config":{"log_level":"info",
    "state_replication_interval":"@every 00h00m10s","heartbeat_interval":"@every 00h00m10s"},
    "zot_config":{"http":{"address":"127.0.0.1","port":"8585"}}}}"#;
pub const GROUP: &str = r#"{"group":"g1","registry":"http://127.0.0.1:5000","artifacts":[
    {"repository":"library/nginx","tag":["1.25"],"labels":null,"type":"IMAGE",
     "digest":"sha256:3e38f337856c3763a9ffe3a11da3bf216616964dcc7454c918229773c6d8a56a"}]}"#;
pub const REPORT: &str = r#"{"name":"edge1","activity":"","state_report_interval":"@every 00h00m10s",
    "memory_used_bytes":1438904320,"cpu_percent":25.4,"image_count":2,
    "request_created_time":"2026-11-26T00:51:53.041531524Z","later":{"a":1},"cached_images":[
    {"reference":"127.0.0.1:8585/t/oci:1@sha256:0a","size_bytes":400918},
    {"reference":"127.0.0.1:8585/t/docker:1@sha256:0c","size_bytes":400924}]}"#;

/// Makes a config, a group and a satellite of both: its enrolment token.
pub fn registered(admin: &Client) -> String {
    admin.expect(201, "POST", "/api/configs", CONFIG);
    admin.expect(200, "POST", "/api/groups/sync", GROUP);
    let body = r#"{"name":"edge1","groups":["g1"],"config_name":"c1"}"#;
    let answer = admin.expect(200, "POST", "/api/satellites", body);
    let token = answer.json()["token"].as_str().unwrap().to_owned();
    assert_eq!(token.len(), 32);
    token
}

/// The same, enrolled.
pub fn enrolled(server: &Server) -> (Client, Satellite) {
    let admin = server.admin();
    let token = registered(&admin);
    let answer = server.anyone().expect(200, "GET", &format!("/satellites/ztr/{token}"), "");
    (admin, Satellite::from_answer(&answer))
}

/// Runs a test on every store there is.
pub fn on_each_store(test: impl Fn(Database)) {
    test(Database::sqlite());
    if let Ok(server) = std::env::var("MOONLET_TEST_POSTGRES") {
        test(Database::postgres(&server));
    }
}

/// A new database, and what is removed with it.
pub struct Database {
    arguments: Vec<String>,
    directory: PathBuf,
}

static COUNT: AtomicU32 = AtomicU32::new(0);

impl Database {
    fn name() -> String {
        format!("ground_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
    }

    pub fn sqlite() -> Self {
        let directory = std::env::temp_dir().join(Self::name());
        let arguments = vec!["--data".to_owned(), directory.to_str().unwrap().to_owned()];
        Self { arguments, directory }
    }

    pub fn postgres(server: &str) -> Self {
        let name = Self::name();
        let status = Command::new("createdb")
            .arg(format!("--maintenance-db={server}/postgres"))
            .arg(&name)
            .status()
            .unwrap();
        assert!(status.success(), "createdb {name}");
        let arguments = vec!["--database".to_owned(), format!("{server}/{name}")];
        Self { arguments, directory: std::env::temp_dir().join(name) }
    }

    /// The URL of a PostgreSQL database.
    pub fn url(&self) -> Option<&str> {
        self.arguments.last().map(String::as_str).filter(|url| url.starts_with("postgres"))
    }

    /// Writes rows that no request could make, such as those of another day.
    pub fn execute(&self, sql: &str) {
        let file = self.directory.join("ground-control.db");
        let mut command = match self.url() {
            Some(url) => {
                let mut psql = Command::new("psql");
                psql.args(["-q", "-v", "ON_ERROR_STOP=1", "-d", url]);
                psql
            }
            None => {
                let mut sqlite = Command::new("sqlite3");
                sqlite.args(["-bail", "-cmd", ".timeout 60000"]).arg(file);
                sqlite
            }
        };
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(sql.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success(), "{sql}");
    }

    /// SQLite's directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// A running server.
pub struct Server {
    pub child: Child,
    pub address: SocketAddr,
}

impl Server {
    pub fn start(database: &Database) -> Self {
        Self::start_on(database, "127.0.0.1:0".parse().unwrap())
    }

    pub fn start_on(database: &Database, listen: SocketAddr) -> Self {
        Self::start_with(database, listen, &[])
    }

    /// The same with settings in the environment, without the words before them.
    pub fn start_with(database: &Database, listen: SocketAddr, settings: &[(&str, &str)]) -> Self {
        let settings =
            settings.iter().map(|(name, value)| (format!("GROUND_CONTROL_{name}"), value));
        let mut child = Self::command(database, listen)
            .env("GROUND_CONTROL_ADMIN_PASSWORD", PASSWORD)
            .envs(settings)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let address = Self::address_of(&mut child);
        Self { child, address }
    }

    pub fn command(database: &Database, listen: SocketAddr) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ground-control"));
        command.arg("serve").args(["--listen", &listen.to_string()]).args(&database.arguments);
        command.stderr(Stdio::piped());
        command
    }

    /// The address that the log names once the server serves. What the log says later is read too,
    /// so that the server never waits for its reader.
    pub fn address_of(child: &mut Child) -> SocketAddr {
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut seen = Vec::new();
        for line in lines.by_ref() {
            let line = line.unwrap();
            if let Some((_, address)) = line.split_once(" on 127.0.0.1:") {
                let address = format!("127.0.0.1:{address}").parse().unwrap();
                std::thread::spawn(move || lines.for_each(drop));
                return address;
            }
            seen.push(line);
        }
        panic!("the server ended: {seen:?}");
    }

    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks the server to stop, and waits until it did.
    pub fn stop(mut self) -> bool {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.child.wait().unwrap().success()
    }

    /// A person who has logged in.
    pub fn admin(&self) -> Client {
        let body = format!(r#"{{"username":"admin","password":"{PASSWORD}"}}"#);
        let answer = self.anyone().ask("POST", "/login", &body);
        assert_eq!(answer.status, 200, "{}", answer.text());
        let token = answer.json()["token"].as_str().unwrap().to_owned();
        self.with(&format!("Bearer {token}"))
    }

    pub fn anyone(&self) -> Client {
        Client { address: self.address, authorization: None }
    }

    pub fn with(&self, authorization: &str) -> Client {
        Client { address: self.address, authorization: Some(authorization.to_owned()) }
    }

    pub fn basic(&self, user: &str, password: &str) -> Client {
        self.with(&format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A satellite as Go's is one, with what its enrolment returned.
pub struct Satellite {
    pub user: String,
    pub secret: String,
    pub state: String,
}

impl Satellite {
    pub fn from_answer(answer: &Answer) -> Self {
        let json = answer.json();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        Self {
            user: text(&json["auth"]["username"]),
            secret: text(&json["auth"]["password"]),
            state: text(&json["state"]),
        }
    }

    pub fn client(&self, server: &Server) -> Client {
        server.basic(&self.user, &self.secret)
    }

    /// Reads an artifact by its URL as `crane.Pull` and `crane.Export` do: asks `/v2/` for the
    /// challenge, gets a token, then manifest, config and layer; every digest is checked.
    pub fn read(&self, server: &Server, url: &str) -> Result<(String, Value), u16> {
        let challenge = server.anyone().get("/v2/");
        assert_eq!(challenge.status, 401);
        let header = challenge.header("www-authenticate").unwrap();
        let realm = header.split('"').nth(1).unwrap();
        assert!(header.starts_with("Bearer ") && realm.ends_with("/service/token"), "{header}");
        let (base, path) = url.split_at(url.find("/satellite/").unwrap());
        assert!(realm.starts_with(base), "{realm} is not under {base}");
        let (repository, tag) = path[1..].rsplit_once(':').unwrap();
        let scope = format!("/service/token?scope=repository:{repository}:pull&service=x");
        let token = self.client(server).get(&scope);
        if token.status != 200 {
            return Err(token.status);
        }
        let bearer = server.with(&format!("Bearer {}", token.json()["token"].as_str().unwrap()));
        let head = bearer.ask("HEAD", &format!("/v2/{repository}/manifests/{tag}"), "");
        if head.status != 200 {
            return Err(head.status);
        }
        assert!(head.body.is_empty());
        let digest = head.header("docker-content-digest").unwrap().to_owned();
        let manifest =
            bearer.expect(200, "GET", &format!("/v2/{repository}/manifests/{digest}"), "");
        assert_eq!(Digest::sha256(&manifest.body).to_string(), digest);
        let length = manifest.body.len().to_string();
        assert_eq!(head.header("content-length"), Some(length.as_str()));
        let blob = |descriptor: &Value| {
            let digest = descriptor["digest"].as_str().unwrap();
            let blob = bearer.expect(200, "GET", &format!("/v2/{repository}/blobs/{digest}"), "");
            assert_eq!(Digest::sha256(&blob.body).to_string(), digest);
            assert_eq!(descriptor["size"].as_u64().unwrap(), blob.body.len() as u64);
            blob.body
        };
        let json = manifest.json();
        let kind = "application/vnd.docker.distribution.manifest.v2+json";
        assert_eq!(manifest.header("content-type"), Some(kind));
        assert_eq!(json["mediaType"], kind);
        assert_eq!(json["layers"].as_array().unwrap().len(), 1);
        let layer = &json["layers"][0];
        assert_eq!(layer["mediaType"], "application/vnd.docker.image.rootfs.diff.tar.gzip");
        let mut tar = Vec::new();
        flate2::read::GzDecoder::new(&*blob(layer)).read_to_end(&mut tar).unwrap();
        let config: Value = serde_json::from_slice(&blob(&json["config"])).unwrap();
        assert_eq!(config["rootfs"]["diff_ids"][0], Digest::sha256(&tar).to_string());
        Ok((digest, only_file(&tar)))
    }
}

/// The only file of the archive, by the tar that is on every machine.
fn only_file(tar: &[u8]) -> Value {
    let mut child = Command::new("tar")
        .args(["-x", "-O", "-f", "-", "artifacts.json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(tar).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Another program at a PostgreSQL database.
pub struct Psql {
    child: Child,
    input: ChildStdin,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Psql {
    pub fn open(url: &str) -> Self {
        let mut psql = Command::new("psql");
        psql.args(["-qAt", url]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = psql.spawn().unwrap();
        let input = child.stdin.take().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, input, lines }
    }

    /// Asks, and joins the lines of the answer.
    pub fn ask(&mut self, text: &str) -> String {
        self.input.write_all(format!("{text};\\echo .\n").as_bytes()).unwrap();
        self.lines.by_ref().map(Result::unwrap).take_while(|line| line != ".").collect()
    }

    /// Waits until somebody waits for a lock that it holds, while `is_so`.
    pub fn await_waiting(&mut self, is_so: impl Fn() -> bool) {
        let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted \
            AND pg_backend_pid() = ANY(pg_blocking_pids(pid))";
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.ask(waiting) == "0" {
            assert!(Instant::now() < deadline && is_so(), "no transaction waits for a lock");
        }
    }
}

impl Drop for Psql {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
