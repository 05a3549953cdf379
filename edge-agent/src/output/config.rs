//! What does `[[output]]` say? A coil, a register or a node that a control point drives, and where it is.

use std::time::Duration;

use crate::{
    config::{At, Names, Section},
    source::{
        modbus::{config::Device, endpoint::Endpoint},
        opcua::config::{NodeIdentifier, Server},
    },
};

/// One output of the plant.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// Name, unique among outputs.
    pub name: String,
    /// Where it is.
    pub target: Target,
    /// Written when the agent stops and no longer watches; nothing is written then without one.
    pub safe: Option<f64>,
}

/// Where an output is.
#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    /// Of a Modbus device.
    Modbus {
        /// `host:port`.
        address: String,
        /// Unit id.
        unit_id: u8,
        /// No reply within this is a failure.
        timeout: Duration,
        /// Which one.
        place: Place,
    },
    /// A node of an OPC UA server.
    Opcua {
        /// The server.
        server: Box<Server>,
        /// The node.
        node: NodeIdentifier,
    },
}

/// Which coil or register; 0-based protocol addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A coil: 0 or 1.
    Coil(u16),
    /// A holding register: 0 to 65535.
    Register(u16),
}

impl Target {
    /// Why a value cannot be written here.
    pub fn refuses(&self, value: f64) -> Option<String> {
        let Self::Modbus { place, .. } = self else {
            return None;
        };
        let (what, max) = match place {
            Place::Coil(_) => ("a coil is 0 or 1", 1.0),
            Place::Register(_) => ("a register holds whole numbers from 0 to 65535", 65_535.0),
        };
        let fits = value.fract() == 0.0 && (0.0..=max).contains(&value);
        (!fits).then(|| format!("{what}, not {value}"))
    }
}

/// Reads one `[[output]]`.
pub fn read_output(
    section: &Section<'_>,
    (devices, servers): (&[Device], &[Server]),
    names: &mut Names,
) -> Option<Output> {
    let name = section.required_text("name");
    if let Some(name) = &name {
        names.claim(section, "output", name);
    }
    let target = match (section.has("device"), section.has("server")) {
        (true, false) => read_modbus(section, devices),
        (false, true) => read_opcua(section, servers),
        _ => {
            section
                .fault("an output needs either `device` with `coil` or `register`, or `server` with `node`");
            None
        }
    };
    let safe = section.number("safe");
    if let (Some(safe), Some(target)) = (&safe, &target)
        && let Some(reason) = target.refuses(safe.value)
    {
        section.fault_at(&safe.span, reason);
    }
    Some(Output {
        name: name?.value,
        target: target?,
        safe: safe.map(|at| at.value),
    })
}

fn read_modbus(section: &Section<'_>, devices: &[Device]) -> Option<Target> {
    let at = section.required_text("device")?;
    let coil = section.integer("coil", 0..=65_535);
    let register = section.integer("register", 0..=65_535);
    let place = match (coil, register) {
        (Some(address), None) => Some(Place::Coil(address as u16)),
        (None, Some(address)) => Some(Place::Register(address as u16)),
        _ => {
            section.fault("name one of `coil` and `register` (0-based protocol address)");
            None
        }
    };
    let Some(device) = devices.iter().find(|device| device.name == at.value) else {
        unknown(section, &at, "[[modbus]]");
        return None;
    };
    may_write(section, &at, device.writes_enabled, "[[modbus]]");
    let Endpoint::Tcp(address) = &device.endpoint else {
        let message = "an output needs a device on the network: its writes must not wait for the polls of a serial line";
        section.fault_at(&at.span, message);
        return None;
    };
    Some(Target::Modbus {
        address: address.clone(),
        unit_id: device.unit_id,
        timeout: device.timeout,
        place: place?,
    })
}

fn read_opcua(section: &Section<'_>, servers: &[Server]) -> Option<Target> {
    let at = section.required_text("server")?;
    let node = section.required_text("node").and_then(|at| {
        let node = NodeIdentifier::parse(&at.value);
        if node.is_none() {
            let message = format!(
                "`{}` is no node identifier: write \"s=NAME\" or \"i=NUMBER\"",
                at.value
            );
            section.fault_at(&at.span, message);
        }
        node
    });
    let Some(server) = servers.iter().find(|server| server.name == at.value) else {
        unknown(section, &at, "[[opcua]]");
        return None;
    };
    may_write(section, &at, server.writes_enabled, "[[opcua]]");
    Some(Target::Opcua {
        server: Box::new(server.clone()),
        node: node?,
    })
}

fn unknown(section: &Section<'_>, at: &At<String>, kind: &str) {
    section.fault_at(&at.span, format!("no `{kind}` is named `{}`", at.value));
}

fn may_write(section: &Section<'_>, at: &At<String>, is_enabled: bool, kind: &str) {
    if !is_enabled {
        let message = format!(
            "`{}` is read-only: set `writes_enabled = true` in its `{kind}` to let the agent write to it",
            at.value
        );
        section.fault_at(&at.span, message);
    }
}
