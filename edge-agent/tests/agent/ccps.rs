//! Are critical control points judged whatever the hub does, and does the record reach it in the end?

use std::collections::BTreeMap;

use protocol::{
    event::Event,
    limit::{Deviation, DeviationKind, Phase},
};

use crate::support::{
    edge::{Edge, ask, head},
    hub::{Hub, Policy, Stored},
    plc::{Behaviour, Plc},
};

const TT101: u16 = 0;
const TT102: u16 = 1;
const ZS106: u16 = 5;

/// The holding tube of line 1, polled fast so that the test need not last as long as the plant's.
fn config(hub: &Hub, plc: &Plc) -> String {
    let tag = |name: &str, address: u16, rest: &str| {
        format!("[[modbus.group.tag]]\nname = \"{name}\"\nline = \"L1\"\naddress = {address}\n{rest}\n")
    };
    head(Some(hub.address))
        + &format!(
            "[[modbus]]\nname = \"htst\"\naddress = \"{}\"\n[[modbus.group]]\nperiod = \"100ms\"\n",
            plc.address
        )
        + &tag("TT-101", TT101, "type = \"i16\"\nscale_digits = 2")
        + &tag("TT-102", TT102, "type = \"i16\"\nscale_digits = 2")
        + &tag("ZS-106", ZS106, "")
        + "[[ccp]]\ncode = \"CCP-1\"\ntag = \"TT-101\"\nlow = 72.0\nclear_margin = 0.2\ndelay = \"300ms\"\n\
           gap_max = \"1s\"\ncheck_every = \"1s\"\ngate = { tag = \"ZS-106\", value = 1.0 }\n\
           stuck = { reference = \"TT-102\", window = \"2s\", floor = 0.005 }\n"
}

async fn plant(hub: &Hub) -> (tempfile::TempDir, Plc, Edge) {
    let directory = tempfile::tempdir().unwrap();
    let plc = Plc::start(Behaviour {
        values: BTreeMap::from([(TT101, 7320), (TT102, 7310), (ZS106, 1)]),
        ..Behaviour::default()
    })
    .await;
    let edge = Edge::start(directory.path(), &config(hub, &plc)).await;
    (directory, plc, edge)
}

fn deviations(stored: &Stored) -> Vec<Deviation> {
    let events = stored.events().into_iter();
    events
        .filter_map(|event| match event {
            Event::Deviation(deviation) => Some(deviation),
            _ => None,
        })
        .collect()
}

fn has_alarm(stored: &Stored, code: &str, active: bool) -> bool {
    stored
        .events()
        .iter()
        .any(|event| matches!(event, Event::Alarm(alarm) if alarm.code == code && alarm.active == active))
}

fn state(status: &serde_json::Value) -> &str {
    status["ccps"][0]["state"].as_str().unwrap()
}

#[tokio::test]
async fn f2_a_dip_with_product_flowing_is_judged_with_the_hub_away_and_told_when_it_is_back() {
    let hub = Hub::start(Policy::RefuseConnection).await;
    let (directory, plc, edge) = plant(&hub).await;
    edge.until("control", |status| state(status) == "in_control")
        .await;
    plc.behave(|behaviour| behaviour.values.extend([(TT101, 7110)]));
    edge.until("the deviation", |status| state(status) == "deviation")
        .await;
    // Not even SIGKILL makes the agent forget, or open it twice.
    edge.kill();
    let edge = Edge::start(directory.path(), &config(&hub, &plc)).await;
    plc.behave(|behaviour| behaviour.values.extend([(TT101, 7320)]));
    edge.until("control again", |status| state(status) == "in_control")
        .await;
    hub.set_policy(Policy::Store);
    hub.until("the whole deviation", |stored| {
        deviations(stored)
            .iter()
            .any(|deviation| deviation.phase == Phase::Closed)
    })
    .await;
    {
        let stored = hub.stored.lock().unwrap();
        let found = deviations(&stored);
        let opened: Vec<&Deviation> = found
            .iter()
            .filter(|deviation| deviation.phase == Phase::Opened)
            .collect();
        assert_eq!(opened.len(), 1, "{found:?}");
        assert_eq!(
            (opened[0].kind, opened[0].value_extreme),
            (DeviationKind::Limit, Some(71.1))
        );
        assert!(found.iter().all(|deviation| deviation.id == opened[0].id));
    }
    assert_eq!(edge.stop().await, Some(0));
    let data_dir = directory.path().join("data");
    let (code, text) = ask(&["spool", "verify", "--json"], &data_dir);
    assert_eq!(code, Some(0), "{text}");
}

#[tokio::test]
async fn f1_a_dip_with_the_product_diverted_is_an_alarm_and_no_deviation() {
    let hub = Hub::start(Policy::Store).await;
    let (_directory, plc, edge) = plant(&hub).await;
    edge.until("control", |status| state(status) == "in_control")
        .await;
    plc.behave(|behaviour| {
        behaviour.values.extend([(TT101, 7110), (ZS106, 0)]);
    });
    hub.until("the alarm", |stored| has_alarm(stored, "ccp.diverted", true))
        .await;
    plc.behave(|behaviour| {
        behaviour.values.extend([(TT101, 7320), (ZS106, 1)]);
    });
    hub.until("its end", |stored| has_alarm(stored, "ccp.diverted", false))
        .await;
    assert_eq!(deviations(&hub.stored.lock().unwrap()), []);
}

#[tokio::test]
async fn f4_a_frozen_sensor_beside_a_moving_one_is_alarmed_and_counts_as_not_monitored() {
    let hub = Hub::start(Policy::Store).await;
    let (_directory, plc, _edge) = plant(&hub).await;
    // The reference moves with every look at the requests; TT-101 stays at 73.20.
    let moving = async {
        for step in 0u16.. {
            plc.behave(|behaviour| behaviour.values.extend([(TT102, 7310 + step % 20)]));
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    let found = hub.until("the alarm and the deviation", |stored| {
        has_alarm(stored, "sensor.stuck", true)
            && deviations(stored)
                .iter()
                .any(|deviation| deviation.kind == DeviationKind::SensorStuck)
    });
    tokio::select! {
        () = moving => {}
        () = found => {}
    }
}

#[tokio::test]
async fn a_dead_plc_is_a_monitoring_gap() {
    let hub = Hub::start(Policy::Store).await;
    let (_directory, plc, edge) = plant(&hub).await;
    edge.until("control", |status| state(status) == "in_control")
        .await;
    plc.behave(|behaviour| behaviour.is_silent = true);
    hub.until("the gap", |stored| {
        deviations(stored)
            .iter()
            .any(|deviation| deviation.kind == DeviationKind::MonitoringGap)
    })
    .await;
}
