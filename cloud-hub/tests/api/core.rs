//! What records of the core refuse, work out and keep: locations, notes, labels, zones, and files.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use cloud_hub::{
    kernel::{role::Role, token::Claims},
    tenant::user,
};
use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::{
    client::{Answer, Caller, http_client},
    support::{TestHub, akron, cuyahoga},
};

#[tokio::test]
async fn a_location_is_complete_once_phone_and_a_whole_address_are_there() {
    let hub = TestHub::start().await;
    let admin = Caller::with_role(&hub, Role::Admin).await;
    let address = json!({ "street": "1 Canal St", "city": "Akron", "country": "US" });
    let address = admin.post("/core/addresses", address).await.ok();
    let place = format!("/core/addresses/{}", address["id"].as_str().unwrap());
    let new = json!({ "code": "DOCK", "business_name": "Akron Dairy", "address_id": address["id"] });
    let made = admin.post("/core/locations", new).await.ok();
    assert_eq!(made["is_fsma_complete"], false, "no phone");
    let path = format!("/core/locations/{}", made["id"].as_str().unwrap());
    let phone = json!({ "phone": "+1 330 555 0100", "gln": "0614141000012" });
    let made = admin.change(Method::PATCH, &path, 1, Some(phone)).await.ok();
    assert_eq!(made["is_fsma_complete"], false, "no state and no zip code");
    let whole = json!({ "region": "OH", "postal_code": "44308" });
    admin.change(Method::PATCH, &place, 1, Some(whole)).await.ok();
    assert_eq!(admin.get(&path).await.ok()["is_fsma_complete"], true);
    let complete = admin.items("/core/locations?is_fsma_complete=true").await;
    assert_eq!(complete.len(), 1);

    admin.change(Method::DELETE, &place, 2, None).await.problem(409);
    for (wrong, why) in [
        (
            json!({ "gln": "0614141000013" }),
            "a GLN is 13 digits with a good check digit",
        ),
        (
            json!({ "gln": "061414100001x" }),
            "a GLN is 13 digits with a good check digit",
        ),
        (
            json!({ "valid_from": "2027-01-02", "valid_until": "2027-01-01" }),
            "valid_until is not before valid_from",
        ),
    ] {
        assert_eq!(
            admin
                .change(Method::PATCH, &path, 2, Some(wrong))
                .await
                .problem(400),
            why
        );
    }
    for wrong in [
        json!({ "valid_from": "-0044-03-15" }),
        json!({ "valid_from": "+99999-01-01" }),
        json!({ "address_id": Uuid::nil() }),
    ] {
        admin
            .change(Method::PATCH, &path, 2, Some(wrong))
            .await
            .problem(400);
    }
    let claim = json!({ "is_fsma_complete": true });
    admin
        .change(Method::PATCH, &path, 2, Some(claim))
        .await
        .problem(422);
}

#[tokio::test]
async fn a_note_is_on_a_record_that_exists_in_its_own_tenant() {
    let hub = TestHub::start().await;
    let admin = Caller::with_role(&hub, Role::Admin).await;
    let theirs = Caller::of_tenant(&hub, &cuyahoga(), Role::Admin).await;
    let lot = admin.items("/fsq/lots").await.swap_remove(0);
    let note = json!({ "entity": "lot", "entity_id": lot["id"], "body": "seen" });
    admin.post("/core/notes", note.clone()).await.ok();
    let refused = "entity and entity_id must name a record that exists";
    assert_eq!(theirs.post("/core/notes", note).await.problem(400), refused);
    for (entity, id) in [
        ("lot", json!(Uuid::nil())),
        ("lot\"; DROP TABLE lot; --", lot["id"].clone()),
        ("schema_migration", lot["id"].clone()),
        ("pg_class", lot["id"].clone()),
        ("", lot["id"].clone()),
    ] {
        let note = json!({ "entity": entity, "entity_id": id, "body": "x" });
        assert_eq!(
            admin.post("/core/notes", note).await.problem(400),
            refused,
            "{entity}"
        );
    }
    let half = json!({ "name": "Desk", "entity": "lot" });
    admin.post("/core/contacts", half).await.problem(400);
}

#[tokio::test]
async fn a_plant_has_a_zone_that_there_is() {
    let hub = TestHub::start().await;
    let admin = Caller::with_role(&hub, Role::Admin).await;
    let plant = |zone: &str| json!({ "code": "P9", "name": "Ninth", "zone": zone });
    for wrong in ["Mars/Olympus", "EST5EDT4", "america/new_york", ""] {
        let said = admin.post("/plant-ops/plants", plant(wrong)).await;
        assert!(said.problem(422).contains("IANA time zone"), "{wrong}");
    }
    let made = admin
        .post("/plant-ops/plants", plant("America/Port-au-Prince"))
        .await
        .ok();
    let path = format!("/plant-ops/plants/{}", made["id"].as_str().unwrap());
    let nowhere = json!({ "zone": "Nowhere" });
    admin
        .change(Method::PATCH, &path, 1, Some(nowhere))
        .await
        .problem(422);
    let akron = admin.items("/plant-ops/plants?code=akron").await.swap_remove(0);
    let path = format!("/plant-ops/plants/{}", akron["id"].as_str().unwrap());
    admin.change(Method::DELETE, &path, 1, None).await.problem(409);
}

/// A supervisor who holds the role on one line only.
async fn supervisor_of(hub: &TestHub, line: &str) -> Caller {
    let email = format!("{line}@akron.example").to_lowercase();
    let mut tx = hub.db.begin(&akron()).await.unwrap();
    user::put(&mut tx, &email, "Line Lead", Role::Supervisor, "x")
        .await
        .unwrap();
    let id: Uuid = sqlx::query_scalar(
        "UPDATE user_role g SET line_id = l.id FROM app_user u, line l \
         WHERE u.id = g.user_id AND u.email = $1 AND l.code = $2 RETURNING u.id",
    )
    .bind(&email)
    .bind(line)
    .fetch_one(tx.conn())
    .await
    .unwrap();
    tx.commit_unaudited("the test's own rows").await.unwrap();
    let now_s = hub.hub.app.clock.now().timestamp();
    let token = hub.hub.app.signing_key.issue(&Claims {
        sub: id,
        tenant: "akron".to_owned(),
        role: Role::Supervisor,
        sid: None,
        iat: now_s,
        exp: now_s + 900,
    });
    Caller::anonymous(hub).with_token(token)
}

#[tokio::test]
async fn who_holds_a_line_reaches_the_notes_of_its_records_and_changes_nothing_of_all() {
    let hub = TestHub::start().await;
    let admin = Caller::with_role(&hub, Role::Admin).await;
    let lead = supervisor_of(&hub, "L1").await;
    let mine = lead.items("/plant-ops/batches").await.swap_remove(0);
    let all = admin.items("/plant-ops/batches").await;
    let other = all
        .iter()
        .find(|batch| batch["line_id"] != mine["line_id"])
        .unwrap();
    let note = |batch: &Value| json!({ "entity": "batch", "entity_id": batch["id"], "body": "seen" });
    lead.post("/core/notes", note(&mine)).await.ok();
    lead.post("/core/notes", note(other)).await.problem(400);
    let far = admin.post("/core/notes", note(other)).await.ok();
    let far = format!("/core/notes/{}", far["id"].as_str().unwrap());
    lead.get(&far).await.problem(404);
    lead.change(Method::DELETE, &far, 1, None).await.problem(404);
    assert_eq!(lead.items("/core/notes").await.len(), 1);

    lead.post("/core/labels", json!({ "name": "mine" }))
        .await
        .problem(403);
    let label = admin.post("/core/labels", json!({ "name": "ours" })).await.ok();
    let label = format!("/core/labels/{}", label["id"].as_str().unwrap());
    assert_eq!(lead.get(&label).await.ok()["name"], "ours");
    lead.change(Method::PATCH, &label, 1, Some(json!({ "name": "theirs" })))
        .await
        .problem(403);
    lead.change(Method::DELETE, &label, 1, None).await.problem(403);
    let desk = admin.post("/core/contacts", json!({ "name": "Desk" })).await.ok();
    let desk = format!("/core/contacts/{}", desk["id"].as_str().unwrap());
    lead.change(Method::DELETE, &desk, 1, None).await.problem(403);
    assert_eq!(admin.get(&desk).await.ok()["version"], 1);
}

async fn upload(caller: &Caller, lot: &Value, name: &str, content: Vec<u8>) -> Answer {
    let query = [
        ("entity", "lot"),
        ("entity_id", lot["id"].as_str().unwrap()),
        ("name", name),
    ];
    let query = serde_urlencoded::to_string(query).unwrap();
    let request = caller.request(Method::POST, &format!("/core/attachments?{query}"));
    Answer::of(
        request
            .header("content-type", "application/octet-stream")
            .body(content),
    )
    .await
}

fn kept(hub: &TestHub) -> Vec<String> {
    let directory = hub.data_dir().join("attachments/akron");
    let entries = std::fs::read_dir(directory).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[tokio::test]
async fn a_file_is_kept_once_handed_out_whole_and_gone_with_the_last_that_names_it() {
    let hub = TestHub::start().await;
    let admin = Caller::with_role(&hub, Role::Admin).await;
    let lot = admin.items("/fsq/lots").await.swap_remove(0);
    let mut content = b"%PDF-1.7 ".to_vec();
    content.extend((0..2_000_000_u32).map(|n| n as u8));
    let first = upload(&admin, &lot, "Zeugnis \"ä\".pdf", content.clone())
        .await
        .ok();
    let second = upload(&admin, &lot, "copy.pdf", content.clone()).await.ok();
    assert_eq!(first["sha256"], second["sha256"]);
    assert_eq!(
        (&first["media_type"], &first["bytes"]),
        (&json!("application/pdf"), &json!(content.len()))
    );
    assert_eq!(kept(&hub), [first["sha256"].as_str().unwrap()]);

    let path = format!("/core/attachments/{}", first["id"].as_str().unwrap());
    let answer = admin
        .request(Method::GET, &format!("{path}/content"))
        .send()
        .await
        .unwrap();
    let headers = answer.headers().clone();
    assert_eq!(headers["content-type"], "application/pdf");
    assert_eq!(headers["x-content-type-options"], "nosniff");
    assert!(
        headers["content-disposition"]
            .to_str()
            .unwrap()
            .ends_with("Zeugnis%20%22%C3%A4%22.pdf")
    );
    let digest = BASE64_STANDARD.encode(Sha256::digest(&content));
    assert_eq!(headers["content-digest"], format!("sha-256=:{digest}:"));
    assert!(answer.bytes().await.unwrap() == content);

    assert_eq!(admin.change(Method::DELETE, &path, 1, None).await.status, 204);
    assert_eq!(kept(&hub).len(), 1, "the copy still names it");
    let copy = format!("/core/attachments/{}", second["id"].as_str().unwrap());
    assert_eq!(admin.change(Method::DELETE, &copy, 1, None).await.status, 204);
    assert!(kept(&hub).is_empty());
    admin.get(&format!("{copy}/content")).await.problem(404);
}

#[tokio::test]
async fn a_file_that_is_too_large_of_no_known_kind_or_on_nothing_leaves_nothing() {
    let hub = TestHub::start().await;
    let admin = Caller::with_role(&hub, Role::Admin).await;
    let lot = admin.items("/fsq/lots").await.swap_remove(0);
    upload(&admin, &lot, "x.exe", b"MZ\x90\0\x03".to_vec())
        .await
        .problem(415);
    upload(&admin, &lot, "empty.txt", Vec::new()).await.problem(400);
    upload(&admin, &lot, &"n".repeat(300), b"text".to_vec())
        .await
        .problem(400);
    upload(&admin, &lot, "nul\u{0}", b"text".to_vec())
        .await
        .problem(400);
    upload(&admin, &lot, "large.txt", vec![b'a'; (20 << 20) + 1])
        .await
        .problem(413);
    let nothing = json!({ "id": Uuid::nil() });
    upload(&admin, &nothing, "x.txt", b"text".to_vec())
        .await
        .problem(400);
    let auditor = Caller::with_role(&hub, Role::Auditor).await;
    upload(&auditor, &lot, "x.txt", b"text".to_vec())
        .await
        .problem(403);
    assert!(kept(&hub).is_empty(), "{:?}", kept(&hub));
    let page = upload(&admin, &lot, "x.html", b"<script>alert(1)</script>".to_vec())
        .await
        .ok();
    assert_eq!(page["media_type"], "text/plain");
}

#[tokio::test]
async fn the_page_of_the_api_loads_nothing_from_elsewhere() {
    let hub = TestHub::start().await;
    let http = http_client();
    let page = http.get(hub.url("/docs/")).send().await.unwrap();
    let policy = page.headers()["content-security-policy"]
        .to_str()
        .unwrap()
        .to_owned();
    assert!(policy.starts_with("default-src 'self';"), "{policy}");
    let html = page.text().await.unwrap();
    let parts: Vec<&str> = ["src=\"", "href=\""]
        .iter()
        .flat_map(|attribute| html.split(*attribute).skip(1))
        .filter_map(|rest| rest.split('"').next())
        .collect();
    assert!(parts.len() >= 5, "{html}");
    for part in parts {
        assert!(!part.contains("//"), "{part}");
        let file = http
            .get(hub.url(&format!("/docs/{}", part.trim_start_matches("./"))))
            .send()
            .await
            .unwrap();
        assert_eq!(file.status(), 200, "{part}");
    }
    let start = http
        .get(hub.url("/docs/swagger-initializer.js"))
        .send()
        .await
        .unwrap();
    let start = start.text().await.unwrap();
    assert!(
        start.contains("/api/v1/openapi.json") && !start.contains("http"),
        "{start}"
    );
}
