//! What can be done within one tenant? Statements on its data, and the audit entries and events that make them last.

use chrono::{DateTime, Utc};
use sqlx::{AssertSqlSafe, PgConnection, Postgres, Row as _, Transaction};

use super::{RECORD, TenancyError, TenantSlug, Trail};
use crate::kernel::{
    audit::{self, Actor, Deed},
    context::{self, RequestContext},
    event::NewEvent,
    pulse::Pulse,
    scope::Scope,
};

/// A transaction within one tenant; rolled back when dropped.
#[derive(Debug)]
pub struct TenantTx {
    pub(super) tx: Transaction<'static, Postgres>,
    pub(super) tenant: TenantSlug,
    pub(super) actor: Actor,
    pub(super) at: DateTime<Utc>,
    pub(super) context: RequestContext,
    pub(super) trail: Trail,
    pub(super) pulse: Pulse,
    /// Whether it has the owner's rights instead of the tenant's role.
    pub(super) is_owners: bool,
}

impl TenantTx {
    /// The owner's transaction that just made the tenant, whose schema it is in. What is done next, and its audit
    /// entry, stands or falls with the making.
    ///
    /// # Errors
    /// [`TenancyError`].
    pub async fn of_making(
        mut tx: Transaction<'static, Postgres>,
        tenant: &TenantSlug,
        actor: Actor,
        at: DateTime<Utc>,
    ) -> Result<Self, TenancyError> {
        sqlx::raw_sql("SET LOCAL foodflow.lines TO '*'")
            .execute(&mut *tx)
            .await?;
        Ok(Self {
            tx,
            tenant: tenant.clone(),
            actor,
            at,
            context: context::current(),
            trail: Trail::default(),
            pulse: Pulse::default(),
            is_owners: true,
        })
    }

    /// From here on `actor` acts: a sign-in learns on the way who it is.
    #[must_use]
    pub fn by(mut self, actor: Actor) -> Self {
        self.actor = actor;
        self
    }

    /// Restricts what follows to some lines.
    pub(in crate::kernel) async fn narrow(&mut self, scope: &Scope) -> Result<(), TenancyError> {
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

    /// What the tenant has decided, from its entry at the platform, which its own role cannot read.
    ///
    /// # Errors
    /// [`TenancyError`].
    pub async fn settings(&mut self) -> Result<serde_json::Value, TenancyError> {
        let (slug, schema) = (self.tenant.as_str(), self.tenant.schema());
        let role = if self.is_owners { "NONE" } else { schema.as_str() };
        let ask = format!(
            "SET LOCAL ROLE NONE; SELECT settings::text FROM platform.tenant WHERE slug = '{slug}'; \
             SET LOCAL ROLE {role}"
        );
        let rows = sqlx::raw_sql(AssertSqlSafe(ask)).fetch_all(&mut *self.tx).await?;
        let row = rows.first().ok_or(TenancyError::UnknownTenant)?;
        let stored: String = row.try_get(0)?;
        Ok(serde_json::from_str(&stored).unwrap_or_default())
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

    /// The answer is not kept for an `Idempotency-Key`: the request holds a secret, and its hash would let the
    /// secret be guessed. Such a deed must be safe to ask for twice.
    pub fn never_replayed(&mut self) {
        self.context.idempotency = None;
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
