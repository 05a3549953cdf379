//! Who lets an edge in, and who puts it out? One-time codes are made, listed and withdrawn; a revoked edge is
//! disconnected at once and gets in again only with a new code.

use axum::{Extension, Json as Answer, extract::State, http::StatusCode};
use chrono::{DateTime, Utc};
use protocol::Micros;
use serde::{Deserialize, Serialize};
use sqlx::FromRow;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{TAG, directory::EdgeDirectory};
use crate::{
    app::App,
    broker::{Device, Sessions},
    error::{Error, Result},
    kernel::{audit::Deed, caller::Caller, permission::Permission, reply::Reply},
    request::{Json, ListQuery, Page, Path, Query, Rows},
    tenant::enrolment::{self, EnrolError},
};

/// Shuts out an edge whose credentials were taken away.
#[derive(Clone, Debug)]
pub struct Gate {
    directory: EdgeDirectory,
    sessions: Sessions,
}

impl Gate {
    /// The gate of a hub's broker.
    pub fn new(directory: EdgeDirectory, sessions: Sessions) -> Self {
        Self { directory, sessions }
    }

    fn shut(&self, device: &Device) {
        self.directory.forget(device);
        self.sessions.expel(device);
    }
}

/// For which edge.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewEnrollCode {
    /// Its name: 1 to 63 of a-z, 0-9, `-` and `_`, not starting with `-`. An edge of that name that is there already
    /// gets new credentials when it uses the code.
    #[schema(pattern = "^[a-z0-9_][a-z0-9_-]{0,62}$")]
    edge: String,
}

/// A code with its secret, which is shown this once.
#[derive(Serialize, ToSchema)]
#[expect(
    missing_debug_implementations,
    reason = "it carries a code, which must not reach a log"
)]
pub struct NewEnrollCodeSecret {
    /// Names the code in the list.
    id: Uuid,
    /// The edge that may use it.
    edge: String,
    /// What the edge presents, once.
    code: String,
    /// Until when.
    expires_us: Micros,
}

/// A code that was not used yet, without its secret.
#[derive(Debug, Serialize, ToSchema)]
pub struct EnrollCode {
    /// Stable id.
    id: Uuid,
    /// The edge that may use it.
    edge: String,
    /// When it was made.
    created_us: Micros,
    /// Who made it, by name; null where that was not noted.
    created_by: Option<String>,
    /// Until when it may be used.
    expires_us: Micros,
}

#[derive(FromRow)]
struct Row {
    id: Uuid,
    edge_name: String,
    created_at: DateTime<Utc>,
    created_by: Option<String>,
    expires_at: DateTime<Utc>,
}

impl From<Row> for EnrollCode {
    fn from(row: Row) -> Self {
        Self {
            id: row.id,
            edge: row.edge_name,
            created_us: row.created_at.timestamp_micros(),
            created_by: row.created_by,
            expires_us: row.expires_at.timestamp_micros(),
        }
    }
}

impl From<EnrolError> for Error {
    fn from(error: EnrolError) -> Self {
        match error {
            EnrolError::BadName(_) | EnrolError::Request(_) => Self::Invalid(error.to_string()),
            EnrolError::BadCode => Self::Unauthenticated("the code is not valid"),
            EnrolError::Tenancy(source) => source.into(),
        }
    }
}

/// Makes a one-time code with which an edge gets its credentials.
#[utoipa::path(post, path = "/edges/enroll-codes", operation_id = "create_enroll_code", tag = TAG, security(("bearer" = ["edge.enroll"])),
    request_body = NewEnrollCode, responses((status = 201, description = "Made; the only answer with the code", body = NewEnrollCodeSecret)))]
pub async fn create_enroll_code(
    State(app): State<App>,
    caller: Caller,
    Json(new): Json<NewEnrollCode>,
) -> Result<Reply> {
    let mut tx = caller.begin(&app, Permission::EdgeEnroll).await?;
    let made = enrolment::issue_code(&mut tx, &new.edge, app.clock.now()).await?;
    let shown = NewEnrollCodeSecret {
        id: made.id,
        edge: new.edge,
        code: made.code.expose().to_owned(),
        expires_us: made.expires_at.timestamp_micros(),
    };
    tx.finish_secret(StatusCode::CREATED, &shown).await
}

/// Lists the codes that can still be used, newest first, without their secrets.
#[utoipa::path(get, path = "/edges/enroll-codes", operation_id = "list_enroll_codes", tag = TAG, security(("bearer" = ["edge.enroll"])),
    params(ListQuery), responses((status = 200, description = "Codes", body = Page<EnrollCode>)))]
pub async fn list_enroll_codes(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<ListQuery>,
) -> Result<Answer<Page<EnrollCode>>> {
    let rows = Rows::parse(query.limit)?;
    let mut tx = caller.begin(&app, Permission::EdgeEnroll).await?;
    tx.step_out().await?;
    let found: Vec<Row> = sqlx::query_as(
        "SELECT c.id, c.edge_name, c.created_at, c.created_by, c.expires_at FROM platform.enroll_code c \
         JOIN platform.tenant t ON t.id = c.tenant_id WHERE t.slug = $1 AND c.used_at IS NULL \
           AND c.withdrawn_at IS NULL AND c.expires_at > $2 AND ($3::uuid IS NULL OR c.id < $3) \
         ORDER BY c.id DESC LIMIT $4",
    )
    .bind(caller.tenant.as_str())
    .bind(app.clock.now())
    .bind(query.cursor)
    .bind(rows.fetched())
    .fetch_all(tx.conn())
    .await?;
    let codes = found.into_iter().map(EnrollCode::from).collect();
    Ok(Answer(Page::of(codes, rows, |code: &EnrollCode| {
        code.id.to_string()
    })))
}

/// Withdraws a code that was not used yet.
#[utoipa::path(delete, path = "/edges/enroll-codes/{id}", operation_id = "withdraw_enroll_code", tag = TAG, security(("bearer" = ["edge.enroll"])),
    params(("id" = Uuid, Path, description = "Code")), responses((status = 204, description = "Withdrawn")))]
pub async fn withdraw_enroll_code(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<Uuid>,
) -> Result<Reply> {
    let mut tx = caller.begin(&app, Permission::EdgeEnroll).await?;
    tx.step_out().await?;
    let withdrawn: Option<String> = sqlx::query_scalar(
        "UPDATE platform.enroll_code c SET withdrawn_at = $3 FROM platform.tenant t WHERE t.id = c.tenant_id \
           AND t.slug = $1 AND c.id = $2 AND c.used_at IS NULL AND c.withdrawn_at IS NULL RETURNING c.edge_name",
    )
    .bind(caller.tenant.as_str())
    .bind(id)
    .bind(app.clock.now())
    .fetch_optional(tx.conn())
    .await?;
    tx.step_in().await?;
    let edge = withdrawn.ok_or(Error::NotFound {
        entity: "enrolment code",
    })?;
    let was = serde_json::json!({ "edge": edge });
    tx.audit(&Deed::on("withdraw", "enroll_code", id).before(was));
    tx.finish_empty().await
}

/// Takes an edge's credentials away and disconnects it at once. It gets in again only by enrolling with a new code;
/// what it has stored meanwhile is not lost. Doing it twice changes nothing.
#[utoipa::path(post, path = "/edges/{name}/revoke", operation_id = "revoke_edge", tag = TAG, security(("bearer" = ["edge.enroll"])),
    params(("name" = String, Path, description = "Edge")), responses((status = 204, description = "Out")))]
pub async fn revoke_edge(
    State(app): State<App>,
    Extension(gate): Extension<Gate>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Reply> {
    let mut tx = caller.begin(&app, Permission::EdgeEnroll).await?;
    // What is no name is nobody's: it would not even be a value that the database can hold.
    let is_known =
        protocol::topic::is_name(&name) && enrolment::revoke(&mut tx, &name, app.clock.now()).await?;
    if !is_known {
        return Err(Error::NotFound { entity: "edge" });
    }
    let reply = tx.finish_empty().await?;
    gate.shut(&Device {
        tenant: caller.tenant.as_str().to_owned(),
        name,
    });
    Ok(reply)
}
