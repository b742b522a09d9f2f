//! `[state]`: what to hold, said by a file or behind a URL in place of a Ground Control.

use std::fmt;
use std::path::PathBuf;

use super::ground_control::is_loopback;
use super::show::optional;
use super::table::{Reader, Table};
use super::{State, StatePlace};

impl<'a> Reader<'a> {
    /// Where the state lies; none where that cannot be used.
    pub fn state(&mut self, mut table: Table<'a>, is_obedient: bool) -> Option<State> {
        if is_obedient {
            self.wrong(&table, "beside [ground_control]", "one of them");
        }
        let file = self.text(&mut table, "file").map(PathBuf::from);
        let url = self.url(&mut table);
        if file.is_some() == url.is_some() {
            self.wrong(&table, "file and url", "one of them");
        }
        let username = self.text(&mut table, "username");
        let password_file = self.text(&mut table, "password_file").map(PathBuf::from);
        if username.is_some() != password_file.is_some() {
            self.wrong(&table, "username and password_file", "both or neither");
        }
        if let Some(Some(url)) = &url
            && url.scheme() == "http"
            && !is_loopback(url)
        {
            let what = "anyone on the path can change what is held, expected https";
            self.warn(table.span.clone(), &format!("[state] url = \"{url}\": {what}"));
        }
        let (ca_file, client_cert, client_key) = self.tls_files(&mut table);
        self.finish(table, &STATE_KEYS);
        let place = match file {
            Some(path) => StatePlace::File(path),
            None => StatePlace::Url(url??),
        };
        Some(State { place, username, password_file, ca_file, client_cert, client_key })
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            StatePlace::File(path) => writeln!(f, "\n[state]\nfile = {path:?}")?,
            StatePlace::Url(url) => writeln!(f, "\n[state]\nurl = \"{url}\"")?,
        }
        optional(f, "username", self.username.as_ref())?;
        optional(f, "password_file", self.password_file.as_ref())?;
        optional(f, "ca_file", self.ca_file.as_ref())?;
        optional(f, "client_cert", self.client_cert.as_ref())?;
        optional(f, "client_key", self.client_key.as_ref())
    }
}

const STATE_KEYS: [&str; 7] =
    ["file", "url", "username", "password_file", "ca_file", "client_cert", "client_key"];
