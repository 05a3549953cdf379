//! Roles over HTTP: the program's stand fast, the tenant's own are made, changed and held.

use cloud_hub::kernel::{permission::Permission, role::Role};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    client::Caller,
    people::{person, role_id},
    support::{TestHub, cuyahoga},
};

#[tokio::test]
async fn a_role_of_the_tenants_own_takes_effect_at_the_next_request() {
    let hub = TestHub::start().await;
    let admin = Caller::with_role(&hub, Role::Admin).await;
    let made = admin
        .post(
            "/roles",
            json!({ "name": "packer", "description": "Packs", "permissions": ["batch.read"] }),
        )
        .await
        .ok();
    assert_eq!(made["permissions"], json!(["batch.read"]));
    let path = format!("/roles/{}", made["id"].as_str().unwrap());
    let (_, packer) = person(&hub, "pat", &[("packer", None)]).await;
    packer.get("/plant-ops/batches").await.ok();
    packer.get("/fsq/lots").await.problem(403);

    let more = format!("{path}/permissions");
    let now = admin
        .post(&more, json!({ "permissions": ["lot.read", "batch.read"] }))
        .await
        .ok();
    assert_eq!(
        (&now["permissions"], &now["version"]),
        (&json!(["batch.read", "lot.read"]), &json!(2))
    );
    packer.get("/fsq/lots").await.ok();
    let less = admin
        .send(Method::DELETE, &format!("{more}/batch.read"), None)
        .await
        .ok();
    assert_eq!(less["permissions"], json!(["lot.read"]));
    packer.get("/plant-ops/batches").await.problem(403);
    admin
        .send(Method::DELETE, &format!("{more}/batch.read"), None)
        .await
        .problem(404);
    admin
        .send(Method::DELETE, &format!("{more}/batch.fly"), None)
        .await
        .problem(400);
    admin
        .post(&more, json!({ "permissions": ["batch.fly"] }))
        .await
        .problem(400);

    let held = admin.change(Method::DELETE, &path, 3, None).await.problem(409);
    assert!(held.contains("1 people hold this role"), "{held}");
    let renamed = admin
        .change(Method::PATCH, &path, 3, Some(json!({ "name": "wrapper" })))
        .await
        .ok();
    assert_eq!(
        (&renamed["name"], &renamed["description"]),
        (&json!("wrapper"), &json!("Packs"))
    );
    admin
        .change(Method::PATCH, &path, 3, Some(json!({ "name": "x" })))
        .await
        .problem(412);
    packer.get("/fsq/lots").await.ok();
    let theirs = Caller::of_tenant(&hub, &cuyahoga(), Role::Admin).await;
    theirs.get(&path).await.problem(404);
}

#[tokio::test]
async fn the_programs_own_roles_cannot_be_changed() {
    let hub = TestHub::start().await;
    let admin = Caller::with_role(&hub, Role::Admin).await;
    let path = format!("/roles/{}", role_id(&admin, "auditor").await);
    let role = admin.get(&path).await.ok();
    assert_eq!(role["is_builtin"], true);
    let permissions = role["permissions"].as_array().unwrap();
    assert!(permissions.contains(&json!("audit.read")) && !permissions.contains(&json!("batch.write")));
    admin
        .change(Method::PATCH, &path, 1, Some(json!({ "name": "x" })))
        .await
        .problem(409);
    admin.change(Method::DELETE, &path, 1, None).await.problem(409);
    let more = format!("{path}/permissions");
    admin
        .post(&more, json!({ "permissions": ["batch.write"] }))
        .await
        .problem(409);
    admin
        .send(Method::DELETE, &format!("{more}/audit.read"), None)
        .await
        .problem(409);
    admin
        .post("/roles", json!({ "name": "auditor" }))
        .await
        .problem(409);
}

#[tokio::test]
async fn nobody_makes_a_role_of_what_they_lack() {
    let hub = TestHub::start().await;
    let admin = Caller::with_role(&hub, Role::Admin).await;
    let own = json!({ "name": "role_maker", "permissions": ["role.read", "role.write"] });
    let own_id = admin.post("/roles", own).await.ok()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let (_, maker) = person(&hub, "mia", &[("role_maker", None), ("operator", Some("L1"))]).await;
    maker
        .post("/roles", json!({ "name": "a", "permissions": ["role.read"] }))
        .await
        .ok();
    for beyond in ["user.write", "batch.write"] {
        let role = json!({ "name": "b", "permissions": ["role.read", beyond] });
        let said = maker.post("/roles", role).await.problem(403);
        assert!(said.contains(beyond), "held nowhere, or on a line only: {said}");
        let more = json!({ "permissions": [beyond] });
        maker
            .post(&format!("/roles/{own_id}/permissions"), more)
            .await
            .problem(403);
    }
    assert!(maker.items("/roles").await.iter().all(|role| role["name"] != "b"));
}

#[tokio::test]
async fn every_permission_is_explained_and_says_who_has_it() {
    let hub = TestHub::start().await;
    let auditor = Caller::with_role(&hub, Role::Auditor).await;
    let entries = auditor.items("/permissions").await;
    assert_eq!(entries.len(), Permission::ALL.len());
    let of = |name: &str| entries.iter().find(|entry| entry["name"] == name).unwrap();
    assert!(
        entries
            .iter()
            .all(|entry| !entry["description"].as_str().unwrap().is_empty())
    );
    assert_eq!(of("user.write")["roles"], json!(["admin"]));
    assert_eq!(
        (&of("user.write")["is_by_line"], &of("batch.write")["is_by_line"]),
        (&json!(false), &json!(true))
    );
    auditor.get("/permissions?q=x").await.problem(400);
}

#[tokio::test]
async fn a_list_of_roles_is_filtered_sorted_and_paged() {
    let hub = TestHub::start().await;
    let admin = Caller::with_role(&hub, Role::Admin).await;
    for name in ["zeta", "beta"] {
        admin.post("/roles", json!({ "name": name })).await.ok();
    }
    let names = |page: &Value| -> Vec<String> {
        let items = page["items"].as_array().unwrap();
        items
            .iter()
            .map(|it| it["name"].as_str().unwrap().to_owned())
            .collect()
    };
    let own = admin.get("/roles?is_builtin=false&sort=-name&limit=1").await.ok();
    assert_eq!(names(&own), ["zeta"]);
    let next = own["next"].as_str().unwrap();
    let rest = admin
        .get(&format!(
            "/roles?is_builtin=false&sort=-name&limit=5&cursor={next}"
        ))
        .await
        .ok();
    assert_eq!(names(&rest), ["beta"]);
    assert_eq!(names(&admin.get("/roles?q=SHIFT").await.ok()), ["supervisor"]);
    for wrong in ["builtin=true", "sort=version", "limit=201"] {
        admin.get(&format!("/roles?{wrong}")).await.problem(400);
    }
    for name in ["", "Big", "9x", "a b", "a\u{0}"] {
        admin.post("/roles", json!({ "name": name })).await.problem(400);
    }
    admin
        .post("/roles", json!({ "name": "ok", "is_builtin": true }))
        .await
        .problem(422);
}
