//! How does every table of a tenant get a row? From the database's own description of it, so that a table that is
//! new is filled like every other. Each text of a row carries a mark by which it is known wherever it turns up.

use std::collections::BTreeMap;

use chrono::{SecondsFormat, Utc};
use cloud_hub::kernel::tenancy::TenantSlug;
use serde_json::{Map, Value, json};
use sqlx::{AssertSqlSafe, ConnectOptions, FromRow, PgConnection};
use uuid::Uuid;

use crate::{
    specimen::{self, Given, Operation, Parameter},
    support::TestHub,
};

/// Tables that nobody fills by hand: the chain and the event store are written by deeds, the others by the fleet's
/// migration, by the clock and by retention.
const BY_DEEDS: &[&str] = &[
    "audit_event",
    "audit_root",
    "domain_event",
    "schema_migration",
    "storage_horizon",
];

/// Columns whose values must have a form that the database's description does not tell.
const FORMS: &[(&str, &str)] = &[
    ("plant.zone", "America/New_York"),
    ("signature.record", "{}"),
    ("app_user.role", "operator"),
    ("address.country", "US"),
    ("location.phone", "+1 330 555 0100"),
    ("location.gln", "0614141000012"),
    ("contact.phone", "+1 330 555 0100"),
    ("label.colour", "#2f855a"),
    // What is on a record is on a plant: `COLUMNS` says so.
    ("contact.entity", "plant"),
    ("note.entity", "plant"),
    ("label_use.entity", "plant"),
    ("attachment.entity", "plant"),
    ("frame.lane", "1"),
    ("alarm_state.span", "0"),
    ("alarm_rule.kind", "no_data"),
    ("alarm_rule.season", "none"),
    ("role_permission.permission", "plant.read"),
    ("vision_result.defects", "[]"),
    ("identity_provider.role_mapping", "[]"),
];

/// Rows by table, as JSON.
pub(crate) type Rows = BTreeMap<String, Vec<Value>>;

#[derive(Debug, FromRow)]
struct Column {
    relation: String,
    name: String,
    kind: String,
    is_needed: bool,
    has_default: bool,
    /// Table and column it refers to.
    parent: Option<String>,
    parent_key: Option<String>,
    /// Constraints that name this column alone, as SQL.
    checks: String,
}

const COLUMNS: &str = "
SELECT c.relname::text AS relation, a.attname::text AS name, format_type(a.atttypid, NULL) AS kind,
    a.attnotnull AS is_needed, a.atthasdef OR a.attidentity <> '' AS has_default,
    coalesce((SELECT p.relname::text FROM pg_constraint f JOIN pg_class p ON p.oid = f.confrelid
        WHERE f.conrelid = c.oid AND f.contype = 'f' AND a.attnum = ANY (f.conkey) LIMIT 1),
        CASE WHEN a.attname = 'entity_id' AND a.atttypid = 'uuid'::regtype THEN 'plant' END) AS parent,
    coalesce((SELECT k.attname::text FROM pg_constraint f JOIN pg_attribute k ON k.attrelid = f.confrelid
            AND k.attnum = f.confkey[array_position(f.conkey, a.attnum)]
        WHERE f.conrelid = c.oid AND f.contype = 'f' AND a.attnum = ANY (f.conkey) LIMIT 1),
        CASE WHEN a.attname = 'entity_id' AND a.atttypid = 'uuid'::regtype THEN 'id' END) AS parent_key,
    coalesce((SELECT string_agg(pg_get_constraintdef(k.oid), ' ') FROM pg_constraint k
        WHERE k.conrelid = c.oid AND k.contype = 'c' AND k.conkey = ARRAY[a.attnum]), '') AS checks
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relnamespace = $1::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
    AND a.attgenerated = ''
ORDER BY c.relname, a.attnum";

/// A connection of the owner of all tables.
pub(crate) async fn owner(hub: &TestHub) -> PgConnection {
    let owner = hub.hub.app.owner.as_ref().expect("a test knows the owner");
    owner.requests.connect().await.unwrap()
}

/// Puts `count` rows, two at least, into every table of a tenant; texts start with `mark`, lower-case letters and digits.
///
/// # Panics
/// When a table cannot be filled: it needs a line in [`FORMS`].
pub(crate) async fn fill(owner: &mut PgConnection, tenant: &TenantSlug, mark: &str, count: usize) -> Rows {
    let schema = tenant.schema();
    sqlx::raw_sql(AssertSqlSafe(format!("SET search_path TO {schema}, public")))
        .execute(&mut *owner)
        .await
        .unwrap();
    let columns: Vec<Column> = sqlx::query_as(COLUMNS)
        .bind(&schema)
        .fetch_all(&mut *owner)
        .await
        .unwrap();
    let mut tables: BTreeMap<&str, Vec<&Column>> = BTreeMap::new();
    for column in columns
        .iter()
        .filter(|column| !BY_DEEDS.contains(&column.relation.as_str()))
    {
        tables.entry(&column.relation).or_default().push(column);
    }
    let mut rows = Rows::new();
    for table in order(&tables) {
        for number in 0..count {
            // `line` alone is a type of PostgreSQL's own.
            let made = insert(
                owner,
                &format!("{schema}.{table}"),
                &tables[table],
                mark,
                &rows,
                number,
            )
            .await;
            rows.entry(table.to_owned()).or_default().push(made);
        }
    }
    rows.insert(
        "enroll_code".to_owned(),
        enrol(owner, tenant, mark, &rows["edge"]).await,
    );
    // Tenants are named in paths too, and stand in no schema of their own.
    rows.insert(
        "tenant".to_owned(),
        vec![json!({ "slug": tenant.as_str() }); count],
    );
    rows
}

/// Who an edge is and with which code the next one gets in is known to the platform, not to the tenant's schema:
/// lets each edge in, and gives it a code that nobody has used.
async fn enrol(owner: &mut PgConnection, tenant: &TenantSlug, mark: &str, edges: &[Value]) -> Vec<Value> {
    let mut codes = Vec::new();
    for edge in edges {
        let name = edge["name"].as_str().expect("an edge has a name");
        sqlx::query(
            "INSERT INTO platform.edge_registry (tenant_id, name, secret_sha256) \
             SELECT id, $2, sha256(convert_to($2, 'UTF8')) FROM platform.tenant WHERE slug = $1",
        )
        .bind(tenant.as_str())
        .bind(name)
        .execute(&mut *owner)
        .await
        .unwrap();
        let code = sqlx::query_scalar(
            "INSERT INTO platform.enroll_code AS c (code_sha256, tenant_id, edge_name, expires_at, created_by) \
             SELECT sha256(convert_to($1 || ' ' || $2, 'UTF8')), id, $2, now() + interval '1 hour', $3 \
             FROM platform.tenant WHERE slug = $1 RETURNING to_jsonb(c)",
        )
        .bind(tenant.as_str())
        .bind(name)
        .bind(mark)
        .fetch_one(&mut *owner)
        .await
        .unwrap();
        codes.push(code);
    }
    codes
}

/// Tables after those they refer to.
fn order<'a>(tables: &BTreeMap<&'a str, Vec<&Column>>) -> Vec<&'a str> {
    let mut ordered: Vec<&str> = Vec::new();
    while ordered.len() < tables.len() {
        let ready = tables.iter().find(|(table, columns)| {
            let parents = columns.iter().filter_map(|column| column.parent.as_deref());
            !ordered.contains(table)
                && parents
                    .into_iter()
                    .all(|parent| parent == **table || ordered.contains(&parent))
        });
        // A circle of tables: the first of those that are left goes without its optional parents.
        let next = ready.or_else(|| tables.iter().find(|(table, _)| !ordered.contains(*table)));
        ordered.push(next.expect("some table is left").0);
    }
    ordered
}

/// With all that may be filled; where a constraint refuses that, with what must be.
async fn insert(
    owner: &mut PgConnection,
    table: &str,
    columns: &[&Column],
    mark: &str,
    rows: &Rows,
    number: usize,
) -> Value {
    let mut refusals = Vec::new();
    for is_generous in [true, false] {
        let mut row = Map::new();
        for column in columns {
            // Where a row refers to two of a kind, they are two.
            let before = columns.iter().take_while(|it| it.name != column.name);
            let number = number
                + before
                    .filter(|it| it.parent.is_some() && it.parent == column.parent)
                    .count();
            if let Some(value) = value(column, mark, rows, number, is_generous) {
                row.insert(column.name.clone(), value);
            }
        }
        let names: Vec<String> = row.keys().map(|name| format!("\"{name}\"")).collect();
        let names = names.join(", ");
        let sql = format!(
            "INSERT INTO {table} AS t ({names}) SELECT {names} FROM jsonb_populate_record(null::{table}, $1) \
             RETURNING to_jsonb(t)"
        );
        match sqlx::query_scalar(AssertSqlSafe(sql))
            .bind(Value::Object(row))
            .fetch_one(&mut *owner)
            .await
        {
            Ok(made) => return made,
            Err(error) => refusals.push(error),
        }
    }
    panic!("`{table}` cannot be filled; tell the form of its columns in FORMS: {refusals:#?}");
}

fn value(column: &Column, mark: &str, rows: &Rows, number: usize, is_generous: bool) -> Option<Value> {
    let is_due = column.is_needed && !column.has_default;
    if let (Some(parent), Some(key)) = (&column.parent, &column.parent_key) {
        let known = rows.get(parent).map(|rows| &rows[number % rows.len()]);
        return known
            .filter(|_| is_due || is_generous)
            .map(|row| row[key].clone());
    }
    let is_text = matches!(column.kind.as_str(), "text" | "jsonb" | "text[]" | "bytea");
    let is_welcome = is_generous && is_text && !column.checks.contains("ARRAY[");
    if !(is_due || is_welcome) {
        return None;
    }
    let place = format!("{}.{}", column.relation, column.name);
    if let Some((_, form)) = FORMS.iter().find(|(known, _)| *known == place) {
        let is_json = column.kind == "jsonb";
        return Some(if is_json {
            serde_json::from_str(form).unwrap()
        } else {
            json!(form)
        });
    }
    Some(match column.kind.as_str() {
        "uuid" => json!(Uuid::now_v7()),
        "text" => json!(option(&column.checks).map_or_else(|| text(column, mark, number), str::to_owned)),
        "jsonb" => json!({ "mark": mark }),
        "text[]" => json!([format!("{mark}{number}")]),
        "bytea" => json!(format!("\\x{}", digest(mark, &column.relation, number))),
        "boolean" => json!(false),
        "date" => json!("2026-01-31"),
        "timestamp with time zone" => json!(Utc::now().to_rfc3339_opts(SecondsFormat::Micros, true)),
        // Over, so that it is in nobody's way.
        "tstzrange" => json!(format!("[2026-01-{:02},2026-01-{:02})", number + 1, number + 2)),
        array if array.ends_with("[]") => json!([]),
        // Numbers: small, and different where the key is one.
        _ => json!(number + 1),
    })
}

/// The first of a list of allowed words.
fn option(checks: &str) -> Option<&str> {
    checks.split_once("ARRAY['")?.1.split('\'').next()
}

fn text(column: &Column, mark: &str, number: usize) -> String {
    let word = format!("{mark}{}{number}", column.relation.replace('_', ""));
    match column.name.as_str() {
        "email" => format!("{word}@example.org"),
        name if name.ends_with("url") => format!("https://127.0.0.1:9/{word}"),
        // A name that there never is (RFC 6761): no provider answers, and none is in the hub's own network.
        "issuer" => format!("https://{word}.invalid"),
        name if name.ends_with("sha256") => digest(mark, &column.relation, number),
        _ => word,
    }
}

/// 32 bytes in hexadecimal that tell the mark.
fn digest(mark: &str, table: &str, number: usize) -> String {
    let text = format!("{mark} {number} {table}");
    let bytes = format!("{text:x<32}").into_bytes();
    bytes[..32]
        .iter()
        .fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}

/// What the variables of an operation's path may stand for: each row with its columns by name, `id` also as
/// `{noun}_id` says it.
pub(crate) fn candidates(operation: &Operation, rows: &Rows, number: usize) -> Vec<(String, Given)> {
    let head = operation
        .path
        .split("/{")
        .next()
        .and_then(|head| head.rsplit('/').next());
    let noun = match head.unwrap_or_default() {
        // A sensor is known by its tag.
        "sensors" => "tag".to_owned(),
        head => head.trim_end_matches('s').replace('-', "_"),
    };
    let mut found = Vec::new();
    for (table, rows) in rows {
        // A number names something only in the table that the path is about.
        let is_named = table.contains(&noun) || noun.contains(table.as_str());
        let is_number = operation
            .variables
            .iter()
            .any(|it| specimen::kind(&it.schema) == "integer");
        if is_number && !is_named {
            continue;
        }
        let Some(row) = rows.get(number) else { continue };
        let of = |variable: &Parameter| {
            let name = variable.name.as_str();
            let longer = if name == "id" {
                format!("{noun}_id")
            } else {
                format!("{noun}_{name}")
            };
            // A part that is named after its table is the row itself.
            let own = if name != "id" && table.ends_with(name) {
                &row["id"]
            } else {
                &Value::Null
            };
            let known = [own, &row[&longer], &row[name]];
            known
                .into_iter()
                .find(|value| could_be(value, &variable.schema))
                .cloned()
        };
        let given: Option<Given> = operation
            .variables
            .iter()
            .map(|it| Some((it.name.clone(), of(it)?)))
            .collect();
        found.extend(given.map(|given| (table.clone(), given)));
    }
    // The table that the path names first, so that the right one is found early.
    found.sort_by_key(|(table, _)| !(table.contains(&noun) || noun.contains(table.as_str())));
    found
}

fn could_be(value: &Value, schema: &Value) -> bool {
    match (value, schema["format"].as_str()) {
        (Value::String(text), Some("uuid")) => Uuid::try_parse(text).is_ok(),
        (Value::String(_), _) => specimen::kind(schema) != "integer",
        (Value::Number(_), _) => specimen::kind(schema) == "integer",
        _ => false,
    }
}
/// A fingerprint of each table of a tenant: how many rows and what is in them.
pub(crate) async fn fingerprints(owner: &mut PgConnection, tenant: &TenantSlug) -> BTreeMap<String, String> {
    let schema = tenant.schema();
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT relname::text FROM pg_class WHERE relnamespace = $1::regnamespace AND relkind IN ('r', 'p') \
         AND NOT relispartition",
    )
    .bind(&schema)
    .fetch_all(&mut *owner)
    .await
    .unwrap();
    let mut prints = BTreeMap::new();
    for table in tables {
        let sql = format!(
            "SELECT count(*) || ' ' || md5(coalesce(string_agg(t::text, '|' ORDER BY t::text), '')) \
             FROM {schema}.{table} t"
        );
        let print = sqlx::query_scalar(AssertSqlSafe(sql))
            .fetch_one(&mut *owner)
            .await
            .unwrap();
        prints.insert(table, print);
    }
    prints
}
