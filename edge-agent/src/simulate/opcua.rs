//! How are the lines that speak OPC UA served?
//! Line 3's PLC may have a wrong clock (F10), or keep readings back and hand them over late (F11). One server with security policy None for anonymous clients: it simulates a plant, it guards nothing.

use std::{path::Path, sync::Arc, time::Duration};

use opcua::{
    nodes::{AccessLevel, VariableBuilder},
    server::{
        ANONYMOUS_USER_TOKEN_ID, Server, ServerBuilder, ServerEndpoint, ServerHandle,
        address_space::Variable,
        diagnostics::NamespaceMetadata,
        node_manager::memory::{SimpleNodeManager, simple_node_manager},
    },
    types::{DataTypeId, DataValue, DateTime, NodeId, NumericRange, StatusCode},
};
use tokio::{net::TcpListener, time::MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::{
    SimulateError,
    fault::Fault,
    gateway::{Buffer, Publish, TAG as BUFFERED},
    state::{Moment, PlantState},
    tags::{NAMESPACE_URI, Port, SimTag, TAGS},
};

/// How often the variables are set, in plant time,
const TICK: Duration = Duration::from_millis(250);
/// but not more often than this in wall time.
const WALL_TICK_MIN: Duration = Duration::from_millis(50);
/// F10: the clock of line 3's PLC is ahead by so much. A clock is wrong by wall time, however fast the plant runs.
pub const SKEW_S: i64 = 540;
/// Refreshes without a source time after F10: long enough for every noisy tag to change.
const TIMELESS_TICKS: u32 = 8;
/// Values handed over in one go after F11: what a subscription's queue takes.
const HANDED_OVER_AT_ONCE: usize = 2;

/// Items and arrays an agent may ask for at once; the library's 1,000 breaks the transport at 1,000 items.
const ARRAY_LENGTH_MAX: usize = 65_536;

/// A built OPC UA server, not yet accepting.
pub struct PlantOpcUa {
    server: Server,
    variables: Variables,
}

struct Variables {
    handle: ServerHandle,
    manager: Arc<SimpleNodeManager>,
    nodes: Vec<(&'static SimTag, NodeId)>,
    plant: PlantState,
    buffer: Buffer,
    /// So many more refreshes carry no source time of line 3.
    timeless_ticks: u32,
}

impl std::fmt::Debug for PlantOpcUa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PlantOpcUa")
            .field("nodes", &self.variables.nodes.len())
            .finish_non_exhaustive()
    }
}

/// Builds the server for a listener on `port` of `host`; its certificate store lives under `data_dir`.
///
/// # Errors
/// [`SimulateError::OpcUa`] when the library refuses the configuration.
pub fn build(
    plant: PlantState,
    host: &str,
    port: u16,
    data_dir: &Path,
    stop: CancellationToken,
) -> Result<PlantOpcUa, SimulateError> {
    let namespace = NamespaceMetadata {
        namespace_uri: NAMESPACE_URI.to_owned(),
        ..Default::default()
    };
    let (server, handle) = ServerBuilder::new()
        .application_name("FoodFlow simulated plant")
        .application_uri("urn:foodflow:simulator")
        .product_uri("urn:foodflow:simulator")
        .create_sample_keypair(false)
        .pki_dir(data_dir.join("pki"))
        .host(host)
        .port(port)
        .discovery_urls(vec![format!("opc.tcp://{host}:{port}/")])
        .max_array_length(ARRAY_LENGTH_MAX)
        .add_endpoint(
            "none",
            ServerEndpoint::new_none("/", &[ANONYMOUS_USER_TOKEN_ID.to_owned()]),
        )
        .with_node_manager(simple_node_manager(namespace, "plant"))
        .token(stop)
        .build()
        .map_err(SimulateError::OpcUa)?;
    let missing = |what: &str| SimulateError::OpcUa(format!("the server built no {what}"));
    let manager = handle
        .node_managers()
        .get_of_type::<SimpleNodeManager>()
        .ok_or_else(|| missing("node manager"))?;
    let namespace = handle
        .get_namespace_index(NAMESPACE_URI)
        .ok_or_else(|| missing("namespace"))?;
    let nodes = TAGS
        .iter()
        .filter_map(|tag| match tag.port {
            Port::OpcUa { node } => Some((tag, NodeId::new(namespace, node))),
            _ => None,
        })
        .collect();
    let variables = Variables {
        handle,
        manager,
        nodes,
        plant,
        buffer: Buffer::default(),
        timeless_ticks: 0,
    };
    variables.add_to_space(namespace);
    Ok(PlantOpcUa { server, variables })
}

impl Variables {
    fn add_to_space(&self, namespace: u16) {
        let moment = self.plant.now();
        let mut space = self.manager.address_space().write();
        for line in ["L3", "L4"] {
            let folder = NodeId::new(namespace, line);
            space.add_folder(&folder, line, line, &NodeId::objects_folder_id());
            let of_line = self.nodes.iter().filter(|(tag, _)| tag.line == line);
            let variables = of_line.map(|(tag, id)| self.variable(tag, id, &moment)).collect();
            space.add_variables(variables, &folder);
        }
    }

    fn variable(&self, tag: &SimTag, id: &NodeId, moment: &Moment) -> Variable {
        let mut variable = VariableBuilder::new(id, tag.name, tag.name)
            .description(tag.description)
            .data_type(DataTypeId::Double)
            .value(0.0)
            .access_level(AccessLevel::CURRENT_READ)
            .user_access_level(AccessLevel::CURRENT_READ)
            .build();
        variable.set_data_value(self.data_value(tag, moment));
        variable
    }

    /// Instruments resolve thousandths; the plant's arithmetic would show seventeen digits.
    fn data_value(&self, tag: &SimTag, moment: &Moment) -> DataValue {
        let ahead_us = if is_ahead(tag, moment) {
            SKEW_S * 1_000_000
        } else {
            0
        };
        let source_us = self.plant.clock.utc_us(moment.at_us()) + ahead_us;
        let source =
            chrono::DateTime::from_timestamp_micros(source_us).map_or_else(DateTime::now, DateTime::from);
        DataValue::new_at((moment.value(tag) * 1_000.0).round() / 1_000.0, source)
    }

    /// Sets every variable to what the plant shows now and notifies subscribers. For a moment after the clock was
    /// wrong values carry no source time: the library holds back values that are older than the last.
    fn refresh(&mut self) {
        let moment = self.plant.now();
        if moment.since_us(Fault::F10).is_some() {
            self.timeless_ticks = TIMELESS_TICKS;
        } else {
            self.timeless_ticks = self.timeless_ticks.saturating_sub(1);
        }
        let is_timeless = self.timeless_ticks > 0;
        let publish = self
            .buffer
            .step(moment.since_us(Fault::F11), moment.at_us(), HANDED_OVER_AT_ONCE);
        let is_live = publish == Publish::Live;
        let live = self
            .nodes
            .iter()
            .filter(|(tag, _)| is_live || tag.name != BUFFERED);
        let values = live.map(|(tag, id)| {
            let mut value = self.data_value(tag, &moment);
            if is_timeless && tag.line == "L3" && !is_ahead(tag, &moment) {
                value.source_timestamp = None;
            }
            (id, None, value)
        });
        self.set(values);
        let Publish::Late(times) = publish else { return };
        let Some((tag, id)) = self.nodes.iter().find(|(tag, _)| tag.name == BUFFERED) else {
            return;
        };
        if times.is_empty() {
            // To a subscriber silence means that a value has not changed: a server that lost its device says so.
            let lost = DataValue {
                status: Some(StatusCode::BadNoCommunication),
                ..self.data_value(tag, &moment)
            };
            self.set(std::iter::once((id, None, lost)));
        }
        for at_us in times {
            let value = self.data_value(tag, &self.plant.at(at_us));
            self.set(std::iter::once((id, None, value)));
        }
    }

    fn set<'a>(&self, values: impl Iterator<Item = (&'a NodeId, Option<&'a NumericRange>, DataValue)>) {
        if let Err(status) = self.manager.set_values(self.handle.subscriptions(), values) {
            tracing::error!(%status, "opc ua variables not updated");
        }
    }
}

fn is_ahead(tag: &SimTag, moment: &Moment) -> bool {
    tag.line == "L3" && moment.since_us(Fault::F10).is_some()
}

impl PlantOpcUa {
    /// Serves on `listener` until the token given to [`build`] is cancelled.
    ///
    /// # Errors
    /// [`SimulateError::OpcUa`] when the server stops by itself.
    pub async fn serve(self, listener: TcpListener) -> Result<(), SimulateError> {
        let Self {
            server,
            mut variables,
        } = self;
        let stop = variables.handle.token().clone();
        let mut run = std::pin::pin!(server.run_with(listener));
        let period = variables.plant.clock.wall(TICK).max(WALL_TICK_MIN);
        let mut tick = tokio::time::interval(period);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                ended = &mut run => return ended.map_err(SimulateError::OpcUa),
                _ = tick.tick(), if !stop.is_cancelled() => variables.refresh(),
            }
        }
    }
}
