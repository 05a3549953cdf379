//! What do an edge's answers, alarm states, manual entries, clock steps and certificate requests become? Rows of
//! their own, ordered by frame and place in it, never by a clock that may be wrong.

use chrono::{DateTime, Utc};
use protocol::{
    alarm::{AlarmCause, AlarmChange},
    command::{CommandOutcome, CommandResult, Order},
    event::{CertificateRequest, ClockStep, ManualEntry},
};
use serde_json::json;
use uuid::Uuid;

use super::frame::Resolved;
use crate::{
    alarm::state,
    edges::{authority::DeviceAuthority, command::NewCommand},
    kernel::{
        audit::{Actor, Deed},
        bulk::{BulkError, BulkTx},
        clock::time_from_us,
        event::NewEvent,
        tenancy::TenantSlug,
    },
    tenant::enrolment::ISSUED,
};

/// A certificate that nobody fetched within this time is asked for again.
const CERTIFICATE_VALID_DAYS: i64 = 30;

/// What answering a certificate request takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Issuing<'a> {
    pub(super) tenant: &'a TenantSlug,
    pub(super) authority: &'a DeviceAuthority,
    pub(super) now: DateTime<Utc>,
}

/// An event's place: frame and number in it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    pub(super) from: &'a Resolved<'a>,
    pub(super) number: i32,
}

impl Place<'_> {
    fn lane(&self) -> i16 {
        i16::from(self.from.frame.header.id.lane.number())
    }

    fn seq(&self) -> i64 {
        self.from.frame.header.id.seq.cast_signed()
    }

    fn boot(&self) -> Uuid {
        self.from.frame.header.id.boot
    }

    /// From here on it is the edge that acts.
    fn act(&self, tx: &mut BulkTx<'_>, about: impl Into<String>) {
        let name = self.from.edge.to_owned();
        tx.act_as(Actor::Edge { name }, about);
    }
}

type Filed = Result<Result<(), String>, BulkError>;

// === answers to commands ===

const ANSWERED: &str = "
UPDATE edge_command SET state = $3, reason = $4, answered_at = $5
WHERE id = $1 AND edge_id = $2 AND (answered_at IS NULL OR state = 'already_so') RETURNING kind";

const CONFIGURED: &str = "
UPDATE edge_config SET state = $2, reason = $3 WHERE command_id = $1";

/// An edge that is sent a command twice answers twice; the first answer that says what was done stands.
pub(super) async fn store_result(tx: &mut BulkTx<'_>, place: Place<'_>, result: &CommandResult) -> Filed {
    let (state, config_state, reason) = match &result.outcome {
        CommandOutcome::Done => ("done", "applied", None),
        CommandOutcome::AlreadySo => ("already_so", "applied", None),
        CommandOutcome::Refused { reason } => ("refused", "refused", Some(reason)),
        CommandOutcome::RolledBack { reason } => ("rolled_back", "rolled_back", Some(reason)),
    };
    let at = time_from_us(result.at_us);
    let edge_id = place.from.edge_id;
    let answered = tx
        .query(ANSWERED, &[&result.id, &edge_id, &state, &reason, &at])
        .await?;
    let Some(row) = answered.first() else {
        let known = tx
            .query(
                "SELECT 1 FROM edge_command WHERE id = $1 AND edge_id = $2",
                &[&result.id, &edge_id],
            )
            .await?;
        return Ok(if known.is_empty() {
            Err(format!("no command {} was given to this edge", result.id))
        } else {
            Ok(())
        });
    };
    let kind: String = row.get(0);
    if kind == "configure" {
        tx.execute(CONFIGURED, &[&result.id, &config_state, &reason])
            .await?;
    }
    place.act(tx, result.id.to_string());
    let told = json!({ "edge": place.from.edge, "kind": kind, "state": state, "reason": reason });
    tx.audit(&Deed::on("answer", "edge_command", result.id).after(&told));
    tx.event(&NewEvent::new(
        "EdgeCommandAnswered",
        "edge_command",
        result.id,
        told,
    ));
    Ok(Ok(()))
}

// === alarm states ===

const JOURNAL: &str = "
INSERT INTO alarm_change (edge_id, boot, lane, seq, place, alarm_id, line_id, code, subject, at, from_state, to_state,
    cause, actor, is_active, priority, value, limit_version)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18) ON CONFLICT DO NOTHING";

/// The row of the alarm itself is usually there: the alarm was told before its state. Within a boot an older frame
/// changes nothing.
const STATE: &str = "
INSERT INTO alarm AS a (id, edge_id, line_id, code, subject, message, raised_at, cleared_at, state, state_at,
    state_boot, state_seq, is_active, priority)
VALUES ($1, $2, $3, $4, $5, '', CASE WHEN $9 THEN $7::timestamptz END, CASE WHEN NOT $9 THEN $7::timestamptz END,
    $6, $7, $8, $10, $9, $11)
ON CONFLICT (id) DO UPDATE SET state = excluded.state, state_at = excluded.state_at,
    state_boot = excluded.state_boot, state_seq = excluded.state_seq, is_active = excluded.is_active,
    priority = excluded.priority,
    cleared_at = coalesce(a.cleared_at, excluded.cleared_at), version = a.version + 1
WHERE a.edge_id = excluded.edge_id
    AND (a.state_boot IS DISTINCT FROM excluded.state_boot OR a.state_seq <= excluded.state_seq)";

/// Keeps a change, refused actions too, and moves the alarm to its state.
pub(super) async fn store_change(
    tx: &mut BulkTx<'_>,
    place: Place<'_>,
    line_id: Option<Uuid>,
    change: &AlarmChange,
) -> Filed {
    let action = match &change.cause {
        AlarmCause::Action(action) | AlarmCause::Refused { action, .. } => Some(action),
        AlarmCause::Condition | AlarmCause::ShelvingExpired | AlarmCause::Process => None,
    };
    let (edge_id, at) = (place.from.edge_id, time_from_us(change.at_us));
    let cause = json!(change.cause);
    let priority = i16::from(change.priority);
    let version = change.limit_version.map(u32::cast_signed);
    tx.execute(
        JOURNAL,
        &[
            &edge_id,
            &place.boot(),
            &place.lane(),
            &place.seq(),
            &place.number,
            &change.id,
            &line_id,
            &change.code,
            &change.subject,
            &at,
            &state::name(change.from),
            &state::name(change.to),
            &cause,
            &action.map(|action| &action.by),
            &change.is_active,
            &priority,
            &change.value,
            &version,
        ],
    )
    .await?;
    tx.execute(
        STATE,
        &[
            &change.id,
            &edge_id,
            &line_id,
            &change.code,
            &change.subject,
            &state::name(change.to),
            &at,
            &place.boot(),
            &change.is_active,
            &place.seq(),
            &priority,
        ],
    )
    .await?;
    // What a person did at the line stands in the chain as what is done here does.
    if let Some(action) = action {
        place.act(tx, action.id.to_string());
        let is_done = matches!(change.cause, AlarmCause::Action(_));
        let verb = if is_done { "act" } else { "refuse_act" };
        tx.audit(&Deed::on(verb, "alarm", change.id).after(&change.cause));
    }
    Ok(Ok(()))
}

// === manual entries ===

const ENTRY: &str = "
INSERT INTO manual_entry (id, edge_id, boot, lane, seq, tag_id, line_id, tag_name, entered_at, measured_at, value,
    badge, name, meaning, note, sha256)
SELECT $1, $2, $3, $4, $5, t.id, t.line_id, $6, $7, $8, $9, $10, $11, $12, $13, $14
FROM (SELECT 1) one LEFT JOIN tag t ON t.name = $6
ON CONFLICT (id) DO NOTHING";

/// Keeps what a person measured; the same entry told twice is one.
pub(super) async fn store_entry(tx: &mut BulkTx<'_>, place: Place<'_>, entry: &ManualEntry) -> Filed {
    if !entry.value.is_finite() {
        return Ok(Err(format!(
            "a manual entry of `{}` is no finite number",
            entry.tag
        )));
    }
    let added = tx
        .execute(
            ENTRY,
            &[
                &entry.id,
                &place.from.edge_id,
                &place.boot(),
                &place.lane(),
                &place.seq(),
                &entry.tag,
                &time_from_us(entry.at_us),
                &time_from_us(entry.measured_us),
                &entry.value,
                &entry.badge,
                &entry.name,
                &entry.meaning,
                &entry.note,
                &entry.sha256,
            ],
        )
        .await?;
    if added > 0 {
        place.act(tx, entry.id.to_string());
        tx.audit(&Deed::on("enter", "manual_entry", entry.id).after(entry));
        tx.event(&NewEvent::new(
            "ManualEntryMade",
            "manual_entry",
            entry.id,
            json!(entry),
        ));
    }
    Ok(Ok(()))
}

// === the clock ===

/// Keeps a step; what it corrects is moved by the duty of `edges::clock`, which finds it here.
pub(super) async fn store_step(tx: &mut BulkTx<'_>, place: Place<'_>, step: &ClockStep) -> Filed {
    tx.execute(
        "INSERT INTO clock_step (edge_id, boot, lane, seq, place, at, by_us, is_synced, correction_us) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING",
        &[
            &place.from.edge_id,
            &place.boot(),
            &place.lane(),
            &place.seq(),
            &place.number,
            &time_from_us(step.at_us),
            &step.by_us,
            &step.is_synced,
            &step.correction_us,
        ],
    )
    .await?;
    Ok(Ok(()))
}

// === certificates ===

/// Signs the key and queues the answer. An edge that is shut out gets none.
pub(super) async fn answer_request(
    tx: &mut BulkTx<'_>,
    place: Place<'_>,
    asked: &CertificateRequest,
    issuing: Issuing<'_>,
) -> Filed {
    let Issuing {
        tenant,
        authority,
        now,
    } = issuing;
    let (edge_id, edge) = (place.from.edge_id, place.from.edge);
    let shut_out = tx
        .query(
            "SELECT 1 FROM edge WHERE id = $1 AND revoked_at IS NOT NULL",
            &[&edge_id],
        )
        .await?;
    if !shut_out.is_empty() {
        return Ok(Err("the edge is revoked and gets no certificate".to_owned()));
    }
    let issued = match authority.sign(&asked.csr_pem, (tenant.as_str(), edge), now) {
        Ok(issued) => issued,
        Err(refusal) => return Ok(Err(refusal.to_string())),
    };
    let order = Order::Certificate {
        chain_pem: issued.chain_pem.clone(),
    };
    let valid = chrono::Duration::days(CERTIFICATE_VALID_DAYS);
    let command = match NewCommand::new(edge_id, order, "hub", now, Some(valid)) {
        Ok(command) => command,
        Err(refusal) => return Ok(Err(refusal.to_string())),
    };
    command.store_bulk(tx).await?;
    tx.execute(
        ISSUED,
        &[
            &Uuid::now_v7(),
            &edge_id,
            &issued.serial,
            &issued.fingerprint,
            &issued.not_before,
            &issued.not_after,
            &now,
        ],
    )
    .await?;
    tx.act_as(Actor::Hub { duty: "certificates" }, command.id.to_string());
    let told = json!({ "edge": edge, "serial": issued.serial, "fingerprint": issued.fingerprint,
        "not_after_us": issued.not_after.timestamp_micros() });
    tx.audit(&Deed::on("issue", "edge_certificate", &issued.serial).after(told));
    Ok(Ok(()))
}
