//! What is an edge asked to do, and what became of it? Commands are rows before they are messages: they outlive the
//! hub and the edge's connection, and are sent (`dispatch`) until the edge's own answer is stored.

use axum::{Json as Answer, extract::State, http::StatusCode};
use chrono::{DateTime, Duration, Utc};
use protocol::{
    Micros,
    alarm::{AlarmAction, AlarmVerb},
    command::{self, Command, Order},
    envelope::ENVELOPE_BYTES_MAX,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::FromRow;
use utoipa::ToSchema;
use uuid::Uuid;

use super::TAG;
use crate::{
    app::App,
    error::{Error, Result},
    kernel::{
        audit::Deed,
        bulk::{BulkError, BulkTx},
        caller::Caller,
        clock::time_from_us,
        permission::Permission,
        reply::Reply,
        tenancy::{TenantSlug, TenantTx},
    },
    request::{Json, ListQuery, Page, Path, Query, Rows},
    series::bus::LiveKind,
};

/// A replay that nobody answered within this time is asked for again by a person, or not at all.
const REPLAY_VALID_DAYS: i64 = 30;
/// What somebody saw of an alarm is old after this.
const ALARM_VALID_HOURS: i64 = 24;
const NAME_CHARS_MAX: usize = 200;
const REASON_CHARS_MAX: usize = 500;

// === a command before it is stored ===

/// A command with the bytes that are published.
#[derive(Clone, Debug)]
pub struct NewCommand {
    /// Its identity.
    pub id: Uuid,
    edge_id: Uuid,
    kind: &'static str,
    summary: Value,
    payload: Vec<u8>,
    issued_by: String,
    issued_at: DateTime<Utc>,
    expires_at: Option<DateTime<Utc>>,
}

/// The command would not fit into one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the command has {bytes} bytes when packed; a message carries at most {ENVELOPE_BYTES_MAX}: make it smaller"
)]
pub struct TooLarge {
    /// Its size.
    pub bytes: usize,
}

const INSERT: &str = "
INSERT INTO edge_command (id, edge_id, kind, summary, payload, issued_by, issued_at, expires_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";

impl NewCommand {
    /// A command of `by` to an edge, given at `now`; none for `valid` means that it never grows old.
    ///
    /// # Errors
    /// [`TooLarge`].
    pub fn new(
        edge_id: Uuid,
        order: Order,
        by: &str,
        now: DateTime<Utc>,
        valid: Option<Duration>,
    ) -> std::result::Result<Self, TooLarge> {
        let (id, expires_at) = (Uuid::now_v7(), valid.map(|valid| now + valid));
        let (kind, summary) = (order.kind(), summary(&order));
        let payload = command::encode(&Command {
            id,
            issued_us: now.timestamp_micros(),
            expires_us: expires_at.map(|at| at.timestamp_micros()),
            by: by.to_owned(),
            order,
        });
        if payload.len() > ENVELOPE_BYTES_MAX {
            return Err(TooLarge { bytes: payload.len() });
        }
        Ok(Self {
            id,
            edge_id,
            kind,
            summary,
            payload,
            issued_by: by.to_owned(),
            issued_at: now,
            expires_at,
        })
    }

    /// Stores it in a person's transaction, which says in the audit chain what it is for.
    ///
    /// # Errors
    /// When the database does not take it.
    pub async fn store(&self, tx: &mut TenantTx) -> Result<EdgeCommand> {
        sqlx::query(INSERT)
            .bind(self.id)
            .bind(self.edge_id)
            .bind(self.kind)
            .bind(&self.summary)
            .bind(&self.payload)
            .bind(&self.issued_by)
            .bind(self.issued_at)
            .bind(self.expires_at)
            .execute(tx.conn())
            .await?;
        find(tx, self.id).await
    }

    /// Stores it in a transaction of ingest.
    ///
    /// # Errors
    /// [`BulkError`].
    pub async fn store_bulk(&self, tx: &mut BulkTx<'_>) -> std::result::Result<(), BulkError> {
        tx.execute(
            INSERT,
            &[
                &self.id,
                &self.edge_id,
                &self.kind,
                &self.summary,
                &self.payload,
                &self.issued_by,
                &self.issued_at,
                &self.expires_at,
            ],
        )
        .await?;
        Ok(())
    }
}

/// What it asks for, for people; never the text of a configuration, which may hold passwords.
fn summary(order: &Order) -> Value {
    match order {
        Order::Configure { revision, toml } => json!({ "revision": revision, "bytes": toml.len() }),
        Order::SetLimits { revision, limits } => json!({ "revision": revision, "limits": limits }),
        Order::Alarm(action) => json!(action),
        Order::Replay { from_us, to_us } => json!({ "from_us": from_us, "to_us": to_us }),
        Order::Update { manifest, .. } => {
            let manifest: Value = serde_json::from_slice(manifest).unwrap_or_default();
            json!({ "version": manifest["version"], "target": manifest["target"], "sha256": manifest["sha256"] })
        }
        Order::Certificate { .. } => json!({}),
    }
}

// === the API ===

/// What became of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CommandState {
    /// Not sent yet: the edge was not connected.
    Waiting,
    /// Sent at least once, and not answered.
    Sent,
    /// Done.
    Done,
    /// There was nothing to do.
    AlreadySo,
    /// Not done; `reason` says why.
    Refused,
    /// Done, found not to work, and undone; `reason` says why.
    RolledBack,
    /// Nobody answered in time.
    Expired,
    /// A later one took its place before it was answered.
    Superseded,
}

/// A command to an edge.
#[derive(Debug, Serialize, FromRow, ToSchema)]
pub struct EdgeCommand {
    /// Stable id.
    pub id: Uuid,
    /// `configure`, `set_limits`, `alarm`, `replay`, `update` or `certificate`.
    pub kind: String,
    /// What it asks for.
    #[schema(value_type = Object)]
    pub summary: Value,
    /// Who gave it, by name.
    pub issued_by: String,
    /// When.
    pub issued_us: Micros,
    /// Until when it may be done; null when it never grows old.
    pub expires_us: Option<Micros>,
    /// What became of it.
    #[schema(value_type = CommandState)]
    pub state: String,
    /// Why it was not done, in the edge's words.
    pub reason: Option<String>,
    /// How often it was sent.
    pub attempts: i32,
    /// When it was answered.
    pub answered_us: Option<Micros>,
}

const SELECT: &str = "
SELECT c.id, c.kind, c.summary, c.issued_by, (extract(epoch FROM c.issued_at) * 1000000)::bigint AS issued_us,
    (extract(epoch FROM c.expires_at) * 1000000)::bigint AS expires_us, c.state, c.reason, c.attempts,
    (extract(epoch FROM c.answered_at) * 1000000)::bigint AS answered_us
FROM edge_command c";

async fn find(tx: &mut TenantTx, id: Uuid) -> Result<EdgeCommand> {
    let sql = format!("{SELECT} WHERE c.id = $1");
    let found = sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(id);
    Ok(found.fetch_one(tx.conn()).await?)
}

const UNKNOWN: Error = Error::NotFound { entity: "edge" };

/// The id of an edge, whose row stays locked: what is counted up for it is counted by one at a time.
///
/// # Errors
/// [`Error::NotFound`]; [`Error::Conflict`] when it is shut out.
pub(super) async fn lock_edge(tx: &mut TenantTx, name: &str) -> Result<Uuid> {
    // What is no name is nobody's: it would not even be a value that the database can hold.
    if !protocol::topic::is_name(name) {
        return Err(UNKNOWN);
    }
    let found: Option<(Uuid, bool)> =
        sqlx::query_as("SELECT id, revoked_at IS NOT NULL FROM edge WHERE name = $1 FOR NO KEY UPDATE")
            .bind(name)
            .fetch_optional(tx.conn())
            .await?;
    match found.ok_or(UNKNOWN)? {
        (_, true) => Err(Error::Conflict(
            "the edge is revoked; enrol it again before it is sent anything".to_owned(),
        )),
        (id, false) => Ok(id),
    }
}

/// The id of an edge.
///
/// # Errors
/// [`Error::NotFound`].
pub(super) async fn edge_id(tx: &mut TenantTx, name: &str) -> Result<Uuid> {
    if !protocol::topic::is_name(name) {
        return Err(UNKNOWN);
    }
    let found = sqlx::query_scalar("SELECT id FROM edge WHERE name = $1").bind(name);
    found.fetch_optional(tx.conn()).await?.ok_or(UNKNOWN)
}

/// Tells live pages, and whoever sends commands, that there is news of an edge.
pub(crate) fn ring(app: &App, tenant: &TenantSlug, edge: &str) {
    let kind = LiveKind::Edge {
        name: edge.to_owned(),
    };
    app.live.publish(tenant, app.clock.now_us(), kind);
}

/// What can be done about an alarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AlarmDeed {
    /// Seen, and being dealt with.
    Acknowledge,
    /// Hide it until `until_us`.
    Shelve,
    /// End the shelving now.
    Unshelve,
    /// Release a latched alarm.
    Reset,
    /// Out of service for maintenance.
    TakeOutOfService,
    /// Back into service.
    ReturnToService,
}

/// What an edge is asked to do. Configurations, limits and updates have operations of their own.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum NewEdgeCommand {
    /// Send again what was sealed in this time and is still on its disk. What is stored already is not stored twice.
    Replay {
        /// First seal time.
        from_us: Micros,
        /// Last seal time.
        to_us: Micros,
    },
    /// Do something about an alarm. The edge decides; what it refuses is on record. Alarms of critical limits are
    /// shelved at the line only, where two people can sign.
    Alarm {
        /// Code of the alarm, as its edge names it.
        code: String,
        /// What the alarm is about.
        subject: String,
        /// What.
        deed: AlarmDeed,
        /// End of a shelving.
        until_us: Option<Micros>,
        /// Why.
        reason: String,
    },
}

fn checked_text(name: &str, text: &str, chars_max: usize) -> Result<()> {
    let is_fit = (1..=chars_max).contains(&text.chars().count()) && !text.contains(char::is_control);
    if is_fit {
        return Ok(());
    }
    Err(Error::Invalid(format!(
        "`{name}` must be text of 1 to {chars_max} characters"
    )))
}

fn verb(deed: AlarmDeed, until_us: Option<Micros>, now_us: Micros) -> Result<AlarmVerb> {
    Ok(match (deed, until_us) {
        (AlarmDeed::Shelve, Some(until_us)) if until_us > now_us => AlarmVerb::Shelve { until_us },
        (AlarmDeed::Shelve, _) => {
            return Err(Error::Invalid(
                "`until_us` must be given, and be later than now, to shelve".to_owned(),
            ));
        }
        (_, Some(_)) => return Err(Error::Invalid("`until_us` is for `shelve` only".to_owned())),
        (AlarmDeed::Acknowledge, None) => AlarmVerb::Acknowledge,
        (AlarmDeed::Unshelve, None) => AlarmVerb::Unshelve,
        (AlarmDeed::Reset, None) => AlarmVerb::Reset,
        (AlarmDeed::TakeOutOfService, None) => AlarmVerb::TakeOutOfService,
        (AlarmDeed::ReturnToService, None) => AlarmVerb::ReturnToService,
    })
}

/// The order, and for how long it is worth doing.
fn order(new: NewEdgeCommand, by: &str, now_us: Micros) -> Result<(Order, Duration)> {
    match new {
        NewEdgeCommand::Replay { from_us, to_us } if from_us > to_us => {
            Err(Error::Invalid("`from_us` must not be after `to_us`".to_owned()))
        }
        NewEdgeCommand::Replay { from_us, to_us } => {
            let valid = Duration::days(REPLAY_VALID_DAYS);
            Ok((Order::Replay { from_us, to_us }, valid))
        }
        NewEdgeCommand::Alarm {
            code,
            subject,
            deed,
            until_us,
            reason,
        } => {
            checked_text("code", &code, NAME_CHARS_MAX)?;
            checked_text("subject", &subject, NAME_CHARS_MAX)?;
            checked_text("reason", &reason, REASON_CHARS_MAX)?;
            let action = AlarmAction {
                id: Uuid::now_v7(),
                code,
                subject,
                at_us: now_us,
                by: by.to_owned(),
                second: None,
                reason,
                verb: verb(deed, until_us, now_us)?,
            };
            Ok((Order::Alarm(action), Duration::hours(ALARM_VALID_HOURS)))
        }
    }
}

/// Asks an edge to send again, or to act on an alarm. It is sent as soon as the edge is connected, and again until the edge answers.
#[utoipa::path(post, path = "/edges/{name}/commands", operation_id = "create_edge_command", tag = TAG, security(("bearer" = ["edge.command"])),
    params(("name" = String, Path, description = "Edge")), request_body = NewEdgeCommand,
    responses((status = 201, description = "Kept, to be sent", body = EdgeCommand)))]
pub async fn create_edge_command(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
    Json(new): Json<NewEdgeCommand>,
) -> Result<Reply> {
    let mut tx = caller.begin(&app, Permission::EdgeCommand).await?;
    let edge_id = lock_edge(&mut tx, &name).await?;
    let (by, now_us) = (tx.actor().display(), app.clock.now_us());
    let (order, valid) = order(new, &by, now_us)?;
    let command = NewCommand::new(edge_id, order, &by, time_from_us(now_us), Some(valid))?;
    let stored = command.store(&mut tx).await?;
    tx.audit(&Deed::on("command", "edge_command", stored.id).after(&stored));
    let reply = tx.finish(StatusCode::CREATED, &stored).await?;
    ring(&app, &caller.tenant, &name);
    Ok(reply)
}

impl From<TooLarge> for Error {
    fn from(error: TooLarge) -> Self {
        Self::Invalid(error.to_string())
    }
}

/// Lists what an edge was asked to do, newest first, and what became of it.
#[utoipa::path(get, path = "/edges/{name}/commands", operation_id = "list_edge_commands", tag = TAG, security(("bearer" = ["edge.read"])),
    params(("name" = String, Path, description = "Edge"), ListQuery), responses((status = 200, description = "Commands", body = Page<EdgeCommand>)))]
pub async fn list_edge_commands(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
    Query(query): Query<ListQuery>,
) -> Result<Answer<Page<EdgeCommand>>> {
    let rows = Rows::parse(query.limit)?;
    let mut tx = caller.begin(&app, Permission::EdgeRead).await?;
    let edge_id = edge_id(&mut tx, &name).await?;
    let sql = format!(
        "{SELECT} WHERE c.edge_id = $1 AND ($2::uuid IS NULL OR c.id < $2) ORDER BY c.id DESC LIMIT $3"
    );
    let found: Vec<EdgeCommand> = sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(edge_id)
        .bind(query.cursor)
        .bind(rows.fetched())
        .fetch_all(tx.conn())
        .await?;
    Ok(Answer(Page::of(found, rows, |it: &EdgeCommand| {
        it.id.to_string()
    })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_of_a_configuration_does_not_hold_it() {
        let order = Order::Configure {
            revision: 3,
            toml: "password = \"hunter2\"".to_owned(),
        };
        let made = NewCommand::new(Uuid::nil(), order, "avery", DateTime::UNIX_EPOCH, None).unwrap();
        assert!(!made.summary.to_string().contains("hunter2"));
        assert_eq!((made.kind, &made.summary["revision"]), ("configure", &json!(3)));
        let sent = command::decode(&made.payload).unwrap();
        assert_eq!((sent.id, sent.expires_us), (made.id, None));
    }

    #[test]
    fn an_order_that_no_message_can_carry_is_refused_before_it_is_stored() {
        let mut noise = 1u64;
        let toml = std::iter::repeat_with(|| {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            char::from(b'!' + (noise >> 58) as u8)
        });
        let order = Order::Configure {
            revision: 1,
            toml: toml.take(2 * ENVELOPE_BYTES_MAX).collect(),
        };
        let refused = NewCommand::new(Uuid::nil(), order, "avery", DateTime::UNIX_EPOCH, None);
        assert!(refused.is_err_and(|error| error.bytes > ENVELOPE_BYTES_MAX));
    }

    #[test]
    fn only_a_shelving_has_an_end_and_it_is_still_to_come() {
        assert!(verb(AlarmDeed::Shelve, Some(2), 1).is_ok());
        for (deed, until_us) in [
            (AlarmDeed::Shelve, None),
            (AlarmDeed::Shelve, Some(1)),
            (AlarmDeed::Acknowledge, Some(2)),
        ] {
            assert!(verb(deed, until_us, 1).is_err(), "{deed:?} {until_us:?}");
        }
    }
}
