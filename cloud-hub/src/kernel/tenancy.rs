//! Whose data is this? Every statement on a tenant's data runs in a [`TenantTx`], which has taken the tenant's
//! own database role. The login role may read no tenant's schema, so forgetting this fails closed.

use std::{fmt, time::Duration};

use sqlx::{
    AssertSqlSafe, PgConnection, PgPool, Postgres, Transaction,
    postgres::{PgConnectOptions, PgPoolOptions},
};

/// Name of the role the hub logs in as.
pub const LOGIN_ROLE: &str = "foodflow_app";

/// A tenant's name in URLs, topics and commands: 1 to 40 of `a-z 0-9 -`, starting with a letter.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TenantSlug(String);

/// The text is no tenant slug.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no tenant slug: 1 to 40 of a-z, 0-9 and `-`, starting with a letter")]
pub struct BadSlug(String);

impl TenantSlug {
    /// Checks a slug. Underscores are refused, so that no two slugs share a schema name.
    ///
    /// # Errors
    /// [`BadSlug`].
    pub fn parse(text: &str) -> Result<Self, BadSlug> {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if text.len() <= 40 && text.starts_with(|c: char| c.is_ascii_lowercase()) && text.chars().all(allowed)
        {
            Ok(Self(text.to_owned()))
        } else {
            Err(BadSlug(text.escape_default().take(60).collect()))
        }
    }

    /// The slug.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Name of the tenant's schema and of its role; safe in SQL without quotes.
    pub fn schema(&self) -> String {
        format!("t_{}", self.0.replace('-', "_"))
    }
}

impl fmt::Display for TenantSlug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why there is no transaction.
#[derive(Debug, thiserror::Error)]
pub enum TenancyError {
    /// No tenant of that name: for callers, not found.
    #[error("no such tenant")]
    UnknownTenant,
    /// The database cannot be reached now: try again later.
    #[error("the database cannot be reached")]
    Unavailable(#[source] sqlx::Error),
    /// A value that no column can hold: a zero character in a text, a number out of range.
    #[error("the database cannot hold such a value")]
    BadValue(#[source] sqlx::Error),
    /// Anything else.
    #[error("the database refused")]
    Database(#[source] sqlx::Error),
}

/// Connection lost; a conflict between transactions; disk, memory or connections used up; cancelled, shutting
/// down or starting: the same request may succeed later.
fn will_pass(sqlstate: &str) -> bool {
    ["08", "40", "53", "55", "57"]
        .iter()
        .any(|class| sqlstate.starts_with(class))
}

impl From<sqlx::Error> for TenancyError {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::Io(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::Tls(_) => Self::Unavailable(error),
            sqlx::Error::Database(ref refusal) if refusal.code().is_some_and(|code| will_pass(&code)) => {
                Self::Unavailable(error)
            }
            sqlx::Error::Database(ref refusal)
                if matches!(
                    refusal.code().as_deref(),
                    Some("22003" | "22008" | "22021" | "22P05")
                ) =>
            {
                Self::BadValue(error)
            }
            _ => Self::Database(error),
        }
    }
}

/// The way to the database. The pool stays private: there is no connection without a tenant.
#[derive(Clone)]
pub struct Db {
    pool: PgPool,
}

impl fmt::Debug for Db {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Db({} connections)", self.pool.size())
    }
}

impl Db {
    /// A pool that connects when first used, as [`LOGIN_ROLE`].
    pub fn new(options: PgConnectOptions, connections_max: u32, acquire_timeout: Duration) -> Self {
        let pool = PgPoolOptions::new()
            .max_connections(connections_max)
            .acquire_timeout(acquire_timeout)
            .connect_lazy_with(options);
        Self { pool }
    }

    /// Begins a transaction in which only `tenant`'s data can be seen.
    ///
    /// # Errors
    /// [`TenancyError`].
    pub async fn begin(&self, tenant: &TenantSlug) -> Result<TenantTx, TenancyError> {
        let mut tx = self.pool.begin().await?;
        let schema = tenant.schema();
        let enter = format!("SET LOCAL ROLE {schema}; SET LOCAL search_path TO {schema}, public");
        match sqlx::raw_sql(AssertSqlSafe(enter)).execute(&mut *tx).await {
            Ok(_) => Ok(TenantTx {
                tx,
                tenant: tenant.clone(),
            }),
            // 22023: no such role; 42501: a role that is no tenant's.
            Err(sqlx::Error::Database(refusal))
                if matches!(refusal.code().as_deref(), Some("22023" | "42704" | "42501")) =>
            {
                Err(TenancyError::UnknownTenant)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Begins a transaction on the platform's own tables; no tenant's data can be seen in it.
    ///
    /// # Errors
    /// [`TenancyError`].
    pub async fn platform(&self) -> Result<PlatformTx, TenancyError> {
        let tx = self.pool.begin().await?;
        Ok(PlatformTx { tx })
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// [`TenancyError`].
    pub async fn ping(&self) -> Result<(), TenancyError> {
        sqlx::query("SELECT 1").execute(&self.pool).await?;
        Ok(())
    }

    /// Closes every connection, waiting for those in use.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

/// A transaction within one tenant; rolled back when dropped.
#[derive(Debug)]
pub struct TenantTx {
    tx: Transaction<'static, Postgres>,
    tenant: TenantSlug,
}

impl TenantTx {
    /// The connection, for `sqlx::query…(…).execute(tx.conn())`. Tables are named without a schema.
    pub fn conn(&mut self) -> &mut PgConnection {
        &mut self.tx
    }

    /// Whose transaction it is.
    pub fn tenant(&self) -> &TenantSlug {
        &self.tenant
    }

    /// Makes it last.
    ///
    /// # Errors
    /// [`TenancyError`].
    pub async fn commit(self) -> Result<(), TenancyError> {
        Ok(self.tx.commit().await?)
    }
}

/// A transaction on the tables of schema `platform`; rolled back when dropped.
#[derive(Debug)]
pub struct PlatformTx {
    tx: Transaction<'static, Postgres>,
}

impl PlatformTx {
    /// The connection. Tables are named `platform.…`.
    pub fn conn(&mut self) -> &mut PgConnection {
        &mut self.tx
    }

    /// Makes it last.
    ///
    /// # Errors
    /// [`TenancyError`].
    pub async fn commit(self) -> Result<(), TenancyError> {
        Ok(self.tx.commit().await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_is_told_from_what_stays() {
        for state in [
            "08006", "40001", "40P01", "53100", "53200", "53300", "55P03", "57014", "57P01", "57P03",
        ] {
            assert!(will_pass(state), "{state}");
        }
        for state in ["22021", "23505", "42P01", "XX000"] {
            assert!(!will_pass(state), "{state}");
        }
    }

    #[test]
    fn a_slug_is_what_a_topic_and_a_schema_can_carry() {
        assert_eq!(
            TenantSlug::parse("lake-shore2").unwrap().schema(),
            "t_lake_shore2"
        );
        for wrong in ["", "-a", "9a", "A", "a_b", "a\"; drop", "á", &"a".repeat(41)] {
            assert!(TenantSlug::parse(wrong).is_err(), "{wrong}");
        }
    }
}
