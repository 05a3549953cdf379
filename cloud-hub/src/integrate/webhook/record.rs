//! Which systems are told, of what, and with which key? Webhooks over HTTP: registered, changed, given a new key, removed.

use axum::{Json, extract::State, http::StatusCode};
use chrono::{DateTime, Utc};
use protocol::Micros;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::FromRow;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{TAG, sign, target};
use crate::{
    app::App,
    error::{Error, Result},
    integrate::{event, feed::needs_everywhere},
    kernel::{
        audit::Deed, caller::Caller, event::NewEvent, permission::Permission, reply::Reply, tenancy::TenantTx,
    },
    request::{IfMatch, Json as Body, ListQuery, Page, Path, Query, Rows},
};

const WEBHOOKS_MAX: i64 = 50;
const KINDS_MAX: usize = 50;
const KIND_CHARS_MAX: usize = 100;
/// How long a key that was replaced is still signed with.
const OVERLAP: chrono::Duration = chrono::Duration::hours(24);

/// A system that is told of events.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Webhook {
    /// Stable id.
    pub(super) id: Uuid,
    /// Counts changes; send it back as `If-Match` to change the record.
    pub(super) version: i32,
    /// Where messages are sent.
    url: String,
    /// What it is for.
    description: String,
    /// Kinds of events it is told of: exact, or a beginning followed by `*`.
    kinds: Vec<String>,
    /// Whether messages are sent. While it is off they wait.
    is_active: bool,
    /// Why the hub switched it off.
    deactivated_because: Option<String>,
    /// Since when no message has got through.
    failing_since_us: Option<Micros>,
    /// The last event that was looked at for it.
    pub(super) seq: i64,
    /// Until when messages are also signed with the key before.
    previous_secret_until_us: Option<Micros>,
    /// When it was registered.
    created_us: Micros,
}

/// A webhook with its signing key, which is shown this once.
#[derive(Debug, Serialize, ToSchema)]
pub struct WebhookWithSecret {
    /// The webhook.
    #[serde(flatten)]
    webhook: Webhook,
    /// The key, `whsec_…`.
    secret: String,
}

/// What a client sends to register one.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewWebhook {
    /// Where messages are sent: `https://`, a public host.
    url: String,
    /// What it is for, up to 500 characters.
    #[serde(default)]
    description: String,
    /// 1 to 50 kinds of events: `BatchStarted`, `Batch*`, or `*` for all.
    kinds: Vec<String>,
}

/// What a client sends to change one; absent fields stay.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WebhookPatch {
    url: Option<String>,
    description: Option<String>,
    kinds: Option<Vec<String>>,
    /// Switched on again, it goes on where it stopped.
    is_active: Option<bool>,
}

#[derive(FromRow)]
struct Row {
    id: Uuid,
    version: i32,
    url: String,
    description: String,
    kinds: Vec<String>,
    is_active: bool,
    deactivated_because: Option<String>,
    failing_since: Option<DateTime<Utc>>,
    seq: i64,
    previous_until: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
}

impl From<Row> for Webhook {
    fn from(row: Row) -> Self {
        Self {
            id: row.id,
            version: row.version,
            url: row.url,
            description: row.description,
            kinds: row.kinds,
            is_active: row.is_active,
            deactivated_because: row.deactivated_because,
            failing_since_us: row.failing_since.map(|at| at.timestamp_micros()),
            seq: row.seq,
            previous_secret_until_us: row.previous_until.map(|at| at.timestamp_micros()),
            created_us: row.created_at.timestamp_micros(),
        }
    }
}

const SELECT: &str = "SELECT id, version, url, description, kinds, is_active, deactivated_because, failing_since, \
    seq, previous_until, created_at FROM webhook";

/// Opens a transaction on webhooks.
pub(super) async fn begin(app: &App, caller: &Caller, permission: Permission) -> Result<TenantTx> {
    let mut tx = caller.begin(app, permission).await?;
    needs_everywhere(&mut tx).await?;
    Ok(tx)
}

/// The webhook, kept from others until the transaction ends when `lock` is set.
pub(super) async fn find(tx: &mut TenantTx, id: Uuid, lock: bool) -> Result<Webhook> {
    let suffix = if lock { " FOR NO KEY UPDATE" } else { "" };
    let row: Option<Row> = sqlx::query_as(sqlx::AssertSqlSafe(format!("{SELECT} WHERE id = $1{suffix}")))
        .bind(id)
        .fetch_optional(tx.conn())
        .await?;
    row.map(Webhook::from)
        .ok_or(Error::NotFound { entity: "webhook" })
}

async fn find_at(tx: &mut TenantTx, id: Uuid, version: i32) -> Result<Webhook> {
    let webhook = find(tx, id, true).await?;
    if webhook.version == version {
        Ok(webhook)
    } else {
        Err(Error::Stale { entity: "webhook" })
    }
}

/// What events tell of a webhook: not its address, whose path may be a secret of the receiver.
fn told(webhook: &Webhook) -> serde_json::Value {
    json!({ "title": webhook.description, "kinds": webhook.kinds, "is_active": webhook.is_active,
        "version": webhook.version })
}

fn check_kinds(kinds: &[String]) -> Result<()> {
    let is_kind = |kind: &String| {
        let stem = kind.strip_suffix('*').unwrap_or(kind);
        (1..=KIND_CHARS_MAX).contains(&kind.len())
            && stem
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || c == '.' || c == '_')
    };
    if (1..=KINDS_MAX).contains(&kinds.len()) && kinds.iter().all(is_kind) {
        Ok(())
    } else {
        Err(Error::Invalid(format!(
            "`kinds` must have 1 to {KINDS_MAX} kinds of events such as `BatchStarted`, `Batch*` or `*`"
        )))
    }
}

async fn check_url(app: &App, text: &str) -> Result<String> {
    let allow_private = app.config.webhooks.allow_private;
    let url = target::parse(text, allow_private).map_err(Error::Invalid)?;
    target::check_name(&url, allow_private)
        .await
        .map_err(Error::Invalid)?;
    Ok(url.to_string())
}

/// Lists webhooks.
#[utoipa::path(get, path = "/integrations/webhooks", operation_id = "list_webhooks", tag = TAG, security(("bearer" = ["webhook.read"])), params(ListQuery),
    responses((status = 200, description = "Webhooks", body = Page<Webhook>)))]
pub async fn list_webhooks(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<ListQuery>,
) -> Result<Json<Page<Webhook>>> {
    let rows = Rows::parse(query.limit)?;
    let mut tx = begin(&app, &caller, Permission::WebhookRead).await?;
    let sql = format!("{SELECT} WHERE $1::uuid IS NULL OR id > $1 ORDER BY id LIMIT $2");
    let found: Vec<Row> = sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(query.cursor)
        .bind(rows.fetched())
        .fetch_all(tx.conn())
        .await?;
    let webhooks = found.into_iter().map(Webhook::from).collect();
    Ok(Json(Page::of(webhooks, rows, |webhook: &Webhook| {
        webhook.id.to_string()
    })))
}

/// Registers a webhook. It is told of what happens from now on. The answer carries its signing key, this once.
#[utoipa::path(post, path = "/integrations/webhooks", operation_id = "create_webhook", tag = TAG, security(("bearer" = ["webhook.write"])),
    request_body = NewWebhook, responses((status = 201, description = "Registered", body = WebhookWithSecret)))]
pub async fn create_webhook(
    State(app): State<App>,
    caller: Caller,
    Body(new): Body<NewWebhook>,
) -> Result<Reply> {
    caller.authorize(&app, Permission::WebhookWrite).await?;
    check_kinds(&new.kinds)?;
    // A name may take long to resolve: not with a connection in hand.
    let url = check_url(&app, &new.url).await?;
    let mut tx = begin(&app, &caller, Permission::WebhookWrite).await?;
    let there: i64 = sqlx::query_scalar("SELECT count(*) FROM webhook")
        .fetch_one(tx.conn())
        .await?;
    if there >= WEBHOOKS_MAX {
        return Err(Error::Conflict(format!(
            "a tenant has at most {WEBHOOKS_MAX} webhooks"
        )));
    }
    let (id, key) = (Uuid::now_v7(), sign::new_key());
    let newest = event::newest(tx.conn()).await?;
    sqlx::query(
        "INSERT INTO webhook (id, url, description, kinds, secret_sealed, seq, created_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(id)
    .bind(url)
    .bind(new.description.trim())
    .bind(&new.kinds)
    .bind(app.sealing_key.seal(&sign::purpose(id), &key))
    .bind(newest)
    .bind(tx.at())
    .execute(tx.conn())
    .await?;
    let webhook = find(&mut tx, id, false).await?;
    tx.audit(&Deed::on("create", "webhook", id).after(&webhook));
    tx.event(&NewEvent::new("WebhookCreated", "webhook", id, told(&webhook)));
    let made = WebhookWithSecret {
        webhook,
        secret: sign::shown(&key),
    };
    tx.finish_secret(StatusCode::CREATED, &made).await
}

/// Reads one webhook.
#[utoipa::path(get, path = "/integrations/webhooks/{id}", operation_id = "read_webhook", tag = TAG, security(("bearer" = ["webhook.read"])),
    params(("id" = Uuid, Path, description = "Webhook")), responses((status = 200, description = "The webhook", body = Webhook)))]
pub async fn read_webhook(State(app): State<App>, caller: Caller, Path(id): Path<Uuid>) -> Result<Reply> {
    let mut tx = begin(&app, &caller, Permission::WebhookRead).await?;
    Reply::json(StatusCode::OK, &find(&mut tx, id, false).await?)
}

/// Changes a webhook. A new address, or switching it on, clears what is known of its failures.
#[utoipa::path(patch, path = "/integrations/webhooks/{id}", operation_id = "update_webhook", tag = TAG, security(("bearer" = ["webhook.write"])),
    params(("id" = Uuid, Path, description = "Webhook"), ("if-match" = String, Header, description = "The record's version, quoted, as its `ETag` gave it")),
    request_body = WebhookPatch, responses((status = 200, description = "Changed", body = Webhook)))]
pub async fn update_webhook(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<Uuid>,
    IfMatch(version): IfMatch,
    Body(patch): Body<WebhookPatch>,
) -> Result<Reply> {
    caller.authorize(&app, Permission::WebhookWrite).await?;
    if let Some(kinds) = &patch.kinds {
        check_kinds(kinds)?;
    }
    let url = match &patch.url {
        Some(url) => Some(check_url(&app, url).await?),
        None => None,
    };
    let mut tx = begin(&app, &caller, Permission::WebhookWrite).await?;
    let before = find_at(&mut tx, id, version).await?;
    sqlx::query(
        "UPDATE webhook SET version = version + 1, url = coalesce($2, url), description = coalesce($3, description), \
           kinds = coalesce($4, kinds), is_active = coalesce($5, is_active), \
           failing_since = CASE WHEN $2 IS NULL AND $5 IS NOT TRUE THEN failing_since END, \
           deactivated_because = CASE WHEN $5 IS NULL THEN deactivated_because END WHERE id = $1",
    )
    .bind(id)
    .bind(url)
    .bind(patch.description.as_deref().map(str::trim))
    .bind(patch.kinds)
    .bind(patch.is_active)
    .execute(tx.conn())
    .await?;
    let webhook = find(&mut tx, id, false).await?;
    tx.audit(&Deed::on("update", "webhook", id).before(&before).after(&webhook));
    tx.event(&NewEvent::new("WebhookUpdated", "webhook", id, told(&webhook)));
    tx.finish(StatusCode::OK, &webhook).await
}

/// Removes a webhook with its deliveries; what was not sent yet is never sent.
#[utoipa::path(delete, path = "/integrations/webhooks/{id}", operation_id = "delete_webhook", tag = TAG, security(("bearer" = ["webhook.write"])),
    params(("id" = Uuid, Path, description = "Webhook"), ("if-match" = String, Header, description = "The record's version, quoted, as its `ETag` gave it")),
    responses((status = 204, description = "Removed")))]
pub async fn delete_webhook(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<Uuid>,
    IfMatch(version): IfMatch,
) -> Result<Reply> {
    let mut tx = begin(&app, &caller, Permission::WebhookWrite).await?;
    let before = find_at(&mut tx, id, version).await?;
    sqlx::query("DELETE FROM webhook WHERE id = $1")
        .bind(id)
        .execute(tx.conn())
        .await?;
    tx.audit(&Deed::on("delete", "webhook", id).before(&before));
    tx.event(&NewEvent::new("WebhookDeleted", "webhook", id, told(&before)));
    tx.finish_empty().await
}

/// Makes a new signing key, shown this once. For 24 hours messages are signed with the one before too.
#[utoipa::path(post, path = "/integrations/webhooks/{id}/rotate-secret", operation_id = "rotate_webhook_secret", tag = TAG, security(("bearer" = ["webhook.write"])),
    params(("id" = Uuid, Path, description = "Webhook")), responses((status = 200, description = "The new key", body = WebhookWithSecret)))]
pub async fn rotate_webhook_secret(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<Uuid>,
) -> Result<Reply> {
    let mut tx = begin(&app, &caller, Permission::WebhookWrite).await?;
    let before = find(&mut tx, id, true).await?;
    let key = sign::new_key();
    let until = tx.at() + OVERLAP;
    sqlx::query(
        "UPDATE webhook SET version = version + 1, previous_sealed = secret_sealed, previous_until = $3, \
           secret_sealed = $2 WHERE id = $1",
    )
    .bind(id)
    .bind(app.sealing_key.seal(&sign::purpose(id), &key))
    .bind(until)
    .execute(tx.conn())
    .await?;
    let webhook = find(&mut tx, id, false).await?;
    tx.audit(
        &Deed::on("rotate_secret", "webhook", id)
            .before(&before)
            .after(&webhook),
    );
    tx.event(&NewEvent::new(
        "WebhookSecretRotated",
        "webhook",
        id,
        told(&webhook),
    ));
    let made = WebhookWithSecret {
        webhook,
        secret: sign::shown(&key),
    };
    tx.finish_secret(StatusCode::OK, &made).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_words_or_beginnings_of_words() {
        let check = |kinds: &[&str]| check_kinds(&kinds.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert!(check(&["BatchStarted", "Batch*", "*", "webhook.test"]).is_ok());
        for wrong in [&[][..], &[""], &["**"], &["*Batch"], &["Bat%"], &["a b"], &["é"]] {
            assert!(check(wrong).is_err(), "{wrong:?}");
        }
    }
}
