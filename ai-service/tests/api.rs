//! Does the HTTP face answer with the models' numbers, and with problem documents where it cannot?

use axum::{body::Body, http::Request};
use serde_json::{Value, json};
use tower::ServiceExt;

async fn post(path: &str, body: String) -> (u16, Value) {
    let request = Request::post(path)
        .header("content-type", "application/json")
        .body(Body::from(body));
    let response = ai_service::api::router()
        .oneshot(request.expect("a request"))
        .await
        .expect("an answer");
    let status = response.status().as_u16();
    let bytes = axum::body::to_bytes(response.into_body(), 1 << 20)
        .await
        .expect("a body");
    (status, serde_json::from_slice(&bytes).expect("JSON"))
}

#[tokio::test]
async fn line_efficiency_of_akron_line_3_is_72_percent() {
    let shift = json!({"scheduled_min": 480, "planned_stop_min": 30, "unplanned_down_min": 54,
        "total": 20305, "scrap": 853, "ideal_per_min": 60});
    let (status, oee) = post("/ai/compute-line-efficiency", shift.to_string()).await;
    assert_eq!(status, 200);
    assert!((oee["oee"].as_f64().unwrap() - 0.7204).abs() < 5e-5, "{oee}");
}

#[tokio::test]
async fn a_drift_is_reported_with_its_beginning() {
    let request =
        json!({"chart": {"mean": 196.0, "sigma": 0.8}, "values": [196.0, 197.6, 197.6, 197.6, 197.6]});
    let (status, summary) = post("/ai/ccp-drift-summary", request.to_string()).await;
    assert_eq!(
        (status, &summary["alarm_at"], &summary["began_at"]),
        (200, &json!(4), &json!(1))
    );
}

#[tokio::test]
async fn what_cannot_be_computed_is_a_problem_document() {
    let (status, problem) = post(
        "/ai/ccp-drift-summary",
        json!({"chart": {"mean": 0, "sigma": 0}, "values": [1]}).to_string(),
    )
    .await;
    assert_eq!((status, &problem["status"]), (422, &json!(422)));
    let (status, problem) = post(
        "/ai/compute-line-efficiency",
        json!({"tenant": "akron"}).to_string(),
    )
    .await;
    assert_eq!(status, 422);
    assert!(
        problem["detail"].as_str().unwrap().contains("tenant"),
        "{problem}"
    );
    assert_eq!(post("/ai/compute-line-efficiency", "{".into()).await.0, 400);
}
