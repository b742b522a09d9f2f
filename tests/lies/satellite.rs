//! The built binary at work.

use std::cell::Cell;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::process::{Pid, Signal, kill_process};

/// A running `moonlet run`; killed and removed with its files when it is dropped.
pub struct Satellite {
    child: Option<Child>,
    /// Its configuration, its store and its log.
    pub directory: PathBuf,
    /// The address of its read API.
    pub served: String,
    /// How much it logs.
    pub log_level: &'static str,
    /// The end of the line of the log that was found last.
    seen: Cell<usize>,
}

/// Starts `moonlet run` with one upstream at `url`, of which it is to hold `app:1`.
pub fn start(name: &str, url: &str, upstream_line: &str) -> Satellite {
    let lines = format!("url = \"{url}\"\n{upstream_line}");
    start_with(name, "1s", &[("registry.test", &lines)], &["registry.test/app:1"])
}

/// Starts `moonlet run` with these upstreams, each with the lines of its section, and images, and
/// a poll each `poll`.
pub fn start_with(
    name: &str,
    poll: &str,
    upstreams: &[(&str, &str)],
    images: &[&str],
) -> Satellite {
    let mut satellite = prepare(name, |directory| text(directory, poll, upstreams, images));
    satellite.start_again();
    satellite
}

/// A configuration for files in `directory`.
pub fn text(directory: &Path, poll: &str, upstreams: &[(&str, &str)], images: &[&str]) -> String {
    let store = directory.join("store");
    let mut text = format!(
        "name = \"lies\"\n[serve]\nlisten = [\"127.0.0.1:0\"]\n[admin]\nlisten = \"127.0.0.1:0\"\n\
         [store]\npath = {store:?}\nsize_max = \"32MiB\"\n[sync]\npoll_interval = \"{poll}\"\n"
    );
    for (registry, lines) in upstreams {
        text += &format!("[[upstream]]\nregistry = \"{registry}\"\n{lines}\n");
    }
    for image in images {
        text += &format!("[[image]]\nreference = \"{image}\"\n");
    }
    text
}

/// Starts `moonlet run` with the configuration that `config` makes for a directory.
pub fn launch(name: &str, config: impl FnOnce(&Path) -> String) -> Satellite {
    let mut satellite = prepare(name, config);
    satellite.spawn("run");
    satellite
}

/// As [`launch`], without starting anything.
pub fn prepare(name: &str, config: impl FnOnce(&Path) -> String) -> Satellite {
    let directory = format!("moonlet-lies-{name}-{}", std::process::id());
    let directory = std::env::temp_dir().join(directory);
    let _ = std::fs::remove_dir_all(&directory);
    std::fs::create_dir(&directory).unwrap();
    std::fs::write(directory.join("moonlet.toml"), config(&directory)).unwrap();
    let (served, log_level, seen) = (String::new(), "debug", Cell::new(0));
    Satellite { child: None, directory, served, log_level, seen }
}

impl Satellite {
    /// Starts a command with its files; its log goes on.
    pub fn spawn(&mut self, command: &str) {
        let log = self.directory.join("log");
        let log = std::fs::File::options().create(true).append(true).open(log).unwrap();
        let child = moonlet()
            .arg("--config")
            .arg(self.directory.join("moonlet.toml"))
            .arg(command)
            // Tests wait for lines that come again, which are counted at other levels.
            .args(["--log-level", self.log_level])
            .env_remove("JOURNAL_STREAM")
            .stdout(Stdio::null())
            .stderr(Stdio::from(log))
            .spawn();
        self.child = Some(child.unwrap());
    }

    /// Sends a signal that asks it to stop, waits for its end, and gives the exit code.
    pub fn stop(&mut self, signal: Signal) -> Option<i32> {
        let mut child = self.child.take().unwrap();
        kill_process(Pid::from_child(&child), signal).unwrap();
        child.wait().unwrap().code()
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.join("log")).unwrap()
    }

    fn await_served(&mut self) {
        let line = self.await_line("serving the OCI read API on ");
        self.served = line.rsplit(' ').next().unwrap().to_owned();
    }

    /// Starts it again with the same files, after [`Satellite::kill`].
    pub fn start_again(&mut self) {
        self.spawn("run");
        self.await_served();
    }

    /// The next line of the log with `part` in it, after the one that this gave last.
    pub fn await_line(&self, part: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let log = std::fs::read_to_string(self.directory.join("log")).unwrap();
            let fresh = log[self.seen.get()..].split_inclusive('\n');
            let mut at = self.seen.get();
            for line in fresh.filter(|line| line.ends_with('\n')) {
                at += line.len();
                if line.contains(part) {
                    self.seen.set(at);
                    return line.trim_end().to_owned();
                }
            }
            assert!(Instant::now() < deadline, "no line with {part:?} in:\n{log}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The next error of the log with `part` in it.
    pub fn await_error(&self, part: &str) -> String {
        loop {
            let line = self.await_line(part);
            if line.starts_with("ERROR ") {
                return line;
            }
        }
    }

    /// Asks the read API; gives the status and the body.
    pub fn get(&self, path: &str) -> (u16, Vec<u8>) {
        get(&self.served, path, "")
    }

    /// Changes its configuration, and asks it to read that.
    pub fn reload(&self, config: &str) {
        std::fs::write(self.directory.join("moonlet.toml"), config).unwrap();
        let process = Pid::from_child(self.child.as_ref().unwrap());
        kill_process(process, Signal::HUP).unwrap();
    }

    /// Whether it runs.
    pub fn lives(&mut self) -> bool {
        self.child.as_mut().unwrap().try_wait().unwrap().is_none()
    }

    /// Kills it; its files stay.
    pub fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Starts a command with its files.
    pub fn child(&self, words: &[&str]) -> Child {
        let mut command = moonlet();
        command.arg("--config").arg(self.directory.join("moonlet.toml")).args(words);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// Runs a command with its files to its end: exit code, standard output, standard error.
    pub fn run(&self, words: &[&str]) -> (i32, String, String) {
        let mut command = moonlet();
        command.arg("--config").arg(self.directory.join("moonlet.toml")).args(words);
        let output = command.env_remove("JOURNAL_STREAM").output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }

    /// `moonlet sync --once` with the same files: its exit code, and what it wrote to standard
    /// error.
    pub fn sync(&self) -> (i32, String) {
        let mut command = moonlet();
        command.arg("--config").arg(self.directory.join("moonlet.toml")).args(["sync", "--once"]);
        let output = command.output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    }
}

/// Asks the server at an address, with header lines of the caller's; gives the status and what
/// came of the body.
pub fn get(served: &str, path: &str, lines: &str) -> (u16, Vec<u8>) {
    let mut stream = TcpStream::connect(served).unwrap();
    let fixed = "Host: x\r\nConnection: close\r\n";
    write!(stream, "GET {path} HTTP/1.1\r\n{fixed}{lines}\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let head = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap();
    let text = String::from_utf8_lossy(&answer[..head]);
    (text.split(' ').nth(1).unwrap().parse().unwrap(), answer[head + 4..].to_vec())
}

/// The program, without proxies that are meant for others.
fn moonlet() -> Command {
    // A figure may be of another one than was just built.
    let program = std::env::var("MOONLET_PROGRAM");
    let mut command = Command::new(program.as_deref().unwrap_or(env!("CARGO_BIN_EXE_moonlet")));
    for name in ["http_proxy", "https_proxy", "no_proxy"] {
        command.env_remove(name).env_remove(name.to_uppercase());
    }
    command.env("TZ", noon());
    command
}

/// A time zone in which it is between noon and one o'clock: no day ends in the middle of a test.
fn noon() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let hour = i64::try_from(now / 3_600 % 24).unwrap();
    // West of UTC it is earlier.
    format!("<noon>{}", hour - 12)
}

impl Drop for Satellite {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// Waits for something that another process does; `what` says what did not happen.
pub fn wait_until(mut is_done: impl FnMut() -> bool, what: impl Fn() -> String) {
    let deadline = Instant::now() + PATIENCE;
    while !is_done() {
        assert!(Instant::now() < deadline, "{}", what());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// For one line of the log: retries with their waits come before some.
const PATIENCE: Duration = Duration::from_secs(180);
