//! Does a value that a person enters on the line PC become a record, a reading and a verdict, with the hub away?

use std::{collections::BTreeMap, process::Stdio};

use protocol::{
    event::Event,
    limit::{DeviationKind, Phase},
};
use tokio::{io::AsyncWriteExt as _, process::Command};

use crate::support::{
    edge::{Edge, PROGRAM, device, head, log_of},
    hub::{Hub, Policy},
    plc::{Behaviour, Plc},
};

/// What `foodflow-edge badge hash` makes of a PIN.
async fn hash(pin: &str) -> String {
    let mut child = Command::new(PROGRAM)
        .args(["badge", "hash"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(format!("{pin}\n").as_bytes()).await.unwrap();
    drop(input);
    let output = child.wait_with_output().await.unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[tokio::test]
async fn a_pin_that_is_too_short_gets_no_hash() {
    let mut child = Command::new(PROGRAM)
        .args(["badge", "hash"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdin.take());
    let output = child.wait_with_output().await.unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("4 characters or more"));
}

#[tokio::test]
async fn a_value_entered_by_hand_with_the_hub_away_is_judged_and_told_when_it_is_back() {
    let hub = Hub::start(Policy::RefuseConnection).await;
    let directory = tempfile::tempdir().unwrap();
    let plc = Plc::start(Behaviour {
        values: BTreeMap::new(),
        ..Behaviour::default()
    })
    .await;
    let config = head(Some(hub.address))
        + &device("plc", plc.address, "200ms", "1s", &[0])
        + "[[manual]]\nname = \"TT-403.HAND\"\nunit = \"degC\"\nlow = -5.0\nhigh = 30.0\n\
           [[ccp]]\ncode = \"CCP-5\"\ntag = \"TT-403.HAND\"\nhigh = 5.0\ngap_max = \"1h\"\n"
        + &format!(
            "[[badge]]\nid = \"1001\"\nname = \"Avery\"\npin_hash = '{}'\n",
            hash("2468").await
        );
    let edge = Edge::start(directory.path(), &config).await;
    for value in ["3.4", "7.5"] {
        let status = edge
            .post(
                "/manual",
                &[
                    ("tag", "TT-403.HAND"),
                    ("value", value),
                    ("badge", "1001"),
                    ("pin", "2468"),
                ],
            )
            .await;
        assert_eq!(status, 303);
    }
    edge.until("the deviation", |status| {
        status["ccps"][0]["state"] == "deviation"
    })
    .await;
    hub.set_policy(Policy::Store);
    hub.until("entries, readings and the deviation", |stored| {
        let events = stored.events();
        let entered = events
            .iter()
            .filter(|event| matches!(event, Event::ManualEntry(entry) if entry.name == "Avery"));
        let deviating = events.iter().any(|event| {
            matches!(event, Event::Deviation(deviation) if deviation.ccp == "CCP-5"
                && deviation.kind == DeviationKind::Limit && deviation.phase == Phase::Opened
                && deviation.value_extreme == Some(7.5))
        });
        entered.count() == 2 && deviating
    })
    .await;
    assert_eq!(edge.stop().await, Some(0));
    assert!(
        !log_of(directory.path()).contains("2468"),
        "the PIN is in the log"
    );
}
