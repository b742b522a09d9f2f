//! The built binary at work.
//!
//! `MOONLET_TEST_PROGRAM` names another binary than was just built, such as one for ARM, and
//! `MOONLET_TEST_RUNNER` what goes before it, such as `qemu-arm-static`.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::process::{Pid, Signal, geteuid, kill_process};

pub use super::http::get;
pub use super::wait_until;
use super::{PATIENCE, fresh_path, http};

/// A running `moonlet run`; killed and removed with its files when it is dropped.
pub struct Satellite {
    child: Option<Child>,
    /// Its configuration, its store and its log.
    pub directory: PathBuf,
    /// The address of its read API.
    pub served: String,
    /// How much it logs.
    pub log_level: &'static str,
    /// Whether it is run by a user who may write nothing of root's.
    pub is_nobody: bool,
    /// The end of the line of the log that was found last.
    seen: Cell<usize>,
    /// Where the log was when it was started last.
    begun: usize,
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
        "name = \"edge-9\"\n[serve]\nlisten = [\"127.0.0.1:0\"]\n[admin]\nlisten = \"127.0.0.1:0\"\n\
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
    let directory = fresh_path(&format!("program-{name}"));
    std::fs::create_dir(&directory).unwrap();
    std::fs::write(directory.join("moonlet.toml"), config(&directory)).unwrap();
    let (served, log_level, seen) = (String::new(), "debug", Cell::new(0));
    let (is_nobody, begun) = (false, 0);
    Satellite { child: None, directory, served, log_level, is_nobody, seen, begun }
}

impl Satellite {
    /// Starts a command with its files; its log goes on.
    pub fn spawn(&mut self, command: &str) {
        let log = self.directory.join("log");
        let log = std::fs::File::options().create(true).append(true).open(log).unwrap();
        self.begun = usize::try_from(log.metadata().unwrap().len()).unwrap();
        let child = self
            .command(&[command])
            // Tests wait for lines that come again, which are counted at other levels.
            .args(["--log-level", self.log_level])
            .stdout(Stdio::null())
            .stderr(Stdio::from(log))
            .spawn();
        self.child = Some(child.unwrap());
    }

    /// Sends a signal that asks it to stop, waits for its end, and returns the exit code.
    pub fn stop(&mut self, signal: Signal) -> Option<i32> {
        let mut child = self.child.take().unwrap();
        kill_process(Pid::from_child(&child), signal).unwrap();
        child.wait().unwrap().code()
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
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

    /// The next line of the log with `part` in it, after the one returned last.
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

    /// Asks the read API; returns the status and the body.
    pub fn get(&self, path: &str) -> (u16, Vec<u8>) {
        get(&self.served, path, "")
    }

    /// Changes its configuration, and asks it to read that.
    pub fn reload(&self, config: &str) {
        std::fs::write(self.directory.join("moonlet.toml"), config).unwrap();
        let process = Pid::from_child(self.child.as_ref().unwrap());
        kill_process(process, Signal::HUP).unwrap();
    }

    /// The number of its process.
    pub fn process(&self) -> u32 {
        self.child.as_ref().unwrap().id()
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
        self.command(words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// Runs a command with its files to its end: exit code, standard output, standard error.
    pub fn run(&self, words: &[&str]) -> (i32, String, String) {
        let output = self.command(words).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }

    /// Runs a command that has to succeed; returns its standard output.
    pub fn expect(&self, words: &[&str]) -> String {
        let (code, output, said) = self.run(words);
        assert_eq!(code, 0, "{words:?}: {said}");
        output
    }

    /// `moonlet sync --once` with the same files: its exit code, and what it wrote to standard
    /// error.
    pub fn sync(&self) -> (i32, String) {
        let (code, _, said) = self.run(&["sync", "--once"]);
        (code, said)
    }

    /// A command with its files.
    fn command(&self, words: &[&str]) -> Command {
        let mut command = match self.is_nobody {
            true => as_nobody(&self.directory),
            false => moonlet(),
        };
        command.arg("--config").arg(self.directory.join("moonlet.toml")).args(words);
        command.env_remove("JOURNAL_STREAM");
        command
    }

    /// The address that a part of it named when it was started last: `forward proxy`.
    pub fn address_of(&self, part: &str) -> String {
        let part = format!("{part} on ");
        let mut found = None;
        let look = || {
            let log = self.log();
            let lines = log[self.begun..].split_inclusive('\n').filter(|line| line.ends_with('\n'));
            let mut named = lines.filter(|line| line.contains(&part));
            found = named.next().map(|line| line.trim_end().rsplit(' ').next().unwrap().to_owned());
            found.is_some()
        };
        wait_until(look, || self.log());
        found.unwrap()
    }

    /// Someone who asks its admin address.
    pub fn admin(&self) -> http::Client {
        http::Client::at(self.address_of("status, metrics and health").parse().unwrap())
    }

    /// Someone who asks its read API.
    pub fn client(&self) -> http::Client {
        http::Client::at(self.served.parse().unwrap())
    }

    /// One of its metrics.
    pub fn metric(&self, name: &str) -> u64 {
        let text = self.admin().expect(200, "GET", "/metrics", "").text();
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
    }

    /// Waits until every desired image is held.
    pub fn await_held(&self) {
        let is_held = || {
            let desired = self.metric("moonlet_images_desired");
            desired > 0 && self.metric("moonlet_images_held") == desired
        };
        wait_until(is_held, || self.log());
    }
}

/// The program, without proxies that are meant for others.
fn moonlet() -> Command {
    alone(runner().into_iter().chain([program()]))
}

/// The same for the user nobody, who may not look into the directories of who builds.
fn as_nobody(directory: &Path) -> Command {
    let copy = directory.join("moonlet");
    if !copy.exists() {
        std::fs::copy(program(), &copy).unwrap();
    }
    // Who is not root is stopped by the modes of files already.
    let become_nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let before = become_nobody.iter().filter(|_| geteuid().is_root()).map(|word| word.to_string());
    alone(before.chain(runner()).chain([copy.to_str().unwrap().to_owned()]))
}

fn alone(words: impl IntoIterator<Item = String>) -> Command {
    let mut words = words.into_iter();
    let mut command = Command::new(words.next().unwrap());
    command.args(words);
    for name in ["http_proxy", "https_proxy", "no_proxy"] {
        command.env_remove(name).env_remove(name.to_uppercase());
    }
    command.env("TZ", noon());
    command
}

fn program() -> String {
    let named = std::env::var("MOONLET_TEST_PROGRAM");
    named.unwrap_or_else(|_| env!("CARGO_BIN_EXE_moonlet").to_owned())
}

fn runner() -> Vec<String> {
    let words = std::env::var("MOONLET_TEST_RUNNER").unwrap_or_default();
    words.split_whitespace().map(str::to_owned).collect()
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
