//! What can be done on the platform's own tables? Statements that see no tenant's data, audited in the platform's chain
//! and, where they are about a tenant, in its own.

use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{AssertSqlSafe, PgConnection, Postgres, Transaction};

use super::{RECORD, TenancyError, TenantSlug, entry_sql};
use crate::kernel::{
    audit::{self, Actor, Deed},
    context::RequestContext,
    idempotency,
    reply::Reply,
};

/// A transaction on the tables of schema `platform`; rolled back when dropped.
#[derive(Debug)]
pub struct PlatformTx {
    pub(super) tx: Transaction<'static, Postgres>,
    pub(super) actor: Actor,
    pub(super) at: DateTime<Utc>,
    pub(super) context: RequestContext,
    pub(super) entries: Vec<String>,
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
        self.record_in(tenant).await?;
        Ok(self.tx.commit().await?)
    }

    /// As [`PlatformTx::commit_in`], and answers with `record`; the answer is kept in the tenant for the same request
    /// again.
    ///
    /// # Errors
    /// As [`PlatformTx::commit_in`].
    pub async fn finish_in(
        mut self,
        tenant: &TenantSlug,
        status: StatusCode,
        record: &impl Serialize,
    ) -> crate::error::Result<Reply> {
        let reply = Reply::json(status, record)?;
        self.record_in(tenant).await?;
        let asked = self.context.idempotency.take();
        idempotency::insert(&mut self.tx, &self.actor.key(), asked, &reply, false).await?;
        self.tx.commit().await?;
        Ok(reply)
    }

    async fn record_in(&mut self, tenant: &TenantSlug) -> Result<(), TenancyError> {
        self.record().await?;
        sqlx::raw_sql(AssertSqlSafe(entry_sql(tenant)))
            .execute(&mut *self.tx)
            .await?;
        sqlx::query(RECORD)
            .bind(&self.entries)
            .bind(Vec::<String>::new())
            .execute(&mut *self.tx)
            .await?;
        Ok(())
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
