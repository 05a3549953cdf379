//! What do dead devices cost the living? Units behind one gateway, and forty-nine of fifty PLCs.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use protocol::Quality;

use crate::support::{
    acquisition::Acquisition,
    edge::{device, head},
    jitter::Jitter,
    plc::{Behaviour, Plc, dead_ones},
};

const PERIOD: Duration = Duration::from_millis(200);
/// Units or devices that never answer are given up for one request after this.
const LIMIT: &str = "100ms";

fn unit(number: u8, gateway: SocketAddr, period: &str) -> String {
    device(&format!("unit{number}"), gateway, period, LIMIT, &[0])
        .replace("timeout =", &format!("unit_id = {number}\ntimeout ="))
}

#[tokio::test]
async fn t14_a_dead_unit_behind_a_gateway_is_suspended_and_its_neighbours_lose_nothing() {
    let gateway = Plc::start(Behaviour {
        silent_units: [2].into(),
        ..Behaviour::default()
    })
    .await;
    let units: Vec<String> = (1..=3)
        .map(|number| unit(number, gateway.address, "500ms"))
        .collect();
    let mut source = Acquisition::start(&(head(None) + &units.concat()));
    source
        .until("readings", |source| {
            source.of("unit1-0").len() >= 12 && source.of("unit2-0").len() >= 8
        })
        .await;
    for living in ["unit1-0", "unit3-0"] {
        assert!(
            source
                .of(living)
                .iter()
                .all(|reading| *reading == (Some(1000.0), Quality::GOOD))
        );
    }
    let dead = source.of("unit2-0");
    assert!(
        dead.iter()
            .all(|reading| *reading == (None, Quality::BAD_TIMEOUT)),
        "{dead:?}"
    );
    let asked = gateway.asked();
    let probes = asked.iter().filter(|asked| asked.unit == 2).count();
    assert!(
        probes < dead.len(),
        "{probes} requests for {} readings",
        dead.len()
    );
    let connections = gateway.connections();
    assert!(
        connections <= probes + 1,
        "{connections} connections, {probes} timeouts: one is shared"
    );
    gateway.behave(|behaviour| behaviour.silent_units.clear());
    source.until_last("unit2-0", (Some(1000.0), Quality::GOOD)).await;
}

#[tokio::test]
async fn t14_a_unit_that_its_gateway_calls_dead_is_suspended_on_the_same_connection() {
    let gateway = Plc::start(Behaviour {
        exception: Some(11),
        ..Behaviour::default()
    })
    .await;
    let mut source = Acquisition::start(&(head(None) + &unit(1, gateway.address, "50ms")));
    source.until_count("unit1-0", 20).await;
    assert!(
        source
            .of("unit1-0")
            .iter()
            .all(|reading| *reading == (None, Quality::BAD_NOT_CONNECTED))
    );
    assert!(gateway.asked().len() < 10, "probed, not polled");
    assert_eq!(gateway.connections(), 1);
}

#[tokio::test]
async fn devices_with_connections_of_their_own_do_not_wait_for_each_other() {
    let gateway = Plc::start(Behaviour::default()).await;
    let units: Vec<String> = (1..=2)
        .map(|number| unit(number, gateway.address, "100ms"))
        .collect();
    let text = units
        .concat()
        .replace("timeout =", "own_connection = true\ntimeout =");
    let mut source = Acquisition::start(&(head(None) + &text));
    source
        .until("readings", |source| {
            source.of("unit1-0").len() >= 2 && source.of("unit2-0").len() >= 2
        })
        .await;
    assert_eq!(gateway.connections(), 2);
}

#[tokio::test]
async fn t14_with_49_of_50_plcs_dead_good_and_bad_and_not_read_are_what_was_due() {
    let living = Plc::start(Behaviour::default()).await;
    let (_black_holes, addresses) = dead_ones().await;
    let mut text = head(None) + &device("plc0", living.address, "200ms", LIMIT, &[0]);
    for (index, address) in (1..).zip(&addresses) {
        text += &device(&format!("plc{index}"), *address, "200ms", LIMIT, &[0]);
    }
    let mut source = Acquisition::start(&text);
    source.during(PERIOD * 40).await;
    assert_eq!(source.config.modbus.len(), 50);
    let jitter = Jitter::of(&living.asked(), PERIOD);
    println!(
        "poll jitter of the living PLC over {} polls:\n{jitter}",
        jitter.polls()
    );
    let due = check_due(&source);
    println!("due and accounted for, by PLC: {due:?}");
    assert!(
        source
            .of("plc0-0")
            .iter()
            .all(|reading| *reading == (Some(1000.0), Quality::GOOD))
    );
    for index in 1..50 {
        let readings = source.of(&format!("plc{index}-0"));
        assert!(!readings.is_empty() && readings.iter().all(|(_, quality)| quality.is_bad()));
    }
}

/// The polls due between a tag's first and last record, by the clock, are those that were recorded.
fn check_due(source: &Acquisition) -> BTreeMap<u32, u32> {
    let mut out = BTreeMap::new();
    for tag in &source.config.dictionary.tags {
        let times: Vec<i64> = source
            .readings
            .iter()
            .filter(|reading| reading.tag == tag.alias)
            .map(|reading| reading.time_us)
            .collect();
        let (first, last) = (times[0], times[times.len() - 1]);
        let missed = source
            .not_read
            .iter()
            .filter(|record| record.tags == [tag.alias] && record.to_us <= last);
        let recorded = times.len() as u32 + missed.map(|record| record.due).sum::<u32>();
        let periods = (last - first) as f64 / PERIOD.as_micros() as f64;
        let beyond = periods - f64::from(recorded - 1);
        assert!(
            (-0.5..1.0).contains(&beyond),
            "{}: {recorded} records for {periods} periods",
            tag.name
        );
        out.insert(tag.alias.0, recorded);
    }
    out
}
