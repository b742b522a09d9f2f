//! Debian's docker-registry on loopback, with files of its own.

use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;

use super::{Directory, Running, free_port, wait_until};

pub struct DockerRegistry {
    child: Option<Running>,
    pub address: SocketAddr,
    /// Its configuration and its log.
    directory: Directory,
    files: PathBuf,
    more: String,
}

impl DockerRegistry {
    pub fn start(name: &str) -> Self {
        let directory = Directory::new(&format!("registry-{name}"));
        let files = directory.join("files");
        Self::start_over(directory, files)
    }

    /// Another one with the same files, and without this one's configuration.
    pub fn beside(&self, name: &str) -> Self {
        Self::start_over(Directory::new(&format!("registry-{name}")), self.files.clone())
    }

    fn start_over(directory: Directory, files: PathBuf) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let mut registry = Self { child: None, address, directory, files, more: String::new() };
        registry.start_again();
        registry
    }

    /// Where a file beside its configuration is.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Ends it; its files stay.
    pub fn stop(&mut self) {
        self.child = None;
    }

    /// The same again, with more of its configuration, from within its section `http` on.
    pub fn configure(&mut self, more: &str) {
        self.stop();
        self.more = more.to_owned();
        self.start_again();
    }

    pub fn start_again(&mut self) {
        let file = self.directory.join("registry.yml");
        let (files, address, more) = (&self.files, self.address, &self.more);
        let text = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  cache:\n    blobdescriptor: inmemory\n  \
             filesystem:\n    rootdirectory: {files:?}\n  delete:\n    enabled: true\nhttp:\n  addr: {address}\n{more}"
        );
        std::fs::write(&file, text).unwrap();
        let mut command = Command::new("docker-registry");
        self.child = Some(Running::start(command.arg("serve").arg(file), &self.log_file()));
        wait_until(|| TcpStream::connect(address).is_ok(), || self.log());
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn log_file(&self) -> PathBuf {
        self.directory.join("log")
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// Body bytes of blobs and manifests that it sent, by its access log.
    pub fn sent_bytes(&self) -> u64 {
        let log = self.log();
        let answers = log.lines().filter_map(|line| line.split_once("\"GET /v2/"));
        let bodies = answers.filter(|(_, rest)| {
            rest.split('"')
                .next()
                .is_some_and(|p| p.contains("/blobs/") || p.contains("/manifests/"))
        });
        let lengths = bodies.filter_map(|(_, rest)| {
            // The path, then the status and the bytes behind the quote.
            rest.split('"').nth(1)?.split_whitespace().nth(1)?.parse::<u64>().ok()
        });
        lengths.sum()
    }
}
