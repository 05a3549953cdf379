//! How do machines get in? Keys that a person makes for them: for some permissions, on one plant or line or
//! everywhere, for at most a year. The secret is shown once; a key allows nothing that its maker did not hold.

use std::collections::BTreeSet;

use axum::{
    extract::{RawQuery, State},
    http::StatusCode,
};
use chrono::{DateTime, Utc};
use protocol::Micros;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::{AssertSqlSafe, FromRow};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::{
    TAG,
    role::{check_held, parse},
};
use crate::{
    app::App,
    error::{Error, Result},
    kernel::{
        api_key::ApiKeySecret,
        audit::Deed,
        caller::Caller,
        clock::time_from_us,
        event::NewEvent,
        page::{Cursor, PageParams, Sort},
        permission::Permission,
        reply::Reply,
        resource::ListParams,
        scope::Grants,
        tenancy::TenantTx,
    },
    request::{IfMatch, Json, Page, Path, Rows},
};

const NAME_CHARS_MAX: usize = 100;
/// A year and the leap day that may be in it.
const VALID_US_MAX: Micros = 366 * 86_400 * 1_000_000;

/// A key, without its secret.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ApiKey {
    /// Stable id; the key itself begins with it.
    pub id: Uuid,
    /// Counts changes; send it back as `If-Match` to rotate or revoke the key.
    pub version: i32,
    /// What it is for, unique in the tenant.
    pub name: String,
    /// What it allows.
    #[schema(value_type = Vec<Permission>)]
    pub permissions: Vec<String>,
    /// The plant it is for; null when that is not the limit.
    pub plant_id: Option<Uuid>,
    /// The line it is for; null when that is not the limit.
    pub line_id: Option<Uuid>,
    /// Who made it; null when that was no person.
    pub created_by: Option<Uuid>,
    /// When it was made.
    pub created_us: Micros,
    /// Until when it is good.
    pub expires_us: Micros,
    /// When it was last used, to the minute; null until then.
    pub last_used_us: Option<Micros>,
    /// When it was revoked; null while it is not.
    pub revoked_us: Option<Micros>,
}

#[derive(FromRow)]
struct Row {
    id: Uuid,
    version: i32,
    name: String,
    permissions: Vec<String>,
    plant_id: Option<Uuid>,
    line_id: Option<Uuid>,
    created_by: Option<Uuid>,
    created_at: DateTime<Utc>,
    expires_at: DateTime<Utc>,
    last_used_at: Option<DateTime<Utc>>,
    revoked_at: Option<DateTime<Utc>>,
}

impl From<Row> for ApiKey {
    fn from(row: Row) -> Self {
        let micros = |time: DateTime<Utc>| time.timestamp_micros();
        Self {
            id: row.id,
            version: row.version,
            name: row.name,
            // What a newer program has granted means nothing to this one.
            permissions: row
                .permissions
                .into_iter()
                .filter(|name| Permission::parse(name).is_some())
                .collect(),
            plant_id: row.plant_id,
            line_id: row.line_id,
            created_by: row.created_by,
            created_us: micros(row.created_at),
            expires_us: micros(row.expires_at),
            last_used_us: row.last_used_at.map(micros),
            revoked_us: row.revoked_at.map(micros),
        }
    }
}

const SELECT: &str = "
SELECT k.id, k.version, k.name, k.permissions, k.plant_id, k.line_id, k.created_by, k.created_at, k.expires_at,
    k.last_used_at, k.revoked_at
FROM api_key k";

async fn fetch(tx: &mut TenantTx, id: Uuid, suffix: &str) -> Result<ApiKey> {
    let row: Option<Row> = sqlx::query_as(AssertSqlSafe(format!("{SELECT} WHERE k.id = $1{suffix}")))
        .bind(id)
        .fetch_optional(tx.conn())
        .await?;
    row.map(ApiKey::from).ok_or(Error::NotFound { entity: "API key" })
}

/// Reads a key that is not revoked and that the caller may change.
async fn lock(tx: &mut TenantTx, grants: &Grants, id: Uuid, version: i32) -> Result<ApiKey> {
    let key = fetch(tx, id, " FOR UPDATE").await?;
    if key.version != version {
        return Err(Error::Stale { entity: "API key" });
    }
    if key.revoked_us.is_some() {
        return Err(Error::Conflict("this key is revoked".to_owned()));
    }
    // What a key allows that the program no longer knows allows nothing.
    let known = key.permissions.iter().filter_map(|name| Permission::parse(name));
    check_held(grants, known.collect::<BTreeSet<_>>())?;
    Ok(key)
}

// === reading ===

/// Narrows the list of keys.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ApiKeyFilter {
    /// Part of the name.
    q: Option<String>,
    /// Only keys that are, or are not, revoked.
    is_revoked: Option<bool>,
    /// Only keys that this person made.
    created_by: Option<Uuid>,
}

/// Lists the keys, without their secrets.
#[utoipa::path(get, path = "/api-keys", operation_id = "list_api_keys", tag = TAG, security(("bearer" = ["api_key.read"])),
    params(ApiKeyFilter, PageParams), responses((status = 200, description = "Keys", body = Page<ApiKey>)))]
pub async fn list_api_keys(
    State(app): State<App>,
    caller: Caller,
    RawQuery(query): RawQuery,
) -> Result<axum::Json<Page<ApiKey>>> {
    let params = ListParams::<ApiKeyFilter>::parse(query.as_deref().unwrap_or_default())?;
    let rows = Rows::parse(params.page.limit)?;
    let asked = params.page.sort.as_deref().unwrap_or("id");
    let sort = Sort::parse(Some(asked), &["name"])?;
    let cursor = params.page.cursor.as_deref();
    let cursor = cursor.map(|text| Cursor::decode(text, asked)).transpose()?;
    let (order, than) = sort.sql();
    let by = if sort.field == "id" {
        "k.id::text"
    } else {
        "k.name"
    };
    let sql = format!(
        "{SELECT} WHERE ($1::text IS NULL OR strpos(lower(k.name), lower($1)) > 0) \
           AND ($2::bool IS NULL OR (k.revoked_at IS NOT NULL) = $2) \
           AND ($3::uuid IS NULL OR k.created_by = $3) \
           AND ($4::uuid IS NULL OR ({by}, k.id) {than} ($5::text, $4)) \
         ORDER BY {by} {order}, k.id {order} LIMIT $6"
    );
    let mut tx = caller.begin(&app, Permission::ApiKeyRead).await?;
    let found: Vec<Row> = sqlx::query_as(AssertSqlSafe(sql))
        .bind(params.filter.q)
        .bind(params.filter.is_revoked)
        .bind(params.filter.created_by)
        .bind(cursor.as_ref().map(|cursor| cursor.i))
        .bind(cursor.as_ref().and_then(|cursor| cursor.v.as_str()))
        .bind(rows.fetched())
        .fetch_all(tx.conn())
        .await?;
    let keys = found.into_iter().map(ApiKey::from).collect();
    Ok(axum::Json(Page::of(keys, rows, |key: &ApiKey| {
        let place = if sort.field == "id" {
            key.id.to_string()
        } else {
            key.name.clone()
        };
        Cursor {
            s: asked.to_owned(),
            v: place.into(),
            i: key.id,
        }
        .encode()
    })))
}

/// Reads a key, without its secret.
#[utoipa::path(get, path = "/api-keys/{id}", operation_id = "read_api_key", tag = TAG, security(("bearer" = ["api_key.read"])),
    params(("id" = Uuid, Path, description = "Key")), responses((status = 200, description = "The key", body = ApiKey)))]
pub async fn read_api_key(State(app): State<App>, caller: Caller, Path(id): Path<Uuid>) -> Result<Reply> {
    let mut tx = caller.begin(&app, Permission::ApiKeyRead).await?;
    Reply::json(StatusCode::OK, &fetch(&mut tx, id, "").await?)
}

// === making, rotating, revoking ===

/// A key to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewApiKey {
    /// What it is for, unique in the tenant.
    #[schema(min_length = 1, max_length = 100)]
    name: String,
    /// What it allows: only what its maker holds in the whole tenant.
    #[schema(value_type = Vec<Permission>, min_items = 1)]
    permissions: Vec<String>,
    /// Only on this plant.
    plant_id: Option<Uuid>,
    /// Only on this line; not together with a plant.
    line_id: Option<Uuid>,
    /// Until when it shall be good: after now, within a year.
    expires_us: Micros,
}

/// How long a rotated key shall be good.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ApiKeyRotation {
    /// Until when: after now, within a year.
    expires_us: Micros,
}

/// A key with its secret, which is shown this once.
#[derive(Serialize, ToSchema)]
#[expect(
    missing_debug_implementations,
    reason = "it carries a secret, which must not reach a log"
)]
pub struct NewApiKeySecret {
    #[serde(flatten)]
    key: ApiKey,
    /// Send it as `Authorization: Bearer …`. The hub keeps only its digest.
    secret: String,
}

fn checked_name(text: &str) -> Result<&str> {
    let name = text.trim();
    if (1..=NAME_CHARS_MAX).contains(&name.chars().count()) && !name.contains(char::is_control) {
        Ok(name)
    } else {
        Err(Error::Invalid(format!(
            "`name` must be text of 1 to {NAME_CHARS_MAX} characters"
        )))
    }
}

fn checked_expiry(expires_us: Micros, now_us: Micros) -> Result<DateTime<Utc>> {
    if expires_us > now_us && expires_us.saturating_sub(now_us) <= VALID_US_MAX {
        Ok(time_from_us(expires_us))
    } else {
        Err(Error::Invalid(
            "`expires_us` must be after now and within a year".to_owned(),
        ))
    }
}

/// Makes a key.
#[utoipa::path(post, path = "/api-keys", operation_id = "create_api_key", tag = TAG, security(("bearer" = ["api_key.write"])),
    request_body = NewApiKey, responses((status = 201, description = "Made; the only answer with the secret", body = NewApiKeySecret)))]
pub async fn create_api_key(
    State(app): State<App>,
    caller: Caller,
    Json(new): Json<NewApiKey>,
) -> Result<Reply> {
    let (mut tx, grants) = caller.begin_granted(&app, Permission::ApiKeyWrite).await?;
    let name = checked_name(&new.name)?;
    let expires_at = checked_expiry(new.expires_us, app.clock.now_us())?;
    let permissions = parse(&new.permissions)?;
    if permissions.is_empty() {
        return Err(Error::Invalid("a key needs a permission".to_owned()));
    }
    check_held(&grants, permissions.iter().copied())?;
    check_reach(&permissions, new.plant_id.or(new.line_id).is_some())?;
    let id = Uuid::now_v7();
    let (secret, stored) = ApiKeySecret::make(tx.tenant(), id);
    let names: Vec<&str> = permissions.iter().map(|it| it.as_str()).collect();
    let created_at = tx.at();
    let made = sqlx::query(
        "INSERT INTO api_key (id, name, secret_sha256, permissions, plant_id, line_id, created_by, created_at, \
           expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(id)
    .bind(name)
    .bind(&stored.secret_sha256()[..])
    .bind(names)
    .bind(new.plant_id)
    .bind(new.line_id)
    .bind(caller.user_id())
    .bind(created_at)
    .bind(expires_at)
    .execute(tx.conn())
    .await;
    made.map_err(taken)?;
    let key = fetch(&mut tx, id, "").await?;
    tx.audit(&Deed::on("create", "api_key", id).after(&key));
    tx.event(&told("ApiKeyCreated", &key));
    tx.finish_secret(StatusCode::CREATED, &NewApiKeySecret { key, secret })
        .await
}

/// A permission over the whole tenant is worth nothing in a key for one line: its maker should know now.
fn check_reach(permissions: &BTreeSet<Permission>, is_local: bool) -> Result<()> {
    match permissions.iter().find(|it| is_local && !it.is_by_line()) {
        None => Ok(()),
        Some(wide) => Err(Error::Invalid(format!(
            "`{}` is about the whole tenant; a key for a plant or line cannot hold it",
            wide.as_str()
        ))),
    }
}

fn taken(source: sqlx::Error) -> Error {
    match &source {
        sqlx::Error::Database(refusal) if refusal.is_unique_violation() => {
            Error::Conflict("there is a key of this name already".to_owned())
        }
        _ => source.into(),
    }
}

/// Gives a key a new secret and a new end; the old secret stops working at once.
#[utoipa::path(post, path = "/api-keys/{id}/rotate", operation_id = "rotate_api_key", tag = TAG, security(("bearer" = ["api_key.write"])),
    params(("id" = Uuid, Path, description = "Key"), ("if-match" = String, Header, description = "The key's version, quoted")),
    request_body = ApiKeyRotation, responses(
        (status = 200, description = "Rotated; the only answer with the secret", body = NewApiKeySecret),
        (status = 412, description = "The key was changed by someone else", body = crate::error::Problem, content_type = "application/problem+json"),
        (status = 428, description = "`If-Match` is missing", body = crate::error::Problem, content_type = "application/problem+json")))]
pub async fn rotate_api_key(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<Uuid>,
    IfMatch(version): IfMatch,
    Json(given): Json<ApiKeyRotation>,
) -> Result<Reply> {
    let (mut tx, grants) = caller.begin_granted(&app, Permission::ApiKeyWrite).await?;
    let before = lock(&mut tx, &grants, id, version).await?;
    let expires_at = checked_expiry(given.expires_us, app.clock.now_us())?;
    let (secret, stored) = ApiKeySecret::make(tx.tenant(), id);
    sqlx::query(
        "UPDATE api_key SET secret_sha256 = $2, expires_at = $3, version = version + 1 WHERE id = $1",
    )
    .bind(id)
    .bind(&stored.secret_sha256()[..])
    .bind(expires_at)
    .execute(tx.conn())
    .await?;
    let key = fetch(&mut tx, id, "").await?;
    tx.audit(&Deed::on("rotate", "api_key", id).before(&before).after(&key));
    tx.event(&told("ApiKeyRotated", &key));
    tx.finish_secret(StatusCode::OK, &NewApiKeySecret { key, secret })
        .await
}

/// Revokes a key for good: it is refused from the next request on. The entry stays, because the audit chain refers
/// to it.
#[utoipa::path(delete, path = "/api-keys/{id}", operation_id = "revoke_api_key", tag = TAG, security(("bearer" = ["api_key.write"])),
    params(("id" = Uuid, Path, description = "Key"), ("if-match" = String, Header, description = "The key's version, quoted")),
    responses((status = 204, description = "Revoked")))]
pub async fn revoke_api_key(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<Uuid>,
    IfMatch(version): IfMatch,
) -> Result<Reply> {
    let (mut tx, grants) = caller.begin_granted(&app, Permission::ApiKeyWrite).await?;
    let before = lock(&mut tx, &grants, id, version).await?;
    let now = tx.at();
    sqlx::query("UPDATE api_key SET revoked_at = $2, version = version + 1 WHERE id = $1")
        .bind(id)
        .bind(now)
        .execute(tx.conn())
        .await?;
    let key = fetch(&mut tx, id, "").await?;
    tx.audit(&Deed::on("revoke", "api_key", id).before(&before).after(&key));
    tx.event(&told("ApiKeyRevoked", &key));
    tx.finish_empty().await
}

fn told(past: &'static str, key: &ApiKey) -> NewEvent {
    let facts = json!({ "name": key.name, "permissions": key.permissions, "expires_us": key.expires_us,
        "version": key.version });
    NewEvent::new(past, "api_key", key.id, facts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_ends_after_now_and_within_a_year() {
        let now_us = 1_700_000_000_000_000;
        assert!(checked_expiry(now_us + 1, now_us).is_ok());
        assert!(checked_expiry(now_us + VALID_US_MAX, now_us).is_ok());
        for wrong in [now_us, now_us + VALID_US_MAX + 1, i64::MIN, i64::MAX, 0] {
            assert!(checked_expiry(wrong, now_us).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_key_for_a_line_holds_nothing_over_the_whole_tenant() {
        let wide = BTreeSet::from([Permission::BatchRead, Permission::UserRead]);
        assert!(check_reach(&wide, false).is_ok());
        assert!(
            check_reach(&wide, true)
                .unwrap_err()
                .to_string()
                .contains("user.read")
        );
    }
}
