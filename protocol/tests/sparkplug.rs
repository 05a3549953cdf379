//! Does the edge node keep to the Sparkplug specification 3.0? Each test is named after the assertion it shows.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;
use protocol::{
    Quality, Reading,
    reading::Alias,
    sparkplug::{
        HostState, Outgoing, decode,
        edge_node::{BadNode, EdgeNode, MetricPlan, NodeCommand},
    },
};
use srad_types::payload::{DataType, Metric, Payload, metric, property_value};

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
    let expected = (0..257u64).map(|number| Some(metric::Value::LongValue(number % 256)));
    assert_eq!(
        numbers,
        expected.collect::<Vec<_>>(),
        "from 0 to 255 and again from 0"
    );
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
        assert!(EdgeNode::new("g", name, []).is_err());
        assert!(EdgeNode::new("g", "n", [(name.to_owned(), Vec::new())]).is_err());
    }
}

#[test]
fn tck_id_topics_every_message_says_when_it_was_sent_in_utc() {
    let (mut node, mut all) = born();
    all.push(node.connect(NOW_US));
    all.extend(node.birth(|_| true, NOW_US));
    all.extend(node.data(&[reading(0, NOW_US - 7_000, 72.5)], false, NOW_US));
    all.extend(node.device_death("htst", NOW_US));
    let ms = u64::try_from(NOW_US / 1_000).unwrap();
    for message in &all {
        assert_eq!(payload(message).timestamp, Some(ms), "{}", message.topic);
        for metric in payload(message).metrics {
            assert!(metric.timestamp.is_some(), "{} {metric:?}", message.topic);
        }
    }
    let data = all
        .iter()
        .find(|message| message.topic.contains("/DDATA/"))
        .unwrap();
    assert_eq!(
        payload(data).metrics[0].timestamp,
        Some(ms - 7),
        "a metric's time is when it was measured"
    );
}

#[test]
fn tck_id_message_flow_edge_node_will_names_its_node_and_holds_bd_seq_alone_as_int64() {
    let mut node = node();
    let will = node.connect(NOW_US);
    assert_eq!(will.topic, "spBv1.0/akron/NDEATH/akron-1");
    let payload = payload(&will);
    assert_eq!(payload.metrics.len(), 1, "tck-id-topics-ndeath-payload");
    assert_eq!(payload.metrics[0].name.as_deref(), Some("bdSeq"));
    assert_eq!(payload.metrics[0].datatype, Some(DataType::Int64 as u32));
    assert_eq!(payload.metrics[0].value, Some(metric::Value::LongValue(0)));
    let birth = node.birth(|_| true, NOW_US).remove(0);
    let of_birth = self::payload(&birth).metrics.remove(0);
    assert_eq!(
        (of_birth.name.as_deref(), of_birth.datatype),
        (Some("bdSeq"), Some(DataType::Int64 as u32))
    );
}

#[test]
fn tck_id_operational_behavior_rebirth_action_3_a_rebirth_keeps_its_bd_seq_and_dies_by_it() {
    let (mut node, first) = born();
    let again = node.birth(|_| true, NOW_US + 1_000_000);
    assert_eq!(bd_seq(&again[0]), bd_seq(&first[0]));
    assert_eq!(bd_seq(&node.death(NOW_US)), bd_seq(&first[0]));
    assert_eq!(
        again.len(),
        first.len(),
        "tck-id-operational-behavior-data-commands-rebirth-action-2: the whole of it"
    );
}

#[test]
fn tck_id_message_flow_device_birth_waits_for_its_nodes_and_bears_its_names() {
    let mut node = node();
    node.connect(NOW_US);
    assert_eq!(node.device_birth("htst", NOW_US), None, "no NBIRTH was sent");
    let births = node.birth(|name| name == "htst", NOW_US);
    let late = node.device_birth("oven", NOW_US).unwrap();
    assert_eq!(late.topic, "spBv1.0/akron/DBIRTH/akron-1/oven");
    assert_eq!(seqs(&births), [0, 1]);
    assert_eq!(seqs(&[late]), [2], "tck-id-payloads-dbirth-seq-inc");
    node.connect(NOW_US);
    assert_eq!(
        node.device_birth("htst", NOW_US),
        None,
        "another session needs another NBIRTH"
    );
}

#[test]
fn tck_id_operational_behavior_data_publish_order_births_are_chronological_and_hold_the_newest() {
    let (mut node, _) = born();
    node.data(&[reading(0, NOW_US + 5_000_000, 5.0)], false, NOW_US);
    node.data(&[reading(1, NOW_US + 1_000_000, 1.0)], false, NOW_US);
    node.data(&[reading(0, NOW_US + 2_000_000, 2.0)], false, NOW_US);
    let births = node.birth(|_| true, NOW_US + 9_000_000);
    let metrics = payload(&births[1]).metrics;
    let told: Vec<_> = metrics
        .iter()
        .map(|metric| (metric.name.as_deref().unwrap(), metric.value.clone()))
        .collect();
    let double = |value| Some(metric::Value::DoubleValue(value));
    assert_eq!(
        told,
        [("TT-102", double(1.0)), ("TT-101", double(5.0))],
        "what came late is not the newest"
    );
    assert!(metrics.is_sorted_by_key(|metric| metric.timestamp));
}

#[test]
fn tck_id_payloads_dbirth_metrics_have_name_alias_type_value_or_null_and_a_unit_with_its_type() {
    let (mut node, _) = born();
    node.data(&[reading(0, NOW_US, 5.0)], false, NOW_US);
    let births = node.birth(|_| true, NOW_US + 1_000);
    for metric in births[1..].iter().flat_map(|birth| payload(birth).metrics) {
        assert!(metric.name.is_some() && metric.alias.is_some());
        assert_eq!(metric.datatype, Some(DataType::Double as u32));
        assert_ne!(
            metric.value.is_some(),
            metric.is_null == Some(true),
            "a value, or null: never both and never neither"
        );
        let properties = metric.properties.unwrap();
        assert_eq!(properties.keys.len(), properties.values.len());
        let unit = properties.keys.iter().position(|key| key == "engUnit").unwrap();
        assert_eq!(properties.values[unit].r#type, Some(DataType::String as u32));
    }
}

#[test]
fn tck_id_payloads_propertyset_quality_has_type_3_and_is_0_192_or_500() {
    let (mut node, _) = born();
    for (quality, number) in [
        (Quality::BAD_TIMEOUT, 0),
        (Quality::UNCERTAIN_LAST_USABLE, 500),
        (Quality::BAD_TYPE, 0),
    ] {
        let reading = Reading::new(Alias(0), NOW_US, 1.0, quality);
        let metric = payload(&node.data(&[reading], false, NOW_US)[0])
            .metrics
            .remove(0);
        let properties = metric.properties.unwrap();
        assert_eq!(properties.keys.len(), properties.values.len());
        let said = &properties.values[0];
        assert_eq!(said.r#type, Some(3));
        assert_eq!(said.value, Some(property_value::Value::IntValue(number)));
    }
    let good = payload(&node.data(&[reading(0, NOW_US, 1.0)], false, NOW_US)[0])
        .metrics
        .remove(0);
    assert!(good.properties.is_none(), "without the property it is 192");
}

#[test]
fn tck_id_topic_structure_namespace_unique_device_id_and_aliases_two_of_a_name_are_refused() {
    let twice = [
        ("oven".to_owned(), vec![plan(0, "a")]),
        ("oven".to_owned(), vec![plan(1, "b")]),
    ];
    assert_eq!(
        EdgeNode::new("g", "n", twice).unwrap_err(),
        BadNode::DeviceTwice("oven".to_owned())
    );
    let twice = [
        ("oven".to_owned(), vec![plan(7, "a")]),
        ("press".to_owned(), vec![plan(7, "b")]),
    ];
    assert_eq!(
        EdgeNode::new("g", "n", twice).unwrap_err(),
        BadNode::AliasTwice(7)
    );
}

#[test]
fn tck_id_operational_behavior_multi_server_timestamp_a_word_on_one_server_says_nothing_of_the_next() {
    let mut node = node();
    let state = |online, timestamp| HostState { online, timestamp };
    node.connect(NOW_US);
    assert!(node.host_said(state(true, 5_000)));
    assert!(
        !node.host_said(state(false, 5_000)),
        "the will has the birth's time"
    );
    node.connect(NOW_US);
    assert!(
        node.host_said(state(true, 1_000)),
        "the host came to this server before it came to the other one"
    );
}

#[test]
fn tck_id_operational_behavior_data_commands_names_of_no_birth_are_survived_and_nothing_is_written() {
    let (node, births) = born();
    let mut metric = Metric::new();
    metric
        .set_name("never born".to_owned())
        .set_value(metric::Value::BooleanValue(true));
    let command = |metrics| {
        Vec::from(Payload {
            metrics,
            ..Payload::default()
        })
    };
    for topic in ["spBv1.0/akron/NCMD/akron-1", "spBv1.0/akron/DCMD/akron-1/htst"] {
        let refused = node.command(topic, &command(vec![metric.clone()]));
        let metrics = vec!["never born".to_owned()];
        assert_eq!(refused, Ok(NodeCommand::Refused { metrics }));
    }
    let mut no = Metric::new();
    no.set_name("Node Control/Rebirth".to_owned())
        .set_value(metric::Value::BooleanValue(false));
    assert!(
        matches!(
            node.command("spBv1.0/akron/NCMD/akron-1", &command(vec![no])),
            Ok(NodeCommand::Refused { .. })
        ),
        "Rebirth that is not true asks for nothing"
    );
    assert_eq!(births.len(), 3);
}

proptest! {
    #[test]
    fn no_bytes_make_a_payload_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        drop(decode(&bytes));
        drop(node().command("spBv1.0/akron/NCMD/akron-1", &bytes));
    }
}
