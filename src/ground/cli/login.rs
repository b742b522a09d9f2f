//! Logs in and out, and asks for passwords.

use std::fs;
use std::io::{IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::http::{Connection, Method, Request, Server, base};
use super::output::{complain, say, text};
use super::session::{Remembered, path, remember, remembered};
use super::{Failure, variable};

#[derive(Args)]
pub struct Login {
    /// The server; without, the one of the last login
    url: Option<String>,
    /// Who logs in
    #[arg(long, default_value = "admin")]
    user: String,
    #[command(flatten)]
    password: Password,
    /// An authority in PEM that the server's certificate is by, in place of the system's
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
}

#[derive(Args)]
pub struct Logout {
    #[command(flatten)]
    connection: Connection,
}

/// Where the password of a login comes from: a file, the environment, or a question.
#[derive(Args)]
pub struct Password {
    /// A file with the password, - for standard input; without, GROUND_CONTROL_PASSWORD, or it is
    /// asked for
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

impl Password {
    fn read(&self, question: &str) -> Result<String, Failure> {
        if let Some(path) = &self.password_file {
            return read_secret(path);
        }
        if let Some(password) = variable("GROUND_CONTROL_PASSWORD") {
            return Ok(password);
        }
        ask(question)
    }
}

/// Where a password comes from that does not exist yet. Not from the environment: what is there is
/// the password of who logs in.
#[derive(Args)]
pub struct NewPassword {
    /// A file with the new password, - for standard input; without, it is asked for
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

impl NewPassword {
    /// Where it is asked for, twice.
    pub fn read(&self, question: &str) -> Result<String, Failure> {
        if let Some(path) = &self.password_file {
            return read_secret(path);
        }
        let password = ask(question)?;
        if ask("again: ")? != password {
            return Err("the two passwords differ".into());
        }
        Ok(password)
    }
}

/// A password from the terminal, which does not show it.
pub fn ask(question: &str) -> Result<String, Failure> {
    if !std::io::stdin().is_terminal() {
        return Err("password: expected --password-file, or a terminal to ask at".into());
    }
    rpassword::prompt_password(question).map_err(|error| format!("password: {error}").into())
}

/// The one line of a file that holds a secret; `-` is standard input.
pub fn read_secret(path: &Path) -> Result<String, Failure> {
    let failed = |what: String| Failure::from(format!("{}: {what}", path.display()));
    let mut secret = String::new();
    let read = if path == Path::new("-") {
        std::io::stdin().lock().take(SECRET_BYTES_MAX + 1).read_to_string(&mut secret)
    } else {
        let file = fs::File::open(path).map_err(|error| failed(error.to_string()))?;
        file.take(SECRET_BYTES_MAX + 1).read_to_string(&mut secret)
    };
    let bytes = read.map_err(|error| failed(error.to_string()))?;
    let secret = secret.trim_end_matches(['\r', '\n']);
    if secret.is_empty() || secret.contains('\n') || bytes as u64 > SECRET_BYTES_MAX {
        return Err(failed(format!("expected one line of 1 to {SECRET_BYTES_MAX} bytes")));
    }
    Ok(secret.to_owned())
}

pub fn login(login: &Login) -> Result<ExitCode, Failure> {
    let before = remembered()?;
    let given = login.url.clone().or_else(|| variable("GROUND_CONTROL_SERVER"));
    let url = match (given, &before) {
        (Some(url), _) => base(&url)?,
        (None, Some(before)) => before.url.clone(),
        (None, None) => return Err("which server? expected ground-control login URL".into()),
    };
    let known = before.filter(|before| before.url == url);
    let ca_file = login.ca_file.clone().or_else(|| known.and_then(|known| known.ca_file));
    // The next command may be given in another directory.
    let ca_file = ca_file.map(|path| std::path::absolute(&path).unwrap_or(path));
    let server = Server::new(url.clone(), ca_file.as_deref())?;
    if crosses_in_the_clear(&url) {
        complain(&format!("warning: {url} is without TLS: the password crosses in the clear"));
    }
    let user = &login.user;
    let password = login.password.read(&format!("password of {user} at {url}: "))?;
    let body = json!({ "username": user, "password": password });
    let answer = server.ask(&Request::new(Method::Post, &["login"], Some(body)));
    let answer = answer.map_err(|failure| match failure.status {
        Some(401) => Failure::from(format!(
            "{user} at {url}: wrong user or password, or locked after too many wrong ones"
        )),
        _ => failure,
    })?;
    let (token, expires_at) = (text(&answer, "token"), text(&answer, "expires_at"));
    if token.is_empty() {
        return Err(format!("{url}: no session was answered: is this Ground Control?").into());
    }
    let file = path()?;
    remember(
        &file,
        &Remembered { url, user: user.clone(), token, expires_at: expires_at.clone(), ca_file },
    )?;
    say(&format!("logged in as {user} until {expires_at}; remembered in {}", file.display()))?;
    Ok(ExitCode::SUCCESS)
}

pub fn logout(logout: &Logout) -> Result<ExitCode, Failure> {
    let server = logout.connection.open()?;
    let ended = server.ask(&Request::new(Method::Post, &["api", "logout"], None));
    // It is forgotten even where the server cannot be reached; another one that
    // GROUND_CONTROL_TOKEN has is not what is remembered.
    if remembered()?.is_some_and(|login| server.is_with(&login)) {
        let file = path()?;
        fs::remove_file(&file).map_err(|error| format!("{}: {error}", file.display()))?;
    }
    match ended {
        Err(failure) if failure.status != Some(401) => Err(failure),
        _ => say(&format!("logged out of {}", server.url)).map(|()| ExitCode::SUCCESS),
    }
}

fn crosses_in_the_clear(url: &str) -> bool {
    let Ok(url) = url::Url::parse(url) else { return false };
    let is_here = match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    };
    url.scheme() == "http" && !is_here
}

const SECRET_BYTES_MAX: u64 = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_leaves_this_machine_crosses() {
        for url in ["https://h", "http://127.0.0.1:1", "http://[::1]:1", "http://localhost"] {
            assert!(!crosses_in_the_clear(url), "{url}");
        }
        assert!(crosses_in_the_clear("http://ground.example"));
    }
}
