//! Whose data is this? Every statement on a tenant's data runs in a [`TenantTx`], which has taken the tenant's
//! own database role. The login role may read no tenant's schema, so forgetting this fails closed. What is changed
//! in one leaves an audit entry: a transaction that wrote and says nothing of it does not commit.

use std::{fmt, time::Duration};

use chrono::{DateTime, Utc};

use sqlx::{
    AssertSqlSafe, ConnectOptions as _, PgConnection, PgPool, Postgres, Row as _, Transaction,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use super::{
    audit::{self, Actor, Deed},
    clock::Clock,
    context::{self, RequestContext},
    event::NewEvent,
    pulse::Pulse,
    scope::Scope,
};
use crate::tenant::migrate;

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
    /// The tenant's schema is not what this program needs yet: try again later.
    #[error("the tenant's schema is at version {0}; it is being migrated, or its migration failed")]
    NotMigrated(i64),
    /// A change that left no audit entry: a fault of this program, undone.
    #[error("the transaction changed data without an audit entry")]
    Unaudited,
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
    clock: Clock,
    pulse: Pulse,
}

impl fmt::Debug for Db {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Db({} connections)", self.pool.size())
    }
}

/// What the database said when a tenant was entered.
#[derive(Debug)]
pub(super) struct Entered {
    pub(super) tx: TenantTx,
    pub(super) is_suspended: bool,
    /// The answer to the question that was sent along.
    pub(super) said: Option<String>,
}

impl Db {
    /// A pool that connects when first used, as [`LOGIN_ROLE`]. Statements are not logged: some carry ids and digests.
    pub fn new(options: PgConnectOptions, connections_max: u32, acquire_timeout: Duration) -> Self {
        let pool = PgPoolOptions::new()
            .max_connections(connections_max)
            .acquire_timeout(acquire_timeout)
            .connect_lazy_with(options.disable_statement_logging());
        Self {
            pool,
            clock: Clock::system(),
            pulse: Pulse::default(),
        }
    }

    /// With another source of the present.
    #[must_use]
    pub fn with_clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Tells whose events were committed through this handle or a clone of it.
    pub fn pulse(&self) -> &Pulse {
        &self.pulse
    }

    /// Begins a transaction of the hub itself in which only `tenant`'s data can be seen.
    ///
    /// # Errors
    /// [`TenancyError`].
    pub async fn begin(&self, tenant: &TenantSlug) -> Result<TenantTx, TenancyError> {
        self.begin_as(tenant, Actor::Hub { duty: "hub" }).await
    }

    /// Begins a transaction of `actor`, who is not asked for permissions: a duty, a command, a sign-in.
    ///
    /// # Errors
    /// [`TenancyError`].
    pub async fn begin_as(&self, tenant: &TenantSlug, actor: Actor) -> Result<TenantTx, TenancyError> {
        let entered = self.enter(tenant, None).await?;
        Ok(entered.tx.by(actor))
    }

    /// As [`Db::begin_as`], but a suspended tenant is none: for whoever is not known yet.
    ///
    /// # Errors
    /// [`TenancyError`].
    pub async fn begin_active(&self, tenant: &TenantSlug, actor: Actor) -> Result<TenantTx, TenancyError> {
        let entered = self.enter(tenant, None).await?;
        if entered.is_suspended {
            return Err(TenancyError::UnknownTenant);
        }
        Ok(entered.tx.by(actor))
    }

    /// Takes the tenant's role, in one round trip with a question to its schema. `question` is made of constants,
    /// numbers and ids.
    pub(super) async fn enter(
        &self,
        tenant: &TenantSlug,
        question: Option<&str>,
    ) -> Result<Entered, TenancyError> {
        let tx = self.pool.begin().await?;
        self.take_role(tx, tenant, question).await
    }

    async fn take_role(
        &self,
        mut tx: Transaction<'static, Postgres>,
        tenant: &TenantSlug,
        question: Option<&str>,
    ) -> Result<Entered, TenancyError> {
        let enter = entry_sql(tenant) + question.unwrap_or_default();
        let rows = match sqlx::raw_sql(AssertSqlSafe(enter)).fetch_all(&mut *tx).await {
            Ok(rows) => rows,
            // 22023: no such role; 42501: a role that is no tenant's.
            Err(sqlx::Error::Database(refusal))
                if matches!(refusal.code().as_deref(), Some("22023" | "42704" | "42501")) =>
            {
                return Err(TenancyError::UnknownTenant);
            }
            // 42883: the question is of a newer schema than the tenant's.
            Err(sqlx::Error::Database(refusal)) if refusal.code().as_deref() == Some("42883") => {
                return Err(TenancyError::NotMigrated(0));
            }
            Err(error) => return Err(error.into()),
        };
        let mut texts = rows.iter().map(|row| row.try_get::<String, _>(0));
        let standing = texts.next().ok_or(TenancyError::UnknownTenant)??;
        let is_suspended = Standing::parse(&standing)?.is_suspended;
        context::name_tenant(tenant);
        Ok(Entered {
            tx: TenantTx {
                tx,
                tenant: tenant.clone(),
                actor: Actor::Nobody,
                at: self.clock.now(),
                context: context::current(),
                trail: Trail::default(),
                pulse: self.pulse.clone(),
            },
            is_suspended,
            said: texts.next().transpose()?,
        })
    }

    /// Begins a transaction that reads: all of its statements see the tenant's data as it is now, however long they
    /// take.
    ///
    /// # Errors
    /// [`TenancyError`].
    pub async fn snapshot(&self, tenant: &TenantSlug) -> Result<TenantTx, TenancyError> {
        const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY";
        let tx = self.pool.begin_with(BEGIN).await?;
        Ok(self.take_role(tx, tenant, None).await?.tx)
    }

    /// Begins a transaction on the platform's own tables; no tenant's data can be seen in it.
    ///
    /// # Errors
    /// [`TenancyError`].
    pub async fn platform(&self) -> Result<PlatformTx, TenancyError> {
        self.platform_as(Actor::Hub { duty: "hub" }).await
    }

    /// As [`Db::platform`], on behalf of `actor`.
    ///
    /// # Errors
    /// [`TenancyError`].
    pub async fn platform_as(&self, actor: Actor) -> Result<PlatformTx, TenancyError> {
        Ok(PlatformTx {
            tx: self.pool.begin().await?,
            actor,
            at: self.clock.now(),
            context: context::current(),
            entries: Vec::new(),
        })
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

/// How a transaction becomes a tenant's, on either driver: where the tenant stands, its role, its schema, all of
/// its lines.
pub(super) fn entry_sql(tenant: &TenantSlug) -> String {
    let (slug, schema) = (tenant.as_str(), tenant.schema());
    format!(
        "SELECT status || ' ' || schema_version FROM platform.tenant WHERE slug = '{slug}'; \
         SET LOCAL ROLE {schema}; SET LOCAL search_path TO {schema}, public; SET LOCAL foodflow.lines TO '*';"
    )
}

/// Where a tenant stands, as [`entry_sql`] asks it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) is_suspended: bool,
}

impl Standing {
    /// Reads `status version`.
    pub(super) fn parse(said: &str) -> Result<Self, TenancyError> {
        let (status, version) = said.split_once(' ').unwrap_or((said, "0"));
        let version: i64 = version.parse().unwrap_or(0);
        if version < migrate::tenant_version() {
            return Err(TenancyError::NotMigrated(version));
        }
        Ok(Self {
            is_suspended: status != "active",
        })
    }
}

/// What a transaction has to say of itself, kept until it commits.
#[derive(Debug, Default)]
pub(super) struct Trail {
    pub(super) entries: Vec<String>,
    pub(super) events: Vec<String>,
}

impl Trail {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.events.is_empty()
    }
}

/// Writes a trail; the last statement before a commit, because writers of a tenant queue there.
pub(super) const RECORD: &str = "SELECT record($1, $2)";

/// A transaction within one tenant; rolled back when dropped.
#[derive(Debug)]
pub struct TenantTx {
    tx: Transaction<'static, Postgres>,
    tenant: TenantSlug,
    actor: Actor,
    at: DateTime<Utc>,
    context: RequestContext,
    trail: Trail,
    pulse: Pulse,
}

impl TenantTx {
    /// From here on `actor` acts: a sign-in learns on the way who it is.
    #[must_use]
    pub fn by(mut self, actor: Actor) -> Self {
        self.actor = actor;
        self
    }

    /// Restricts what follows to some lines.
    pub(super) async fn narrow(&mut self, scope: &Scope) -> Result<(), TenancyError> {
        if *scope != Scope::Everywhere {
            sqlx::query("SELECT set_config('foodflow.lines', $1, true)")
                .bind(scope.setting())
                .execute(&mut *self.tx)
                .await?;
        }
        Ok(())
    }

    /// Takes the login role for statements on the platform's tables, which then last together with the tenant's
    /// audit entry or not at all. That role sees no tenant's data; [`TenantTx::step_in`] ends it, and nothing
    /// commits before.
    ///
    /// # Errors
    /// [`TenancyError`].
    pub async fn step_out(&mut self) -> Result<(), TenancyError> {
        sqlx::query("SET LOCAL ROLE NONE").execute(&mut *self.tx).await?;
        Ok(())
    }

    /// Takes the tenant's role again.
    ///
    /// # Errors
    /// [`TenancyError`].
    pub async fn step_in(&mut self) -> Result<(), TenancyError> {
        let role = format!("SET LOCAL ROLE {}", self.tenant.schema());
        sqlx::query(AssertSqlSafe(role)).execute(&mut *self.tx).await?;
        Ok(())
    }

    /// The connection, for `sqlx::query…(…).execute(tx.conn())`. Tables are named without a schema.
    pub fn conn(&mut self) -> &mut PgConnection {
        &mut self.tx
    }

    /// Whose transaction it is.
    pub fn tenant(&self) -> &TenantSlug {
        &self.tenant
    }

    /// Who acts.
    pub fn actor(&self) -> &Actor {
        &self.actor
    }

    /// When it began: the time of its deeds.
    pub fn at(&self) -> DateTime<Utc> {
        self.at
    }

    /// The request it is part of.
    pub fn context(&self) -> &RequestContext {
        &self.context
    }

    /// Says why, where the request did not.
    pub fn because(&mut self, why: &str) {
        self.context.why = Some(why.to_owned());
    }

    /// Notes a deed of this transaction for the audit chain.
    pub fn audit(&mut self, deed: &Deed) {
        let why = self.context.why.as_deref();
        let entry = audit::entry(deed, &self.actor, self.at, &self.context.correlation_id, why);
        self.trail.entries.push(entry);
    }

    /// Notes a domain event of this transaction.
    pub fn event(&mut self, event: &NewEvent) {
        self.trail
            .events
            .push(event.text(self.at, &self.context.correlation_id));
    }

    /// Makes it last, with its audit entries and events.
    ///
    /// # Errors
    /// [`TenancyError`]; [`TenancyError::Unaudited`] when something was changed that no audit entry tells of.
    pub async fn commit(mut self) -> Result<(), TenancyError> {
        if self.trail.entries.is_empty() {
            let has_written: bool = sqlx::query_scalar("SELECT pg_current_xact_id_if_assigned() IS NOT NULL")
                .fetch_one(&mut *self.tx)
                .await?;
            if has_written || !self.trail.is_empty() {
                return Err(TenancyError::Unaudited);
            }
        } else {
            sqlx::query(RECORD)
                .bind(&self.trail.entries)
                .bind(&self.trail.events)
                .execute(&mut *self.tx)
                .await?;
        }
        self.tx.commit().await?;
        if !self.trail.events.is_empty() {
            self.pulse.committed(&self.tenant);
        }
        Ok(())
    }

    /// Makes it last without an audit entry: for what is derived from audited records or is no record at all
    /// (projections, last-used times, who is online). The reason is for the reader of the code.
    ///
    /// # Errors
    /// [`TenancyError`].
    pub async fn commit_unaudited(self, _reason: &'static str) -> Result<(), TenancyError> {
        Ok(self.tx.commit().await?)
    }
}

/// A transaction on the tables of schema `platform`; rolled back when dropped.
#[derive(Debug)]
pub struct PlatformTx {
    tx: Transaction<'static, Postgres>,
    actor: Actor,
    at: DateTime<Utc>,
    context: RequestContext,
    entries: Vec<String>,
}

impl PlatformTx {
    /// The connection. Tables are named `platform.…`.
    pub fn conn(&mut self) -> &mut PgConnection {
        &mut self.tx
    }

    /// When it began: the time of its deeds.
    pub fn at(&self) -> DateTime<Utc> {
        self.at
    }

    /// Says why, where the request did not.
    pub fn because(&mut self, why: &str) {
        self.context.why = Some(why.to_owned());
    }

    /// Notes a deed of this transaction for the platform's audit chain.
    pub fn audit(&mut self, deed: &Deed) {
        let why = self.context.why.as_deref();
        let entry = audit::entry(deed, &self.actor, self.at, &self.context.correlation_id, why);
        self.entries.push(entry);
    }

    /// Makes it last, with its audit entries.
    ///
    /// # Errors
    /// [`TenancyError`].
    pub async fn commit(mut self) -> Result<(), TenancyError> {
        self.record().await?;
        Ok(self.tx.commit().await?)
    }

    /// Makes it last; what was done to `tenant` stands in its own audit chain too.
    ///
    /// # Errors
    /// [`TenancyError`].
    pub async fn commit_in(mut self, tenant: &TenantSlug) -> Result<(), TenancyError> {
        self.record().await?;
        sqlx::raw_sql(AssertSqlSafe(entry_sql(tenant)))
            .execute(&mut *self.tx)
            .await?;
        sqlx::query(RECORD)
            .bind(&self.entries)
            .bind(Vec::<String>::new())
            .execute(&mut *self.tx)
            .await?;
        Ok(self.tx.commit().await?)
    }

    async fn record(&mut self) -> Result<(), TenancyError> {
        if !self.entries.is_empty() {
            sqlx::query("SELECT platform.record($1)")
                .bind(&self.entries)
                .execute(&mut *self.tx)
                .await?;
        }
        Ok(())
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
        let long = "a".repeat(41);
        for wrong in [
            "",
            "-a",
            "9a",
            "A",
            "a_b",
            "a\"; drop",
            "a'; drop schema platform; --",
            "a\0",
            "a\n",
            "a b",
            "a.b",
            "../a",
            "pg_catalog",
            "information_schema",
            "á",
            "а",
            "ａ",
            &long,
        ] {
            assert!(TenantSlug::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn no_slug_names_a_schema_that_is_not_a_tenants() {
        for tempting in [
            "platform",
            "public",
            "postgres",
            "foodflow",
            "pg",
            "t",
            "pg-catalog",
        ] {
            let schema = TenantSlug::parse(tempting).unwrap().schema();
            assert!(schema.starts_with("t_") && schema.len() <= 42, "{schema}");
        }
    }
}
