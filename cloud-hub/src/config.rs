//! How is this hub configured? The embedded default file, then a file, then the environment, then flags.
//! Unknown keys are errors; secrets do not show in Debug.

use std::{
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
    path::{Path, PathBuf},
    time::Duration,
};

use figment::{
    Figment,
    providers::{Env, Format, Serialized, Toml},
};
use serde::Deserialize;

use crate::{
    broker::ClientAuth,
    kernel::{duration, secret::Secret},
};

mod external;

pub use external::{BrokerAddress, ExternalMqtt, TapSettings};

/// The commented reference, which is also the default.
pub const DEFAULT: &str = include_str!("../config/default.toml");

/// The hub's configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Signing key, embedded database and ready.json live here.
    pub data_dir: PathBuf,
    /// REST API and dashboard.
    pub http: Http,
    /// Edges.
    pub mqtt: Mqtt,
    /// PostgreSQL.
    pub database: Database,
    /// From frames to rows.
    pub ingest: Ingest,
    /// Tokens.
    pub auth: Auth,
    /// Letters to people.
    pub mail: Mail,
    /// Events sent to other systems.
    pub webhooks: Webhooks,
    /// Tenants' own identity providers.
    pub oidc: Oidc,
}

/// Which identity providers the hub talks to.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Oidc {
    /// Also ones on this host over plain HTTP: for tests.
    pub allow_http: bool,
    /// Also ones at private addresses.
    pub allow_private: bool,
}

/// REST API and dashboard.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Http {
    /// Address to listen on.
    pub listen: SocketAddr,
    /// Where people reach the hub; mails link there, and `https` makes cookies secure.
    pub public_url: Option<String>,
    /// Requests a second of one caller.
    pub requests_per_s: NonZeroU32,
    /// Requests at once after a pause.
    pub burst: NonZeroU32,
    /// Requests of one tenant that are served at the same time; more of them wait.
    pub tenant_requests_at_once: usize,
    /// How long a body may take, besides a second for every 64 KiB of it.
    #[serde(deserialize_with = "duration::deserialize")]
    pub body_timeout: Duration,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpAddr>,
    /// Origins of web pages, other than the dashboard, that may call the API.
    pub cors_origins: Vec<String>,
}

impl Http {
    /// Whether people reach the hub over TLS.
    pub fn is_https(&self) -> bool {
        self.public_url
            .as_ref()
            .is_some_and(|url| url.starts_with("https://"))
    }

    /// The scheme and authority under which people reach the hub that listens on `listen`, without a `/` at the end.
    pub fn base_url(&self, listen: SocketAddr) -> String {
        match &self.public_url {
            Some(url) => url.trim_end_matches('/').to_owned(),
            None => format!("http://{listen}"),
        }
    }

    fn faults(&self, faults: &mut Vec<String>) {
        if self.tenant_requests_at_once == 0 {
            faults.push("http.tenant_requests_at_once: must be at least 1".to_owned());
        }
        if self.body_timeout.is_zero() {
            faults.push("http.body_timeout: must be more than 0s".to_owned());
        }
        for origin in &self.cors_origins {
            if !is_origin(origin) {
                faults.push(format!(
                    "http.cors_origins: `{origin}` is no origin; write `https://host` or `http://host:port`"
                ));
            }
        }
    }
}

/// Whether it is scheme, host and perhaps port, as a browser sends it.
fn is_origin(text: &str) -> bool {
    let host = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"));
    host.is_some_and(|host| {
        let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-._:[]".contains(c);
        !host.is_empty() && host.chars().all(is_plain)
    })
}

/// The MQTT front end.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mqtt {
    /// Address for plain MQTT.
    pub listen: SocketAddr,
    /// Address for MQTT over TLS; needs both files.
    pub tls_listen: Option<SocketAddr>,
    /// Certificate chain, PEM.
    pub cert_file: Option<PathBuf>,
    /// Private key, PEM.
    pub key_file: Option<PathBuf>,
    /// What signed the certificate, PEM: edges are told it when they enrol.
    pub ca_file: Option<PathBuf>,
    /// What a device's certificate is worth.
    pub tls_client_auth: ClientAuth,
    /// How long after its end a device's certificate still connects.
    #[serde(deserialize_with = "duration::deserialize")]
    pub tls_expired_grace: Duration,
    /// Most connections at once.
    pub connections_max: usize,
    /// Most connections of one device.
    pub device_connections_max: usize,
    /// Most connections of one tenant's devices.
    pub tenant_connections_max: usize,
    /// Name of the Sparkplug host that this hub is.
    pub sparkplug_host: String,
    /// How long that host waits for a missing message before it asks for a birth.
    #[serde(deserialize_with = "duration::deserialize")]
    pub sparkplug_reorder_timeout: Duration,
    /// File with the secret that a broker outside shows when it asks who may do what.
    pub rules_secret_file: Option<PathBuf>,
    /// The plant's own broker, where edges connect there.
    pub external: Option<ExternalMqtt>,
}

/// PostgreSQL.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Database {
    /// Run a private cluster in `data_dir`.
    pub embedded: bool,
    /// URL of the login role, when not embedded.
    pub url: Option<Secret>,
    /// URL of the owner, when not embedded.
    pub admin_url: Option<Secret>,
    /// Most connections for requests.
    pub connections_max: u32,
}

/// From frames to rows.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ingest {
    /// Memory for messages that are not yet committed, in MiB.
    pub queue_mib: usize,
    /// Most readings in a transaction.
    pub rows_max: usize,
    /// Longest wait for more frames.
    #[serde(deserialize_with = "duration::deserialize")]
    pub gather: Duration,
}

/// Tokens.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Auth {
    /// How long a bearer token is good for.
    #[serde(deserialize_with = "duration::deserialize")]
    pub token_ttl: Duration,
    /// How long a refresh token is good for.
    #[serde(deserialize_with = "duration::deserialize")]
    pub refresh_ttl: Duration,
    /// How long a session lasts, however often it is refreshed.
    #[serde(deserialize_with = "duration::deserialize")]
    pub session_ttl: Duration,
    /// How often somebody may try who is not signed in.
    pub attempts: AttemptLimits,
}

/// How often one source of requests may try what needs no token, in a minute.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttemptLimits {
    /// Sign in with a password.
    pub logins_per_source_min: u32,
    /// Refresh or end a session.
    pub refreshes_per_source_min: u32,
    /// Have a mail sent.
    pub mails_per_source_min: u32,
    /// Use a token of a mail.
    pub tokens_per_source_min: u32,
}

const YEAR: Duration = Duration::from_hours(8760);

fn is_base_url(url: &str) -> bool {
    let host = url
        .strip_prefix("https://")
        .or_else(|| url.strip_prefix("http://"));
    let is_host = |c: char| c.is_ascii_alphanumeric() || ".-:[]".contains(c);
    host.is_some_and(|host| !host.is_empty() && host.chars().all(is_host))
}

/// Letters to people.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mail {
    /// The server that takes them.
    pub smtp_url: Option<Secret>,
    /// Who writes them.
    pub from: Option<String>,
}

/// Events sent to other systems.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Webhooks {
    /// Whether addresses within the own network may be called.
    pub allow_private: bool,
    /// How long a receiver may take to answer.
    #[serde(deserialize_with = "duration::deserialize")]
    pub timeout: Duration,
    /// How long after the first failure it is tried again; each time after that takes three times as long.
    #[serde(deserialize_with = "duration::deserialize")]
    pub retry_first: Duration,
}

/// What the command line may override.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `--data-dir`.
    pub data_dir: Option<PathBuf>,
    /// `--http`.
    pub http: Option<SocketAddr>,
    /// `--mqtt`.
    pub mqtt: Option<SocketAddr>,
    /// `--embedded`.
    pub embedded: bool,
    /// `--database-url`.
    pub database_url: Option<String>,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It does not have the form of the default file. Names the key and where it came from.
    #[error("{0}")]
    Form(Box<figment::Error>),
    /// It has, but says something impossible; every fault is listed.
    #[error("{}", .0.join("\n"))]
    Impossible(Vec<String>),
}

impl Config {
    /// Reads the configuration.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn load(file: Option<&Path>, overrides: &Overrides) -> Result<Self, ConfigError> {
        let mut figment = Figment::from(Toml::string(DEFAULT));
        if let Some(file) = file {
            figment = figment.merge(Toml::file_exact(file));
        }
        figment = figment.merge(Env::prefixed("FOODFLOW_HUB__").split("__"));
        if let Some(data_dir) = &overrides.data_dir {
            figment = figment.merge(Serialized::default("data_dir", data_dir));
        }
        if let Some(http) = overrides.http {
            figment = figment.merge(Serialized::default("http.listen", http));
        }
        if let Some(mqtt) = overrides.mqtt {
            figment = figment.merge(Serialized::default("mqtt.listen", mqtt));
        }
        if let Some(url) = &overrides.database_url {
            figment = figment.merge(Serialized::default("database.url", url));
        }
        if overrides.embedded {
            figment = figment.merge(Serialized::default("database.embedded", true));
        }
        let config: Self = figment
            .extract()
            .map_err(|error| ConfigError::Form(Box::new(error)))?;
        let faults = config.faults();
        if faults.is_empty() {
            Ok(config)
        } else {
            Err(ConfigError::Impossible(faults))
        }
    }

    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        self.http.faults(&mut faults);
        if let Some(external) = &self.mqtt.external {
            external.faults(&mut faults);
        }
        let tls = [
            self.mqtt.tls_listen.is_some(),
            self.mqtt.cert_file.is_some(),
            self.mqtt.key_file.is_some(),
        ];
        if tls.iter().any(|given| *given) && !tls.iter().all(|given| *given) {
            faults.push(
                "mqtt: `tls_listen`, `cert_file` and `key_file` are given together or not at all".to_owned(),
            );
        }
        if self.mqtt.tls_expired_grace > YEAR {
            faults.push("mqtt.tls_expired_grace: must be at most 8760h".to_owned());
        }
        if !(1..=1_000_000).contains(&self.ingest.rows_max) {
            faults.push("ingest.rows_max: must be 1 to 1000000".to_owned());
        }
        if !(1..=65_536).contains(&self.ingest.queue_mib) {
            faults.push("ingest.queue_mib: must be 1 to 65536".to_owned());
        }
        if self.database.connections_max == 0 || self.mqtt.connections_max == 0 {
            faults.push("connections_max: must be at least 1".to_owned());
        }
        if self.auth.token_ttl.as_secs() == 0 {
            faults.push("auth.token_ttl: must be at least 1s".to_owned());
        }
        if self.auth.refresh_ttl < self.auth.token_ttl || self.auth.session_ttl < self.auth.refresh_ttl {
            faults.push(
                "auth: `token_ttl`, `refresh_ttl` and `session_ttl` follow each other in length".to_owned(),
            );
        }
        if self.auth.session_ttl > YEAR {
            faults.push("auth.session_ttl: must be at most 8760h".to_owned());
        }
        let attempts = self.auth.attempts;
        if [
            attempts.logins_per_source_min,
            attempts.refreshes_per_source_min,
            attempts.mails_per_source_min,
            attempts.tokens_per_source_min,
        ]
        .contains(&0)
        {
            faults.push("auth.attempts: every limit must be at least 1".to_owned());
        }
        if self.mail.smtp_url.is_some() != self.mail.from.is_some() {
            faults.push("mail: `smtp_url` and `from` are given together or not at all".to_owned());
        }
        if let Some(url) = &self.http.public_url
            && !is_base_url(url)
        {
            faults.push(format!(
                "http.public_url: `{url}` is no http:// or https:// address without path and query"
            ));
        }
        if self.webhooks.timeout.is_zero() || self.webhooks.timeout > Duration::from_mins(1) {
            faults.push("webhooks.timeout: must be more than 0 and at most 60s".to_owned());
        }
        if self.webhooks.retry_first.is_zero() || self.webhooks.retry_first > Duration::from_mins(1) {
            faults.push("webhooks.retry_first: must be more than 0 and at most 60s".to_owned());
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_file_is_a_configuration() {
        let config = Config::load(None, &Overrides::default()).unwrap();
        assert_eq!(config.ingest.rows_max, 10_000);
        assert_eq!(config.auth.token_ttl, Duration::from_mins(15));
    }

    #[test]
    fn a_key_nobody_knows_is_an_error_that_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("hub.toml");
        std::fs::write(&file, "[http]\nlisten = \"127.0.0.1:1\"\nlitsen = 1\n").unwrap();
        let error = Config::load(Some(&file), &Overrides::default())
            .unwrap_err()
            .to_string();
        assert!(error.contains("litsen"), "{error}");
    }

    #[test]
    fn flags_override_and_every_impossible_value_is_listed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("hub.toml");
        std::fs::write(
            &file,
            "[ingest]\nrows_max = 0\nqueue_mib = 0\n[auth]\ntoken_ttl = \"0s\"\n",
        )
        .unwrap();
        let overrides = Overrides {
            http: Some("127.0.0.1:0".parse().unwrap()),
            ..Overrides::default()
        };
        let Err(ConfigError::Impossible(faults)) = Config::load(Some(&file), &overrides) else {
            panic!("expected faults");
        };
        assert_eq!(faults.len(), 3, "{faults:?}");
    }

    #[test]
    fn an_origin_is_named_in_full_and_nothing_stands_for_all() {
        for origin in [
            "https://plant.example",
            "http://localhost:5173",
            "http://[::1]:80",
        ] {
            assert!(is_origin(origin), "{origin}");
        }
        for wrong in [
            "*",
            "https://*",
            "null",
            "plant.example",
            "https://plant.example/",
            "https://",
        ] {
            assert!(!is_origin(wrong), "{wrong}");
        }
    }

    #[test]
    fn a_database_url_does_not_show_in_debug() {
        let overrides = Overrides {
            database_url: Some("postgres://u:hunter2@h/d".to_owned()),
            ..Overrides::default()
        };
        let config = Config::load(None, &overrides).unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
