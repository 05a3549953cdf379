//! Does a changed configuration touch only what changed, while the agent runs?

use std::collections::BTreeMap;

use protocol::{Reading, event::Event};

use crate::support::{
    edge::{Edge, count, device, head, log_of, source},
    hub::{Hub, Policy, Stored},
    plc::{Behaviour, Plc},
};

/// Ten groups of a thousand registers; the tag at address 4,321 is divided by ten when `is_scaled`.
fn ten_thousand(plc: &Plc, is_scaled: bool) -> String {
    let group = |number: u16| {
        let tags = (number * 1000..(number + 1) * 1000).map(|address| {
            let scale = if is_scaled && address == 4_321 {
                "scale_digits = 1\n"
            } else {
                ""
            };
            format!("[[modbus.group.tag]]\nname = \"R-{address}\"\naddress = {address}\n{scale}")
        });
        format!("[[modbus.group]]\nperiod = \"1s\"\n{}", tags.collect::<String>())
    };
    let groups: String = (0..10).map(group).collect();
    format!(
        "[[modbus]]\nname = \"plc\"\naddress = \"{}\"\nblock_registers_max = 125\n{groups}",
        plc.address
    )
}

/// The values of a tag, in order of identity.
fn values(stored: &Stored, tag: &str) -> Vec<f64> {
    stored.of(tag).filter_map(Reading::value).collect()
}

#[tokio::test]
async fn t33_a_tag_that_changes_among_ten_thousand_costs_the_others_no_poll() {
    let directory = tempfile::tempdir().unwrap();
    let plc = Plc::start(Behaviour::default()).await;
    let hub = Hub::start(Policy::Store).await;
    let before = head(Some(hub.address)) + &ten_thousand(&plc, false);
    let edge = Edge::start(directory.path(), &before).await;
    hub.until("two rounds", |stored| stored.readings() >= 20_000)
        .await;
    let dictionaries = hub.stored.lock().unwrap().dictionaries.len();
    edge.reload(&(head(Some(hub.address)) + &ten_thousand(&plc, true)));
    hub.until("the new scale", |stored| {
        values(stored, "R-4321")
            .last()
            .is_some_and(|value| (value - 532.1).abs() < 1e-9)
    })
    .await;
    let seen = hub.stored.lock().unwrap().readings();
    hub.until("two rounds more", |stored| stored.readings() >= seen + 20_000)
        .await;
    let status = edge.status().await;
    let plc_status = source(&status, "plc");
    assert_eq!(plc_status["not_read"], 0, "{plc_status}");
    assert_eq!(plc_status["bad"], 0, "{plc_status}");
    // Every group was asked as often as every other, the one that changed included, to within the round under way.
    let mut asked: BTreeMap<u16, usize> = BTreeMap::new();
    for (address, _) in plc.requests() {
        *asked.entry(address).or_default() += 1;
    }
    let (least, most) = (asked.values().min().unwrap(), asked.values().max().unwrap());
    assert!(most - least <= 1, "{asked:?}");
    let stored = hub.stored.lock().unwrap();
    assert_eq!(
        stored.dictionaries.len(),
        dictionaries,
        "a scale is no word of the dictionary"
    );
    assert_eq!(values(&stored, "R-4321").first(), Some(&5321.0));
    assert!(
        values(&stored, "R-9999")
            .iter()
            .all(|value| (value - 10_999.0).abs() < 1e-9)
    );
}

#[tokio::test]
async fn a_device_that_is_added_and_one_that_is_removed_leave_the_others_alone() {
    let directory = tempfile::tempdir().unwrap();
    let (one, two, three) = (
        Plc::start(Behaviour::default()).await,
        Plc::start(Behaviour::default()).await,
        Plc::start(Behaviour::default()).await,
    );
    let hub = Hub::start(Policy::Store).await;
    let of = |name: &str, plc: &Plc| device(name, plc.address, "100ms", "800ms", &[0, 1]);
    let start = head(Some(hub.address));
    let edge = Edge::start(
        directory.path(),
        &(start.clone() + &of("one", &one) + &of("two", &two)),
    )
    .await;
    hub.until("both", |stored| values(stored, "two-1").len() > 2)
        .await;
    edge.reload(&(start + &of("two", &two) + &of("three", &three)));
    hub.until("the third", |stored| values(stored, "three-1").len() > 5)
        .await;
    let status = edge.status().await;
    let names: Vec<&str> = status["sources"]
        .as_array()
        .unwrap()
        .iter()
        .map(|source| source["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["two", "three"]);
    let asked = one.requests().len();
    hub.until("time passes", |stored| values(stored, "three-1").len() > 12)
        .await;
    assert_eq!(one.requests().len(), asked, "a removed device is asked no more");
    assert_eq!(count(&source(&edge.status().await, "two")["not_read"]), 0);
    // Every value stands under its own tag, also across the change of dictionaries.
    let stored = hub.stored.lock().unwrap();
    for (tag, value) in [
        ("one-1", 1001.0),
        ("two-1", 1001.0),
        ("two-0", 1000.0),
        ("three-0", 1000.0),
    ] {
        assert!(
            values(&stored, tag)
                .iter()
                .all(|found| (found - value).abs() < 1e-9),
            "{tag}"
        );
    }
    let lost = stored.events().iter().any(|event| matches!(event, Event::Gap(_)));
    assert!(!lost);
}

#[tokio::test]
async fn a_faulty_or_unsafe_change_changes_nothing_and_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let plc = Plc::start(Behaviour::default()).await;
    let hub = Hub::start(Policy::Store).await;
    let good = head(Some(hub.address)) + &device("plc", plc.address, "100ms", "800ms", &[0]);
    let edge = Edge::start(directory.path(), &good).await;
    hub.until("readings", |stored| stored.readings() > 3).await;
    for (change, said) in [
        (good.replace("period", "perriod"), "unknown key"),
        (good.replace("akron-1", "akron-2"), "cannot change while it runs"),
    ] {
        edge.reload(&change);
        edge.until("the refusal", |_| log_of(directory.path()).contains(said))
            .await;
    }
    let seen = hub.stored.lock().unwrap().readings();
    hub.until("more readings", |stored| stored.readings() > seen + 5)
        .await;
    assert_eq!(source(&edge.status().await, "plc")["not_read"], 0);
}

#[tokio::test]
async fn a_unit_that_changes_starts_the_parts_anew_and_labels_no_reading_wrongly() {
    let directory = tempfile::tempdir().unwrap();
    let plc = Plc::start(Behaviour::default()).await;
    let hub = Hub::start(Policy::Store).await;
    let before = head(Some(hub.address)) + &device("plc", plc.address, "100ms", "800ms", &[0]);
    let edge = Edge::start(directory.path(), &before).await;
    hub.until("readings", |stored| stored.readings() > 3).await;
    edge.reload(&before.replace("address = 0", "address = 0\nunit = \"degF\""));
    let units = |stored: &Stored| {
        let frames = stored.frames.values().filter(|frame| !frame.readings.is_empty());
        let units = frames.map(|frame| {
            let dictionary = &stored.dictionaries[&frame.header.dictionary];
            (
                frame.header.id.boot,
                dictionary.tag(frame.readings[0].tag).unwrap().unit.clone(),
            )
        });
        units.collect::<std::collections::BTreeSet<_>>()
    };
    hub.until("the new unit", |stored| units(stored).len() == 2).await;
    let stored = hub.stored.lock().unwrap();
    let boots: std::collections::BTreeSet<_> = units(&stored).into_iter().map(|(boot, _)| boot).collect();
    assert_eq!(boots.len(), 2, "each boot has one unit for the tag");
}
