//! How is a device reached? Over TCP, or over a serial line.

use std::fmt;

/// Where requests go. Devices with the same endpoint share one connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// Modbus TCP at `host:port`.
    Tcp(String),
    /// Modbus RTU on a serial line.
    Serial(Serial),
}

/// A serial line; eight data bits, as RTU has it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Serial {
    /// The port's device file.
    pub path: String,
    /// Bits per second.
    pub baud: u32,
    /// Parity bit.
    pub parity: Parity,
    /// Stop bits, 1 or 2.
    pub stop_bits: u8,
}

/// A serial line's parity bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Parity {
    /// None.
    None,
    /// Even: what the standard asks for.
    Even,
    /// Odd.
    Odd,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => f.write_str(address),
            Self::Serial(serial) => f.write_str(&serial.path),
        }
    }
}
