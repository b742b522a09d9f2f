//! Debian's nginx on loopback, with files of its own.

use std::path::Path;
use std::process::Command;

use super::{Running, find_program, free_port, wait_until};

pub struct Nginx {
    pub port: u16,
    child: Option<Running>,
}

impl Nginx {
    /// Serves `files`/www by these lines of its section `server`, TLS with `ssl` behind the port.
    pub fn start(files: &Path, listen: &str, server: &str) -> Self {
        std::fs::create_dir_all(files.join("www")).unwrap();
        std::fs::create_dir_all(files.join("nginx")).unwrap();
        let port = free_port();
        let place = files.display();
        let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("{name}_temp_path {place}/nginx/{name};\n"))
            .concat();
        let text = format!(
            "{user}\ndaemon off;\npid {place}/nginx/pid;\nerror_log {place}/nginx/error.log;\n\
             events {{ }}\nhttp {{\naccess_log {place}/access.log;\n{temporary}\
             default_type application/json;\nserver {{\nlisten 127.0.0.1:{port}{listen};\n\
             root {place}/www;\n{server}\n}}\n}}\n"
        );
        std::fs::write(files.join("nginx.conf"), text).unwrap();
        let mut nginx = Command::new(find_program("nginx").unwrap());
        nginx.arg("-p").arg(files.join("nginx")).arg("-e").arg(files.join("nginx/error.log"));
        nginx.arg("-c").arg(files.join("nginx.conf"));
        let log = files.join("nginx.log");
        let child = Running::start(&mut nginx, &log);
        wait_until(
            || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok(),
            || std::fs::read_to_string(&log).unwrap_or_default(),
        );
        Self { port, child: Some(child) }
    }

    /// Ends it.
    pub fn stop(&mut self) {
        self.child = None;
    }
}
