//! What does a metric's value say? Numbers by the type that the birth gave, everything else as text, or as a bad value
//! with its reason. What no reading can hold is refused by name, and its text is kept.

use srad_types::payload::{
    DataSet, DataType, Metric, data_set::data_set_value, metric::Value as Wire, property_value,
};

use crate::{
    Micros, Quality,
    integrator::{Code, Item, Refused, TEXT_BYTES_MAX, TimeForm, Value, cut},
};

/// Most bytes of a value that are shown as hexadecimal digits.
const BYTES_SHOWN_MAX: usize = 256;

/// Why a metric's value is no reading; none: it is one.
pub(super) fn unreadable(name: &str, metric: &Metric, datatype: Option<u32>) -> Option<Refused> {
    let kind = match metric.value.as_ref().filter(|_| metric.is_null != Some(true))? {
        Wire::DatasetValue(_) => "DataSet",
        Wire::TemplateValue(_) => "Template",
        Wire::ExtensionValue(_) => "extension",
        Wire::BytesValue(_) => match datatype
            .or(metric.datatype)
            .and_then(|kind| DataType::try_from(kind).ok())
        {
            None | Some(DataType::Unknown) => "Bytes",
            Some(kind) => kind.as_str_name(),
        },
        _ => return None,
    };
    let hint = format!(
        "a {kind} is no reading: its text is kept without a value; send its parts as metrics of their own"
    );
    Some(Refused::new(Code::WrongType, hint, name))
}

/// A metric as an item. `datatype` is the birth's: in data it may be left out.
pub(super) fn item(
    device: &str,
    name: &str,
    metric: &Metric,
    datatype: Option<u32>,
    sent_ms: Option<u64>,
) -> Item {
    let datatype = datatype
        .or(metric.datatype)
        .and_then(|kind| DataType::try_from(kind).ok());
    let (value, told) = match &metric.value {
        None => (Value::None, Quality::BAD),
        Some(_) if metric.is_null == Some(true) => (Value::None, Quality::BAD),
        Some(wire) => value(wire, datatype),
    };
    let said = quality(metric);
    let time_us = metric.timestamp.or(sent_ms).and_then(micros);
    Item {
        device: Some(device.to_owned()),
        name: name.to_owned(),
        value,
        time_us,
        time_form: if time_us.is_some() {
            TimeForm::Milliseconds
        } else {
            TimeForm::Absent
        },
        quality: if told.code() >> 14 > said.code() >> 14 {
            told
        } else {
            said
        },
        rev: None,
    }
}

pub(super) fn micros(ms: u64) -> Option<Micros> {
    i64::try_from(ms).ok()?.checked_mul(1_000)
}

/// Small signed integers travel as the bits of an unsigned one (tck-id-payloads-metric-datatype-value-type).
fn value(wire: &Wire, datatype: Option<DataType>) -> (Value, Quality) {
    match wire {
        Wire::IntValue(bits) => number(match datatype {
            Some(DataType::Int8) => f64::from(*bits as i8),
            Some(DataType::Int16) => f64::from(*bits as i16),
            Some(DataType::Int32) => f64::from(bits.cast_signed()),
            Some(DataType::Boolean) => return (Value::Flag(*bits != 0), Quality::GOOD),
            _ => f64::from(*bits),
        }),
        Wire::LongValue(bits) => {
            let is_signed = matches!(
                datatype,
                Some(DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64)
            );
            let whole = if is_signed {
                i128::from(bits.cast_signed())
            } else {
                i128::from(*bits)
            };
            let (value, good) = number(whole as f64);
            let is_exact = whole.unsigned_abs() <= 1 << 53;
            (value, if is_exact { good } else { Quality::UNCERTAIN })
        }
        Wire::FloatValue(float) => number(shortest(*float)),
        Wire::DoubleValue(double) => number(*double),
        Wire::BooleanValue(flag) => (Value::Flag(*flag), Quality::GOOD),
        Wire::StringValue(text) => (Value::Text(cut(text, TEXT_BYTES_MAX).to_owned()), Quality::GOOD),
        Wire::BytesValue(bytes) => kept(&hexadecimal(bytes)),
        Wire::DatasetValue(set) => kept(&table(set)),
        Wire::TemplateValue(template) => {
            let of = template.template_ref.as_deref().unwrap_or("(a definition)");
            kept(&format!("{of}: {} members", template.metrics.len()))
        }
        Wire::ExtensionValue(_) => (Value::None, Quality::BAD_TYPE),
    }
}

fn kept(text: &str) -> (Value, Quality) {
    (
        Value::Text(cut(text, TEXT_BYTES_MAX).to_owned()),
        Quality::BAD_TYPE,
    )
}

fn hexadecimal(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let shown = bytes.iter().take(BYTES_SHOWN_MAX);
    let text = shown.fold("0x".to_owned(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes all that is written");
        text
    });
    let more = bytes.len().saturating_sub(BYTES_SHOWN_MAX);
    if more == 0 {
        text
    } else {
        format!("{text}… and {more} bytes")
    }
}

/// A data set as a line of column names and one of values for each row.
fn table(set: &DataSet) -> String {
    let rows = set.rows.iter().map(|row| {
        let cells = row.elements.iter().map(|element| match &element.value {
            None | Some(data_set_value::Value::ExtensionValue(_)) => String::new(),
            Some(data_set_value::Value::IntValue(value)) => value.to_string(),
            Some(data_set_value::Value::LongValue(value)) => value.to_string(),
            Some(data_set_value::Value::FloatValue(value)) => value.to_string(),
            Some(data_set_value::Value::DoubleValue(value)) => value.to_string(),
            Some(data_set_value::Value::BooleanValue(value)) => value.to_string(),
            Some(data_set_value::Value::StringValue(value)) => value.clone(),
        });
        cells.collect::<Vec<_>>().join(",")
    });
    let head = set.columns.join(",");
    std::iter::once(head).chain(rows).collect::<Vec<_>>().join("\n")
}

/// 4.1 that travelled as a 32-bit float is 4.1, not 4.099999904632568.
fn shortest(float: f32) -> f64 {
    float.to_string().parse().unwrap_or_else(|_| f64::from(float))
}

fn number(number: f64) -> (Value, Quality) {
    if number.is_finite() {
        (Value::Number(number), Quality::GOOD)
    } else {
        (Value::None, Quality::BAD_OUT_OF_RANGE)
    }
}

/// The `Quality` property: 0 bad, 192 good, 500 stale (tck-id-payloads-propertyset-quality-value-value).
fn quality(metric: &Metric) -> Quality {
    let Some(properties) = &metric.properties else {
        return Quality::GOOD;
    };
    let found = properties.keys.iter().position(|key| key == "Quality");
    let said = found.and_then(|at| properties.values.get(at)?.value.as_ref());
    let number = match said {
        None => return Quality::GOOD,
        Some(property_value::Value::IntValue(number)) => u64::from(*number),
        Some(property_value::Value::LongValue(number)) => *number,
        Some(_) => return Quality::UNCERTAIN,
    };
    match number {
        192 => Quality::GOOD,
        500 => Quality::UNCERTAIN_LAST_USABLE,
        0 => Quality::BAD,
        _ => Quality::UNCERTAIN,
    }
}
