//! Which database, and as whom? One description for both drivers: sqlx for requests, tokio-postgres for bulk.

use std::{fmt, str::FromStr};

use sqlx::{ConnectOptions, postgres::PgConnectOptions};

use super::{secret::Secret, tenancy::LOGIN_ROLE};
use crate::embedded::{Address, OWNER_ROLE};

/// A database as one role.
#[derive(Clone)]
pub struct Target {
    /// For requests and migrations.
    pub requests: PgConnectOptions,
    /// For ingest.
    pub bulk: tokio_postgres::Config,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({:?})", self.bulk.get_dbname())
    }
}

/// The URL is no database URL. The URL itself is a secret and is not shown.
#[derive(Debug, thiserror::Error)]
#[error("the database URL cannot be read: {0}")]
pub struct BadUrl(String);

impl Target {
    /// The hub's login role in a private cluster.
    pub fn login(address: &Address, database: &str) -> Self {
        Self::embedded(address, database, LOGIN_ROLE)
    }

    /// The owner in a private cluster.
    pub fn owner(address: &Address, database: &str) -> Self {
        Self::embedded(address, database, OWNER_ROLE)
    }

    fn embedded(address: &Address, database: &str, role: &str) -> Self {
        let mut bulk = tokio_postgres::Config::new();
        bulk.host_path(&address.socket_dir)
            .port(5432)
            .user(role)
            .dbname(database);
        Self {
            requests: address.options(database, role),
            bulk,
        }
    }

    /// The same, under an application name by which the database's owner knows who is connected.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        self.requests = self.requests.application_name(name);
        self.bulk.application_name(name);
        self
    }

    /// A server elsewhere.
    ///
    /// # Errors
    /// [`BadUrl`].
    pub fn from_url(url: &Secret) -> Result<Self, BadUrl> {
        let requests = PgConnectOptions::from_str(url.expose()).map_err(|error| BadUrl(error.to_string()))?;
        let bulk =
            tokio_postgres::Config::from_str(url.expose()).map_err(|error| BadUrl(error.to_string()))?;
        if bulk.get_ssl_mode() == tokio_postgres::config::SslMode::Require {
            let fault = "`sslmode=require`: ingest does not speak TLS to the database yet; use a private network, a tunnel or a socket";
            return Err(BadUrl(fault.to_owned()));
        }
        Ok(Self {
            requests: requests.disable_statement_logging(),
            bulk,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_that_half_the_hub_could_not_use_is_refused_at_the_start_and_not_shown() {
        let url = |query: &str| Secret::new(format!("postgres://u:hunter2@db.example/foodflow{query}"));
        assert!(Target::from_url(&url("")).is_ok());
        let refused = Target::from_url(&url("?sslmode=require"))
            .unwrap_err()
            .to_string();
        assert!(
            refused.contains("TLS") && !refused.contains("hunter2"),
            "{refused}"
        );
        let other = Target::from_url(&url("?sslmode=verify-full"))
            .unwrap_err()
            .to_string();
        assert!(!other.contains("hunter2"), "{other}");
    }
}
