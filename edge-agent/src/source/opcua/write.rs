//! How is a value written to a server? In a session of its own, as the type that the node has, and read back.

use std::path::Path;

use opcua::types::{AttributeId, DataValue, NodeId, Variant, WriteValue};

use super::{
    client,
    config::{NodeIdentifier, Server},
};
use crate::source::error::SourceError;

/// Writes `value` to a node of the server's namespace.
///
/// # Errors
/// When there is no session, when the node is not there or holds no number, and when the server refuses the write.
pub async fn write(
    server: &Server,
    pki_dir: &Path,
    node: &NodeIdentifier,
    value: f64,
) -> Result<(), SourceError> {
    let (session, event_loop) = client::open(&server.url, pki_dir)?;
    let mut events = Box::pin(event_loop.enter());
    client::connected(&server.url, &mut events).await?;
    let exchange = async {
        let namespace = session
            .get_namespace_index(&server.namespace_uri)
            .await
            .map_err(|error| failure(&error.to_string()))?;
        let id = client::node_id(namespace, node);
        let held = client::read(&session, std::slice::from_ref(&id)).await?;
        let value = convert(value, held.first().and_then(|held| held.value.as_ref()))?;
        let results = session
            .write(&[request(id.clone(), value.clone())])
            .await
            .map_err(|error| failure(&error.to_string()))?;
        if let Some(status) = results.first().filter(|status| !status.is_good()) {
            return Err(failure(&status.to_string()));
        }
        let held = client::read(&session, &[id]).await?;
        if held.first().and_then(|held| held.value.as_ref()) == Some(&value) {
            Ok(())
        } else {
            Err(failure("the server did not take the value over"))
        }
    };
    let mut exchange = Box::pin(exchange);
    loop {
        tokio::select! {
            done = &mut exchange => return done,
            event = futures_util::StreamExt::next(&mut events) => client::ended(event)?,
        }
    }
}

fn failure(status: &str) -> SourceError {
    SourceError::Opcua {
        service: "Write",
        status: status.to_owned(),
    }
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
fn convert(value: f64, held: Option<&Variant>) -> Result<Variant, SourceError> {
    let whole = |min: f64, max: f64| (value.fract() == 0.0 && (min..=max).contains(&value)).then_some(value);
    let converted = match held {
        Some(Variant::Boolean(_)) => whole(0.0, 1.0).map(|value| Variant::Boolean(value > 0.5)),
        Some(Variant::Int16(_)) => whole(-32_768.0, 32_767.0).map(|value| Variant::Int16(value as i16)),
        Some(Variant::UInt16(_)) => whole(0.0, 65_535.0).map(|value| Variant::UInt16(value as u16)),
        Some(Variant::Int32(_)) => {
            whole(f64::from(i32::MIN), f64::from(i32::MAX)).map(|value| Variant::Int32(value as i32))
        }
        Some(Variant::Float(_)) => Some(Variant::Float(value as f32)),
        Some(Variant::Double(_)) => Some(Variant::Double(value)),
        _ => None,
    };
    converted.ok_or_else(|| failure(&format!("{value} does not fit the type of the node")))
}
