//! How is a value written to a device, and who may? Only devices with `writes_enabled = true` are written to, and a
//! write counts only when the device, asked again, holds the value.

use std::{fmt, time::Duration};

use tokio_modbus::{Request, Response};

use super::{
    client::values,
    config::Device,
    endpoint::Endpoint,
    line::{Asking, Line, Lines},
};
use crate::source::error::SourceError;

/// Most registers in one write (Modbus application protocol, 6.12).
const REGISTERS_MAX: usize = 123;

/// What is to be written, and where: 0-based protocol addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// One coil (function 05).
    Coil {
        /// Address.
        address: u16,
        /// On or off.
        value: bool,
    },
    /// One holding register (function 06).
    Register {
        /// Address.
        address: u16,
        /// Value.
        value: u16,
    },
    /// Neighbouring holding registers in one request (function 16).
    Registers {
        /// Address of the first.
        address: u16,
        /// Values, 1 to 123.
        values: Vec<u16>,
    },
}

/// Why a value was not written, or is not known to be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The device may not be written to.
    #[error(
        "`{device}` is read-only: set `writes_enabled = true` in its `[[modbus]]` to let the agent write to it"
    )]
    Disabled {
        /// The device.
        device: String,
    },
    /// The registers do not exist or do not fit into one request.
    #[error("{what} cannot be written: 1 to 123 registers that end at 65535 or before fit into one request")]
    Range {
        /// What was to be written.
        what: String,
    },
    /// The device took the write and holds something else.
    #[error("{what} was written and reads back as {found:?}: the device did not take the value over")]
    NotTaken {
        /// What was written.
        what: String,
        /// What the device holds; bits as 0 and 1.
        found: Vec<u16>,
    },
}

impl fmt::Display for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Coil { address, value } => write!(f, "coil {address} = {}", u8::from(*value)),
            Self::Register { address, value } => write!(f, "holding register {address} = {value}"),
            Self::Registers { address, values } => write!(f, "holding registers from {address} = {values:?}"),
        }
    }
}

/// Writes to a configured device in turn with its polls, on the connection that they use.
///
/// # Errors
/// [`WriteError::Disabled`] before anything is sent when the device is read-only; otherwise as [`write()`].
pub async fn write_to(device: &Device, lines: &Lines, what: &Write) -> Result<(), SourceError> {
    if !device.writes_enabled {
        let device = device.name.clone();
        return Err(WriteError::Disabled { device }.into());
    }
    let asking = Asking {
        unit_id: device.unit_id,
        limit: device.timeout,
        pause: device.pause,
        may_repeat: false,
    };
    if device.has_own_connection {
        exchange(&Line::new(device.endpoint.clone()), asking, what).await
    } else {
        exchange(&lines.line(&device.endpoint), asking, what).await
    }
}

/// Writes on a connection of its own to `address` (`host:port`) and reads back. Whoever calls this has the permission
/// already: [`write_to`] asks for it. Nothing is sent twice; each of the two requests has `timeout`.
///
/// # Errors
/// [`WriteError::Range`], [`WriteError::NotTaken`], and those of the exchange. After a timeout or a transport error
/// it is not known whether the device took the value.
pub async fn write(address: &str, unit_id: u8, timeout: Duration, what: &Write) -> Result<(), SourceError> {
    let asking = Asking {
        unit_id,
        limit: timeout,
        pause: Duration::ZERO,
        may_repeat: false,
    };
    exchange(&Line::new(Endpoint::Tcp(address.to_owned())), asking, what).await
}

async fn exchange(line: &Line, asking: Asking, what: &Write) -> Result<(), SourceError> {
    let request = what.request()?;
    let reply = line.exchange(asking, request).await?;
    what.check_echo(&reply)?;
    let (read_back, wanted) = what.read_back();
    let reading = Asking {
        may_repeat: true,
        ..asking
    };
    let reply = line.exchange(reading, read_back).await?;
    let found = values(reply, wanted.len() as u16)?;
    if found == wanted {
        return Ok(());
    }
    let what = what.to_string();
    Err(WriteError::NotTaken { what, found }.into())
}

impl Write {
    fn request(&self) -> Result<Request<'static>, WriteError> {
        match self {
            Self::Coil { address, value } => Ok(Request::WriteSingleCoil(*address, *value)),
            Self::Register { address, value } => Ok(Request::WriteSingleRegister(*address, *value)),
            Self::Registers { address, values } => {
                let fits = usize::from(*address) + values.len() <= 65_536;
                if values.is_empty() || values.len() > REGISTERS_MAX || !fits {
                    let what = self.to_string();
                    return Err(WriteError::Range { what });
                }
                Ok(Request::WriteMultipleRegisters(*address, values.clone().into()))
            }
        }
    }

    /// The reply repeats what was asked.
    fn check_echo(&self, reply: &Response) -> Result<(), WriteError> {
        let (is_echo, found) = match (self, reply) {
            (Self::Coil { address, value }, Response::WriteSingleCoil(at, echo)) => {
                (at == address && echo == value, vec![u16::from(*echo)])
            }
            (Self::Register { address, value }, Response::WriteSingleRegister(at, echo)) => {
                (at == address && echo == value, vec![*echo])
            }
            (Self::Registers { address, values }, Response::WriteMultipleRegisters(at, count)) => {
                (at == address && usize::from(*count) == values.len(), Vec::new())
            }
            _ => (false, Vec::new()),
        };
        if is_echo {
            return Ok(());
        }
        let what = self.to_string();
        Err(WriteError::NotTaken { what, found })
    }

    /// The request that reads the same place, and what it must answer.
    fn read_back(&self) -> (Request<'static>, Vec<u16>) {
        match self {
            Self::Coil { address, value } => (Request::ReadCoils(*address, 1), vec![u16::from(*value)]),
            Self::Register { address, value } => (Request::ReadHoldingRegisters(*address, 1), vec![*value]),
            Self::Registers { address, values } => (
                Request::ReadHoldingRegisters(*address, values.len() as u16),
                values.clone(),
            ),
        }
    }
}
