//! How are the lines that speak OPC UA served?
//! One server with security policy None for anonymous clients: it simulates a plant, it guards nothing.

use std::{path::Path, sync::Arc, time::Duration};

use opcua::{
    nodes::{AccessLevel, VariableBuilder},
    server::{
        ANONYMOUS_USER_TOKEN_ID, Server, ServerBuilder, ServerEndpoint, ServerHandle,
        address_space::Variable,
        diagnostics::NamespaceMetadata,
        node_manager::memory::{SimpleNodeManager, simple_node_manager},
    },
    types::{DataTypeId, DataValue, DateTime, NodeId},
};
use tokio::{net::TcpListener, time::MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::{
    SimulateError,
    state::{Moment, PlantState},
    tags::{NAMESPACE_URI, Port, SimTag, TAGS},
};

/// How often the variables are set, in wall time.
const TICK: Duration = Duration::from_millis(250);

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
            Port::Holding { .. } => None,
        })
        .collect();
    let variables = Variables {
        handle,
        manager,
        nodes,
        plant,
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
        let source_us = self.plant.clock.utc_us(moment.at_us());
        let source =
            chrono::DateTime::from_timestamp_micros(source_us).map_or_else(DateTime::now, DateTime::from);
        DataValue::new_at((moment.value(tag) * 1_000.0).round() / 1_000.0, source)
    }

    /// Sets every variable to what the plant shows now and notifies subscribers.
    fn refresh(&self) {
        let moment = self.plant.now();
        let values = self
            .nodes
            .iter()
            .map(|(tag, id)| (id, None, self.data_value(tag, &moment)));
        if let Err(status) = self.manager.set_values(self.handle.subscriptions(), values) {
            tracing::error!(%status, "opc ua variables not updated");
        }
    }
}

impl PlantOpcUa {
    /// Serves on `listener` until the token given to [`build`] is cancelled.
    ///
    /// # Errors
    /// [`SimulateError::OpcUa`] when the server stops by itself.
    pub async fn serve(self, listener: TcpListener) -> Result<(), SimulateError> {
        let Self { server, variables } = self;
        let stop = variables.handle.token().clone();
        let mut run = std::pin::pin!(server.run_with(listener));
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                ended = &mut run => return ended.map_err(SimulateError::OpcUa),
                _ = tick.tick(), if !stop.is_cancelled() => variables.refresh(),
            }
        }
    }
}
