//! Do the fleet's commands on the line PC answer as documented, with the documented exit codes?

use std::{os::unix::fs::PermissionsExt as _, path::Path, process::Output};

use protocol::event::Event;
use serde_json::Value;
use tokio::process::Command;

use crate::support::{
    edge::{Edge, PROGRAM, device, head},
    hub::{Hub, Policy},
    plc::{Behaviour, Plc},
};

async fn program(arguments: &[&str]) -> Output {
    Command::new(PROGRAM).args(arguments).output().await.unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn finding<'a>(answer: &'a Value, what: &str) -> &'a Value {
    let findings = answer["findings"].as_array().unwrap();
    findings
        .iter()
        .find(|finding| finding["what"] == what)
        .unwrap_or_else(|| panic!("{what} is not in {answer}"))
}

#[tokio::test]
async fn a_release_is_signed_applied_and_shown_and_a_changed_program_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let place = |name: &str| directory.path().join(name);
    let key = place("release.key");
    let made = program(&["update", "keygen", "--out", text(&key)]).await;
    let public = String::from_utf8(made.stdout).unwrap().trim().to_owned();
    assert_eq!(
        std::fs::metadata(&key).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert_eq!(
        program(&["update", "keygen", "--out", text(&key)])
            .await
            .status
            .code(),
        Some(1),
        "a key is not written over"
    );
    std::fs::write(place("program"), "#!/bin/sh\n").unwrap();
    let manifest = place("manifest.json");
    let sign = [
        "update",
        "sign",
        "--key",
        text(&key),
        "--released",
        "2026-11-20",
        "--version",
        "9.0.0",
    ];
    let program_file = place("program");
    let rest = [
        "--url",
        "https://hub.example/p",
        "--program",
        text(&program_file),
        "--out",
        text(&manifest),
    ];
    let signed = program(&[&sign[..], &rest[..]].concat()).await;
    assert_eq!(signed.status.code(), Some(0), "{}", said(&signed));
    let config = place("edge.toml");
    let keys = format!("[update]\ntrusted_keys = [\"{public}\"]\n");
    std::fs::write(&config, head(None) + &keys).unwrap();
    let data_dir = place("data");
    let apply = [
        "update",
        "apply",
        "--json",
        "--config",
        text(&config),
        "--data-dir",
        text(&data_dir),
    ];
    let apply = [
        &apply[..],
        &["--manifest", text(&manifest), "--file", text(&program_file)],
    ]
    .concat();
    std::fs::write(&program_file, "#!/bin/sh\nmallory\n").unwrap();
    let refused = program(&apply).await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(said(&refused).contains("SHA-256"), "{}", said(&refused));
    std::fs::write(&program_file, "#!/bin/sh\n").unwrap();
    let applied = program(&apply).await;
    assert_eq!(applied.status.code(), Some(0), "{}", said(&applied));
    let status = program(&["update", "status", "--json", "--data-dir", text(&data_dir)]).await;
    let status: Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(status["installed"]["current"]["version"], "9.0.0");
    std::fs::write(&config, head(None)).unwrap();
    let untrusted = program(&apply).await;
    assert!(said(&untrusted).contains("trusted_keys"), "{}", said(&untrusted));
}

#[tokio::test]
async fn diag_finds_what_is_wrong_and_leaves_a_running_agent_its_connection() {
    let directory = tempfile::tempdir().unwrap();
    let plc = Plc::start(Behaviour::default()).await;
    let hub = Hub::start(Policy::Store).await;
    let config = head(Some(hub.address)) + &device("plc", plc.address, "100ms", "800ms", &[0]);
    let edge = Edge::start(directory.path(), &config).await;
    edge.until("the hub", |status| status["uplink"]["state"] == "online")
        .await;
    let (file, data_dir) = (directory.path().join("edge.toml"), directory.path().join("data"));
    let diag = [
        "diag",
        "--json",
        "--config",
        text(&file),
        "--data-dir",
        text(&data_dir),
    ];
    let output = program(&diag).await;
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    for what in [
        "configuration",
        "disk",
        "identity",
        "hub tcp",
        "hub mqtt",
        "modbus plc",
    ] {
        assert_eq!(finding(&answer, what)["ok"], true, "{answer}");
    }
    assert!(!said(&output).contains("secret"));
    assert_eq!(edge.status().await["uplink"]["connections"], 1);
    assert_eq!(edge.stop().await, Some(0));
    drop((hub, plc));
    let output = program(&diag).await;
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(finding(&answer, "hub tcp")["ok"], false);
    assert_eq!(finding(&answer, "modbus plc")["ok"], false);
    std::fs::write(&file, "[edge]\n").unwrap();
    assert_eq!(program(&diag).await.status.code(), Some(2));
}

#[tokio::test]
async fn what_changes_is_watched_on_a_running_agent_and_on_a_device() {
    let directory = tempfile::tempdir().unwrap();
    let plc = Plc::start(Behaviour::default()).await;
    let config = head(None) + &device("plc", plc.address, "100ms", "800ms", &[0]);
    let edge = Edge::start(directory.path(), &config).await;
    edge.until("readings", |status| status["acquired"].as_u64() > Some(0))
        .await;
    let (file, data_dir) = (directory.path().join("edge.toml"), directory.path().join("data"));
    let watched = program(&["watch", "--json", "--count", "1", "--data-dir", text(&data_dir)]).await;
    assert!(said(&watched).contains("modbus plc"), "{}", said(&watched));
    let read = program(&[
        "watch",
        "--json",
        "--count",
        "1",
        "--config",
        text(&file),
        "plc-0",
    ])
    .await;
    let line: Value = serde_json::from_slice(&read.stdout).unwrap();
    assert_eq!(line["what"]["value"], 1000.0);
    assert_eq!(edge.stop().await, Some(0));
    let nobody = program(&["watch", "--count", "1", "--data-dir", text(&data_dir)]).await;
    assert_eq!(nobody.status.code(), Some(1));
}

#[tokio::test]
async fn what_an_agent_judged_is_judged_again_to_the_same_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let plc = Plc::start(Behaviour::default()).await;
    let point = "[[ccp]]\ncode = \"CCP-1\"\ntag = \"plc-0\"\nlow = 10.0\nunit = \"\"\ncheck_every = \"1s\"\ngap_max = \"5s\"\n";
    let config = head(None) + &device("plc", plc.address, "100ms", "800ms", &[0]) + point;
    let edge = Edge::start(directory.path(), &config).await;
    // Four windows, of which the first and the last are not whole.
    edge.until("readings", |status| status["acquired"].as_u64() > Some(45))
        .await;
    assert_eq!(edge.stop().await, Some(0));
    let (file, data_dir) = (directory.path().join("edge.toml"), directory.path().join("data"));
    let replay = ["replay", "--config", text(&file), "--data-dir", text(&data_dir)];
    let output = program(&replay).await;
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let compared = said(&output);
    let count = compared
        .lines()
        .rev()
        .find_map(|line| line.split(' ').next()?.parse::<u32>().ok());
    assert!(count >= Some(2), "{compared}");
    // Other limits are another judgement.
    std::fs::write(&file, config.replace("low = 10.0", "low = 5000.0")).unwrap();
    let output = program(&replay).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("recorded"), "{}", said(&output));
    let mut checks = 0;
    let held = edge_agent::spool::journal::audit::Held::default();
    edge_agent::spool::journal::audit::audit(&data_dir.join("journal"), &held, |entry| {
        checks += usize::from(matches!(entry.event, Event::CcpCheck(_)));
    })
    .unwrap();
    assert!(checks > 0);
}
