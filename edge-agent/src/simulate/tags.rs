//! Which points does the simulated plant have, where are they served and how does each one behave?
//! The addresses and node names are a contract with every agent config written against the simulator.

/// Namespace URI under which the OPC UA nodes live.
pub const NAMESPACE_URI: &str = "urn:foodflow:akron";

/// The Modbus unit id that carries the plant's registers.
pub const UNIT_ID: u8 = 1;

/// Where a tag is served.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Port {
    /// A holding register of unit 1: `raw = value * 10^digits`.
    Holding {
        /// 0-based protocol address.
        address: u16,
        /// Decimal digits carried by the integer.
        digits: u8,
        /// Two's complement (`i16`) or plain (`u16`).
        signed: bool,
    },
    /// A Double variable with this string identifier in [`NAMESPACE_URI`].
    OpcUa {
        /// String identifier of the node, without `s=`.
        node: &'static str,
    },
}

/// How a tag's value comes about.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Process {
    /// A controlled variable: mean, slow wander and white noise.
    Steady {
        /// Set point.
        mean: f64,
        /// Standard deviation of the white noise.
        noise: f64,
    },
    /// A probe in the HTST holding tube: the shared product temperature plus the probe's own error.
    HoldingTube {
        /// Constant offset of this probe, °C.
        bias: f64,
    },
    /// The flow-diversion valve: 1 forward, 0 divert.
    DiversionValve,
    /// Kettle core: heat 60→92 °C, hold, discharge, one batch every 45 minutes.
    Kettle {
        /// Phase of this kettle in its cycle, minutes.
        offset_min: f64,
    },
    /// Warmest core in a blast chiller: Newton cooling from 60 °C towards the air, one load in 200 minutes.
    Chiller {
        /// Phase of this chiller in its cycle, minutes.
        offset_min: f64,
        /// Cooling constant, 1/min.
        rate_per_min: f64,
    },
    /// A probed tray: one new core temperature every two minutes, with the probe's small jitter on top.
    Tray {
        /// Mean core temperature of trays, °C.
        mean: f64,
        /// Standard deviation from tray to tray, °C.
        spread: f64,
    },
}

/// One simulated point.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SimTag {
    /// Name, unique in the tenant.
    pub name: &'static str,
    /// Line code, `L1` to `L4`.
    pub line: &'static str,
    /// Unit of the value; empty when it has none.
    pub unit: &'static str,
    /// What an operator would call it.
    pub description: &'static str,
    /// Where it is served.
    pub port: Port,
    /// How it behaves.
    pub process: Process,
    /// The sampling period an agent should use, in milliseconds.
    pub period_ms: u32,
}

const fn holding(address: u16) -> Port {
    Port::Holding {
        address,
        digits: 2,
        signed: true,
    }
}

const fn count(address: u16) -> Port {
    Port::Holding {
        address,
        digits: 0,
        signed: false,
    }
}

const fn tag(
    (name, line, unit, period_ms): (&'static str, &'static str, &'static str, u32),
    port: Port,
    process: Process,
    description: &'static str,
) -> SimTag {
    SimTag {
        name,
        line,
        unit,
        description,
        port,
        process,
        period_ms,
    }
}

const fn steady(mean: f64, noise: f64) -> Process {
    Process::Steady { mean, noise }
}

const fn node(node: &'static str) -> Port {
    Port::OpcUa { node }
}

/// Every point of the simulated plant.
pub const TAGS: [SimTag; 26] = [
    tag(
        ("TT-101", "L1", "degC", 1_000),
        holding(0),
        Process::HoldingTube { bias: 0.0 },
        "HTST holding tube outlet",
    ),
    tag(
        ("TT-102", "L1", "degC", 1_000),
        holding(1),
        Process::HoldingTube { bias: 0.08 },
        "HTST recorder probe",
    ),
    tag(
        ("FT-103", "L1", "L/h", 1_000),
        count(2),
        steady(8_950.0, 40.0),
        "HTST product flow",
    ),
    tag(
        ("PT-104", "L1", "kPa", 1_000),
        holding(3),
        steady(140.0, 3.0),
        "Regenerator pressure, raw side",
    ),
    tag(
        ("PT-105", "L1", "kPa", 1_000),
        Port::Holding {
            address: 4,
            digits: 1,
            signed: true,
        },
        steady(175.0, 3.0),
        "Regenerator pressure, pasteurised side",
    ),
    tag(
        ("ZS-106", "L1", "", 1_000),
        count(5),
        Process::DiversionValve,
        "Flow-diversion valve, 1 forward, 0 divert",
    ),
    tag(
        ("TT-107", "L1", "degC", 5_000),
        holding(6),
        steady(3.4, 0.15),
        "Product cold outlet",
    ),
    tag(
        ("L1-RATE", "L1", "1/min", 1_000),
        count(7),
        steady(156.0, 1.5),
        "Bottles filled a minute",
    ),
    tag(
        ("TT-201", "L2", "degC", 1_000),
        holding(20),
        Process::Kettle { offset_min: 0.0 },
        "Kettle K1 core",
    ),
    tag(
        ("TT-202", "L2", "degC", 1_000),
        holding(21),
        Process::Kettle { offset_min: 15.0 },
        "Kettle K2 core",
    ),
    tag(
        ("TT-203", "L2", "degC", 1_000),
        holding(22),
        Process::Kettle { offset_min: 30.0 },
        "Kettle K3 core",
    ),
    tag(
        ("TT-204", "L2", "degC", 10_000),
        holding(23),
        Process::Chiller {
            offset_min: 40.0,
            rate_per_min: 0.0140,
        },
        "Blast chiller 1 warmest core",
    ),
    tag(
        ("TT-205", "L2", "degC", 10_000),
        holding(24),
        Process::Chiller {
            offset_min: 120.0,
            rate_per_min: 0.0135,
        },
        "Blast chiller 2 warmest core",
    ),
    tag(
        ("TT-206", "L2", "degC", 10_000),
        holding(25),
        steady(-2.0, 0.6),
        "Blast chiller air",
    ),
    tag(
        ("L2-RATE", "L2", "1/min", 1_000),
        count(26),
        steady(38.0, 0.6),
        "Cups filled a minute",
    ),
    tag(
        ("TT-301", "L3", "degC", 2_000),
        node("L3.TT-301"),
        steady(186.0, 0.8),
        "Oven zone 1",
    ),
    tag(
        ("TT-302", "L3", "degC", 2_000),
        node("L3.TT-302"),
        steady(196.0, 0.8),
        "Oven zone 2",
    ),
    tag(
        ("TT-303", "L3", "degC", 2_000),
        node("L3.TT-303"),
        steady(202.0, 0.8),
        "Oven zone 3",
    ),
    tag(
        ("TT-304", "L3", "degC", 2_000),
        node("L3.TT-304"),
        steady(190.0, 0.8),
        "Oven zone 4",
    ),
    tag(
        ("TT-310", "L3", "degC", 2_000),
        node("L3.TT-310"),
        Process::Tray {
            mean: 80.5,
            spread: 1.1,
        },
        "Tray core after the oven",
    ),
    tag(
        ("ST-305", "L3", "m/min", 2_000),
        node("L3.ST-305"),
        steady(1.62, 0.01),
        "Oven belt speed",
    ),
    tag(
        ("L3-RATE", "L3", "1/min", 1_000),
        node("L3.RATE"),
        steady(58.0, 0.8),
        "Trays packed a minute",
    ),
    tag(
        ("AT-401", "L4", "ppm", 10_000),
        node("L4.AT-401"),
        steady(70.0, 2.0),
        "Wash water peracetic acid",
    ),
    tag(
        ("TT-402", "L4", "degC", 10_000),
        node("L4.TT-402"),
        steady(3.5, 0.3),
        "Wash water temperature",
    ),
    tag(
        ("TT-403", "L4", "degC", 30_000),
        node("L4.TT-403"),
        steady(3.8, 0.3),
        "Salad product temperature",
    ),
    tag(
        ("L4-RATE", "L4", "1/min", 1_000),
        node("L4.RATE"),
        steady(48.0, 0.7),
        "Salad packs a minute",
    ),
];

impl SimTag {
    /// Whether this tag counts whole things, so that its value is an integer.
    pub fn is_whole(&self) -> bool {
        self.unit == "1/min" || matches!(self.process, Process::DiversionValve)
    }
}

/// Finds a tag by name.
pub fn find(name: &str) -> Option<&'static SimTag> {
    TAGS.iter().find(|tag| tag.name == name)
}

/// The tag served at a holding register of the plant's unit, if the register is mapped.
pub fn at_holding(address: u16) -> Option<&'static SimTag> {
    TAGS.iter()
        .find(|tag| matches!(tag.port, Port::Holding { address: a, .. } if a == address))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_registers_and_nodes_are_unique() {
        let names: BTreeSet<_> = TAGS.iter().map(|tag| tag.name).collect();
        let ports: BTreeSet<_> = TAGS
            .iter()
            .map(|tag| match tag.port {
                Port::Holding { address, .. } => address.to_string(),
                Port::OpcUa { node } => node.to_owned(),
            })
            .collect();
        assert_eq!((names.len(), ports.len()), (TAGS.len(), TAGS.len()));
    }

    #[test]
    fn the_register_map_has_two_dense_blocks() {
        let mapped: Vec<u16> = (0..64).filter(|address| at_holding(*address).is_some()).collect();
        assert_eq!(mapped, (0..8).chain(20..27).collect::<Vec<u16>>());
    }
}
