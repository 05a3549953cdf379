//! Does the log keep people out of it? The real program logs JSON at its most talkative while people sign in, fail
//! to, and send what they should not; nothing of theirs may be found, and every line of a request names the request.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use cloud_hub::{embedded::OWNER_ROLE, kernel::tenancy::LOGIN_ROLE};
use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};

use crate::support::{PASSWORD, TestDatabase, akron};

const EMAIL: &str = "canary.person@plant.example";
const NAME: &str = "Carla Canary-Name";
const PHONE: &str = "+1-330-555-0199";
const WORD: &str = "canary-password-7!";
const QUERY: &str = "canary-query-term";
const REASON: &str = "canary reason of a change";
const RESET: &str = "canary-reset-token";
const FORGED: &str = "canary-forged-token";
const COMPANY: &str = "Canary Supplies";
/// Each is what a person would not want to read in a log.
const CANARIES: [&str; 9] = [EMAIL, NAME, PHONE, WORD, QUERY, REASON, RESET, FORGED, COMPANY];
const CORRELATION: &str = "logged-deed-1";

/// A hub process; killed when the test fails.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

async fn start(database: &TestDatabase, dir: &Path) -> (Program, String) {
    let child = Command::new(env!("CARGO_BIN_EXE_foodflow-hub"))
        .args([
            "serve",
            "--log-json",
            "--http",
            "127.0.0.1:0",
            "--mqtt",
            "127.0.0.1:0",
        ])
        .arg("--data-dir")
        .arg(dir)
        .args(["--database-url", &database.url(LOGIN_ROLE)])
        .env("FOODFLOW_HUB__DATABASE__ADMIN_URL", database.url(OWNER_ROLE))
        .env("RUST_LOG", "debug")
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(dir.join("log")).unwrap())
        .spawn()
        .unwrap();
    let program = Program(child);
    let ready = dir.join("ready.json");
    for _ in 0..600 {
        if let Ok(text) = std::fs::read_to_string(&ready) {
            let ready: Value = serde_json::from_str(&text).unwrap();
            return (program, format!("http://{}", ready["http"].as_str().unwrap()));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!(
        "the hub did not start: {}",
        std::fs::read_to_string(dir.join("log")).unwrap()
    );
}

struct Session {
    http: Client,
    base: String,
    token: String,
}

impl Session {
    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http
            .request(method, format!("{}/api/v1{path}", self.base))
            .bearer_auth(&self.token)
    }

    async fn send(&self, path: &str, body: Value) -> u16 {
        let request = self.request(Method::POST, path).json(&body);
        request.send().await.unwrap().status().as_u16()
    }
}

/// Everything a person could leave behind, where it belongs and where it does not.
async fn leave_traces(base: String) -> Session {
    // An error says that one is installed already.
    drop(rustls::crypto::ring::default_provider().install_default());
    let http = Client::new();
    let credentials = json!({ "tenant": "akron", "email": "admin@akron.example", "password": PASSWORD });
    let login = http
        .post(format!("{base}/api/v1/auth/login"))
        .json(&credentials)
        .send();
    let login: Value = login.await.unwrap().json().await.unwrap();
    let token = login["access_token"].as_str().unwrap().to_owned();
    let session = Session { http, base, token };

    let wrong = json!({ "tenant": "akron", "email": EMAIL, "password": WORD });
    assert_eq!(session.send("/auth/login", wrong.clone()).await, 401);
    let unknown = json!({ "tenant": EMAIL, "email": EMAIL, "password": WORD });
    assert_eq!(session.send("/auth/login", unknown).await, 401);
    let mistyped = json!({ "tenant": "akron", EMAIL: NAME, "password": [WORD] });
    assert_eq!(session.send("/auth/login", mistyped).await, 422);
    for path in ["/auth/register", "/users"] {
        let person = json!({ "tenant": "akron", "email": EMAIL, "display_name": NAME, "password": WORD });
        session.send(path, person).await;
        session
            .send(
                path,
                json!({ "email": EMAIL, "display_name": NAME, "phone": PHONE }),
            )
            .await;
        session
            .send(path, json!({ "email": EMAIL, "display_name": NAME }))
            .await;
    }
    let reset = json!({ "token": RESET, "new_password": WORD });
    session.send("/auth/password-reset/confirm", reset).await;
    session
        .send("/auth/refresh", json!({ "refresh_token": RESET }))
        .await;

    let supplier = json!({ "code": "CAN-1", "name": COMPANY });
    let request = session.request(Method::POST, "/fsq/suppliers").json(&supplier);
    let made = request
        .header("x-request-id", CORRELATION)
        .header("x-change-reason", REASON);
    assert_eq!(made.send().await.unwrap().status(), 201);
    assert_eq!(session.send("/fsq/suppliers", supplier).await, 409);
    let bad = [
        json!({ "code": NAME.repeat(20), "name": PHONE }),
        json!({ "code": format!("{NAME}\u{0}"), "name": PHONE }),
        json!({ "code": "C", "name": PHONE, "audit_score_pct": NAME }),
        json!({ "code": "C", "name": PHONE, "audit_score_pct": 1e300 }),
    ];
    for body in bad {
        let status = session.send("/fsq/suppliers", body).await;
        assert!((400..500).contains(&status), "{status}");
    }
    for path in [
        format!("/fsq/suppliers?q={QUERY}"),
        format!("/fsq/suppliers?{QUERY}={EMAIL}"),
        format!("/fsq/suppliers/{QUERY}"),
        format!("/{QUERY}"),
    ] {
        session.request(Method::GET, &path).send().await.unwrap();
    }
    let forged = session.http.get(format!("{}/api/v1/auth/me", session.base));
    let forged = forged.bearer_auth(FORGED).send().await.unwrap();
    assert_eq!(forged.status(), 401);
    session
}

#[tokio::test]
async fn the_log_names_every_request_and_no_person() {
    let database = TestDatabase::create().await;
    let dir = tempfile::tempdir().unwrap();
    let (program, base) = start(&database, dir.path()).await;
    let session = leave_traces(base).await;
    let token = session.token.clone();
    // The last answer is logged before it is read.
    drop(program);

    let log = std::fs::read_to_string(dir.path().join("log")).unwrap();
    let secret = token.rsplit('.').next().unwrap().to_owned();
    for canary in CANARIES
        .iter()
        .copied()
        .chain([PASSWORD, "admin@akron.example", &secret])
    {
        let line = log.lines().find(|line| line.contains(canary));
        assert_eq!(line, None, "{canary} was logged");
    }
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(
        lines.iter().any(|line| line["level"] == "DEBUG"),
        "it was at its most talkative"
    );
    let answers: Vec<&Value> = lines.iter().filter(|line| line["target"] == "request").collect();
    assert!(answers.len() >= 20, "{} requests", answers.len());
    for answer in &answers {
        let span = &answer["span"];
        for field in ["correlation_id", "method", "route", "principal.kind"] {
            assert!(
                span[field].as_str().is_some_and(|text| !text.is_empty()),
                "{field}: {answer}"
            );
        }
        assert!(
            answer["status"].is_u64() && answer["duration_ms"].is_f64(),
            "{answer}"
        );
        let is_known = span["principal.kind"] == "user";
        assert!(
            !is_known || (span["tenant.id"] == "akron" && span["principal.id"].is_string()),
            "{answer}"
        );
    }
    let signed_in = answers
        .iter()
        .find(|line| line["span"]["route"] == "/api/v1/auth/login");
    let signed_in = signed_in.unwrap();
    assert_eq!(signed_in["status"], 200);
    assert_eq!(
        signed_in["span"]["tenant.id"], "akron",
        "known by the body, named once found"
    );

    let of_deed = |line: &&&Value| line["span"]["correlation_id"] == CORRELATION;
    assert_eq!(answers.iter().filter(of_deed).count(), 1);
    let mut tx = database.db.begin(&akron()).await.unwrap();
    let audited: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM audit_event WHERE correlation_id = $1 AND entity = 'supplier'",
    )
    .bind(CORRELATION)
    .fetch_one(tx.conn())
    .await
    .unwrap();
    assert_eq!(audited, 1, "the audit entry has the same id");
}
