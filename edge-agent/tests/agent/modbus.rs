//! Does a Modbus source hold its ground against a device that is late, wrong, short, picky or slow?

use std::time::Duration;

use protocol::Quality;

use crate::support::{
    acquisition::Acquisition,
    edge::{device, head},
    plc::{Behaviour, Garble, Plc},
};

const GARBLES: [(Garble, Quality); 7] = [
    (Garble::WrongTransaction, Quality::BAD_COMMUNICATION),
    (Garble::WrongUnit, Quality::BAD_COMMUNICATION),
    (Garble::WrongFunction, Quality::BAD_COMMUNICATION),
    (Garble::TooShort, Quality::BAD_COMMUNICATION),
    (Garble::TooLong, Quality::BAD_COMMUNICATION),
    (Garble::CutOff, Quality::BAD_TIMEOUT),
    // Its header promises 42,405 bytes.
    (Garble::Noise, Quality::BAD_TIMEOUT),
];

fn good(value: f64) -> (Option<f64>, Quality) {
    (Some(value), Quality::GOOD)
}

/// Polls these addresses of a device.
fn polled(plc: &Plc, period: &str, timeout: &str, addresses: &[u16]) -> Acquisition {
    Acquisition::start(&(head(None) + &device("plc", plc.address, period, timeout, addresses)))
}

/// A device with the given lines, whose one group has the given tags.
fn with(plc: &Plc, quirks: &str, tags: &[(&str, &str)]) -> String {
    let tags: Vec<String> = tags
        .iter()
        .map(|(name, text)| format!("[[modbus.group.tag]]\nname = \"{name}\"\n{text}\n"))
        .collect();
    let address = plc.address;
    head(None)
        + &format!(
            "[[modbus]]\nname = \"plc\"\naddress = \"{address}\"\n{quirks}\n[[modbus.group]]\nperiod = \"100ms\"\n"
        )
        + &tags.concat()
}

#[tokio::test]
async fn t12_after_a_late_reply_the_next_poll_is_good_and_is_never_answered_by_it() {
    let plc = Plc::start(Behaviour {
        counts: true,
        ..Behaviour::default()
    })
    .await;
    let mut source = polled(&plc, "400ms", "200ms", &[0]);
    for _ in 0..3 {
        let seen = source.of("plc-0").len();
        source
            .until("a good reading", |source| source.of("plc-0").len() > seen)
            .await;
        let (asked, seen) = (plc.asked().len(), source.of("plc-0").len());
        plc.behave(|behaviour| behaviour.delay = Duration::from_millis(300));
        plc.until_asked(asked).await;
        // Only the request that is under way is answered late.
        plc.behave(|behaviour| behaviour.delay = Duration::ZERO);
        source.until_count("plc-0", seen + 3).await;
        let readings = source.of("plc-0");
        assert_eq!(readings[seen], (None, Quality::BAD_TIMEOUT));
        assert!(
            readings[seen + 1].0.is_some(),
            "made anew within one cycle: {readings:?}"
        );
    }
    let numbers: Vec<f64> = source
        .of("plc-0")
        .into_iter()
        .filter_map(|(value, _)| value)
        .collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
    assert_eq!(plc.connections(), 4, "one more for each late reply");
}

#[tokio::test]
async fn t13_a_reply_that_is_not_what_was_asked_for_is_bad_and_never_a_value() {
    let plc = Plc::start(Behaviour::default()).await;
    let mut source = polled(&plc, "100ms", "100ms", &[0, 1, 2]);
    for (garble, expected) in GARBLES {
        source.until_last("plc-2", good(1002.0)).await;
        plc.behave(|behaviour| behaviour.garble = Some(garble));
        source.until_last("plc-2", (None, expected)).await;
        plc.behave(|behaviour| behaviour.garble = None);
    }
    for (address, value) in [(0, 1000.0), (1, 1001.0), (2, 1002.0)] {
        for reading in source.of(&format!("plc-{address}")) {
            assert!(reading == good(value) || reading.1.is_bad(), "{reading:?}");
        }
    }
}

#[tokio::test]
async fn t13_a_refusal_is_bad_and_the_last_good_value_is_not_stamped_anew() {
    let plc = Plc::start(Behaviour::default()).await;
    let mut source = polled(&plc, "100ms", "500ms", &[0]);
    for (code, expected) in [
        (6, Quality::BAD_DEVICE_FAILURE),
        (2, Quality::BAD_ADDRESS),
        (11, Quality::BAD_NOT_CONNECTED),
    ] {
        source.until_last("plc-0", good(1000.0)).await;
        plc.behave(|behaviour| behaviour.exception = Some(code));
        source.until_last("plc-0", (None, expected)).await;
        let seen = source.of("plc-0").len();
        source.until_count("plc-0", seen + 3).await;
        let later = &source.of("plc-0")[seen..];
        assert!(
            later.iter().all(|reading| *reading == (None, expected)),
            "{later:?}"
        );
        plc.behave(|behaviour| behaviour.exception = None);
    }
}

#[tokio::test]
async fn a_device_that_hangs_up_after_each_reply_costs_no_reading() {
    let plc = Plc::start(Behaviour {
        hangs_up: true,
        ..Behaviour::default()
    })
    .await;
    let mut source = polled(&plc, "50ms", "500ms", &[0]);
    source.until_count("plc-0", 10).await;
    assert!(source.of("plc-0").iter().all(|reading| *reading == good(1000.0)));
}

#[tokio::test]
async fn t15_an_illegal_register_recovers_when_it_appears_and_its_neighbours_never_suffer() {
    let plc = Plc::start(Behaviour {
        illegal: [5].into(),
        ..Behaviour::default()
    })
    .await;
    let addresses: Vec<u16> = (0..10).collect();
    let mut source = polled(&plc, "100ms", "500ms", &addresses);
    source.until_count("plc-5", 5).await;
    assert!(
        source
            .of("plc-5")
            .iter()
            .all(|reading| *reading == (None, Quality::BAD_ADDRESS))
    );
    plc.behave(|behaviour| behaviour.illegal.clear());
    source.until_last("plc-5", good(1005.0)).await;
    for address in addresses.into_iter().filter(|address| *address != 5) {
        let readings = source.of(&format!("plc-{address}"));
        assert!(
            readings
                .iter()
                .all(|reading| *reading == good(1000.0 + f64::from(address)))
        );
    }
}

#[tokio::test]
async fn t15_a_hole_that_does_not_exist_costs_no_tag() {
    let plc = Plc::start(Behaviour {
        illegal: [3].into(),
        ..Behaviour::default()
    })
    .await;
    let mut source = polled(&plc, "100ms", "500ms", &[0, 5]);
    source.until_count("plc-5", 3).await;
    assert!(source.of("plc-0").iter().all(|reading| *reading == good(1000.0)));
    assert!(source.of("plc-5").iter().all(|reading| *reading == good(1005.0)));
    assert_eq!(plc.requests()[..5], [(0, 6), (0, 1), (5, 1), (0, 1), (5, 1)]);
}

#[tokio::test]
async fn t16_a_device_that_takes_less_than_it_was_said_to_is_asked_for_less() {
    for code in [2, 3] {
        let plc = Plc::start(Behaviour {
            count_max: Some((4, code)),
            ..Behaviour::default()
        })
        .await;
        let addresses: Vec<u16> = (0..20).collect();
        let text = head(None) + &device("plc", plc.address, "100ms", "500ms", &addresses);
        let mut source = Acquisition::start(&text);
        source.until_count("plc-19", 3).await;
        for address in addresses {
            let readings = source.of(&format!("plc-{address}"));
            assert!(
                readings
                    .iter()
                    .all(|reading| *reading == good(1000.0 + f64::from(address)))
            );
        }
    }
}

#[tokio::test]
async fn t16_every_table_bits_texts_decimals_and_the_last_register_arrive() {
    let words = [0x5255, 0x4E21, 0x1234, 0x8000];
    let mut values: std::collections::BTreeMap<u16, u16> = (10..).zip(words).collect();
    values.extend([(20, 0), (21, 1), (65_535, 0xFE07)]);
    let plc = Plc::start(Behaviour {
        values,
        ..Behaviour::default()
    })
    .await;
    let cases = [
        (
            "TEXT",
            "address = 10\ntype = \"string\"\nlength = 3\nmap = { RUN = 1, STOP = 0 }",
            good(1.0),
        ),
        (
            "STRANGE",
            "address = 10\ntype = \"string\"\nlength = 4\nmap = { RUN = 1 }",
            (None, Quality::BAD_TYPE),
        ),
        (
            "BCD",
            "address = 12\ntype = \"bcd16\"\nscale_digits = 1",
            good(123.4),
        ),
        (
            "SENTINEL",
            "address = 13\ntype = \"i16\"\nbad_values = [-32768]",
            (None, Quality::BAD_SENSOR_FAILURE),
        ),
        ("BIT", "address = 13\nbit = 15", good(1.0)),
        ("OFF", "address = 13\nbit = 14", good(0.0)),
        ("COIL", "address = 21\nkind = \"coil\"", good(1.0)),
        ("DISCRETE", "address = 20\nkind = \"discrete\"", good(0.0)),
        ("INPUT", "address = 3\nkind = \"input\"", good(1003.0)),
        ("LAST", "address = 65535", good(f64::from(0xFE07))),
        ("HIGH", "address = 65535\ntype = \"i8_high\"", good(-2.0)),
    ];
    let tags: Vec<(&str, &str)> = cases.iter().map(|(name, text, _)| (*name, *text)).collect();
    let mut source = Acquisition::start(&with(&plc, "", &tags));
    source.until_count("HIGH", 2).await;
    for (name, _, expected) in cases {
        let readings = source.of(name);
        assert!(
            readings.iter().all(|reading| *reading == expected),
            "{name}: {readings:?}"
        );
    }
}

#[tokio::test]
async fn t16_the_protocol_s_longest_requests_are_made_when_the_device_takes_them() {
    let plc = Plc::start(Behaviour::default()).await;
    let quirks = "block_registers_max = 125\nblock_bits_max = 2000\nhole_registers_max = 124";
    let tags = [
        ("FIRST", "address = 0"),
        ("LAST", "address = 124"),
        ("COIL-0", "address = 0\nkind = \"coil\""),
        ("COIL-1000", "address = 1000\nkind = \"coil\""),
        ("COIL-1999", "address = 1999\nkind = \"coil\""),
    ];
    let mut source = Acquisition::start(&with(&plc, quirks, &tags));
    source.until_count("COIL-1999", 2).await;
    let mut asked = plc.requests();
    asked.sort_unstable();
    asked.dedup();
    assert_eq!(asked, [(0, 125), (0, 2000)]);
    assert_eq!(source.of("LAST")[0], good(1124.0));
}

#[tokio::test]
async fn t17_a_device_slower_than_its_period_is_an_overrun_and_no_queue_grows() {
    let plc = Plc::start(Behaviour {
        delay: Duration::from_millis(150),
        ..Behaviour::default()
    })
    .await;
    let mut source = polled(&plc, "100ms", "2s", &[0]);
    source
        .until("overruns", |source| {
            source.not_read.len() >= 5 && source.of("plc-0").len() >= 10
        })
        .await;
    assert!(
        source
            .not_read
            .iter()
            .all(|record| record.reason == "overrun" && record.due >= 1)
    );
    assert!(source.of("plc-0").iter().all(|reading| *reading == good(1000.0)));
    let waiting = plc.asked().len() - source.of("plc-0").len();
    assert!(waiting <= 2, "one request is under way, not {waiting}");
}

#[tokio::test]
async fn a_device_that_needs_a_pause_gets_it_before_every_request() {
    const PAUSE: Duration = Duration::from_millis(20);
    let plc = Plc::start(Behaviour::default()).await;
    let quirks = "pause_between_requests = \"20ms\"\nsingle_requests = true";
    let tags = [("A", "address = 0"), ("B", "address = 1"), ("C", "address = 2")];
    let mut source = Acquisition::start(&with(&plc, quirks, &tags));
    source.until_count("C", 5).await;
    let asked = plc.asked();
    assert!(asked.iter().all(|asked| asked.count == 1), "single requests");
    assert!(asked.windows(2).all(|pair| pair[1].at - pair[0].at >= PAUSE));
}

#[tokio::test]
async fn t33_a_changed_tag_is_followed_and_the_other_group_misses_no_poll() {
    let plc = Plc::start(Behaviour::default()).await;
    let text = with(&plc, "", &[("STAYS", "address = 0")])
        + "[[modbus.group]]\nperiod = \"100ms\"\n[[modbus.group.tag]]\nname = \"MOVES\"\naddress = 7\n";
    let mut source = Acquisition::start(&text);
    for address in 100..110u16 {
        source.devices[0].send_modify(|device| device.groups[1].tags[0].place.address = address);
        let expected = good(1000.0 + f64::from(address));
        source.until_last("MOVES", expected).await;
    }
    let stays = &source.config.dictionary.tags[0];
    let times: Vec<i64> = source
        .readings
        .iter()
        .filter(|reading| reading.tag == stays.alias)
        .map(|reading| reading.time_us)
        .collect();
    let periods = (times[times.len() - 1] - times[0]) as f64 / 100_000.0;
    let missed: u32 = source.not_read.iter().map(|record| record.due).sum();
    let taken = times.len() as f64 - 1.0 + f64::from(missed);
    assert!((periods - taken).abs() < 1.0, "{periods} periods, {taken} polls");
    assert!(source.of("STAYS").iter().all(|reading| *reading == good(1000.0)));
    assert_eq!(plc.connections(), 1);
}

#[tokio::test]
async fn t33_a_device_that_moves_to_another_address_is_followed() {
    let (before, after) = (
        Plc::start(Behaviour::default()).await,
        Plc::start(Behaviour::default()).await,
    );
    after.behave(|behaviour| behaviour.values = [(0, 42)].into());
    let mut source =
        Acquisition::start(&(head(None) + &device("plc", before.address, "50ms", "500ms", &[0])));
    source
        .until("readings", |source| !source.of("plc-0").is_empty())
        .await;
    let other = device("plc", after.address, "50ms", "500ms", &[0]);
    let other = edge_agent::config::parse(&(head(None) + &other))
        .unwrap()
        .modbus
        .remove(0);
    source.devices[0].send_replace(other);
    source.until_last("plc-0", good(42.0)).await;
}
