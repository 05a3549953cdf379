//! From a dip at a control point to a held lot, and from a frame to a defect, as the API shows them.

use cloud_hub::kernel::role::Role;
use protocol::{
    event::{Defect, Event, Inspection, ModelId, Verdict},
    lane::Lane,
    limit::Phase,
    topic::Channel,
};
use serde_json::json;
use uuid::Uuid;

use crate::{
    client::Caller,
    support::{FrameMaker, MqttEdge, TestHub},
};

async fn tell(edge: &mut MqttEdge, maker: &FrameMaker, seq: u64, event: Event) {
    let frame = maker.frame(Lane::Events, seq, vec![], vec![event]);
    edge.send(Channel::Up(Lane::Events), frame.encode().unwrap())
        .await;
    edge.acknowledged().await;
}

async fn edge_with_tags(hub: &TestHub) -> (MqttEdge, FrameMaker) {
    let (mut edge, maker) = (hub.edge("e1").await, FrameMaker::new("e1", &["TT-101"]));
    edge.send(Channel::Dictionary, maker.dictionary.encode()).await;
    edge.acknowledged().await;
    (edge, maker)
}

#[tokio::test]
async fn a_dip_shows_as_deviation_hold_held_lot_and_on_the_board_and_is_acknowledged_by_a_person() {
    let hub = TestHub::start().await;
    let supervisor = Caller::with_role(&hub, Role::Supervisor).await;
    let (mut edge, maker) = edge_with_tags(&hub).await;
    let dip_us = hub.hub.app.clock.now_us() - 60_000_000;
    tell(
        &mut edge,
        &maker,
        0,
        maker.deviation(Phase::Opened, dip_us, dip_us + 2_000_000),
    )
    .await;

    let open = supervisor.items("/fsq/deviations?status=open").await;
    let [deviation] = &open[..] else {
        panic!("{open:?}")
    };
    let unanswered = supervisor
        .items("/fsq/deviations?status=open&acknowledged=false")
        .await;
    assert_eq!(unanswered, open);
    assert_eq!(
        (&deviation["ccp_code"], &deviation["kind"]),
        (&json!("CCP-1"), &json!("limit"))
    );
    assert_eq!(deviation["window_from_us"], dip_us);
    assert_eq!(
        deviation["detail"],
        "TT-101 fell to 71.1 degC; at least 72 degC is required"
    );
    let hold = supervisor
        .get(&format!("/fsq/holds/{}", deviation["hold_id"].as_str().unwrap()))
        .await
        .ok();
    assert_eq!(
        (&hold["code"], &hold["status"]),
        (&deviation["hold_code"], &json!("open"))
    );
    let lot = &hold["lots"][0];
    assert_eq!(lot["status"], "held");
    let held = supervisor.items("/fsq/lots?status=held").await;
    assert_eq!(held[0]["id"], lot["lot_id"]);
    let ccps = supervisor.items("/fsq/ccps").await;
    let ccp = ccps.iter().find(|ccp| ccp["code"] == "CCP-1").unwrap();
    assert_eq!(
        (&ccp["state"], &ccp["open_deviation_id"]),
        (&json!("deviation"), &deviation["id"])
    );
    let lines = supervisor.items("/plant-ops/lines").await;
    let line = lines.iter().find(|line| line["code"] == "L1").unwrap();
    assert_eq!(
        (&line["open_deviations"], &line["open_holds"]),
        (&json!(1), &json!(1))
    );

    let path = format!(
        "/fsq/deviations/{}/acknowledge",
        deviation["id"].as_str().unwrap()
    );
    supervisor
        .post(&path, json!({ "comment": "  " }))
        .await
        .problem(400);
    let machine = supervisor.with_token(token_of_nobody(&hub));
    machine
        .post(&path, json!({ "comment": "seen" }))
        .await
        .problem(409);
    let signed = supervisor
        .post(&path, json!({ "comment": "diverted, checked the valve" }))
        .await
        .ok();
    assert!(signed["acknowledged_us"].is_i64() && signed["acknowledged_by"].is_string());
    assert_eq!(
        signed["status"], "open",
        "closing needs a disposition of every lot"
    );
    let ids = |items: Vec<serde_json::Value>| items.iter().map(|it| it["id"].clone()).collect::<Vec<_>>();
    let (yes, no) = (
        "/fsq/deviations?acknowledged=true",
        "/fsq/deviations?acknowledged=false",
    );
    assert_eq!(ids(supervisor.items(yes).await), [deviation["id"].clone()]);
    assert_eq!(ids(supervisor.items(no).await), [] as [serde_json::Value; 0]);
    supervisor
        .get("/fsq/deviations?acknowledged=maybe")
        .await
        .problem(400);
    supervisor
        .post(&path, json!({ "comment": "me too" }))
        .await
        .problem(409);
    let nowhere = format!("/fsq/deviations/{}/acknowledge", Uuid::nil());
    supervisor
        .post(&nowhere, json!({ "comment": "seen" }))
        .await
        .problem(404);
}

/// As `foodflow-hub token` prints it.
fn token_of_nobody(hub: &TestHub) -> String {
    let now_s = hub.hub.app.clock.now().timestamp();
    hub.hub.app.signing_key.issue(&cloud_hub::kernel::token::Claims {
        sub: Uuid::nil(),
        tenant: "akron".to_owned(),
        role: Role::Admin,
        sid: None,
        iat: now_s,
        exp: now_s + 60,
    })
}

fn inspection(verdict: Verdict, taken_us: i64, thumbnail_jpeg: Option<Vec<u8>>) -> Event {
    let is_reject = verdict == Verdict::Reject;
    let defect = Defect {
        class: "foreign_body".to_owned(),
        score: 0.9,
        corners_px: [10.0, 20.0, 30.5, 40.0],
    };
    Event::Inspection(Inspection {
        id: Uuid::now_v7(),
        camera: "VS-306".to_owned(),
        line: Some("L3".to_owned()),
        taken_us,
        verdict,
        reason: (verdict == Verdict::Unknown).then(|| "truncated JPEG".to_owned()),
        defects: if is_reject { vec![defect] } else { vec![] },
        size_px: [640, 480],
        frame_sha256: "ab".repeat(32),
        model: is_reject.then(|| ModelId {
            name: "tray-defects".to_owned(),
            version: "1".to_owned(),
            sha256: "cd".repeat(32),
        }),
        latency_us: 1_000,
        thumbnail_jpeg,
    })
}

#[tokio::test]
async fn a_defect_shows_with_its_box_and_picture_newest_first() {
    let hub = TestHub::start().await;
    let caller = Caller::with_role(&hub, Role::FsqManager).await;
    let (mut edge, maker) = edge_with_tags(&hub).await;
    let now_us = hub.hub.app.clock.now_us();
    let picture = vec![0xFF, 0xD8, 0xFF, 0xD9];
    tell(
        &mut edge,
        &maker,
        0,
        inspection(Verdict::Reject, now_us - 2_000_000, Some(picture.clone())),
    )
    .await;
    tell(
        &mut edge,
        &maker,
        1,
        inspection(Verdict::Unknown, now_us - 1_000_000, None),
    )
    .await;

    let all = caller.items("/vision/results").await;
    assert_eq!(all.len(), 2);
    assert_eq!(
        (&all[0]["verdict"], &all[0]["reason"]),
        (&json!("unknown"), &json!("truncated JPEG"))
    );
    let rejects = caller.items("/vision/results?verdict=reject").await;
    let [reject] = &rejects[..] else {
        panic!("{rejects:?}")
    };
    let found = &reject["defects"][0];
    assert_eq!(
        (&found["class"], &found["x0"], &found["y1"]),
        (&json!("foreign_body"), &json!(10.0), &json!(40.0))
    );
    assert_eq!(
        (&reject["width_px"], &reject["model"]["name"]),
        (&json!(640), &json!("tray-defects"))
    );
    let image = |row: &serde_json::Value| format!("/vision/results/{}/image", row["id"].as_str().unwrap());
    let response = caller
        .request(reqwest::Method::GET, &image(reject))
        .send()
        .await
        .unwrap();
    assert_eq!(response.headers()["content-type"], "image/jpeg");
    assert_eq!(response.bytes().await.unwrap(), picture);
    assert_eq!(all[0]["has_image"], false);
    caller.get(&image(&all[0])).await.problem(404);
    let line = reject["line_id"].as_str().unwrap();
    assert_eq!(
        caller
            .items(&format!("/vision/results?line_id={line}"))
            .await
            .len(),
        2
    );
    assert!(
        caller
            .items(&format!("/vision/results?line_id={}", Uuid::nil()))
            .await
            .is_empty()
    );

    // A box that is nowhere spoils neither the verdict nor the list.
    let Event::Inspection(mut odd) = inspection(Verdict::Reject, now_us, None) else {
        panic!("an inspection")
    };
    odd.id = Uuid::now_v7();
    odd.defects[0].score = f32::NAN;
    tell(&mut edge, &maker, 2, Event::Inspection(odd)).await;
    let newest = &caller.items("/vision/results").await[0];
    assert_eq!(
        (
            &newest["verdict"],
            newest["defects"].as_array().map(Vec::len),
            &newest["reason"]
        ),
        (
            &json!("reject"),
            Some(0),
            &json!("1 defects have no place or score")
        )
    );
}
