//! Which configuration should an edge have, and has it taken it? Every text that was sent is kept with its revision;
//! the same text again is no new revision and touches nothing.

use axum::{Json as Answer, extract::State, http::StatusCode};
use protocol::{Micros, command::Order};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};
use sqlx::FromRow;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::{
    TAG,
    command::{NewCommand, edge_id, lock_edge, ring},
};
use crate::{
    app::App,
    error::{Error, Result},
    kernel::{
        audit::Deed, caller::Caller, event::NewEvent, hex::hex, permission::Permission, reply::Reply,
        tenancy::TenantTx,
    },
    request::{Json, Page, Path, Query, Rows},
};

/// A whole configuration.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(
    missing_debug_implementations,
    reason = "it may carry passwords, which must not reach a log"
)]
pub struct EdgeConfigPut {
    /// The edge's whole file, at most 1 MiB. The edge validates it: what it cannot use, or what does not run well, it
    /// refuses or rolls back, and says so.
    #[schema(example = "[edge]\n", min_length = 1, max_length = 1_048_576)]
    toml: String,
    /// The revision that this one is made from; a later one is not overwritten.
    based_on: Option<i64>,
}

/// What an edge made of a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EdgeConfigState {
    /// It has not answered yet.
    Pending,
    /// It runs with it.
    Applied,
    /// It could not use it; `reason` says why.
    Refused,
    /// It did not run well with it and went back; `reason` says why.
    RolledBack,
    /// A later revision was sent before it answered.
    Superseded,
}

/// A revision of an edge's configuration, without its text.
#[derive(Debug, Clone, Serialize, FromRow, ToSchema)]
pub struct EdgeConfigRevision {
    /// Counts up by one a change.
    pub revision: i64,
    /// SHA-256 of the text, in hexadecimal digits.
    pub sha256: String,
    /// Who sent it, by name.
    pub created_by: String,
    /// When.
    pub created_us: Micros,
    /// The command that carries it.
    pub command_id: Uuid,
    /// What the edge made of it.
    #[schema(value_type = EdgeConfigState)]
    pub state: String,
    /// Why it was refused or rolled back, in the edge's words.
    pub reason: Option<String>,
}

/// A configuration with its text.
#[derive(Serialize, FromRow, ToSchema)]
#[expect(
    missing_debug_implementations,
    reason = "it may carry passwords, which must not reach a log"
)]
pub struct EdgeConfig {
    /// Which.
    #[serde(flatten)]
    #[sqlx(flatten)]
    pub revision: EdgeConfigRevision,
    /// The text.
    pub toml: String,
}

/// What sending a configuration led to.
#[derive(Debug, Serialize, ToSchema)]
pub struct EdgeConfigSent {
    /// The revision that the edge has or shall have.
    #[serde(flatten)]
    pub revision: EdgeConfigRevision,
    /// False when the text was the newest revision's already: nothing was sent.
    pub is_new: bool,
}

const COLUMNS: &str = "c.revision, c.sha256, c.created_by, \
    (extract(epoch FROM c.created_at) * 1000000)::bigint AS created_us, c.command_id, c.state, c.reason";

async fn newest(tx: &mut TenantTx, edge_id: Uuid) -> Result<Option<EdgeConfigRevision>> {
    let sql =
        format!("SELECT {COLUMNS} FROM edge_config c WHERE c.edge_id = $1 ORDER BY c.revision DESC LIMIT 1");
    let found = sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(edge_id);
    Ok(found.fetch_optional(tx.conn()).await?)
}

/// Sends an edge its configuration. The text of the newest revision again changes nothing, unless the edge had
/// refused it or gone back: then it is tried anew.
#[utoipa::path(put, path = "/edges/{name}/config", operation_id = "put_edge_config", tag = TAG, security(("bearer" = ["edge.configure"])),
    params(("name" = String, Path, description = "Edge")), request_body = EdgeConfigPut,
    responses((status = 200, description = "Kept, to be sent; or unchanged", body = EdgeConfigSent)))]
pub async fn put_edge_config(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
    Json(given): Json<EdgeConfigPut>,
) -> Result<Reply> {
    let mut tx = caller.begin(&app, Permission::EdgeConfigure).await?;
    let edge_id = lock_edge(&mut tx, &name).await?;
    if given.toml.trim().is_empty() || given.toml.contains('\0') {
        return Err(Error::Invalid("`toml` must be text that is not empty".to_owned()));
    }
    let known = newest(&mut tx, edge_id).await?;
    let last = known.as_ref().map_or(0, |known| known.revision);
    if given.based_on.is_some_and(|based_on| based_on != last) {
        return Err(Error::Stale {
            entity: "the edge's configuration",
        });
    }
    let sha256 = hex(&Sha256::digest(&given.toml));
    if let Some(same) = known
        .clone()
        .filter(|known| known.sha256 == sha256 && matches!(known.state.as_str(), "pending" | "applied"))
    {
        tx.commit_unaudited("nothing was changed; a row was locked to find that out")
            .await?;
        let unchanged = EdgeConfigSent {
            revision: same,
            is_new: false,
        };
        return Reply::json(StatusCode::OK, &unchanged);
    }
    let sent = send(&mut tx, edge_id, given.toml, (last + 1, sha256)).await?;
    let before = json!({ "revision": last, "sha256": known.map(|known| known.sha256) });
    tx.audit(
        &Deed::on("configure", "edge", edge_id)
            .before(before)
            .after(&sent.revision),
    );
    let told = json!({ "name": name, "revision": sent.revision.revision, "sha256": sent.revision.sha256 });
    tx.event(&NewEvent::new("EdgeConfigured", "edge", edge_id, told));
    let reply = tx.finish(StatusCode::OK, &sent).await?;
    ring(&app, &caller.tenant, &name);
    Ok(reply)
}

/// Stores the next revision and its command in place of those that were not answered yet.
async fn send(
    tx: &mut TenantTx,
    edge_id: Uuid,
    toml: String,
    (revision, sha256): (i64, String),
) -> Result<EdgeConfigSent> {
    for sql in [
        "UPDATE edge_config SET state = 'superseded' WHERE edge_id = $1 AND state = 'pending'",
        "UPDATE edge_command SET state = 'superseded' WHERE edge_id = $1 AND kind = 'configure' \
           AND state IN ('waiting', 'sent')",
    ] {
        sqlx::query(sql).bind(edge_id).execute(tx.conn()).await?;
    }
    let (by, now) = (tx.actor().display(), tx.at());
    let order = Order::Configure {
        revision: revision.unsigned_abs(),
        toml: toml.clone(),
    };
    let command = NewCommand::new(edge_id, order, &by, now, None)?;
    command.store(tx).await?;
    sqlx::query(
        "INSERT INTO edge_config (edge_id, revision, toml, sha256, created_by, created_at, command_id) \
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(edge_id)
    .bind(revision)
    .bind(toml)
    .bind(sha256)
    .bind(by)
    .bind(now)
    .bind(command.id)
    .execute(tx.conn())
    .await?;
    let stored = newest(tx, edge_id).await?;
    Ok(EdgeConfigSent {
        revision: stored.ok_or(Error::NotFound {
            entity: "configuration",
        })?,
        is_new: true,
    })
}

/// Which revision.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ConfigQuery {
    /// One that was sent earlier; the newest when absent.
    #[param(minimum = 1)]
    revision: Option<i64>,
}

/// Reads the configuration that an edge was sent last, or an earlier one.
#[utoipa::path(get, path = "/edges/{name}/config", operation_id = "read_edge_config", tag = TAG, security(("bearer" = ["edge.configure"])),
    params(("name" = String, Path, description = "Edge"), ConfigQuery),
    responses((status = 200, description = "The configuration", body = EdgeConfig)))]
pub async fn read_edge_config(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
    Query(query): Query<ConfigQuery>,
) -> Result<Answer<EdgeConfig>> {
    let mut tx = caller.begin(&app, Permission::EdgeConfigure).await?;
    let edge_id = edge_id(&mut tx, &name).await?;
    let sql = format!(
        "SELECT {COLUMNS}, c.toml FROM edge_config c WHERE c.edge_id = $1 AND ($2::bigint IS NULL OR c.revision = $2) \
         ORDER BY c.revision DESC LIMIT 1"
    );
    let found = sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(edge_id)
        .bind(query.revision);
    let found: Option<EdgeConfig> = found.fetch_optional(tx.conn()).await?;
    found.map(Answer).ok_or(Error::NotFound {
        entity: "configuration",
    })
}

/// One page of revisions.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct RevisionQuery {
    /// `next` of the page before.
    cursor: Option<i64>,
    /// Rows per page, 1 to 200.
    limit: Option<i64>,
}

/// Lists the revisions of an edge's configuration, newest first, each with what the edge made of it.
#[utoipa::path(get, path = "/edges/{name}/config/revisions", operation_id = "list_edge_config_revisions", tag = TAG, security(("bearer" = ["edge.configure"])),
    params(("name" = String, Path, description = "Edge"), RevisionQuery),
    responses((status = 200, description = "Revisions", body = Page<EdgeConfigRevision>)))]
pub async fn list_edge_config_revisions(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
    Query(query): Query<RevisionQuery>,
) -> Result<Answer<Page<EdgeConfigRevision>>> {
    let rows = Rows::parse(query.limit)?;
    let mut tx = caller.begin(&app, Permission::EdgeConfigure).await?;
    let edge_id = edge_id(&mut tx, &name).await?;
    let sql = format!(
        "SELECT {COLUMNS} FROM edge_config c WHERE c.edge_id = $1 AND ($2::bigint IS NULL OR c.revision < $2) \
         ORDER BY c.revision DESC LIMIT $3"
    );
    let found: Vec<EdgeConfigRevision> = sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(edge_id)
        .bind(query.cursor)
        .bind(rows.fetched())
        .fetch_all(tx.conn())
        .await?;
    Ok(Answer(Page::of(found, rows, |it: &EdgeConfigRevision| {
        it.revision.to_string()
    })))
}
