//! What would the hub make of a message? Said without a hub, a broker or a database, with exit codes for scripts.

use std::{
    io::Write as _,
    process::{Command, Output, Stdio},
};

use serde_json::{Value, json};

fn explain(arguments: &[&str], payload: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_foodflow-hub"))
        .arg("explain")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A program that has read enough closes its end.
    drop(child.stdin.take().unwrap().write_all(payload));
    child.wait_with_output().unwrap()
}

#[test]
fn a_good_message_is_explained_value_by_value() {
    let payload = br#"{"value":23.5,"timestamp_ms":1672531200000}"#;
    let said = explain(&["umh/v1/acme/akron/_historian/t", "-"], payload);
    assert!(said.status.success(), "{said:?}");
    let text = String::from_utf8(said.stdout).unwrap();
    assert_eq!(
        text,
        "umh on umh/v1/acme/akron/_historian/t\n  acme/akron / t = 23.5 at 2023-01-01T00:00:00.000000Z (late), good.late\n"
    );
    let said = explain(
        &[
            "v1/plant/l1/oven/zone1",
            "-",
            "--json",
            "--client",
            "akron/press-7",
        ],
        b"23.5",
    );
    let said: Value = serde_json::from_slice(&said.stdout).unwrap();
    assert_eq!(
        (
            &said["dialect"],
            &said["readings"][0]["device"],
            &said["readings"][0]["time_note"]
        ),
        (&json!("native"), &json!("oven"), &json!("of_receipt"))
    );
}

#[test]
fn a_bad_message_is_explained_with_place_and_remedy_and_fails() {
    let said = explain(&["v1/plant/l1/oven/telemetry", "-"], b"{temperature:25}");
    assert_eq!(said.status.code(), Some(1));
    let text = String::from_utf8(said.stdout).unwrap();
    assert!(
        text.contains("refused at byte 1: E101 BAD_JSON: object keys must be quoted: `temperature:25}`"),
        "{text}"
    );
    let said = explain(&["v1/a/b/c/d", "-", "--json", "--dialect", "klingon"], b"1");
    assert_eq!(said.status.code(), Some(2), "wrong usage");
    let large = vec![b' '; (1 << 20) + 10];
    let said = explain(&["v1/a/b/c/d", "-", "--json"], &large);
    let said: Value = serde_json::from_slice(&said.stdout).unwrap();
    assert_eq!(said["refused"][0]["number"], "E104");
    let said = explain(&["v1/a/b/c/d", "/nowhere/at/all"], b"");
    assert!(String::from_utf8_lossy(&said.stderr).contains("/nowhere/at/all"));
}
