//! Who stood by a record, and does it still stand? A person signs the version that they saw, after saying once more
//! who they are; the signature carries the record and its hash, and the audit chain tells of it.

use std::sync::Arc;

use axum::{Extension, Json as Answer, extract::State, http::StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::{
    TAG,
    reauthenticate::{self, Factor, Person},
    second_person::{Meaning, Situation, may_sign},
    signable::{self, Current, RecordType},
    signed::{COLUMNS, Signature},
};
use crate::kernel::hex::hex;
use crate::{
    app::App,
    error::{Error, Result},
    identity::attempts::Attempts,
    kernel::{
        audit::{Actor, Deed},
        caller::Caller,
        event::NewEvent,
        permission::Permission,
        reply::Reply,
        secret::Secret,
        tenancy::TenantTx,
    },
    request::{Json, Page, Query, Rows},
};

const REASON_CHARS_MAX: usize = 1000;

/// What is signed, and by what right.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewSignature {
    /// Kind of record.
    record_type: RecordType,
    /// Record.
    record_id: Uuid,
    /// The version that the signer saw.
    record_version: i32,
    /// What the signature stands for.
    meaning: Meaning,
    /// Why, in the signer's words: 1 to 1000 characters.
    #[schema(min_length = 1, max_length = 1000)]
    reason: String,
    /// The signer's password. Absent for whoever signed in at an identity provider within the last 5 minutes.
    #[schema(value_type = Option<String>)]
    password: Option<Secret>,
}

/// A signature on a record.
#[derive(Debug, Serialize, ToSchema)]
pub struct RecordSignature {
    /// Stable id.
    id: Uuid,
    /// When.
    at_us: i64,
    /// Who.
    user_id: Uuid,
    /// Their name when they signed.
    signer_name: String,
    /// What it stands for.
    meaning: Meaning,
    /// Why, in their words.
    reason: String,
    /// Kind of record.
    record_type: RecordType,
    /// Record.
    record_id: Uuid,
    /// The version that was signed.
    record_version: i32,
    /// SHA-256 of the record in canonical JSON, hexadecimal.
    record_sha256: String,
    /// The record as it was signed.
    #[schema(value_type = Object)]
    record: Value,
    /// `password` or `identity_provider`.
    auth_factor: String,
    /// The record has a later version.
    is_superseded: bool,
    /// The record is still what was signed, field for field.
    matches: bool,
}

impl RecordSignature {
    fn of(signature: Signature, kind: RecordType, current: &Current) -> Result<Self> {
        let broken = |what: &str| Error::Internal(anyhow::anyhow!("signature {}: {what}", signature.id));
        Ok(Self {
            meaning: Meaning::parse(&signature.meaning).ok_or_else(|| broken("unknown meaning"))?,
            record: serde_json::from_str(&signature.record).map_err(|_| broken("its record is no JSON"))?,
            is_superseded: current.version > signature.record_version,
            matches: current.matches(&signature.record),
            id: signature.id,
            at_us: signature.at.timestamp_micros(),
            user_id: signature.user_id,
            signer_name: signature.signer_name,
            reason: signature.reason,
            record_type: kind,
            record_id: signature.record_id,
            record_version: signature.record_version,
            record_sha256: hex(&signature.record_sha256),
            auth_factor: signature.auth_factor,
        })
    }
}

/// Signs a version of a record, after the signer has proved once more who they are. `reviewed` needs
/// `signature.review`, `approved` and `released` need `signature.approve`; nobody judges their own work, and holds
/// and deviations are released by another person than who approved.
#[utoipa::path(post, path = "/signatures", operation_id = "sign_record", tag = TAG, security(("bearer" = ["signature.perform"])),
    request_body = NewSignature, responses(
        (status = 201, description = "Signed", body = RecordSignature),
        (status = 412, description = "The record has a later version by now", body = crate::error::Problem,
            content_type = "application/problem+json")))]
pub async fn sign_record(
    State(app): State<App>,
    Extension(attempts): Extension<Arc<Attempts>>,
    caller: Caller,
    Json(mut given): Json<NewSignature>,
) -> Result<Reply> {
    given.reason = given.reason.trim().to_owned();
    if !(1..=REASON_CHARS_MAX).contains(&given.reason.chars().count()) {
        return Err(Error::Invalid(format!(
            "`reason` must have 1 to {REASON_CHARS_MAX} characters"
        )));
    }
    let permission = given.meaning.permission();
    caller.authorize(&app, permission).await?;
    let person = reauthenticate::person(&caller)?;
    let mut tx = begin_reading(&app, &caller, given.record_type).await?;
    let current = signable::read(&mut tx, given.record_type, given.record_id, false).await?;
    check_version(&given, &current)?;
    let account = reauthenticate::account(&mut tx, person).await?;
    let actor = tx.actor().clone();
    // The transaction does not wait for the password's hash.
    drop(tx);
    let password = given.password.take();
    let factor = match reauthenticate::prove(&app, &attempts, &caller, account, password).await {
        Ok(factor) => factor,
        Err(refusal @ Error::Unauthenticated(_)) => {
            deny(&app, &caller, actor, &given, "re-authentication").await?;
            return Err(refusal);
        }
        Err(other) => return Err(other),
    };
    let mut tx = caller.begin(&app, permission).await?;
    tx.never_replayed();
    let current = signable::read(&mut tx, given.record_type, given.record_id, true).await?;
    check_version(&given, &current)?;
    let situation = situation(&mut tx, &given).await?;
    if let Err(refusal) = may_sign(&situation, given.meaning, person.id) {
        drop(tx);
        let said = refusal.to_string();
        deny(&app, &caller, actor, &given, &said).await?;
        return Err(Error::Conflict(said));
    }
    let signature = insert(&mut tx, &given, person, factor, &current).await?;
    let signed = RecordSignature::of(signature, given.record_type, &current)?;
    tx.finish(StatusCode::CREATED, &signed).await
}

/// A transaction in which the record is seen; whoever may not read such records learns of none.
async fn begin_reading(app: &App, caller: &Caller, kind: RecordType) -> Result<TenantTx> {
    match caller.begin(app, kind.read()).await {
        Err(Error::Forbidden { .. }) => Err(Error::NotFound { entity: kind.table() }),
        other => other,
    }
}

fn check_version(given: &NewSignature, current: &Current) -> Result<()> {
    if current.version == given.record_version {
        Ok(())
    } else {
        Err(Error::Stale {
            entity: given.record_type.table(),
        })
    }
}

/// An attempt to sign that is refused is on record, too.
async fn deny(app: &App, caller: &Caller, actor: Actor, given: &NewSignature, because: &str) -> Result<()> {
    let mut tx = app.db.begin_as(&caller.tenant, actor).await?;
    let wanted = json!({ "because": because, "meaning": given.meaning, "record_type": given.record_type,
        "record_id": given.record_id, "record_version": given.record_version });
    tx.audit(&Deed {
        action: "denied",
        entity: "signature",
        after: Some(wanted),
        ..Deed::default()
    });
    Ok(tx.commit().await?)
}

async fn situation(tx: &mut TenantTx, given: &NewSignature) -> Result<Situation> {
    let table = given.record_type.table();
    let signed: Vec<(String, Uuid)> = sqlx::query_as(
        "SELECT meaning, user_id FROM signature \
         WHERE record_type = $1 AND record_id = $2 AND record_version = $3",
    )
    .bind(table)
    .bind(given.record_id)
    .bind(given.record_version)
    .fetch_all(tx.conn())
    .await?;
    let changed_by: Option<(String, Option<String>)> = sqlx::query_as(
        "SELECT actor_kind, actor_id FROM audit_event WHERE entity = $1 AND entity_id = $2 \
           AND action NOT IN ('denied', 'export') ORDER BY seq DESC LIMIT 1",
    )
    .bind(table)
    .bind(given.record_id.to_string())
    .fetch_optional(tx.conn())
    .await?;
    let known = signed.into_iter();
    Ok(Situation {
        record_type: table.to_owned(),
        signed: known
            .filter_map(|(meaning, by)| Some((Meaning::parse(&meaning)?, by)))
            .collect(),
        changed_by: changed_by
            .filter(|(kind, _)| kind == "user")
            .and_then(|(_, id)| id?.parse().ok()),
    })
}

async fn insert(
    tx: &mut TenantTx,
    given: &NewSignature,
    person: Person,
    factor: Factor,
    current: &Current,
) -> Result<Signature> {
    let signer_name = match tx.actor() {
        Actor::User { name, .. } => name.clone(),
        _ => String::new(),
    };
    let record = current.text();
    let sql = format!(
        "INSERT INTO signature AS s (id, at, user_id, signer_name, meaning, reason, record_type, record_id, \
           record_version, record, record_sha256, auth_factor) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) RETURNING {COLUMNS}"
    );
    let signature: Signature = sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(Uuid::now_v7())
        .bind(tx.at())
        .bind(person.id)
        .bind(signer_name)
        .bind(given.meaning.as_str())
        .bind(&given.reason)
        .bind(given.record_type.table())
        .bind(given.record_id)
        .bind(given.record_version)
        .bind(&record)
        .bind(&Sha256::digest(&record)[..])
        .bind(factor.as_str())
        .fetch_one(tx.conn())
        .await?;
    let told = signature.told();
    tx.because(&given.reason);
    tx.audit(&Deed::on("sign", "signature", signature.id).after(&told));
    tx.event(&NewEvent::new("RecordSigned", "signature", signature.id, told));
    Ok(signature)
}

/// Whose signatures to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct SignatureQuery {
    /// Kind of record.
    #[param(inline)]
    record_type: RecordType,
    /// Record.
    record_id: Uuid,
    /// `next` of the page before.
    cursor: Option<Uuid>,
    /// Rows per page, 1 to 200; 100 when absent.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<i64>,
}

/// Lists the signatures on a record, oldest first, each with what was signed and whether it still stands.
#[utoipa::path(get, path = "/signatures", operation_id = "list_signatures", tag = TAG, security(("bearer" = ["signature.read"])),
    params(SignatureQuery), responses((status = 200, description = "Signatures", body = Page<RecordSignature>)))]
pub async fn list_signatures(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<SignatureQuery>,
) -> Result<Answer<Page<RecordSignature>>> {
    let rows = Rows::parse(query.limit)?;
    caller.authorize(&app, Permission::SignatureRead).await?;
    let mut tx = begin_reading(&app, &caller, query.record_type).await?;
    let current = signable::read(&mut tx, query.record_type, query.record_id, false).await?;
    let sql = format!(
        "SELECT {COLUMNS} FROM signature s WHERE s.record_type = $1 AND s.record_id = $2 \
           AND ($3::uuid IS NULL OR s.id > $3) ORDER BY s.id LIMIT $4"
    );
    let found: Vec<Signature> = sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(query.record_type.table())
        .bind(query.record_id)
        .bind(query.cursor)
        .bind(rows.fetched())
        .fetch_all(tx.conn())
        .await?;
    let signatures = found.into_iter();
    let signatures: Vec<RecordSignature> = signatures
        .map(|signature| RecordSignature::of(signature, query.record_type, &current))
        .collect::<Result<_>>()?;
    Ok(Answer(Page::of(signatures, rows, |signature| {
        signature.id.to_string()
    })))
}
