//! The server's settings: arguments first, then the environment, then the file, then defaults.

mod publish;
mod webhook;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde::Deserialize;

use self::publish::Publish;
pub use self::publish::Target;
pub use self::webhook::Webhook;

/// Where the server keeps its data, which `backup` and `restore` ask as well.
#[derive(Args, Clone, Default)]
pub struct Place {
    /// A TOML file with the settings of serve, named alike with _ for -
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The directory of the database; made when missing
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// A PostgreSQL database instead of the directory: postgres://user@host/name
    #[arg(long, value_name = "URL")]
    pub database: Option<String>,
}

/// The settings of the server, as arguments.
#[derive(Args, Default)]
pub struct Serve {
    #[command(flatten)]
    pub place: Place,
    /// Where to listen: 127.0.0.1:8080 unless given
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<String>,
    /// The URL that satellites reach this server by: http://LISTEN unless given, https with TLS; needed
    /// where it listens on 0.0.0.0 or ::
    #[arg(long)]
    pub url: Option<String>,
    /// Certificate chain in PEM: TLS is spoken
    #[arg(long, value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// Its private key in PEM
    #[arg(long, value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// Authorities in PEM whose certificates satellites may show in the place of a token
    #[arg(long, value_name = "FILE")]
    pub client_ca: Option<PathBuf>,
    /// The longest that a request may take, its body included: 60 unless given
    #[arg(long, value_name = "SECONDS")]
    pub request_seconds: Option<u16>,
    /// Where events are sent; GROUND_CONTROL_WEBHOOK_SECRET or the file has the key that signs them
    #[arg(long, value_name = "URL")]
    pub webhook_url: Option<String>,
    /// How often tags that are resolved here are looked at: 60 unless given
    #[arg(long, value_name = "SECONDS")]
    pub tag_seconds: Option<u16>,
    /// Where state artifacts are put, beside this server: harbor or registry. GROUND_CONTROL_PUBLISH_PASSWORD
    /// or the file's [publish] has the password
    #[arg(long, value_name = "KIND")]
    pub publish: Option<String>,
    /// The address of that registry, for this server and for satellites
    #[arg(long, value_name = "URL")]
    pub publish_url: Option<String>,
    /// Who this server is there
    #[arg(long, value_name = "NAME")]
    pub publish_username: Option<String>,
    /// An authority in PEM that its certificate is by, in place of the system's
    #[arg(long, value_name = "FILE")]
    pub publish_ca_file: Option<PathBuf>,
    /// A key of P-256 in PEM that signs tokens for that registry, which is to ask this server for them
    #[arg(long, value_name = "FILE")]
    pub publish_token_key: Option<PathBuf>,
    /// The key's certificate in PEM, which the registry has as well
    #[arg(long, value_name = "FILE")]
    pub publish_token_cert: Option<PathBuf>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct File {
    data: Option<PathBuf>,
    listen: Option<String>,
    url: Option<String>,
    database: Option<String>,
    tls_cert: Option<PathBuf>,
    tls_key: Option<PathBuf>,
    client_ca: Option<PathBuf>,
    request_seconds: Option<u16>,
    webhook_url: Option<String>,
    webhook_secret: Option<String>,
    tag_seconds: Option<u16>,
    publish: Publish,
}

/// The server's settings, complete and checked.
#[derive(Debug)]
pub struct Settings {
    pub listen: SocketAddr,
    /// The public URL, without a slash at the end; by default the address it listens on.
    pub url: Option<String>,
    pub database: Database,
    pub tls: Option<Tls>,
    pub request_timeout: Duration,
    /// Where events are sent.
    pub webhook: Option<Webhook>,
    /// Between two looks at a tag.
    pub tag_interval: Duration,
    /// Where artifacts are put beside here.
    pub publish: Option<Target>,
    /// The first password of `admin`, if the environment has one.
    pub admin_password: Option<String>,
}

/// Where the data is.
#[derive(Debug)]
pub enum Database {
    /// SQLite in this directory.
    Directory(PathBuf),
    /// A PostgreSQL URL. It may hold a password, and is never printed.
    Postgres(String),
}

/// Files of PEM.
#[derive(Debug)]
pub struct Tls {
    pub cert: PathBuf,
    pub key: PathBuf,
    /// Authorities of satellites' certificates.
    pub client_ca: Option<PathBuf>,
}

impl Settings {
    /// Puts the sources together. `env` looks a variable up.
    pub fn resolve(
        arguments: &Serve,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, String> {
        let var = |name: &str| variable(env, name);
        let file = arguments.place.file(env)?;
        let database = arguments.place.database(&file, env)?;
        let text = |argument: &Option<String>, name, file: Option<String>| {
            argument.clone().or_else(|| var(name)).or(file)
        };
        let path = |argument: &Option<PathBuf>, name, file: Option<PathBuf>| {
            argument.clone().or_else(|| var(name).map(PathBuf::from)).or(file)
        };
        let listen =
            text(&arguments.listen, "LISTEN", file.listen).unwrap_or_else(|| LISTEN.to_owned());
        let listen: SocketAddr = listen
            .parse()
            .map_err(|_| format!("listen {listen:?}: expected ADDRESS:PORT, such as {LISTEN}"))?;
        let client_ca = path(&arguments.client_ca, "CLIENT_CA", file.client_ca);
        let tls = match (
            path(&arguments.tls_cert, "TLS_CERT", file.tls_cert),
            path(&arguments.tls_key, "TLS_KEY", file.tls_key),
        ) {
            (Some(cert), Some(key)) => Some(Tls { cert, key, client_ca }),
            (None, None) if client_ca.is_some() => {
                return Err("client_ca: expected tls_cert and tls_key with it".to_owned());
            }
            (None, None) => None,
            _ => return Err("tls_cert and tls_key: expected both or neither".to_owned()),
        };
        let url = text(&arguments.url, "URL", file.url);
        let url = public_url(url, listen)?;
        let seconds = arguments.request_seconds.map(|seconds| seconds.to_string());
        let seconds = seconds.or_else(|| var("REQUEST_SECONDS"));
        let seconds = seconds.or_else(|| file.request_seconds.map(|seconds| seconds.to_string()));
        let request_timeout = seconds_of("request_seconds", seconds, REQUEST_TIMEOUT)?;
        let seconds = arguments.tag_seconds.map(|seconds| seconds.to_string());
        let seconds = seconds.or_else(|| var("TAG_SECONDS"));
        let seconds = seconds.or_else(|| file.tag_seconds.map(|seconds| seconds.to_string()));
        let tag_interval = seconds_of("tag_seconds", seconds, TAG_INTERVAL)?;
        // A secret is no argument: every user of the machine sees those.
        let secret = var("WEBHOOK_SECRET").or(file.webhook_secret);
        let webhook = match (text(&arguments.webhook_url, "WEBHOOK_URL", file.webhook_url), secret)
        {
            (Some(url), Some(secret)) => Some(Webhook::new(&url, &secret)?),
            (None, None) => None,
            _ => return Err("webhook_url and webhook_secret: expected both or neither".to_owned()),
        };
        let given = Publish {
            to: text(&arguments.publish, "PUBLISH", file.publish.to),
            url: text(&arguments.publish_url, "PUBLISH_URL", file.publish.url),
            username: text(&arguments.publish_username, "PUBLISH_USERNAME", file.publish.username),
            password: var("PUBLISH_PASSWORD").or(file.publish.password),
            ca_file: path(&arguments.publish_ca_file, "PUBLISH_CA_FILE", file.publish.ca_file),
            token_key: path(
                &arguments.publish_token_key,
                "PUBLISH_TOKEN_KEY",
                file.publish.token_key,
            ),
            token_cert: path(
                &arguments.publish_token_cert,
                "PUBLISH_TOKEN_CERT",
                file.publish.token_cert,
            ),
        };
        let publish = given.target()?;
        let admin_password = var("ADMIN_PASSWORD");
        Ok(Self {
            listen,
            url,
            database,
            tls,
            request_timeout,
            webhook,
            tag_interval,
            publish,
            admin_password,
        })
    }
}

impl Place {
    /// Where the data is, by the arguments, the environment and the file.
    pub fn resolve(&self, env: &dyn Fn(&str) -> Option<String>) -> Result<Database, String> {
        self.database(&self.file(env)?, env)
    }

    fn file(&self, env: &dyn Fn(&str) -> Option<String>) -> Result<File, String> {
        match self.config.clone().or_else(|| variable(env, "CONFIG").map(PathBuf::from)) {
            Some(path) => read(&path),
            None => Ok(File::default()),
        }
    }

    fn database(
        &self,
        file: &File,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Database, String> {
        let given = self.database.clone().or_else(|| variable(env, "DATABASE"));
        match given.or_else(|| file.database.clone()) {
            Some(url) if url.starts_with("postgres://") || url.starts_with("postgresql://") => {
                Ok(Database::Postgres(url))
            }
            Some(_) => Err("database: expected postgres://user:password@host/name".to_owned()),
            None => {
                let given = self.data.clone().or_else(|| variable(env, "DATA").map(PathBuf::from));
                let data = given.or_else(|| file.data.clone()).map(Database::Directory);
                data.ok_or_else(|| {
                    "data: expected a directory (--data DIR), or a database (--database URL)"
                        .to_owned()
                })
            }
        }
    }
}

fn variable(env: &dyn Fn(&str) -> Option<String>, name: &str) -> Option<String> {
    env(&format!("GROUND_CONTROL_{name}")).filter(|value| !value.is_empty())
}

fn read(path: &Path) -> Result<File, String> {
    let text =
        std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    // The error's own text quotes the line, and the line may hold the database's password.
    toml::from_str(&text).map_err(|error| {
        let start = error.span().map_or(0, |span| span.start);
        let before = text.bytes().take(start).filter(|byte| *byte == b'\n').count();
        format!("{}, line {}: {}", path.display(), before + 1, error.message())
    })
}

fn seconds_of(name: &str, given: Option<String>, default: Duration) -> Result<Duration, String> {
    let Some(text) = given else { return Ok(default) };
    match text.parse::<u16>() {
        Ok(seconds) if seconds > 0 => Ok(Duration::from_secs(seconds.into())),
        _ => Err(format!("{name} {text:?}: expected a number from 1 to 65535")),
    }
}

/// The URL goes into what satellites are given, so that a wrong one strands them: an address that
/// only this machine understands is not guessed.
fn public_url(given: Option<String>, listen: SocketAddr) -> Result<Option<String>, String> {
    let Some(given) = given else {
        if listen.ip().is_unspecified() {
            return Err(format!(
                "url: expected the URL that satellites reach {listen} by, such as \
                 --url https://ground.example"
            ));
        }
        return Ok(None);
    };
    let url = base(&given);
    url.map(Some).ok_or_else(|| format!("url {given:?}: expected https://host or http://host:port"))
}

/// A scheme and a host, if it is that, without a slash at the end.
fn base(given: &str) -> Option<String> {
    let trimmed = given.trim_end_matches('/');
    let probe = format!("{trimmed}/{}", crate::fleet::state::group_repository("a"));
    let is_base = trimmed.matches('/').count() == 2;
    (is_base && crate::fleet::state::Url::parse(&probe).is_ok()).then(|| trimmed.to_owned())
}

const LISTEN: &str = "127.0.0.1:8080";
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
const TAG_INTERVAL: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(arguments: &[&str], env: &[(&str, &str)]) -> Result<Settings, String> {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            serve: Serve,
        }
        let line = ["serve"].iter().chain(arguments);
        let serve = <Line as clap::Parser>::try_parse_from(line).unwrap().serve;
        Settings::resolve(&serve, &|name| {
            env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn arguments_come_before_the_environment() {
        let env = [
            ("GROUND_CONTROL_DATA", "/env"),
            ("GROUND_CONTROL_LISTEN", "127.0.0.1:1"),
            ("GROUND_CONTROL_ADMIN_PASSWORD", "x"),
        ];
        let settings = resolve(&["--listen", "127.0.0.1:2"], &env).unwrap();
        assert_eq!((settings.url, settings.listen.port()), (None, 2));
        assert!(
            matches!(settings.database, Database::Directory(path) if path == Path::new("/env"))
        );
        assert_eq!(settings.admin_password.as_deref(), Some("x"));
    }

    #[test]
    fn a_url_is_never_guessed_wrong() {
        let any = ["--data", "/d", "--listen", "0.0.0.0:80"];
        assert!(resolve(&any, &[]).unwrap_err().starts_with("url: expected"));
        let url = [("GROUND_CONTROL_URL", "https://ground.example/")];
        assert_eq!(resolve(&any, &url).unwrap().url.unwrap(), "https://ground.example");
        for bad in ["ground.example", "https://h/path", "ftp://h", "https://u:p@h"] {
            assert!(resolve(&any, &[("GROUND_CONTROL_URL", bad)]).is_err(), "{bad}");
        }
    }

    #[test]
    fn half_settings_are_refused() {
        assert!(resolve(&[], &[]).unwrap_err().contains("--data"));
        assert!(resolve(&["--data", "/d", "--tls-cert", "c"], &[]).is_err());
        assert!(
            resolve(&["--data", "/d", "--client-ca", "c"], &[]).unwrap_err().contains("tls_cert")
        );
        assert!(resolve(&["--data", "/d", "--request-seconds", "0"], &[]).is_err());
        let half = resolve(&["--data", "/d", "--webhook-url", "https://h/"], &[]).unwrap_err();
        assert!(half.starts_with("webhook_url and webhook_secret"), "{half}");
        let publish = ["--data", "/d", "--publish", "registry", "--publish-url", "https://h"];
        let key = ["--publish-token-key", "k"];
        let both = [&publish[..], &key, &["--publish-token-cert", "c"]].concat();
        let half = resolve(&[&publish[..], &key].concat(), &[]).unwrap_err();
        assert!(half.starts_with("publish_token_key and publish_token_cert"), "{half}");
        assert!(resolve(&both, &[]).unwrap_err().contains("publish_username"));
        let env =
            [("GROUND_CONTROL_PUBLISH_PASSWORD", "p"), ("GROUND_CONTROL_PUBLISH_USERNAME", "u")];
        assert!(resolve(&both, &env).is_ok());
        let harbor: Vec<_> =
            both.iter().map(|word| if *word == "registry" { "harbor" } else { *word }).collect();
        assert!(resolve(&harbor, &env).unwrap_err().contains("Harbor"));
        let secret = resolve(&["--database", "mysql://u:secret@h/n"], &[]).unwrap_err();
        assert!(!secret.contains("secret"));
    }

    #[test]
    fn an_error_in_the_file_quotes_nothing_of_it() {
        let name = format!("ground_settings_{}.toml", std::process::id());
        let path = std::env::temp_dir().join(name);
        for line in [
            "database = postgres://u:hunter2@h/n",
            "database = \"postgres://u:hunter2@h/n",
            "database = \"postgres://u:hu\"hunter2@h/n\"",
            "database \"postgres://u:hunter2@h/n\"",
            "database = [\"postgres://u:hunter2@h/n\"]",
            "database = { url = \"postgres://u:hunter2@h/n\" }",
            "databse = \"postgres://u:hunter2@h/n\"",
        ] {
            std::fs::write(&path, format!("listen = \"127.0.0.1:1\"\n{line}\n")).unwrap();
            let error = resolve(&["--config", path.to_str().unwrap()], &[]).unwrap_err();
            assert!(!error.contains("hunter2"), "{error}");
            assert!(error.contains(".toml, line 2: "), "{error}");
        }
        std::fs::remove_file(path).unwrap();
    }
}
