//! Sessions over HTTP: signing in, refreshing, signing out, and every token that must not work.

use cloud_hub::kernel::{role::Role, tenancy::TenantSlug};
use reqwest::{Method, StatusCode, header::HeaderMap};
use serde_json::{Value, json};

use crate::{
    client::Caller,
    support::{PASSWORD, TestHub, akron, cuyahoga},
};

const EMAIL: &str = "supervisor@akron.example";

/// The tokens of a session.
#[derive(Clone, Debug)]
struct Tokens {
    access: String,
    refresh: String,
}

impl Tokens {
    fn of(session: &Value) -> Self {
        let text = |name: &str| session[name].as_str().unwrap().to_owned();
        Self {
            access: text("access_token"),
            refresh: text("refresh_token"),
        }
    }
}

async fn login(caller: &Caller) -> Tokens {
    let body = json!({ "tenant": "akron", "email": EMAIL, "password": PASSWORD });
    Tokens::of(&caller.post("/auth/login", body).await.ok())
}

fn refresh_body(token: &str) -> Value {
    json!({ "refresh_token": token })
}

/// Whether an access token is taken.
async fn is_in(caller: &Caller, access: &str) -> bool {
    let answer = caller.with_token(access.to_owned()).get("/auth/me").await;
    if answer.status == StatusCode::OK {
        return true;
    }
    answer.problem(401);
    false
}

/// Runs a statement in a tenant as the hub itself.
async fn sql(hub: &TestHub, tenant: &TenantSlug, statement: &'static str) {
    let mut tx = hub.db.begin(tenant).await.unwrap();
    sqlx::query(statement).execute(tx.conn()).await.unwrap();
    tx.commit_unaudited("a test moves the world").await.unwrap();
}

async fn count(hub: &TestHub, statement: &'static str) -> i64 {
    let mut tx = hub.db.begin(&akron()).await.unwrap();
    sqlx::query_scalar(statement).fetch_one(tx.conn()).await.unwrap()
}

#[tokio::test]
async fn a_session_is_refreshed_and_ends_when_its_owner_signs_out() {
    let hub = TestHub::start().await;
    let caller = Caller::anonymous(&hub);
    let body = json!({ "tenant": "akron", "email": EMAIL, "password": PASSWORD });
    let session = caller.post("/auth/login", body).await.ok();
    assert_eq!(session["expires_in_s"], 900);
    assert_eq!(session["refresh_expires_in_s"], 7 * 24 * 3600);
    let first = Tokens::of(&session);
    let second = caller
        .post("/auth/refresh", refresh_body(&first.refresh))
        .await
        .ok();
    let second = Tokens::of(&second);
    assert_ne!(first.refresh, second.refresh);
    assert!(is_in(&caller, &first.access).await && is_in(&caller, &second.access).await);

    let signed_out = caller.post("/auth/logout", refresh_body(&second.refresh)).await;
    assert_eq!(signed_out.status, StatusCode::NO_CONTENT);
    assert!(
        !is_in(&caller, &first.access).await,
        "every token of the session is out at once"
    );
    assert!(!is_in(&caller, &second.access).await);
    caller
        .post("/auth/refresh", refresh_body(&second.refresh))
        .await
        .problem(401);
    let again = caller.post("/auth/logout", refresh_body(&second.refresh)).await;
    assert_eq!(again.status, StatusCode::NO_CONTENT, "what has ended stays ended");

    let third = login(&caller).await;
    let bearer = caller.with_token(third.access.clone());
    assert_eq!(bearer.send(Method::POST, "/auth/logout", None).await.status, 204);
    assert!(!is_in(&caller, &third.access).await);
    caller.send(Method::POST, "/auth/logout", None).await.problem(401);
    let audited = "SELECT count(*) FROM audit_event WHERE entity = 'session' AND actor_kind = 'user' \
        AND action IN ('login', 'refresh', 'end')";
    assert_eq!(count(&hub, audited).await, 2 + 1 + 2);
}

#[tokio::test]
async fn a_refresh_token_used_twice_ends_the_whole_session_and_no_other() {
    let hub = TestHub::start().await;
    let caller = Caller::anonymous(&hub);
    let (mine, other) = (login(&caller).await, login(&caller).await);
    let next = caller
        .post("/auth/refresh", refresh_body(&mine.refresh))
        .await
        .ok();
    let next = Tokens::of(&next);
    caller
        .post("/auth/refresh", refresh_body(&mine.refresh))
        .await
        .problem(401);
    caller
        .post("/auth/refresh", refresh_body(&next.refresh))
        .await
        .problem(401);
    assert!(!is_in(&caller, &next.access).await && !is_in(&caller, &mine.access).await);
    assert!(is_in(&caller, &other.access).await);
    let said =
        "SELECT count(*) FROM domain_event WHERE kind = 'SessionEnded' AND payload->>'because' = 'reuse'";
    assert_eq!(count(&hub, said).await, 1);
    let audited = "SELECT count(*) FROM audit_event WHERE entity = 'session' AND action = 'end' \
        AND event::jsonb->'after'->>'because' = 'reuse'";
    assert_eq!(count(&hub, audited).await, 1);
}

#[tokio::test]
async fn of_two_who_refresh_at_once_one_wins_and_the_session_ends() {
    let hub = TestHub::start().await;
    let caller = Caller::anonymous(&hub);
    for _ in 0..5 {
        let tokens = login(&caller).await;
        let ask = || caller.post("/auth/refresh", refresh_body(&tokens.refresh));
        let (one, two) = tokio::join!(ask(), ask());
        let mut statuses = [one.status.as_u16(), two.status.as_u16()];
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 401]);
        assert!(!is_in(&caller, &tokens.access).await);
    }
}

#[tokio::test]
async fn a_token_that_is_forged_expired_or_of_another_tenant_or_user_is_refused_alike() {
    let hub = TestHub::start().await;
    let caller = Caller::anonymous(&hub);
    let tokens = login(&caller).await;
    let moved = tokens.refresh.replace("akron.", "cuyahoga.");
    let mut said = Vec::new();
    for wrong in [
        "",
        "x",
        "akron.",
        "akron.guess",
        "nowhere.guess",
        "akron.\u{0}",
        "a';drop.x",
        &moved,
        &tokens.access,
        &"x".repeat(100_000),
    ] {
        said.push(
            caller
                .post("/auth/refresh", refresh_body(wrong))
                .await
                .problem(401),
        );
        assert_eq!(caller.post("/auth/logout", refresh_body(wrong)).await.status, 204);
    }
    sql(
        &hub,
        &akron(),
        "UPDATE app_user SET is_active = false WHERE email LIKE 'supervisor@%'",
    )
    .await;
    said.push(
        caller
            .post("/auth/refresh", refresh_body(&tokens.refresh))
            .await
            .problem(401),
    );
    sql(&hub, &akron(), "UPDATE app_user SET is_active = true").await;
    sql(&hub, &akron(), "UPDATE refresh_token SET expires_at = issued_at").await;
    said.push(
        caller
            .post("/auth/refresh", refresh_body(&tokens.refresh))
            .await
            .problem(401),
    );
    said.dedup();
    assert_eq!(said.len(), 1, "{said:?}");

    let unreadable = json!({ "refresh_token": tokens.refresh, "tenant": "akron" });
    caller.post("/auth/refresh", unreadable).await.problem(422);
    caller
        .send(Method::POST, "/auth/refresh", None)
        .await
        .problem(401);
    let as_access = caller.with_token(tokens.refresh.clone()).get("/auth/me").await;
    as_access.problem(401);
}

#[tokio::test]
async fn nothing_of_a_suspended_tenant_is_served_and_its_sign_in_looks_like_any_wrong_one() {
    let hub = TestHub::start().await;
    let caller = Caller::anonymous(&hub);
    let tokens = login(&caller).await;
    let mut platform = hub.db.platform().await.unwrap();
    sqlx::query("UPDATE platform.tenant SET status = 'suspended' WHERE slug = 'akron'")
        .execute(platform.conn())
        .await
        .unwrap();
    platform.commit().await.unwrap();
    let body = json!({ "tenant": "akron", "email": EMAIL, "password": PASSWORD });
    let refused = caller.post("/auth/login", body).await.problem(401);
    let body = json!({ "tenant": "nowhere", "email": EMAIL, "password": PASSWORD });
    assert_eq!(caller.post("/auth/login", body).await.problem(401), refused);
    caller
        .post("/auth/refresh", refresh_body(&tokens.refresh))
        .await
        .problem(401);
    caller
        .with_token(tokens.access)
        .get("/auth/me")
        .await
        .problem(403);
}

#[tokio::test]
async fn a_bearer_token_is_taken_only_as_this_hub_signs_it() {
    use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD as B64};
    let hub = TestHub::start().await;
    let caller = Caller::anonymous(&hub);
    let access = login(&caller).await.access;
    let (head, rest) = access.split_once('.').unwrap();
    let (claims, signature) = rest.split_once('.').unwrap();
    let none = B64.encode(r#"{"typ":"JWT","alg":"none"}"#);
    let decoded: Value = serde_json::from_slice(&B64.decode(claims).unwrap()).unwrap();
    let with = |name: &str, value: Value| {
        let mut claims = decoded.clone();
        claims[name] = value;
        format!("{head}.{}.{signature}", B64.encode(claims.to_string()))
    };
    for forged in [
        format!("{none}.{claims}."),
        format!("{none}.{claims}.{signature}"),
        format!("{head}.{claims}."),
        with("tenant", json!("cuyahoga")),
        with("role", json!("admin")),
        with("exp", json!(i64::MAX)),
        with("sub", json!("00000000-0000-0000-0000-000000000000")),
    ] {
        assert!(!is_in(&caller, &forged).await, "{forged}");
    }
    let unknown_claim = format!("{head}.{}.x", B64.encode(r#"{"sub":"x","scope":"everything"}"#));
    assert!(!is_in(&caller, &unknown_claim).await);
    assert!(is_in(&caller, &access).await);
}

/// The refresh cookie of an answer, as `Set-Cookie` says it.
fn cookie(headers: &HeaderMap) -> String {
    headers["set-cookie"].to_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_browser_keeps_its_refresh_token_where_no_script_reads_it() {
    let hub = TestHub::start_with(|config| {
        config.http.public_url = Some("https://foodflow.example".to_owned());
    })
    .await;
    let caller = Caller::anonymous(&hub);
    let body = json!({ "tenant": "akron", "email": EMAIL, "password": PASSWORD, "cookie": true });
    let answer = caller
        .request(Method::POST, "/auth/login")
        .json(&body)
        .send()
        .await
        .unwrap();
    let set = cookie(answer.headers());
    assert_eq!(answer.headers()["cache-control"], "no-store");
    for part in [
        "Path=/api/v1/auth",
        "HttpOnly",
        "SameSite=Strict",
        "Secure",
        "Max-Age=604800",
    ] {
        assert!(set.contains(part), "{set}");
    }
    let session: Value = answer.json().await.unwrap();
    assert_eq!(session.get("refresh_token"), None);

    let pair = set.split(';').next().unwrap().to_owned();
    let refresh = |path: &str| caller.request(Method::POST, path).header("cookie", &pair);
    let forged_form = refresh("/auth/refresh").send().await.unwrap();
    assert_eq!(
        forged_form.status(),
        400,
        "a foreign page's form sends no such header"
    );
    let next = refresh("/auth/refresh")
        .header("x-requested-with", "dashboard")
        .send()
        .await
        .unwrap();
    assert_eq!(next.status(), 200);
    let pair = cookie(next.headers()).split(';').next().unwrap().to_owned();
    let access = next.json::<Value>().await.unwrap()["access_token"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(is_in(&caller, &access).await);

    let out = caller
        .request(Method::POST, "/auth/logout")
        .header("cookie", &pair);
    let out = out.header("x-requested-with", "dashboard").send().await.unwrap();
    assert_eq!(out.status(), 204);
    assert!(cookie(out.headers()).contains("Max-Age=0"));
    assert!(!is_in(&caller, &access).await);
}

#[tokio::test]
async fn a_refused_sign_in_is_on_record_without_what_was_typed_as_password() {
    let hub = TestHub::start().await;
    let caller = Caller::anonymous(&hub);
    sql(
        &hub,
        &akron(),
        "UPDATE app_user SET email_verified_at = NULL WHERE email LIKE 'operator@%'",
    )
    .await;
    for (email, password) in [
        (EMAIL, "hunter2-hunter2"),
        ("nobody@akron.example", "hunter2-hunter2"),
        ("operator@akron.example", PASSWORD),
    ] {
        let body = json!({ "tenant": "akron", "email": email, "password": password });
        caller.post("/auth/login", body).await.problem(401);
    }
    let mut tx = hub.db.begin(&akron()).await.unwrap();
    let events: Vec<String> = sqlx::query_scalar(
        "SELECT event FROM audit_event WHERE entity = 'session' AND action = 'denied' ORDER BY seq",
    )
    .fetch_all(tx.conn())
    .await
    .unwrap();
    let because: Vec<Value> = events
        .iter()
        .map(|event| serde_json::from_str::<Value>(event).unwrap()["after"]["because"].clone())
        .collect();
    assert_eq!(because, ["password", "unknown", "unverified"]);
    assert!(events.iter().all(|event| !event.contains("hunter2")));
}

#[tokio::test]
async fn what_cannot_be_an_account_is_refused_like_one_that_is_not_there() {
    let hub = TestHub::start().await;
    let caller = Caller::anonymous(&hub);
    let mut said = Vec::new();
    for control in [
        "\u{0}",
        "\u{1}",
        "\n",
        "\u{7f}",
        "\u{202e}",
        "'; DROP TABLE app_user; --",
    ] {
        for field in ["tenant", "email", "password"] {
            let mut body = json!({ "tenant": "akron", "email": EMAIL, "password": PASSWORD });
            body[field] = json!(format!("{}{control}x", body[field].as_str().unwrap()));
            said.push(caller.post("/auth/login", body).await.problem(401));
        }
    }
    let long = json!({ "tenant": "akron", "email": EMAIL, "password": "x".repeat(500_000) });
    said.push(caller.post("/auth/login", long).await.problem(401));
    said.dedup();
    assert_eq!(said.len(), 1, "{said:?}");
    let extra = json!({ "tenant": "akron", "email": EMAIL, "password": PASSWORD, "role": "admin" });
    caller.post("/auth/login", extra).await.problem(422);
}

#[tokio::test]
async fn a_source_that_tries_too_often_is_told_when_to_come_back() {
    let hub = TestHub::start_with(|config| {
        config.auth.attempts.logins_per_source_min = 3;
        config.auth.attempts.refreshes_per_source_min = 2;
        config.http.trusted_proxies = vec!["127.0.0.1".parse().unwrap()];
    })
    .await;
    let caller = Caller::anonymous(&hub);
    let from = |path: &str, client: &str, body: Value| {
        let request = caller
            .request(Method::POST, path)
            .header("x-forwarded-for", client)
            .json(&body);
        async move { request.send().await.unwrap() }
    };
    let guess =
        |number: usize| json!({ "tenant": "akron", "email": format!("{number}@b.c"), "password": "x" });
    for number in 0..3 {
        assert_eq!(
            from("/auth/login", "192.0.2.1", guess(number)).await.status(),
            401
        );
    }
    let refused = from("/auth/login", "192.0.2.1", guess(4)).await;
    assert_eq!(refused.status(), 429);
    assert!(
        refused.headers()["retry-after"]
            .to_str()
            .unwrap()
            .parse::<u64>()
            .unwrap()
            <= 20
    );
    assert_eq!(from("/auth/login", "192.0.2.2", guess(4)).await.status(), 401);
    for status in [401, 401, 429] {
        let answer = from("/auth/refresh", "192.0.2.1", refresh_body("akron.x")).await;
        assert_eq!(answer.status(), status);
    }
}

#[tokio::test]
async fn an_account_holds_a_bounded_number_of_sessions() {
    let hub = TestHub::start().await;
    let caller = Caller::anonymous(&hub);
    let first = login(&caller).await;
    sql(
        &hub,
        &akron(),
        "INSERT INTO session (id, user_id, started_at, expires_at, auth_factor) \
         SELECT gen_random_uuid(), user_id, now() + interval '1 second', expires_at, auth_factor \
         FROM session, generate_series(1, 99)",
    )
    .await;
    assert!(is_in(&caller, &first.access).await);
    login(&caller).await;
    assert!(!is_in(&caller, &first.access).await, "the oldest gave way");
    let open = "SELECT count(*) FROM session WHERE ended_at IS NULL";
    assert_eq!(count(&hub, open).await, 100);
}

#[tokio::test]
async fn a_session_belongs_to_one_tenant() {
    let hub = TestHub::start().await;
    let caller = Caller::anonymous(&hub);
    let tokens = login(&caller).await;
    let theirs = Caller::of_tenant(&hub, &cuyahoga(), Role::Admin).await;
    let bearer = theirs
        .request(Method::POST, "/auth/logout")
        .json(&json!({ "refresh_token": "cuyahoga.x" }));
    assert_eq!(bearer.send().await.unwrap().status(), 204);
    assert!(is_in(&caller, &tokens.access).await);
}
