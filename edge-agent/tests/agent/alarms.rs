//! Are alarms kept in their states, and outputs driven, by the program as a whole, whatever the hub does?

use std::collections::BTreeMap;

use protocol::{
    alarm::{AlarmChange, AlarmState},
    event::Event,
};
use serde_json::Value;

use crate::support::{
    edge::{Edge, count, head},
    hub::{Hub, Policy, Stored},
    plc::{Behaviour, Plc},
};

const TT101: u16 = 0;
const STOP: u16 = 10;

fn config(hub: &Hub, plc: &Plc, react: &str) -> String {
    head(Some(hub.address))
        + &format!(
            "[[modbus]]\nname = \"htst\"\naddress = \"{}\"\nwrites_enabled = true\n[[modbus.group]]\nperiod = \"100ms\"\n\
             [[modbus.group.tag]]\nname = \"TT-101\"\nline = \"L1\"\naddress = {TT101}\ntype = \"i16\"\nscale_digits = 2\n\
             [[output]]\nname = \"stop\"\ndevice = \"htst\"\nregister = {STOP}\n\
             [[ccp]]\ncode = \"CCP-1\"\ntag = \"TT-101\"\nlow = 72.0\ngap_max = \"5s\"\ncheck_every = \"1s\"\n{react}\n\
             [[alarm]]\ntag = \"TT-101\"\nlow = 72.5\npriority = 3\n",
            plc.address
        )
}

async fn plc() -> Plc {
    Plc::start(Behaviour {
        values: BTreeMap::from([(TT101, 7320), (STOP, 0)]),
        ..Behaviour::default()
    })
    .await
}

fn shown<'a>(status: &'a Value, code: &str) -> Option<&'a Value> {
    let shown = status["alarm_board"]["shown"].as_array()?;
    shown.iter().find(|alarm| alarm["code"] == code)
}

fn changes(stored: &Stored, code: &str) -> Vec<AlarmChange> {
    let events = stored.events().into_iter();
    events
        .filter_map(|event| match event {
            Event::AlarmChange(change) if change.code == code => Some(change),
            _ => None,
        })
        .collect()
}

#[tokio::test]
async fn t24_alarms_survive_a_kill_in_their_states_and_reach_the_hub_in_order() {
    let hub = Hub::start(Policy::RefuseConnection).await;
    let plc = plc().await;
    let directory = tempfile::tempdir().unwrap();
    let config = config(&hub, &plc, "");
    let edge = Edge::start(directory.path(), &config).await;
    edge.until("control", |status| status["ccps"][0]["state"] == "in_control")
        .await;
    plc.behave(|behaviour| behaviour.values.extend([(TT101, 7110)]));
    let before = edge
        .until("both alarms", |status| {
            shown(status, "ccp.limit").is_some() && shown(status, "tag.low").is_some()
        })
        .await;
    // Stored in order: when later readings are on disk, so are the alarms.
    let stored = count(&before["spooled"]);
    edge.until("that they are durable", |status| {
        count(&status["spooled"]) > stored + 20
    })
    .await;
    edge.kill();
    let edge = Edge::start(directory.path(), &config).await;
    let after = edge
        .until("the same alarms", |status| shown(status, "ccp.limit").is_some())
        .await;
    for code in ["ccp.limit", "tag.low"] {
        let (before, after) = (shown(&before, code).unwrap(), shown(&after, code).unwrap());
        for key in ["id", "state", "since_us"] {
            assert_eq!(before[key], after[key], "{code} {key}");
        }
    }
    plc.behave(|behaviour| behaviour.values.extend([(TT101, 7320)]));
    edge.until("control again", |status| {
        status["ccps"][0]["state"] == "in_control"
    })
    .await;
    hub.set_policy(Policy::Store);
    hub.until("the whole life of both alarms", |stored| {
        ["ccp.limit", "tag.low"]
            .iter()
            .all(|code| changes(stored, code).len() >= 2)
    })
    .await;
    let stored = hub.stored.lock().unwrap();
    for code in ["ccp.limit", "tag.low"] {
        let states: Vec<AlarmState> = changes(&stored, code).iter().map(|change| change.to).collect();
        assert_eq!(
            states,
            [AlarmState::Unacknowledged, AlarmState::ReturnedUnacknowledged],
            "{code}"
        );
    }
}

#[tokio::test]
async fn a_deviation_writes_its_output_with_the_hub_away_and_the_end_of_it_too() {
    let hub = Hub::start(Policy::RefuseConnection).await;
    let plc = plc().await;
    let directory = tempfile::tempdir().unwrap();
    let react = "react = { output = \"stop\", on_deviation = 7, on_clear = 3 }";
    let edge = Edge::start(directory.path(), &config(&hub, &plc, react)).await;
    plc.until_value(STOP, 3).await;
    plc.behave(|behaviour| behaviour.values.extend([(TT101, 7110)]));
    plc.until_value(STOP, 7).await;
    plc.behave(|behaviour| behaviour.values.extend([(TT101, 7320)]));
    plc.until_value(STOP, 3).await;
    assert_eq!(edge.stop().await, Some(0));
}

#[tokio::test]
async fn an_output_that_refuses_is_an_alarm_and_is_written_when_it_takes_the_value() {
    let hub = Hub::start(Policy::Store).await;
    let plc = plc().await;
    plc.behave(|behaviour| behaviour.refuses_writes = true);
    let directory = tempfile::tempdir().unwrap();
    let react = "react = { output = \"stop\", on_deviation = 7, on_clear = 3 }";
    let edge = Edge::start(directory.path(), &config(&hub, &plc, react)).await;
    edge.until("the alarm", |status| {
        shown(status, "output.failed").is_some_and(|alarm| alarm["priority"] == 1)
    })
    .await;
    plc.behave(|behaviour| behaviour.refuses_writes = false);
    plc.until_value(STOP, 3).await;
    edge.until("its end", |status| {
        shown(status, "output.failed").is_some_and(|alarm| alarm["is_active"] == false)
    })
    .await;
}
