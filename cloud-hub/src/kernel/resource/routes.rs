//! Where is a record reached? Its routes, each opening the caller's transaction with the record's permission.

use axum::{
    extract::{RawQuery, State},
    http::StatusCode,
    response::Response,
    routing::{MethodRouter, get, post},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa_axum::router::OpenApiRouter;
use uuid::Uuid;

use super::{Resource, document::document, list, read, write};
use crate::{
    app::App,
    error::{Error, Result},
    kernel::{
        caller::Caller,
        export::{self, Asked, FormatParam},
        reply::Reply,
    },
    request::{IfMatch, Json, Path},
};

/// Most records created at once.
pub(super) const BULK_MAX: usize = 1000;

/// Records to be created together.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Bulk<T> {
    items: Vec<T>,
}

/// What was created together.
#[derive(Debug, Serialize)]
struct Created<T> {
    items: Vec<T>,
}

/// The routes of `R` with their OpenAPI operations.
pub fn routes<R: Resource>() -> OpenApiRouter<App> {
    let collection = get(list_rows::<R>).post(create_row::<R>);
    let bulk = post(create_rows::<R>);
    let item = get(read_row::<R>).patch(update_row::<R>).delete(delete_row::<R>);
    let export = get(export_rows::<R>);
    document::<R>(collection, bulk, export, item)
}

pub(super) type Routes = MethodRouter<App>;

async fn list_rows<R: Resource>(
    State(app): State<App>,
    caller: Caller,
    RawQuery(query): RawQuery,
) -> Result<axum::Json<crate::request::Page<R>>> {
    let params = list::ListParams::parse(query.as_deref().unwrap_or_default())?;
    let mut tx = caller.begin(&app, R::READ).await?;
    Ok(axum::Json(list::list::<R>(&mut tx, &params).await?))
}

async fn export_rows<R: Resource>(
    State(app): State<App>,
    caller: Caller,
    RawQuery(query): RawQuery,
) -> Result<Response> {
    let query = query.unwrap_or_default();
    let (FormatParam { format }, params) = list::export_params::<R>(&query)?;
    let statement = list::whole::<R>(&params)?;
    let tx = caller.begin(&app, R::READ).await?;
    let asked = Asked {
        entity: R::NAME,
        plural: R::PLURAL,
        query,
        format: format.unwrap_or_default(),
    };
    export::answer::<R>(&app, tx, asked, statement.bind()).await
}

async fn create_row<R: Resource>(
    State(app): State<App>,
    caller: Caller,
    Json(new): Json<R::New>,
) -> Result<Reply> {
    let mut tx = caller.begin(&app, R::WRITE).await?;
    let made = write::create::<R>(&mut tx, &new).await?;
    tx.finish(StatusCode::CREATED, &made).await
}

/// All or none; a refusal says which one was refused.
async fn create_rows<R: Resource>(
    State(app): State<App>,
    caller: Caller,
    Json(bulk): Json<Bulk<R::New>>,
) -> Result<Reply> {
    if !(1..=BULK_MAX).contains(&bulk.items.len()) {
        return Err(Error::Invalid(format!(
            "`items` must have 1 to {BULK_MAX} records"
        )));
    }
    let mut tx = caller.begin(&app, R::WRITE).await?;
    let mut items = Vec::with_capacity(bulk.items.len());
    for (place, new) in bulk.items.iter().enumerate() {
        let made = write::create::<R>(&mut tx, new)
            .await
            .map_err(|error| at(place, error))?;
        items.push(made);
    }
    tx.finish(StatusCode::CREATED, &Created { items }).await
}

fn at(place: usize, error: Error) -> Error {
    match error {
        Error::Invalid(what) => Error::Invalid(format!("items[{place}]: {what}")),
        Error::Conflict(what) => Error::Conflict(format!("items[{place}]: {what}")),
        other => other,
    }
}

async fn read_row<R: Resource>(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<Uuid>,
) -> Result<Reply> {
    let mut tx = caller.begin(&app, R::READ).await?;
    Reply::json(StatusCode::OK, &read::<R>(&mut tx, id).await?)
}

async fn update_row<R: Resource>(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<Uuid>,
    IfMatch(version): IfMatch,
    Json(given): Json<Map<String, Value>>,
) -> Result<Reply> {
    let patch: R::Patch =
        serde_json::from_value(Value::Object(given.clone())).map_err(|error| Error::Unreadable {
            status: StatusCode::UNPROCESSABLE_ENTITY,
            detail: error.to_string(),
        })?;
    let mut tx = caller.begin(&app, R::WRITE).await?;
    let after = write::update::<R>(&mut tx, id, version, &patch, &given).await?;
    tx.finish(StatusCode::OK, &after).await
}

async fn delete_row<R: Resource>(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<Uuid>,
    IfMatch(version): IfMatch,
) -> Result<Reply> {
    let mut tx = caller.begin(&app, R::WRITE).await?;
    write::delete::<R>(&mut tx, id, version).await?;
    tx.finish_empty().await
}
