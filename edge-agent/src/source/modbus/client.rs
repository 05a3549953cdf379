//! How is one request asked and answered? A reply counts only when it is the one that was asked for: its transaction,
//! unit, function and length are checked. After any doubt the connection must not be used again, because a late reply
//! would answer the next request (tokio-modbus issue 324).

use std::{io, time::Duration};

use tokio::{net::TcpStream, time::timeout};
use tokio_modbus::{
    Request, Response,
    client::{Client as _, Context, tcp},
    slave::{Slave, SlaveContext as _},
};

use super::{decode::Table, endpoint::Endpoint, plan::Block};
use crate::source::error::SourceError;

/// An open connection; any unit behind it can be asked.
pub struct Connection {
    context: Context,
    address: String,
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
    ///
    /// # Errors
    /// [`SourceError::Connect`].
    pub async fn open(endpoint: &Endpoint, limit: Duration) -> Result<Self, SourceError> {
        let context = match endpoint {
            Endpoint::Tcp(address) => timeout(limit, TcpStream::connect(address))
                .await
                .unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut)))
                .and_then(|stream| stream.set_nodelay(true).map(|()| stream))
                .map(tcp::attach),
            #[cfg(feature = "rtu")]
            Endpoint::Serial(serial) => super::serial::open(serial),
            #[cfg(not(feature = "rtu"))]
            Endpoint::Serial(_) => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "this program was built without serial lines (feature `rtu`)",
            )),
        };
        let address = endpoint.to_string();
        match context {
            Ok(context) => Ok(Self { context, address }),
            Err(source) => Err(SourceError::Connect { address, source }),
        }
    }

    /// Sends a request to a unit and waits for its reply within `limit`. After an error other than
    /// [`SourceError::Refused`] the connection must not be used again.
    ///
    /// # Errors
    /// [`SourceError::Timeout`], [`SourceError::Transport`] (a reply to something else included),
    /// [`SourceError::Refused`].
    pub async fn call(
        &mut self,
        unit_id: u8,
        request: Request<'_>,
        limit: Duration,
    ) -> Result<Response, SourceError> {
        self.context.set_slave(Slave(unit_id));
        timeout(limit, self.context.call(request))
            .await
            .map_err(|_| SourceError::Timeout {
                address: self.address.clone(),
                limit,
            })?
            .map_err(|source| SourceError::Transport {
                address: self.address.clone(),
                source,
            })?
            .map_err(SourceError::Refused)
    }
}

/// The request that reads a block.
pub fn read_request(block: &Block) -> Request<'static> {
    let (start, count) = (block.start, block.count);
    match block.table {
        Table::Coil => Request::ReadCoils(start, count),
        Table::Discrete => Request::ReadDiscreteInputs(start, count),
        Table::Holding => Request::ReadHoldingRegisters(start, count),
        Table::Input => Request::ReadInputRegisters(start, count),
    }
}

/// The values in a reply, exactly `count`; bits as 0 and 1.
///
/// # Errors
/// [`SourceError::Length`] when the reply holds another number of values; bits come in whole bytes.
pub fn values(response: Response, count: u16) -> Result<Vec<u16>, SourceError> {
    let need = usize::from(count);
    let (mut values, whole) = match response {
        Response::ReadHoldingRegisters(words) | Response::ReadInputRegisters(words) => (words, need),
        Response::ReadCoils(bits) | Response::ReadDiscreteInputs(bits) => {
            let bits: Vec<u16> = bits.into_iter().map(u16::from).collect();
            (bits, need.next_multiple_of(8))
        }
        _ => (Vec::new(), need),
    };
    if values.len() != whole {
        let have = values.len();
        return Err(SourceError::Length { need, have });
    }
    values.truncate(need);
    Ok(values)
}

#[cfg(test)]
mod tests {
    use rand::{Rng as _, SeedableRng as _};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// What a device answers to a request for three holding registers, from `pdu` on.
    async fn answered(pdu: Vec<u8>) -> Result<Vec<u16>, SourceError> {
        let (ours, mut theirs) = tokio::io::duplex(1024);
        let mut connection = Connection {
            context: tcp::attach(ours),
            address: "plc".to_owned(),
        };
        let device = async move {
            let mut request = [0u8; 12];
            theirs.read_exact(&mut request).await.unwrap();
            let mut reply = request[..4].to_vec();
            reply.extend_from_slice(&(pdu.len() as u16 + 1).to_be_bytes());
            reply.push(request[6]);
            reply.extend_from_slice(&pdu);
            theirs.write_all(&reply).await.unwrap();
        };
        let request = Request::ReadHoldingRegisters(0, 3);
        let (reply, ()) = tokio::join!(connection.call(1, request, Duration::from_secs(5)), device);
        values(reply?, 3)
    }

    #[tokio::test]
    async fn t13_whatever_bytes_come_there_are_as_many_values_as_asked_for_or_an_error() {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(3);
        let (mut values, mut errors) = (0, 0);
        for _ in 0..5_000 {
            let mut pdu: Vec<u8> = (0..rng.random_range(1..20)).map(|_| rng.random()).collect();
            pdu[0] = [3, 3, 3, 0x83, 1, 0x2B, rng.random()][rng.random_range(0..7)];
            if pdu.len() > 1 && rng.random() {
                pdu[1] = [6, 4, 8, (pdu.len() - 2) as u8][rng.random_range(0..4)];
            }
            match answered(pdu).await {
                Ok(found) => {
                    assert_eq!(found.len(), 3);
                    values += 1;
                }
                Err(_) => errors += 1,
            }
        }
        assert!(values > 0 && errors > 0, "{values} values, {errors} errors");
    }
}
