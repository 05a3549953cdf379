//! Accounts over HTTP: who is invited, suspended, removed and given roles, and by whom never.

use cloud_hub::kernel::role::Role;
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    client::Caller,
    people::{line, person, role_id, session, signed_in},
    support::{TestHub, akron, cuyahoga},
};

fn path(user: &Value) -> String {
    format!("/users/{}", user["id"].as_str().unwrap())
}

async fn count(hub: &TestHub, sql: &'static str) -> i64 {
    let mut tx = hub.db.begin(&akron()).await.unwrap();
    sqlx::query_scalar(sql).fetch_one(tx.conn()).await.unwrap()
}

#[tokio::test]
async fn an_invited_person_has_an_account_with_roles_and_no_answer_carries_the_token() {
    let hub = TestHub::start().await;
    let admin = Caller::with_role(&hub, Role::Admin).await;
    let operator = role_id(&admin, "operator").await;
    let l1 = line(&hub, "L1").await;
    let new = json!({ "email": " Ann@Akron.example", "display_name": "Ann",
        "roles": [{ "role_id": operator, "line_id": l1 }] });
    let answer = admin.post("/users", new.clone()).await;
    assert_eq!(answer.status, 201);
    let ann = answer.ok();
    assert_eq!(ann["email"], "ann@akron.example");
    assert_eq!(
        (&ann["is_active"], &ann["has_confirmed"]),
        (&json!(true), &json!(false))
    );
    assert_eq!(
        ann["roles"],
        json!([{ "role_id": operator, "role": "operator", "plant_id": null, "line_id": l1 }])
    );
    let fields: Vec<_> = ann.as_object().unwrap().keys().collect();
    assert!(!fields.iter().any(|name| name.contains("token")), "{fields:?}");
    assert_eq!(
        count(
            &hub,
            "SELECT count(*) FROM one_time_token WHERE purpose = 'invitation' AND used_at IS NULL"
        )
        .await,
        1
    );
    assert_eq!(
        count(
            &hub,
            "SELECT count(*) FROM audit_event WHERE entity = 'app_user' AND action = 'create'"
        )
        .await,
        1
    );
    admin.post("/users", new).await.problem(409);
    assert_eq!(
        admin
            .post(&format!("{}/invite", path(&ann)), json!({}))
            .await
            .status,
        204
    );
    assert_eq!(
        count(
            &hub,
            "SELECT count(*) FROM one_time_token WHERE purpose = 'invitation' AND used_at IS NULL"
        )
        .await,
        1,
        "the first invitation is void"
    );
    let theirs = Caller::of_tenant(&hub, &cuyahoga(), Role::Admin).await;
    theirs.get(&path(&ann)).await.problem(404);
}

#[tokio::test]
async fn a_list_of_accounts_is_filtered_sorted_and_paged() {
    let hub = TestHub::start().await;
    let admin = Caller::with_role(&hub, Role::Admin).await;
    for name in ["zora", "yves", "xena"] {
        person(&hub, name, &[("operator", Some("L1"))]).await;
    }
    let emails = |page: &Value| -> Vec<String> {
        let items = page["items"].as_array().unwrap();
        items
            .iter()
            .map(|it| it["email"].as_str().unwrap().to_owned())
            .collect()
    };
    let first = admin
        .get("/users?q=PEOPLE.example&sort=-email&limit=2")
        .await
        .ok();
    assert_eq!(emails(&first), ["zora@people.example", "yves@people.example"]);
    let next = first["next"].as_str().unwrap();
    let rest = admin
        .get(&format!("/users?q=people.example&sort=-email&cursor={next}"))
        .await
        .ok();
    assert_eq!(
        (emails(&rest), &rest["next"]),
        (vec!["xena@people.example".to_owned()], &Value::Null)
    );
    let by_id = admin.get("/users?limit=1").await.ok();
    let next = by_id["next"].as_str().unwrap();
    assert_ne!(
        emails(&admin.get(&format!("/users?limit=1&cursor={next}")).await.ok()),
        emails(&by_id)
    );
    let all = admin.items("/users?limit=200").await.len();
    let admins = admin.items("/users?role=admin").await.len();
    assert!(admins >= 1 && admins < all);
    assert_eq!(admin.items("/users?is_active=false").await.len(), 0);
    for wrong in [
        "role_name=x",
        "sort=password_hash",
        "limit=0",
        "cursor=x",
        "is_active=maybe",
    ] {
        admin.get(&format!("/users?{wrong}")).await.problem(400);
    }
}

#[tokio::test]
async fn a_suspended_person_is_out_at_the_next_request_and_their_session_stays_ended() {
    let hub = TestHub::start().await;
    let admin = Caller::with_role(&hub, Role::Admin).await;
    let (id, outside) = person(&hub, "sam", &[("operator", None)]).await;
    let within = signed_in(&hub, id, Some(session(&hub, id).await)).await;
    for caller in [&outside, &within] {
        caller.get("/plant-ops/batches").await.ok();
    }
    let sam = admin.get(&format!("/users/{id}")).await.ok();
    let version = i32::try_from(sam["version"].as_i64().unwrap()).unwrap();
    let patch = Some(json!({ "is_active": false }));
    let suspended = admin
        .change(Method::PATCH, &path(&sam), version, patch.clone())
        .await
        .ok();
    assert_eq!(suspended["is_active"], false);
    for caller in [&outside, &within] {
        caller.get("/plant-ops/batches").await.problem(401);
    }
    admin
        .change(Method::PATCH, &path(&sam), version, patch)
        .await
        .problem(412);
    admin
        .send(Method::PATCH, &path(&sam), Some(json!({})))
        .await
        .problem(428);
    let back = Some(json!({ "is_active": true }));
    admin
        .change(Method::PATCH, &path(&sam), version + 1, back)
        .await
        .ok();
    outside.get("/plant-ops/batches").await.ok();
    within.get("/plant-ops/batches").await.problem(401);
    let done =
        "SELECT count(*) FROM audit_event WHERE entity = 'app_user' AND action IN ('suspend', 'reactivate')";
    assert_eq!(count(&hub, done).await, 2);
}

#[tokio::test]
async fn a_removed_person_keeps_the_account_and_nothing_else() {
    let hub = TestHub::start().await;
    let admin = Caller::with_role(&hub, Role::Admin).await;
    let (id, removed) = person(&hub, "rae", &[("supervisor", None)]).await;
    let path = format!("/users/{id}");
    let version = admin.get(&path).await.ok()["version"].as_i64().unwrap();
    let answer = admin
        .change(Method::DELETE, &path, i32::try_from(version).unwrap(), None)
        .await;
    assert_eq!(answer.status, 204);
    let left = admin.get(&path).await.ok();
    assert_eq!((&left["is_active"], &left["roles"]), (&json!(false), &json!([])));
    removed.get("/auth/me").await.problem(401);
    assert_eq!(
        count(
            &hub,
            "SELECT count(*) FROM app_user WHERE display_name = 'rae' AND password_hash IS NULL"
        )
        .await,
        1
    );
}

#[tokio::test]
async fn the_last_administrator_can_neither_leave_nor_be_stripped() {
    let hub = TestHub::start().await;
    let admin = Caller::with_role(&hub, Role::Admin).await;
    let me = admin.get("/auth/me").await.ok()["user"].clone();
    let user = admin.get(&path(&me)).await.ok();
    let version = i32::try_from(user["version"].as_i64().unwrap()).unwrap();
    let roles = format!("{}/roles", path(&me));
    let leave = |method, path: String, body| {
        let admin = admin.clone();
        async move { admin.change(method, &path, version, body).await }
    };
    let suspend = leave(Method::PATCH, path(&me), Some(json!({ "is_active": false }))).await;
    assert!(suspend.problem(409).contains("last administrator"));
    leave(Method::DELETE, path(&me), None).await.problem(409);
    leave(Method::PUT, roles.clone(), Some(json!({ "roles": [] })))
        .await
        .problem(409);
    admin.get("/users").await.ok();
    person(&hub, "second", &[("admin", None)]).await;
    leave(Method::PUT, roles, Some(json!({ "roles": [] }))).await.ok();
    admin.get("/users").await.problem(403);
}

#[tokio::test]
async fn two_administrators_who_remove_each_other_do_not_both_succeed() {
    let hub = TestHub::start().await;
    let one = Caller::with_role(&hub, Role::Admin).await;
    let first = one.get("/auth/me").await.ok()["user"].clone();
    let (id, two) = person(&hub, "second", &[("admin", None)]).await;
    let second = one.get(&format!("/users/{id}")).await.ok();
    let version = |user: &Value| i32::try_from(user["version"].as_i64().unwrap()).unwrap();
    let first = one.get(&path(&first)).await.ok();
    let (of_one, of_two) = (path(&first), path(&second));
    let (a, b) = tokio::join!(
        one.change(Method::DELETE, &of_two, version(&second), None),
        two.change(Method::DELETE, &of_one, version(&first), None)
    );
    let done = [a.status, b.status]
        .iter()
        .filter(|status| status.is_success())
        .count();
    assert_eq!(done, 1, "{a:?} {b:?}");
}

#[tokio::test]
async fn nobody_gives_takes_or_touches_what_is_beyond_them() {
    let hub = TestHub::start().await;
    let admin = Caller::with_role(&hub, Role::Admin).await;
    let hr = json!({ "name": "hr", "permissions": ["user.read", "user.write", "role.read", "batch.read"] });
    admin.post("/roles", hr).await.ok();
    let (hr_id, hr) = person(&hub, "hr", &[("hr", None)]).await;
    let (new_id, _) = person(&hub, "new", &[]).await;
    let roles = format!("/users/{new_id}/roles");
    let give = |caller: &Caller, role: String, version: i32| {
        let (caller, roles) = (caller.clone(), roles.clone());
        async move {
            let body = json!({ "roles": [{ "role_id": role }] });
            caller.change(Method::PUT, &roles, version, Some(body)).await
        }
    };
    let refused = give(&hr, role_id(&admin, "admin").await, 1).await;
    assert!(refused.problem(403).contains("your role does not include"));
    give(&hr, role_id(&admin, "operator").await, 1).await.problem(403);
    let given = give(&hr, role_id(&admin, "hr").await, 1).await.ok();
    assert_eq!(given["version"], 2);
    give(&hr, uuid::Uuid::now_v7().to_string(), 2).await.problem(400);
    give(&admin, role_id(&admin, "supervisor").await, 2).await.ok();
    let suspend = Some(json!({ "is_active": false }));
    let target = format!("/users/{new_id}");
    hr.change(Method::PATCH, &target, 3, suspend.clone())
        .await
        .problem(403);
    let escalate = json!({ "email": "x@y.example", "display_name": "X",
        "roles": [{ "role_id": role_id(&admin, "admin").await }] });
    hr.post("/users", escalate).await.problem(403);
    assert_eq!(
        count(&hub, "SELECT count(*) FROM app_user WHERE email = 'x@y.example'").await,
        0,
        "nothing half done"
    );
    let own = format!("/users/{hr_id}/roles");
    let both = json!({ "roles": [{ "role_id": role_id(&admin, "admin").await }] });
    hr.change(Method::PUT, &own, 1, Some(both)).await.problem(403);
}

#[tokio::test]
async fn a_role_held_on_a_line_gives_no_power_over_accounts() {
    let hub = TestHub::start().await;
    let (_, local) = person(&hub, "local", &[("admin", Some("L1"))]).await;
    for path in ["/users", "/roles", "/permissions"] {
        local.get(path).await.problem(403);
    }
    let can = local.get("/auth/me").await.ok();
    assert!(!can["can"].as_array().unwrap().contains(&json!("user.write")));
    assert_eq!(can["lines"], json!([line(&hub, "L1").await]));
    assert_eq!(can["roles"][0]["role"], "admin");
}

#[tokio::test]
async fn what_no_account_can_be_is_refused_and_nothing_is_left_behind() {
    let hub = TestHub::start().await;
    let admin = Caller::with_role(&hub, Role::Admin).await;
    let before = admin.items("/users?limit=200").await.len();
    let operator = role_id(&admin, "operator").await;
    let (l1, plant) = (line(&hub, "L1").await, uuid::Uuid::now_v7());
    let post = |body: Value| {
        let admin = admin.clone();
        async move { admin.post("/users", body).await }
    };
    for email in ["", "ann", "a@b@c", "a b@c.d", "a\u{0}@b.c", "a\u{7}@b.c"] {
        post(json!({ "email": email, "display_name": "A" }))
            .await
            .problem(400);
    }
    for name in ["", "a\u{0}b", "a\u{1b}[31m", &"x".repeat(300)] {
        post(json!({ "email": "a@b.c", "display_name": name }))
            .await
            .problem(400);
    }
    let grant = |roles: Value| json!({ "email": "a@b.c", "display_name": "A", "roles": roles });
    post(grant(
        json!([{ "role_id": operator, "line_id": l1, "plant_id": plant }]),
    ))
    .await
    .problem(400);
    post(grant(json!([{ "role_id": operator, "line_id": plant }])))
        .await
        .problem(400);
    post(grant(json!([{ "role_id": operator, "everywhere": true }])))
        .await
        .problem(422);
    post(json!({ "email": "a@b.c", "display_name": "A", "password": "hunter2hunter2" }))
        .await
        .problem(422);
    assert_eq!(admin.items("/users?limit=200").await.len(), before);
}
