//! From TOML text to a [`Config`], collecting problems on the way.

use std::net::SocketAddr;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use toml::de::DeTable;
use url::Url;

use super::table::{Reader, Table, table};
use super::{
    Admin, Config, GroundControl, Image, Import, Loaded, Location, MASK, ProxyUrl, Secret, Serve,
    ServerTls, Store, Sync, Token, Upstream,
};
use crate::oci::{Platform, Reference, registry_name};
use crate::units::ByteCount;

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
        let mut serve = self.section(&mut top, "serve");
        let mut admin = self.section(&mut top, "admin");
        let store = self.section(&mut top, "store");
        let mut sync = self.section(&mut top, "sync");
        let link = self.section(&mut top, "link");
        let mut import = self.section(&mut top, "import");
        let ground_control = self.optional_section(&mut top, "ground_control");
        let upstreams = self.list(&mut top, "upstream");
        let images = self.list(&mut top, "image");
        let name = self.text(&mut top, "name").unwrap_or_else(|| "moonlet".to_owned());
        self.finish(top, &TOP_KEYS, &[]);
        let mut listen = self.addresses(&mut serve);
        let tls = self.server_tls(&mut serve);
        let connections_max = self.count(&mut serve, "connections_max").unwrap_or(CONNECTIONS_MAX);
        let htpasswd = self.text(&mut serve, "htpasswd").map(PathBuf::from);
        let insecure = self.flag(&mut serve, "insecure").unwrap_or(false);
        self.finish(serve, &SERVE_KEYS, &[]);
        let admin_listen = self.addresses(&mut admin);
        if let [_, second, ..] = admin_listen.as_slice() {
            self.problem(second.0.clone(), "[admin] listen", "several", "one address and port");
        }
        self.finish(admin, &["listen"], &[]);
        if listen.is_empty() {
            listen.push((0..0, SocketAddr::from(([127, 0, 0, 1], LISTEN_PORT))));
        }
        self.check_addresses(&listen, &admin_listen);
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
        self.finish(sync, &["poll_interval"], &[]);
        let link = self.link(link);
        let key_file = self.text(&mut import, "key_file").map(PathBuf::from);
        self.finish(import, &["key_file"], &[]);
        let ground_control = ground_control.and_then(|table| self.ground_control(table));
        let upstreams: Vec<(Range<usize>, Upstream)> =
            upstreams.into_iter().filter_map(|table| self.upstream(table)).collect();
        let images: Vec<(Range<usize>, Image)> =
            images.into_iter().filter_map(|table| self.image(table)).collect();
        self.check_upstreams(&upstreams, &images, ground_control.is_some());
        let images = self.merge_images(images);
        let mut upstreams: Vec<Upstream> = upstreams.into_iter().map(|(_, up)| up).collect();
        for image in &images {
            let registry = &image.reference.registry;
            if upstreams.iter().all(|upstream| upstream.registry != *registry) {
                upstreams.extend(implied(registry));
            }
        }
        Config {
            name,
            serve: Serve { listen, connections_max, tls, htpasswd, insecure },
            admin: Admin { listen: admin_listen },
            store,
            sync: Sync { poll_interval },
            link,
            import: Import { key_file },
            ground_control,
            upstreams,
            images,
        }
    }

    fn ground_control(&mut self, mut table: Table<'a>) -> Option<GroundControl> {
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
                "1 to 256 letters, digits, . _ - as Ground Control gave it",
            );
        }
        let token = match (token, token_file) {
            (Some(token), _) => Token::Text(Secret(token)),
            (None, Some(path)) => Token::File(PathBuf::from(path)),
            (None, None) => Token::KernelCommandLine,
        };
        let (ca_file, client_cert, client_key) = self.tls_files(&mut table);
        let key_file = self.text(&mut table, "key_file").map(PathBuf::from);
        self.finish(table, &GROUND_CONTROL_KEYS, &[]);
        Some(GroundControl { url: url??, token, ca_file, client_cert, client_key, key_file })
    }

    /// `ca_file`, `client_cert` and `client_key`.
    fn tls_files(
        &mut self,
        table: &mut Table<'a>,
    ) -> (Option<PathBuf>, Option<PathBuf>, Option<PathBuf>) {
        let mut path = |key| self.text(table, key).map(PathBuf::from);
        let files = (path("ca_file"), path("client_cert"), path("client_key"));
        if files.1.is_some() != files.2.is_some() {
            self.wrong(table, "client_cert and client_key", "both or neither");
        }
        files
    }

    fn upstream(&mut self, mut table: Table<'a>) -> Option<(Range<usize>, Upstream)> {
        let span = table.span.clone();
        let registry = self.registry(&mut table);
        let url = self.url(&mut table);
        let username = self.text(&mut table, "username");
        let password_file = self.text(&mut table, "password_file").map(PathBuf::from);
        let (ca_file, client_cert, client_key) = self.tls_files(&mut table);
        if username.is_some() != password_file.is_some() {
            self.wrong(&table, "username and password_file", "both or neither");
        }
        let pull_through = self.pull_through(&mut table);
        self.finish(table, &UPSTREAM_KEYS, &[]);
        let registry = registry?;
        let url = match url {
            Some(url) => url?,
            None => implied(&registry)?.url,
        };
        let upstream = Upstream {
            registry,
            url,
            username,
            password_file,
            password: None,
            ca_file,
            client_cert,
            client_key,
            pull_through,
        };
        Some((span, upstream))
    }

    fn registry(&mut self, table: &mut Table<'a>) -> Option<String> {
        let expected = "a host with an optional port, as images name it, such as \"docker.io\"";
        let Some((span, text)) = self.spanned(table, "registry") else {
            self.wrong(table, "registry", expected);
            return None;
        };
        let name = registry_name(&text);
        if name.is_none() {
            self.problem(span, "[[upstream]] registry", &format!("{:?}", masked(&text)), expected);
        }
        name
    }

    /// The address of an upstream, without the `/v2` that people copy along; `Some(None)` for one
    /// that cannot be used.
    fn url(&mut self, table: &mut Table<'a>) -> Option<Option<Url>> {
        let (span, text) = self.spanned(table, "url")?;
        let url = text.parse::<Url>().ok().filter(|url| url.host_str().is_some());
        let expected = match &url {
            None => "an http or https URL such as \"https://registry-1.docker.io\"",
            Some(url) if !matches!(url.scheme(), "http" | "https") => "http or https",
            Some(url) if !url.username().is_empty() || url.password().is_some() => {
                "no credentials in it: they go into username and password_file"
            }
            Some(url) if url.query().is_some() => "no query",
            Some(url) if url.fragment().is_some() => "no fragment",
            Some(_) => "",
        };
        if !expected.is_empty() {
            let key = format!("{} url", table.name);
            self.problem(span, &key, &format!("{:?}", masked(&text)), expected);
            return Some(None);
        }
        let url = url.map(|mut url| {
            let path = url.path().trim_end_matches('/');
            let path = path.strip_suffix("/v2").unwrap_or(path).to_owned();
            url.set_path(&path);
            url
        });
        Some(url)
    }

    pub(super) fn proxy(&mut self, table: &mut Table<'a>) -> Option<ProxyUrl> {
        let (span, text) = self.spanned(table, "proxy")?;
        let is_proxy = |url: &Url| {
            let is_bare = matches!(url.path(), "" | "/") && url.query().is_none();
            url.scheme() == "http" && url.host_str().is_some() && is_bare
        };
        let url = text.parse::<Url>().ok().filter(is_proxy);
        if url.is_none() {
            let expected = "a proxy such as \"http://proxy.example:3128\"";
            self.problem(span, "[link] proxy", &format!("{:?}", masked(&text)), expected);
        }
        url.map(ProxyUrl)
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
                Ok(reference) => Some(reference),
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
        self.finish(table, &["reference", "platforms"], &[]);
        Some((span, Image { reference: reference?, platforms }))
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
        self.finish(table, &STORE_KEYS, &[]);
        let (location, size_max) = match device {
            Some(device) => (Location::Device(PathBuf::from(device)), size_max),
            None => {
                let path = PathBuf::from(path.unwrap_or_else(|| STORE_PATH.to_owned()));
                (Location::Directory(path), size_max.or(Some(ByteCount(SIZE_MAX_DEFAULT))))
            }
        };
        Store { location, size_max, scrub_interval, verify_interval, cycles_rated }
    }

    fn addresses(&mut self, table: &mut Table<'a>) -> Vec<(Range<usize>, SocketAddr)> {
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

/// The upstream of an image whose registry has no `[[upstream]]`.
pub fn implied(registry: &str) -> Option<Upstream> {
    let host = if registry == "docker.io" { "registry-1.docker.io" } else { registry };
    let url = Url::parse(&format!("https://{host}")).ok()?;
    Some(Upstream {
        registry: registry.to_owned(),
        url,
        username: None,
        password_file: None,
        password: None,
        ca_file: None,
        client_cert: None,
        client_key: None,
        pull_through: None,
    })
}

/// What was written for an address, without what may be a secret in it: credentials and a query.
fn masked(text: &str) -> String {
    let text = text.split(['?', '#']).next().unwrap_or_default();
    let is_digest = |rest: &str| rest.starts_with("sha256:") || rest.starts_with("sha512:");
    match text.rsplit_once('@') {
        // Behind an image's name there may be a digest.
        Some((before, rest)) if is_digest(rest) && !before.contains("://") => {
            format!("{}@{rest}", masked(before))
        }
        Some((before, rest)) => {
            let scheme = before.find("://").map_or(0, |at| at + 3);
            format!("{}{MASK}@{rest}", before.get(..scheme).unwrap_or_default())
        }
        None => text.to_owned(),
    }
}

fn is_loopback(url: &Url) -> bool {
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

const TOP_KEYS: [&str; 10] = [
    "name",
    "serve",
    "admin",
    "store",
    "sync",
    "link",
    "import",
    "ground_control",
    "upstream",
    "image",
];
const GROUND_CONTROL_KEYS: [&str; 7] =
    ["url", "token", "token_file", "ca_file", "client_cert", "client_key", "key_file"];
/// Ground Controls' tokens have 32.
const TOKEN_BYTES_MAX: usize = 256;
const SERVE_KEYS: [&str; 7] =
    ["listen", "connections_max", "tls_cert", "tls_key", "client_ca", "htpasswd", "insecure"];
const UPSTREAM_KEYS: [&str; 11] = [
    "registry",
    "url",
    "username",
    "password_file",
    "ca_file",
    "client_cert",
    "client_key",
    "pull_through",
    "tag_ttl",
    "allow",
    "deny",
];
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
mod tests {
    use super::*;

    fn parse(file: &str, text: &str) -> Result<Config, Vec<String>> {
        super::parse(file, text).map(|loaded| loaded.config)
    }

    #[test]
    fn what_may_be_a_secret_is_masked() {
        for (text, shown) in [
            ("https://u:secret@host/x?token=secret", "https://********@host/x"),
            ("https://u:secret@sha.example/v2", "https://********@sha.example/v2"),
            ("https://u:secret@sha256:8", "https://********@sha256:8"),
            ("docker.io/app@sha256:abc", "docker.io/app@sha256:abc"),
            ("u:secret@docker.io/app@sha256:abc", "********@docker.io/app@sha256:abc"),
            ("docker.io/app:1", "docker.io/app:1"),
        ] {
            assert_eq!(masked(text), shown, "{text}");
        }
    }

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
        assert!(*location == Location::Device(PathBuf::from("/dev/ubi0_1")));
        assert_eq!(*size_max, None, "all of it");
        let again = parse("again", &whole.to_string()).unwrap();
        assert_eq!(again.to_string(), whole.to_string());
        let part = store("device = \"/dev/sda3\"\nsize_max = \"64MiB\"\n");
        assert_eq!(part.size_max, Some(ByteCount(64 << 20)));
        let both = problems("[store]\npath = \"/x\"\ndevice = \"/dev/sda3\"\n");
        assert_eq!(both, ["m.toml:1: [store] path and device: expected one of them"]);
    }

    fn warnings(text: &str) -> Vec<String> {
        super::parse("m.toml", text).unwrap().warnings
    }

    fn upstream(registry: &str, url: &str) -> String {
        format!("[[upstream]]\nregistry = \"{registry}\"\nurl = \"{url}\"\n")
    }

    fn image(reference: &str) -> String {
        format!("[[image]]\nreference = \"{reference}\"\nplatforms = \"linux/arm64\"\n")
    }

    #[test]
    fn what_check_prints_is_read_back_exactly() {
        let text = "[store]\nsize_max = \"10MB\"\nscrub_interval = \"36h\"\n\
                    [sync]\npoll_interval = \"1500ms\"\n[link]\nrate_max = \"100kB/s\"\n";
        let upstream = "username = \"u\"\npassword_file = \"/p\"\n";
        let text = text.to_owned() + &super::tests::upstream("a.test", "http://a") + upstream;
        let config = parse("m.toml", &(text + &image("a.test/x"))).unwrap();
        assert_eq!(parse("again", &config.to_string()).unwrap(), config);
        let whole = parse("m.toml", "").unwrap().to_string();
        assert!(whole.contains("scrub_interval = \"7d\""), "{whole}");
        assert!(whole.contains("poll_interval = \"5m\""), "{whole}");
    }

    #[test]
    fn a_registry_has_one_name() {
        for (name, used) in [
            ("index.docker.io", "docker.io/library/x:1"),
            ("registry-1.docker.io", "x:1"),
            ("Up.Test", "up.test/x:1"),
            ("up.test", "Up.Test/x:1"),
        ] {
            let text = upstream(name, "http://here") + &image(used);
            let config = parse("m.toml", &text).unwrap();
            assert_eq!(config.upstreams.len(), 1, "{name}");
            assert_eq!(config.upstreams[0].registry, config.images[0].reference.registry);
            assert!(warnings(&text).is_empty());
        }
        for name in ["up.test/", "https://up.test", "up test", "", "u:s3cret@up.test"] {
            let all = problems(&(upstream(name, "http://here") + &image("up.test/x:1")));
            assert!(all[0].starts_with("m.toml:2: [[upstream]] registry = "), "{name}: {all:?}");
            assert!(!all[0].contains("s3cret"), "{all:?}");
        }
        let all = problems(&(upstream("up.test:443", "http://here") + &image("up.test/x:1")));
        assert!(all[0].contains("\"up.test:443\": expected \"up.test\", as an image"), "{all:?}");
    }

    #[test]
    fn upstreams_are_named_once_and_used() {
        let two = upstream("up.test", "http://one") + &upstream("UP.test", "http://two");
        let all = problems(&(two + &image("up.test/x:1")));
        assert!(all[0].contains("each registry once, and line 1 has it"), "{all:?}");
        let all = warnings(&(upstream("up.tset", "http://one") + &image("up.test/x:1")));
        assert!(all[0].contains("up.tset: no image is from it; did you mean up.test?"), "{all:?}");
        assert!(all[1].contains("up.test/x:1: no [[upstream]] has this registry"), "{all:?}");
        assert!(warnings(&image("up.test/x:1")).is_empty(), "no upstream has to be named");
    }

    #[test]
    fn urls_are_cleaned_or_refused_and_keep_their_secret() {
        for tail in ["", "/", "/v2", "/v2/"] {
            let text = upstream("up.test", &format!("http://h:1{tail}")) + &image("up.test/x:1");
            assert_eq!(parse("m.toml", &text).unwrap().upstreams[0].url.as_str(), "http://h:1/");
        }
        for (url, expected) in [
            ("http://edge:s3cret@h:1", "expected no credentials in it"),
            ("http://s3cret@h:1", "expected no credentials in it"),
            ("http://edge:s3cret@h:port", "expected an http or https URL"),
            ("http://h:1?token=s3cret", "expected no query"),
            ("http://h:1#s3cret", "expected no fragment"),
            ("ftp://edge:s3cret@h", "expected http or https"),
            ("unix:/run/x", "expected an http or https URL"),
        ] {
            let all = problems(&(upstream("up.test", url) + &image("up.test/x:1")));
            assert!(all.len() == 1 && all[0].contains(expected), "{url}: {all:?}");
            assert!(!all[0].contains("s3cret"), "{all:?}");
        }
    }

    #[test]
    fn an_image_is_held_once() {
        let text = image("up.test/x:1")
            + "[[image]]\nreference = \"up.test/x:1\"\n\
                    platforms = [\"linux/amd64\", \"linux/arm64\"]\n";
        let config = parse("m.toml", &text).unwrap();
        assert_eq!(config.images.len(), 1);
        let platforms: Vec<_> =
            config.images[0].platforms.iter().map(ToString::to_string).collect();
        assert_eq!(platforms, ["linux/arm64", "linux/amd64"]);
        assert!(warnings(&text)[0].contains("m.toml:4: [[image]] up.test/x:1: line 1 has it"));
        let digest = crate::oci::Digest::sha256(b"x");
        let all = problems(&(image("up.test/x:1") + &image(&format!("up.test/x:1@{digest}"))));
        assert!(all[0].contains("one digest for a tag"), "{all:?}");
    }

    #[test]
    fn addresses_are_one_or_a_list_and_do_not_overlap() {
        let listen = |serve: &str, admin: &str| {
            format!("[serve]\ninsecure = true\nlisten = {serve}\n[admin]\nlisten = {admin}\n")
        };
        let config = parse("m.toml", &listen("\"1.2.3.4:5\"", "[\"1.2.3.4:6\"]")).unwrap();
        assert_eq!(config.serve.listen, ["1.2.3.4:5".parse().unwrap()]);
        assert_eq!(config.admin.listen, Some("1.2.3.4:6".parse().unwrap()));
        for (serve, admin) in [
            ("[\"1.2.3.4:5\", \"1.2.3.4:5\"]", "\"1.2.3.4:6\""),
            ("[\"1.2.3.4:5\", \"0.0.0.0:5\"]", "\"1.2.3.4:6\""),
            ("\"1.2.3.4:5\"", "\"1.2.3.4:5\""),
            ("\"1.2.3.4:5\"", "[\"1.2.3.4:6\", \"1.2.3.4:7\"]"),
            ("\"localhost:5\"", "\"1.2.3.4:6\""),
            ("5", "\"1.2.3.4:6\""),
        ] {
            assert_eq!(problems(&listen(serve, admin)).len(), 1, "{serve} {admin}");
        }
        let fine = "[\"0.0.0.0:5\", \"[::]:5\", \"127.0.0.1:0\"]";
        assert!(problems(&listen(fine, "\"127.0.0.1:0\"")).is_empty());
    }

    #[test]
    fn ground_control_needs_an_address_and_one_token() {
        let text = "[ground_control]\nurl = \"https://g\"\ntoken = \"abc123\"\n";
        let config = parse("m.toml", text).unwrap();
        assert!(!format!("{config:?}{config}").contains("abc123"));
        assert!(config.to_string().contains("token = \"********\""));
        for (lines, expected) in [
            ("", "[ground_control] url: expected"),
            ("url = \"ground\"", "[ground_control] url = \"ground\""),
            ("url = \"https://g\"\ntoken = \"a b\"", "token: expected"),
            ("url = \"https://g\"\ntoken = \"a\"\ntoken_file = \"f\"", "one of them"),
            ("url = \"https://g\"\nclient_key = \"f\"", "both or neither"),
        ] {
            let problems = problems(&format!("[ground_control]\n{lines}\n"));
            assert!(problems.concat().contains(expected), "{lines}: {problems:?}");
        }
        let clear = "[ground_control]\nurl = \"http://ground.example\"\n";
        assert!(warnings(clear)[0].contains("in clear"), "{:?}", warnings(clear));
        let quiet = "[ground_control]\nurl = \"http://127.0.0.1:1\"\n[[upstream]]\n\
            registry = \"up.test\"\nurl = \"http://h\"\n";
        assert!(warnings(quiet).is_empty(), "{:?}", warnings(quiet));
    }

    #[test]
    fn a_network_is_faced_with_tls_or_knowingly_without() {
        let serve =
            |lines: &str| format!("[serve]\nlisten = [\"[::1]:5\", \"0.0.0.0:5\"]\n{lines}");
        let refused = problems(&serve("htpasswd = \"/h\"\n"));
        assert_eq!(refused.len(), 1, "{refused:?}");
        assert!(refused[0].contains("\"0.0.0.0:5\": expected a loopback address"), "{refused:?}");
        assert!(refused[0].contains("in clear"));
        for lines in ["insecure = true\n", "tls_cert = \"/c\"\ntls_key = \"/k\"\n"] {
            assert!(problems(&serve(lines)).is_empty(), "{lines}");
        }
        let odd = problems(&serve("insecure = \"yes\"\n"));
        assert!(odd[0].contains("expected true or false"), "{odd:?}");
    }

    #[test]
    fn figures_that_cannot_be() {
        for (text, expected) in [
            ("[store]\nsize_max = \"64KiB\"\n", "size_max below 384KiB"),
            ("[store]\nsize_max = \"0\"\n", "size_max below 384KiB"),
            ("[link]\nrate_max = \"0KiB/s\"\n", "expected a rate"),
            ("[sync]\npoll_interval = \"10ms\"\n", "expected at least \"1s\""),
        ] {
            assert!(problems(text)[0].contains(expected), "{text}: {:?}", problems(text));
        }
        let odd = "[[image]]\nreference = \"x\"\nplatforms = [\"linux/arm46\"]\n";
        assert!(warnings(odd)[0].contains("no image is made for \"arm46\""));
        for spelling in ["all", "linux/aarch64", "linux/armhf", "linux/x86_64", "linux/arm/v7"] {
            let text = format!("[[image]]\nreference = \"x\"\nplatforms = {spelling:?}\n");
            assert!(warnings(&text).is_empty(), "{spelling}: {:?}", warnings(&text));
        }
    }

    #[test]
    fn problems_name_line_key_value_and_expectation() {
        let all = problems("[store]\nsize_mx = \"1\"\nsize_max = \"big\"\n");
        assert_eq!(
            all[0],
            "m.toml:3: [store] size_max = \"big\": expected a size such as \"4GiB\""
        );
        assert_eq!(all[1], "m.toml:2: [store] size_mx: an unknown key; did you mean size_max?");
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
