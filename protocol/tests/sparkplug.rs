//! Does the edge node keep to the Sparkplug specification 3.0? Each test is named after the assertion it shows.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;
use protocol::{
    Quality, Reading,
    reading::Alias,
    sparkplug::{
        HostState, Outgoing, decode,
        edge_node::{EdgeNode, MetricPlan, NodeCommand},
    },
};
use srad_types::payload::{DataType, Metric, Payload, metric};

const NOW_US: i64 = 1_795_168_800_000_000;

fn plan(alias: u32, name: &str) -> MetricPlan {
    MetricPlan {
        alias: Alias(alias),
        name: name.to_owned(),
        unit: "degC".to_owned(),
    }
}

fn node() -> EdgeNode {
    let devices = [
        ("htst".to_owned(), vec![plan(0, "TT-101"), plan(1, "TT-102")]),
        ("oven".to_owned(), vec![plan(2, "TT-310")]),
    ];
    EdgeNode::new("akron", "akron-1", devices).unwrap()
}

fn born() -> (EdgeNode, Vec<Outgoing>) {
    let mut node = node();
    node.connect(NOW_US);
    let births = node.birth(|_| true, NOW_US);
    (node, births)
}

fn reading(alias: u32, time_us: i64, value: f64) -> Reading {
    Reading::new(Alias(alias), time_us, value, Quality::GOOD)
}

fn payload(message: &Outgoing) -> Payload {
    decode(&message.payload).unwrap()
}

fn bd_seq(message: &Outgoing) -> Option<metric::Value> {
    let payload = payload(message);
    let found = payload
        .metrics
        .into_iter()
        .find(|metric| metric.name.as_deref() == Some("bdSeq"));
    found.and_then(|metric| metric.value)
}

fn seqs(messages: &[Outgoing]) -> Vec<u64> {
    messages
        .iter()
        .map(|message| payload(message).seq.unwrap())
        .collect()
}

#[test]
fn tck_id_topics_nbirth_topic_and_topics_dbirth_topic() {
    let (_, births) = born();
    let topics: Vec<&str> = births.iter().map(|message| message.topic.as_str()).collect();
    assert_eq!(
        topics,
        [
            "spBv1.0/akron/NBIRTH/akron-1",
            "spBv1.0/akron/DBIRTH/akron-1/htst",
            "spBv1.0/akron/DBIRTH/akron-1/oven"
        ]
    );
}

#[test]
fn tck_id_topics_nbirth_mqtt_qos_and_dbirth_and_ddata_are_not_acknowledged() {
    let (mut node, births) = born();
    let data = node.data(&[reading(0, NOW_US, 72.5)], false, NOW_US);
    assert!(births.iter().chain(&data).all(|message| !message.is_acknowledged));
}

#[test]
fn tck_id_payloads_ndeath_will_message_has_qos_1_and_the_next_bd_seq_and_no_sequence() {
    let mut node = node();
    let first = node.connect(NOW_US);
    let births = node.birth(|_| true, NOW_US);
    assert!(first.is_acknowledged);
    assert_eq!(first.topic, "spBv1.0/akron/NDEATH/akron-1");
    assert_eq!(payload(&first).seq, None);
    assert_eq!(bd_seq(&first), bd_seq(&births[0]), "tck-id-payloads-nbirth-bdseq");
    let second = node.connect(NOW_US);
    assert_ne!(
        bd_seq(&second),
        bd_seq(&first),
        "tck-id-topics-nbirth-bdseq-increment"
    );
    assert_eq!(payload(&second).metrics.len(), 1);
}

#[test]
fn tck_id_topics_nbirth_bdseq_matching_over_256_connections() {
    let mut node = node();
    let numbers: Vec<_> = (0..257).map(|_| bd_seq(&node.connect(NOW_US))).collect();
    assert_eq!(numbers[0], numbers[256]);
    assert!(matches!(numbers[255], Some(metric::Value::LongValue(0))));
}

#[test]
fn tck_id_payloads_nbirth_rebirth_req_is_false_and_has_no_alias() {
    let (_, births) = born();
    let rebirth = payload(&births[0])
        .metrics
        .into_iter()
        .find(|metric| metric.name.as_deref() == Some("Node Control/Rebirth"))
        .unwrap();
    assert_eq!(rebirth.value, Some(metric::Value::BooleanValue(false)));
    assert_eq!(rebirth.datatype, Some(DataType::Boolean as u32));
    assert_eq!(rebirth.alias, None);
}

#[test]
fn tck_id_topics_nbirth_seq_num_and_payloads_sequence_num_incrementing() {
    let (mut node, births) = born();
    assert_eq!(seqs(&births), [0, 1, 2]);
    let mut before = 2;
    for second in 0..600 {
        for message in node.data(&[reading(0, NOW_US + second, 1.0)], false, NOW_US) {
            let seq = payload(&message).seq.unwrap();
            assert_eq!(seq, (before + 1) % 256);
            before = seq;
        }
    }
    assert_eq!(
        seqs(&node.birth(|_| true, NOW_US)),
        [0, 1, 2],
        "a rebirth starts at 0"
    );
}

#[test]
fn tck_id_payloads_dbirth_holds_every_metric_with_name_type_and_time() {
    let (_, births) = born();
    let birth = payload(&births[1]);
    let names: Vec<_> = birth
        .metrics
        .iter()
        .map(|metric| metric.name.clone().unwrap())
        .collect();
    assert_eq!(names, ["TT-101", "TT-102"]);
    for Metric {
        alias,
        timestamp,
        datatype,
        is_null,
        ..
    } in birth.metrics
    {
        assert!(alias.is_some() && timestamp.is_some() && datatype.is_some());
        assert_eq!(
            is_null,
            Some(true),
            "no value was read yet, and no number stands for it"
        );
    }
}

#[test]
fn tck_id_payloads_alias_data_requirement_data_holds_aliases_and_no_names() {
    let (mut node, births) = born();
    let data = node.data(
        &[reading(0, NOW_US, 72.5), reading(2, NOW_US, 80.0)],
        false,
        NOW_US,
    );
    assert_eq!(data.len(), 2);
    for message in &data {
        for metric in payload(message).metrics {
            assert!(metric.name.is_none() && metric.alias.is_some() && metric.timestamp.is_some());
        }
    }
    let in_birth: Vec<_> = births[1..]
        .iter()
        .flat_map(|birth| payload(birth).metrics)
        .map(|metric| metric.alias)
        .collect();
    assert_eq!(
        in_birth,
        [Some(0), Some(1), Some(2)],
        "tck-id-payloads-alias-uniqueness"
    );
}

#[test]
fn tck_id_message_flow_device_death_and_no_data_without_a_birth() {
    let mut node = node();
    assert!(node.data(&[reading(0, NOW_US, 1.0)], false, NOW_US).is_empty());
    node.connect(NOW_US);
    node.birth(|name| name == "htst", NOW_US);
    assert!(
        node.data(&[reading(2, NOW_US, 1.0)], false, NOW_US).is_empty(),
        "the oven is not born"
    );
    let death = node.device_death("htst", NOW_US).unwrap();
    assert_eq!(death.topic, "spBv1.0/akron/DDEATH/akron-1/htst");
    assert!(payload(&death).seq.is_some(), "tck-id-topics-ddeath-seq-num");
    assert!(node.data(&[reading(0, NOW_US, 1.0)], false, NOW_US).is_empty());
    assert!(node.device_death("htst", NOW_US).is_none());
    let birth = node.device_birth("htst", NOW_US).unwrap();
    let newest = payload(&birth).metrics[0].value.clone();
    assert_eq!(
        newest,
        Some(metric::Value::DoubleValue(1.0)),
        "what was read meanwhile is in the birth"
    );
}

#[test]
fn tck_id_operational_behavior_data_commands_rebirth_action_1() {
    let (node, _) = born();
    let mut metric = Metric::new();
    metric
        .set_name("Node Control/Rebirth".to_owned())
        .set_datatype(DataType::Boolean)
        .set_value(metric::Value::BooleanValue(true));
    let ask = |metrics| {
        Vec::from(Payload {
            metrics,
            ..Payload::default()
        })
    };
    let topic = "spBv1.0/akron/NCMD/akron-1";
    assert_eq!(
        node.command(topic, &ask(vec![metric.clone()])),
        Ok(NodeCommand::Rebirth)
    );
    let at_device = node.command("spBv1.0/akron/DCMD/akron-1/htst", &ask(vec![metric]));
    assert!(
        matches!(at_device, Ok(NodeCommand::Refused { .. })),
        "Rebirth is the node's, never a device's"
    );
    assert!(node.command(topic, b"\xff\xff\xff").is_err());
    assert_eq!(
        node.subscriptions(),
        [topic.to_owned(), "spBv1.0/akron/DCMD/akron-1/+".to_owned()]
    );
}

#[test]
fn tck_id_payloads_ndata_order_is_chronological_and_late_ones_are_historical() {
    let (mut node, _) = born();
    let late = [
        reading(0, NOW_US + 2_000, 3.0),
        reading(0, NOW_US, 1.0),
        reading(1, NOW_US + 1_000, 2.0),
    ];
    let data = node.data(&late, true, NOW_US + 9_000);
    let metrics = payload(&data[0]).metrics;
    let times: Vec<_> = metrics.iter().map(|metric| metric.timestamp.unwrap()).collect();
    assert!(times.is_sorted());
    assert!(metrics.iter().all(|metric| metric.is_historical == Some(true)));
    let birth = node.birth(|_| true, NOW_US);
    assert_eq!(
        payload(&birth[1]).metrics[0].is_null,
        Some(true),
        "a historical value is not the newest"
    );
}

#[test]
fn tck_id_payloads_propertyset_quality_of_a_bad_reading_is_0_and_its_value_null() {
    let (mut node, _) = born();
    let data = node.data(
        &[Reading::bad(Alias(0), NOW_US, Quality::BAD_TIMEOUT)],
        false,
        NOW_US,
    );
    let metric = payload(&data[0]).metrics.remove(0);
    assert_eq!((metric.is_null, metric.value), (Some(true), None));
    let properties = metric.properties.unwrap();
    assert_eq!(properties.keys, ["Quality"]);
}

#[test]
fn tck_id_message_flow_edge_node_waits_for_its_primary_host_and_ignores_older_words() {
    let mut node = node();
    let state = |online, timestamp| HostState { online, timestamp };
    assert!(!node.host_said(state(false, 10)));
    assert!(node.host_said(state(true, 20)));
    assert!(
        node.host_said(state(false, 15)),
        "a word from before the newest changes nothing"
    );
    assert!(!node.host_said(state(false, 20)));
}

#[test]
fn tck_id_topic_structure_namespace_valid_names() {
    for name in ["", "a/b", "a+", "#"] {
        assert!(EdgeNode::new(name, "n", []).is_err());
        assert!(EdgeNode::new("g", "n", [(name.to_owned(), Vec::new())]).is_err());
    }
}

proptest! {
    #[test]
    fn no_bytes_make_a_payload_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        drop(decode(&bytes));
        drop(node().command("spBv1.0/akron/NCMD/akron-1", &bytes));
    }
}
