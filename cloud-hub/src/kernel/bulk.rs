//! How do many rows get in at once? A tenant's transaction on tokio-postgres, which can COPY. It takes the
//! tenant's role as [`TenantTx`](super::tenancy::TenantTx) does, and keeps prepared statements for each tenant:
//! a statement shared by tenants would be planned anew whenever the search_path changes. A statement names its tables
//! as `{schema}.reading`, and the tenant's schema takes that place when it is prepared.
//!
//! Several tenants may share one commit ([`BulkConnection::begin_shared`]): each has its part, entered with its own
//! role and undone by itself.

use std::{collections::HashMap, fmt, ops::Deref};

use bytes::{Bytes, BytesMut};
use chrono::{DateTime, Utc};
use futures_util::SinkExt;
use tokio_postgres::{
    Client, NoTls, Row, SimpleQueryMessage, Statement, Transaction, error::SqlState, types::ToSql,
};
use uuid::Uuid;

use super::{
    audit::{self, Actor, Deed},
    clock::Clock,
    event::NewEvent,
    tenancy::{RECORD, Standing, TenancyError, TenantSlug, Trail, entry_sql},
};

/// What went wrong, by what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum BulkError {
    /// The connection is gone or the server is not ready: connect again and repeat.
    #[error("the database cannot be reached")]
    Unavailable(#[source] tokio_postgres::Error),
    /// Two transactions were in each other's way: repeat.
    #[error("the database asks to repeat")]
    Repeat(#[source] tokio_postgres::Error),
    /// No such tenant.
    #[error("no such tenant")]
    UnknownTenant,
    /// The tenant's schema is not what this program needs yet: its data waits, other tenants' does not.
    #[error("the tenant's schema is not migrated yet")]
    NotMigrated,
    /// The tenant is suspended: its data waits.
    #[error("the tenant is suspended")]
    Suspended,
    /// Something of this tenant's schema is missing, forbidden or locked: its data waits, other tenants' does not.
    #[error("the tenant's schema cannot be used now: {}", reason(.0))]
    Unfit(#[source] tokio_postgres::Error),
    /// The data cannot be stored, now or later.
    #[error("the database refuses the data: {}", reason(.0))]
    Refused(#[source] tokio_postgres::Error),
}

fn reason(error: &tokio_postgres::Error) -> String {
    error
        .as_db_error()
        .map_or_else(|| error.to_string(), |db| db.message().to_owned())
}

impl From<tokio_postgres::Error> for BulkError {
    fn from(error: tokio_postgres::Error) -> Self {
        let advice = match error.code() {
            Some(state) => advice(state.code()),
            // No SQLSTATE. A value that cannot become its parameter is the data's fault and has its cause with it;
            // broken input or output, a closed connection and a reply out of turn are the connection's.
            None => match std::error::Error::source(&error) {
                Some(cause) if !cause.is::<std::io::Error>() && !error.is_closed() => Advice::Refuse,
                _ => Advice::Wait,
            },
        };
        match advice {
            Advice::Refuse => Self::Refused(error),
            Advice::Repeat => Self::Repeat(error),
            Advice::SetAside => Self::Unfit(error),
            Advice::Wait => Self::Unavailable(error),
        }
    }
}

/// What an error of the database asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Advice {
    /// The data is at fault: the same will be refused again.
    Refuse,
    /// Other transactions were in the way.
    Repeat,
    /// The tenant's schema is: others have their own.
    SetAside,
    /// The database is: nothing is given up for it.
    Wait,
}

/// How long a tenant's table may be locked (by a migration, say) before its data is set aside.
const LOCK_TIMEOUT: &str = "SET LOCAL lock_timeout TO '500ms';";

/// Only classes that can be nothing but the data's fault condemn it. Missing tables, columns and rights and a lock
/// that stays are the one tenant's. Resources, operators, connections and whatever is not known here is waited for.
fn advice(sqlstate: &str) -> Advice {
    match (sqlstate, sqlstate.get(..2)) {
        // The server's stack is as deep as its settings allow; that is not the data's doing.
        ("54001", _) => Advice::Wait,
        // Cardinality, bad data, broken constraint, too large for an index.
        (_, Some("21" | "22" | "23" | "54")) => Advice::Refuse,
        ("55P03", _) | (_, Some("0A" | "3F" | "42")) => Advice::SetAside,
        (_, Some("40" | "55")) => Advice::Repeat,
        _ => Advice::Wait,
    }
}

type Prepared = HashMap<&'static str, Statement>;

/// One connection of the login role.
pub struct BulkConnection {
    client: Client,
    prepared: HashMap<TenantSlug, Prepared>,
}

impl fmt::Debug for BulkConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BulkConnection({} tenants)", self.prepared.len())
    }
}

impl BulkConnection {
    /// Connects.
    ///
    /// # Errors
    /// [`BulkError`].
    pub async fn connect(config: &tokio_postgres::Config) -> Result<Self, BulkError> {
        let (client, connection) = config.connect(NoTls).await.map_err(BulkError::Unavailable)?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::warn!(%error, "the connection of ingest ended");
            }
        });
        Ok(Self {
            client,
            prepared: HashMap::new(),
        })
    }

    /// Forgets the statements prepared for `tenant`, whose tables may have changed under them.
    pub fn forget(&mut self, tenant: &TenantSlug) {
        self.prepared.remove(tenant);
    }

    /// Begins a transaction in which only `tenant`'s data can be seen; rolled back when dropped.
    ///
    /// # Errors
    /// [`BulkError`].
    pub async fn begin(&mut self, tenant: &TenantSlug) -> Result<BulkTx<'_>, BulkError> {
        let prepared = self.prepared.entry(tenant.clone()).or_default();
        let tx = self.client.transaction().await?;
        enter(&tx, entry_sql(tenant) + LOCK_TIMEOUT).await?;
        Ok(BulkTx::new(Whole::Own(tx), tenant, prepared))
    }

    /// Begins a transaction that several tenants share; none of them can be seen until it is entered. Rolled back when
    /// dropped.
    ///
    /// # Errors
    /// [`BulkError`].
    pub async fn begin_shared(&mut self) -> Result<SharedTx<'_>, BulkError> {
        Ok(SharedTx {
            tx: self.client.transaction().await?,
            prepared: &mut self.prepared,
        })
    }
}

/// Takes a tenant's role, and says whether its data may be stored now.
async fn enter(tx: &Transaction<'_>, sql: String) -> Result<(), BulkError> {
    let said = match tx.simple_query(&sql).await {
        Ok(said) => said,
        Err(error) => {
            return match error.code().map(SqlState::code) {
                Some("22023" | "42704" | "42501") => Err(BulkError::UnknownTenant),
                _ => Err(error.into()),
            };
        }
    };
    let standing = said.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    match Standing::parse(standing.ok_or(BulkError::UnknownTenant)?) {
        Ok(Standing { is_suspended: true }) => Err(BulkError::Suspended),
        Ok(_) => Ok(()),
        Err(TenancyError::NotMigrated(_)) => Err(BulkError::NotMigrated),
        Err(_) => Err(BulkError::UnknownTenant),
    }
}

/// A transaction that several tenants share. Each is entered, stored and left in turn; always in the order of their
/// names, so that two hubs never wait for each other in a circle.
pub struct SharedTx<'a> {
    tx: Transaction<'a>,
    prepared: &'a mut HashMap<TenantSlug, Prepared>,
}

impl fmt::Debug for SharedTx<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedTx")
    }
}

impl SharedTx<'_> {
    /// Begins a tenant's part, in which only its data can be seen. [`BulkTx::commit`] ends it; it lasts when the whole
    /// is committed.
    ///
    /// # Errors
    /// [`BulkError`]; call [`SharedTx::undo`] then.
    pub async fn enter(&mut self, tenant: &TenantSlug) -> Result<BulkTx<'_>, BulkError> {
        // The one before has left its role, which may not ask for this one's standing.
        let sql = format!(
            "SAVEPOINT part; SET LOCAL ROLE NONE; {}{LOCK_TIMEOUT}",
            entry_sql(tenant)
        );
        enter(&self.tx, sql).await?;
        let prepared = self.prepared.entry(tenant.clone()).or_default();
        Ok(BulkTx::new(Whole::Shared(&self.tx), tenant, prepared))
    }

    /// Undoes the part that was entered last and failed; the others go on.
    ///
    /// # Errors
    /// [`BulkError`]: nothing of the whole can be stored then.
    pub async fn undo(&mut self) -> Result<(), BulkError> {
        Ok(self.tx.batch_execute("ROLLBACK TO SAVEPOINT part").await?)
    }

    /// Makes every part last.
    ///
    /// # Errors
    /// [`BulkError`]; it is not known then whether they do.
    pub async fn commit(self) -> Result<(), BulkError> {
        Ok(self.tx.commit().await?)
    }
}

/// What a tenant's statements run in.
enum Whole<'a> {
    /// A transaction of its own.
    Own(Transaction<'a>),
    /// A part of one.
    Shared(&'a Transaction<'a>),
}

impl<'a> Deref for Whole<'a> {
    type Target = Transaction<'a>;

    fn deref(&self) -> &Transaction<'a> {
        match self {
            Self::Own(tx) => tx,
            Self::Shared(tx) => tx,
        }
    }
}

/// A transaction within one tenant, or a tenant's part of one.
pub struct BulkTx<'a> {
    tx: Whole<'a>,
    schema: String,
    prepared: &'a mut Prepared,
    actor: Actor,
    correlation_id: String,
    at: DateTime<Utc>,
    trail: Trail,
    /// Lengths of the trail at the mark.
    marked: (usize, usize),
}

impl fmt::Debug for BulkTx<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BulkTx({} statements)", self.prepared.len())
    }
}

impl<'a> BulkTx<'a> {
    fn new(tx: Whole<'a>, tenant: &TenantSlug, prepared: &'a mut Prepared) -> Self {
        Self {
            tx,
            schema: tenant.schema(),
            prepared,
            actor: Actor::Hub { duty: "ingest" },
            correlation_id: Uuid::now_v7().to_string(),
            at: Clock::system().now(),
            trail: Trail::default(),
            marked: (0, 0),
        }
    }

    async fn statement(&mut self, sql: &'static str) -> Result<Statement, BulkError> {
        if let Some(statement) = self.prepared.get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.tx.prepare(&sql.replace("{schema}", &self.schema)).await?;
        self.prepared.insert(sql, statement.clone());
        Ok(statement)
    }

    /// Runs a query and gives its rows.
    ///
    /// # Errors
    /// [`BulkError`].
    pub async fn query(
        &mut self,
        sql: &'static str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, BulkError> {
        let statement = self.statement(sql).await?;
        Ok(self.tx.query(&statement, params).await?)
    }

    /// Runs a statement and says how many rows it touched.
    ///
    /// # Errors
    /// [`BulkError`].
    pub async fn execute(
        &mut self,
        sql: &'static str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<u64, BulkError> {
        let statement = self.statement(sql).await?;
        Ok(self.tx.execute(&statement, params).await?)
    }

    /// Runs `COPY … FROM STDIN (FORMAT binary)` on bytes in that format; says how many rows went in.
    ///
    /// # Errors
    /// [`BulkError`].
    pub async fn copy_in(&mut self, sql: &'static str, mut bytes: BytesMut) -> Result<u64, BulkError> {
        const CHUNK: usize = 256 * 1024;
        let statement = self.statement(sql).await?;
        let sink = self.tx.copy_in::<_, Bytes>(&statement).await?;
        let mut sink = std::pin::pin!(sink);
        while !bytes.is_empty() {
            let chunk = bytes.split_to(bytes.len().min(CHUNK));
            sink.send(chunk.freeze()).await?;
        }
        Ok(sink.finish().await?)
    }

    /// Marks a place to come back to.
    ///
    /// # Errors
    /// [`BulkError`].
    pub async fn mark(&mut self) -> Result<(), BulkError> {
        self.marked = (self.trail.entries.len(), self.trail.events.len());
        Ok(self.tx.batch_execute("SAVEPOINT mark").await?)
    }

    /// Keeps what was done since the mark, or undoes it; the transaction goes on either way.
    ///
    /// # Errors
    /// [`BulkError`].
    pub async fn leave_mark(&mut self, keep: bool) -> Result<(), BulkError> {
        if !keep {
            self.trail.entries.truncate(self.marked.0);
            self.trail.events.truncate(self.marked.1);
        }
        let sql = if keep {
            "RELEASE SAVEPOINT mark"
        } else {
            "ROLLBACK TO SAVEPOINT mark; RELEASE SAVEPOINT mark"
        };
        Ok(self.tx.batch_execute(sql).await?)
    }

    /// Says who acts from here on, and in what matter: a deviation's id goes from the edge to the notification.
    pub fn act_as(&mut self, actor: Actor, correlation_id: impl Into<String>) {
        self.actor = actor;
        self.correlation_id = correlation_id.into();
    }

    /// Notes a deed for the audit chain.
    pub fn audit(&mut self, deed: &Deed) {
        let entry = audit::entry(deed, &self.actor, self.at, &self.correlation_id, None);
        self.trail.entries.push(entry);
    }

    /// Notes a domain event.
    pub fn event(&mut self, event: &NewEvent) {
        self.trail.events.push(event.text(self.at, &self.correlation_id));
    }

    /// Makes it last, or with its whole, with its audit entries and events. Readings and frames are records of their own and have no
    /// entry; what people decide on (deviations, holds, lots) has one. After an error of kind [`BulkError::Unavailable`] it is not known whether it did.
    ///
    /// # Errors
    /// [`BulkError`].
    pub async fn commit(mut self) -> Result<(), BulkError> {
        if !self.trail.is_empty() {
            let Trail { entries, events } = std::mem::take(&mut self.trail);
            self.query(RECORD, &[&entries, &events]).await?;
        }
        match self.tx {
            Whole::Own(tx) => Ok(tx.commit().await?),
            Whole::Shared(tx) => Ok(tx.batch_execute("RELEASE SAVEPOINT part").await?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_data_itself_condemns_a_frame() {
        // Connection lost; read-only; disk full, out of memory, too many connections; statement timeout, admin
        // shutdown, crash shutdown, cannot connect now, database dropped; input or output error; not authorised;
        // stack depth; internal error; corruption; a class nobody knows.
        for state in [
            "08000", "08003", "08006", "25006", "53000", "53100", "53200", "53300", "57014", "57P01",
            "57P02", "57P03", "57P04", "58030", "28000", "28P01", "54001", "XX000", "XX001", "Z", "",
        ] {
            assert_eq!(advice(state), Advice::Wait, "{state}");
        }
        // No such table or column, no right, no such schema, not supported there; a lock that stays.
        for state in ["42P01", "42703", "42501", "3F000", "0A000", "55P03"] {
            assert_eq!(advice(state), Advice::SetAside, "{state}");
        }
        // Serialization failure, deadlock, object in use.
        for state in ["40001", "40P01", "40003", "55006"] {
            assert_eq!(advice(state), Advice::Repeat, "{state}");
        }
        // Zero character, time out of range, null, check, foreign key, too large for an index, a row twice.
        for state in ["22021", "22008", "23502", "23514", "23503", "54000", "21000"] {
            assert_eq!(advice(state), Advice::Refuse, "{state}");
        }
    }
}
