//! Do the commands answer as documented, with the documented exit codes?

use std::{os::unix::fs::PermissionsExt as _, path::Path, process::Output};

use axum::{Json, Router, http::StatusCode, routing::post};
use serde_json::{Value, json};
use tokio::{net::TcpListener, process::Command};

use crate::support::{
    edge::{PROGRAM, device, head},
    plc::{Behaviour, Plc},
};

async fn program(arguments: &[&str]) -> Output {
    Command::new(PROGRAM).args(arguments).output().await.unwrap()
}

fn write(directory: &Path, text: &str) -> String {
    let file = directory.join("edge.toml");
    std::fs::write(&file, text).unwrap();
    file.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_faulty_configuration_is_listed_with_file_and_line_and_nothing_is_started() {
    let directory = tempfile::tempdir().unwrap();
    let text = head(None) + "[spool]\nquota = \"tiny\"\n[lokal]\n";
    let file = write(directory.path(), &text);
    let data_dir = directory.path().join("data");
    for arguments in [
        vec!["check", "--config", &file],
        vec!["run", "--config", &file, "--data-dir", data_dir.to_str().unwrap()],
    ] {
        let output = program(&arguments).await;
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(&format!("{file}:9: `spool.quota`")), "{said}");
        assert!(
            said.contains(&format!("{file}:10: unknown key `lokal`")),
            "{said}"
        );
    }
    assert!(!data_dir.exists(), "nothing was created");
}

#[tokio::test]
async fn a_sound_configuration_is_summed_up() {
    let directory = tempfile::tempdir().unwrap();
    let text = head(None) + &device("plc", "127.0.0.1:502".parse().unwrap(), "1s", "1s", &[0, 200]);
    let file = write(directory.path(), &text);
    let output = program(&["check", "--json", "--config", &file]).await;
    assert_eq!(output.status.code(), Some(0));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (answer["tags"].as_u64(), answer["modbus"][0]["requests"].as_u64()),
        (Some(2), Some(2))
    );
}

#[tokio::test]
async fn the_printed_default_is_a_sound_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let printed = program(&["check", "--print-default"]).await;
    let file = write(directory.path(), std::str::from_utf8(&printed.stdout).unwrap());
    assert_eq!(
        program(&["check", "--config", &file]).await.status.code(),
        Some(0)
    );
}

#[tokio::test]
async fn a_missing_file_and_bad_usage_exit_with_2() {
    assert_eq!(
        program(&["check", "--config", "/nonexistent.toml"])
            .await
            .status
            .code(),
        Some(2)
    );
    assert_eq!(program(&["fly"]).await.status.code(), Some(2));
}

#[tokio::test]
async fn one_tag_can_be_read_now() {
    let directory = tempfile::tempdir().unwrap();
    let plc = Plc::start(Behaviour::default()).await;
    let file = write(
        directory.path(),
        &(head(None) + &device("plc", plc.address, "1s", "1s", &[42])),
    );
    let output = program(&["read", "--json", "--config", &file, "plc-42"]).await;
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (answer["value"].as_f64(), answer["quality"].as_str()),
        (Some(1042.0), Some("good"))
    );
    let unknown = program(&["read", "--config", &file, "plc-43"]).await;
    assert_eq!(unknown.status.code(), Some(1));
}

/// A hub that knows one code.
async fn enrolling_hub() -> String {
    async fn enroll(Json(body): Json<Value>) -> (StatusCode, Json<Value>) {
        if body["code"] == "right" {
            let identity = json!({
                "tenant": "akron", "edge": "akron-1", "mqtt_username": "akron/akron-1", "mqtt_password": "s3cret",
            });
            (StatusCode::OK, Json(identity))
        } else {
            let problem = json!({ "title": "Forbidden", "detail": "the code is unknown or used up" });
            (StatusCode::FORBIDDEN, Json(problem))
        }
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = Router::new().route("/api/v1/edges/enroll", post(enroll));
    tokio::spawn(async move { axum::serve(listener, app).await });
    format!("http://{address}/")
}

#[tokio::test]
async fn a_one_time_code_becomes_an_identity_that_only_its_owner_may_read() {
    let directory = tempfile::tempdir().unwrap();
    let hub = enrolling_hub().await;
    let data_dir = directory.path().to_str().unwrap();
    let enroll = |code| ["enroll", "--hub", &hub, "--code", code, "--data-dir", data_dir].map(str::to_owned);
    let refused = Command::new(PROGRAM)
        .args(enroll("wrong"))
        .output()
        .await
        .unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        String::from_utf8(refused.stderr)
            .unwrap()
            .contains("unknown or used up")
    );
    let done = Command::new(PROGRAM)
        .args(enroll("right"))
        .output()
        .await
        .unwrap();
    assert_eq!(
        done.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
    assert!(!String::from_utf8(done.stdout).unwrap().contains("s3cret"));
    let file = directory.path().join("identity.json");
    assert_eq!(
        std::fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let identity: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    assert_eq!(identity["mqtt_username"], "akron/akron-1");
}
