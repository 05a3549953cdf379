//! What does the host make of values that are no numbers: nulls, transient ones, bytes, data sets and templates?

use protocol::{
    Quality,
    integrator::{Code, Refused, Value},
    sparkplug::host::Effect,
};
use srad_types::payload::{
    DataSet, DataType, Metric, PropertySet, Template,
    data_set::{DataSetValue, Row, data_set_value},
    metric,
};

use super::{NBIRTH, NDATA, NOW_US, bd_seq, bytes, host, items, named, values};

fn typed(name: &str, kind: DataType, value: metric::Value) -> Metric {
    let mut metric = Metric::new();
    metric
        .set_name(name.to_owned())
        .set_datatype(kind)
        .set_value(value);
    metric
}

fn refusals(effects: &[Effect]) -> Vec<&Refused> {
    let refused = effects.iter().filter_map(|effect| match effect {
        Effect::Refused(refused) => Some(refused),
        _ => None,
    });
    refused.collect()
}

fn data_set() -> DataSet {
    let cell = |value| DataSetValue { value: Some(value) };
    DataSet {
        num_of_columns: Some(2),
        columns: vec!["lot".to_owned(), "kg".to_owned()],
        types: vec![DataType::String as u32, DataType::Double as u32],
        rows: vec![Row {
            elements: vec![
                cell(data_set_value::Value::StringValue("L-1".to_owned())),
                cell(data_set_value::Value::DoubleValue(2.5)),
            ],
        }],
    }
}

#[test]
fn t30_data_sets_templates_and_bytes_are_refused_by_name_and_kept_as_text() {
    let template = Template {
        template_ref: Some("Motor".to_owned()),
        is_definition: Some(false),
        metrics: vec![named("rpm", None, 1.0)],
        ..Template::default()
    };
    let odd = [
        typed(
            "recipe",
            DataType::DataSet,
            metric::Value::DatasetValue(data_set()),
        ),
        typed(
            "motor",
            DataType::Template,
            metric::Value::TemplateValue(template),
        ),
        typed(
            "image",
            DataType::File,
            metric::Value::BytesValue(vec![0xCA, 0xFE]),
        ),
        typed(
            "raw",
            DataType::Int16Array,
            metric::Value::BytesValue(vec![1; 400]),
        ),
    ];
    let mut host = host();
    let mut birth = vec![bd_seq(0), named("t", None, 4.0)];
    birth.extend(odd);
    let effects = host.hear(NBIRTH, &bytes(Some(0), birth), NOW_US);
    let told: Vec<_> = refusals(&effects)
        .iter()
        .map(|refused| (refused.code, refused.sample.as_str(), refused.hint.as_str()))
        .collect();
    let hint = |kind: &str| {
        format!(
            "a {kind} is no reading: its text is kept without a value; send its parts as metrics of their own"
        )
    };
    let hints = ["DataSet", "Template", "File", "Int16Array"].map(hint);
    let expected: Vec<_> = ["recipe", "motor", "image", "raw"]
        .into_iter()
        .zip(&hints)
        .map(|(name, hint)| (Code::WrongType, name, hint.as_str()))
        .collect();
    assert_eq!(told, expected);
    let kept: Vec<_> = items(&effects)
        .into_iter()
        .map(|item| (item.name, item.value, item.quality))
        .collect();
    assert_eq!(kept.len(), 5, "nothing is dropped");
    assert_eq!(kept[0], ("t".to_owned(), Value::Number(4.0), Quality::GOOD));
    let text = |at: usize| match &kept[at] {
        (_, Value::Text(text), Quality::BAD_TYPE) => text.as_str(),
        other => panic!("{other:?}"),
    };
    assert_eq!(text(1), "lot,kg\nL-1,2.5");
    assert_eq!(text(2), "Motor: 1 members");
    assert_eq!(text(3), "0xcafe");
    assert!(text(4).ends_with("… and 144 bytes"));
}

#[test]
fn t30_a_data_set_whose_columns_do_not_match_is_no_panic_and_no_value() {
    let mut host = host();
    let crooked = DataSet {
        num_of_columns: Some(u64::MAX),
        types: Vec::new(),
        ..data_set()
    };
    let birth = vec![
        bd_seq(0),
        typed("recipe", DataType::DataSet, metric::Value::DatasetValue(crooked)),
    ];
    let effects = host.hear(NBIRTH, &bytes(Some(0), birth), NOW_US);
    assert_eq!(refusals(&effects).len(), 1);
    assert_eq!(items(&effects)[0].quality, Quality::BAD_TYPE);
}

#[test]
fn t30_null_is_no_value_even_with_a_number_beside_it_and_a_transient_one_is_a_value() {
    let mut host = host();
    host.hear(
        NBIRTH,
        &bytes(
            Some(0),
            vec![bd_seq(0), named("t", None, 4.0), named("u", None, 1.0)],
        ),
        NOW_US,
    );
    let mut null = named("t", None, 9.0);
    null.is_null = Some(true);
    let mut transient = named("u", None, 2.0);
    transient.is_transient = Some(true);
    let effects = host.hear(NDATA, &bytes(Some(1), vec![null, transient]), NOW_US);
    assert_eq!(
        values(&effects),
        [("t".to_owned(), None), ("u".to_owned(), Some(2.0))]
    );
    assert!(items(&effects)[0].quality.is_bad());
    assert!(refusals(&effects).is_empty());
}

#[test]
fn tck_id_payloads_propertyset_array_size_more_keys_than_values_are_no_panic() {
    let mut host = host();
    let mut metric = named("t", None, 4.0);
    metric.properties = Some(PropertySet {
        keys: vec!["engUnit".to_owned(), "Quality".to_owned()],
        values: Vec::new(),
    });
    let effects = host.hear(NBIRTH, &bytes(Some(0), vec![bd_seq(0), metric]), NOW_US);
    assert_eq!(values(&effects), [("t".to_owned(), Some(4.0))]);
}
