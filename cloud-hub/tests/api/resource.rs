//! A plain record over HTTP: created, listed, changed and deleted, and everything a client may get wrong.

use cloud_hub::kernel::role::Role;
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    client::Caller,
    support::{TestHub, cuyahoga},
};

const SUPPLIERS: &str = "/fsq/suppliers";

async fn named(caller: &Caller, code: &str) -> Value {
    caller
        .post(
            SUPPLIERS,
            json!({ "code": code, "name": format!("Supplier {code}") }),
        )
        .await
        .ok()
}

#[tokio::test]
async fn a_record_lives_from_creation_to_deletion_and_its_versions_are_kept_apart() {
    let hub = TestHub::start().await;
    let admin = Caller::with_role(&hub, Role::Admin).await;
    let made = named(&admin, "S-1").await;
    let path = format!("{SUPPLIERS}/{}", made["id"].as_str().unwrap());
    assert_eq!(admin.get(&path).await.ok(), made);

    let patch = json!({ "audit_score_pct": 91.5, "approved_until": "2027-06-30" });
    let changed = admin.change(Method::PATCH, &path, 1, Some(patch)).await.ok();
    assert_eq!(
        (&changed["version"], &changed["audit_score_pct"]),
        (&json!(2), &json!(91.5))
    );
    let stale = admin
        .change(Method::PATCH, &path, 1, Some(json!({ "name": "X" })))
        .await;
    stale.problem(412);
    let cleared = admin
        .change(Method::PATCH, &path, 2, Some(json!({ "audit_score_pct": null })))
        .await
        .ok();
    assert_eq!(
        (&cleared["audit_score_pct"], &cleared["approved_until"]),
        (&Value::Null, &json!("2027-06-30"))
    );
    admin
        .send(Method::PATCH, &path, Some(json!({ "name": "X" })))
        .await
        .problem(428);
    admin
        .change(Method::PATCH, &path, 3, Some(json!({ "name": null })))
        .await
        .problem(400);
    let refused = admin
        .change(Method::PATCH, &path, 3, Some(json!({ "audit_score_pct": 101 })))
        .await
        .problem(400);
    assert_eq!(refused, "an audit score is 0 to 100 percent");

    admin.change(Method::DELETE, &path, 2, None).await.problem(412);
    assert_eq!(admin.change(Method::DELETE, &path, 3, None).await.status, 204);
    admin.get(&path).await.problem(404);
}

#[tokio::test]
async fn a_list_is_filtered_sorted_and_paged_and_refuses_what_it_does_not_know() {
    let hub = TestHub::start().await;
    let admin = Caller::with_role(&hub, Role::Admin).await;
    for code in ["D", "A", "C", "B", "50%"] {
        named(&admin, code).await;
    }
    let first = admin
        .get(&format!("{SUPPLIERS}?sort=-code&limit=2&q=supplier"))
        .await
        .ok();
    let codes = |page: &Value| -> Vec<String> {
        page["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| row["code"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(codes(&first), ["D", "C"]);
    let next = first["next"].as_str().unwrap();
    let second = admin
        .get(&format!(
            "{SUPPLIERS}?sort=-code&limit=10&q=supplier&cursor={next}"
        ))
        .await
        .ok();
    assert_eq!(codes(&second), ["B", "A", "50%"]);
    assert_eq!(second["next"], Value::Null);
    assert_eq!(
        codes(&admin.get(&format!("{SUPPLIERS}?q=50%25")).await.ok()),
        ["50%"]
    );
    assert_eq!(
        codes(&admin.get(&format!("{SUPPLIERS}?code=B")).await.ok()),
        ["B"]
    );
    for wrong in [
        "cod=B",
        "sort=version",
        "limit=0",
        "limit=x",
        "cursor=x",
        "approved_until_min=soon",
        "sort=code&sort=name",
        &format!("sort=code&cursor={next}"),
    ] {
        admin.get(&format!("{SUPPLIERS}?{wrong}")).await.problem(400);
    }
    let bad = json!({ "code": "X", "name": "Y", "tenant_id": 1 });
    admin.post(SUPPLIERS, bad).await.problem(422);
    admin
        .post(SUPPLIERS, json!({ "code": "A", "name": "again" }))
        .await
        .problem(409);
    admin
        .post(SUPPLIERS, json!({ "code": "N\u{0}", "name": "nul" }))
        .await
        .problem(400);
    let theirs = Caller::of_tenant(&hub, &cuyahoga(), Role::Admin).await;
    assert!(theirs.items(SUPPLIERS).await.is_empty());
}

#[tokio::test]
async fn many_are_created_together_or_none() {
    let hub = TestHub::start().await;
    let admin = Caller::with_role(&hub, Role::Admin).await;
    let bulk = format!("{SUPPLIERS}/bulk");
    let twice = json!({ "items": [{ "code": "A", "name": "a" }, { "code": "A", "name": "b" }] });
    let said = admin.post(&bulk, twice).await.problem(409);
    assert_eq!(said, "items[1]: there is a supplier with the same `code` already");
    let wrong = json!({ "items": [{ "code": "A", "name": "a" }, { "code": "B", "name": 7 }] });
    let said = admin.post(&bulk, wrong).await.problem(422);
    assert!(said.contains("items[1].name"), "{said}");
    let long = json!({ "items": [{ "code": "A", "name": "" }] });
    let said = admin.post(&bulk, long).await.problem(400);
    assert_eq!(said, "items[0]: a name has 1 to 200 characters");
    assert!(admin.items(SUPPLIERS).await.is_empty());
    let both = json!({ "items": [{ "code": "A", "name": "a" }, { "code": "B", "name": "b" }] });
    assert_eq!(
        admin.post(&bulk, both).await.ok()["items"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    admin.post(&bulk, json!({ "items": [] })).await.problem(400);
}

#[tokio::test]
async fn the_same_key_does_the_same_deed_once() {
    let hub = TestHub::start().await;
    let admin = Caller::with_role(&hub, Role::Admin).await;
    let send = async |body: Value| {
        let request = admin
            .request(Method::POST, SUPPLIERS)
            .header("idempotency-key", "k-1")
            .json(&body);
        let answer = request.send().await.unwrap();
        let replayed = answer.headers().contains_key("idempotency-replayed");
        (
            answer.status().as_u16(),
            replayed,
            answer.json::<Value>().await.unwrap(),
        )
    };
    let body = json!({ "code": "A", "name": "a" });
    let (one, two) = tokio::join!(send(body.clone()), send(body.clone()));
    assert_eq!((one.0, two.0), (201, 201));
    assert_eq!(one.2, two.2);
    assert!(one.1 != two.1, "one of them was the deed, the other its replay");
    assert_eq!(send(json!({ "code": "B", "name": "b" })).await.0, 422);
    assert_eq!(admin.items(SUPPLIERS).await.len(), 1);
}

#[tokio::test]
async fn two_writers_of_one_version_leave_one_winner() {
    let hub = TestHub::start().await;
    let admin = Caller::with_role(&hub, Role::Admin).await;
    let made = named(&admin, "S-1").await;
    let path = format!("{SUPPLIERS}/{}", made["id"].as_str().unwrap());
    let write = |name: &'static str| admin.change(Method::PATCH, &path, 1, Some(json!({ "name": name })));
    let (one, two) = tokio::join!(write("one"), write("two"));
    let mut statuses = [one.status.as_u16(), two.status.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 412]);
}
