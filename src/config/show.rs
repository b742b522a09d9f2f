//! A configuration as it is in effect, for `moonlet check`: TOML with every default written out.

use std::fmt;

use super::{Config, Link, Location, PullThrough, Token, Verify};
use crate::oci::Pattern;
use crate::units::{ByteCount, ByteRate, exact_duration};

impl fmt::Display for Config {
    /// As TOML that is read back as the same, but for secrets, which are masked.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, user, serve, admin, proxy, store, sync, link, .. } = self;
        let Self { import, ground_control, state, upstreams, verify, images, .. } = self;
        writeln!(f, "name = {name:?}")?;
        if let Some(user) = user {
            writeln!(f, "user = {user:?}")?;
        }
        writeln!(f, "\n[serve]")?;
        let listen: Vec<String> = serve.listen.iter().map(|a| format!("\"{a}\"")).collect();
        writeln!(f, "listen = [{}]", listen.join(", "))?;
        writeln!(f, "connections_max = {}", serve.connections_max)?;
        if let Some(tls) = &serve.tls {
            writeln!(f, "tls_cert = {:?}\ntls_key = {:?}", tls.cert, tls.key)?;
            optional(f, "client_ca", tls.client_ca.as_ref())?;
        }
        optional(f, "htpasswd", serve.htpasswd.as_ref())?;
        if serve.insecure {
            writeln!(f, "insecure = true")?;
        }
        serve.rules.iter().try_for_each(|rule| rule.fmt(f))?;
        if let Some(listen) = admin.listen {
            writeln!(f, "\n[admin]\nlisten = \"{listen}\"")?;
        }
        if let Some(proxy) = proxy {
            proxy.fmt(f)?;
        }
        match &store.location {
            Location::Directory(path) => writeln!(f, "\n[store]\npath = {path:?}")?,
            Location::Device(path) => writeln!(f, "\n[store]\ndevice = {path:?}")?,
        }
        if let Some(size_max) = store.size_max {
            writeln!(f, "size_max = \"{}\"", size_max.exact())?;
        }
        writeln!(f, "scrub_interval = \"{}\"", exact_duration(store.scrub_interval))?;
        writeln!(f, "verify_interval = \"{}\"", exact_duration(store.verify_interval))?;
        writeln!(f, "cycles_rated = {}", store.cycles_rated)?;
        let interval = exact_duration(sync.poll_interval);
        writeln!(f, "\n[sync]\npoll_interval = \"{interval}\"")?;
        link.fmt(f)?;
        if let Some(path) = &import.key_file {
            writeln!(f, "\n[import]\nkey_file = {path:?}")?;
        }
        if let Some(ground) = ground_control {
            writeln!(f, "\n[ground_control]\nurl = \"{}\"", ground.url)?;
            match &ground.token {
                Token::Text(token) => writeln!(f, "token = {token:?}")?,
                Token::File(path) => writeln!(f, "token_file = {path:?}")?,
                Token::KernelCommandLine => {}
            }
            optional(f, "ca_file", ground.ca_file.as_ref())?;
            optional(f, "client_cert", ground.client_cert.as_ref())?;
            optional(f, "client_key", ground.client_key.as_ref())?;
            optional(f, "key_file", ground.key_file.as_ref())?;
        }
        if let Some(state) = state {
            state.fmt(f)?;
        }
        for upstream in upstreams {
            writeln!(f, "\n[[upstream]]\nregistry = {:?}", upstream.registry)?;
            writeln!(f, "url = \"{}\"", upstream.url)?;
            optional(f, "username", upstream.username.as_ref())?;
            optional(f, "password_file", upstream.password_file.as_ref())?;
            optional(f, "ca_file", upstream.ca_file.as_ref())?;
            optional(f, "client_cert", upstream.client_cert.as_ref())?;
            optional(f, "client_key", upstream.client_key.as_ref())?;
            if let Some(PullThrough { tag_ttl, allow, deny }) = &upstream.pull_through {
                writeln!(f, "pull_through = true\ntag_ttl = \"{}\"", exact_duration(*tag_ttl))?;
                patterns(f, "allow", allow)?;
                patterns(f, "deny", deny)?;
            }
        }
        for Verify { registry, repositories, key_file } in verify {
            writeln!(f, "\n[[verify]]\nregistry = {registry:?}\nkey_file = {key_file:?}")?;
            patterns(f, "repositories", repositories)?;
        }
        for image in images {
            let platforms: Vec<_> = image.platforms.iter().map(|p| format!("\"{p}\"")).collect();
            writeln!(f, "\n[[image]]\nreference = \"{}\"", image.reference)?;
            writeln!(f, "platforms = [{}]", platforms.join(", "))?;
        }
        Ok(())
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rate_max, proxy, day_max, month_max, month_day, windows, urgent } = self;
        writeln!(f, "\n[link]")?;
        optional(f, "rate_max", rate_max.map(ByteRate::exact))?;
        optional(f, "proxy", proxy.as_ref())?;
        optional(f, "day_max", day_max.map(ByteCount::exact))?;
        if let Some(month_max) = month_max {
            writeln!(f, "month_max = \"{}\"\nmonth_day = {month_day}", month_max.exact())?;
        }
        if !windows.is_empty() {
            let windows: Vec<_> = windows.iter().map(|window| format!("\"{window}\"")).collect();
            writeln!(f, "windows = [{}]", windows.join(", "))?;
        }
        writeln!(f, "urgent = {urgent}")
    }
}

pub(super) fn optional(
    f: &mut fmt::Formatter<'_>,
    key: &str,
    value: Option<impl fmt::Debug>,
) -> fmt::Result {
    match value {
        Some(value) => writeln!(f, "{key} = {value:?}"),
        None => Ok(()),
    }
}

pub(super) fn patterns(f: &mut fmt::Formatter<'_>, key: &str, patterns: &[Pattern]) -> fmt::Result {
    let texts: Vec<&str> = patterns.iter().map(Pattern::as_str).collect();
    if texts.is_empty() { Ok(()) } else { writeln!(f, "{key} = {texts:?}") }
}
