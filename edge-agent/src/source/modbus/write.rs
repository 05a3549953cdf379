//! How is a value written to a device? On a connection of its own, and it counts only when the device, asked again,
//! holds the value.

use std::{fmt, time::Duration};

use tokio::{net::TcpStream, time::timeout};
use tokio_modbus::{
    client::{Context, Reader as _, Writer as _, tcp},
    slave::Slave,
};

use crate::source::error::SourceError;

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
}

/// Why a value is not known to be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
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
        }
    }
}

/// Writes on a connection of its own to `address` (`host:port`) and reads back.
///
/// # Errors
/// [`WriteError::NotTaken`], and those of the exchange. After a timeout it is not known whether the device took the
/// value.
pub async fn write(address: &str, unit_id: u8, limit: Duration, what: &Write) -> Result<(), SourceError> {
    timeout(limit, exchange(address, unit_id, what))
        .await
        .unwrap_or_else(|_| {
            Err(SourceError::Timeout {
                address: address.to_owned(),
                limit,
            })
        })
}

async fn exchange(address: &str, unit_id: u8, what: &Write) -> Result<(), SourceError> {
    let connect_error = |source| SourceError::Connect {
        address: address.to_owned(),
        source,
    };
    let stream = TcpStream::connect(address).await.map_err(connect_error)?;
    stream.set_nodelay(true).map_err(connect_error)?;
    let mut context = tcp::attach_slave(stream, Slave(unit_id));
    let found = put(&mut context, what)
        .await
        .map_err(|source| SourceError::Transport {
            address: address.to_owned(),
            source,
        })?
        .map_err(SourceError::Refused)?;
    let wanted = match what {
        Write::Coil { value, .. } => u16::from(*value),
        Write::Register { value, .. } => *value,
    };
    if found == [wanted] {
        return Ok(());
    }
    let what = what.to_string();
    Err(WriteError::NotTaken { what, found }.into())
}

async fn put(context: &mut Context, what: &Write) -> tokio_modbus::Result<Vec<u16>> {
    match *what {
        Write::Coil { address, value } => {
            if let Err(refused) = context.write_single_coil(address, value).await? {
                return Ok(Err(refused));
            }
            let bits = context.read_coils(address, 1).await?;
            Ok(bits.map(|bits| bits.into_iter().take(1).map(u16::from).collect()))
        }
        Write::Register { address, value } => {
            if let Err(refused) = context.write_single_register(address, value).await? {
                return Ok(Err(refused));
            }
            context.read_holding_registers(address, 1).await
        }
    }
}
