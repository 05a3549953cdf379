//! Do derived readings reach the hub, and does a deadband leave out readings without losing any?

use std::collections::BTreeMap;

use protocol::{Reading, event::Event};

use crate::support::{
    edge::{Edge, count, head, source},
    hub::{Hub, Policy, Stored},
    plc::{Behaviour, Plc},
};

/// Every stored reading of a tag, by its name, in order of time.
fn readings(stored: &Stored, name: &str) -> Vec<Reading> {
    let mut found: Vec<Reading> = Vec::new();
    for frame in stored.frames.values() {
        let Some(dictionary) = stored.dictionaries.get(&frame.header.dictionary) else {
            continue;
        };
        let tag = dictionary.tags.iter().find(|tag| tag.name == name).unwrap();
        found.extend(frame.readings.iter().filter(|reading| reading.tag == tag.alias));
    }
    found.sort_by_key(|reading| reading.time_us);
    found
}

#[tokio::test]
async fn f16_a_counter_that_rolls_over_and_one_that_is_reset_never_count_backwards() {
    let hub = Hub::start(Policy::Store).await;
    let directory = tempfile::tempdir().unwrap();
    let plc = Plc::start(Behaviour {
        values: BTreeMap::from([(0, 65_535), (1, 7)]),
        ..Behaviour::default()
    })
    .await;
    let config = head(Some(hub.address))
        + &format!(
            "[[modbus]]\nname = \"plc\"\naddress = \"{}\"\n[[modbus.group]]\nperiod = \"100ms\"\n\
             [[modbus.group.tag]]\nname = \"PACKS\"\naddress = 0\ncounter = {{ max = 65535, total = \"TOTAL\" }}\n\
             [[modbus.group.tag]]\nname = \"QUIET\"\naddress = 1\nunit = \"degC\"\nraw_unit = \"K\"\n\
             deadband = {{ absolute = 0.5, report_every = \"1h\" }}\n\
             [[derived]]\nname = \"SUM\"\nkind = \"sum\"\ntags = [\"TOTAL\", \"QUIET\"]\n",
            plc.address
        );
    let edge = Edge::start(directory.path(), &config).await;
    let total = |stored: &Stored| readings(stored, "TOTAL").last().and_then(Reading::value);
    hub.until("the base", |stored| total(stored) == Some(0.0)).await;
    plc.behave(|behaviour| behaviour.values.extend([(0, 4)]));
    hub.until("the rollover", |stored| total(stored) == Some(5.0))
        .await;
    plc.behave(|behaviour| behaviour.values.extend([(0, 30_000)]));
    hub.until("a long count", |stored| total(stored) == Some(30_001.0))
        .await;
    plc.behave(|behaviour| behaviour.values.extend([(0, 3)]));
    hub.until("the reset", |stored| {
        total(stored) == Some(30_004.0)
            && stored.events().iter().any(
                |event| matches!(event, Event::Alarm(alarm) if alarm.code == "counter.reset" && !alarm.active),
            )
    })
    .await;
    edge.until("readings left out", |status| count(&status["suppressed"]) > 5)
        .await;
    assert_eq!(edge.status().await["sources"].as_array().unwrap().len(), 1);
    let status = edge.status().await;
    assert_eq!(count(&source(&status, "plc")["not_read"]), 0);
    assert_eq!(edge.stop().await, Some(0));
    let stored = hub.stored.lock().unwrap();
    let mut totals = readings(&stored, "TOTAL");
    totals.retain(|total| total.value().is_some());
    assert!(totals.windows(2).all(|pair| pair[0].value <= pair[1].value));
    // The first and the last value of the quiet tag, and nothing between them.
    let quiet = readings(&stored, "QUIET");
    assert!((1..=2).contains(&quiet.len()), "{quiet:?}");
    assert!((quiet[0].value - -266.15).abs() < 1e-9);
    // Computed from every total, whatever of its inputs travelled.
    assert!(readings(&stored, "SUM").len() + 2 >= totals.len());
}
