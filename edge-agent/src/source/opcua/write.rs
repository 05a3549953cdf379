//! How is a value written to a server? In a session of its own, as the type that the node has, and only where the
//! configuration allows writing at all.

use std::path::Path;

use opcua::types::{AttributeId, DataValue, NodeId, StatusCode, Variant, WriteValue};

use super::{
    client::{self, failure, in_time},
    config::{NodeIdentifier, Server},
};
use crate::source::error::SourceError;

/// Writes `value`, in the node's unit, to a node of the server's namespace.
///
/// # Errors
/// When `writes_enabled` is not set, when there is no session, when the node is not there or holds no number, when the
/// value does not fit the node's type exactly, and when the server refuses the write.
pub async fn write(
    server: &Server,
    pki_dir: &Path,
    node: &NodeIdentifier,
    value: f64,
) -> Result<(), SourceError> {
    if !server.writes_enabled {
        return Err(failure(
            "Write",
            &format!(
                "writing to `{}` is not allowed: set `writes_enabled = true` in its [[opcua]]",
                server.name
            ),
        ));
    }
    client::with_session(server, pki_dir, |session| async move {
        let namespaces = client::namespaces(&session).await?;
        let id = namespaces
            .node_id(&server.namespace_uri, node)
            .ok_or_else(|| failure("Write", "the server does not know the namespace"))?;
        let held = client::read_chunk(&session, std::slice::from_ref(&id)).await?;
        let held = held.into_iter().next().unwrap_or_default();
        let wanted = convert(value, &held)?;
        let results = in_time("Write", session.write(&[request(id.clone(), wanted.clone())])).await?;
        match results.first() {
            Some(status) if status.is_good() => {}
            Some(status) => return Err(failure("Write", &status.to_string())),
            None => return Err(failure("Write", "the server gave no result")),
        }
        let taken = client::read_chunk(&session, &[id]).await?;
        if taken.into_iter().next().and_then(|taken| taken.value) == Some(wanted) {
            Ok(())
        } else {
            Err(failure("Write", "the server did not take the value over"))
        }
    })
    .await
}

fn request(node_id: NodeId, value: Variant) -> WriteValue {
    WriteValue {
        node_id,
        attribute_id: AttributeId::Value as u32,
        // Servers refuse to be told status and times (BadWriteNotSupported).
        value: DataValue {
            value: Some(value),
            ..DataValue::default()
        },
        ..WriteValue::default()
    }
}

/// The value as the type of what the node holds; never rounded, never clipped.
fn convert(value: f64, held: &DataValue) -> Result<Variant, SourceError> {
    let does_not_fit = || failure("Write", &format!("{value} does not fit the type of the node"));
    let whole = |min: f64, max: f64| (value.fract() == 0.0 && (min..=max).contains(&value)).then_some(value);
    let converted = match &held.value {
        Some(Variant::Boolean(_)) => whole(0.0, 1.0).map(|value| Variant::Boolean(value > 0.0)),
        Some(Variant::SByte(_)) => whole(-128.0, 127.0).map(|value| Variant::SByte(value as i8)),
        Some(Variant::Byte(_)) => whole(0.0, 255.0).map(|value| Variant::Byte(value as u8)),
        Some(Variant::Int16(_)) => whole(-32_768.0, 32_767.0).map(|value| Variant::Int16(value as i16)),
        Some(Variant::UInt16(_)) => whole(0.0, 65_535.0).map(|value| Variant::UInt16(value as u16)),
        Some(Variant::Int32(_)) => {
            whole(f64::from(i32::MIN), f64::from(i32::MAX)).map(|value| Variant::Int32(value as i32))
        }
        Some(Variant::UInt32(_)) => {
            whole(0.0, f64::from(u32::MAX)).map(|value| Variant::UInt32(value as u32))
        }
        Some(Variant::Int64(_)) => whole(-EXACT_MAX, EXACT_MAX).map(|value| Variant::Int64(value as i64)),
        Some(Variant::UInt64(_)) => whole(0.0, EXACT_MAX).map(|value| Variant::UInt64(value as u64)),
        Some(Variant::Float(_)) => {
            let narrow = value as f32;
            narrow.is_finite().then_some(Variant::Float(narrow))
        }
        Some(Variant::Double(_)) => value.is_finite().then_some(Variant::Double(value)),
        _ => {
            let status = held.status.unwrap_or(StatusCode::BadTypeMismatch);
            return Err(failure("Write", &format!("the node holds no number ({status})")));
        }
    };
    converted.ok_or_else(does_not_fit)
}

/// 2⁵³: up to here an `f64` holds every whole number.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn holding(value: impl Into<Variant>) -> DataValue {
        DataValue {
            value: Some(value.into()),
            ..DataValue::default()
        }
    }

    #[test]
    fn a_value_is_written_as_the_type_that_the_node_has() {
        assert_eq!(convert(1.0, &holding(false)).unwrap(), Variant::Boolean(true));
        assert_eq!(convert(-3.0, &holding(7i16)).unwrap(), Variant::Int16(-3));
        assert_eq!(convert(2.5, &holding(0.0f64)).unwrap(), Variant::Double(2.5));
    }

    #[test]
    fn what_does_not_fit_is_refused_and_never_clipped() {
        for (value, held) in [
            (2.0, holding(false)),
            (0.5, holding(7i32)),
            (65_536.0, holding(0u16)),
            (f64::NAN, holding(0.0f64)),
            (f64::MAX, holding(0.0f32)),
            (1.0, holding("text")),
        ] {
            assert!(convert(value, &held).is_err(), "{value} into {held:?}");
        }
    }

    proptest! {
        #[test]
        fn a_whole_number_written_to_an_i32_is_the_number_or_an_error(value in any::<f64>()) {
            match convert(value, &holding(0i32)) {
                Ok(Variant::Int32(written)) => prop_assert!((f64::from(written) - value).abs() < f64::EPSILON),
                Ok(other) => prop_assert!(false, "{:?}", other),
                Err(_) => prop_assert!(value.fract() != 0.0 || value.abs() > 2e9 || value.is_nan()),
            }
        }
    }
}
