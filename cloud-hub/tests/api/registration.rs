//! Accounts and passwords over HTTP and mail: registering, verifying, inviting, changing, resetting, and what
//! becomes of mail that cannot be sent.

use cloud_hub::{
    identity::{mail::Recipient, registration, upkeep},
    kernel::{audit::Actor, role::Role},
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::Instant;
use uuid::Uuid;

use crate::{
    client::{Answer, Caller},
    postbox::Postbox,
    support::{PASSWORD, TestHub, akron},
};

const SUPERVISOR: &str = "supervisor@akron.example";
const NEW_PASSWORD: &str = "a new long password";

async fn hub_with(postbox: &Postbox) -> TestHub {
    let hub = TestHub::start_with(|config| postbox.configure(config)).await;
    let mut platform = hub.db.platform().await.unwrap();
    let settings = json!({ "registration": { "mode": "domains", "domains": ["akron.example"] } });
    sqlx::query("UPDATE platform.tenant SET settings = $1 WHERE slug = 'akron'")
        .bind(settings)
        .execute(platform.conn())
        .await
        .unwrap();
    platform.commit().await.unwrap();
    hub
}

fn new_account(tenant: &str, email: &str) -> Value {
    json!({ "tenant": tenant, "email": email, "display_name": "Jo Doe", "password": NEW_PASSWORD })
}

async fn login(caller: &Caller, email: &str, password: &str) -> Answer {
    let body = json!({ "tenant": "akron", "email": email, "password": password });
    caller.post("/auth/login", body).await
}

async fn count(hub: &TestHub, statement: &'static str) -> i64 {
    let mut tx = hub.db.begin(&akron()).await.unwrap();
    sqlx::query_scalar(statement).fetch_one(tx.conn()).await.unwrap()
}

async fn sql(hub: &TestHub, statement: &'static str) {
    let mut tx = hub.db.begin(&akron()).await.unwrap();
    sqlx::query(statement).execute(tx.conn()).await.unwrap();
    tx.commit_unaudited("a test moves the world").await.unwrap();
}

/// Asks for a reset and reads the token from the mail.
async fn reset_token(caller: &Caller, postbox: &mut Postbox) -> String {
    let asked = json!({ "tenant": "akron", "email": SUPERVISOR });
    let answer = caller.post("/auth/password-reset/initiate", asked).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    let letter = postbox.next().await;
    assert_eq!(
        (letter.to.as_str(), letter.subject.as_str()),
        (SUPERVISOR, "Set a new password")
    );
    letter.token()
}

async fn confirm(caller: &Caller, token: &str, password: &str) -> Answer {
    let body = json!({ "token": token, "new_password": password });
    caller.post("/auth/password-reset/confirm", body).await
}

#[tokio::test]
async fn who_registers_signs_in_once_the_address_is_verified_and_may_do_nothing_yet() {
    let mut postbox = Postbox::open().await;
    let hub = hub_with(&postbox).await;
    let caller = Caller::anonymous(&hub);
    let answer = caller
        .post("/auth/register", new_account("akron", "Jo@Akron.example"))
        .await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    let letter = postbox.next().await;
    assert_eq!(letter.to, "jo@akron.example");
    assert!(
        letter
            .text
            .contains("https://foodflow.example/verify-email?token=akron."),
        "{}",
        letter.text
    );
    login(&caller, "jo@akron.example", NEW_PASSWORD)
        .await
        .problem(401);

    let again = json!({ "tenant": "akron", "email": "jo@akron.example" });
    caller.post("/auth/verify-email/resend", again).await.ok();
    let second = postbox.next().await.token();
    let verify = |token: String| caller.post("/auth/verify-email", json!({ "token": token }));
    verify(letter.token()).await.problem(401);
    assert_eq!(verify(second.clone()).await.status, StatusCode::NO_CONTENT);
    verify(second).await.problem(401);

    let session = login(&caller, "jo@akron.example", NEW_PASSWORD).await.ok();
    let jo = caller.with_token(session["access_token"].as_str().unwrap().to_owned());
    assert_eq!(jo.get("/auth/me").await.ok()["can"], json!([]));
    jo.get("/fsq/lots").await.problem(403);
    let audited = "SELECT count(*) FROM audit_event WHERE entity = 'app_user' \
        AND action IN ('register', 'resend_verification', 'verify_email')";
    assert_eq!(count(&hub, audited).await, 3);
    let told = "SELECT count(*) FROM audit_event a WHERE strpos(a.event, 'argon2') > 0";
    assert_eq!(count(&hub, told).await, 0);
}

#[tokio::test]
async fn nobody_learns_from_an_answer_which_addresses_or_tenants_there_are() {
    let mut postbox = Postbox::open().await;
    let hub = hub_with(&postbox).await;
    let caller = Caller::anonymous(&hub);
    sql(
        &hub,
        "UPDATE app_user SET is_active = false WHERE email LIKE 'operator@%'",
    )
    .await;
    let accounts = [
        ("akron", "new@akron.example"),
        ("akron", SUPERVISOR),
        ("akron", "operator@akron.example"),
        ("akron", "jo@elsewhere.example"),
        ("cuyahoga", "new@akron.example"),
        ("nowhere", "new@akron.example"),
        ("no slug", "new@akron.example"),
    ];
    for path in [
        "register",
        "verify-email/resend",
        "password-reset/initiate",
        "forgot-password",
    ] {
        let mut said = Vec::new();
        for (tenant, email) in accounts {
            let mut body = json!({ "tenant": tenant, "email": email });
            if path == "register" {
                body = new_account(tenant, email);
            }
            let asked = Instant::now();
            let request = caller.request(Method::POST, &format!("/auth/{path}")).json(&body);
            let response = request.send().await.unwrap();
            assert!(asked.elapsed().as_millis() >= 200, "the time tells nothing");
            assert_eq!(response.status(), 202);
            said.push(response.bytes().await.unwrap());
        }
        said.dedup();
        assert_eq!(said.len(), 1, "{path}: {said:?}");
    }
    let mut letters = Vec::new();
    for _ in 0..6 {
        let letter = postbox.next().await;
        letters.push((letter.to, letter.subject));
    }
    letters.sort();
    let letter = |to: &str, subject: &str| (to.to_owned(), subject.to_owned());
    assert_eq!(
        letters,
        [
            letter("new@akron.example", "Set a new password"),
            letter("new@akron.example", "Set a new password"),
            letter("new@akron.example", "Verify your e-mail address"),
            letter("new@akron.example", "Verify your e-mail address"),
            letter(SUPERVISOR, "Set a new password"),
            letter(SUPERVISOR, "You have an account already"),
        ][..],
    );
}

#[tokio::test]
async fn a_reset_sets_a_password_once_and_ends_every_session() {
    let mut postbox = Postbox::open().await;
    let hub = hub_with(&postbox).await;
    let caller = Caller::anonymous(&hub);
    let session = login(&caller, SUPERVISOR, PASSWORD).await.ok();
    let before = caller.with_token(session["access_token"].as_str().unwrap().to_owned());
    let first = reset_token(&caller, &mut postbox).await;
    let token = reset_token(&caller, &mut postbox).await;
    confirm(&caller, &first, NEW_PASSWORD).await.problem(401);

    confirm(&caller, &token, "short").await.problem(400);
    confirm(&caller, &token, SUPERVISOR).await.problem(400);
    confirm(&caller, &token, &"x".repeat(1025)).await.problem(400);
    let (one, two) = tokio::join!(
        confirm(&caller, &token, NEW_PASSWORD),
        confirm(&caller, &token, "another long password")
    );
    let mut statuses = [one.status.as_u16(), two.status.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [204, 401], "of two at once one sets it");
    let set = if one.status == 204 {
        NEW_PASSWORD
    } else {
        "another long password"
    };
    confirm(&caller, &token, NEW_PASSWORD).await.problem(401);
    assert_eq!(postbox.next().await.subject, "Your password was changed");

    before.get("/auth/me").await.problem(401);
    login(&caller, SUPERVISOR, PASSWORD).await.problem(401);
    login(&caller, SUPERVISOR, set).await.ok();
}

#[tokio::test]
async fn a_token_that_is_expired_moved_for_another_purpose_or_of_a_suspended_account_sets_nothing() {
    let mut postbox = Postbox::open().await;
    let hub = hub_with(&postbox).await;
    let caller = Caller::anonymous(&hub);
    let token = reset_token(&caller, &mut postbox).await;
    let moved = token.replace("akron.", "cuyahoga.");
    let mut said = Vec::new();
    for wrong in [
        "",
        "x",
        "akron.guess",
        "nowhere.guess",
        "akron.\u{0}",
        "akron.'--",
        &moved,
    ] {
        said.push(confirm(&caller, wrong, NEW_PASSWORD).await.problem(401));
        let verified = caller.post("/auth/verify-email", json!({ "token": wrong })).await;
        said.push(verified.problem(401));
    }
    let verified = caller.post("/auth/verify-email", json!({ "token": token })).await;
    said.push(verified.problem(401));
    sql(
        &hub,
        "UPDATE app_user SET is_active = false WHERE email LIKE 'supervisor@%'",
    )
    .await;
    said.push(confirm(&caller, &token, NEW_PASSWORD).await.problem(401));
    sql(&hub, "UPDATE app_user SET is_active = true").await;
    sql(
        &hub,
        "UPDATE one_time_token SET expires_at = now() - interval '1 second'",
    )
    .await;
    said.push(confirm(&caller, &token, NEW_PASSWORD).await.problem(401));
    said.dedup();
    assert_eq!(said.len(), 1, "{said:?}");
    login(&caller, SUPERVISOR, PASSWORD).await.ok();
    let alias = json!({ "token": token, "new_password": NEW_PASSWORD });
    caller.post("/auth/reset-password", alias).await.problem(401);
}

#[tokio::test]
async fn who_knows_the_password_changes_it_and_stays_signed_in_alone() {
    let mut postbox = Postbox::open().await;
    let hub = hub_with(&postbox).await;
    let caller = Caller::anonymous(&hub);
    let mut sessions = Vec::new();
    for _ in 0..2 {
        let session = login(&caller, SUPERVISOR, PASSWORD).await.ok();
        sessions.push(caller.with_token(session["access_token"].as_str().unwrap().to_owned()));
    }
    let [here, elsewhere] = [&sessions[0], &sessions[1]];
    let change = |caller: &Caller, current: &str, new: &str| {
        let (caller, body) = (
            caller.clone(),
            json!({ "current_password": current, "new_password": new }),
        );
        async move { caller.post("/auth/password-change", body).await }
    };
    change(&caller, PASSWORD, NEW_PASSWORD).await.problem(401);
    change(here, "not the password", NEW_PASSWORD).await.problem(400);
    change(here, PASSWORD, "short").await.problem(400);
    assert_eq!(
        change(here, PASSWORD, NEW_PASSWORD).await.status,
        StatusCode::NO_CONTENT
    );
    assert_eq!(postbox.next().await.subject, "Your password was changed");
    here.get("/auth/me").await.ok();
    elsewhere.get("/auth/me").await.problem(401);
    login(&caller, SUPERVISOR, PASSWORD).await.problem(401);
    login(&caller, SUPERVISOR, NEW_PASSWORD).await.ok();
    let denied = "SELECT count(*) FROM audit_event WHERE action = 'denied' AND entity = 'app_user'";
    assert_eq!(count(&hub, denied).await, 1);
    let changed = "SELECT count(*) FROM domain_event WHERE kind = 'PasswordChanged'";
    assert_eq!(count(&hub, changed).await, 1);
}

#[tokio::test]
async fn an_invitation_sets_the_first_password_and_verifies_the_address() {
    let mut postbox = Postbox::open().await;
    let hub = hub_with(&postbox).await;
    let caller = Caller::anonymous(&hub);
    let app = &hub.hub.app;
    let (user_id, email) = (Uuid::now_v7(), "invited@akron.example");
    let mut tx = app
        .db
        .begin_as(&akron(), Actor::Hub { duty: "test" })
        .await
        .unwrap();
    sqlx::query("INSERT INTO app_user (id, email, display_name) VALUES ($1, $2, 'Invited')")
        .bind(user_id)
        .bind(email)
        .execute(tx.conn())
        .await
        .unwrap();
    registration::invite(&mut tx, app, Recipient { user_id, email })
        .await
        .unwrap();
    tx.commit_unaudited("a test invites").await.unwrap();
    app.mail.ring(&akron());
    let letter = postbox.next().await;
    assert_eq!(letter.subject, "Your account at FoodFlow OS");
    let asked = json!({ "tenant": "akron", "email": email });
    caller.post("/auth/password-reset/initiate", asked).await.ok();
    assert_eq!(confirm(&caller, &letter.token(), NEW_PASSWORD).await.status, 204);
    login(&caller, email, NEW_PASSWORD).await.ok();
    let accepted =
        "SELECT count(*) FROM audit_event WHERE action = 'accept_invitation' AND actor_kind = 'user'";
    assert_eq!(count(&hub, accepted).await, 1);
    let sent = "SELECT count(*) FROM mail_message WHERE kind = 'reset_password'";
    assert_eq!(
        count(&hub, sent).await,
        0,
        "who has no password yet has none to forget"
    );
}

#[tokio::test]
async fn two_administrators_reset_a_password_together_and_neither_alone() {
    let hub = TestHub::start().await;
    let anybody = Caller::anonymous(&hub);
    let first = Caller::with_role(&hub, Role::Admin).await;
    let second = second_admin(&hub).await;
    let id_of = |me: Value| me["user"]["id"].as_str().unwrap().to_owned();
    let supervisor = Caller::with_role(&hub, Role::Supervisor).await;
    let user = id_of(supervisor.get("/auth/me").await.ok());
    let (path, body) = (
        format!("/users/{user}/break-glass"),
        json!({ "reason": "phone lost" }),
    );

    let own = format!("/users/{}/break-glass", id_of(first.get("/auth/me").await.ok()));
    first.post(&own, body.clone()).await.problem(409);
    supervisor.post(&path, body.clone()).await.problem(403);
    for reason in ["", " ", "a\u{0}b", &"x".repeat(501)] {
        first.post(&path, json!({ "reason": reason })).await.problem(400);
    }
    let nobody = format!("/users/{}/break-glass", Uuid::nil());
    first.post(&nobody, body.clone()).await.problem(404);

    let asked = first.post(&path, body.clone()).await;
    assert_eq!(
        (asked.status, &asked.body["reset_token"]),
        (StatusCode::ACCEPTED, &Value::Null)
    );
    first.post(&path, body.clone()).await.problem(409);
    let approved = second.post(&path, json!({ "reason": "seen in person" })).await;
    assert_eq!(approved.status, StatusCode::OK);
    assert_eq!(
        (&approved.body["id"], &approved.body["is_approved"]),
        (&asked.body["id"], &json!(true))
    );
    let token = approved.body["reset_token"].as_str().unwrap();
    assert_eq!(confirm(&anybody, token, NEW_PASSWORD).await.status, 204);
    login(&anybody, SUPERVISOR, NEW_PASSWORD).await.ok();

    let audited = "SELECT count(*) FROM audit_event WHERE (action, event::jsonb->>'why') IN \
        (('request_break_glass', 'phone lost'), ('approve_break_glass', 'seen in person'))";
    assert_eq!(count(&hub, audited).await, 2);
    let mut tx = hub.db.begin(&akron()).await.unwrap();
    let told: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM audit_event WHERE strpos(event, $1) > 0) \
           OR EXISTS (SELECT FROM domain_event WHERE strpos(payload::text, $1) > 0)",
    )
    .bind(token)
    .fetch_one(tx.conn())
    .await
    .unwrap();
    assert!(!told, "the token is in no log");
}

/// Another administrator than the demonstration's.
async fn second_admin(hub: &TestHub) -> Caller {
    let mut tx = hub.db.begin(&akron()).await.unwrap();
    sqlx::query(
        "WITH u AS (INSERT INTO app_user (id, email, display_name, password_hash, email_verified_at) \
           SELECT gen_random_uuid(), 'second@akron.example', 'Second', password_hash, now() FROM app_user LIMIT 1 \
           RETURNING id) \
         INSERT INTO user_role (user_id, role_id) SELECT u.id, r.id FROM u, role r WHERE r.name = 'admin'",
    )
    .execute(tx.conn())
    .await
    .unwrap();
    tx.commit_unaudited("a test makes an administrator")
        .await
        .unwrap();
    let caller = Caller::anonymous(hub);
    let session = login(&caller, "second@akron.example", PASSWORD).await.ok();
    caller.with_token(session["access_token"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn mail_is_sealed_until_it_is_sent_tried_again_when_it_may_pass_and_erased_then() {
    let mut postbox = Postbox::open().await;
    let hub = hub_with(&postbox).await;
    let caller = Caller::anonymous(&hub);
    let asked = json!({ "tenant": "akron", "email": SUPERVISOR });
    postbox.refuse("451 later");
    caller
        .post("/auth/password-reset/initiate", asked.clone())
        .await
        .ok();
    postbox.refused().await;
    let sealed = "SELECT count(*) FROM mail_message WHERE state = 'waiting' AND attempts = 1 \
        AND position('supervisor'::bytea IN recipient) = 0 AND position('password'::bytea IN letter) = 0";
    assert_eq!(count(&hub, sealed).await, 1);
    // The pause is over at once.
    while count(
        &hub,
        "SELECT count(*) FROM mail_message WHERE last_error IS NOT NULL",
    )
    .await
        == 0
    {
        tokio::task::yield_now().await;
    }
    sql(
        &hub,
        "UPDATE mail_message SET next_at = now() - interval '1 second'",
    )
    .await;
    hub.hub.app.mail.ring(&akron());
    assert_eq!(postbox.next().await.to, SUPERVISOR);

    postbox.refuse("550 no such mailbox supervisor@akron.example");
    caller.post("/auth/password-reset/initiate", asked).await.ok();
    postbox.refused().await;
    let done = "SELECT count(*) FROM mail_message WHERE recipient IS NULL AND letter IS NULL AND \
        (state, coalesce(last_error, '')) IN (('sent', ''), ('failed', 'the server answered 550'))";
    while count(&hub, done).await < 2 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn without_a_mail_server_letters_wait_and_old_ones_are_forgotten() {
    let hub = TestHub::start().await;
    let caller = Caller::anonymous(&hub);
    let asked = json!({ "tenant": "akron", "email": SUPERVISOR });
    caller.post("/auth/forgot-password", asked).await.ok();
    assert_eq!(
        count(&hub, "SELECT count(*) FROM mail_message WHERE state = 'waiting'").await,
        1
    );
    login(&caller, SUPERVISOR, PASSWORD).await.ok();
    for statement in [
        "UPDATE mail_message SET state = 'failed', recipient = NULL, letter = NULL, expires_at = now() - interval '31 days'",
        "UPDATE one_time_token SET expires_at = now() - interval '31 days'",
        "UPDATE session SET expires_at = now() - interval '2 days'",
    ] {
        sql(&hub, statement).await;
    }
    upkeep::forget(&hub.hub.app, &akron()).await.unwrap();
    let left = "SELECT (SELECT count(*) FROM mail_message) + (SELECT count(*) FROM one_time_token) \
        + (SELECT count(*) FROM refresh_token)";
    assert_eq!(count(&hub, left).await, 0);
    assert_eq!(
        count(
            &hub,
            "SELECT count(*) FROM session WHERE ended_because = 'expired'"
        )
        .await,
        1
    );
}

#[tokio::test]
async fn an_address_is_not_flooded_with_mail_whether_it_has_an_account_or_not() {
    let hub = TestHub::start().await;
    let caller = Caller::anonymous(&hub);
    for email in [SUPERVISOR, "nobody@akron.example"] {
        let asked = json!({ "tenant": "akron", "email": email });
        for _ in 0..5 {
            caller
                .post("/auth/password-reset/initiate", asked.clone())
                .await
                .ok();
        }
        let refused = caller.post("/auth/verify-email/resend", asked).await.problem(429);
        assert!(refused.starts_with("too many attempts"), "{refused}");
    }
}

#[tokio::test]
async fn control_characters_and_wrong_forms_are_refused_in_every_field() {
    let postbox = Postbox::open().await;
    let hub = hub_with(&postbox).await;
    let caller = Caller::anonymous(&hub);
    let register = new_account("akron", "jo@akron.example");
    for (field, wrong) in [
        ("email", "jo@akron.example\u{0}x"),
        ("email", "jo\n@akron.example"),
        ("email", "jo"),
        ("email", ""),
        ("display_name", "Jo\u{0}"),
        ("display_name", "Jo\nBcc: all@akron.example"),
        ("display_name", " "),
        ("display_name", &"x".repeat(201)),
        ("password", "short"),
        ("password", "jo@akron.example"),
        ("password", &"x".repeat(1025)),
    ] {
        let mut body = register.clone();
        body[field] = json!(wrong);
        caller.post("/auth/register", body).await.problem(400);
    }
    for path in [
        "register",
        "verify-email/resend",
        "forgot-password",
        "password-reset/initiate",
    ] {
        let mut body = if path == "register" {
            register.clone()
        } else {
            json!({ "tenant": "akron", "email": "jo@akron.example" })
        };
        body["tenant"] = json!("akron\u{0}'; DROP SCHEMA t_akron; --");
        assert_eq!(
            caller.post(&format!("/auth/{path}"), body.clone()).await.status,
            202
        );
        body["role"] = json!("admin");
        caller.post(&format!("/auth/{path}"), body).await.problem(422);
        caller
            .post(&format!("/auth/{path}"), json!([1]))
            .await
            .problem(422);
        caller
            .send(Method::POST, &format!("/auth/{path}"), None)
            .await
            .problem(415);
    }
    assert_eq!(
        count(&hub, "SELECT count(*) FROM app_user WHERE email LIKE 'jo@%'").await,
        0
    );
}
