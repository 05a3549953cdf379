//! What reading does a data value make? Pure.

use opcua::types::{DataValue, DateTime, Variant};
use protocol::{Micros, Quality, Reading, reading::Alias};

/// A reading from what the server sent. Its time is the source's; the server's, then the receive time, where
/// the source gives none.
pub fn reading(tag: Alias, value: &DataValue, received_us: Micros) -> Reading {
    let time_us = value
        .source_timestamp
        .as_ref()
        .or(value.server_timestamp.as_ref())
        .and_then(micros)
        .unwrap_or(received_us);
    let quality = value
        .status
        .map_or(Quality::GOOD, |status| Quality::from_opcua(status.bits()));
    if quality.is_bad() {
        return Reading::bad(tag, time_us, quality);
    }
    match value.value.as_ref().map(number) {
        Some(Ok((value, is_exact))) => {
            let rounded = quality.is_good() && !is_exact;
            Reading::new(
                tag,
                time_us,
                value,
                if rounded { Quality::UNCERTAIN } else { quality },
            )
        }
        Some(Err(reason)) => Reading::bad(tag, time_us, reason),
        None => Reading::bad(tag, time_us, Quality::BAD),
    }
}

fn micros(time: &DateTime) -> Option<Micros> {
    // A null time is 1601-01-01: no time at all.
    (!time.is_null()).then(|| time.as_chrono().timestamp_micros())
}

/// The number a variant holds and whether an `f64` holds it exactly.
fn number(value: &Variant) -> Result<(f64, bool), Quality> {
    const EXACT_MAX: u64 = 1 << 53;
    match value {
        Variant::Boolean(value) => Ok((f64::from(u8::from(*value)), true)),
        Variant::SByte(value) => Ok((f64::from(*value), true)),
        Variant::Byte(value) => Ok((f64::from(*value), true)),
        Variant::Int16(value) => Ok((f64::from(*value), true)),
        Variant::UInt16(value) => Ok((f64::from(*value), true)),
        Variant::Int32(value) => Ok((f64::from(*value), true)),
        Variant::UInt32(value) => Ok((f64::from(*value), true)),
        Variant::Int64(value) => Ok((*value as f64, value.unsigned_abs() <= EXACT_MAX)),
        Variant::UInt64(value) => Ok((*value as f64, *value <= EXACT_MAX)),
        Variant::Float(value) => Ok((f64::from(*value), true)),
        Variant::Double(value) => Ok((*value, true)),
        Variant::Empty => Err(Quality::BAD),
        _ => Err(Quality::BAD_TYPE),
    }
}

#[cfg(test)]
mod tests {
    use opcua::types::StatusCode;

    use super::*;

    fn data(value: impl Into<Variant>, status: StatusCode) -> DataValue {
        DataValue {
            value: Some(value.into()),
            status: Some(status),
            source_timestamp: Some(DateTime::ymd_hms(2026, 3, 1, 12, 0, 0)),
            ..DataValue::default()
        }
    }

    #[test]
    fn the_time_is_the_sources() {
        let reading = reading(Alias(7), &data(80.5, StatusCode::Good), 5);
        assert_eq!(reading.time_us, 1_772_366_400_000_000);
        assert_eq!((reading.tag, reading.value()), (Alias(7), Some(80.5)));
    }

    #[test]
    fn a_value_without_any_time_has_the_receive_time() {
        let mut value = data(1i32, StatusCode::Good);
        value.source_timestamp = None;
        assert_eq!(reading(Alias(0), &value, 42).time_us, 42);
        value.source_timestamp = Some(DateTime::null());
        assert_eq!(reading(Alias(0), &value, 42).time_us, 42);
    }

    #[test]
    fn a_bad_status_hides_the_number_and_keeps_the_reason() {
        let reading = reading(Alias(0), &data(80.5, StatusCode::BadSensorFailure), 0);
        assert_eq!(
            (reading.quality, reading.value()),
            (Quality::BAD_SENSOR_FAILURE, None)
        );
    }

    #[test]
    fn what_is_no_number_is_bad() {
        assert_eq!(
            reading(Alias(0), &data("hot", StatusCode::Good), 0).quality,
            Quality::BAD_TYPE
        );
        assert_eq!(
            reading(Alias(0), &data(f64::NAN, StatusCode::Good), 0).quality,
            Quality::BAD_OUT_OF_RANGE
        );
        assert_eq!(
            reading(Alias(0), &data(u64::MAX, StatusCode::Good), 0).quality,
            Quality::UNCERTAIN
        );
    }
}
