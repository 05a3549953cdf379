//! Does every kind of plain record do what a record does? One test walks the list of all of them: its columns and
//! orders against the database, then its whole life over HTTP with text that is out to do harm.

use cloud_hub::{
    kernel::{resource::Record, role::Role},
    records,
};
use reqwest::Method;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::{
    client::Caller,
    support::{TestHub, akron},
};

/// At most 40 characters each: a code must take them too.
const NASTY: [&str; 6] = [
    "'; DROP TABLE plant; --",
    "$1 %s {} \\ \" ` \u{1} \u{7f}",
    "Zoë 日本 🍞 \u{202e}abc",
    "<script>alert(1)</script>",
    "=1+1",
    "NULL",
];

#[tokio::test]
async fn every_record_fits_its_table_and_can_be_sorted_without_reading_all_of_it() {
    let hub = TestHub::start().await;
    let mut tx = hub.db.begin(&akron()).await.unwrap();
    for record in records::all() {
        let columns: Vec<(String, bool, String)> = sqlx::query_as(
            "SELECT column_name::text, is_nullable = 'NO', data_type::text FROM information_schema.columns \
             WHERE table_schema = current_schema() AND table_name = $1",
        )
        .bind(record.name)
        .fetch_all(tx.conn())
        .await
        .unwrap();
        let of = |name: &str| columns.iter().find(|(column, ..)| column == name);
        let named = record.columns();
        assert!(named.contains(&"id".to_owned()) && named.contains(&"version".to_owned()));
        for column in &named {
            assert!(of(column).is_some(), "{record:?} has no column {column}");
        }
        for filter in record.filters.iter().filter(|filter| *filter != "q") {
            let stem = filter.trim_end_matches("_min").trim_end_matches("_max");
            let column = stem
                .strip_suffix("_us")
                .map_or_else(|| stem.to_owned(), |it| format!("{it}_at"));
            assert!(of(&column).is_some(), "{record:?} cannot be narrowed by {filter}");
        }
        assert_eq!(
            record.filters.iter().any(|it| it == "q"),
            !record.searched.is_empty(),
            "{record:?}"
        );
        for column in record.searched {
            assert_eq!(of(column).unwrap().2, "text", "{record:?} {column}");
        }
        for field in record.sortable {
            let column = field
                .strip_suffix("_us")
                .map_or_else(|| (*field).to_owned(), |it| format!("{it}_at"));
            assert!(
                of(&column).is_some_and(|(_, is_needed, _)| *is_needed),
                "{record:?} {field} may be null"
            );
            let is_indexed: bool = sqlx::query_scalar(
                "SELECT EXISTS (SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid \
                   AND a.attnum = i.indkey[0] WHERE i.indrelid = to_regclass($1) AND a.attname = $2)",
            )
            .bind(record.name)
            .bind(&column)
            .fetch_one(tx.conn())
            .await
            .unwrap();
            assert!(is_indexed, "{record:?} is sorted by {field} without an index");
        }
    }
}

#[tokio::test]
async fn every_record_round_trips() {
    let hub = TestHub::start().await;
    let admin = Caller::with_role(&hub, Role::Admin).await;
    let others = others(&admin).await;
    for record in records::all() {
        Life {
            record: &record,
            admin: &admin,
            others: &others,
        }
        .live()
        .await;
    }
    assert!(records::all().len() >= 10);
}

/// What the others refer to.
async fn others(admin: &Caller) -> Map<String, Value> {
    let id = |row: Value| row["id"].clone();
    let supplier = admin
        .post("/fsq/suppliers", json!({ "code": "REF", "name": "x" }))
        .await
        .ok();
    let address = admin
        .post("/core/addresses", json!({ "city": "Akron", "country": "US" }))
        .await
        .ok();
    let label = admin.post("/core/labels", json!({ "name": "seen" })).await.ok();
    Map::from_iter([
        ("entity_id".to_owned(), id(supplier)),
        ("address_id".to_owned(), id(address)),
        ("label_id".to_owned(), id(label)),
        (
            "line_id".to_owned(),
            id(admin.items("/plant-ops/lines").await.swap_remove(0)),
        ),
        (
            "plant_id".to_owned(),
            id(admin.items("/plant-ops/plants").await.swap_remove(0)),
        ),
    ])
}

/// One record from creation to deletion.
struct Life<'a> {
    record: &'a Record,
    admin: &'a Caller,
    others: &'a Map<String, Value>,
}

fn properties(schema: &impl serde::Serialize) -> Map<String, Value> {
    serde_json::to_value(schema).unwrap()["properties"]
        .as_object()
        .cloned()
        .unwrap_or_default()
}

fn is(schema: &Value, kind: &str) -> bool {
    schema["type"] == kind
        || schema["type"]
            .as_array()
            .is_some_and(|kinds| kinds.contains(&json!(kind)))
}

impl Life<'_> {
    /// A value that the field takes.
    fn value(&self, field: &str, schema: &Value, text: &str) -> Value {
        let said = properties(&self.record.new);
        if let Some(example) = said.get(field).and_then(|it| it.get("example")) {
            return example.clone();
        }
        match schema["format"].as_str() {
            Some("uuid") => return self.others[field].clone(),
            Some("date") => return json!("2027-06-30"),
            _ => {}
        }
        if is(schema, "string") {
            json!(text)
        } else if is(schema, "number") {
            json!(12.5)
        } else if is(schema, "integer") {
            json!(7)
        } else if is(schema, "boolean") {
            json!(true)
        } else {
            json!({ "any": [1, null, text] })
        }
    }

    fn specimen(&self, text: &str) -> Map<String, Value> {
        let fields = properties(&self.record.new);
        fields
            .iter()
            .map(|(field, schema)| (field.clone(), self.value(field, schema, text)))
            .collect()
    }

    async fn create(&self, body: &Map<String, Value>) -> (String, Value) {
        let made = self.admin.post(&self.record.path(), json!(body)).await.ok();
        for (field, sent) in body {
            assert_eq!(&made[field], sent, "{:?} {field}", self.record);
        }
        let path = format!("{}/{}", self.record.path(), made["id"].as_str().unwrap());
        assert_eq!(self.admin.get(&path).await.ok(), made, "{:?}", self.record);
        (path, made)
    }

    async fn delete(&self, path: &str) {
        let version = self.admin.get(path).await.ok()["version"].as_i64().unwrap() as i32;
        assert_eq!(
            self.admin
                .change(Method::DELETE, path, version, None)
                .await
                .status,
            204
        );
        self.admin.get(path).await.problem(404);
    }

    async fn live(&self) {
        let (path, made) = self.create(&self.specimen("whole")).await;
        self.filters(&made).await;
        self.changes(&path, &made).await;
        self.delete(&path).await;
        for text in NASTY {
            let (path, _) = self.create(&self.specimen(text)).await;
            self.delete(&path).await;
        }
        self.refuses().await;
        self.admin
            .get(&format!("{}/{}", self.record.path(), Uuid::nil()))
            .await
            .problem(404);
    }

    async fn filters(&self, made: &Value) {
        for filter in &self.record.filters {
            let field = filter.trim_end_matches("_min").trim_end_matches("_max");
            let value = if filter == "q" {
                &made[self.record.searched[0]]
            } else {
                &made[field]
            };
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let query = serde_urlencoded::to_string([(filter, &text)]).unwrap();
            let found = self.admin.items(&format!("{}?{query}", self.record.path())).await;
            assert!(found.contains(made), "{:?}?{query}: {found:?}", self.record);
        }
        for sort in self.record.sortable {
            let page = format!("{}?sort=-{sort}&limit=1", self.record.path());
            let first = self.admin.get(&page).await.ok();
            if let Some(next) = first["next"].as_str() {
                self.admin.get(&format!("{page}&cursor={next}")).await.ok();
            }
        }
    }

    async fn changes(&self, path: &str, made: &Value) {
        let fields = properties(&self.record.patch);
        let patch: Map<String, Value> = fields
            .iter()
            .map(|(field, schema)| (field.clone(), self.value(field, schema, "changed")))
            .collect();
        let changed = self
            .admin
            .change(Method::PATCH, path, 1, Some(json!(patch)))
            .await
            .ok();
        assert_eq!(changed["version"], 2);
        for (field, value) in changed.as_object().unwrap() {
            let wanted = patch.get(field).unwrap_or(&made[field]);
            assert!(
                field == "version" || value == wanted,
                "{:?} {field}: {value}",
                self.record
            );
        }
        for field in fields.keys() {
            let version = self.admin.get(path).await.ok()["version"].as_i64().unwrap() as i32;
            let answer = self
                .admin
                .change(Method::PATCH, path, version, Some(json!({ field: null })))
                .await;
            if answer.status == 200 {
                assert_eq!(answer.body[field], Value::Null, "{:?} {field}", self.record);
            } else {
                let why = answer.problem(400);
                assert!(
                    why.contains("is needed") || why.contains("together"),
                    "{:?} {field}: {why}",
                    self.record
                );
            }
        }
    }

    /// What no record takes: unknown fields, text without end, characters that no column can hold.
    async fn refuses(&self) {
        let mut unknown = self.specimen("x");
        unknown.insert("is_admin".to_owned(), json!(true));
        self.admin
            .post(&self.record.path(), json!(unknown))
            .await
            .problem(422);
        for (field, schema) in properties(&self.record.new) {
            if !is(&schema, "string")
                || ["uuid", "date"].contains(&schema["format"].as_str().unwrap_or_default())
            {
                continue;
            }
            for bad in [&"x".repeat(100_000), "a\u{0}b"] {
                let mut body = self.specimen("x");
                body.insert(field.clone(), json!(bad));
                let answer = self.admin.post(&self.record.path(), json!(body)).await;
                // What the hub itself checks is refused when it is read.
                let status = if answer.status == 422 { 422 } else { 400 };
                let why = answer.problem(status);
                assert!(
                    why.contains(' ') && why.len() < 200,
                    "{:?} {field}: {why}",
                    self.record
                );
                assert!(
                    !why.contains("_check"),
                    "{:?} {field} has no sentence: {why}",
                    self.record
                );
            }
        }
    }
}

/// The files of plain records; the first is the example of CONTRIBUTING.md.
const FILES: [(&str, &str); 11] = [
    (
        "fsq/resources/supplier.rs",
        include_str!("../../src/fsq/resources/supplier.rs"),
    ),
    ("core/address.rs", include_str!("../../src/core/address.rs")),
    ("core/contact.rs", include_str!("../../src/core/contact.rs")),
    ("core/label.rs", include_str!("../../src/core/label.rs")),
    ("core/label_use.rs", include_str!("../../src/core/label_use.rs")),
    ("core/location.rs", include_str!("../../src/core/location.rs")),
    ("core/note.rs", include_str!("../../src/core/note.rs")),
    (
        "core/system_config.rs",
        include_str!("../../src/core/system_config.rs"),
    ),
    (
        "plant_ops/equipment.rs",
        include_str!("../../src/plant_ops/equipment.rs"),
    ),
    ("plant_ops/plant.rs", include_str!("../../src/plant_ops/plant.rs")),
    ("alarm/rule.rs", include_str!("../../src/alarm/rule.rs")),
];

#[test]
fn a_plain_record_is_one_short_file_and_the_guide_shows_a_real_one() {
    assert_eq!(records::all().len(), FILES.len());
    for (path, text) in FILES {
        // A record with more than seven fields is as long as its fields.
        let fields = text.lines().filter(|line| line.starts_with("    pub ")).count();
        let most = if fields <= 7 { 80 } else { 80 + 5 * (fields - 7) };
        assert!(
            text.lines().count() <= most,
            "{path} has {} lines",
            text.lines().count()
        );
    }
    let guide = include_str!("../../../CONTRIBUTING.md");
    let (_, supplier) = FILES[0];
    let shown = supplier.split_once("impl Resource for Supplier").unwrap().1;
    assert!(
        guide.contains(shown.trim()),
        "CONTRIBUTING.md shows the supplier as it is"
    );
    assert!(guide.contains(&format!("{} lines", supplier.lines().count())));
}
