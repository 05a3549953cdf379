//! Who gets in? Every operation of the OpenAPI document is tried without a token, with bad ones, without its
//! permission, with nothing but its permission, and from another tenant. None is left out.

use std::collections::BTreeMap;

use cloud_hub::kernel::{permission::Permission, role::Role};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    rows::{self, candidates, fill},
    specimen::{Access, Api, Given, Operation, Raw, Sender},
    support::{TestHub, akron, cuyahoga},
};

/// Operations on a named row of the tenant that another tenant cannot even name, with the reason.
const NOBODY_ELSES: &[(&str, &str)] = &[
    (
        "read_audit_entry",
        "every chain counts from 1: the same number is another entry in each, and `isolation` looks at what is said",
    ),
    (
        "retry_event_dead_letter",
        "a marked row is of no real projection; `events` retries one that is",
    ),
    (
        "ingest_message",
        "a dialect is a word of the hub's and names no row; the tests of integrators send real messages",
    ),
    (
        "read_attachment_content",
        "a row made by hand has no file; `core` downloads a real one",
    ),
];

fn problem(raw: &Raw, status: u16, what: &str) -> Value {
    assert_eq!(raw.status.as_u16(), status, "{what}: {raw:?}");
    assert_eq!(raw.headers["content-type"], "application/problem+json", "{what}");
    raw.json()
}

/// A token of a new user of Akron who holds these permissions everywhere.
async fn token_with(hub: &TestHub, permissions: &[&str]) -> String {
    let user = hub.person(&akron(), permissions).await;
    hub.token_of(&akron(), user, None)
}

/// Tokens that were never good, or are no longer, by what is wrong with them.
fn bad_tokens(hub: &TestHub) -> Vec<(&'static str, String)> {
    use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
    let now = hub.hub.app.clock.now().timestamp();
    let claims =
        json!({ "sub": Uuid::nil(), "tenant": "akron", "role": "admin", "iat": now, "exp": now + 900 });
    let key = std::fs::read(hub.data_dir().join("signing.key")).unwrap();
    let ours = EncodingKey::from_secret(&key);
    let with = |field: &str, value: Value| {
        let mut claims = claims.clone();
        claims[field] = value;
        encode(&Header::new(Algorithm::HS256), &claims, &ours).unwrap()
    };
    let good = with("sub", json!(Uuid::nil()));
    let unsigned = {
        use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
        let part = |value: &Value| BASE64.encode(value.to_string());
        format!(
            "{}.{}.",
            part(&json!({ "alg": "none", "typ": "JWT" })),
            part(&claims)
        )
    };
    let altered = {
        let (head, _) = good.rsplit_once('.').unwrap();
        let (_, tail) = with("role", json!("auditor"))
            .rsplit_once('.')
            .map(|(a, b)| (a.to_owned(), b.to_owned()))
            .unwrap();
        format!("{head}.{tail}")
    };
    vec![
        ("garbage", "x.y.z".to_owned()),
        ("no token at all", String::new()),
        ("expired", with("exp", json!(now - 1))),
        (
            "another key",
            encode(
                &Header::new(Algorithm::HS256),
                &claims,
                &EncodingKey::from_secret(&[7; 32]),
            )
            .unwrap(),
        ),
        (
            "another algorithm",
            encode(&Header::new(Algorithm::HS512), &claims, &ours).unwrap(),
        ),
        ("not signed", unsigned),
        ("another token's signature", altered),
        ("for another audience", with("aud", json!("somebody-else"))),
        ("of nobody", with("sub", json!(Uuid::from_u128(7)))),
        (
            "of another tenant's shape",
            with("tenant", json!("akron\"; DROP SCHEMA t_akron")),
        ),
        (
            "an API key that is none",
            format!("ff_akron_{}_guess", Uuid::nil().simple()),
        ),
        (
            "an API key of no tenant",
            format!("ff_nowhere_{}_guess", Uuid::nil().simple()),
        ),
    ]
}

#[tokio::test]
async fn no_operation_answers_without_a_good_token() {
    let hub = TestHub::start().await;
    let (api, sender) = (Api::read(), Sender::to(&hub));
    let bad = bad_tokens(&hub);
    for operation in &api.operations {
        let prepared = api.least(operation, &Given::new());
        if operation.access == Access::Public {
            let raw = sender.send(&prepared, None).await;
            assert!(
                !raw.text.contains("a bearer token is needed"),
                "{} says it is public: {raw:?}",
                operation.id
            );
            continue;
        }
        for (flaw, token) in
            std::iter::once(("none", None)).chain(bad.iter().map(|(flaw, it)| (*flaw, Some(it))))
        {
            let raw = sender.send(&prepared, token.map(String::as_str)).await;
            problem(
                &raw,
                401,
                &format!("{} with a token that is {flaw}", operation.id),
            );
            assert_eq!(raw.headers["www-authenticate"], "Bearer", "{}", operation.id);
        }
    }
}

#[tokio::test]
async fn every_operation_needs_the_permissions_it_declares_and_no_other() {
    let hub = TestHub::start().await;
    let (api, sender) = (Api::read(), Sender::to(&hub));
    let nothing = token_with(&hub, &[]).await;
    let admin = hub.token(Role::Admin).await;
    let mut tokens = BTreeMap::new();
    let (mut refused, mut wrong) = (0, Vec::new());
    for operation in &api.operations {
        let mut given = Given::new();
        if let Access::Permissions(needed) = &operation.access {
            // Nobody passes on more than they hold: what a role or a key allows is what its maker may do here.
            given.insert("?permissions".to_owned(), json!(needed));
        }
        let prepared = api.least(operation, &given);
        let id = &operation.id;
        match &operation.access {
            Access::Public => {}
            Access::SignedIn => {
                let raw = sender.send(&prepared, Some(&nothing)).await;
                if raw.status == 401 || raw.status == 403 {
                    wrong.push(format!("{id} is for whoever is signed in, but: {}", raw.text));
                }
            }
            Access::Platform => {
                let raw = sender.send(&prepared, Some(&admin)).await;
                if raw.status != 401 && raw.status != 403 {
                    wrong.push(format!("{id} answers a tenant's admin: {}", raw.text));
                }
            }
            Access::Permissions(needed) => {
                let only: Vec<&str> = needed.iter().map(String::as_str).collect();
                let allowed = cached(&hub, &mut tokens, &only).await;
                let raw = sender.send(&prepared, Some(&allowed)).await;
                if raw.status == 401 || raw.status == 403 {
                    wrong.push(format!("{id} needs more than {needed:?}: {}", raw.text));
                }
                for missing in needed {
                    let others: Vec<&str> = Permission::ALL
                        .iter()
                        .map(|it| it.as_str())
                        .filter(|it| it != missing)
                        .collect();
                    let denied = cached(&hub, &mut tokens, &others).await;
                    let raw = sender.send(&prepared, Some(&denied)).await;
                    refused += 1;
                    if raw.status != 403 || !raw.text.contains(missing.as_str()) {
                        wrong.push(format!(
                            "{id} without {missing} answers {}: {}",
                            raw.status, raw.text
                        ));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let noted = hub
        .count(
            &akron(),
            "SELECT count(*) FROM audit_event WHERE action = 'denied'",
        )
        .await;
    assert!(noted >= refused, "{noted} of {refused} refusals are on record");
}

async fn cached(hub: &TestHub, tokens: &mut BTreeMap<String, String>, permissions: &[&str]) -> String {
    let key = permissions.join(" ");
    if !tokens.contains_key(&key) {
        tokens.insert(key.clone(), token_with(hub, permissions).await);
    }
    tokens[&key].clone()
}

#[tokio::test]
async fn another_tenants_rows_do_not_exist_for_any_operation() {
    let hub = TestHub::start().await;
    let (api, sender) = (Api::read(), Sender::to(&hub));
    let mut owner = rows::owner(&hub).await;
    let rows = fill(&mut owner, &akron(), "akronmark", 2).await;
    let (ours, theirs) = (
        hub.token(Role::Admin).await,
        hub.token_in(&cuyahoga(), Role::Admin).await,
    );
    let mut named: Vec<&Operation> = api
        .operations
        .iter()
        .filter(|it| !it.variables.is_empty())
        .collect();
    named.retain(|it| matches!(it.access, Access::Permissions(_) | Access::SignedIn));
    let mut seen = Vec::new();
    for operation in &named {
        for (table, given) in candidates(operation, &rows, 0) {
            let raw = sender.send(&api.least(operation, &given), Some(&theirs)).await;
            if raw.status != 404 || raw.text.contains("akronmark") {
                seen.push(format!(
                    "{} on a row of {table}: {} {}",
                    operation.id, raw.status, raw.text
                ));
            }
        }
    }
    assert!(
        seen.is_empty(),
        "{} answers to another tenant:\n{}",
        seen.len(),
        seen.join("\n")
    );

    // The same requests find the rows of their own tenant: it was not for want of a row.
    let last = |method: &Method| (*method == Method::DELETE, *method != Method::GET);
    named.sort_by_key(|it| last(&it.method));
    let mut uncovered = Vec::new();
    for operation in &named {
        let mut is_found = NOBODY_ELSES.iter().any(|(id, _)| *id == operation.id);
        for number in [0, 1] {
            for (_, given) in candidates(operation, &rows, number) {
                if !is_found {
                    let raw = sender.send(&api.least(operation, &given), Some(&ours)).await;
                    is_found = !matches!(raw.status.as_u16(), 400 | 401 | 403 | 404 | 415 | 422);
                }
            }
        }
        if !is_found {
            uncovered.push(operation.id.as_str());
        }
    }
    assert!(
        uncovered.is_empty(),
        "no row of Akron was found by {uncovered:?}, of {} operations",
        named.len()
    );
}

#[tokio::test]
async fn a_suspended_account_an_ended_session_and_a_suspended_tenant_are_out_at_the_next_request() {
    let hub = TestHub::start().await;
    let sender = Sender::to(&hub);
    let api = Api::read();
    let me = api.operations.iter().find(|it| it.id == "list_plants").unwrap();
    let me = api.least(me, &Given::new());
    let user = hub.person(&akron(), &["plant.read"]).await;
    let session = Uuid::now_v7();
    hub.execute(
        &akron(),
        "INSERT INTO session (id, user_id, started_at, expires_at, auth_factor) \
         VALUES ($1, $2, now(), now() + interval '1 hour', 'password')",
        &[session, user],
    )
    .await;
    let token = hub.token_of(&akron(), user, Some(session));
    assert_eq!(sender.send(&me, Some(&token)).await.status, 200);

    let foreign = hub.token_of(&akron(), user, Some(Uuid::now_v7()));
    problem(
        &sender.send(&me, Some(&foreign)).await,
        401,
        "a session that is none",
    );
    let moved = hub.token_of(&cuyahoga(), user, Some(session));
    problem(
        &sender.send(&me, Some(&moved)).await,
        401,
        "an account of another tenant",
    );
    hub.execute(
        &akron(),
        "UPDATE session SET ended_at = now(), ended_because = 'admin' WHERE id = $1",
        &[session],
    )
    .await;
    problem(&sender.send(&me, Some(&token)).await, 401, "an ended session");

    let plain = hub.token_of(&akron(), user, None);
    assert_eq!(sender.send(&me, Some(&plain)).await.status, 200);
    hub.execute(
        &akron(),
        "UPDATE app_user SET is_active = false WHERE id = $1",
        &[user],
    )
    .await;
    problem(&sender.send(&me, Some(&plain)).await, 401, "a suspended account");

    let admin = hub.token(Role::Admin).await;
    let mut owner = rows::owner(&hub).await;
    sqlx::query("UPDATE platform.tenant SET status = 'suspended', suspended_at = now() WHERE slug = 'akron'")
        .execute(&mut owner)
        .await
        .unwrap();
    for operation in api
        .operations
        .iter()
        .filter(|it| matches!(it.access, Access::Permissions(_) | Access::SignedIn))
    {
        let raw = sender
            .send(&api.least(operation, &Given::new()), Some(&admin))
            .await;
        assert_eq!(
            problem(&raw, 403, &operation.id)["type"],
            "urn:foodflow:problem:tenant-suspended"
        );
    }
    let theirs = hub.token_in(&cuyahoga(), Role::Admin).await;
    assert_eq!(
        sender.send(&me, Some(&theirs)).await.status,
        200,
        "other tenants work on"
    );
}
