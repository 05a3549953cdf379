//! What does the hub bear? Requests that are too large, too slow or too many are answered with a problem document;
//! a busy tenant waits for itself; a web page of another origin is let in only by name.

use std::{num::NonZeroU32, time::Duration};

use cloud_hub::kernel::role::Role;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{
    client::{Answer, Caller, http_client},
    support::{TestHub, cuyahoga},
};

const SUPPLIERS: &str = "/api/v1/fsq/suppliers";

/// Begins a POST of a supplier whose body never ends, and returns once the hub waits for that body.
async fn dangling(hub: &TestHub, token: &str, headers: &str) -> TcpStream {
    let mut stream = TcpStream::connect(hub.hub.http).await.unwrap();
    let request = format!(
        "POST {SUPPLIERS} HTTP/1.1\r\nhost: hub\r\nauthorization: Bearer {token}\r\n{headers}\
         content-type: application/json\r\ncontent-length: 100\r\nexpect: 100-continue\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut said = [0; 64];
    let length = stream.read(&mut said).await.unwrap();
    assert!(
        said[..length].starts_with(b"HTTP/1.1 100 "),
        "the body is asked for"
    );
    stream
}

async fn rest(mut stream: TcpStream) -> String {
    let mut said = Vec::new();
    let mut part = [0; 4096];
    while !String::from_utf8_lossy(&said).contains("correlation_id") {
        let length = stream.read(&mut part).await.unwrap();
        assert_ne!(length, 0, "{}", String::from_utf8_lossy(&said));
        said.extend_from_slice(&part[..length]);
    }
    String::from_utf8(said).unwrap()
}

#[tokio::test]
async fn a_caller_too_fast_is_told_when_to_come_back_and_others_are_served() {
    let hub = TestHub::start_with(|config| {
        config.http.requests_per_s = NonZeroU32::MIN;
        config.http.burst = NonZeroU32::new(5).unwrap();
    })
    .await;
    let hasty = Caller::with_role(&hub, Role::Auditor).await;
    for _ in 0..5 {
        hasty.get("/fsq/suppliers").await.ok();
    }
    let response = hasty.request(Method::GET, "/fsq/suppliers").send().await.unwrap();
    assert_eq!(response.status(), 429);
    assert_eq!(response.headers()["retry-after"], "1");
    let problem: Value = response.json().await.unwrap();
    assert_eq!(problem["type"], "urn:foodflow:problem:too-many-attempts");
    Caller::with_role(&hub, Role::Operator)
        .await
        .get("/fsq/suppliers")
        .await
        .ok();
    let anonymous = Caller::anonymous(&hub);
    for _ in 0..5 {
        anonymous.get("/fsq/suppliers").await.problem(401);
    }
    anonymous.get("/fsq/suppliers").await.problem(429);
}

#[tokio::test]
async fn made_up_api_keys_and_forged_tokens_are_counted_by_their_address() {
    let hub = TestHub::start_with(|config| {
        config.http.requests_per_s = NonZeroU32::MIN;
        config.http.burst = NonZeroU32::new(6).unwrap();
    })
    .await;
    let anonymous = Caller::anonymous(&hub);
    for number in 0..3u128 {
        let key = format!("ff_akron_{:032x}_secret", number + 1);
        anonymous.with_token(key).get("/fsq/suppliers").await.problem(401);
        let token = format!("a.b.{number}");
        anonymous
            .with_token(token)
            .get("/fsq/suppliers")
            .await
            .problem(401);
    }
    let key = format!("ff_akron_{:032x}_secret", 99);
    anonymous.with_token(key).get("/fsq/suppliers").await.problem(429);
}

#[tokio::test]
async fn an_address_or_headers_beyond_all_reason_are_refused() {
    let hub = TestHub::start().await;
    let caller = Caller::with_role(&hub, Role::Auditor).await;
    let long = format!("/fsq/suppliers?q={}", "x".repeat(9000));
    caller.get(&long).await.problem(414);
    let mut request = caller.request(Method::GET, "/fsq/suppliers");
    for number in 0..5 {
        request = request.header(format!("x-padding-{number}"), "y".repeat(7000));
    }
    Answer::of(request).await.problem(431);
    let body = json!({ "code": "x", "name": "n".repeat(1024 * 1024) });
    let admin = Caller::with_role(&hub, Role::Admin).await;
    admin.post("/fsq/suppliers", body).await.problem(413);
}

#[tokio::test]
async fn a_body_that_does_not_arrive_is_given_up() {
    let hub = TestHub::start_with(|config| config.http.body_timeout = Duration::from_millis(200)).await;
    let token = hub.token(Role::Admin).await;
    for headers in ["", "idempotency-key: once\r\n"] {
        let mut stream = dangling(&hub, &token, headers).await;
        stream.write_all(b"{\"code\":").await.unwrap();
        let said = rest(stream).await;
        assert!(said.starts_with("HTTP/1.1 408 "), "{said}");
        assert!(
            said.contains("application/problem+json") && said.contains("too slowly"),
            "{said}"
        );
    }
}

#[tokio::test]
async fn a_busy_tenant_waits_for_itself_and_not_for_others() {
    let hub = TestHub::start_with(|config| config.http.tenant_requests_at_once = 1).await;
    let token = hub.token(Role::Admin).await;
    let mut busy = dangling(&hub, &token, "").await;
    let same = Caller::with_role(&hub, Role::Auditor).await;
    let other = Caller::of_tenant(&hub, &cuyahoga(), Role::Auditor).await;
    let waiting = tokio::spawn(async move { same.get("/fsq/suppliers").await });
    other.get("/fsq/suppliers").await.ok();
    other.get("/fsq/suppliers").await.ok();
    let mut waiting = waiting;
    assert!(
        timeout(Duration::from_millis(200), &mut waiting).await.is_err(),
        "its turn is taken"
    );
    busy.write_all(&[b' '; 100]).await.unwrap();
    waiting.await.unwrap().ok();
}

#[tokio::test]
async fn a_page_of_another_origin_is_let_in_by_name_only() {
    let hub =
        TestHub::start_with(|config| config.http.cors_origins = vec!["https://plant.example".to_owned()])
            .await;
    let http = http_client();
    let preflight = |origin: &'static str| {
        http.request(Method::OPTIONS, hub.url(SUPPLIERS))
            .header("origin", origin)
            .header("access-control-request-method", "PATCH")
            .header("access-control-request-headers", "authorization,if-match")
            .send()
    };
    let allowed = preflight("https://plant.example").await.unwrap();
    assert_eq!(
        allowed.headers()["access-control-allow-origin"],
        "https://plant.example"
    );
    let methods = allowed.headers()["access-control-allow-methods"]
        .to_str()
        .unwrap();
    assert!(methods.contains("PATCH"), "{methods}");
    assert!(!allowed.headers().contains_key("access-control-allow-credentials"));
    let foreign = preflight("https://evil.example").await.unwrap();
    assert!(!foreign.headers().contains_key("access-control-allow-origin"));

    let request = http
        .get(hub.url(SUPPLIERS))
        .header("origin", "https://plant.example");
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status(), 401);
    let exposed = answer.headers()["access-control-expose-headers"]
        .to_str()
        .unwrap();
    for name in ["etag", "retry-after", "x-request-id"] {
        assert!(exposed.contains(name), "{exposed}");
    }
}

#[tokio::test]
async fn nobody_is_let_in_across_origins_unless_configured_and_answers_are_not_kept() {
    let hub = TestHub::start().await;
    let request = http_client()
        .get(hub.url(SUPPLIERS))
        .header("origin", "https://plant.example");
    let answer = request.send().await.unwrap();
    let headers = answer.headers();
    assert!(!headers.contains_key("access-control-allow-origin"));
    assert_eq!(headers["cache-control"], "no-store");
    assert_eq!(headers["x-content-type-options"], "nosniff");
    assert_eq!(headers["x-frame-options"], "DENY");
}
