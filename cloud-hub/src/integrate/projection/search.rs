//! Where is the record with this code or name? One list of everything that has one; a caller finds what they may read.

use std::{collections::BTreeMap, sync::OnceLock};

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::{AssertSqlSafe, FromRow, PgConnection};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::{Projection, Unfit};
use crate::{
    app::App,
    error::{Error, Result},
    integrate::event::DomainEvent,
    kernel::{
        caller::Caller,
        permission::Permission,
        scope::{Grants, Scope},
        tenancy::TenantTx,
    },
    request::Query,
    router,
};

const HITS_DEFAULT: i64 = 20;
const HITS_MAX: i64 = 50;
const TEXT_CHARS_MAX: usize = 200;

/// The table `search_entry`.
#[derive(Clone, Copy, Debug)]
pub struct SearchEntries;

/// What an event says of where a record is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryChange {
    /// It is found by these; one that is absent stays as it was.
    Put {
        /// Kind of record.
        entity: String,
        /// Which one.
        id: Uuid,
        /// Its code.
        code: Option<String>,
        /// Its name.
        title: Option<String>,
        /// The event.
        seq: i64,
    },
    /// It is gone.
    Remove {
        /// Kind of record.
        entity: String,
        /// Which one.
        id: Uuid,
    },
}

/// The first of these fields that is a text with something in it.
fn text(payload: &Value, fields: &[&str]) -> Option<String> {
    let texts = fields.iter().filter_map(|field| payload.get(*field)?.as_str());
    let found = texts.map(str::trim).find(|text| !text.is_empty())?;
    Some(found.chars().take(TEXT_CHARS_MAX).collect())
}

impl Projection for SearchEntries {
    const NAME: &'static str = "search_entry";
    type Change = EntryChange;

    fn change(event: &DomainEvent) -> Result<Option<EntryChange>, Unfit> {
        let (entity, id) = (event.aggregate.clone(), event.aggregate_id);
        if event.kind.ends_with("Deleted") {
            return Ok(Some(EntryChange::Remove { entity, id }));
        }
        if !event.payload.is_object() {
            return Err(Unfit("the event's payload is no object".to_owned()));
        }
        let code = text(&event.payload, &["code", "ccp"]);
        let title = text(
            &event.payload,
            &["name", "title", "display_name", "reason", "sku"],
        );
        if code.is_none() && title.is_none() {
            return Ok(None);
        }
        Ok(Some(EntryChange::Put {
            entity,
            id,
            code,
            title,
            seq: event.seq,
        }))
    }

    async fn write(
        conn: &mut PgConnection,
        generation: i32,
        change: &EntryChange,
    ) -> Result<(), sqlx::Error> {
        match change {
            EntryChange::Put {
                entity,
                id,
                code,
                title,
                seq,
            } => {
                sqlx::query(
                    "INSERT INTO search_entry AS s (generation, entity, id, code, title, event_seq) \
                     VALUES ($1, $2, $3, coalesce($4, ''), coalesce($5, ''), $6) \
                     ON CONFLICT (generation, entity, id) DO UPDATE SET code = coalesce($4, s.code), \
                       title = coalesce($5, s.title), event_seq = excluded.event_seq",
                )
                .bind(generation)
                .bind(entity)
                .bind(id)
                .bind(code)
                .bind(title)
                .bind(seq)
                .execute(conn)
                .await?;
            }
            EntryChange::Remove { entity, id } => {
                sqlx::query("DELETE FROM search_entry WHERE generation = $1 AND entity = $2 AND id = $3")
                    .bind(generation)
                    .bind(entity)
                    .bind(id)
                    .execute(conn)
                    .await?;
            }
        }
        Ok(())
    }
}

/// A kind of record that can be found.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Kind {
    context: String,
    path: String,
    permission: Permission,
}

/// What is read by its id can be found: the API's own description says which records those are, and who may read
/// them.
fn kinds() -> &'static BTreeMap<String, Kind> {
    static KINDS: OnceLock<BTreeMap<String, Kind>> = OnceLock::new();
    KINDS.get_or_init(|| {
        let document = serde_json::to_value(router::document()).unwrap_or_default();
        let paths = document.get("paths").and_then(Value::as_object);
        paths
            .into_iter()
            .flatten()
            .filter_map(|(path, item)| kind(path, item))
            .collect()
    })
}

fn kind(path: &str, item: &Value) -> Option<(String, Kind)> {
    let read = item.get("get")?;
    let entity = read.get("operationId")?.as_str()?.strip_prefix("read_")?;
    let stem = path.strip_suffix("/{id}")?;
    let context = path.strip_prefix("/api/v1/")?.split('/').next()?;
    let needs = read.pointer("/security/0/bearer/0")?.as_str()?;
    let is_name = entity.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    is_name.then_some(())?;
    Some((
        entity.to_owned(),
        Kind {
            context: context.to_owned(),
            path: stem.to_owned(),
            permission: Permission::parse(needs)?,
        },
    ))
}

/// A record that was found.
#[derive(Debug, Serialize, ToSchema)]
pub struct SearchHit {
    /// Kind of record.
    entity: String,
    /// Which one.
    id: Uuid,
    /// Its code; empty for what has none.
    code: String,
    /// Its name; empty for what has none.
    title: String,
    /// The part of the API it belongs to.
    context: String,
    /// Where it is read.
    path: String,
}

/// What was found, best first.
#[derive(Debug, Serialize, ToSchema)]
pub struct SearchHits {
    /// The records.
    items: Vec<SearchHit>,
}

/// What to look for.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct SearchQuery {
    /// Part of a code or a name, 1 to 200 characters.
    #[param(min_length = 1, max_length = 200)]
    q: String,
    /// Only records of this kind: `supplier`.
    entity: Option<String>,
    /// Most records, 1 to 50; 20 when absent.
    #[param(minimum = 1, maximum = 50)]
    limit: Option<i64>,
}

#[derive(Debug, FromRow)]
struct Row {
    entity: String,
    id: Uuid,
    code: String,
    title: String,
}

/// Finds records by their code or name among those the caller may read. What was changed a moment ago may not be
/// found yet.
#[utoipa::path(get, path = "/search", operation_id = "search_records", tag = "core", params(SearchQuery),
    responses((status = 200, description = "Records", body = SearchHits)))]
pub async fn search_records(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<SearchQuery>,
) -> Result<Json<SearchHits>> {
    let sought = query.q.trim();
    if !(1..=TEXT_CHARS_MAX).contains(&sought.chars().count()) {
        return Err(Error::Invalid(format!(
            "`q` must have 1 to {TEXT_CHARS_MAX} characters"
        )));
    }
    let limit = query.limit.unwrap_or(HITS_DEFAULT);
    if !(1..=HITS_MAX).contains(&limit) {
        return Err(Error::Invalid(format!("`limit` must be 1 to {HITS_MAX}")));
    }
    let (mut tx, grants) = caller.begin_signed_in(&app).await?;
    let mut rows = Vec::new();
    for (scope, entities) in readable(&grants, query.entity.as_deref()) {
        rows.extend(find(&mut tx, &scope, &entities, sought, limit).await?);
    }
    rows.sort_by_cached_key(|row| (rank(row, sought), row.title.to_lowercase(), row.id));
    rows.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    let items = rows.into_iter().filter_map(hit).collect();
    Ok(Json(SearchHits { items }))
}

fn hit(row: Row) -> Option<SearchHit> {
    let kind = kinds().get(&row.entity)?;
    Some(SearchHit {
        context: kind.context.clone(),
        path: format!("{}/{}", kind.path, row.id),
        entity: row.entity,
        id: row.id,
        code: row.code,
        title: row.title,
    })
}

/// The code itself, then codes with this beginning, then whatever has it in it.
fn rank(row: &Row, sought: &str) -> u8 {
    let (code, sought) = (row.code.to_lowercase(), sought.to_lowercase());
    match code {
        code if code == sought => 0,
        code if code.starts_with(&sought) => 1,
        _ => 2,
    }
}

/// What the caller may read, by where they may.
fn readable(grants: &Grants, only: Option<&str>) -> Vec<(Scope, Vec<&'static str>)> {
    let mut groups: Vec<(Scope, Vec<&'static str>)> = Vec::new();
    let asked = kinds()
        .iter()
        .filter(|(entity, _)| only.is_none_or(|only| only == *entity));
    for (entity, kind) in asked {
        let Some(scope) = grants.scope(kind.permission) else {
            continue;
        };
        match groups.iter_mut().find(|(known, _)| *known == scope) {
            Some((_, entities)) => entities.push(entity),
            None => groups.push((scope, vec![entity])),
        }
    }
    groups
}

async fn find(
    tx: &mut TenantTx,
    scope: &Scope,
    entities: &[&'static str],
    sought: &str,
    limit: i64,
) -> Result<Vec<Row>> {
    let visible = match scope {
        Scope::Everywhere => "true".to_owned(),
        Scope::Lines(_) => on_lines(tx, scope, entities).await?,
    };
    let sql = format!(
        "SELECT s.entity, s.id, s.code, s.title FROM search_entry s \
         JOIN projection p ON p.name = 'search_entry' AND p.generation = s.generation \
         WHERE s.entity = ANY($1) AND (s.code ILIKE $2 OR s.title ILIKE $2) AND {visible} \
         ORDER BY lower(s.code) = lower($3) DESC, starts_with(lower(s.code), lower($3)) DESC, lower(s.title), s.id \
         LIMIT $4"
    );
    let escaped = sought
        .replace('\\', "\\\\")
        .replace('%', "\\%")
        .replace('_', "\\_");
    let rows = sqlx::query_as(AssertSqlSafe(sql))
        .bind(entities)
        .bind(format!("%{escaped}%"))
        .bind(sought)
        .bind(limit)
        .fetch_all(tx.conn())
        .await?;
    Ok(rows)
}

/// Restricts the transaction to the caller's lines, and asks each kind's own table, whose policy knows which lines
/// its rows belong to. Names of tables come from the program's own description of its API.
async fn on_lines(tx: &mut TenantTx, scope: &Scope, entities: &[&'static str]) -> Result<String> {
    sqlx::query("SELECT set_config('foodflow.lines', $1, true)")
        .bind(scope.setting())
        .execute(tx.conn())
        .await?;
    let guarded: Vec<String> = sqlx::query_scalar(
        "SELECT relname::text FROM pg_class WHERE relnamespace = current_schema()::regnamespace \
         AND relname = ANY($1) AND relrowsecurity",
    )
    .bind(entities)
    .fetch_all(tx.conn())
    .await?;
    let arms = entities
        .iter()
        .filter(|entity| guarded.iter().any(|name| name == *entity))
        .map(|entity| format!("WHEN '{entity}' THEN EXISTS (SELECT FROM {entity} x WHERE x.id = s.id)"));
    let arms: Vec<String> = arms.collect();
    Ok(if arms.is_empty() {
        "true".to_owned()
    } else {
        format!("CASE s.entity {} ELSE true END", arms.join(" "))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(kind: &str, payload: Value) -> DomainEvent {
        DomainEvent {
            seq: 7,
            kind: kind.to_owned(),
            aggregate: "supplier".to_owned(),
            aggregate_id: Uuid::nil(),
            aggregate_seq: 1,
            at_us: 0,
            correlation_id: "c".to_owned(),
            payload,
        }
    }

    #[test]
    fn a_record_is_found_by_its_code_and_name_until_it_is_deleted() {
        let put = SearchEntries::change(&event(
            "SupplierCreated",
            json!({ "code": " S-1 ", "name": "Öl" }),
        ));
        let Ok(Some(EntryChange::Put { code, title, .. })) = put else {
            panic!("{put:?}")
        };
        assert_eq!((code.as_deref(), title.as_deref()), (Some("S-1"), Some("Öl")));
        assert_eq!(
            SearchEntries::change(&event("SupplierSeen", json!({ "code": "", "by": 1 }))),
            Ok(None)
        );
        assert!(matches!(
            SearchEntries::change(&event("SupplierDeleted", json!({ "code": "S-1" }))),
            Ok(Some(EntryChange::Remove { .. }))
        ));
        assert!(SearchEntries::change(&event("SupplierCreated", json!("text"))).is_err());
    }

    #[test]
    fn what_the_api_reads_by_id_can_be_found_with_the_permission_to_read_it() {
        let supplier = kinds().get("supplier").unwrap();
        assert_eq!(
            (
                supplier.context.as_str(),
                supplier.path.as_str(),
                supplier.permission
            ),
            ("fsq", "/api/v1/fsq/suppliers", Permission::SupplierRead)
        );
        assert!(kinds().contains_key("batch") && kinds().contains_key("hold"));
    }
}
