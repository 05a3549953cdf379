//! Which points does the simulated plant have, where are they served and how does each one behave?
//! The list is data, `akron.csv`; its addresses and node names are a contract with every agent configuration
//! written against the simulator.

use std::{collections::HashMap, sync::LazyLock};

/// Namespace URI under which the OPC UA nodes live.
pub const NAMESPACE_URI: &str = "urn:foodflow:akron";

/// The Modbus unit id that carries the plant's registers.
pub const UNIT_ID: u8 = 1;

/// The four tables of a Modbus device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Table {
    /// Read and written, 16 bits each.
    Holding,
    /// Read only, 16 bits each.
    Input,
    /// Read and written, one bit each.
    Coil,
    /// Read only, one bit each.
    Discrete,
}

impl Table {
    /// As an agent's configuration calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Holding => "holding",
            Self::Input => "input",
            Self::Coil => "coil",
            Self::Discrete => "discrete",
        }
    }

    /// Whether its places hold one bit instead of a word.
    pub fn is_bits(self) -> bool {
        matches!(self, Self::Coil | Self::Discrete)
    }
}

/// Where a tag is served.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Port {
    /// A register of unit 1: `raw = value * 10^digits`.
    Register {
        /// Holding or input.
        table: Table,
        /// 0-based protocol address.
        address: u16,
        /// Decimal digits carried by the integer.
        digits: u8,
        /// Two's complement (`i16`) or plain (`u16`).
        signed: bool,
    },
    /// A bit of unit 1.
    Bit {
        /// Coil or discrete input.
        table: Table,
        /// 0-based protocol address.
        address: u16,
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
    /// A controlled variable: mean, slow wander and white noise of this standard deviation.
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
    /// Whether a batch is in the kettle: from a minute after loading to a minute before the next.
    KettleState {
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
    /// A 16-bit counter that rolls over.
    Counter {
        /// Counts a minute.
        per_min: f64,
    },
    /// The net weight of the last pack, grams: label, 4.1 g more, and noise from pack to pack.
    Weight {
        /// What the label says, grams.
        label: f64,
        /// Standard deviation from pack to pack, grams.
        spread: f64,
        /// Packs a minute.
        per_min: f64,
    },
    /// A metal detector's hourly challenge: for a minute 1 when it passed, 2 when it failed; 0 otherwise.
    Challenge {
        /// When in the hour, minutes.
        offset_min: f64,
    },
    /// A cold store's air.
    ColdStore {
        /// Which, 1 to 4.
        number: u8,
    },
    /// A cold store's door: 1 open.
    Door {
        /// Which, 1 to 4.
        number: u8,
    },
    /// A cold store's defrost: 1 on.
    Defrost {
        /// Which, 1 to 4.
        number: u8,
    },
    /// The step of cleaning in place on line 1, 0 in production.
    Cip,
    /// Conductivity of the CIP return.
    CipConductivity,
    /// Temperature of the CIP return.
    CipTemperature,
    /// Flow of the CIP return.
    CipFlow,
    /// State of the line: 1 running, 2 CIP, 3 down.
    State,
    /// Code of the product on the kettle line.
    Sku,
    /// Whether the allergen swab of the last changeover passed.
    Swab,
    /// Power or vibration of a motor.
    Motor {
        /// Its place in the order in which a power dip takes them.
        place: u8,
        /// Mean while it runs.
        mean: f64,
        /// Standard deviation.
        noise: f64,
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

/// Every point of the simulated plant, in the order of `akron.csv`.
pub static TAGS: LazyLock<Vec<SimTag>> = LazyLock::new(|| {
    let rows = include_str!("akron.csv").lines().skip(1);
    rows.map(|row| parse(row).expect("akron.csv is part of the program and tested"))
        .collect()
});

static BY_NAME: LazyLock<HashMap<&'static str, usize>> =
    LazyLock::new(|| TAGS.iter().enumerate().map(|(n, tag)| (tag.name, n)).collect());

static BY_PLACE: LazyLock<HashMap<(Table, u16), usize>> = LazyLock::new(|| {
    let places = TAGS.iter().enumerate().filter_map(|(n, tag)| match tag.port {
        Port::Register { table, address, .. } | Port::Bit { table, address } => Some(((table, address), n)),
        Port::OpcUa { .. } => None,
    });
    places.collect()
});

/// `name,line,unit,period_ms,port,process,description`; only the description may hold commas.
fn parse(row: &'static str) -> Option<SimTag> {
    let mut cells = row.splitn(7, ',');
    let mut cell = || cells.next();
    let (name, line, unit) = (cell()?, cell()?, cell()?);
    let period_ms = cell()?.parse().ok()?;
    Some(SimTag {
        name,
        line,
        unit,
        period_ms,
        port: port(cell()?)?,
        process: process(cell()?)?,
        description: cell()?,
    })
}

fn port(text: &'static str) -> Option<Port> {
    let (kind, rest) = text.split_once(':')?;
    let table = match kind {
        "node" => return Some(Port::OpcUa { node: rest }),
        "holding" => Table::Holding,
        "input" => Table::Input,
        "coil" => Table::Coil,
        "discrete" => Table::Discrete,
        _ => return None,
    };
    if table.is_bits() {
        let address = rest.parse().ok()?;
        return Some(Port::Bit { table, address });
    }
    let mut parts = rest.split(':');
    Some(Port::Register {
        table,
        address: parts.next()?.parse().ok()?,
        digits: parts.next()?.parse().ok()?,
        signed: parts.next()? == "s",
    })
}

fn process(text: &str) -> Option<Process> {
    let mut parts = text.split(':');
    let kind = parts.next()?;
    let mut number = || parts.next()?.parse::<f64>().ok();
    Some(match kind {
        "steady" => Process::Steady {
            mean: number()?,
            noise: number()?,
        },
        "tube" => Process::HoldingTube { bias: number()? },
        "valve" => Process::DiversionValve,
        "kettle" => Process::Kettle {
            offset_min: number()?,
        },
        "kettle_state" => Process::KettleState {
            offset_min: number()?,
        },
        "chiller" => Process::Chiller {
            offset_min: number()?,
            rate_per_min: number()?,
        },
        "tray" => Process::Tray {
            mean: number()?,
            spread: number()?,
        },
        "counter" => Process::Counter { per_min: number()? },
        "weight" => Process::Weight {
            label: number()?,
            spread: number()?,
            per_min: number()?,
        },
        "challenge" => Process::Challenge {
            offset_min: number()?,
        },
        "cold_store" => Process::ColdStore {
            number: number()? as u8,
        },
        "door" => Process::Door {
            number: number()? as u8,
        },
        "defrost" => Process::Defrost {
            number: number()? as u8,
        },
        "cip" => Process::Cip,
        "conductivity" => Process::CipConductivity,
        "cip_temperature" => Process::CipTemperature,
        "cip_flow" => Process::CipFlow,
        "state" => Process::State,
        "sku" => Process::Sku,
        "swab" => Process::Swab,
        "motor" => Process::Motor {
            place: number()? as u8,
            mean: number()?,
            noise: number()?,
        },
        _ => return None,
    })
}

impl SimTag {
    /// Whether this tag counts whole things or names a state, so that its value is an integer.
    pub fn is_whole(&self) -> bool {
        self.name.ends_with("-RATE")
            || matches!(
                self.process,
                Process::DiversionValve
                    | Process::Counter { .. }
                    | Process::Challenge { .. }
                    | Process::KettleState { .. }
                    | Process::Door { .. }
                    | Process::Defrost { .. }
                    | Process::Cip
                    | Process::State
                    | Process::Sku
                    | Process::Swab
            )
    }
}

/// Finds a tag by name.
pub fn find(name: &str) -> Option<&'static SimTag> {
    BY_NAME.get(name).map(|n| &TAGS[*n])
}

/// The tag served at a place of the plant's unit, if the place is mapped.
pub fn at(table: Table, address: u16) -> Option<&'static SimTag> {
    BY_PLACE.get(&(table, address)).map(|n| &TAGS[*n])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_row_of_the_list_is_a_tag_and_no_name_or_place_is_used_twice() {
        let names: BTreeSet<_> = TAGS.iter().map(|tag| tag.name).collect();
        let ports: BTreeSet<_> = TAGS.iter().map(|tag| format!("{:?}", place(tag))).collect();
        assert_eq!((names.len(), ports.len()), (TAGS.len(), TAGS.len()));
        assert!(TAGS.len() >= 140, "{}", TAGS.len());
        assert!(TAGS.iter().all(|tag| tag.period_ms >= 1_000));
    }

    fn place(tag: &SimTag) -> (Option<Table>, u16, &'static str) {
        match tag.port {
            Port::Register { table, address, .. } | Port::Bit { table, address } => {
                (Some(table), address, "")
            }
            Port::OpcUa { node } => (None, 0, node),
        }
    }

    #[test]
    fn the_first_registers_stay_where_every_written_configuration_expects_them() {
        let mapped: Vec<u16> = (0..64)
            .filter(|address| at(Table::Holding, *address).is_some())
            .collect();
        assert_eq!(mapped, (0..8).chain(20..27).collect::<Vec<u16>>());
        assert_eq!(at(Table::Holding, 0).map(|tag| tag.name), Some("TT-101"));
        assert_eq!(at(Table::Holding, 26).map(|tag| tag.name), Some("L2-RATE"));
    }

    #[test]
    fn a_row_that_says_nothing_known_is_refused() {
        for bad in [
            "",
            "T,L1,degC,1000,holding:1:0:s,guess,x",
            "T,L1,degC,1000,nowhere:1,valve,x",
            "T,L1,degC,soon,holding:1:0:s,valve,x",
            "T,L1,degC,1000,holding:1:0:s,steady:1,x",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
