//! A satellite's remote configuration: the config artifact, `config_name` of a satellite.
//!
//! The fields are those of Go 0.0.4, in its order. A satellite takes from it what it has a use for;
//! Ground Control keeps and publishes the whole.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::enrol::Credentials;
use super::state::{check_base, within};
use super::{Invalid, check_name, interval, is_empty, or_default, shown};

/// The body of `POST /api/configs`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Named {
    /// The config's name.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub config_name: String,
    /// A registry; Go stores its own instead.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub registry: String,
    /// The configuration itself.
    #[serde(deserialize_with = "or_default")]
    pub config: Config,
}

impl Named {
    /// Holds the name and the configuration to what a satellite can use.
    pub fn check(&self) -> Result<(), Invalid> {
        check_name("config_name", &self.config_name)?;
        self.config.check()
    }
}

/// What a Moonlet takes from a configuration; it reads nothing else of it, for code that reads some
/// sixty fields is not worth its room on a device.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Taken {
    /// The satellite's own settings.
    #[serde(deserialize_with = "or_default")]
    pub app_config: Settings,
    /// What only Moonlets read.
    #[serde(deserialize_with = "or_default")]
    pub moonlet: Extension,
}

/// Of the settings, those that a Moonlet takes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// How often the state is looked at: `@every 00h00m30s`.
    #[serde(deserialize_with = "or_default")]
    pub state_replication_interval: String,
    /// How often a report is sent.
    #[serde(deserialize_with = "or_default")]
    pub heartbeat_interval: String,
    /// Where Ground Control answers, if it says so.
    #[serde(deserialize_with = "or_default")]
    pub ground_control_url: String,
}

impl Taken {
    /// Holds what is taken to its forms.
    pub fn check(&self) -> Result<(), Invalid> {
        let Settings { state_replication_interval, heartbeat_interval, .. } = &self.app_config;
        check_interval("state_replication_interval", state_replication_interval)?;
        check_interval("heartbeat_interval", heartbeat_interval)?;
        let url = &self.app_config.ground_control_url;
        if !url.is_empty() && !is_http(url, &["http", "https"]) {
            let expected = "expected an http or https URL";
            return Err(Invalid::new(format!("ground_control_url {}: {expected}", shown(url))));
        }
        self.moonlet.check()
    }
}

/// Whether a URL is of one of these schemes, and has no password, query or fragment.
fn is_http(text: &str, schemes: &[&str]) -> bool {
    let is_plain = |url: url::Url| {
        schemes.contains(&url.scheme())
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().or(url.fragment()).is_none()
    };
    text.len() <= URL_BYTES_MAX && url::Url::parse(text).is_ok_and(is_plain)
}

/// An interval, or nothing.
fn check_interval(name: &str, text: &str) -> Result<(), Invalid> {
    if text.is_empty() {
        return Ok(());
    }
    let wrong = |error| Invalid::new(format!("{name}: {error}"));
    interval::parse(text).map(drop).map_err(wrong)
}

/// A configuration as it is published.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// Empty in an artifact: a satellite knows it from its enrolment.
    #[serde(deserialize_with = "or_default")]
    pub state_config: StateConfig,
    /// The satellite's own settings.
    #[serde(deserialize_with = "or_default")]
    pub app_config: AppConfig,
    /// The registry inside a Go satellite: handed on as it is.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_empty")]
    pub zot_config: Option<Value>,
    /// What only Moonlets read.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_empty")]
    pub moonlet: Extension,
}

/// The part of a configuration that Go satellites do not read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Extension {
    /// What opens the registries that groups name. A registry without an entry is read without
    /// credentials, and the registry of the state with those of the enrolment.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub registries: Vec<Credentials>,
    /// Where the read API listens, in place of what the satellite's own file says.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub listen: Vec<String>,
    /// The proxy in front of registries and Ground Control, in place of the file's.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub proxy: String,
    /// How long these, or another `ground_control_url`, are tried before they are taken back.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub rollback_after: String,
}

impl Extension {
    fn check(&self) -> Result<(), Invalid> {
        within("listen", self.listen.len(), LISTEN_MAX)?;
        for text in &self.listen {
            if text.len() > ADDRESS_BYTES_MAX || text.parse::<SocketAddr>().is_err() {
                let expected = "expected an address and port such as \"127.0.0.1:8585\"";
                return Err(Invalid::new(format!("listen {}: {expected}", shown(text))));
            }
        }
        if !self.proxy.is_empty() && !is_http(&self.proxy, &["http"]) {
            return Err(Invalid::new(format!(
                "proxy {}: expected one such as \"http://proxy.example:3128\", no password in it",
                shown(self.proxy.rsplit('@').next().unwrap_or_default())
            )));
        }
        check_interval("rollback_after", &self.rollback_after)?;
        within("registries", self.registries.len(), REGISTRIES_MAX)?;
        for registry in &self.registries {
            check_base(&registry.url)?;
            for (name, value) in
                [("username", &registry.username), ("password", &registry.password)]
            {
                if value.is_empty() || value.len() > CREDENTIAL_BYTES_MAX {
                    return Err(Invalid::new(format!(
                        "{name} of registry {}: expected 1 to {CREDENTIAL_BYTES_MAX} bytes",
                        registry.url
                    )));
                }
            }
        }
        Ok(())
    }
}

/// Registries with credentials in one configuration.
pub const REGISTRIES_MAX: usize = 16;
const CREDENTIAL_BYTES_MAX: usize = 1024;
/// Addresses in one configuration.
const LISTEN_MAX: usize = 16;
const ADDRESS_BYTES_MAX: usize = 64;
const URL_BYTES_MAX: usize = 1024;

impl Config {
    /// Holds the intervals to their form.
    pub fn check(&self) -> Result<(), Invalid> {
        let app = &self.app_config;
        for (name, text) in [
            ("state_replication_interval", &app.state_replication_interval),
            ("register_satellite_interval", &app.register_satellite_interval),
            ("heartbeat_interval", &app.heartbeat_interval),
        ] {
            check_interval(name, text)?;
        }
        if !["", "debug", "info", "warn", "error", "fatal", "panic"].contains(&&*app.log_level) {
            return Err(Invalid::new(format!(
                "log_level {}: expected debug, info, warn, error, fatal or panic",
                shown(&app.log_level)
            )));
        }
        if self.zot_config.as_ref().is_some_and(|zot| !zot.is_object()) {
            return Err(Invalid::new("zot_config: expected an object"));
        }
        self.moonlet.check()
    }
}

/// Where the state is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StateConfig {
    /// What opens it.
    #[serde(deserialize_with = "or_default")]
    pub auth: Credentials,
    /// The satellite-state artifact.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub state: String,
}

/// Declares a group of settings with Go's defaults and omissions.
macro_rules! settings {
    ($(#[$doc:meta] $name:ident { $($(#[$field_doc:meta])+ $field:ident: $kind:ty,)* })*) => {$(
        #[$doc]
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
        #[serde(default)]
        pub struct $name {
            $(
                $(#[$field_doc])+
                #[serde(deserialize_with = "or_default", skip_serializing_if = "is_empty")]
                pub $field: $kind,
            )*
        }
    )*};
}

/// A satellite's own settings.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AppConfig {
    /// Ground Control's URL.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_empty")]
    pub ground_control_url: String,
    /// debug, info, warn, error, fatal or panic.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_empty")]
    pub log_level: String,
    /// Plain HTTP is allowed.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_empty")]
    pub use_unsecure: bool,
    /// How often the state is looked at: `@every 00h00m30s`.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_empty")]
    pub state_replication_interval: String,
    /// How often enrolment is tried.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_empty")]
    pub register_satellite_interval: String,
    /// How often a report is sent.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_empty")]
    pub heartbeat_interval: String,
    /// What a report measures.
    #[serde(deserialize_with = "or_default")]
    pub metrics: Metrics,
    /// Images go to a registry that is not the satellite's.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_empty")]
    pub bring_own_registry: bool,
    /// The registry that the satellite fills.
    #[serde(deserialize_with = "or_default")]
    pub local_registry: Credentials,
    /// TLS towards Ground Control.
    #[serde(deserialize_with = "or_default")]
    pub tls: Tls,
    /// SPIFFE identity.
    #[serde(deserialize_with = "or_default")]
    pub spiffe: Spiffe,
    /// The satellite encrypts what it keeps of this.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_empty")]
    pub encrypt_config: bool,
    /// Container runtimes that are pointed at the satellite.
    #[serde(deserialize_with = "or_default")]
    pub registry_fallback: RegistryFallback,
    /// The registry that images come from.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_empty")]
    pub harbor_registry_url: String,
    /// Images as files for k3s.
    #[serde(deserialize_with = "or_default")]
    pub direct_delivery: DirectDelivery,
    /// The audit log.
    #[serde(deserialize_with = "or_default")]
    pub audit: Audit,
}

/// The audit log.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Audit {
    /// It is written.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_empty")]
    pub enabled: bool,
    /// To syslog or a file.
    #[serde(deserialize_with = "or_default")]
    pub syslog: Syslog,
    /// To an OpenTelemetry collector.
    #[serde(deserialize_with = "or_default")]
    pub otel: Otel,
}

/// The audit log's way to syslog. In Go an absent switch is not a false one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Syslog {
    /// On unless false.
    #[serde(skip_serializing_if = "is_empty")]
    pub enabled: Option<bool>,
    /// daemon, network or file.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_empty")]
    pub target: String,
    /// The name of the application.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_empty")]
    pub tag: String,
    /// The daemon's socket.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_empty")]
    pub socket_path: String,
    /// udp or tcp.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_empty")]
    pub network: String,
    /// host:port.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_empty")]
    pub address: String,
    /// The file.
    #[serde(deserialize_with = "or_default")]
    pub file: SyslogFile,
}

settings! {
    /// What a report measures.
    Metrics {
        /// Processor time.
        collect_cpu: bool,
        /// Memory.
        collect_memory: bool,
        /// Storage.
        collect_storage: bool,
    }

    /// TLS files.
    Tls {
        /// Certificate.
        cert_file: String,
        /// Its key.
        key_file: String,
        /// The authority of the other side.
        ca_file: String,
        /// The other side is not verified.
        skip_verify: bool,
    }

    /// SPIFFE identity.
    Spiffe {
        /// It is used.
        enabled: bool,
        /// The Workload API's socket.
        endpoint_socket: String,
        /// Ground Control's identity.
        expected_server_id: String,
    }

    /// Container runtimes that are pointed at the satellite.
    RegistryFallback {
        /// They are.
        enabled: bool,
        /// For these registries.
        registries: Vec<String>,
        /// These runtimes.
        runtimes: Vec<String>,
    }

    /// Images as files for k3s.
    DirectDelivery {
        /// They are written.
        enabled: bool,
        /// Where.
        image_dir: String,
    }

    /// The audit log's collector.
    Otel {
        /// It is used.
        enabled: bool,
        /// Its URL.
        endpoint: String,
    }

    /// The audit log's file. In Go an absent number is a default and 0 means all.
    SyslogFile {
        /// Where.
        path: String,
        /// Megabytes before it is rotated.
        max_size_mb: Option<i64>,
        /// Files kept.
        max_backups: Option<i64>,
        /// Days kept.
        max_age_days: Option<i64>,
        /// Old files are compressed.
        compress: Option<bool>,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_config_is_written_as_go_writes_it() {
        let config: Config =
            serde_json::from_str(r#"{"app_config":{"tls":null,"later":{}},"zot_config":null}"#)
                .unwrap();
        config.check().unwrap();
        assert_eq!(
            serde_json::to_string(&config).unwrap(),
            r#"{"state_config":{"auth":{}},"app_config":{"metrics":{},"local_registry":{},"tls":{},"spiffe":{},"registry_fallback":{},"direct_delivery":{},"audit":{"syslog":{"file":{}},"otel":{}}}}"#
        );
    }

    #[test]
    fn what_a_satellite_cannot_use_is_refused() {
        for text in [
            r#"{"app_config":{"heartbeat_interval":"*/5 * * * *"}}"#,
            r#"{"app_config":{"log_level":"loud"}}"#,
            r#"{"zot_config":[1]}"#,
            r#"{"moonlet":{"registries":[{"url":"harbor","username":"a","password":"b"}]}}"#,
            r#"{"moonlet":{"registries":[{"url":"https://harbor","username":"a"}]}}"#,
            r#"{"moonlet":{"listen":["8585"]}}"#,
            r#"{"moonlet":{"proxy":"http://u:p@proxy:3128"}}"#,
            r#"{"moonlet":{"proxy":"socks://proxy"}}"#,
            r#"{"moonlet":{"rollback_after":"10m"}}"#,
        ] {
            let config: Config = serde_json::from_str(text).unwrap();
            assert!(config.check().is_err(), "{text}");
        }
        assert!(
            serde_json::from_str::<Config>(r#"{"app_config":{"use_unsecure":"yes"}}"#).is_err()
        );
    }
}
