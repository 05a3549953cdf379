//! How do many rows get in at once? A tenant's transaction on tokio-postgres, which can COPY. It takes the
//! tenant's role as [`TenantTx`](super::tenancy::TenantTx) does, and keeps prepared statements for each tenant:
//! a statement shared by tenants would be planned anew whenever the search_path changes.

use std::{collections::HashMap, fmt};

use bytes::{Bytes, BytesMut};
use futures_util::SinkExt;
use tokio_postgres::{Client, NoTls, Row, Statement, Transaction, error::SqlState, types::ToSql};

use super::tenancy::TenantSlug;

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
        let Some(code) = error.code().map(SqlState::code) else {
            // No SQLSTATE: input or output failed, or a value does not fit its parameter.
            return if error.is_closed()
                || std::error::Error::source(&error)
                    .is_some_and(<dyn std::error::Error>::is::<std::io::Error>)
            {
                Self::Unavailable(error)
            } else {
                Self::Refused(error)
            };
        };
        match &code[..2] {
            // Bad data, broken constraint, too large for an index: the same will be refused again.
            "22" | "23" | "54" => Self::Refused(error),
            "40" | "55" => Self::Repeat(error),
            // Connection, resources, operator intervention, system error, and whatever is not known to be the
            // data's fault: nothing is given up for it.
            _ => Self::Unavailable(error),
        }
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

    /// Begins a transaction in which only `tenant`'s data can be seen; rolled back when dropped.
    ///
    /// # Errors
    /// [`BulkError`].
    pub async fn begin(&mut self, tenant: &TenantSlug) -> Result<BulkTx<'_>, BulkError> {
        let prepared = self.prepared.entry(tenant.clone()).or_default();
        let tx = self.client.transaction().await?;
        let schema = tenant.schema();
        let enter = format!("SET LOCAL ROLE {schema}; SET LOCAL search_path TO {schema}, public");
        match tx.batch_execute(&enter).await {
            Ok(()) => Ok(BulkTx { tx, prepared }),
            Err(error) => match error.code().map(SqlState::code) {
                Some("22023" | "42704" | "42501") => Err(BulkError::UnknownTenant),
                _ => Err(error.into()),
            },
        }
    }
}

/// A transaction within one tenant.
pub struct BulkTx<'a> {
    tx: Transaction<'a>,
    prepared: &'a mut Prepared,
}

impl fmt::Debug for BulkTx<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BulkTx({} statements)", self.prepared.len())
    }
}

impl BulkTx<'_> {
    async fn statement(&mut self, sql: &'static str) -> Result<Statement, BulkError> {
        if let Some(statement) = self.prepared.get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.tx.prepare(sql).await?;
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

    /// Makes it last. After an error of kind [`BulkError::Unavailable`] it is not known whether it did.
    ///
    /// # Errors
    /// [`BulkError`].
    pub async fn commit(self) -> Result<(), BulkError> {
        Ok(self.tx.commit().await?)
    }
}
