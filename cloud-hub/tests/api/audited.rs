//! Does every change leave its trace? Each operation of the OpenAPI document that changes something is done once, on
//! rows made for it; the tenant's chain must then tell who did it and what, under the request's correlation id.

use std::collections::BTreeMap;

use cloud_hub::{kernel::role::Role, tenant::user};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::FromRow;
use uuid::Uuid;

use crate::{
    rows::{self, Rows, candidates, fill},
    specimen::{Access, Api, Given, Operation, Prepared, Raw, Sender},
    support::{PASSWORD, TestHub, akron},
};

/// Changes that are no tenant's: the platform's own chain has them, and the tests of the fleet look there.
fn is_tenants(operation: &Operation) -> bool {
    operation.access != Access::Platform
}

/// Changes that need something no description of the database tells (a token from a letter, a browser at a foreign
/// sign-in page, a working receiver, an alarm), with the test that does them.
const DONE_ELSEWHERE: &[(&str, &str)] = &[
    ("confirm_password_reset", "the token of a letter: `registration`"),
    ("reset_password", "the token of a letter: `registration`"),
    ("verify_email", "the token of a letter: `registration`"),
    (
        "exchange_oidc_code",
        "a code of a foreign sign-in page: `oidc`, which finds the entry of the sign-in",
    ),
    (
        "retry_event_dead_letter",
        "an event that a projection refused: `events`",
    ),
    ("acknowledge_alarm", ACTS),
    ("act_on_alarm", ACTS),
    ("reset_alarm", ACTS),
    ("shelve_alarm", ACTS),
    (
        "train_alarm_rule",
        "a history to learn from: the engine's `alarms`, which finds the entry",
    ),
    ("simulate_alarm_rule", QUESTION),
    ("detect_anomalies", QUESTION),
    (
        "ingest_message",
        "readings are records of their own and have no entry, whichever way they come: the tests of integrators",
    ),
];

const ACTS: &str = "an alarm that was raised: the engine's `alarms`, which finds the entries";
const QUESTION: &str = "changes nothing: a question about history, too long for an address";

/// Changes that leave no entry, each with its reason.
const UNAUDITED: &[(&str, &str)] = &[];

/// One entry of the chain, as far as it is looked at here.
#[derive(Debug, FromRow)]
struct Entry {
    actor_kind: String,
    action: String,
    entity: String,
    event: String,
}

struct World {
    hub: TestHub,
    api: Api,
    sender: Sender,
    admin: String,
    rows: Rows,
}

impl World {
    async fn start() -> Self {
        let hub = TestHub::start().await;
        let mut owner = rows::owner(&hub).await;
        let rows = fill(&mut owner, &akron(), "auditmark", 4).await;
        // The batches made here are only planned: nothing was on the equipment yet.
        hub.execute(
            &akron(),
            "DELETE FROM batch_interval WHERE upper(during) < '2026-02-01'",
            &[],
        )
        .await;
        // One role is nobody's, so that it can be removed.
        hub.execute(
            &akron(),
            "DELETE FROM user_role g USING role r WHERE r.id = g.role_id AND r.name = 'auditmarkrole3'",
            &[],
        )
        .await;
        let admin = hub.token(Role::Admin).await;
        let (api, sender) = (Api::read(), Sender::to(&hub));
        Self {
            hub,
            api,
            sender,
            admin,
            rows,
        }
    }

    /// What an operation needs to be done: values for what it requires, by the names of tables and columns.
    fn known(&self) -> Given {
        let mut known = Given::new();
        for (table, rows) in &self.rows {
            if let Some(id) = rows.first().map(|row| &row["id"]).filter(|id| id.is_string()) {
                known.insert(format!("?{table}_id"), id.clone());
                let short = table.rsplit('_').next().unwrap_or(table);
                known.entry(format!("?{short}_id")).or_insert_with(|| id.clone());
            }
        }
        known.insert("?permissions".to_owned(), json!(["plant.read"]));
        // What is on a record is on a plant.
        known.insert("?entity".to_owned(), json!("plant"));
        known.insert("?entity_id".to_owned(), self.rows["plant"][0]["id"].clone());
        known.insert("?zone".to_owned(), json!("America/New_York"));
        known.insert("?country".to_owned(), json!("US"));
        known.insert("?kinds".to_owned(), json!(["*"]));
        known.insert("?projection".to_owned(), json!("search_entry"));
        known.insert("?current_password".to_owned(), json!(PASSWORD));
        known.insert("?sku".to_owned(), self.rows["sku"][0]["code"].clone());
        known
    }

    /// What only this operation needs, in words of its own.
    async fn script(&self, operation: &Operation) -> Given {
        let given = |pairs: &[(&str, Value)]| {
            pairs
                .iter()
                .map(|(name, it)| ((*name).to_owned(), it.clone()))
                .collect()
        };
        match operation.id.as_str() {
            "login" => given(&[
                ("email", json!("operator@akron.example")),
                ("password", json!(PASSWORD)),
            ]),
            "forgot_password" => given(&[("email", json!("auditor@akron.example"))]),
            "initiate_password_reset" => given(&[("email", json!("operator@akron.example"))]),
            "resend_verification" => given(&[("email", self.rows["app_user"][0]["email"].clone())]),
            "register_user" => {
                let mut owner = rows::owner(&self.hub).await;
                let open = json!({ "registration": { "mode": "domains", "domains": ["example.org"] } });
                let sql = "UPDATE platform.tenant SET settings = $1 WHERE slug = 'akron'";
                sqlx::query(sql).bind(open).execute(&mut owner).await.unwrap();
                Given::new()
            }
            // Labels that the marked plant does not bear yet.
            "create_label_use" => given(&[("label_id", self.rows["label"][1]["id"].clone())]),
            "create_label_uses" => given(&[("label_id", self.rows["label"][2]["id"].clone())]),
            // The document's example is taken already: the single operation came first.
            "create_system_configs" => given(&[("key", json!("audited.bulk"))]),
            // Much refers to the marked rows; to one that was just made, nothing does.
            "delete_address" => given(&[("id", self.fresh("create_address").await)]),
            "delete_equipment" => given(&[("id", self.fresh("create_equipment").await)]),
            "delete_plant" => given(&[("id", self.fresh("create_plant").await)]),
            "sign_record" => given(&[
                ("record_type", json!("supplier")),
                ("record_id", self.rows["supplier"][1]["id"].clone()),
                ("record_version", json!(1)),
                ("meaning", json!("performed")),
                ("password", json!(PASSWORD)),
            ]),
            "create_edge_update" => {
                let sha256 = &self.rows["edge_artefact"][0]["sha256"];
                let manifest = json!({ "version": "1", "sha256": sha256 });
                given(&[("manifest", json!(manifest.to_string()))])
            }
            "enroll_edge" => {
                let now = self.hub.hub.app.clock.now();
                let code = cloud_hub::tenant::enrolment::create_code(&self.hub.db, &akron(), "audited", now)
                    .await
                    .unwrap();
                given(&[("code", json!(code))])
            }
            "refresh_session" | "logout" => {
                let login = self.api.operations.iter().find(|it| it.id == "login").unwrap();
                let credentials = given(&[
                    ("email", json!("operator@akron.example")),
                    ("password", json!(PASSWORD)),
                ]);
                let session = self
                    .sender
                    .send(&self.api.least(login, &credentials), None)
                    .await
                    .json();
                given(&[("refresh_token", session["refresh_token"].clone())])
            }
            _ => Given::new(),
        }
    }

    /// The id of a row that this operation has just made.
    async fn fresh(&self, maker: &str) -> Value {
        let maker = self.api.operations.iter().find(|it| it.id == maker).unwrap();
        let prepared = self.api.least(maker, &self.known());
        let made = self.sender.send(&prepared, Some(&self.admin)).await;
        assert_eq!(made.status, 201, "{}: {made:?}", maker.id);
        made.json()["id"].clone()
    }

    /// A token of an administrator who signed in with their password, as whoever signs a record must have.
    async fn signed_in(&self) -> String {
        let mut tx = self.hub.db.begin(&akron()).await.unwrap();
        let admin = user::first_with(&mut tx, Role::Admin).await.unwrap().unwrap();
        drop(tx);
        let session = Uuid::now_v7();
        self.hub
            .execute(
                &akron(),
                "INSERT INTO session (id, user_id, started_at, expires_at, auth_factor) \
                 VALUES ($1, $2, now(), now() + interval '1 hour', 'password')",
                &[session, admin],
            )
            .await;
        self.hub.token_in_session(admin, Some(session))
    }

    /// Does it once; the last refusal when no row lets it be done.
    async fn done(&self, operation: &Operation, correlation: &str) -> Result<Raw, String> {
        let signer = if operation.id == "sign_record" {
            Some(self.signed_in().await)
        } else {
            None
        };
        let token = signer.as_deref().unwrap_or(&self.admin);
        let token = (operation.access != Access::Public).then_some(token);
        let mut refusals = Vec::new();
        for given in self.attempts(operation).await {
            for version in 1..4 {
                let mut given = given.clone();
                given
                    .entry("if-match".to_owned())
                    .or_insert_with(|| json!(format!("\"{version}\"")));
                let prepared: Prepared = self
                    .api
                    .least(operation, &given)
                    .header("x-request-id", correlation);
                let mut raw = self.sender.send(&prepared, token).await;
                // Doors that everybody may knock at open slowly, and say when.
                if let Some(wait_s) = raw
                    .headers
                    .get("retry-after")
                    .and_then(|it| it.to_str().ok()?.parse().ok())
                {
                    tokio::time::sleep(std::time::Duration::from_secs(std::cmp::min(wait_s, 3))).await;
                    raw = self.sender.send(&prepared, token).await;
                }
                if raw.status.is_success() {
                    return Ok(raw);
                }
                let is_stale = raw.status == 412;
                refusals.push(format!("{} {}", raw.status, raw.json()["detail"]));
                if !is_stale {
                    break;
                }
            }
        }
        refusals.sort();
        refusals.dedup();
        Err(refusals.join("; "))
    }

    async fn attempts(&self, operation: &Operation) -> Vec<Given> {
        let mut common = self.known();
        common.extend(self.script(operation).await);
        let mut attempts = Vec::new();
        // Without a row, or with the one that the script names.
        if operation.variables.iter().all(|it| common.contains_key(&it.name)) {
            attempts.push(common.clone());
        }
        // Later rows first for what removes: other operations still need the first.
        for number in if operation.method == Method::DELETE {
            [3, 2]
        } else {
            [0, 1]
        } {
            for (_, given) in candidates(operation, &self.rows, number) {
                attempts.push(common.clone().into_iter().chain(given).collect());
            }
        }
        attempts
    }

    async fn entries(&self, correlation: &str) -> Vec<Entry> {
        let mut tx = self.hub.db.begin(&akron()).await.unwrap();
        sqlx::query_as(
            "SELECT actor_kind, action, entity, event FROM audit_event \
             WHERE correlation_id = $1 AND action <> 'denied' ORDER BY seq",
        )
        .bind(correlation)
        .fetch_all(tx.conn())
        .await
        .unwrap()
    }
}

/// What is wrong with the trace of a deed that was done.
fn flaw(operation: &Operation, raw: &Raw, correlation: &str, entries: &[Entry]) -> Option<String> {
    let Some(entry) = entries.first() else {
        return Some("left no entry".to_owned());
    };
    let event: Value = serde_json::from_str(&entry.event).ok()?;
    if raw.headers.get("x-request-id").is_none_or(|id| id != correlation) {
        return Some("does not answer with its correlation id".to_owned());
    }
    if entry.action.is_empty() || entry.entity.is_empty() {
        return Some(format!("says nothing: {entry:?}"));
    }
    if operation.access != Access::Public && entry.actor_kind != "user" {
        return Some(format!("was not done by {}: {entry:?}", entry.actor_kind));
    }
    let (before, after) = (&event["before"], &event["after"]);
    let lacks = match operation.method {
        Method::PATCH | Method::PUT => before.is_null() || after.is_null(),
        Method::DELETE => before.is_null() && after.is_null(),
        _ => raw.status == 201 && entries.iter().all(|entry| entry.event.contains("\"after\":null")),
    };
    lacks.then(|| format!("does not say what was and what is: {entry:?}"))
}

#[tokio::test]
async fn every_operation_that_changes_something_leaves_an_entry_in_the_chain() {
    let world = Box::pin(World::start()).await;
    let mut changes: Vec<&Operation> = world
        .api
        .operations
        .iter()
        .filter(|it| it.is_change() && is_tenants(it))
        .collect();
    // Rows are made before they are changed, begun before they are completed, and removed last; nobody is signed
    // out while there is work.
    let order = |it: &Operation| {
        (
            it.id.contains("logout") || it.id == "change_password",
            it.method == Method::DELETE,
            it.id.starts_with("complete"),
            !it.variables.is_empty(),
        )
    };
    changes.sort_by_key(|it| order(it));
    let (mut undone, mut flaws, mut done) = (BTreeMap::new(), Vec::new(), 0);
    changes.retain(|it| !DONE_ELSEWHERE.iter().any(|(known, _)| *known == it.id));
    for operation in &changes {
        let correlation = format!("audited-{}", operation.id);
        match world.done(operation, &correlation).await {
            Err(refusals) => {
                undone.insert(operation.id.as_str(), refusals);
            }
            Ok(raw) => {
                done += 1;
                let found = flaw(operation, &raw, &correlation, &world.entries(&correlation).await);
                let is_excused = UNAUDITED.iter().any(|(id, _)| *id == operation.id);
                flaws.extend(
                    found
                        .filter(|_| !is_excused)
                        .map(|what| format!("{} {what}", operation.id)),
                );
            }
        }
    }
    assert!(
        flaws.is_empty() && undone.is_empty(),
        "{done} of {} changes were done.\n{}\nTell in `script` what these need: {undone:#?}",
        changes.len(),
        flaws.join("\n"),
    );
}

#[test]
fn what_is_excused_is_an_operation_that_there_is() {
    let api = Api::read();
    for (id, reason) in DONE_ELSEWHERE.iter().chain(UNAUDITED) {
        assert!(
            api.operations.iter().any(|it| it.id == *id) && !reason.is_empty(),
            "{id}"
        );
    }
}
