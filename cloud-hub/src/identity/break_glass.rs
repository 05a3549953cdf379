//! What if somebody can neither sign in nor read their mail? Two administrators reset the password together: the
//! first asks and says why, the second approves and gets a code to hand over. Neither can do it alone, and both are
//! on record.

use axum::{extract::State, http::StatusCode};
use chrono::TimeDelta;
use protocol::Micros;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    TAG,
    one_time::{self, Purpose},
};
use crate::{
    app::App,
    error::{Error, Result},
    kernel::{
        audit::Deed,
        caller::{Caller, Principal},
        event::NewEvent,
        permission::Permission,
        reply::Reply,
        tenancy::TenantTx,
    },
    request::{Json, Path},
};

/// How long a request waits for its second person.
const WAITS_FOR: TimeDelta = TimeDelta::hours(1);
const REASON_CHARS_MAX: usize = 500;

/// Why the password is to be reset without the account's mailbox.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BreakGlassReason {
    /// 1 to 500 characters; both administrators give theirs.
    #[schema(min_length = 1, max_length = 500)]
    reason: String,
}

/// Where a break-glass reset stands.
#[derive(Serialize, ToSchema)]
#[expect(
    missing_debug_implementations,
    reason = "it carries a token, which must not reach a log"
)]
pub struct BreakGlass {
    /// Stable id.
    id: Uuid,
    /// The account whose password is to be reset.
    user_id: Uuid,
    /// Whether a second administrator has approved.
    is_approved: bool,
    /// The administrator who asked.
    requested_by: Uuid,
    /// How long it waits for approval; once approved, how long the token is good.
    expires_us: Micros,
    /// Once approved: sets a new password at `auth/password-reset/confirm`. Shown once.
    reset_token: Option<String>,
}

/// Asks for a reset, or as a second administrator approves it and gets the token.
#[utoipa::path(post, path = "/users/{id}/break-glass", operation_id = "break_glass", tag = TAG,
    security(("bearer" = ["user.write"])), params(("id" = Uuid, Path, description = "Account")),
    request_body = BreakGlassReason,
    responses((status = 200, description = "Approved: the token is in the answer", body = BreakGlass),
        (status = 202, description = "Asked: another administrator must approve", body = BreakGlass)))]
pub async fn break_glass(
    State(app): State<App>,
    caller: Caller,
    Path(user_id): Path<Uuid>,
    Json(given): Json<BreakGlassReason>,
) -> Result<Reply> {
    let reason = given.reason.trim();
    if !(1..=REASON_CHARS_MAX).contains(&reason.chars().count()) || reason.contains(char::is_control) {
        return Err(Error::Invalid(format!(
            "`reason` must have 1 to {REASON_CHARS_MAX} characters, none of them a control character"
        )));
    }
    let mut tx = caller.begin(&app, Permission::UserWrite).await?;
    let is_active: Option<bool> =
        sqlx::query_scalar("SELECT is_active FROM app_user WHERE id = $1 FOR UPDATE")
            .bind(user_id)
            .fetch_optional(tx.conn())
            .await?;
    let is_active = is_active.ok_or(Error::NotFound { entity: "user" })?;
    let Principal::User { id: admin, .. } = caller.principal else {
        return Err(Error::Conflict(
            "two persons are needed; this caller is none".to_owned(),
        ));
    };
    if admin == user_id {
        return Err(Error::Conflict(
            "nobody resets their own password this way".to_owned(),
        ));
    }
    if !is_active {
        return Err(Error::Conflict("the account is suspended".to_owned()));
    }
    tx.because(reason);
    match waiting(&mut tx, user_id).await? {
        Some((_, first)) if first == admin => Err(Error::Conflict(
            "you have asked already; another administrator must approve".to_owned(),
        )),
        Some((id, first)) => approve(tx, id, user_id, first, admin).await,
        None => request(tx, user_id, admin, reason).await,
    }
}

async fn waiting(tx: &mut TenantTx, user_id: Uuid) -> Result<Option<(Uuid, Uuid)>> {
    let now = tx.at();
    Ok(sqlx::query_as(
        "SELECT id, requested_by FROM break_glass \
         WHERE user_id = $1 AND approved_at IS NULL AND expires_at > $2 ORDER BY id DESC LIMIT 1",
    )
    .bind(user_id)
    .bind(now)
    .fetch_optional(tx.conn())
    .await?)
}

async fn request(mut tx: TenantTx, user_id: Uuid, admin: Uuid, reason: &str) -> Result<Reply> {
    let (id, now) = (Uuid::now_v7(), tx.at());
    let expires_at = now + WAITS_FOR;
    sqlx::query(
        "INSERT INTO break_glass (id, user_id, reason, requested_by, requested_at, expires_at) \
         VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(id)
    .bind(user_id)
    .bind(reason)
    .bind(admin)
    .bind(now)
    .bind(expires_at)
    .execute(tx.conn())
    .await?;
    tx.audit(&Deed::on("request_break_glass", "app_user", user_id).after(json!({ "break_glass_id": id })));
    let facts = json!({ "break_glass_id": id, "requested_by": admin });
    tx.event(&NewEvent::new("BreakGlassRequested", "app_user", user_id, facts));
    let answer = BreakGlass {
        id,
        user_id,
        is_approved: false,
        requested_by: admin,
        expires_us: expires_at.timestamp_micros(),
        reset_token: None,
    };
    tx.finish(StatusCode::ACCEPTED, &answer).await
}

async fn approve(mut tx: TenantTx, id: Uuid, user_id: Uuid, first: Uuid, admin: Uuid) -> Result<Reply> {
    let now = tx.at();
    sqlx::query("UPDATE break_glass SET approved_by = $2, approved_at = $3 WHERE id = $1")
        .bind(id)
        .bind(admin)
        .bind(now)
        .execute(tx.conn())
        .await?;
    let token = one_time::issue(&mut tx, user_id, Purpose::ResetPassword).await?;
    tx.audit(&Deed::on("approve_break_glass", "app_user", user_id).after(json!({ "break_glass_id": id })));
    let facts = json!({ "break_glass_id": id, "requested_by": first, "approved_by": admin });
    tx.event(&NewEvent::new("BreakGlassApproved", "app_user", user_id, facts));
    let answer = BreakGlass {
        id,
        user_id,
        is_approved: true,
        requested_by: first,
        expires_us: (now + Purpose::ResetPassword.valid_for()).timestamp_micros(),
        reset_token: Some(token),
    };
    tx.finish_secret(StatusCode::OK, &answer).await
}
