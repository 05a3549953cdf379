//! Signing in with a plant's own account: through a certified provider as a browser does it, and against one that
//! lies. The hub believes only what the right provider signed, for this sign-in, in this browser.

use std::sync::{Arc, Mutex};

use axum::{Json, Router, extract::State, routing};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use cloud_hub::kernel::role::Role;
use ed25519_dalek::{Signer as _, SigningKey};
use reqwest::{Method, Url};
use serde_json::{Value, json};

use crate::{
    browser::{Browser, Provider, location, with_local_providers},
    client::{Answer, Caller, http_client},
    support::{TestHub, akron, cuyahoga},
};

const START: &str = "/api/v1/auth/oidc/akron/plant/start";
const REFRESH_COOKIE: &str = "foodflow_refresh";

fn people() -> Value {
    json!({
        "super": { "email": "supervisor@akron.example", "email_verified": true, "name": "S", "groups": ["leads"] },
        "new": { "email": "New.Person@akron.example", "email_verified": true, "name": "New Person", "groups": ["qa"] },
        "unverified": { "email": "admin@akron.example", "email_verified": false, "groups": [] },
        "foreign": { "email": "jo@evil.example", "email_verified": true, "groups": [] },
    })
}

async fn hub() -> TestHub {
    TestHub::start_with(with_local_providers).await
}

async fn register(hub: &TestHub, entry: Value) -> Value {
    let admin = Caller::with_role(hub, Role::Admin).await;
    let made = admin.post("/identity-providers", entry).await.ok();
    assert_eq!(made["problem"], Value::Null, "{made}");
    made
}

async fn count(hub: &TestHub, sql: &'static str) -> i64 {
    let mut tx = hub.db.begin(&akron()).await.unwrap();
    sqlx::query_scalar(sql).fetch_one(tx.conn()).await.unwrap()
}

/// Goes through the provider and back; the hub's answer.
async fn through(hub: &TestHub, browser: &mut Browser, login: &str) -> Answer {
    let back = browser.sign_in(hub, START, login).await;
    answer(browser, &back).await
}

async fn answer(browser: &mut Browser, url: &str) -> Answer {
    let response = browser.get(url).await;
    let content_type = response.headers().get("content-type").cloned();
    Answer {
        status: response.status(),
        content_type: content_type.map_or_else(String::new, |it| it.to_str().unwrap().to_owned()),
        body: serde_json::from_str(&response.text().await.unwrap()).unwrap_or(Value::Null),
    }
}

/// Exchanges the refresh cookie, as the dashboard does, and says who that is.
async fn me(hub: &TestHub, browser: &Browser) -> Value {
    let token = browser.cookie(hub, REFRESH_COOKIE).expect("a refresh cookie");
    let refresh = http_client()
        .post(hub.url("/api/v1/auth/refresh"))
        .header("cookie", format!("{REFRESH_COOKIE}={token}"))
        .header("x-requested-with", "test");
    let session = Answer::of(refresh).await.ok();
    let token = session["access_token"].as_str().unwrap().to_owned();
    Caller::anonymous(hub)
        .with_token(token)
        .get("/auth/me")
        .await
        .ok()
}

#[tokio::test]
async fn a_person_signs_in_with_the_plants_account_and_is_led_back() {
    let hub = hub().await;
    let provider = Provider::start(&hub, &people());
    let made = register(&hub, provider.entry("plant")).await;
    assert_eq!(made["has_client_secret"], true);
    assert!(!made.to_string().contains("secret of a test"), "{made}");

    let offered = Caller::anonymous(&hub).items("/auth/oidc/akron/providers").await;
    assert_eq!(offered[0]["start_url"], START);
    let mut browser = Browser::new();
    let start = format!("{START}?return_to=/t/akron/now");
    let back = browser.sign_in(&hub, &start, "super").await;
    let response = browser.get(&back).await;
    assert_eq!(response.status(), 303);
    assert_eq!(location(&response).as_deref(), Some("/t/akron/now"));
    assert_eq!(
        me(&hub, &browser).await["user"]["email"],
        "supervisor@akron.example"
    );
    let sessions = "SELECT count(*) FROM session WHERE auth_factor = 'identity_provider'";
    assert_eq!(count(&hub, sessions).await, 1);
    let linked = "SELECT count(*) FROM audit_event WHERE action = 'link' AND entity = 'identity_link'";
    assert_eq!(count(&hub, linked).await, 1);

    // The link is by subject: it stays when the address here changes.
    let mut tx = hub.db.begin(&akron()).await.unwrap();
    sqlx::query(
        "UPDATE app_user SET email = 'renamed@akron.example' WHERE email = 'supervisor@akron.example'",
    )
    .execute(tx.conn())
    .await
    .unwrap();
    tx.commit_unaudited("a test moves the world").await.unwrap();
    let mut again = Browser::new();
    assert_eq!(through(&hub, &mut again, "super").await.status, 303);
    assert_eq!(me(&hub, &again).await["user"]["email"], "renamed@akron.example");

    let leave = browser
        .get(&hub.url("/api/v1/auth/oidc/akron/plant/end-session"))
        .await;
    let leave = location(&leave).unwrap();
    assert!(
        leave.starts_with(&format!("{}/session/end?", provider.issuer)),
        "{leave}"
    );
}

#[tokio::test]
async fn a_callback_works_once_in_the_browser_that_began_and_for_its_own_tenant() {
    let hub = hub().await;
    let provider = Provider::start(&hub, &people());
    register(&hub, provider.entry("plant")).await;
    let mut browser = Browser::new();
    let back = browser.sign_in(&hub, START, "super").await;

    answer(&mut Browser::new(), &back).await.problem(401);
    let foreign = back.replace("state=akron.", "state=cuyahoga.");
    answer(&mut browser, &foreign).await.problem(401);
    let altered = back.replace("state=akron.", "state=akron.x");
    answer(&mut browser, &altered).await.problem(401);
    let mixed = back.replace("iss=http", "iss=https");
    assert_ne!(mixed, back, "the provider names itself (RFC 9207)");
    assert!(browser.cookie(&hub, REFRESH_COOKIE).is_none());

    assert_eq!(answer(&mut browser, &back).await.status, 303);
    answer(&mut browser, &back).await.problem(401);

    let mut other = Browser::new();
    let back = other.sign_in(&hub, START, "super").await;
    answer(&mut other, &back.replace("iss=http", "iss=https"))
        .await
        .problem(401);
    let back = other.sign_in(&hub, START, "super").await;
    let code = back.split("code=").nth(1).unwrap().split('&').next().unwrap();
    let refused = answer(&mut other, &back.replace(code, "no-such-code"))
        .await
        .problem(401);
    assert!(refused.contains("code"), "{refused}");

    let back = other.sign_in(&hub, START, "super").await;
    let mut tx = hub.db.begin(&akron()).await.unwrap();
    sqlx::query("UPDATE oidc_attempt SET expires_at = now() - interval '1 second'")
        .execute(tx.conn())
        .await
        .unwrap();
    tx.commit_unaudited("a test moves the world").await.unwrap();
    answer(&mut other, &back).await.problem(401);
}

#[tokio::test]
async fn who_has_no_account_gets_in_only_where_the_tenant_wants_it() {
    let hub = hub().await;
    let provider = Provider::start(&hub, &people());
    let made = register(&hub, provider.entry("plant")).await;
    for (login, why) in [
        ("new", "no account"),
        ("unverified", "no e-mail"),
        ("foreign", "domain"),
    ] {
        let refused = through(&hub, &mut Browser::new(), login).await.problem(401);
        assert!(refused.contains(why), "{login}: {refused}");
    }
    let denied = "SELECT count(*) FROM audit_event WHERE action = 'denied' AND entity = 'session'";
    assert_eq!(count(&hub, denied).await, 3);

    let admin = Caller::with_role(&hub, Role::Admin).await;
    let path = format!("/identity-providers/{}", made["id"].as_str().unwrap());
    let change = json!({ "auto_provision": true, "role_claim": "groups",
        "role_mapping": [{ "value": "qa", "role": "fsq_manager" }, { "value": "leads", "role": "auditor" }] });
    admin.change(Method::PATCH, &path, 1, Some(change)).await.ok();
    let mut browser = Browser::new();
    assert_eq!(through(&hub, &mut browser, "new").await.status, 303);
    let person = me(&hub, &browser).await;
    assert_eq!(person["user"]["email"], "new.person@akron.example");
    assert_eq!(person["user"]["display_name"], "New Person");
    assert_eq!(person["user"]["role"], "fsq_manager");

    // The provider takes the group away: so does the next sign-in.
    let change = json!({ "role_mapping": [{ "value": "elsewhere", "role": "fsq_manager" }] });
    admin.change(Method::PATCH, &path, 2, Some(change)).await.ok();
    assert_eq!(through(&hub, &mut browser, "new").await.status, 303);
    assert!(me(&hub, &browser).await["can"].as_array().unwrap().is_empty());

    let mut tx = hub.db.begin(&akron()).await.unwrap();
    sqlx::query("UPDATE app_user SET is_active = false WHERE email = 'new.person@akron.example'")
        .execute(tx.conn())
        .await
        .unwrap();
    tx.commit_unaudited("a test moves the world").await.unwrap();
    let refused = through(&hub, &mut browser, "new").await.problem(401);
    assert!(refused.contains("suspended"), "{refused}");
}

#[tokio::test]
async fn an_application_exchanges_its_own_code_once() {
    let hub = hub().await;
    let provider = Provider::start(&hub, &people());
    let mut entry = provider.entry("app");
    entry["client_id"] = json!("foodflow-app");
    entry["client_secret"] = Value::Null;
    register(&hub, entry).await;
    // The application's own request, as the browser began it for the hub.
    let mut browser = Browser::new();
    let verifier = "v".repeat(50);
    let challenge = URL_SAFE_NO_PAD.encode(<sha2::Sha256 as sha2::Digest>::digest(&verifier));
    let redirect_uri = hub.url("/api/v1/auth/oidc/callback");
    let url = Url::parse_with_params(
        &format!("{}/auth", provider.issuer),
        [
            ("client_id", "foodflow-app"),
            ("response_type", "code"),
            ("scope", "openid email profile"),
            ("redirect_uri", &redirect_uri),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
            ("nonce", "n-1"),
            ("state", "s"),
        ],
    )
    .unwrap();
    let back = browser.sign_in_at(&hub, url.as_str(), "super").await;
    let back = Url::parse(&back).unwrap();
    let code = back
        .query_pairs()
        .find(|(name, _)| name == "code")
        .unwrap()
        .1
        .into_owned();
    let caller = Caller::anonymous(&hub);
    let body =
        json!({ "code": code, "code_verifier": verifier, "redirect_uri": redirect_uri, "nonce": "n-1" });
    let entries = "SELECT count(*) FROM audit_event WHERE actor_kind = 'user' AND action = 'login' AND entity = 'session'";
    assert_eq!(count(&hub, entries).await, 0);
    let session = caller.post("/auth/oidc/akron/app/token", body.clone()).await.ok();
    assert_eq!(count(&hub, entries).await, 1);
    let token = session["access_token"].as_str().unwrap().to_owned();
    caller.with_token(token).get("/auth/me").await.ok();
    caller.post("/auth/oidc/akron/app/token", body).await.problem(401);
}

#[tokio::test]
async fn a_provider_is_checked_when_it_is_entered_and_its_absence_is_told() {
    let hub = hub().await;
    let provider = Provider::start(&hub, &people());
    let admin = Caller::with_role(&hub, Role::Admin).await;
    let with = |field: &str, value: Value| {
        let mut entry = provider.entry("plant");
        entry[field] = value;
        entry
    };
    for (field, value) in [
        ("issuer", json!(format!("{}/", provider.issuer))),
        ("issuer", json!("http://login.plant.example")),
        ("issuer", json!("https://169.254.169.254")),
        ("issuer", json!("https://user:word@login.plant.example")),
        ("issuer", json!("no address")),
        ("name", json!("Not A Slug")),
        ("display_name", json!("")),
        ("display_name", json!("a\u{0}b")),
        ("scopes", json!(["two words"])),
        ("email_domains", json!(["*"])),
        ("role_mapping", json!([{ "value": "x", "role": "auditor" }])),
        ("client_secret", json!("")),
    ] {
        let refused = admin
            .post("/identity-providers", with(field, value.clone()))
            .await;
        assert!(refused.status == 400, "{field} {value}: {refused:?}");
        refused.problem(400);
    }
    let made = register(&hub, provider.entry("plant")).await;
    admin
        .post("/identity-providers", provider.entry("plant"))
        .await
        .problem(409);
    let path = format!("/identity-providers/{}", made["id"].as_str().unwrap());
    Caller::of_tenant(&hub, &cuyahoga(), Role::Admin)
        .await
        .get(&path)
        .await
        .problem(404);
    let listed = admin.items("/identity-providers").await;
    assert_eq!(listed, std::slice::from_ref(&made));

    let mut browser = Browser::new();
    let back = browser.sign_in(&hub, START, "super").await;
    drop(provider);
    let away = answer(&mut browser, &back).await;
    away.problem(503);
    let change = json!({ "display_name": "Away" });
    let saved = admin.change(Method::PATCH, &path, 1, Some(change)).await.ok();
    assert!(
        saved["problem"].as_str().unwrap().contains("does not answer"),
        "{saved}"
    );

    for path in [
        "/api/v1/auth/oidc/akron/nobody/start",
        "/api/v1/auth/oidc/nowhere/plant/start",
        "/api/v1/auth/oidc/not%20a%20slug/plant/start",
    ] {
        answer(&mut browser, &hub.url(path)).await.problem(404);
    }
    for foreign in ["https://evil.example", "//evil.example", "/%5Cevil.example"] {
        let path = format!("{START}?return_to={foreign}");
        answer(&mut browser, &hub.url(&path)).await.problem(400);
    }
    assert!(
        Caller::anonymous(&hub)
            .items("/auth/oidc/nowhere/providers")
            .await
            .is_empty()
    );
    admin.change(Method::DELETE, &path, 2, None).await.ok();
    assert!(
        Caller::anonymous(&hub)
            .items("/auth/oidc/akron/providers")
            .await
            .is_empty()
    );
}

// === a provider that lies ===

/// Makes a token of claims that are true.
type Lie = Box<dyn Fn(Value) -> String>;

/// What it gives for any code.
type Answers = Arc<Mutex<String>>;

/// Describes itself as a provider whose key is `[1; 32]`, and gives whatever token it is told to.
async fn liar() -> (String, Answers) {
    let answers = Answers::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let issuer = format!("http://{}", listener.local_addr().unwrap());
    let about = json!({
        "issuer": issuer, "authorization_endpoint": format!("{issuer}/auth"), "jwks_uri": format!("{issuer}/jwks"),
        "token_endpoint": format!("{issuer}/token"), "response_types_supported": ["code"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["EdDSA", "HS256", "none", "RS256"]
    });
    let key = SigningKey::from_bytes(&[1; 32]).verifying_key();
    let keys = json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": "k",
        "x": URL_SAFE_NO_PAD.encode(key.as_bytes()) }] });
    let token = |State(answers): State<Answers>| async move {
        let id_token = answers.lock().unwrap().clone();
        Json(json!({ "access_token": "a", "token_type": "Bearer", "id_token": id_token }))
    };
    let routes = Router::new()
        .route(
            "/.well-known/openid-configuration",
            routing::get(|| async move { Json(about) }),
        )
        .route("/jwks", routing::get(|| async move { Json(keys) }))
        .route("/token", routing::post(token))
        .with_state(Arc::clone(&answers));
    tokio::spawn(async move { axum::serve(listener, routes).await });
    (issuer, answers)
}

fn encoded(part: &Value) -> String {
    URL_SAFE_NO_PAD.encode(part.to_string())
}

fn signed(header: &Value, claims: &Value, key: u8) -> String {
    let text = format!("{}.{}", encoded(header), encoded(claims));
    let signature = SigningKey::from_bytes(&[key; 32]).sign(text.as_bytes());
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature.to_bytes()))
}

#[tokio::test]
async fn only_a_token_that_the_provider_signed_for_this_sign_in_is_believed() {
    let hub = hub().await;
    let (issuer, answers) = liar().await;
    let entry = json!({ "name": "plant", "display_name": "Liar", "issuer": issuer, "client_id": "foodflow",
        "client_secret": "known", "email_domains": ["akron.example"] });
    register(&hub, entry).await;
    let now_s = chrono::Utc::now().timestamp();
    let good = json!({ "iss": issuer, "aud": "foodflow", "sub": "s", "iat": now_s, "exp": now_s + 60,
        "email": "supervisor@akron.example", "email_verified": true });
    let eddsa = json!({ "alg": "EdDSA", "kid": "k" });
    let lie = |field: &'static str, value: Value| {
        move |mut claims: Value| {
            claims[field] = value.clone();
            signed(&json!({ "alg": "EdDSA", "kid": "k" }), &claims, 1)
        }
    };
    let lies: Vec<(&str, Lie)> = vec![
        (
            "another key",
            Box::new(|claims| signed(&json!({ "alg": "EdDSA", "kid": "k" }), &claims, 2)),
        ),
        (
            "an unknown key",
            Box::new(|claims| signed(&json!({ "alg": "EdDSA", "kid": "z" }), &claims, 2)),
        ),
        (
            "no signature",
            Box::new(|claims| format!("{}.{}.", encoded(&json!({ "alg": "none" })), encoded(&claims))),
        ),
        (
            "a shared secret",
            Box::new(|claims| {
                let key = jsonwebtoken::EncodingKey::from_secret(b"known");
                jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap()
            }),
        ),
        (
            "another issuer",
            Box::new(lie("iss", json!("https://login.plant.example"))),
        ),
        ("another client", Box::new(lie("aud", json!("somebody-else")))),
        (
            "one client of many",
            Box::new(lie("aud", json!(["foodflow", "somebody-else"]))),
        ),
        ("too old", Box::new(lie("exp", json!(now_s - 1)))),
        ("another sign-in", Box::new(lie("nonce", json!("n")))),
        ("no nonce", Box::new(lie("nonce", Value::Null))),
        ("no token", Box::new(|_| "nonsense".to_owned())),
    ];
    let mut browser = Browser::new();
    for (what, token) in lies {
        let begun = begin(&mut browser, &hub).await;
        let mut claims = good.clone();
        claims["nonce"] = json!(begun.nonce);
        *answers.lock().unwrap() = token(claims);
        let refused = answer(&mut browser, &begun.back).await;
        assert!(
            [401, 503].contains(&refused.status.as_u16()),
            "{what}: {refused:?}"
        );
        assert!(browser.cookie(&hub, REFRESH_COOKIE).is_none(), "{what}");
    }
    // The same without a lie, so that each lie above was what was refused.
    let begun = begin(&mut browser, &hub).await;
    let mut claims = good;
    claims["nonce"] = json!(begun.nonce);
    *answers.lock().unwrap() = signed(&eddsa, &claims, 1);
    assert_eq!(answer(&mut browser, &begun.back).await.status, 303);
    assert!(browser.cookie(&hub, REFRESH_COOKIE).is_some());
}

struct Begun {
    nonce: String,
    back: String,
}

async fn begin(browser: &mut Browser, hub: &TestHub) -> Begun {
    let to = location(&browser.get(&hub.url(START)).await).unwrap();
    let to = Url::parse(&to).unwrap();
    let said = |name: &str| {
        to.query_pairs()
            .find(|(key, _)| key == name)
            .unwrap()
            .1
            .into_owned()
    };
    assert_eq!(said("code_challenge_method"), "S256");
    Begun {
        nonce: said("nonce"),
        back: hub.url(&format!(
            "/api/v1/auth/oidc/callback?code=c&state={}",
            said("state")
        )),
    }
}
