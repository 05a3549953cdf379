//! Which plants does the tenant run, and in which time zone do their people live?

use axum::{Json, extract::State};
use serde::Serialize;
use sqlx::FromRow;
use utoipa::ToSchema;
use uuid::Uuid;

use super::TAG;
use crate::{
    app::App,
    error::{Error, Result},
    kernel::{caller::Caller, permission::Permission},
    request::{ListQuery, Page, Path, Query, Rows},
};

/// A site.
#[derive(Debug, Serialize, FromRow, ToSchema)]
pub struct Plant {
    /// Stable id.
    pub id: Uuid,
    /// Short code, for example `akron`.
    pub code: String,
    /// Name for people.
    pub name: String,
    /// IANA time zone.
    pub zone: String,
}

/// Lists the tenant's plants by code.
#[utoipa::path(get, path = "/plant-ops/plants", operation_id = "list_plants", tag = TAG, security(("bearer" = ["plant.read"])), params(ListQuery),
    responses((status = 200, description = "Plants", body = Page<Plant>)))]
pub async fn list_plants(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<ListQuery>,
) -> Result<Json<Page<Plant>>> {
    let rows = Rows::parse(query.limit)?;
    let mut tx = caller.begin(&app, Permission::PlantRead).await?;
    let plants = sqlx::query_as(
        "SELECT id, code, name, zone FROM plant p WHERE $1::uuid IS NULL \
           OR p.code > (SELECT c.code FROM plant c WHERE c.id = $1) \
         ORDER BY p.code LIMIT $2",
    )
    .bind(query.cursor)
    .bind(rows.fetched())
    .fetch_all(tx.conn())
    .await?;
    Ok(Json(Page::of(plants, rows, |plant: &Plant| plant.id.to_string())))
}

/// Reads one plant.
#[utoipa::path(get, path = "/plant-ops/plants/{id}", operation_id = "read_plant", tag = TAG, security(("bearer" = ["plant.read"])),
    params(("id" = Uuid, Path, description = "Plant")),
    responses((status = 200, description = "The plant", body = Plant)))]
pub async fn read_plant(State(app): State<App>, caller: Caller, Path(id): Path<Uuid>) -> Result<Json<Plant>> {
    let mut tx = caller.begin(&app, Permission::PlantRead).await?;
    let plant = sqlx::query_as("SELECT id, code, name, zone FROM plant WHERE id = $1")
        .bind(id)
        .fetch_optional(tx.conn())
        .await?;
    plant.map(Json).ok_or(Error::NotFound { entity: "plant" })
}
