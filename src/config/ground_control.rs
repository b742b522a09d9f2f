//! `[ground_control]`: whose fleet the satellite is part of.

use std::path::PathBuf;

use url::Url;

use super::table::{Reader, Table};
use super::{GroundControl, Secret, Token};

impl<'a> Reader<'a> {
    /// Whom to obey; none where the address cannot be used.
    pub fn ground_control(&mut self, mut table: Table<'a>) -> Option<GroundControl> {
        let url = self.url(&mut table);
        if url.is_none() {
            self.wrong(&table, "url", "Ground Control's, such as \"https://ground.example\"");
        }
        if let Some(Some(url)) = &url
            && url.scheme() == "http"
            && !is_loopback(url)
        {
            let what = "tokens and credentials go over the network in clear, expected https";
            self.warn(table.span.clone(), &format!("[ground_control] url = \"{url}\": {what}"));
        }
        let token = self.text(&mut table, "token");
        let token_file = self.text(&mut table, "token_file");
        if token.is_some() && token_file.is_some() {
            self.wrong(&table, "token and token_file", "one of them");
        }
        if token.as_ref().is_some_and(|token| !is_token(token)) {
            self.wrong(
                &table,
                "token",
                "1 to 256 letters, digits, . _ - as Ground Control issued it",
            );
        }
        let token = match (token, token_file) {
            (Some(token), _) => Token::Text(Secret(token)),
            (None, Some(path)) => Token::File(PathBuf::from(path)),
            (None, None) => Token::KernelCommandLine,
        };
        let (ca_file, client_cert, client_key) = self.tls_files(&mut table);
        let key_file = self.text(&mut table, "key_file").map(PathBuf::from);
        self.finish(table, &GROUND_CONTROL_KEYS);
        Some(GroundControl { url: url??, token, ca_file, client_cert, client_key, key_file })
    }
}

pub(super) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// Whether a text can be an enrolment token: a part of a path.
pub fn is_token(text: &str) -> bool {
    let may = |sign: u8| sign.is_ascii_alphanumeric() || b"._-".contains(&sign);
    (1..=TOKEN_BYTES_MAX).contains(&text.len()) && text.bytes().all(may)
}

const GROUND_CONTROL_KEYS: [&str; 7] =
    ["url", "token", "token_file", "ca_file", "client_cert", "client_key", "key_file"];
/// Ground Controls' tokens have 32.
const TOKEN_BYTES_MAX: usize = 256;
