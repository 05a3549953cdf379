//! Signatures over HTTP: who may stand by a record, what the signature is bound to, and what becomes of both when
//! the record changes.

use cloud_hub::{
    kernel::{
        audit::{Actor, Deed},
        role::Role,
    },
    tenant::user,
};
use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use crate::{
    client::{Answer, Caller},
    support::{PASSWORD, TestHub, akron, cuyahoga},
};

/// A person of Akron who signed in with their password.
async fn person(hub: &TestHub, role: Role) -> Caller {
    let mut tx = hub.db.begin(&akron()).await.unwrap();
    let id = user::first_with(&mut tx, role).await.unwrap().unwrap();
    drop(tx);
    signed_in(hub, id, "password", 0).await
}

/// Another one, with the role and the password of the first.
async fn colleague(hub: &TestHub, role: Role, name: &str) -> Caller {
    let mut tx = hub
        .db
        .begin_as(&akron(), Actor::Hub { duty: "test" })
        .await
        .unwrap();
    let first = user::first_with(&mut tx, role).await.unwrap().unwrap();
    let hash: String = sqlx::query_scalar("SELECT password_hash FROM app_user WHERE id = $1")
        .bind(first)
        .fetch_one(tx.conn())
        .await
        .unwrap();
    let email = format!("{name}@akron.test");
    let id = user::put(&mut tx, &email, name, role, &hash).await.unwrap();
    tx.commit().await.unwrap();
    signed_in(hub, id, "password", 0).await
}

async fn signed_in(hub: &TestHub, user: Uuid, factor: &str, age_s: i64) -> Caller {
    let session = Uuid::now_v7();
    let mut tx = hub.db.begin(&akron()).await.unwrap();
    sqlx::query(
        "INSERT INTO session (id, user_id, started_at, expires_at, auth_factor) \
         VALUES ($1, $2, now() - make_interval(secs => $3), now() + interval '1 day', $4)",
    )
    .bind(session)
    .bind(user)
    .bind(age_s as f64)
    .bind(factor)
    .execute(tx.conn())
    .await
    .unwrap();
    tx.commit_unaudited("a test signs somebody in").await.unwrap();
    Caller::anonymous(hub).with_token(hub.token_in_session(user, Some(session)))
}

async fn supplier(caller: &Caller, code: &str) -> String {
    let new = json!({ "code": code, "name": format!("Supplier {code}") });
    let made = caller.post("/fsq/suppliers", new).await.ok();
    made["id"].as_str().unwrap().to_owned()
}

fn wish(kind: &str, id: &str, version: i32, meaning: &str) -> Value {
    json!({ "record_type": kind, "record_id": id, "record_version": version, "meaning": meaning,
        "reason": "checked against the file", "password": PASSWORD })
}

async fn sign(caller: &Caller, wish: Value) -> Answer {
    caller.post("/signatures", wish).await
}

async fn signatures(caller: &Caller, kind: &str, id: &str) -> Vec<Value> {
    caller
        .items(&format!("/signatures?record_type={kind}&record_id={id}"))
        .await
}

async fn sql(hub: &TestHub, sql: String) {
    let mut tx = hub
        .db
        .begin_as(&akron(), Actor::Hub { duty: "test" })
        .await
        .unwrap();
    sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(tx.conn())
        .await
        .unwrap();
    tx.audit(&Deed::on("test", "test", 1));
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn a_signature_carries_name_time_meaning_and_the_records_hash_and_is_on_record() {
    let hub = TestHub::start().await;
    let admin = person(&hub, Role::Admin).await;
    let manager = person(&hub, Role::FsqManager).await;
    let id = supplier(&admin, "S-1").await;
    let signed = sign(&manager, wish("supplier", &id, 1, "approved")).await;
    assert_eq!(signed.status, 201, "{signed:?}");
    let signed = signed.ok();
    assert_eq!(
        (&signed["meaning"], &signed["auth_factor"]),
        (&json!("approved"), &json!("password"))
    );
    assert_eq!(
        (&signed["is_superseded"], &signed["matches"]),
        (&json!(false), &json!(true))
    );
    assert_eq!(signed["record"]["code"], "S-1");
    let canonical = cloud_hub::kernel::audit::canonical(&signed["record"]);
    let sha256 = cloud_hub::kernel::hex::hex(&Sha256::digest(canonical));
    assert_eq!(signed["record_sha256"], sha256);
    assert_eq!(
        signatures(&admin, "supplier", &id).await,
        std::slice::from_ref(&signed)
    );

    let entries = admin.items("/audit?entity=signature").await;
    assert_eq!(
        (&entries[0]["action"], &entries[0]["entity_id"]),
        (&json!("sign"), &signed["id"])
    );
    assert_eq!(entries[0]["why"], "checked against the file");
    assert_eq!(entries[0]["after"]["record_sha256"], sha256);
    let found = admin.get("/audit/verify").await.ok();
    assert_eq!(
        (&found["first_broken"], &found["signatures_checked"]),
        (&Value::Null, &json!(1))
    );
    let all = serde_json::to_string(&admin.items("/audit").await).unwrap();
    assert!(!all.contains(PASSWORD), "no password is on record");
}

#[tokio::test]
async fn a_signature_that_somebody_altered_or_removed_breaks_the_record() {
    let hub = TestHub::start().await;
    let admin = person(&hub, Role::Admin).await;
    let manager = person(&hub, Role::FsqManager).await;
    let id = supplier(&admin, "S-1").await;
    let signed = sign(&manager, wish("supplier", &id, 1, "approved")).await.ok();
    let entry = admin.items("/audit?entity=signature&action=sign").await[0]["seq"].clone();
    let owner = hub.hub.app.owner.as_ref().unwrap();
    let mut owner = sqlx::ConnectOptions::connect(&owner.requests).await.unwrap();
    for (change, named) in [
        ("UPDATE t_akron.signature SET reason = 'another'", &entry),
        (
            "UPDATE t_akron.signature SET record = replace(record, 'S-1', 'S-2')",
            &entry,
        ),
        ("DELETE FROM t_akron.signature", &entry),
    ] {
        sqlx::raw_sql("CREATE TABLE t_akron.saved AS SELECT * FROM t_akron.signature")
            .execute(&mut owner)
            .await
            .unwrap();
        sqlx::raw_sql(change).execute(&mut owner).await.unwrap();
        let broken = admin.get("/audit/verify").await.ok()["first_broken"].clone();
        assert_eq!(&broken["seq"], named, "{change}: {broken}");
        assert!(
            broken["why"]
                .as_str()
                .unwrap()
                .contains(signed["id"].as_str().unwrap())
        );
        sqlx::raw_sql(
            "DELETE FROM t_akron.signature; INSERT INTO t_akron.signature SELECT * FROM t_akron.saved; \
             DROP TABLE t_akron.saved",
        )
        .execute(&mut owner)
        .await
        .unwrap();
    }
    assert_eq!(admin.get("/audit/verify").await.ok()["first_broken"], Value::Null);
}

#[tokio::test]
async fn a_signed_record_changes_only_for_a_reason_and_its_signature_is_superseded_then() {
    let hub = TestHub::start().await;
    let admin = person(&hub, Role::Admin).await;
    let manager = person(&hub, Role::FsqManager).await;
    let id = supplier(&admin, "S-1").await;
    sign(&manager, wish("supplier", &id, 1, "approved")).await.ok();
    let path = format!("/fsq/suppliers/{id}");
    let patch = json!({ "audit_score_pct": 40.0 });
    let refused = admin
        .change(Method::PATCH, &path, 1, Some(patch.clone()))
        .await
        .problem(409);
    assert!(
        refused.contains("signed") && refused.contains("X-Change-Reason"),
        "{refused}"
    );
    assert!(signatures(&admin, "supplier", &id).await[0]["matches"] == true);
    let change = async |version: i32| {
        let request = admin
            .request(Method::PATCH, &path)
            .header("if-match", format!("\"{version}\""))
            .header("x-change-reason", "failed the audit")
            .json(&patch);
        Answer::of(request).await
    };
    assert_eq!(change(1).await.ok()["version"], 2);
    let shown = signatures(&admin, "supplier", &id).await;
    assert_eq!(
        (&shown[0]["is_superseded"], &shown[0]["matches"]),
        (&json!(true), &json!(false))
    );
    assert_eq!(
        shown[0]["record"]["audit_score_pct"],
        Value::Null,
        "what was signed stays"
    );
    // The later version is nobody's word yet and changes freely; but the record is not deleted any more.
    admin
        .change(Method::PATCH, &path, 2, Some(json!({ "name": "New" })))
        .await
        .ok();
    let refused = admin.change(Method::DELETE, &path, 3, None).await.problem(409);
    assert!(refused.contains("not deleted"), "{refused}");
    let free = supplier(&admin, "S-2").await;
    let gone = admin
        .change(Method::DELETE, &format!("/fsq/suppliers/{free}"), 1, None)
        .await;
    assert_eq!(gone.status, 204);
    sign(&manager, wish("supplier", &id, 1, "reviewed"))
        .await
        .problem(412);
    sign(&manager, wish("supplier", &free, 1, "reviewed"))
        .await
        .problem(404);
}

#[tokio::test]
async fn a_signed_batch_does_not_move_on_without_a_reason() {
    let hub = TestHub::start().await;
    let admin = person(&hub, Role::Admin).await;
    let supervisor = person(&hub, Role::Supervisor).await;
    let mut tx = hub.db.begin(&akron()).await.unwrap();
    let (running, sku, line_id): (Uuid, String, Uuid) = sqlx::query_as(
        "SELECT b.id, s.code, b.line_id FROM batch b JOIN sku s ON s.id = b.sku_id WHERE b.state = 'running' LIMIT 1",
    )
    .fetch_one(tx.conn())
    .await
    .unwrap();
    drop(tx);
    let done = format!("/plant-ops/batches/{running}/complete");
    assert_eq!(admin.send(Method::POST, &done, None).await.status, 200);
    let new = json!({ "code": "B-SIGNED", "sku": sku, "line_id": line_id });
    let batch = admin.post("/plant-ops/batches", new).await.ok();
    let id = batch["id"].as_str().unwrap();
    sign(&supervisor, wish("batch", id, 1, "reviewed")).await.ok();
    let start = format!("/plant-ops/batches/{id}/start");
    let refused = admin.send(Method::POST, &start, None).await.problem(409);
    assert!(refused.contains("X-Change-Reason"), "{refused}");
    let with_reason = admin
        .request(Method::POST, &start)
        .header("x-change-reason", "as planned");
    assert_eq!(Answer::of(with_reason).await.ok()["state"], "running");
    let shown = signatures(&admin, "batch", id).await;
    assert_eq!(
        (&shown[0]["is_superseded"], &shown[0]["record"]["state"]),
        (&json!(true), &json!("planned"))
    );
    // The version that runs is not signed.
    let complete = format!("/plant-ops/batches/{id}/complete");
    assert_eq!(admin.send(Method::POST, &complete, None).await.status, 200);
}

#[tokio::test]
async fn nobody_signs_without_proving_who_they_are() {
    let hub = TestHub::start().await;
    let admin = person(&hub, Role::Admin).await;
    let manager = person(&hub, Role::FsqManager).await;
    let id = supplier(&admin, "S-1").await;
    let with = |password: Value| {
        let mut wish = wish("supplier", &id, 1, "reviewed");
        wish["password"] = password;
        wish
    };
    sign(&manager, with(json!("not the password"))).await.problem(401);
    sign(&manager, with(Value::Null)).await.problem(400);
    let denied = admin.items("/audit?action=denied&entity=signature").await;
    assert_eq!(denied[0]["after"]["because"], "re-authentication");
    assert_eq!(denied[0]["actor"]["kind"], "user");
    // A printed token names a person, but nobody signed in for it.
    let printed = Caller::with_role(&hub, Role::FsqManager).await;
    sign(&printed, wish("supplier", &id, 1, "reviewed"))
        .await
        .problem(409);
    assert!(signatures(&admin, "supplier", &id).await.is_empty());
    // Guessing is bounded like the sign-in.
    let mut statuses = Vec::new();
    for _ in 0..11 {
        statuses.push(sign(&manager, with(json!("guess"))).await.status.as_u16());
    }
    assert_eq!(statuses.last(), Some(&429), "{statuses:?}");
    sign(&manager, with(json!(PASSWORD))).await.problem(429);
}

#[tokio::test]
async fn whoever_signs_in_elsewhere_signs_within_five_minutes_of_it() {
    let hub = TestHub::start().await;
    let admin = person(&hub, Role::Admin).await;
    colleague(&hub, Role::FsqManager, "Elsewhere").await;
    sql(
        &hub,
        "UPDATE app_user SET password_hash = NULL WHERE email = 'elsewhere@akron.test'".to_owned(),
    )
    .await;
    let mut tx = hub.db.begin(&akron()).await.unwrap();
    let user: Uuid = sqlx::query_scalar("SELECT id FROM app_user WHERE email = 'elsewhere@akron.test'")
        .fetch_one(tx.conn())
        .await
        .unwrap();
    drop(tx);
    let id = supplier(&admin, "S-1").await;
    let mut without = wish("supplier", &id, 1, "approved");
    without.as_object_mut().unwrap().remove("password");
    let stale = signed_in(&hub, user, "identity_provider", 400).await;
    let said = sign(&stale, without.clone()).await.problem(401);
    assert!(said.contains("sign in again"), "{said}");
    let fresh = signed_in(&hub, user, "identity_provider", 100).await;
    sign(&fresh, wish("supplier", &id, 1, "approved"))
        .await
        .problem(401);
    assert_eq!(
        sign(&fresh, without).await.ok()["auth_factor"],
        "identity_provider"
    );
}

#[tokio::test]
async fn nobody_judges_their_own_work_and_two_persons_are_two() {
    let hub = TestHub::start().await;
    let admin = person(&hub, Role::Admin).await;
    let ann = colleague(&hub, Role::FsqManager, "Ann").await;
    let bob = colleague(&hub, Role::FsqManager, "Bob").await;
    let id = supplier(&admin, "S-1").await;
    let refused = sign(&admin, wish("supplier", &id, 1, "approved"))
        .await
        .problem(409);
    assert!(refused.contains("changed the record last"), "{refused}");
    sign(&ann, wish("supplier", &id, 1, "performed")).await.ok();
    sign(&ann, wish("supplier", &id, 1, "reviewed"))
        .await
        .problem(409);
    sign(&ann, wish("supplier", &id, 1, "performed"))
        .await
        .problem(409);
    sign(&bob, wish("supplier", &id, 1, "reviewed")).await.ok();

    let hold = Uuid::now_v7().to_string();
    sql(
        &hub,
        format!("INSERT INTO hold (id, code, reason) VALUES ('{hold}', 'HOLD-S', 'test')"),
    )
    .await;
    let early = sign(&ann, wish("hold", &hold, 1, "released")).await.problem(409);
    assert!(early.contains("approved"), "{early}");
    sign(&ann, wish("hold", &hold, 1, "approved")).await.ok();
    let same = sign(&ann, wish("hold", &hold, 1, "released")).await.problem(409);
    assert!(same.contains("same person"), "{same}");
    let released = sign(&bob, wish("hold", &hold, 1, "released")).await.ok();
    assert_eq!(
        released["record"]["lots"],
        json!([]),
        "the lots of a hold are part of what is signed"
    );
    assert_eq!(signatures(&admin, "hold", &hold).await.len(), 2);
    let denied = admin.items("/audit?action=denied&entity=signature").await;
    assert_eq!(denied.len(), 5, "each refusal is on record");
}

#[tokio::test]
async fn a_role_signs_what_it_may_and_another_tenants_records_are_not_there() {
    let hub = TestHub::start().await;
    let admin = person(&hub, Role::Admin).await;
    let id = supplier(&admin, "S-1").await;
    for (role, meaning, status) in [
        (Role::Auditor, "performed", 403),
        (Role::Operator, "reviewed", 403),
        (Role::Operator, "approved", 403),
        (Role::Supervisor, "released", 403),
        (Role::Operator, "performed", 201),
        (Role::Supervisor, "reviewed", 201),
        (Role::FsqManager, "released", 201),
    ] {
        let caller = person(&hub, role).await;
        let answer = sign(&caller, wish("supplier", &id, 1, meaning)).await;
        assert_eq!(answer.status, status, "{role} {meaning}: {answer:?}");
    }
    let page = admin
        .get(&format!(
            "/signatures?record_type=supplier&record_id={id}&limit=2"
        ))
        .await
        .ok();
    let next = page["next"].as_str().unwrap();
    let rest = format!("/signatures?record_type=supplier&record_id={id}&cursor={next}");
    assert_eq!(admin.items(&rest).await.len(), 1);
    let theirs = Caller::of_tenant(&hub, &cuyahoga(), Role::Admin).await;
    theirs
        .get(&format!("/signatures?record_type=supplier&record_id={id}"))
        .await
        .problem(404);
    for wrong in [
        "record_type=supplier",
        "record_type=app_user&record_id=x",
        "record_id=1&record_type=lot",
    ] {
        admin.get(&format!("/signatures?{wrong}")).await.problem(400);
    }
    for (field, value, status) in [
        ("record_type", json!("app_user"), 422),
        ("meaning", json!("seen"), 422),
        ("record_version", json!(99_999_999_999_i64), 422),
        ("record_version", json!(7), 412),
        ("record_id", json!(Uuid::nil()), 404),
        ("reason", json!("  "), 400),
        ("reason", json!("x".repeat(1001)), 400),
        ("reason", json!("a\u{0}b"), 400),
        ("extra", json!(1), 422),
    ] {
        let mut wish = wish("supplier", &id, 1, "performed");
        wish[field] = value;
        sign(&admin, wish).await.problem(status);
    }
}

#[tokio::test]
async fn every_kind_of_record_on_the_list_can_be_read_as_it_is_signed() {
    let hub = TestHub::start().await;
    let admin = person(&hub, Role::Admin).await;
    let document = serde_json::to_value(cloud_hub::router::document()).unwrap();
    let kinds = document["components"]["schemas"]["RecordType"]["enum"]
        .as_array()
        .unwrap();
    assert!(kinds.len() >= 6, "{kinds:?}");
    for kind in kinds {
        let kind = kind.as_str().unwrap();
        let mut tx = hub.db.begin(&akron()).await.unwrap();
        let sql = format!("SELECT id FROM {kind} LIMIT 1");
        let there: Option<Uuid> = sqlx::query_scalar(AssertSqlSafe(sql))
            .fetch_optional(tx.conn())
            .await
            .unwrap();
        drop(tx);
        let path = |id: Uuid| format!("/signatures?record_type={kind}&record_id={id}");
        admin.get(&path(Uuid::nil())).await.problem(404);
        if let Some(id) = there {
            assert!(admin.items(&path(id)).await.is_empty());
        }
    }
}

#[tokio::test]
async fn a_password_never_becomes_part_of_a_stored_request() {
    let hub = TestHub::start().await;
    let admin = person(&hub, Role::Admin).await;
    let operator = person(&hub, Role::Operator).await;
    let id = supplier(&admin, "S-1").await;
    let send = async || {
        let request = operator
            .request(Method::POST, "/signatures")
            .header("idempotency-key", "sign-1")
            .json(&wish("supplier", &id, 1, "performed"));
        Answer::of(request).await
    };
    assert_eq!(send().await.status, 201);
    send().await.problem(409);
    let mut tx = hub.db.begin(&akron()).await.unwrap();
    let kept: i64 = sqlx::query_scalar("SELECT count(*) FROM idempotency_key WHERE key = 'sign-1'")
        .fetch_one(tx.conn())
        .await
        .unwrap();
    assert_eq!(kept, 0, "not even its hash, by which a password could be guessed");
}
