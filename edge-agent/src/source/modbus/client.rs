//! How is one request asked and answered? A connection that is dropped at the first doubt: after a timeout the
//! late reply would answer the next request (tokio-modbus issue 324), so the whole connection goes.

use std::{io, time::Duration};

use tokio::{net::TcpStream, time::timeout};
use tokio_modbus::{
    ExceptionCode,
    client::{Context, Reader as _, tcp},
    slave::Slave,
};

use super::{decode::Table, plan::Block};
use crate::source::error::SourceError;

/// An open connection to one unit.
pub struct Connection {
    context: Context,
    address: String,
    limit: Duration,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl Connection {
    /// Connects within `limit`.
    pub async fn open(address: &str, unit_id: u8, limit: Duration) -> Result<Self, SourceError> {
        let stream = timeout(limit, TcpStream::connect(address))
            .await
            .unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut)))
            .and_then(|stream| stream.set_nodelay(true).map(|()| stream))
            .map_err(|source| SourceError::Connect {
                address: address.to_owned(),
                source,
            })?;
        Ok(Self {
            context: tcp::attach_slave(stream, Slave(unit_id)),
            address: address.to_owned(),
            limit,
        })
    }

    /// Reads a block; bits come as 0 and 1. After an error other than [`SourceError::Refused`] the connection
    /// must not be used again.
    pub async fn read(&mut self, block: &Block) -> Result<Vec<u16>, SourceError> {
        let limit = self.limit;
        let context = &mut self.context;
        let (start, count) = (block.start, block.count);
        let reply = timeout(limit, async {
            match block.table {
                Table::Holding => context.read_holding_registers(start, count).await,
                Table::Input => context.read_input_registers(start, count).await,
                Table::Coil => context.read_coils(start, count).await.map(as_registers),
                Table::Discrete => context.read_discrete_inputs(start, count).await.map(as_registers),
            }
        })
        .await
        .map_err(|_| SourceError::Timeout {
            address: self.address.clone(),
            limit,
        })?;
        let values = reply
            .map_err(|source| SourceError::Transport {
                address: self.address.clone(),
                source,
            })?
            .map_err(SourceError::Refused)?;
        let need = usize::from(count);
        if values.len() < need || (values.len() > need && !block.table.is_bits()) {
            return Err(SourceError::Length {
                need,
                have: values.len(),
            });
        }
        Ok(values)
    }
}

fn as_registers(bits: Result<Vec<bool>, ExceptionCode>) -> Result<Vec<u16>, ExceptionCode> {
    bits.map(|bits| bits.into_iter().map(u16::from).collect())
}
