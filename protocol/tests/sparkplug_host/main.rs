//! Does the host keep to the Sparkplug specification 3.0? Each test is named after the assertion it shows, or after the
//! case of T30 that goes beyond it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;
use protocol::{
    Quality, Reading,
    integrator::{Code, Item, Value},
    reading::Alias,
    sparkplug::{
        HostState, Outgoing, decode,
        edge_node::{EdgeNode, MetricPlan},
        host::{Effect, Host, HostSelf, Kind, METRICS_MAX, Patience, Place, rebirth},
    },
};
use srad_types::payload::{DataType, Metric, Payload, metric};

mod order;
mod types;

const NOW_US: i64 = 1_795_168_800_000_000;
const NBIRTH: &str = "spBv1.0/akron/NBIRTH/n1";
const NDATA: &str = "spBv1.0/akron/NDATA/n1";
const NDEATH: &str = "spBv1.0/akron/NDEATH/n1";
const DBIRTH: &str = "spBv1.0/akron/DBIRTH/n1/htst";
const DDATA: &str = "spBv1.0/akron/DDATA/n1/htst";
const DDEATH: &str = "spBv1.0/akron/DDEATH/n1/htst";

fn host() -> Host {
    Host::new(Patience::default())
}

fn named(name: &str, alias: Option<u64>, value: f64) -> Metric {
    let mut metric = Metric::new();
    metric
        .set_name(name.to_owned())
        .set_datatype(DataType::Double)
        .set_value(metric::Value::DoubleValue(value));
    metric.alias = alias;
    metric
}

fn by_alias(alias: u64, value: f64) -> Metric {
    let mut metric = Metric::new();
    metric
        .set_alias(alias)
        .set_value(metric::Value::DoubleValue(value));
    metric
}

fn bd_seq(number: u64) -> Metric {
    let mut metric = Metric::new();
    metric
        .set_name("bdSeq".to_owned())
        .set_datatype(DataType::Int64)
        .set_value(metric::Value::LongValue(number));
    metric
}

fn bytes(seq: Option<u64>, metrics: Vec<Metric>) -> Vec<u8> {
    let timestamp = Some(u64::try_from(NOW_US / 1_000).unwrap());
    Payload {
        timestamp,
        seq,
        metrics,
        ..Payload::default()
    }
    .into()
}

/// Name and value of every reading, in order.
fn values(effects: &[Effect]) -> Vec<(String, Option<f64>)> {
    let items = effects.iter().flat_map(|effect| match effect {
        Effect::Readings { items, .. } => items.clone(),
        _ => Vec::new(),
    });
    items.map(|item| (item.name, item.value.number())).collect()
}

fn items(effects: &[Effect]) -> Vec<Item> {
    let all = effects.iter().flat_map(|effect| match effect {
        Effect::Readings { items, .. } => items.clone(),
        _ => Vec::new(),
    });
    all.collect()
}

fn stale(effects: &[Effect]) -> Vec<(String, Vec<String>)> {
    let gone = effects.iter().filter_map(|effect| match effect {
        Effect::Stale { path, metrics, .. } => Some((path.clone(), metrics.clone())),
        _ => None,
    });
    gone.collect()
}

fn asked(effects: &[Effect]) -> Vec<&Outgoing> {
    let asked = effects.iter().filter_map(|effect| match effect {
        Effect::Ask(outgoing) => Some(outgoing),
        _ => None,
    });
    asked.collect()
}

fn codes(effects: &[Effect]) -> Vec<Code> {
    let refused = effects.iter().filter_map(|effect| match effect {
        Effect::Refused(refused) => Some(refused.code),
        _ => None,
    });
    refused.collect()
}

/// A host that heard a node with `t` (alias 1) and its device with `p` (alias 2); the next number is 2.
fn born() -> Host {
    let mut host = host();
    let born = host.hear(
        NBIRTH,
        &bytes(Some(0), vec![bd_seq(7), named("t", Some(1), 4.0)]),
        NOW_US,
    );
    assert_eq!(values(&born), [("t".to_owned(), Some(4.0))]);
    let born = host.hear(DBIRTH, &bytes(Some(1), vec![named("p", Some(2), 1.5)]), NOW_US);
    assert_eq!(values(&born), [("p".to_owned(), Some(1.5))]);
    host
}

#[test]
fn tck_id_topic_structure_namespace_a_and_its_parts() {
    let place = Place::parse(DDATA).unwrap();
    assert_eq!(
        (place.kind, place.path().as_str()),
        (Kind::DeviceData, "akron/n1/htst")
    );
    for strange in [
        "",
        "spAv1.0/akron/NDATA/n1",
        "spBv1.0/akron/NDATA",
        "spBv1.0/akron/NDATA/n1/d",
        "spBv1.0/akron/DDATA/n1",
        "spBv1.0/akron/DDATA/n1/d/x",
        "spBv1.0//NDATA/n1",
        "spBv1.0/akron/NDATA/+",
        "spBv1.0/STATE/foodflow",
        "spBv1.0/akron/XDATA/n1",
    ] {
        assert_eq!(Place::parse(strange), None, "{strange}");
    }
}

#[test]
fn tck_id_topics_nbirth_metrics_and_payloads_nbirth_bdseq_are_understood() {
    let host = born();
    assert_eq!(host.is_online("akron", "n1", None), Some(true));
    assert_eq!(host.is_online("akron", "n1", Some("htst")), Some(true));
    assert_eq!(host.is_online("akron", "n1", Some("never")), None);
    assert_eq!(host.is_online("akron", "n2", None), None);
}

#[test]
fn tck_id_payloads_alias_data_cmd_requirement_data_by_alias_has_the_births_name() {
    let mut host = born();
    let read = host.hear(NDATA, &bytes(Some(2), vec![by_alias(1, 4.5)]), NOW_US);
    assert_eq!(values(&read), [("t".to_owned(), Some(4.5))]);
    let read = host.hear(DDATA, &bytes(Some(3), vec![by_alias(2, 1.6)]), NOW_US);
    assert_eq!(values(&read), [("p".to_owned(), Some(1.6))]);
    assert_eq!(items(&read)[0].device.as_deref(), Some("akron/n1/htst"));
}

#[test]
fn tck_id_payloads_alias_uniqueness_one_alias_for_two_metrics_is_no_birth() {
    let mut host = host();
    let twice = bytes(
        Some(0),
        vec![bd_seq(1), named("a", Some(1), 1.0), named("b", Some(1), 2.0)],
    );
    let effects = host.hear(NBIRTH, &twice, NOW_US);
    assert_eq!(codes(&effects), [Code::DuplicateAlias]);
    assert!(values(&effects).is_empty());
    assert_eq!(host.is_online("akron", "n1", None), Some(false));
    let mut host = born();
    let over_devices = bytes(Some(2), vec![named("q", Some(2), 1.0)]);
    let effects = host.hear("spBv1.0/akron/DBIRTH/n1/other", &over_devices, NOW_US);
    assert_eq!(
        codes(&effects),
        [Code::DuplicateAlias],
        "unique over all devices of a node"
    );
}

#[test]
fn tck_id_payloads_name_birth_data_requirement_a_metric_that_no_birth_names_is_asked_for() {
    let mut host = born();
    let effects = host.hear(
        NDATA,
        &bytes(Some(2), vec![named("new", None, 1.0), by_alias(1, 2.0)]),
        NOW_US,
    );
    assert_eq!(codes(&effects), [Code::UnknownMetric]);
    assert_eq!(
        values(&effects),
        [("t".to_owned(), Some(2.0))],
        "the other one is taken"
    );
    assert_eq!(asked(&effects).len(), 1);
}

#[test]
fn tck_id_operational_behavior_host_reordering_start_and_success() {
    let mut host = born();
    assert_eq!(host.due_us(), None);
    let late = host.hear(NDATA, &bytes(Some(4), vec![by_alias(1, 3.0)]), NOW_US);
    assert!(late.is_empty(), "it waits");
    assert!(
        host.hear(NDATA, &bytes(Some(3), vec![by_alias(1, 2.0)]), NOW_US)
            .is_empty()
    );
    assert_eq!(host.due_us(), Some(NOW_US + 2_000_000));
    let all = host.hear(NDATA, &bytes(Some(2), vec![by_alias(1, 1.0)]), NOW_US + 1_000_000);
    let numbers: Vec<_> = values(&all)
        .into_iter()
        .map(|(_, value)| value.unwrap())
        .collect();
    assert_eq!(numbers, [1.0, 2.0, 3.0], "in the order in which they were sent");
    assert_eq!(
        host.due_us(),
        None,
        "tck-id-operational-behavior-host-reordering-success"
    );
    assert!(host.tick(NOW_US + 9_000_000).is_empty());
}

#[test]
fn tck_id_operational_behavior_host_reordering_rebirth() {
    let mut host = born();
    host.hear(NDATA, &bytes(Some(3), vec![by_alias(1, 2.0)]), NOW_US);
    assert!(
        host.tick(NOW_US + 1_999_999).is_empty(),
        "tck-id-operational-behavior-host-reordering-param"
    );
    let given_up = host.tick(NOW_US + 2_000_000);
    assert_eq!(asked(&given_up)[0].topic, "spBv1.0/akron/NCMD/n1");
    assert_eq!(codes(&given_up), [Code::SequenceGap]);
    assert!(
        values(&given_up).is_empty(),
        "the missing message may have given the alias to another metric"
    );
    assert!(host.tick(NOW_US + 99_000_000).is_empty(), "once");
}

#[test]
fn t30_behind_a_gap_what_gives_its_name_is_kept() {
    let mut host = born();
    host.hear(
        NDATA,
        &bytes(Some(3), vec![named("t", None, 2.0), by_alias(1, 9.0)]),
        NOW_US,
    );
    let given_up = host.tick(NOW_US + 2_000_000);
    assert_eq!(values(&given_up), [("t".to_owned(), Some(2.0))]);
    assert_eq!(codes(&given_up), [Code::SequenceGap]);
}

#[test]
fn tck_id_payloads_sequence_num_incrementing_wraps_at_255() {
    let mut host = host();
    host.hear(
        NBIRTH,
        &bytes(Some(254), vec![bd_seq(0), named("t", Some(1), 0.0)]),
        NOW_US,
    );
    for (seq, value) in [(255, 1.0), (0, 2.0), (1, 3.0)] {
        let read = host.hear(NDATA, &bytes(Some(seq), vec![by_alias(1, value)]), NOW_US);
        assert_eq!(values(&read), [("t".to_owned(), Some(value))]);
    }
}

#[test]
fn t29_a_message_that_comes_twice_is_taken_once() {
    let mut host = born();
    let message = bytes(Some(2), vec![by_alias(1, 5.0)]);
    assert_eq!(values(&host.hear(NDATA, &message, NOW_US)).len(), 1);
    let again = host.hear(NDATA, &message, NOW_US);
    assert!(matches!(again.as_slice(), [Effect::Ignored { .. }]), "{again:?}");
    host.hear(NDATA, &bytes(Some(5), vec![by_alias(1, 6.0)]), NOW_US);
    let held = host.hear(NDATA, &bytes(Some(5), vec![by_alias(1, 6.0)]), NOW_US);
    assert!(matches!(held.as_slice(), [Effect::Ignored { .. }]), "{held:?}");
}

#[test]
fn tck_id_operational_behavior_edge_node_termination_host_action_ndeath() {
    let mut host = born();
    let death = host.hear(NDEATH, &bytes(None, vec![bd_seq(7)]), NOW_US);
    let node = ("akron/n1".to_owned(), vec!["t".to_owned()]);
    let device = ("akron/n1/htst".to_owned(), vec!["p".to_owned()]);
    assert_eq!(
        stale(&death),
        [node, device],
        "node and devices, and none of the session's own metrics"
    );
    assert_eq!(host.is_online("akron", "n1", None), Some(false));
    assert_eq!(host.is_online("akron", "n1", Some("htst")), Some(false));
    assert!(
        matches!(
            host.hear(NDEATH, &bytes(None, vec![bd_seq(7)]), NOW_US)
                .as_slice(),
            [Effect::Ignored { .. }]
        ),
        "one dies once"
    );
}

#[test]
fn t30_a_death_with_a_wrong_bd_seq_is_ignored() {
    let mut host = born();
    for wrong in [bytes(None, vec![bd_seq(6)]), bytes(None, vec![])] {
        let effects = host.hear(NDEATH, &wrong, NOW_US);
        assert!(
            matches!(effects.as_slice(), [Effect::Ignored { .. }]),
            "{effects:?}"
        );
    }
    assert_eq!(host.is_online("akron", "n1", None), Some(true));
}

#[test]
fn tck_id_operational_behavior_edge_node_termination_host_action_ddeath() {
    let mut host = born();
    let death = host.hear(DDEATH, &bytes(Some(2), vec![]), NOW_US);
    assert_eq!(
        stale(&death),
        [("akron/n1/htst".to_owned(), vec!["p".to_owned()])]
    );
    assert_eq!(host.is_online("akron", "n1", None), Some(true));
    let after = host.hear(DDATA, &bytes(Some(3), vec![by_alias(2, 1.0)]), NOW_US);
    assert_eq!(codes(&after), [Code::NotBorn]);
    assert_eq!(asked(&after).len(), 1);
}

#[test]
fn tck_id_operational_behavior_data_commands_ncmd_rebirth_name_and_value() {
    let asked = rebirth("akron", "n1", NOW_US);
    assert_eq!(asked.topic, "spBv1.0/akron/NCMD/n1", "tck-id-topics-ncmd-topic");
    assert!(!asked.is_acknowledged, "tck-id-topics-ncmd-mqtt: QoS 0");
    let payload = decode(&asked.payload).unwrap();
    assert!(payload.timestamp.is_some(), "tck-id-payloads-ncmd-timestamp");
    assert_eq!(payload.seq, None, "tck-id-payloads-ncmd-seq");
    let metric = &payload.metrics[0];
    assert_eq!(metric.name.as_deref(), Some("Node Control/Rebirth"));
    assert_eq!(metric.value, Some(metric::Value::BooleanValue(true)));
    assert_eq!(metric.datatype, Some(DataType::Boolean as u32));
}

#[test]
fn tck_id_operational_behavior_data_commands_rebirth_action_a_node_that_is_not_born_is_asked_once_a_while() {
    let mut host = host();
    let data = bytes(Some(9), vec![by_alias(1, 1.0)]);
    let first = host.hear(NDATA, &data, NOW_US);
    assert_eq!((asked(&first).len(), codes(&first)), (1, vec![Code::NotBorn]));
    let second = host.hear(NDATA, &data, NOW_US + 1_000_000);
    assert_eq!((asked(&second).len(), codes(&second)), (0, vec![Code::NotBorn]));
    assert_eq!(asked(&host.hear(NDATA, &data, NOW_US + 6_000_000)).len(), 1);
    let birth = host.hear(
        NBIRTH,
        &bytes(Some(0), vec![bd_seq(1), named("t", Some(1), 1.0)]),
        NOW_US + 7_000_000,
    );
    assert_eq!(
        values(&birth).len(),
        1,
        "tck-id-operational-behavior-data-commands-rebirth-action-2"
    );
}

#[test]
fn t30_a_rebirth_gives_aliases_new_meanings_and_old_ones_none() {
    let mut host = born();
    let swapped = bytes(
        Some(0),
        vec![bd_seq(7), named("t", Some(5), 4.0), named("u", Some(1), 8.0)],
    );
    let again = host.hear(NBIRTH, &swapped, NOW_US);
    assert_eq!(
        stale(&again),
        [("akron/n1/htst".to_owned(), vec!["p".to_owned()])],
        "its device is to say so itself"
    );
    let read = host.hear(NDATA, &bytes(Some(1), vec![by_alias(1, 8.5)]), NOW_US);
    assert_eq!(values(&read), [("u".to_owned(), Some(8.5))]);
    let gone = host.hear(NDATA, &bytes(Some(2), vec![by_alias(2, 1.0)]), NOW_US);
    assert_eq!(
        codes(&gone),
        [Code::UnknownAlias],
        "an alias of before stands for nothing"
    );
    assert_eq!(asked(&gone).len(), 1);
}

#[test]
fn t30_history_with_an_old_alias_is_refused_and_never_mislabelled() {
    let mut host = born();
    host.hear(
        NBIRTH,
        &bytes(Some(0), vec![bd_seq(7), named("t", Some(9), 4.0)]),
        NOW_US,
    );
    let mut old = by_alias(1, 3.9);
    old.is_historical = Some(true);
    let effects = host.hear(NDATA, &bytes(Some(1), vec![old]), NOW_US);
    assert!(values(&effects).is_empty());
    assert_eq!(codes(&effects), [Code::UnknownAlias]);
}

#[test]
fn t30_an_alias_whose_name_says_otherwise_is_refused() {
    let mut host = born();
    let effects = host.hear(NDATA, &bytes(Some(2), vec![named("t", Some(2), 1.0)]), NOW_US);
    assert_eq!(codes(&effects), [Code::UnknownAlias], "alias 2 is the device's");
    let effects = host.hear(NDATA, &bytes(Some(3), vec![named("x", Some(1), 1.0)]), NOW_US);
    assert_eq!(codes(&effects), [Code::UnknownAlias], "alias 1 is `t`");
}

#[test]
fn t30_historical_values_are_told_apart_from_news() {
    let mut host = born();
    let mut old = by_alias(1, 1.0);
    old.is_historical = Some(true);
    old.timestamp = Some(1_000);
    let effects = host.hear(NDATA, &bytes(Some(2), vec![by_alias(1, 2.0), old]), NOW_US);
    let runs: Vec<_> = effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Readings { items, is_historical } => Some((*is_historical, items.len())),
            _ => None,
        })
        .collect();
    assert_eq!(runs, [(true, 1), (false, 1)], "history first");
    assert_eq!(items(&effects)[0].time_us, Some(1_000_000));
    assert_eq!(
        items(&effects)[1].time_us,
        Some(NOW_US),
        "the payload's time, where the metric has none"
    );
}

#[test]
fn tck_id_payloads_metric_datatype_value_small_signed_integers_keep_their_sign() {
    let typed = |name: &str, kind: DataType, value: metric::Value| {
        let mut metric = Metric::new();
        metric
            .set_name(name.to_owned())
            .set_datatype(kind)
            .set_value(value);
        metric
    };
    let mut host = host();
    let birth = vec![
        bd_seq(0),
        typed("i8", DataType::Int8, metric::Value::IntValue(0xFF)),
        typed("i8w", DataType::Int8, metric::Value::IntValue(u32::MAX)),
        typed("i16", DataType::Int16, metric::Value::IntValue(0xFFFE)),
        typed("i32", DataType::Int32, metric::Value::IntValue(u32::MAX - 2)),
        typed("u32", DataType::UInt32, metric::Value::IntValue(u32::MAX)),
        typed("i64", DataType::Int64, metric::Value::LongValue(u64::MAX - 3)),
        typed("u64", DataType::UInt64, metric::Value::LongValue(u64::MAX)),
        typed("f", DataType::Float, metric::Value::FloatValue(4.1)),
        typed("b", DataType::Boolean, metric::Value::BooleanValue(true)),
    ];
    let read = host.hear(NBIRTH, &bytes(Some(0), birth), NOW_US);
    let numbers: Vec<_> = values(&read)
        .into_iter()
        .map(|(_, value)| value.unwrap())
        .collect();
    assert_eq!(
        numbers,
        [
            -1.0,
            -1.0,
            -2.0,
            -3.0,
            4_294_967_295.0,
            -4.0,
            u64::MAX as f64,
            4.1,
            1.0
        ]
    );
    assert_eq!(
        items(&read)[6].quality,
        Quality::UNCERTAIN,
        "an f64 rounds it, and says so"
    );
    // The type is the birth's: data leaves it out.
    let mut alone = typed("i16", DataType::Int16, metric::Value::IntValue(0xFFFE));
    alone.datatype = None;
    let read = host.hear(NDATA, &bytes(Some(1), vec![alone]), NOW_US);
    assert_eq!(values(&read), [("i16".to_owned(), Some(-2.0))]);
}

#[test]
fn t23_what_is_no_number_is_bad_and_says_why() {
    let mut host = host();
    let typed = |name: &str, kind: DataType, value: Option<metric::Value>| {
        let mut metric = Metric::new();
        metric.set_name(name.to_owned()).set_datatype(kind);
        metric.value = value;
        metric.is_null = metric.value.is_none().then_some(true);
        metric
    };
    let birth = vec![
        typed(
            "nan",
            DataType::Double,
            Some(metric::Value::DoubleValue(f64::NAN)),
        ),
        typed(
            "inf",
            DataType::Float,
            Some(metric::Value::FloatValue(f32::INFINITY)),
        ),
        typed("null", DataType::Double, None),
        typed(
            "bytes",
            DataType::Bytes,
            Some(metric::Value::BytesValue(vec![1, 2])),
        ),
        typed(
            "text",
            DataType::String,
            Some(metric::Value::StringValue("run".to_owned())),
        ),
    ];
    let read = host.hear(NBIRTH, &bytes(Some(0), birth), NOW_US);
    let told: Vec<_> = items(&read)
        .into_iter()
        .map(|item| (item.value, item.quality))
        .collect();
    assert_eq!(told[0], (Value::None, Quality::BAD_OUT_OF_RANGE));
    assert_eq!(told[1], (Value::None, Quality::BAD_OUT_OF_RANGE));
    assert_eq!(told[2], (Value::None, Quality::BAD));
    assert_eq!(told[3], (Value::Text("0x0102".to_owned()), Quality::BAD_TYPE));
    assert_eq!(told[4], (Value::Text("run".to_owned()), Quality::GOOD));
}

#[test]
fn tck_id_host_topic_phid_birth_and_death() {
    let us = HostSelf::new("foodflow", NOW_US).unwrap();
    let state = |message: &Outgoing| serde_json::from_slice::<HostState>(&message.payload).unwrap();
    let (will, birth) = (us.will(), us.birth());
    assert_eq!(
        will.topic, "spBv1.0/STATE/foodflow",
        "tck-id-host-topic-phid-death-topic"
    );
    assert_eq!(us.topic(), birth.topic, "tck-id-host-topic-phid-birth-topic");
    assert!(
        will.is_acknowledged && birth.is_acknowledged,
        "tck-id-host-topic-phid-birth-qos"
    );
    assert!(
        !state(&will).online && state(&birth).online,
        "tck-id-host-topic-phid-birth-payload"
    );
    assert_eq!(
        state(&will).timestamp,
        state(&birth).timestamp,
        "tck-id-host-topic-phid-birth-payload-timestamp"
    );
    assert_eq!(
        state(&us.death(NOW_US + 5_000)).timestamp,
        state(&birth).timestamp + 5
    );
    for name in ["", "a/b", "+", "#"] {
        assert!(
            HostSelf::new(name, NOW_US).is_none(),
            "tck-id-operational-behavior-host-application-host-id"
        );
    }
    let lie = format!(
        "{{\"online\":false,\"timestamp\":{}}}",
        state(&birth).timestamp + 60_000
    );
    let again = us.heard("spBv1.0/STATE/foodflow", lie.as_bytes()).unwrap();
    assert_eq!(
        again, birth,
        "tck-id-message-flow-hid-sparkplug-state-message-delivered: with the will's time"
    );
    assert!(us.heard("spBv1.0/STATE/other", lie.as_bytes()).is_none());
    assert!(us.heard("spBv1.0/STATE/foodflow", b"OFFLINE").is_none());
    assert!(
        us.heard("spBv1.0/STATE/foodflow", &again.payload).is_none(),
        "its own word needs no answer"
    );
}

#[test]
fn tck_id_conformance_primary_host_understands_our_own_edge_node() {
    let plan = |alias, name: &str| MetricPlan {
        alias: Alias(alias),
        name: name.to_owned(),
        unit: "degC".to_owned(),
    };
    let devices = [("htst".to_owned(), vec![plan(0, "TT-101"), plan(1, "TT-102")])];
    let mut node = EdgeNode::new("akron", "akron-1", devices).unwrap();
    let mut host = host();
    let will = node.connect(NOW_US);
    let mut hear = |message: &Outgoing| host.hear(&message.topic, &message.payload, NOW_US);
    for birth in node.birth(|_| true, NOW_US) {
        assert!(codes(&hear(&birth)).is_empty());
    }
    let reading = Reading::new(Alias(1), NOW_US, 72.5, Quality::GOOD);
    let read: Vec<_> = node
        .data(&[reading], false, NOW_US)
        .iter()
        .flat_map(&mut hear)
        .collect();
    assert_eq!(values(&read), [("TT-102".to_owned(), Some(72.5))]);
    let death = hear(&will);
    assert_eq!(stale(&death).len(), 2);
}

#[test]
fn t29_a_payload_of_nothing_but_metrics_is_refused_before_it_is_decoded() {
    let many: Vec<u8> = std::iter::repeat_n([0x12, 0x00], METRICS_MAX + 1)
        .flatten()
        .collect();
    let effects = host().hear(NBIRTH, &many, NOW_US);
    assert_eq!(codes(&effects), [Code::BadPayload]);
    let effects = host().hear(NBIRTH, b"{\"t\":1}", NOW_US);
    assert_eq!(codes(&effects), [Code::BadPayload]);
    assert_eq!(
        codes(&host().hear("spBv1.0/akron/NCMD/n1", b"", NOW_US)),
        [Code::NotYourTopic]
    );
}

#[derive(Clone, Debug)]
enum Step {
    Birth(Vec<(u8, u8)>),
    Data { skip: u8, aliases: Vec<u8> },
    Death,
    Wait(u16),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        prop::collection::vec((0u8..4, 0u8..4), 0..4).prop_map(Step::Birth),
        (
            prop_oneof![8 => Just(0u8), 1 => 0u8..4],
            prop::collection::vec(0u8..4, 0..3)
        )
            .prop_map(|(skip, aliases)| Step::Data { skip, aliases }),
        Just(Step::Death),
        (0u16..3_000).prop_map(Step::Wait),
    ]
}

proptest! {
    #[test]
    fn no_bytes_make_the_host_panic(
        kind in "(NBIRTH|NDATA|NDEATH|DBIRTH|DDATA|DDEATH|NCMD)",
        bytes in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let mut host = born();
        drop(host.hear(&format!("spBv1.0/akron/{kind}/n1"), &bytes, NOW_US));
        drop(host.hear(&format!("spBv1.0/akron/{kind}/n1/htst"), &bytes, NOW_US));
        drop(host.tick(i64::MAX));
    }

    /// Whatever is lost, late or born anew: a value is only ever given the name that its sender meant.
    #[test]
    fn no_order_of_messages_gives_a_value_another_name(steps in prop::collection::vec(any_step(), 1..60)) {
        let mut host = host();
        let (mut seq, mut now_us) = (0u8, NOW_US);
        let mut meant: std::collections::HashMap<u64, u8> = std::collections::HashMap::new();
        for step in steps {
            let effects = match step {
                Step::Birth(plan) => {
                    meant.clear();
                    let mut metrics = vec![bd_seq(1)];
                    for (alias, name) in plan {
                        if !meant.contains_key(&u64::from(alias)) && !meant.values().any(|known| *known == name) {
                            meant.insert(u64::from(alias), name);
                            // Every value says its own name: 100 times the name, plus nothing.
                            metrics.push(named(&format!("m{name}"), Some(u64::from(alias)), f64::from(name) * 100.0));
                        }
                    }
                    seq = 1;
                    host.hear(NBIRTH, &bytes(Some(0), metrics), now_us)
                }
                Step::Data { skip, aliases } => {
                    seq = seq.wrapping_add(skip);
                    let metrics = aliases
                        .iter()
                        .filter_map(|alias| {
                            let name = meant.get(&u64::from(*alias))?;
                            Some(by_alias(u64::from(*alias), f64::from(*name) * 100.0))
                        })
                        .collect();
                    let effects = host.hear(NDATA, &bytes(Some(u64::from(seq)), metrics), now_us);
                    seq = seq.wrapping_add(1);
                    effects
                }
                Step::Death => host.hear(NDEATH, &bytes(None, vec![bd_seq(1)]), now_us),
                Step::Wait(ms) => {
                    now_us += i64::from(ms) * 1_000;
                    host.tick(now_us)
                }
            };
            for (name, value) in values(&effects) {
                let number: f64 = name[1..].parse().unwrap();
                prop_assert_eq!(value, Some(number * 100.0), "{}", name);
            }
        }
    }
}
