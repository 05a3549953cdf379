//! How does a letter leave the hub? A duty takes what is due, hands it to the configured SMTP server, tries again
//! with growing pauses, and erases what it sent. Without a server the letters wait, and a metric counts them.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use lettre::{
    AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor,
    message::{Mailbox, header::ContentType},
};
use sqlx::FromRow;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::mail::{Written, letter_of, recipient_of};
use crate::{
    app::App,
    config::Mail,
    kernel::{
        audit::Actor,
        tenancy::{TenancyError, TenantSlug, TenantTx},
    },
    tenant::provision,
};

/// All tenants are looked at this often; new mail is sent at once.
const SWEEP: Duration = Duration::from_secs(30);
const SMTP_TIMEOUT: Duration = Duration::from_secs(20);
/// A hub that took a message and died leaves it to the others after this time.
const LEASE: TimeDelta = TimeDelta::minutes(2);
const PAUSE_FIRST: TimeDelta = TimeDelta::seconds(10);
const PAUSE_LONGEST: TimeDelta = TimeDelta::hours(1);

/// The way to the SMTP server.
#[derive(Clone, Debug)]
pub struct Post {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
}

impl Post {
    /// As configured; `None` without a server.
    ///
    /// # Errors
    /// A server or sender that cannot be one. The URL, which may hold a password, is not shown.
    pub fn of(mail: &Mail) -> anyhow::Result<Option<Self>> {
        let (Some(url), Some(from)) = (&mail.smtp_url, &mail.from) else {
            return Ok(None);
        };
        let builder = AsyncSmtpTransport::<Tokio1Executor>::from_url(url.expose()).map_err(|_| {
            anyhow::anyhow!("mail.smtp_url: write smtps://user:password@host or smtp://host:port")
        })?;
        let from = from.parse().map_err(|_| {
            anyhow::anyhow!("mail.from: `{from}` is no sender; write Name <name@example.com>")
        })?;
        Ok(Some(Self {
            transport: builder.timeout(Some(SMTP_TIMEOUT)).build(),
            from,
        }))
    }

    async fn send(&self, id: Uuid, to: &str, written: Written) -> Result<(), Failure> {
        let to = to.parse().map_err(|_| Failure::for_good("the address is none"))?;
        let message = Message::builder()
            .from(self.from.clone())
            .to(Mailbox::new(None, to))
            .subject(written.subject)
            // The same in every attempt: a server that got it twice can tell.
            .message_id(Some(format!("<{id}@{}>", self.from.email.domain())))
            .header(ContentType::TEXT_PLAIN)
            .body(written.text)
            .map_err(|_| Failure::for_good("no letter can be made of it"))?;
        match self.transport.send(message).await {
            Ok(_) => Ok(()),
            Err(error) => Err(Failure::of(&error)),
        }
    }
}

/// Why a letter was not taken; never what the server said, which may repeat the address.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Failure {
    words: String,
    is_final: bool,
}

impl Failure {
    fn for_good(words: &str) -> Self {
        Self {
            words: words.to_owned(),
            is_final: true,
        }
    }

    fn of(error: &lettre::transport::smtp::Error) -> Self {
        let words = match error.status() {
            Some(code) => format!("the server answered {code}"),
            None if error.is_timeout() => "the server did not answer in time".to_owned(),
            None if error.is_tls() => "no TLS with the server".to_owned(),
            None => "the server cannot be reached".to_owned(),
        };
        Self {
            words,
            is_final: error.is_permanent(),
        }
    }
}

/// Runs until `stop` is cancelled.
pub async fn run(app: App, post: Option<Post>, stop: CancellationToken) {
    let mut sweeps = interval(SWEEP);
    sweeps.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let tenants = tokio::select! {
            () = stop.cancelled() => return,
            tenants = app.mail.rung() => Ok(tenants.into_iter().collect()),
            _ = sweeps.tick() => every_tenant(&app).await,
        };
        let looked = match tenants {
            Ok(tenants) => tokio::select! {
                () = stop.cancelled() => return,
                looked = look_after(&app, post.as_ref(), tenants) => looked,
            },
            Err(error) => Err(error),
        };
        if let Err(error) = looked {
            tracing::warn!(%error, "mail waits for the database");
        }
    }
}

async fn every_tenant(app: &App) -> Result<Vec<TenantSlug>, TenancyError> {
    let mut tx = app.db.platform().await?;
    let tenants = provision::tenants(tx.conn()).await?;
    Ok(tenants.into_iter().map(|tenant| tenant.slug).collect())
}

async fn look_after(app: &App, post: Option<&Post>, tenants: Vec<TenantSlug>) -> Result<(), TenancyError> {
    for tenant in tenants {
        let waiting = match post {
            Some(post) => deliver(app, post, &tenant).await,
            None => count(app, &tenant).await,
        };
        match waiting {
            Ok(waiting) => {
                #[expect(clippy::cast_precision_loss, reason = "a gauge of letters needs no 53 bits")]
                metrics::gauge!("foodflow_mail_waiting", "tenant" => tenant.to_string()).set(waiting as f64);
                if waiting > 0 && post.is_none() {
                    tracing::warn!(%tenant, waiting, "mail waits: no SMTP server is configured (mail.smtp_url)");
                }
            }
            // One tenant that is not migrated keeps nobody else's mail.
            Err(TenancyError::NotMigrated(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[derive(FromRow)]
struct Due {
    id: Uuid,
    recipient: Vec<u8>,
    letter: Vec<u8>,
    attempts: i32,
}

/// Sends what is due, one by one; says how many letters still wait.
async fn deliver(app: &App, post: &Post, tenant: &TenantSlug) -> Result<i64, TenancyError> {
    while let Some(due) = take_one(app, tenant).await? {
        let sent = match open(app, &due) {
            Some((to, written)) => post.send(due.id, &to, written).await,
            None => Err(Failure::for_good(
                "it cannot be opened: was sealing.key replaced?",
            )),
        };
        let outcome = if sent.is_ok() { "sent" } else { "failed" };
        metrics::counter!("foodflow_mail_attempts_total", "outcome" => outcome).increment(1);
        if let Err(failure) = &sent {
            tracing::warn!(%tenant, mail_id = %due.id, attempt = due.attempts, reason = failure.words, "a mail was not sent");
        }
        settle(app, tenant, &due, sent).await?;
    }
    count(app, tenant).await
}

fn open(app: &App, due: &Due) -> Option<(String, Written)> {
    let to = app.sealing_key.open(&recipient_of(due.id), &due.recipient).ok()?;
    let letter = app.sealing_key.open(&letter_of(due.id), &due.letter).ok()?;
    Some((String::from_utf8(to).ok()?, serde_json::from_slice(&letter).ok()?))
}

async fn begin(app: &App, tenant: &TenantSlug) -> Result<TenantTx, TenancyError> {
    app.db.begin_as(tenant, Actor::Hub { duty: "mail" }).await
}

/// Takes one letter that is due, for as long as the lease; gives up those whose time has passed.
async fn take_one(app: &App, tenant: &TenantSlug) -> Result<Option<Due>, TenancyError> {
    let mut tx = begin(app, tenant).await?;
    let now = tx.at();
    sqlx::query(
        "UPDATE mail_message SET state = 'failed', recipient = NULL, letter = NULL, \
           last_error = coalesce(last_error, 'not sent in time') WHERE state = 'waiting' AND expires_at <= $1",
    )
    .bind(now)
    .execute(tx.conn())
    .await?;
    let due = sqlx::query_as(
        "UPDATE mail_message SET attempts = attempts + 1, next_at = $2 WHERE id = (SELECT id FROM mail_message \
           WHERE state = 'waiting' AND next_at <= $1 ORDER BY next_at LIMIT 1 FOR UPDATE SKIP LOCKED) \
         RETURNING id, recipient, letter, attempts",
    )
    .bind(now)
    .bind(now + LEASE)
    .fetch_optional(tx.conn())
    .await?;
    tx.commit_unaudited("that a letter is on its way is a state; why it was written is audited")
        .await?;
    Ok(due)
}

async fn settle(
    app: &App,
    tenant: &TenantSlug,
    due: &Due,
    sent: Result<(), Failure>,
) -> Result<(), TenancyError> {
    let mut tx = begin(app, tenant).await?;
    let now = tx.at();
    let (state, words, next_at) = outcome(sent, due.attempts, now);
    sqlx::query(
        "UPDATE mail_message SET state = $2, last_error = $3, next_at = $4, \
           sent_at = CASE WHEN $2 = 'sent' THEN $5 END, \
           recipient = CASE WHEN $2 = 'waiting' THEN recipient END, \
           letter = CASE WHEN $2 = 'waiting' THEN letter END \
         WHERE id = $1 AND state = 'waiting'",
    )
    .bind(due.id)
    .bind(state)
    .bind(words)
    .bind(next_at)
    .bind(now)
    .execute(tx.conn())
    .await?;
    tx.commit_unaudited("that a letter was sent is a state; why it was written is audited")
        .await
}

/// What becomes of a letter after an attempt: its state, what is said of it, and when it is tried again.
fn outcome(
    sent: Result<(), Failure>,
    attempts: i32,
    now: DateTime<Utc>,
) -> (&'static str, Option<String>, DateTime<Utc>) {
    match sent {
        Ok(()) => ("sent", None, now),
        Err(failure) if failure.is_final => ("failed", Some(failure.words), now),
        Err(failure) => ("waiting", Some(failure.words), now + pause(attempts)),
    }
}

/// 10 s, 20 s, 40 s … an hour.
fn pause(attempts: i32) -> TimeDelta {
    let doublings = attempts.clamp(1, 12) - 1;
    (PAUSE_FIRST * (1 << doublings)).min(PAUSE_LONGEST)
}

async fn count(app: &App, tenant: &TenantSlug) -> Result<i64, TenancyError> {
    let mut tx = begin(app, tenant).await?;
    Ok(
        sqlx::query_scalar("SELECT count(*) FROM mail_message WHERE state = 'waiting'")
            .fetch_one(tx.conn())
            .await?,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::secret::Secret;

    #[test]
    fn what_may_pass_is_tried_again_with_growing_pauses_and_what_is_refused_is_not() {
        let now = DateTime::from_timestamp(1_000, 0).unwrap();
        let away = Failure {
            words: "away".to_owned(),
            is_final: false,
        };
        let (state, _, next_at) = outcome(Err(away), 3, now);
        assert_eq!((state, next_at), ("waiting", now + TimeDelta::seconds(40)));
        assert_eq!(outcome(Err(Failure::for_good("no")), 1, now).0, "failed");
        assert_eq!(outcome(Ok(()), 1, now).0, "sent");
        assert_eq!(pause(1), PAUSE_FIRST);
        assert_eq!(pause(i32::MAX), PAUSE_LONGEST);
    }

    #[tokio::test]
    async fn a_server_that_cannot_be_one_is_said_at_the_start_without_its_password() {
        let mail = |url: &str, from: &str| Mail {
            smtp_url: Some(Secret::new(url)),
            from: Some(from.to_owned()),
        };
        let hub = "Hub <hub@plant.example>";
        assert!(Post::of(&mail("smtp://127.0.0.1:25", hub)).unwrap().is_some());
        assert!(
            Post::of(&mail("smtps://u:hunter2@mail.plant.example", hub))
                .unwrap()
                .is_some()
        );
        let said = Post::of(&mail("http://u:hunter2@x", hub))
            .unwrap_err()
            .to_string();
        assert!(
            said.contains("mail.smtp_url") && !said.contains("hunter2"),
            "{said}"
        );
        assert!(Post::of(&mail("smtp://127.0.0.1:25", "no sender")).is_err());
    }
}
