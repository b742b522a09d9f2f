//! The built binary at work.

use std::cell::Cell;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// A running `moonlet run`; killed and removed with its files when it is dropped.
pub struct Satellite {
    child: Option<Child>,
    /// Its configuration, its store and its log.
    pub directory: PathBuf,
    served: String,
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
    let satellite = prepare(name, poll, upstreams, images);
    satellite.started()
}

/// As [`start_with`], without starting it.
pub fn prepare(name: &str, poll: &str, upstreams: &[(&str, &str)], images: &[&str]) -> Satellite {
    let directory = format!("moonlet-lies-{name}-{}", std::process::id());
    let directory = std::env::temp_dir().join(directory);
    let _ = std::fs::remove_dir_all(&directory);
    std::fs::create_dir(&directory).unwrap();
    let store = directory.join("store");
    let mut config = format!(
        "name = \"lies\"\n[serve]\nlisten = [\"127.0.0.1:0\"]\n[admin]\nlisten = \"127.0.0.1:0\"\n\
         [store]\npath = {store:?}\nsize_max = \"32MiB\"\n[sync]\npoll_interval = \"{poll}\"\n"
    );
    for (registry, lines) in upstreams {
        config += &format!("[[upstream]]\nregistry = \"{registry}\"\n{lines}\n");
    }
    for image in images {
        config += &format!("[[image]]\nreference = \"{image}\"\n");
    }
    std::fs::write(directory.join("moonlet.toml"), config).unwrap();
    Satellite { child: None, directory, served: String::new(), seen: Cell::new(0) }
}

impl Satellite {
    /// Starts it, once more if it ran before; its log goes on.
    pub fn started(mut self) -> Self {
        self.child = Some(self.spawn(&["run"]));
        let line = self.await_line("serving the OCI read API on ");
        self.served = line.rsplit(' ').next().unwrap().to_owned();
        self
    }

    fn spawn(&self, arguments: &[&str]) -> Child {
        let log = self.directory.join("log");
        let log = std::fs::File::options().create(true).append(true).open(log).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_moonlet"));
        command.arg("--config").arg(self.directory.join("moonlet.toml")).args(arguments);
        command.env_remove("JOURNAL_STREAM").stderr(Stdio::from(log)).stdout(Stdio::null());
        command.spawn().unwrap()
    }

    /// Starts `moonlet sync` in place of `run`, which does not serve.
    pub fn syncing(mut self) -> Self {
        self.child = Some(self.spawn(&["sync"]));
        self
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

    /// The next line of the log with `part` in it, after the one that this gave last.
    pub fn await_line(&self, part: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let log = self.log();
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
        let mut stream = TcpStream::connect(&self.served).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let head = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap();
        let text = String::from_utf8_lossy(&answer[..head]);
        (text.split(' ').nth(1).unwrap().parse().unwrap(), answer[head + 4..].to_vec())
    }

    /// Kills it; its files stay.
    pub fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// `moonlet sync --once` with the same files: its exit code, and what it wrote to standard
    /// error.
    pub fn sync(&self) -> (i32, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_moonlet"));
        command.arg("--config").arg(self.directory.join("moonlet.toml")).args(["sync", "--once"]);
        let output = command.output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    }
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
