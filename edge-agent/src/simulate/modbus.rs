//! How does a simulated device answer Modbus TCP?
//! All four tables, writes where a bank takes them, and on demand what a source must survive: silence, delay,
//! exceptions, a closed connection. Written on the bare socket: it costs far less than the agent that it feeds.

use std::{io, sync::Arc, time::Duration};

use bytes::{Buf as _, BytesMut};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::{
    state::PlantState,
    tags::{Table, UNIT_ID},
};

/// Most registers and bits one request may read (Modbus application protocol, 6.1 to 6.4).
const REGISTERS_MAX: u16 = 125;
const BITS_MAX: u16 = 2_000;
/// Most registers and bits one request may write (6.11, 6.12).
const WRITTEN_REGISTERS_MAX: u16 = 123;
const WRITTEN_BITS_MAX: u16 = 1_968;
/// Transaction, protocol, length and unit.
const HEADER: usize = 7;
/// Most bytes of unit and PDU.
const LENGTH_MAX: usize = 254;
/// Places of the plant's unit that may be written: outputs for an agent's reactions.
const OUTPUT_REGISTERS: std::ops::Range<u16> = 1_000..1_100;
const OUTPUT_COILS: std::ops::Range<u16> = 0..64;

/// Why a device refuses: the code on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exception(pub u8);

impl Exception {
    /// The function is not supported.
    pub const ILLEGAL_FUNCTION: Self = Self(1);
    /// A place does not exist.
    pub const ILLEGAL_ADDRESS: Self = Self(2);
    /// A quantity or value is out of range.
    pub const ILLEGAL_VALUE: Self = Self(3);
    /// No such unit behind this gateway.
    pub const NO_TARGET: Self = Self(0x0B);
}

/// How a device treats requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Manner {
    /// It answers.
    #[default]
    Normal,
    /// It takes requests and never answers.
    Silent,
    /// It closes the connection.
    Refuse,
    /// It answers, so much later.
    Late(Duration),
    /// It answers every request with this exception.
    Refusal(Exception),
}

/// Something that owns registers and bits.
pub trait RegisterBank: Send + Sync + 'static {
    /// Hands each of the places `address..address + quantity` of `unit` to `put`, in order.
    ///
    /// # Errors
    /// The exception a PLC would answer.
    fn read(&self, unit: u8, table: Table, places: Places, put: &mut dyn FnMut(u16))
    -> Result<(), Exception>;

    /// Takes values for the places from `address` on.
    ///
    /// # Errors
    /// The exception a PLC would answer.
    fn write(&self, unit: u8, table: Table, address: u16, values: &[u16]) -> Result<(), Exception>;

    /// How the unit behaves now.
    fn manner(&self, unit: u8) -> Manner;
}

/// Places that are read together; the last one is at most 65,535.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Places {
    /// First address.
    pub address: u16,
    /// How many.
    pub quantity: u16,
}

/// The Akron map: unit 1, computed from the plant at the moment of the request.
#[derive(Debug, Clone)]
pub struct PlantRegisters(pub PlantState);

impl RegisterBank for PlantRegisters {
    fn read(
        &self,
        unit: u8,
        table: Table,
        Places { address, quantity }: Places,
        put: &mut dyn FnMut(u16),
    ) -> Result<(), Exception> {
        if unit != UNIT_ID {
            return Err(Exception::NO_TARGET);
        }
        let moment = self.0.now();
        for address in (address..=u16::MAX).take(usize::from(quantity)) {
            let value = if is_output(table, address) {
                self.0.writes.value(unit, table, address)
            } else {
                moment
                    .register(table, address)
                    .ok_or(Exception::ILLEGAL_ADDRESS)?
            };
            put(value);
        }
        Ok(())
    }

    fn write(&self, unit: u8, table: Table, address: u16, values: &[u16]) -> Result<(), Exception> {
        if unit != UNIT_ID {
            return Err(Exception::NO_TARGET);
        }
        let last = usize::from(address) + values.len() - 1;
        let fits = u16::try_from(last).is_ok_and(|last| is_output(table, last)) && is_output(table, address);
        if !fits {
            return Err(Exception::ILLEGAL_ADDRESS);
        }
        self.0.writes.note(unit, table, address, values);
        Ok(())
    }

    fn manner(&self, _unit: u8) -> Manner {
        Manner::Normal
    }
}

fn is_output(table: Table, address: u16) -> bool {
    match table {
        Table::Holding => OUTPUT_REGISTERS.contains(&address),
        Table::Coil => OUTPUT_COILS.contains(&address),
        Table::Input | Table::Discrete => false,
    }
}

/// Serves `bank` on `listener` until `stop`.
///
/// # Errors
/// When the listener itself fails; a client's broken connection only ends that client.
pub async fn serve(
    listener: TcpListener,
    bank: Arc<dyn RegisterBank>,
    stop: CancellationToken,
) -> io::Result<()> {
    let mut clients = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            accepted = listener.accept() => {
                let (stream, _) = accepted?;
                let bank = bank.clone();
                clients.spawn(async move {
                    if let Err(error) = converse(stream, &*bank).await {
                        tracing::debug!(%error, "modbus client gone");
                    }
                });
            }
            Some(_) = clients.join_next() => {}
        }
    }
}

async fn converse(mut stream: TcpStream, bank: &dyn RegisterBank) -> io::Result<()> {
    // Small replies to small requests: waiting to fill a segment would add 40 ms to each poll.
    stream.set_nodelay(true)?;
    let mut input = BytesMut::with_capacity(4_096);
    let mut output = Vec::with_capacity(512);
    loop {
        while let Some(length) = whole_request(&input)? {
            let manner = bank.manner(input[HEADER - 1]);
            match manner {
                Manner::Refuse => return Ok(()),
                Manner::Late(by) => {
                    stream.write_all(&output).await?;
                    output.clear();
                    tokio::time::sleep(by).await;
                }
                Manner::Normal | Manner::Silent | Manner::Refusal(_) => {}
            }
            if manner != Manner::Silent {
                let refusal = match manner {
                    Manner::Refusal(exception) => Some(exception),
                    _ => None,
                };
                reply(&input[..length], bank, refusal, &mut output);
            }
            input.advance(length);
        }
        if !output.is_empty() {
            stream.write_all(&output).await?;
            output.clear();
        }
        if stream.read_buf(&mut input).await? == 0 {
            return Ok(());
        }
    }
}

/// The length of the request at the front, once all of it is there.
fn whole_request(input: &[u8]) -> io::Result<Option<usize>> {
    if input.len() < HEADER {
        return Ok(None);
    }
    let length = usize::from(word(input, 4));
    if word(input, 2) != 0 || !(2..=LENGTH_MAX).contains(&length) {
        return Err(io::Error::other("not Modbus TCP"));
    }
    let whole = HEADER - 1 + length;
    Ok((input.len() >= whole).then_some(whole))
}

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn reply(request: &[u8], bank: &dyn RegisterBank, refusal: Option<Exception>, output: &mut Vec<u8>) {
    let start = output.len();
    output.extend_from_slice(&request[..HEADER]);
    let (unit, pdu) = (request[HEADER - 1], &request[HEADER..]);
    let done = refusal.map_or_else(|| answer(unit, pdu, bank, output), Err);
    if let Err(Exception(code)) = done {
        output.truncate(start + HEADER);
        output.extend_from_slice(&[pdu[0] | 0x80, code]);
    }
    let length = (output.len() - start - HEADER + 1) as u16;
    output[start + 4..start + 6].copy_from_slice(&length.to_be_bytes());
}

fn answer(unit: u8, pdu: &[u8], bank: &dyn RegisterBank, output: &mut Vec<u8>) -> Result<(), Exception> {
    let table = match pdu[0] {
        1 | 5 | 15 => Table::Coil,
        2 => Table::Discrete,
        3 | 6 | 16 => Table::Holding,
        4 => Table::Input,
        _ => return Err(Exception::ILLEGAL_FUNCTION),
    };
    if pdu.len() < 5 {
        return Err(Exception::ILLEGAL_VALUE);
    }
    let (address, second) = (word(pdu, 1), word(pdu, 3));
    if pdu[0] <= 4 {
        let places = Places {
            address,
            quantity: second,
        };
        return read(unit, table, places, pdu[0], bank, output);
    }
    let values = match pdu[0] {
        5 if second == 0xFF00 => vec![1],
        5 if second == 0 => vec![0],
        6 => vec![second],
        15 | 16 => many(pdu, table, second)?,
        _ => return Err(Exception::ILLEGAL_VALUE),
    };
    bank.write(unit, table, address, &values)?;
    // The answer repeats function, address and value or quantity.
    output.extend_from_slice(&pdu[..5]);
    Ok(())
}

fn read(
    unit: u8,
    table: Table,
    places: Places,
    function: u8,
    bank: &dyn RegisterBank,
    output: &mut Vec<u8>,
) -> Result<(), Exception> {
    let most = if table.is_bits() { BITS_MAX } else { REGISTERS_MAX };
    if places.quantity == 0 || places.quantity > most {
        return Err(Exception::ILLEGAL_VALUE);
    }
    if u32::from(places.address) + u32::from(places.quantity) > 65_536 {
        return Err(Exception::ILLEGAL_ADDRESS);
    }
    if !table.is_bits() {
        output.extend_from_slice(&[function, (places.quantity * 2) as u8]);
        return bank.read(unit, table, places, &mut |value| {
            output.extend_from_slice(&value.to_be_bytes());
        });
    }
    let bytes = places.quantity.div_ceil(8);
    output.extend_from_slice(&[function, bytes as u8]);
    let first = output.len();
    output.resize(first + usize::from(bytes), 0);
    let mut n = 0;
    bank.read(unit, table, places, &mut |value| {
        output[first + n / 8] |= u8::from(value != 0) << (n % 8);
        n += 1;
    })
}

/// The values of a request that writes several places.
fn many(pdu: &[u8], table: Table, quantity: u16) -> Result<Vec<u16>, Exception> {
    let (most, bytes) = if table.is_bits() {
        (WRITTEN_BITS_MAX, usize::from(quantity.div_ceil(8)))
    } else {
        (WRITTEN_REGISTERS_MAX, usize::from(quantity) * 2)
    };
    let said = pdu.get(5).copied().map(usize::from);
    if quantity == 0 || quantity > most || said != Some(bytes) || pdu.len() != 6 + bytes {
        return Err(Exception::ILLEGAL_VALUE);
    }
    let data = &pdu[6..];
    let value = |n: usize| {
        if table.is_bits() {
            u16::from(data[n / 8] >> (n % 8) & 1)
        } else {
            word(data, n * 2)
        }
    };
    Ok((0..usize::from(quantity)).map(value).collect())
}

#[cfg(test)]
#[path = "modbus_tests.rs"]
mod tests;
