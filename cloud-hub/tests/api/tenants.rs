//! Tenants over HTTP: made, named, suspended, configured, exported and deleted by those who may, and by nobody else.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use cloud_hub::{
    kernel::{
        role::Role,
        tenancy::TenantSlug,
        token::{Claims, PLATFORM_AUDIENCE, PlatformClaims},
    },
    tenant::{
        archive,
        migrate::Files,
        provision::{self, By},
        settings,
    },
};
use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use sqlx::ConnectOptions;
use uuid::Uuid;

use crate::{
    client::Caller,
    support::{TestDatabase, TestHub, akron},
};

fn slug(name: &str) -> TenantSlug {
    TenantSlug::parse(name).unwrap()
}

/// Actions of a chain, oldest first.
async fn actions(hub: &TestHub, tenant: &TenantSlug) -> Vec<String> {
    let mut tx = hub.db.begin(tenant).await.unwrap();
    sqlx::query_scalar("SELECT action FROM audit_event WHERE entity = 'tenant' ORDER BY seq")
        .fetch_all(tx.conn())
        .await
        .unwrap()
}

async fn owner(hub: &TestHub) -> sqlx::PgConnection {
    let owner = hub.hub.app.owner.as_ref().unwrap();
    owner.requests.connect().await.unwrap()
}

#[tokio::test]
async fn an_operator_makes_a_tenant_suspends_it_takes_it_up_again_and_deletes_it() {
    let hub = TestHub::start().await;
    let operator = Caller::operator(&hub);
    let made = operator
        .post("/tenants", json!({ "slug": "erie", "name": " Erie Foods " }))
        .await;
    assert_eq!(made.status, 201);
    let made = made.ok();
    assert_eq!(
        (
            &made["name"],
            &made["status"],
            &made["version"],
            &made["is_migrated"]
        ),
        (&json!("Erie Foods"), &json!("active"), &json!(1), &json!(true))
    );
    assert_eq!(operator.get("/tenants/erie").await.ok(), made);
    let admin = Caller::of_tenant(&hub, &slug("erie"), Role::Admin).await;
    assert!(admin.items("/plant-ops/plants").await.is_empty());
    operator
        .post("/tenants", json!({ "slug": "erie", "name": "Again" }))
        .await
        .problem(409);

    let name = json!({ "name": "Erie Fine Foods" });
    let renamed = operator
        .change(Method::PATCH, "/tenants/erie", 1, Some(name.clone()))
        .await
        .ok();
    assert_eq!(
        (&renamed["name"], &renamed["slug"], &renamed["version"]),
        (&json!("Erie Fine Foods"), &json!("erie"), &json!(2))
    );
    operator
        .change(Method::PATCH, "/tenants/erie", 1, Some(name.clone()))
        .await
        .problem(412);
    operator
        .send(Method::PATCH, "/tenants/erie", Some(name))
        .await
        .problem(428);

    let removal = json!({ "slug": "erie", "reason": "contract ended" });
    operator
        .change(Method::DELETE, "/tenants/erie", 2, Some(removal.clone()))
        .await
        .problem(409);
    let why = json!({ "reason": "unpaid" });
    let suspended = operator.post("/tenants/erie/deactivate", why.clone()).await.ok();
    assert_eq!(
        (&suspended["status"], &suspended["suspended_because"]),
        (&json!("suspended"), &json!("unpaid"))
    );
    let refused = admin.get("/plant-ops/plants").await;
    refused.problem(403);
    assert_eq!(refused.body["type"], "urn:foodflow:problem:tenant-suspended");
    operator
        .post("/tenants/erie/deactivate", why.clone())
        .await
        .problem(409);
    let active = operator.post("/tenants/erie/activate", why.clone()).await.ok();
    assert_eq!(
        (&active["status"], &active["suspended_us"]),
        (&json!("active"), &Value::Null)
    );
    admin.get("/plant-ops/plants").await.ok();
    assert_eq!(
        actions(&hub, &slug("erie")).await,
        ["create", "rename", "suspend", "reactivate"]
    );

    let version = operator.post("/tenants/erie/deactivate", why).await.ok()["version"].clone();
    let version = i32::try_from(version.as_i64().unwrap()).unwrap();
    let wrong = json!({ "slug": "akron", "reason": "contract ended" });
    operator
        .change(Method::DELETE, "/tenants/erie", version, Some(wrong))
        .await
        .problem(400);
    let gone = operator
        .change(Method::DELETE, "/tenants/erie", version, Some(removal))
        .await;
    assert_eq!(gone.status, 204);
    operator.get("/tenants/erie").await.problem(404);
    admin.get("/plant-ops/plants").await.problem(404);
    let again = operator
        .post("/tenants", json!({ "slug": "erie", "name": "Again" }))
        .await
        .problem(409);
    assert!(again.contains("not used again"), "{again}");
    let (said, by): (Vec<String>, Vec<String>) = {
        let rows: Vec<(String, String)> = sqlx::query_as(
            "SELECT action, actor_id FROM platform.audit_event WHERE entity_id = 'erie' ORDER BY seq",
        )
        .fetch_all(&mut owner(&hub).await)
        .await
        .unwrap();
        rows.into_iter().unzip()
    };
    assert_eq!(
        said,
        ["create", "rename", "suspend", "reactivate", "suspend", "delete"]
    );
    assert!(by.iter().all(|by| by == "platform ops"), "{by:?}");
}

#[tokio::test]
async fn tenants_are_listed_page_by_page() {
    let hub = TestHub::start().await;
    let operator = Caller::operator(&hub);
    let first = operator.get("/tenants?limit=1").await.ok();
    assert_eq!(first["items"][0]["slug"], "akron");
    let next = format!("/tenants?limit=1&cursor={}", first["next"].as_str().unwrap());
    let second = operator.get(&next).await.ok();
    assert_eq!(
        (&second["items"][0]["slug"], &second["next"]),
        (&json!("cuyahoga"), &Value::Null)
    );
    assert!(operator.items("/tenants?status=suspended").await.is_empty());
    for wrong in ["status=gone", "cursor=a%22b", "limit=0", "q=x", "limit=many"] {
        operator.get(&format!("/tenants?{wrong}")).await.problem(400);
    }
}

#[tokio::test]
async fn people_of_a_tenant_see_and_configure_their_own_and_no_other() {
    let hub = TestHub::start().await;
    let admin = Caller::with_role(&hub, Role::Admin).await;
    let own = admin.get("/tenants/akron").await.ok();
    assert_eq!(own["settings"]["session_hours"], 168);
    assert_eq!(own["migration_error"], Value::Null);
    for other in ["cuyahoga", "nobody", "No/Such", "a%22%3B%20drop", "pg_catalog"] {
        admin.get(&format!("/tenants/{other}")).await.problem(404);
        admin
            .change(
                Method::PATCH,
                &format!("/tenants/{other}/configure"),
                1,
                Some(json!({})),
            )
            .await
            .problem(404);
        admin
            .post(&format!("/tenants/{other}/export"), json!({}))
            .await
            .problem(404);
    }
    let path = "/tenants/akron/configure";
    let wish = json!({ "session_hours": 12, "zone": "America/New_York",
        "registration": { "mode": "domains", "domains": ["akron.example"] } });
    let after = admin.change(Method::PATCH, path, 1, Some(wish)).await.ok();
    assert_eq!(
        (&after["version"], &after["settings"]["session_hours"]),
        (&json!(2), &json!(12))
    );
    let loaded = settings::load(&hub.db, &akron()).await.unwrap();
    assert_eq!(
        (loaded.zone.as_str(), loaded.registration.domains.as_slice()),
        ("America/New_York", ["akron.example".to_owned()].as_slice())
    );
    let cleared = admin
        .change(Method::PATCH, path, 2, Some(json!({ "session_hours": null })))
        .await
        .ok();
    assert_eq!(
        (
            &cleared["settings"]["session_hours"],
            &cleared["settings"]["zone"]
        ),
        (&json!(168), &json!("America/New_York"))
    );
    admin
        .change(Method::PATCH, path, 1, Some(json!({})))
        .await
        .problem(412);
    for (wrong, status) in [
        (json!({ "session_hours": 0 }), 400),
        (json!({ "zone": "Nowhere" }), 400),
        (json!({ "mail_from_name": "a\u{0}b" }), 400),
        (json!({ "session_hours": -1 }), 422),
        (json!({ "session_hours": "many" }), 422),
        (json!({ "colour": "red" }), 422),
        (json!({ "registration": { "mode": "open" } }), 422),
        (json!([]), 422),
    ] {
        let answer = admin.change(Method::PATCH, path, 3, Some(wrong)).await;
        answer.problem(status);
    }
    assert_eq!(actions(&hub, &akron()).await, ["configure", "configure"]);
    let who: String = sqlx::query_scalar(
        "SELECT actor_kind FROM platform.audit_event WHERE action = 'configure' ORDER BY seq LIMIT 1",
    )
    .fetch_one(&mut owner(&hub).await)
    .await
    .unwrap();
    assert_eq!(who, "user");
}

#[tokio::test]
async fn no_tenants_token_operates_the_platform_and_the_attempt_is_on_record() {
    let hub = TestHub::start().await;
    let admin = Caller::with_role(&hub, Role::Admin).await;
    let reason = json!({ "reason": "because" });
    for (method, path, body) in [
        (
            Method::POST,
            "/tenants",
            json!({ "slug": "mine", "name": "Mine" }),
        ),
        (Method::GET, "/tenants", json!({})),
        (Method::PATCH, "/tenants/akron", json!({ "name": "Mine" })),
        (Method::POST, "/tenants/cuyahoga/deactivate", reason.clone()),
        (Method::POST, "/tenants/akron/activate", reason),
        (
            Method::DELETE,
            "/tenants/cuyahoga",
            json!({ "slug": "cuyahoga", "reason": "x" }),
        ),
    ] {
        admin.change(method, path, 1, Some(body)).await.problem(403);
    }
    assert_eq!(
        hub_count(
            &hub,
            "SELECT count(*) FROM audit_event WHERE action = 'denied' AND entity = 'tenant'"
        )
        .await,
        6
    );
    let operator = Caller::operator(&hub);
    assert_eq!(operator.items("/tenants").await.len(), 2);
    // And the other way round: an operator is nobody in a tenant.
    operator.get("/plant-ops/plants").await.problem(401);
    operator.get("/auth/me").await.problem(401);
}

async fn hub_count(hub: &TestHub, sql: &'static str) -> i64 {
    let mut tx = hub.db.begin(&akron()).await.unwrap();
    sqlx::query_scalar(sql).fetch_one(tx.conn()).await.unwrap()
}

#[tokio::test]
async fn a_platform_token_that_is_old_foreign_or_unsigned_is_refused() {
    let hub = TestHub::start().await;
    let now_s = hub.hub.app.clock.now().timestamp();
    let claims = |aud: &str, exp| PlatformClaims {
        aud: aud.to_owned(),
        sub: "ops".to_owned(),
        iat: now_s,
        exp,
    };
    let key = &hub.hub.app.signing_key;
    let unsigned = {
        use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
        let part = |value: Value| BASE64.encode(value.to_string());
        format!(
            "{}.{}.",
            part(json!({ "alg": "none", "typ": "JWT" })),
            part(json!(claims(PLATFORM_AUDIENCE, now_s + 900)))
        )
    };
    let disguised = key.issue(&Claims {
        sub: Uuid::nil(),
        tenant: "platform".to_owned(),
        role: Role::Admin,
        sid: None,
        iat: now_s,
        exp: now_s + 900,
    });
    let another = cloud_hub::kernel::token::SigningKey::from_bytes(&[9; 32]);
    let nobody = Caller::anonymous(&hub);
    nobody.get("/tenants").await.problem(401);
    for token in [
        key.issue_platform(&claims(PLATFORM_AUDIENCE, now_s - 1)),
        key.issue_platform(&claims("foodflow", now_s + 900)),
        another.issue_platform(&claims(PLATFORM_AUDIENCE, now_s + 900)),
        unsigned,
        "x.y.z".to_owned(),
    ] {
        nobody.with_token(token).get("/tenants").await.problem(401);
    }
    nobody.with_token(disguised).get("/tenants").await.problem(404);
}

#[tokio::test]
async fn a_slug_chosen_to_escape_and_text_that_is_none_are_refused() {
    let hub = TestHub::start().await;
    let operator = Caller::operator(&hub);
    let long = "a".repeat(41);
    for wrong in [
        "",
        "a\"; drop schema platform cascade; --",
        "pg_catalog",
        "t_akron",
        "information_schema",
        "Akron",
        "äkron",
        "аkron",
        "a b",
        "a/../b",
        "a\u{0}",
        "1st",
        "-a",
        &long,
    ] {
        operator
            .post("/tenants", json!({ "slug": wrong, "name": "X" }))
            .await
            .problem(400);
    }
    let (name, reason) = ("x".repeat(201), "x".repeat(501));
    for wrong in ["", " ", "a\u{0}b", "a\nb", &name] {
        operator
            .post("/tenants", json!({ "slug": "fine", "name": wrong }))
            .await
            .problem(400);
    }
    for wrong in ["", " ", "a\u{0}b", "a\nb", &reason] {
        operator
            .post("/tenants/akron/deactivate", json!({ "reason": wrong }))
            .await
            .problem(400);
    }
    assert_eq!(operator.items("/tenants?status=active").await.len(), 2);
}

#[tokio::test]
async fn words_that_tempt_are_only_names() {
    let hub = TestHub::start().await;
    let operator = Caller::operator(&hub);
    for tempting in ["platform", "public", "postgres"] {
        let made = operator
            .post(
                "/tenants",
                json!({ "slug": tempting, "name": "X'; DROP TABLE lot; --" }),
            )
            .await
            .ok();
        assert_eq!(made["name"], "X'; DROP TABLE lot; --");
        let admin = Caller::of_tenant(&hub, &slug(tempting), Role::Admin).await;
        assert!(admin.items("/fsq/lots").await.is_empty());
    }
    let extra = json!({ "slug": "fine", "name": "X", "schema_name": "t_akron" });
    operator.post("/tenants", extra).await.problem(422);
}

#[tokio::test]
async fn a_tenant_whose_migration_failed_is_away_and_the_others_are_served() {
    let test = TestDatabase::create().await;
    let mut owner = test.owner().await;
    provision::provision_with(&mut owner, &slug("late"), "Late", &Files::tenant().until(9))
        .await
        .unwrap();
    sqlx::raw_sql(
        "CREATE TABLE t_late.supplier (in_the_way int); \
         UPDATE platform.tenant SET migration_error = 'supplier is in the way' WHERE slug = 'late'",
    )
    .execute(&mut owner)
    .await
    .unwrap();
    test.databases.migrate().await.unwrap();
    let hub = TestHub::start_on(test).await;
    let now_s = hub.hub.app.clock.now().timestamp();
    let token = hub.hub.app.signing_key.issue(&Claims {
        sub: Uuid::nil(),
        tenant: "late".to_owned(),
        role: Role::Admin,
        sid: None,
        iat: now_s,
        exp: now_s + 900,
    });
    let late = Caller::anonymous(&hub).with_token(token);
    late.get("/plant-ops/plants").await.problem(503);
    late.get("/auth/me").await.problem(503);
    let akron = Caller::with_role(&hub, Role::Admin).await;
    assert!(!akron.items("/plant-ops/plants").await.is_empty());
    let seen = Caller::operator(&hub).get("/tenants/late").await.ok();
    assert_eq!(seen["is_migrated"], json!(false));
    assert!(
        seen["migration_error"].as_str().unwrap().contains("supplier"),
        "{seen}"
    );
}

#[tokio::test]
async fn a_tenants_own_people_export_it_whole_but_for_its_passwords() {
    let hub = TestHub::start().await;
    let admin = Caller::with_role(&hub, Role::Admin).await;
    let response = admin
        .request(Method::POST, "/tenants/akron/export")
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    let headers = response.headers().clone();
    assert_eq!(headers["content-type"], "application/zstd");
    assert!(
        headers["content-disposition"]
            .to_str()
            .unwrap()
            .starts_with("attachment; filename=\"akron-")
    );
    let body = response.bytes().await.unwrap();
    let digest = format!("sha-256=:{}:", BASE64_STANDARD.encode(Sha256::digest(&body)));
    assert_eq!(headers["content-digest"], digest.as_str());
    assert_eq!(actions(&hub, &akron()).await, ["export"], "on record");
    Caller::with_role(&hub, Role::FsqManager)
        .await
        .post("/tenants/akron/export", json!({}))
        .await
        .problem(403);

    let file = hub.data_dir().join("akron.tar.zst");
    std::fs::write(&file, &body).unwrap();
    let mut owner = owner(&hub).await;
    let moved = slug("moved");
    archive::import(&mut owner, &file, &moved, None, &By::command("test"))
        .await
        .unwrap();
    let count = async |tenant: &TenantSlug, sql: &'static str| -> i64 {
        let mut tx = hub.db.begin(tenant).await.unwrap();
        sqlx::query_scalar(sql).fetch_one(tx.conn()).await.unwrap()
    };
    let users = "SELECT count(*) FROM app_user";
    assert_eq!(count(&moved, users).await, count(&akron(), users).await);
    let hashed = "SELECT count(*) FROM app_user WHERE password_hash IS NOT NULL";
    assert_eq!(count(&moved, hashed).await, 0);
    assert!(count(&akron(), hashed).await > 0);
}
