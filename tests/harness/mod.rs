//! What the tests of the built programs share: directories and processes that end with their test,
//! ports, waiting, and the peers: a registry, a runtime, a relay that breaks.
//!
//! A test includes it by its path. A case that needs programs of other people begins with
//! [`missing`], which says by name what is left out; `MOONLET_TEST_PEERS=required`, as
//! `scripts/test` sets it, makes that a failure.

pub mod http;
pub mod images;
pub mod nginx;
pub mod registry;
pub mod relay;
pub mod satellite;

use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

/// A directory of one test, removed with it.
pub struct Directory(PathBuf);

impl Directory {
    pub fn new(name: &str) -> Self {
        let path = fresh_path(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // Runtimes leave files of root.
        if std::fs::remove_dir_all(&self.0).is_err() && self.0.exists() {
            let _ = as_root("rm").arg("-rf").arg(&self.0).status();
        }
    }
}

/// A path at which there is nothing. Tests that run at the same time may choose the same name.
pub fn fresh_path(name: &str) -> PathBuf {
    static COUNT: AtomicU16 = AtomicU16::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("moonlet-{name}-{}-{count}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    path
}

/// A process that is killed with its test.
pub struct Running(pub Child);

impl Running {
    /// Starts a program whose output goes to a file.
    pub fn start(command: &mut Command, log: &Path) -> Self {
        let log = std::fs::File::options().create(true).append(true).open(log).unwrap();
        let errors = log.try_clone().unwrap();
        let child = command.stdin(Stdio::null()).stdout(log).stderr(errors).spawn();
        Self(child.unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A process of root's, which is asked to end with its test.
pub struct RunningAsRoot(Running);

impl RunningAsRoot {
    pub fn start(command: &mut Command, log: &Path) -> Self {
        Self(Running::start(command, log))
    }
}

impl Drop for RunningAsRoot {
    fn drop(&mut self) {
        let _ = as_root("kill").arg(self.0.0.id().to_string()).status();
        let _ = self.0.0.wait();
    }
}

/// A command that is run as root: as it is, or through sudo.
pub fn as_root(program: &str) -> Command {
    if rustix::process::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.args(["--non-interactive", program]);
    command
}

/// Runs a command that has to succeed; returns what it wrote to standard output.
pub fn run(command: &mut Command) -> Vec<u8> {
    let output = outcome(command);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}: {said}", output.status);
    output.stdout
}

/// As [`run`], for text.
pub fn text_of(command: &mut Command) -> String {
    String::from_utf8(run(command)).unwrap()
}

/// Runs a command to its end, however that is.
pub fn outcome(command: &mut Command) -> Output {
    let output = command.stdin(Stdio::null()).output();
    output.unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// Whether a program that the case `case` needs is not installed, or `root` is and cannot be had:
/// then the case is left out, and says so.
pub fn missing(case: &str, needed: &[&str]) -> bool {
    let is_there = |name: &&&str| match **name {
        "root" => as_root("true").stderr(Stdio::null()).status().is_ok_and(|s| s.success()),
        name => find_program(name).is_some(),
    };
    let absent: Vec<&str> = needed.iter().filter(|name| !is_there(name)).copied().collect();
    if absent.is_empty() {
        return false;
    }
    let what = format!("{case}: needs {}, not found here", absent.join(", "));
    let is_required = std::env::var("MOONLET_TEST_PEERS").is_ok_and(|value| value == "required");
    assert!(!is_required, "{what}, and MOONLET_TEST_PEERS=required");
    // Not by println!, which is seen of failed tests only.
    let _ = writeln!(std::io::stderr(), "SKIPPED {what}");
    true
}

/// Where a program is, also one of the system's.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    let found = std::env::split_paths(&path).chain(system).map(|place| place.join(name));
    found.into_iter().find(|path| path.is_file())
}

/// A port of the loopback that no one listens on, outside of those that the kernel assigns to
/// connections.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = u16::try_from(std::process::id() % 12_000).unwrap();
    loop {
        let port = 20_000 + (first + NEXT.fetch_add(1, Ordering::Relaxed)) % 12_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
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

/// For one thing that is waited for: retries with their waits come before some.
pub const PATIENCE: Duration = Duration::from_secs(180);
