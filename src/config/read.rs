//! From TOML text to a [`Config`], collecting problems on the way.

use std::net::SocketAddr;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use super::proxy::leads_to;
use super::table::{Reader, Table, masked, table};
use super::upstream::implied;
use super::{
    Activation, Admin, Config, Image, Import, Loaded, Location, Serve, ServerTls, Store, Sync,
    Upstream,
};
use crate::oci::{Platform, Reference};
use crate::units::ByteCount;
use toml::de::DeTable;

/// Reads `text`, naming it `file` in problems.
pub fn parse(file: &str, text: &str) -> Result<Loaded, Vec<String>> {
    let mut reader = Reader::new(file, text);
    let document = match DeTable::parse(text) {
        Ok(document) => document,
        Err(error) => {
            let line = reader.line(error.span().unwrap_or(0..0));
            return Err(vec![format!("{file}:{line}: {}", error.message())]);
        }
    };
    let config = reader.config(document.into_inner());
    let Reader { problems, warnings, .. } = reader;
    if problems.is_empty() { Ok(Loaded { config, warnings }) } else { Err(problems) }
}

impl<'a> Reader<'a> {
    fn config(&mut self, document: DeTable<'a>) -> Config {
        let mut top = table(String::new(), document, 0..0);
        self.check_sections(&top);
        let mut serve = self.section(&mut top, "serve");
        let mut admin = self.section(&mut top, "admin");
        let proxy = self.optional_section(&mut top, "proxy");
        let store = self.section(&mut top, "store");
        let mut sync = self.section(&mut top, "sync");
        let link = self.section(&mut top, "link");
        let mut import = self.section(&mut top, "import");
        let ground_control = self.optional_section(&mut top, "ground_control");
        let state = self.optional_section(&mut top, "state");
        let upstreams = self.list(&mut top, "upstream");
        let verify = self.list(&mut top, "verify");
        let images = self.list(&mut top, "image");
        let name = self.text(&mut top, "name").unwrap_or_else(|| "moonlet".to_owned());
        let user = self.text(&mut top, "user");
        self.finish(top, &TOP_KEYS);
        for (key, label, feature) in SERVE_FEATURES {
            if let Some(span) = serve.span_of(key) {
                self.check_key(span, label, feature);
            }
        }
        let mut listen = self.addresses(&mut serve);
        let tls = self.server_tls(&mut serve);
        let connections_max = self.count(&mut serve, "connections_max").unwrap_or(CONNECTIONS_MAX);
        let htpasswd = self.text(&mut serve, "htpasswd").map(PathBuf::from);
        let insecure = self.flag(&mut serve, "insecure").unwrap_or(false);
        let rules = self.read_rules(&mut serve);
        self.finish(serve, &SERVE_KEYS);
        let admin_listen = self.addresses(&mut admin);
        if let [_, second, ..] = admin_listen.as_slice() {
            self.problem(second.0.clone(), "[admin] listen", "several", "one address and port");
        }
        self.finish(admin, &["listen"]);
        if listen.is_empty() {
            listen.push((0..0, SocketAddr::from(([127, 0, 0, 1], LISTEN_PORT))));
        }
        let proxy = proxy.map(|table| self.forward_proxy(table));
        let proxy_listen = proxy.as_ref().map(|(_, listen)| listen.as_slice());
        self.check_addresses(&listen, &admin_listen, proxy_listen.unwrap_or_default());
        if tls.is_none() && !insecure {
            self.check_loopback(&listen, htpasswd.is_some());
        }
        let listen = listen.into_iter().map(|(_, address)| address).collect();
        let admin_listen = admin_listen.into_iter().map(|(_, address)| address).next();
        let store = self.store(store);
        let poll_interval = self.duration(&mut sync, "poll_interval").unwrap_or(POLL_INTERVAL);
        if poll_interval < POLL_INTERVAL_MIN {
            self.wrong(&sync, "poll_interval", "at least \"1s\"");
        }
        self.finish(sync, &["poll_interval"]);
        let link = self.link(link);
        let key_file = self.text(&mut import, "key_file").map(PathBuf::from);
        self.finish(import, &["key_file"]);
        let ground_control = ground_control.and_then(|table| self.ground_control(table));
        let state = state.and_then(|table| self.state(table, ground_control.is_some()));
        let others_may_come = ground_control.is_some() || state.is_some();
        let upstreams: Vec<(Range<usize>, Upstream)> =
            upstreams.into_iter().filter_map(|table| self.upstream(table)).collect();
        let verify: Vec<_> = verify.into_iter().filter_map(|table| self.verify(table)).collect();
        let images: Vec<(Range<usize>, Image)> =
            images.into_iter().filter_map(|table| self.image(table)).collect();
        self.check_upstreams(&upstreams, &images, others_may_come);
        let images = self.merge_images(images);
        let mut upstreams: Vec<Upstream> = upstreams.into_iter().map(|(_, up)| up).collect();
        for image in &images {
            let registry = &image.reference.registry;
            if upstreams.iter().all(|upstream| upstream.registry != *registry) {
                upstreams.extend(implied(registry));
            }
        }
        self.check_verify(&verify, &upstreams, others_may_come);
        let verify = verify.into_iter().map(|(_, rule)| rule).collect();
        if let Some((proxy, listen)) = &proxy {
            self.check_proxy(proxy, listen, &upstreams, others_may_come);
            let span = listen.first().map_or(0..0, |(span, _)| span.clone());
            if tls.as_ref().is_some_and(|tls| tls.client_ca.is_some()) && htpasswd.is_none() {
                let expected = "[serve] htpasswd beside client_ca: who uses the proxy shows no \
                                certificate";
                self.problem(span.clone(), "[proxy]", "without passwords", expected);
            }
            if link.proxy.as_ref().is_some_and(|before| leads_to(before, &proxy.listen)) {
                let expected = "another proxy than this satellite is itself";
                self.problem(span, "[link] proxy", "an address of [proxy] listen", expected);
            }
        }
        let (rule_spans, rules): (Vec<_>, Vec<_>) = rules.into_iter().unzip();
        let config = Config {
            name,
            user,
            serve: Serve { listen, connections_max, tls, htpasswd, insecure, rules },
            admin: Admin { listen: admin_listen },
            proxy: proxy.map(|(proxy, _)| proxy),
            store,
            sync: Sync { poll_interval },
            link,
            import: Import { key_file },
            ground_control,
            state,
            upstreams,
            verify,
            images,
        };
        self.check_read_rules(&rule_spans, &config);
        config
    }

    fn image(&mut self, mut table: Table<'a>) -> Option<(Range<usize>, Image)> {
        let span = table.span.clone();
        let expected = "an image such as \"docker.io/library/busybox:1.36\"";
        let reference = match self.spanned(&mut table, "reference") {
            None => {
                self.wrong(&table, "reference", expected);
                None
            }
            Some((span, text)) => match text.parse::<Reference>() {
                Ok(reference) => {
                    if reference.digest.is_some_and(|digest| !digest.algorithm().is_verified()) {
                        self.check_key(span, "[[image]] reference by sha512", "sha512");
                    }
                    Some(reference)
                }
                Err(error) => {
                    let what = format!("{:?}", masked(&text));
                    self.problem(span, "[[image]] reference", &what, error.expected());
                    None
                }
            },
        };
        let mut platforms = Vec::new();
        for (span, text) in self.texts(&mut table, "platforms") {
            match text.parse::<Platform>() {
                Ok(platform) => {
                    self.check_platform(span, &platform);
                    platforms.push(platform);
                }
                Err(error) => {
                    let key = format!("{} platforms", table.name);
                    self.problem(span, &key, &format!("{text:?}"), error.0);
                }
            }
        }
        if platforms.is_empty() {
            platforms.push(Platform::device());
        }
        self.finish(table, &["reference", "platforms"]);
        let activation = Activation::Now;
        Some((span, Image { reference: reference?, platforms, activation }))
    }

    fn store(&mut self, mut table: Table<'a>) -> Store {
        let path = self.text(&mut table, "path");
        let device = self.text(&mut table, "device");
        let size_max: Option<ByteCount> =
            self.parsed(&mut table, "size_max", "a size such as \"4GiB\"");
        if size_max.is_some_and(|size| size.0 < SIZE_MIN) {
            let what = format!("size_max below {}", ByteCount(SIZE_MIN).exact());
            self.wrong(&table, &what, "room for at least one layer, such as \"256MiB\"");
        }
        if path.is_some() && device.is_some() {
            self.wrong(&table, "path and device", "one of them");
        }
        let scrub_interval = self.duration(&mut table, "scrub_interval").unwrap_or(SCRUB_INTERVAL);
        let verify_interval =
            self.duration(&mut table, "verify_interval").unwrap_or(VERIFY_INTERVAL);
        let cycles_rated = self.count(&mut table, "cycles_rated").unwrap_or(CYCLES_RATED);
        self.finish(table, &STORE_KEYS);
        let (location, size_max) = match device {
            Some(device) => (Location::Device(PathBuf::from(device)), size_max),
            None => {
                let path = PathBuf::from(path.unwrap_or_else(|| STORE_PATH.to_owned()));
                (Location::Directory(path), size_max.or(Some(ByteCount(SIZE_MAX_DEFAULT))))
            }
        };
        Store { location, size_max, scrub_interval, verify_interval, cycles_rated }
    }

    pub(super) fn addresses(&mut self, table: &mut Table<'a>) -> Vec<(Range<usize>, SocketAddr)> {
        let key = format!("{} listen", table.name);
        let mut addresses = Vec::new();
        for (span, text) in self.texts(table, "listen") {
            match text.parse() {
                Ok(address) => addresses.push((span, address)),
                Err(_) => {
                    let expected = "an address and port such as \"127.0.0.1:8585\"";
                    self.problem(span, &key, &format!("{text:?}"), expected);
                }
            }
        }
        addresses
    }

    fn server_tls(&mut self, table: &mut Table<'a>) -> Option<ServerTls> {
        let cert = self.text(table, "tls_cert").map(PathBuf::from);
        let key = self.text(table, "tls_key").map(PathBuf::from);
        let client_ca = self.text(table, "client_ca").map(PathBuf::from);
        match (cert, key) {
            (Some(cert), Some(key)) => Some(ServerTls { cert, key, client_ca }),
            (None, None) if client_ca.is_none() => None,
            _ => {
                self.wrong(table, "tls_cert, tls_key, client_ca", "tls_cert and tls_key together");
                None
            }
        }
    }
}

const TOP_KEYS: [&str; 14] = [
    "name",
    "user",
    "serve",
    "admin",
    "proxy",
    "store",
    "sync",
    "link",
    "import",
    "ground_control",
    "state",
    "upstream",
    "verify",
    "image",
];
const SERVE_KEYS: [&str; 8] = [
    "listen",
    "connections_max",
    "tls_cert",
    "tls_key",
    "client_ca",
    "htpasswd",
    "insecure",
    "rule",
];
/// Keys that a build may do without, as messages name them, and what they need.
const SERVE_FEATURES: [(&str, &str, &str); 2] =
    [("htpasswd", "[serve] htpasswd", "htpasswd"), ("tls_cert", "[serve] tls_cert", "serve-tls")];
const STORE_KEYS: [&str; 6] =
    ["path", "device", "size_max", "scrub_interval", "verify_interval", "cycles_rated"];
/// Cells lose their charge over months; cards are replaced after years.
const SCRUB_INTERVAL: Duration = Duration::from_hours(7 * 24);
/// Reading and hashing a day's work once more is little beside sending it.
const VERIFY_INTERVAL: Duration = Duration::from_hours(24);
/// What eMMC and SD cards of three bits a cell are mostly rated for.
const CYCLES_RATED: u32 = 3000;
const STORE_PATH: &str = "/var/lib/moonlet";
const SIZE_MAX_DEFAULT: u64 = 4 << 30;
/// Six of the smallest segments: FORMAT.md section 2.
const SIZE_MIN: u64 = 384 << 10;
/// Registries answer a fleet that asks more often with 429.
const POLL_INTERVAL_MIN: Duration = Duration::from_secs(1);
const POLL_INTERVAL: Duration = Duration::from_secs(300);
const CONNECTIONS_MAX: u32 = 128;
const LISTEN_PORT: u16 = 8585;

#[cfg(test)]
mod tests;
