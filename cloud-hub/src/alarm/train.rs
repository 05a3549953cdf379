//! How does a rule learn what is normal? From a time that a person names, in the time zone of its plant, into a model
//! with its provenance, which judges from then on. Earlier verdicts stay those of the model before.

use axum::{extract::State, http::StatusCode};
use protocol::Micros;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use sqlx::FromRow;
use tokio::task::spawn_blocking;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    TAG,
    evaluate::lock,
    history::{inputs, learn},
    load::Names,
    rule::AlarmRule,
    season::Zone,
    watch::Kind,
};
use crate::{
    app::App,
    error::{Error, Result},
    kernel::{
        audit::Deed, caller::Caller, clock::time_from_us, event::NewEvent, hex::hex, permission::Permission,
        reply::Reply, resource, tenancy::TenantTx,
    },
    request::{Json, Path},
};

/// From which time to learn.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TrainingAsked {
    /// Start of a time in which all was normal.
    from_us: Micros,
    /// End of it, at most 92 days later.
    to_us: Micros,
    /// Seed of what is random in it; 0 when absent.
    #[schema(minimum = 0, maximum = 4_294_967_295_u64)]
    seed: Option<u32>,
}

/// What a rule takes for normal.
#[derive(Debug, Serialize, FromRow, ToSchema)]
pub struct AlarmModel {
    /// The rule.
    pub rule_id: Uuid,
    /// Counts the rule's models.
    pub version: i32,
    /// Judges from here on, by the time of the readings.
    pub valid_from_us: Micros,
    /// It learnt from here.
    pub trained_from_us: Micros,
    /// To here.
    pub trained_to_us: Micros,
    /// Blocks it learnt from.
    pub n: i64,
    /// What it learnt.
    #[schema(value_type = Object)]
    pub about: Value,
    /// SHA-256 of the model.
    pub sha256: String,
    /// Who had it trained, by name.
    pub trained_by: String,
}

const INSERT: &str = "
INSERT INTO alarm_model (rule_id, version, valid_from, trained_from, trained_to, n, about, model, sha256, trained_by, trained_at)
VALUES ($1, (SELECT coalesce(max(m.version), 0) + 1 FROM alarm_model m WHERE m.rule_id = $1), $2, $3, $4, $5, $6, $7, $8, $9, $2)
RETURNING rule_id, version, (extract(epoch FROM valid_from) * 1000000)::bigint AS valid_from_us,
    (extract(epoch FROM trained_from) * 1000000)::bigint AS trained_from_us,
    (extract(epoch FROM trained_to) * 1000000)::bigint AS trained_to_us, n, about, sha256, trained_by";

/// Learns what is normal for a statistical rule from a time that a person names.
#[utoipa::path(post, path = "/sensors/alerts/{id}/train", operation_id = "train_alarm_rule", tag = TAG, security(("bearer" = ["alarm.configure"])),
    params(("id" = Uuid, Path, description = "Rule")), request_body = TrainingAsked,
    responses((status = 201, description = "The model", body = AlarmModel)))]
pub async fn train_alarm_rule(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<Uuid>,
    Json(asked): Json<TrainingAsked>,
) -> Result<Reply> {
    let mut tx = caller.begin(&app, Permission::AlarmConfigure).await?;
    let rule: AlarmRule = resource::read(&mut tx, id).await?;
    if !Kind::parse(&rule.kind).is_some_and(Kind::is_trained) {
        return Err(Error::Conflict(format!(
            "a rule of kind {} needs no training",
            rule.kind
        )));
    }
    // A rule that is switched off can be trained before it judges.
    let rule = AlarmRule {
        is_enabled: true,
        ..rule
    };
    let names = Names::load(&mut tx, std::iter::once(&rule)).await?;
    let spec = names
        .spec(&rule)
        .ok_or_else(|| Error::Conflict("a tag of this rule is not known".to_owned()))?;
    let readings = inputs(&mut tx, &spec, (asked.from_us, asked.to_us)).await?;
    let zone = zone_of(&mut tx, &rule).await?;
    let seed = u64::from(asked.seed.unwrap_or_default());
    let learnt = spawn_blocking(move || learn(&spec, zone, &readings, seed))
        .await
        .map_err(|source| Error::Internal(source.into()))??;
    let (model, n) =
        learnt.ok_or_else(|| Error::Conflict("a rule of this kind needs no training".to_owned()))?;
    let bytes = model.encode().map_err(|source| Error::Internal(source.into()))?;
    lock(&mut tx, id).await?;
    let by = tx.actor().display();
    let made: AlarmModel = sqlx::query_as(INSERT)
        .bind(id)
        .bind(app.clock.now())
        .bind(time_from_us(asked.from_us))
        .bind(time_from_us(asked.to_us))
        .bind(n as i64)
        .bind(model.about())
        .bind(&bytes)
        .bind(hex(&Sha256::digest(&bytes)))
        .bind(by)
        .fetch_one(tx.conn())
        .await?;
    tx.audit(&Deed::on("train", "alarm_rule", id).after(&made));
    tx.event(&NewEvent::new(
        "AlarmRuleTrained",
        "alarm_rule",
        id,
        serde_json::json!(made),
    ));
    tx.finish(StatusCode::CREATED, &made).await
}

/// Of the plant of the rule's line, else of its tag's, else the tenant's first plant, as pages take it; else UTC.
const ZONE: &str = "
SELECT p.zone FROM plant p
LEFT JOIN line l ON l.plant_id = p.id
    AND l.id = coalesce($1, (SELECT t.line_id FROM tag t WHERE t.name = $2))
ORDER BY (l.id IS NULL), p.code LIMIT 1";

async fn zone_of(tx: &mut TenantTx, rule: &AlarmRule) -> Result<Zone> {
    let named: Option<String> = sqlx::query_scalar(ZONE)
        .bind(rule.line_id)
        .bind(&rule.tag_name)
        .fetch_optional(tx.conn())
        .await?;
    let Some(named) = named else {
        return Ok(Zone::default());
    };
    Zone::parse(&named).ok_or_else(|| {
        Error::Conflict(format!(
            "the plant's time zone {named:?} is not known to this hub"
        ))
    })
}
