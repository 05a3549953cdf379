//! What do other hubs of this database tell? A connection that listens and does nothing else: it has no tenant, reads no
//! table of any, and what it hears are names and ids.

use std::time::Duration;

use sqlx::postgres::{PgListener, PgPoolOptions};
use tokio::time::timeout;

use super::database::Target;

const CHANNEL: &str = "foodflow_live";
/// Connections that listen are called so, besides the hub's own mark.
const LISTENS_AS: &str = "foodflow-live:";
/// A database that does not answer for so long is away.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// A hub's way to listen.
#[derive(Debug)]
pub struct Ear {
    target: Target,
    own: String,
    listens_as: String,
}

/// A connection that listens.
#[derive(Debug)]
pub struct Hearing(PgListener);

impl Ear {
    /// Of the hub of that name, which its writers' connections bear.
    pub fn new(target: &Target, own: &str) -> Self {
        let mark = own.rsplit(':').next().unwrap_or_default();
        Self {
            target: target.clone(),
            own: own.to_owned(),
            listens_as: format!("{LISTENS_AS}{mark}"),
        }
    }

    /// The hub's name.
    pub fn own(&self) -> &str {
        &self.own
    }

    /// Listens from now on.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn listen(&self) -> Result<Hearing, sqlx::Error> {
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .max_lifetime(None)
            .idle_timeout(None)
            .acquire_timeout(ANSWER_WITHIN)
            .connect_lazy_with(self.target.requests.clone().application_name(&self.listens_as));
        let connecting = async {
            let mut listener = PgListener::connect_with(&pool).await?;
            listener.eager_reconnect(false);
            listener.listen(CHANNEL).await?;
            Ok(Hearing(listener))
        };
        timeout(ANSWER_WITHIN, connecting)
            .await
            .map_err(|_| sqlx::Error::PoolTimedOut)?
    }

    /// Whether another hub listens too. An answer shows that the connection lives.
    ///
    /// # Errors
    /// When there is none.
    pub async fn has_others(&self, hearing: &mut Hearing) -> Result<bool, sqlx::Error> {
        let asked = sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() \
               AND starts_with(application_name, $1) AND application_name <> $2)",
        )
        .bind(LISTENS_AS)
        .bind(&self.listens_as)
        .fetch_one(&mut hearing.0);
        timeout(ANSWER_WITHIN, asked)
            .await
            .map_err(|_| sqlx::Error::PoolTimedOut)?
    }
}

impl Hearing {
    /// The next that is told.
    ///
    /// # Errors
    /// When the connection is lost.
    pub async fn next(&mut self) -> Result<String, sqlx::Error> {
        let heard = self.0.try_recv().await?.ok_or(sqlx::Error::PoolClosed)?;
        Ok(heard.payload().to_owned())
    }

    /// What was told already and not heard yet.
    pub fn at_hand(&mut self) -> Option<String> {
        self.0.next_buffered().map(|heard| heard.payload().to_owned())
    }
}
