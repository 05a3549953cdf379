//! Whose data is this? Every statement on a tenant's data runs in a [`TenantTx`], which has taken the tenant's
//! own database role. The login role may read no tenant's schema, so forgetting this fails closed. What is changed
//! in one leaves an audit entry: a transaction that wrote and says nothing of it does not commit.

mod error;
mod platform;
mod slug;
mod tenant;

use std::{fmt, time::Duration};

use sqlx::{
    AssertSqlSafe, ConnectOptions as _, PgPool, Postgres, Row as _, Transaction,
    postgres::{PgConnectOptions, PgPoolOptions},
};

pub use self::{
    error::TenancyError,
    platform::PlatformTx,
    slug::{BadSlug, TenantSlug},
    tenant::TenantTx,
};
use super::{audit::Actor, clock::Clock, context, database::Target, pulse::Pulse};
use crate::tenant::migrate;

const OWNER_TIMEOUT: Duration = Duration::from_secs(5);

/// Name of the role the hub logs in as.
pub const LOGIN_ROLE: &str = "foodflow_app";

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
                is_owners: false,
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

/// Begins a transaction of the database's owner, who alone makes schemas.
///
/// # Errors
/// [`TenancyError`].
pub async fn begin_as_owner(owner: &Target) -> Result<Transaction<'static, Postgres>, TenancyError> {
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(OWNER_TIMEOUT)
        .connect_lazy_with(owner.requests.clone());
    Ok(pool.begin().await?)
}
