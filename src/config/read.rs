//! From TOML text to a [`Config`], collecting problems on the way.

use std::net::SocketAddr;
use std::ops::Range;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};
use url::Url;

use super::{
    Admin, Config, Image, Link, Location, MASK, ProxyUrl, Serve, ServerTls, Store, Sync, Upstream,
};
use crate::oci::{Platform, Reference};
use crate::units::{ByteCount, ByteRate, parse_duration};

/// Reads `text`, naming it `file` in problems.
pub fn parse(file: &str, text: &str) -> Result<Config, Vec<String>> {
    let mut reader = Reader { file, text, problems: Vec::new() };
    let document = match DeTable::parse(text) {
        Ok(document) => document,
        Err(error) => {
            let line = reader.line(error.span().unwrap_or(0..0));
            return Err(vec![format!("{file}:{line}: {}", error.message())]);
        }
    };
    let config = reader.config(document.into_inner());
    if reader.problems.is_empty() { Ok(config) } else { Err(reader.problems) }
}

struct Reader<'a> {
    file: &'a str,
    text: &'a str,
    problems: Vec<String>,
}

/// One table, from which keys are taken as they are read.
struct Table<'a> {
    /// `[serve]`, or empty for the top.
    name: String,
    keys: Vec<(String, Spanned<DeValue<'a>>)>,
    span: Range<usize>,
}

impl<'a> Reader<'a> {
    fn config(&mut self, document: DeTable<'a>) -> Config {
        let mut top = table(String::new(), document, 0..0);
        let mut serve = self.section(&mut top, "serve");
        let mut admin = self.section(&mut top, "admin");
        let store = self.section(&mut top, "store");
        let mut sync = self.section(&mut top, "sync");
        let mut link = self.section(&mut top, "link");
        let upstreams = self.list(&mut top, "upstream");
        let images = self.list(&mut top, "image");
        let name = self.text(&mut top, "name").unwrap_or_else(|| "moonlet".to_owned());
        self.finish(top, &TOP_KEYS, &["ground_control"]);
        let listen = self.listen(&mut serve);
        let tls = self.server_tls(&mut serve);
        let connections_max = self.count(&mut serve, "connections_max").unwrap_or(CONNECTIONS_MAX);
        let serve_config = Serve { listen, connections_max, tls };
        self.finish(serve, &SERVE_KEYS, &["htpasswd"]);
        let listen = self.parsed::<SocketAddr>(&mut admin, "listen", "an address and port");
        self.finish(admin, &["listen"], &[]);
        let store = self.store(store);
        let poll_interval = self.duration(&mut sync, "poll_interval").unwrap_or(POLL_INTERVAL);
        self.finish(sync, &["poll_interval"], &[]);
        let rate_max: Option<ByteRate> =
            self.parsed(&mut link, "rate_max", "a rate such as \"1MiB/s\"");
        let proxy = self.proxy(&mut link);
        self.finish(link, &["rate_max", "proxy"], &LINK_PLANNED);
        let mut upstreams: Vec<Upstream> =
            upstreams.into_iter().filter_map(|table| self.upstream(table)).collect();
        let images: Vec<Image> = images.into_iter().filter_map(|table| self.image(table)).collect();
        for image in &images {
            let registry = &image.reference.registry;
            if upstreams.iter().all(|upstream| upstream.registry != *registry) {
                upstreams.extend(implied(registry));
            }
        }
        Config {
            name,
            serve: serve_config,
            admin: Admin { listen },
            store,
            sync: Sync { poll_interval },
            link: Link { rate_max, proxy },
            upstreams,
            images,
        }
    }

    fn upstream(&mut self, mut table: Table<'a>) -> Option<Upstream> {
        let registry = self.required(&mut table, "registry", "a name such as \"docker.io\"");
        let url = self.url(&mut table, "url", "an http or https URL", |url| {
            if !matches!(url.scheme(), "http" | "https") {
                Some("http or https")
            } else if has_credentials(url) {
                Some("no credentials in it: they go into username and password_file")
            } else {
                None
            }
        });
        let username = self.text(&mut table, "username");
        let password_file = self.text(&mut table, "password_file").map(PathBuf::from);
        let ca_file = self.text(&mut table, "ca_file").map(PathBuf::from);
        let client_cert = self.text(&mut table, "client_cert").map(PathBuf::from);
        let client_key = self.text(&mut table, "client_key").map(PathBuf::from);
        if client_cert.is_some() != client_key.is_some() {
            self.wrong(&table, "client_cert and client_key", "both or neither");
        }
        if username.is_some() != password_file.is_some() {
            self.wrong(&table, "username and password_file", "both or neither");
        }
        let registry = registry?;
        self.finish(table, &UPSTREAM_KEYS, &["pull_through"]);
        let url = url.or_else(|| implied(&registry).map(|upstream| upstream.url))?;
        let upstream =
            Upstream { registry, url, username, password_file, ca_file, client_cert, client_key };
        Some(upstream)
    }

    fn proxy(&mut self, table: &mut Table<'a>) -> Option<ProxyUrl> {
        let expected = "a proxy such as \"http://proxy.example:3128\"";
        let url = self.url(table, "proxy", expected, |url| {
            let is_bare = matches!(url.path(), "" | "/") && url.query().is_none();
            (url.scheme() != "http" || !is_bare).then_some(expected)
        });
        url.map(ProxyUrl)
    }

    /// A URL of a host, of which `wrong` says what was expected instead.
    fn url(
        &mut self,
        table: &mut Table<'a>,
        key: &str,
        expected: &str,
        wrong: impl Fn(&Url) -> Option<&'static str>,
    ) -> Option<Url> {
        let (span, text) = self.spanned(table, key)?;
        let url = text.parse::<Url>().ok().filter(|url| url.host_str().is_some());
        let expected = match &url {
            None => Some(expected),
            Some(url) => wrong(url),
        };
        let Some(expected) = expected else { return url };
        self.problem(span, &table.key(key), &format!("{:?}", masked(&text)), expected);
        None
    }

    fn image(&mut self, mut table: Table<'a>) -> Option<Image> {
        let expected = "an image such as \"docker.io/library/busybox:1.36\"";
        let reference: Option<Reference> = self.parsed(&mut table, "reference", expected);
        if reference.is_none() {
            self.wrong(&table, "reference", expected);
        }
        let mut platforms = Vec::new();
        for (span, text) in self.texts(&mut table, "platforms") {
            match text.parse::<Platform>() {
                Ok(platform) => platforms.push(platform),
                Err(error) => {
                    let key = format!("{} platforms", table.name);
                    self.problem(span, &key, &format!("{text:?}"), error.0);
                }
            }
        }
        if platforms.is_empty() {
            platforms.push(Platform::device());
        }
        self.finish(table, &["reference", "platforms"], &[]);
        Some(Image { reference: reference?, platforms })
    }

    fn store(&mut self, mut table: Table<'a>) -> Store {
        let path = self.text(&mut table, "path");
        let device = self.text(&mut table, "device");
        let size_max = self.parsed(&mut table, "size_max", "a size such as \"4GiB\"");
        if path.is_some() && device.is_some() {
            self.wrong(&table, "path and device", "one of them");
        }
        let scrub_interval = self.duration(&mut table, "scrub_interval").unwrap_or(SCRUB_INTERVAL);
        let cycles_rated = self.count(&mut table, "cycles_rated").unwrap_or(CYCLES_RATED);
        self.finish(table, &STORE_KEYS, &[]);
        let (location, size_max) = match device {
            Some(device) => (Location::Device(PathBuf::from(device)), size_max),
            None => {
                let path = PathBuf::from(path.unwrap_or_else(|| STORE_PATH.to_owned()));
                (Location::Directory(path), size_max.or(Some(ByteCount(SIZE_MAX_DEFAULT))))
            }
        };
        Store { location, size_max, scrub_interval, cycles_rated }
    }

    fn listen(&mut self, table: &mut Table<'a>) -> Vec<SocketAddr> {
        let mut addresses = Vec::new();
        for (span, text) in self.texts(table, "listen") {
            match text.parse() {
                Ok(address) => addresses.push(address),
                Err(_) => {
                    let expected = "an address and port such as \"127.0.0.1:8585\"";
                    self.problem(span, "[serve] listen", &format!("{text:?}"), expected);
                }
            }
        }
        if addresses.is_empty() {
            addresses.push(SocketAddr::from(([127, 0, 0, 1], LISTEN_PORT)));
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

    fn section(&mut self, top: &mut Table<'a>, name: &str) -> Table<'a> {
        let label = format!("[{name}]");
        match top.take(name) {
            None => table(label, DeTable::new(), 0..0),
            Some(value) => self.table(label, value),
        }
    }

    fn list(&mut self, top: &mut Table<'a>, name: &str) -> Vec<Table<'a>> {
        let label = format!("[[{name}]]");
        let Some(value) = top.take(name) else { return Vec::new() };
        let span = value.span();
        match value.into_inner() {
            DeValue::Array(items) => {
                items.into_iter().map(|item| self.table(label.clone(), item)).collect()
            }
            _ => {
                self.problem(span, &label, "something else", "tables");
                Vec::new()
            }
        }
    }

    fn table(&mut self, label: String, value: Spanned<DeValue<'a>>) -> Table<'a> {
        let span = value.span();
        match value.into_inner() {
            DeValue::Table(keys) => table(label, keys, span),
            _ => {
                self.problem(span, &label, "a value", "a table");
                table(label, DeTable::new(), 0..0)
            }
        }
    }

    fn required(&mut self, table: &mut Table<'a>, key: &str, expected: &str) -> Option<String> {
        let value = self.text(table, key);
        if value.is_none() {
            self.wrong(table, key, expected);
        }
        value
    }

    fn text(&mut self, table: &mut Table<'a>, key: &str) -> Option<String> {
        self.spanned(table, key).map(|(_, text)| text)
    }

    fn spanned(&mut self, table: &mut Table<'a>, key: &str) -> Option<(Range<usize>, String)> {
        let value = table.take(key)?;
        let span = value.span();
        match value.into_inner() {
            DeValue::String(text) => Some((span, text.into_owned())),
            _ => {
                let shown = self.text.get(span.clone()).unwrap_or("").to_owned();
                self.problem(span, &table.key(key), &shown, "text in quotes");
                None
            }
        }
    }

    fn texts(&mut self, table: &mut Table<'a>, key: &str) -> Vec<(Range<usize>, String)> {
        let Some(value) = table.take(key) else { return Vec::new() };
        let span = value.span();
        let DeValue::Array(items) = value.into_inner() else {
            let shown = self.text.get(span.clone()).unwrap_or("").to_owned();
            self.problem(span, &table.key(key), &shown, "a list of texts");
            return Vec::new();
        };
        let mut texts = Vec::new();
        for item in items {
            let span = item.span();
            match item.into_inner() {
                DeValue::String(text) => texts.push((span, text.into_owned())),
                _ => {
                    let shown = self.text.get(span.clone()).unwrap_or("").to_owned();
                    self.problem(span, &table.key(key), &shown, "text in quotes");
                }
            }
        }
        texts
    }

    fn parsed<T: FromStr>(
        &mut self,
        table: &mut Table<'a>,
        key: &str,
        expected: &str,
    ) -> Option<T> {
        let (span, text) = self.spanned(table, key)?;
        let value = text.parse().ok();
        if value.is_none() {
            self.problem(span, &table.key(key), &format!("{text:?}"), expected);
        }
        value
    }

    fn duration(&mut self, table: &mut Table<'a>, key: &str) -> Option<Duration> {
        let (span, text) = self.spanned(table, key)?;
        match parse_duration(&text) {
            Ok(duration) if !duration.is_zero() => Some(duration),
            _ => {
                let expected = "a time such as \"5m\" or \"1h\"";
                self.problem(span, &table.key(key), &format!("{text:?}"), expected);
                None
            }
        }
    }

    fn count(&mut self, table: &mut Table<'a>, key: &str) -> Option<u32> {
        let value = table.take(key)?;
        let span = value.span();
        let shown = self.text.get(span.clone()).unwrap_or("").to_owned();
        match shown.parse::<u32>() {
            Ok(count) if count > 0 => Some(count),
            _ => {
                self.problem(span, &table.key(key), &shown, "a whole number above 0");
                None
            }
        }
    }

    /// Refuses whatever was not taken.
    fn finish(&mut self, table: Table<'a>, known: &[&str], planned: &[&str]) {
        let Table { name, keys, .. } = table;
        for (key, value) in keys {
            let at = self.line(value.span());
            let place =
                format!("{}:{at}: {name}{}", self.file, if name.is_empty() { "" } else { " " });
            if planned.contains(&key.as_str()) {
                self.problems.push(format!(
                    "{place}{key}: a known key that this version does not enforce; remove it"
                ));
                continue;
            }
            let nearest = known.iter().min_by_key(|known| distance(known, &key));
            let nearest = nearest.map_or("", |nearest| nearest);
            self.problems.push(format!("{place}{key}: an unknown key; did you mean {nearest}?"));
        }
    }

    fn wrong(&mut self, table: &Table<'a>, what: &str, expected: &str) {
        let span = table.span.clone();
        let line = self.line(span);
        let (file, name) = (self.file, &table.name);
        self.problems.push(format!("{file}:{line}: {name} {what}: expected {expected}"));
    }

    fn problem(&mut self, span: Range<usize>, key: &str, value: &str, expected: &str) {
        let (file, line) = (self.file, self.line(span));
        self.problems.push(format!("{file}:{line}: {key} = {value}: expected {expected}"));
    }

    fn line(&self, span: Range<usize>) -> usize {
        let before = self.text.get(..span.start).unwrap_or("");
        before.matches('\n').count() + 1
    }
}

impl<'a> Table<'a> {
    fn take(&mut self, key: &str) -> Option<Spanned<DeValue<'a>>> {
        let index = self.keys.iter().position(|(name, _)| name == key)?;
        Some(self.keys.swap_remove(index).1)
    }

    fn key(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{} {key}", self.name) }
    }
}

fn table(name: String, keys: DeTable<'_>, span: Range<usize>) -> Table<'_> {
    let keys = keys.into_iter().map(|(key, value)| (key.into_inner().into_owned(), value));
    Table { name, keys: keys.collect(), span }
}

/// The upstream of an image whose registry has no `[[upstream]]`.
fn implied(registry: &str) -> Option<Upstream> {
    let host = if registry == "docker.io" { "registry-1.docker.io" } else { registry };
    let url = Url::parse(&format!("https://{host}")).ok()?;
    Some(Upstream {
        registry: registry.to_owned(),
        url,
        username: None,
        password_file: None,
        ca_file: None,
        client_cert: None,
        client_key: None,
    })
}

fn has_credentials(url: &Url) -> bool {
    !url.username().is_empty() || url.password().is_some()
}

/// What may be shown of a URL that cannot be used.
fn masked(text: &str) -> String {
    match text.rsplit_once('@') {
        Some((_, host)) => format!("{MASK}@{host}"),
        None => text.to_owned(),
    }
}

/// Levenshtein's distance, for "did you mean".
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (index, letter) in one.chars().enumerate() {
        let mut next = vec![index + 1];
        for (at, with) in other.iter().enumerate() {
            let replaced = row.get(at).map_or(0, |cost| cost + usize::from(letter != *with));
            let removed = row.get(at + 1).map_or(0, |cost| cost + 1);
            let added = next.last().map_or(0, |cost| cost + 1);
            next.push(replaced.min(removed).min(added));
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

const TOP_KEYS: [&str; 8] =
    ["name", "serve", "admin", "store", "sync", "link", "upstream", "image"];
const SERVE_KEYS: [&str; 5] = ["listen", "connections_max", "tls_cert", "tls_key", "client_ca"];
const UPSTREAM_KEYS: [&str; 7] =
    ["registry", "url", "username", "password_file", "ca_file", "client_cert", "client_key"];
const LINK_PLANNED: [&str; 5] = ["day_max", "month_max", "month_day", "windows", "urgent"];
const STORE_KEYS: [&str; 5] = ["path", "device", "size_max", "scrub_interval", "cycles_rated"];
/// Cells lose their charge over months; cards are replaced after years.
const SCRUB_INTERVAL: Duration = Duration::from_hours(7 * 24);
/// What eMMC and SD cards of three bits a cell are mostly rated for.
const CYCLES_RATED: u32 = 3000;
const STORE_PATH: &str = "/var/lib/moonlet";
const SIZE_MAX_DEFAULT: u64 = 4 << 30;
const POLL_INTERVAL: Duration = Duration::from_secs(300);
const CONNECTIONS_MAX: u32 = 128;
const LISTEN_PORT: u16 = 8585;

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn problems(text: &str) -> Vec<String> {
        parse("m.toml", text).err().unwrap_or_default()
    }

    #[test]
    fn a_whole_configuration() {
        let config = parse(
            "m.toml",
            "name = \"g\"\n[serve]\nlisten = [\"[::1]:1\"]\n[store]\npath = \"/x\"\n\
             size_max = \"64MiB\"\n[link]\nrate_max = \"1MiB/s\"\n\
             [[image]]\nreference = \"busybox\"\nplatforms = [\"linux/arm/v7\"]\n",
        )
        .unwrap();
        assert_eq!(config.upstreams[0].url.as_str(), "https://registry-1.docker.io/");
        assert_eq!(config.store.size_max, Some(ByteCount(64 << 20)));
        let again = parse("again", &config.to_string()).unwrap();
        assert_eq!(again.to_string(), config.to_string());
    }

    #[test]
    fn a_proxy_is_shown_without_its_password() {
        let text = "[link]\nproxy = \"http://u:s3cret@proxy:3128\"\n";
        let config = parse("m.toml", text).unwrap();
        assert_eq!(config.link.proxy.as_ref().unwrap().url().password(), Some("s3cret"));
        let shown = format!("{config}{config:?}");
        assert!(shown.contains("http://u:********@proxy:3128/") && !shown.contains("s3cret"));
        for wrong in ["https://proxy:1", "proxy:3128", "http://proxy/path", "socks5://u:s3cret@p"] {
            let found = problems(&format!("[link]\nproxy = \"{wrong}\"\n"));
            assert!(found[0].contains("expected a proxy such as"), "{found:?}");
            assert!(!found[0].contains("s3cret"));
        }
    }

    #[test]
    fn a_store_is_a_directory_or_a_device() {
        let store = |text: &str| parse("m.toml", &format!("[store]\n{text}")).unwrap().store;
        let Store { location, size_max, .. } = store("");
        assert!(matches!(location, Location::Directory(_)));
        assert_eq!(size_max, Some(ByteCount(SIZE_MAX_DEFAULT)));
        let whole = parse("m.toml", "[store]\ndevice = \"/dev/ubi0_1\"\n").unwrap();
        let Store { location, size_max, .. } = &whole.store;
        assert!(matches!(location, Location::Device(path) if path == Path::new("/dev/ubi0_1")));
        assert_eq!(*size_max, None, "all of it");
        let again = parse("again", &whole.to_string()).unwrap();
        assert_eq!(again.to_string(), whole.to_string());
        let part = store("device = \"/dev/sda3\"\nsize_max = \"64MiB\"\n");
        assert_eq!(part.size_max, Some(ByteCount(64 << 20)));
        let both = problems("[store]\npath = \"/x\"\ndevice = \"/dev/sda3\"\n");
        assert_eq!(both, ["m.toml:1: [store] path and device: expected one of them"]);
    }

    #[test]
    fn problems_name_line_key_value_and_expectation() {
        let all =
            problems("[store]\nsize_mx = \"1\"\nsize_max = \"big\"\n[link]\nday_max = \"1MiB\"\n");
        assert_eq!(
            all[0],
            "m.toml:3: [store] size_max = \"big\": expected a size such as \"4GiB\""
        );
        assert_eq!(all[1], "m.toml:2: [store] size_mx: an unknown key; did you mean size_max?");
        assert!(all[2].contains("m.toml:5: [link] day_max: a known key"), "{}", all[2]);
        assert!(problems("[[image]]\nreference = 5\n")[0].contains("text in quotes"));
        assert!(problems("x = [")[0].starts_with("m.toml:1"));
        for url in ["http://edge:s3cret@h", "ftp://edge:s3cret@h", "http://edge:s3cret@h:x/"] {
            let found = problems(&format!("[[upstream]]\nregistry = \"a\"\nurl = \"{url}\"\n"));
            assert!(found[0].starts_with("m.toml:3: [[upstream]] url = "), "{found:?}");
            assert!(!found.concat().contains("s3cret"), "{found:?}");
        }
        assert!(
            problems("[[upstream]]\nregistry = \"a\"\nurl = \"ftp://a\"\n")[0].contains("http")
        );
    }
}
