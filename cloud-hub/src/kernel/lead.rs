//! Which of several hubs does what only one may do at a time? Whoever holds a lock in the database, for as long as the
//! connection that took it lives: a hub that dies, hangs or loses its way to the database holds nothing.

use std::{fmt, time::Duration};

use tokio::{task::JoinHandle, time};
use tokio_postgres::{Client, Config, NoTls};

/// How often a hub that does not hold it tries to.
const TAKE_EVERY: Duration = Duration::from_secs(1);
/// How often the holder makes sure of its connection.
const ASK_EVERY: Duration = Duration::from_secs(2);
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// The server ends a holder's connection that says nothing for so long: its machine is gone.
const SILENCE: &str = "SET idle_session_timeout = '20s'";

/// The lock, held.
pub struct Lead {
    client: Client,
    connection: JoinHandle<()>,
}

impl fmt::Debug for Lead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lead")
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Lead {
    /// Waits until the lock of this name is its own, over one connection however long another hub holds it.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn take(config: &Config, name: &str) -> Result<Self, tokio_postgres::Error> {
        let mut config = config.clone();
        // A server whose machine is gone fails the question instead of leaving it open for a quarter of an hour.
        let (client, connection) = config
            .connect_timeout(ANSWER_WITHIN)
            .tcp_user_timeout(ANSWER_WITHIN)
            .connect(NoTls)
            .await?;
        let connection = tokio::spawn(async move { drop(connection.await) });
        let lead = Self { client, connection };
        lead.client.batch_execute(SILENCE).await?;
        let ask = "SELECT pg_try_advisory_lock(hashtextextended('lead ' || $1, 0))";
        let ask = lead.client.prepare(ask).await?;
        while !lead.client.query_one(&ask, &[&name]).await?.get::<_, bool>(0) {
            time::sleep(TAKE_EVERY).await;
        }
        Ok(lead)
    }

    /// Ends when it cannot be shown any more that the lock is held.
    pub async fn lost(&self) {
        loop {
            time::sleep(ASK_EVERY).await;
            let asked = time::timeout(ANSWER_WITHIN, self.client.simple_query("SELECT 1")).await;
            if !matches!(asked, Ok(Ok(_))) {
                return;
            }
        }
    }
}
