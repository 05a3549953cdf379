//! The audit chain over HTTP and from the command line: who did what is found, and what was tampered with is named.

use std::{process::Command, time::Duration};

use cloud_hub::{
    integrity::root_file,
    kernel::{
        audit::{Actor, Deed, link},
        clock::Clock,
        role::Role,
        tenancy::{Db, TenantSlug},
    },
    tenant::provision,
};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, ConnectOptions as _, PgConnection};
use uuid::Uuid;

use crate::{
    client::{Answer, Caller},
    support::{TestDatabase, TestHub, akron, cuyahoga},
};

async fn owner(hub: &TestHub) -> PgConnection {
    let owner = hub.hub.app.owner.as_ref().unwrap();
    owner.requests.connect().await.unwrap()
}

async fn run(owner: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
        .execute(owner)
        .await
        .unwrap();
}

async fn supplier(caller: &Caller, code: &str) -> Value {
    let new = json!({ "code": code, "name": format!("Supplier {code}") });
    caller.post("/fsq/suppliers", new).await.ok()
}

#[tokio::test]
async fn an_entry_says_who_what_when_before_after_and_why() {
    let hub = TestHub::start().await;
    let manager = Caller::with_role(&hub, Role::FsqManager).await;
    let auditor = Caller::with_role(&hub, Role::Auditor).await;
    let made = supplier(&manager, "S-1").await;
    let id = made["id"].as_str().unwrap();
    let change = manager
        .request(Method::PATCH, &format!("/fsq/suppliers/{id}"))
        .header("if-match", "\"1\"")
        .header("x-change-reason", "new audit")
        .header("x-request-id", "req-77")
        .json(&json!({ "audit_score_pct": 91.5 }));
    let changed = Answer::of(change).await.ok();
    let entries = auditor
        .items(&format!("/audit?entity=supplier&entity_id={id}"))
        .await;
    assert_eq!(entries.len(), 2);
    let update = &entries[0];
    assert_eq!(update["action"], "update");
    assert_eq!((&update["before"], &update["after"]), (&made, &changed));
    assert_eq!(
        (&update["why"], &update["correlation_id"]),
        (&json!("new audit"), &json!("req-77"))
    );
    assert_eq!(update["actor"]["kind"], "user");
    assert!(!update["actor"]["name"].as_str().unwrap().is_empty());
    assert_eq!(
        (&entries[1]["action"], &entries[1]["before"]),
        (&json!("create"), &Value::Null)
    );

    // Anybody can compute the hash from what is shown.
    let prev_hash: [u8; 32] =
        cloud_hub::kernel::hex::from_hex(update["prev_hash"].as_str().unwrap()).unwrap();
    let hash = link(
        &prev_hash,
        update["seq"].as_i64().unwrap(),
        update["event"].as_str().unwrap(),
    );
    assert_eq!(update["hash"], cloud_hub::kernel::hex::hex(&hash));
    assert_eq!(
        auditor.get(&format!("/audit/{}", update["seq"])).await.ok(),
        *update
    );
    auditor.get("/audit/999999").await.problem(404);
    auditor.get("/audit/0").await.problem(404);
    auditor.get("/audit/x").await.problem(400);
}

#[tokio::test]
async fn entries_are_filtered_and_paged_and_denied_attempts_are_among_them() {
    let hub = TestHub::start().await;
    let manager = Caller::with_role(&hub, Role::FsqManager).await;
    let operator = Caller::with_role(&hub, Role::Operator).await;
    let auditor = Caller::with_role(&hub, Role::Auditor).await;
    let start_us = Clock::system().now_us();
    for code in ["A", "B", "C"] {
        supplier(&manager, code).await;
    }
    let new = json!({ "code": "X", "name": "X" });
    operator.post("/fsq/suppliers", new).await.problem(403);
    let denied = auditor.items("/audit?action=denied").await;
    assert_eq!(denied[0]["after"]["permission"], "supplier.write");
    assert_eq!(denied[0]["after"]["request"], "POST /api/v1/fsq/suppliers");
    let by_operator = denied[0]["actor"]["id"].as_str().unwrap();
    assert_eq!(
        auditor
            .items(&format!("/audit?actor_id={by_operator}&action=denied"))
            .await
            .len(),
        1
    );

    let mut seen = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = auditor
            .get(&format!("/audit?from_us={start_us}&limit=2{cursor}"))
            .await
            .ok();
        seen.extend(
            page["items"]
                .as_array()
                .unwrap()
                .iter()
                .map(|it| it["seq"].as_i64().unwrap()),
        );
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen.len(), 4);
    assert!(seen.windows(2).all(|pair| pair[0] == pair[1] + 1), "{seen:?}");
    assert!(
        auditor
            .items(&format!("/audit?to_us={start_us}&entity=supplier"))
            .await
            .is_empty()
    );
    for wrong in [
        "who=x",
        "limit=0",
        "cursor=x",
        "from_us=soon",
        "entity=a%00b",
        "cursor=99999999999999999999",
    ] {
        auditor.get(&format!("/audit?{wrong}")).await.problem(400);
    }
    let theirs = Caller::of_tenant(&hub, &cuyahoga(), Role::Admin).await;
    assert!(theirs.items("/audit?entity=supplier").await.is_empty());
    operator.get("/audit").await.problem(403);
}

#[tokio::test]
async fn whoever_holds_the_permission_on_a_line_only_does_not_read_the_whole_chain() {
    let hub = TestHub::start().await;
    let mut tx = hub
        .db
        .begin_as(&akron(), Actor::Hub { duty: "test" })
        .await
        .unwrap();
    let id = Uuid::now_v7();
    for sql in [
        format!("INSERT INTO app_user (id, email, display_name) VALUES ('{id}', 'line@akron.test', 'Line')"),
        format!(
            "INSERT INTO user_role (user_id, role_id, line_id) SELECT '{id}', r.id, l.id FROM role r, line l \
             WHERE r.name = 'supervisor' LIMIT 1"
        ),
    ] {
        sqlx::query(AssertSqlSafe(sql)).execute(tx.conn()).await.unwrap();
    }
    tx.audit(&Deed::on("put", "app_user", id));
    tx.commit().await.unwrap();
    let caller = Caller::anonymous(&hub).with_token(hub.token_in_session(id, None));
    for path in [
        "/audit",
        "/audit/1",
        "/audit/verify",
        "/audit/roots",
        "/audit/key",
    ] {
        caller.get(path).await.problem(403);
    }
}

#[tokio::test]
async fn verifying_names_the_row_that_was_tampered_with() {
    let hub = TestHub::start().await;
    let admin = Caller::with_role(&hub, Role::Admin).await;
    for code in ["A", "B", "C"] {
        supplier(&admin, code).await;
    }
    let whole = admin.get("/audit/verify").await.ok();
    assert_eq!(whole["first_broken"], Value::Null);
    assert_eq!((&whole["rows"], &whole["from"]), (&whole["head_seq"], &json!(1)));
    assert_eq!(whole["next_from"], Value::Null);
    let head = whole["head_seq"].as_i64().unwrap();
    run(
        &mut owner(&hub).await,
        &format!("UPDATE t_akron.audit_event SET event = replace(event, 'Supplier B', 'Supplier X') WHERE seq = {}", head - 1),
    )
    .await;
    let broken = admin.get("/audit/verify").await.ok();
    assert_eq!(
        broken["first_broken"],
        json!({ "seq": head - 1, "why": "its hash is not the hash of what it says" })
    );
    assert_eq!(broken["rows"], head - 2);
    let part = admin
        .get(&format!("/audit/verify?from=1&to={}", head - 2))
        .await
        .ok();
    assert_eq!(
        (&part["first_broken"], &part["to"]),
        (&Value::Null, &json!(head - 2))
    );
    for wrong in ["from=0", "from=5&to=4", "to=x", "until=4"] {
        admin.get(&format!("/audit/verify?{wrong}")).await.problem(400);
    }
    // It is still shown, as far as it goes.
    let shown = admin.get(&format!("/audit/{}", head - 1)).await.ok();
    assert_eq!(shown["after"]["name"], "Supplier X");
}

/// A hub that was away while a tenant's days ended.
async fn hub_after_days_away(tenant: &TenantSlug, days: i64) -> TestHub {
    let database = TestDatabase::create().await;
    let options = database.databases.owner.as_ref().unwrap().requests.clone();
    provision::provision(&mut options.connect().await.unwrap(), tenant, "Dayton")
        .await
        .unwrap();
    let then = Clock::system().now() - chrono::Duration::days(days);
    let past = Db::new(
        database.databases.login.requests.clone(),
        1,
        Duration::from_secs(10),
    )
    .with_clock(Clock::fixed(then.timestamp_micros()));
    let mut tx = past.begin_as(tenant, Actor::Hub { duty: "test" }).await.unwrap();
    tx.audit(&Deed::on("test", "lot", 1));
    tx.commit().await.unwrap();
    past.close().await;
    TestHub::start_on(database).await
}

#[tokio::test]
async fn days_that_ended_while_the_hub_was_away_are_signed_at_its_start_and_kept_as_files() {
    let dayton = TenantSlug::parse("dayton").unwrap();
    let hub = Box::pin(hub_after_days_away(&dayton, 2)).await;
    let admin = Caller::of_tenant(&hub, &dayton, Role::Admin).await;
    let folder = hub.data_dir().join(root_file::FOLDER);
    let files = tokio::time::timeout(Duration::from_secs(20), async {
        loop {
            if let Ok(files) = root_file::read(&folder, "dayton")
                && files.len() == 2
            {
                break files;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let files = files.await.unwrap();
    let roots = admin.items("/audit/roots").await;
    assert_eq!(roots.len(), 2);
    assert_eq!(roots[1]["statement"], files[0].statement);
    assert_eq!(
        roots[0]["public_key"],
        admin.get("/audit/key").await.ok()["public_key"]
    );
    let newer = admin.get("/audit/roots?limit=1").await.ok();
    let next = newer["next"].as_str().unwrap();
    assert_eq!(
        admin.items(&format!("/audit/roots?cursor={next}")).await,
        roots[1..]
    );
    let verified = admin.get("/audit/verify").await.ok();
    assert_eq!(
        (&verified["first_broken"], &verified["roots_checked"]),
        (&Value::Null, &json!(2))
    );

    // The same from the command line, with the customer's copies; then the tail is cut.
    let verify = |more: &[&str]| {
        let output = command(&hub, "dayton").args(more).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        (
            output.status.code(),
            serde_json::from_str::<Value>(&text).unwrap_or_default(),
        )
    };
    let kept = folder.to_str().unwrap().to_owned();
    let (code, whole) = verify(&["--roots", &kept]);
    assert_eq!((code, &whole["first_broken"]), (Some(0), &Value::Null), "{whole}");
    let mut owner = owner(&hub).await;
    run(&mut owner, "DELETE FROM t_dayton.audit_root").await;
    let (code, gone) = verify(&["--roots", &kept]);
    assert_eq!(
        (code, &gone["first_broken"]["seq"]),
        (Some(1), &json!(1)),
        "{gone}"
    );
    run(&mut owner, "DELETE FROM t_dayton.audit_event").await;
    let (code, cut) = verify(&["--roots", &kept]);
    assert_eq!(code, Some(1));
    assert!(
        cut["first_broken"]["why"].as_str().unwrap().contains("was cut"),
        "{cut}"
    );
    for wrong in [
        &["--from", "0"][..],
        &["--to", "soon"],
        &["--key", "00"],
        &["--roots", "/no/such"],
    ] {
        assert_eq!(verify(wrong).0, Some(2), "{wrong:?}");
    }
}

/// `foodflow-hub verify --json` beside the hub.
fn command(hub: &TestHub, tenant: &str) -> Command {
    let target = hub.hub.app.owner.as_ref().unwrap();
    let socket = target.requests.get_socket().unwrap().to_str().unwrap().to_owned();
    let database = target.requests.get_database().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_foodflow-hub"));
    command
        .args(["verify", "--json", "--tenant", tenant, "--data-dir"])
        .arg(hub.data_dir())
        .args([
            "--database-url",
            &format!("postgres://foodflow_app@localhost/{database}?host={socket}"),
        ]);
    command
}

#[tokio::test]
async fn an_auditor_takes_the_chain_away_and_verifies_it_without_the_hub() {
    let hub = TestHub::start().await;
    let manager = Caller::with_role(&hub, Role::FsqManager).await;
    let auditor = Caller::with_role(&hub, Role::Auditor).await;
    for code in ["A", "B \"quoted\"", "Ç"] {
        supplier(&manager, code).await;
    }
    let export = async |query: &str| {
        let answer = auditor
            .request(Method::GET, &format!("/audit/export{query}"))
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-type"], "application/x-ndjson");
        let rows: usize = answer.headers()["x-export-rows"]
            .to_str()
            .unwrap()
            .parse()
            .unwrap();
        let text = answer.text().await.unwrap();
        assert_eq!(text.lines().count(), rows);
        text
    };
    let text = export("").await;
    let head = text.lines().count() as i64;
    let noted = auditor.items("/audit?action=export").await;
    assert_eq!(
        (&noted[0]["entity"], &noted[0]["after"]["rows"]),
        (&json!("audit_event"), &json!(head))
    );

    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("audit.ndjson");
    // Nothing of the hub is there: no database, no data directory.
    let verify = |text: &str| {
        std::fs::write(&file, text).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_foodflow-hub"))
            .args(["verify", "--json", "--tenant", "akron", "--data-dir"])
            .arg(dir.path().join("nowhere"))
            .arg("--file")
            .arg(&file)
            .output()
            .unwrap();
        let said = serde_json::from_slice::<Value>(&output.stdout).unwrap_or_default();
        (output.status.code(), said)
    };
    let (code, whole) = verify(&text);
    assert_eq!(
        (code, &whole["rows"], &whole["first_broken"]),
        (Some(0), &json!(head), &Value::Null)
    );
    let (code, part) = verify(&export(&format!("?from=3&to={}", head - 1)).await);
    assert_eq!(
        (code, &part["from"], &part["to"]),
        (Some(0), &json!(3), &json!(head - 1))
    );
    let (code, altered) = verify(&text.replacen("Supplier B", "Supplier X", 1));
    assert_eq!(
        (code, &altered["first_broken"]["seq"]),
        (Some(1), &json!(head - 1)),
        "{altered}"
    );
    let without: Vec<&str> = text
        .lines()
        .enumerate()
        .filter(|(at, _)| *at != 4)
        .map(|(_, line)| line)
        .collect();
    let (code, gap) = verify(&without.join("\n"));
    assert_eq!((code, &gap["first_broken"]["seq"]), (Some(1), &json!(5)), "{gap}");
    assert_eq!(verify("no line of a chain\n").0, Some(2));
    for wrong in ["?from=0", "?from=3&to=2", "?format=csv"] {
        auditor.get(&format!("/audit/export{wrong}")).await.problem(400);
    }
    // Who may not read the chain may not take it away either.
    let operator = Caller::with_role(&hub, Role::Operator).await;
    operator.get("/audit/export").await.problem(403);
}
