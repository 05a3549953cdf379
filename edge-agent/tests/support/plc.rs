//! A Modbus TCP device written for tests: counts requests and connections, and delays, refuses, ignores or garbles
//! them on demand.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// What is wrong with a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Garble {
    /// The transaction of the request before.
    WrongTransaction,
    /// Another unit's id.
    WrongUnit,
    /// Another function's code.
    WrongFunction,
    /// One register less than asked for, in a frame that is whole.
    TooShort,
    /// One register more than asked for.
    TooLong,
    /// The header promises more bytes than come; then nothing.
    CutOff,
    /// Bytes that are no Modbus.
    Noise,
}

/// How the device behaves.
#[allow(clippy::struct_excessive_bools, reason = "each is a fault of its own")]
#[derive(Clone, Debug, Default)]
pub struct Behaviour {
    /// Take requests and never answer.
    pub is_silent: bool,
    /// Units behind this gateway that never answer.
    pub silent_units: BTreeSet<u8>,
    /// Answer this late.
    pub delay: Duration,
    /// Refuse every request with this exception.
    pub exception: Option<u8>,
    /// Refuse with this exception what asks for more registers than that.
    pub count_max: Option<(u16, u8)>,
    /// Addresses that do not exist: any request touching one is refused with exception 02.
    pub illegal: BTreeSet<u16>,
    /// Registers with a value of their own; written registers and coils appear here.
    pub values: BTreeMap<u16, u16>,
    /// Answer holding registers with the number of the request instead of `1000 + address`.
    pub counts: bool,
    /// Answer wrongly.
    pub garble: Option<Garble>,
    /// Close the connection after each reply.
    pub hangs_up: bool,
    /// Refuse writes with exception 04.
    pub refuses_writes: bool,
    /// Acknowledge writes without taking the value over.
    pub ignores_writes: bool,
}

/// One request as it arrived.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// The unit asked.
    pub unit: u8,
    /// Function code.
    pub function: u8,
    /// First address.
    pub address: u16,
    /// Registers or bits asked for, or the value written.
    pub count: u16,
    /// When.
    pub at: Instant,
}

/// A running device.
#[derive(Debug)]
pub struct Plc {
    /// Where it listens.
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
    /// How many requests arrived.
    arrived: watch::Receiver<usize>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct State {
    behaviour: Behaviour,
    asked: Vec<Asked>,
    connections: usize,
}

/// Addresses of 49 PLCs that are dead in three ways: 20 never answer, 15 refuse and 14 cannot be reached. The
/// listeners keep their ports.
pub async fn dead_ones() -> (Vec<Plc>, Vec<SocketAddr>) {
    let mut black_holes = Vec::new();
    for _ in 0..20 {
        let behaviour = Behaviour {
            is_silent: true,
            ..Behaviour::default()
        };
        black_holes.push(Plc::start(behaviour).await);
    }
    let refusing = || {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let mut addresses: Vec<SocketAddr> = black_holes.iter().map(|plc| plc.address).collect();
    addresses.extend((0..15).map(|_| refusing()));
    // Addresses for documentation: nothing is there (RFC 5737).
    addresses.extend((1..15).map(|host| SocketAddr::from(([192, 0, 2, host], 502))));
    (black_holes, addresses)
}

impl Plc {
    pub async fn start(behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State {
            behaviour,
            ..State::default()
        }));
        let shared = state.clone();
        let (count, arrived) = watch::channel(0);
        let count = Arc::new(count);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                shared.lock().unwrap().connections += 1;
                tokio::spawn(serve(stream, shared.clone(), count.clone()));
            }
        });
        Self {
            address,
            state,
            arrived,
            task,
        }
    }

    pub fn behave(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut self.state.lock().unwrap().behaviour);
    }

    /// Address and count of every request so far.
    pub fn requests(&self) -> Vec<(u16, u16)> {
        let state = self.state.lock().unwrap();
        state
            .asked
            .iter()
            .map(|asked| (asked.address, asked.count))
            .collect()
    }

    /// Every request so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.state.lock().unwrap().asked.clone()
    }

    /// Waits until more requests than that have arrived.
    pub async fn until_asked(&self, more_than: usize) {
        let mut arrived = self.arrived.clone();
        arrived.wait_for(|count| *count > more_than).await.unwrap();
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.state.lock().unwrap().connections
    }

    /// Waits until a register has this value of its own.
    pub async fn until_value(&self, address: u16, value: u16) {
        let waiting = async {
            while self.value(address) != Some(value) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_mins(1), waiting)
            .await
            .unwrap_or_else(|_| panic!("register {address} never became {value}"));
    }

    /// A register that was written or given a value.
    pub fn value(&self, address: u16) -> Option<u16> {
        self.state.lock().unwrap().behaviour.values.get(&address).copied()
    }
}

impl Drop for Plc {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

async fn serve(mut stream: TcpStream, state: Arc<Mutex<State>>, count: Arc<watch::Sender<usize>>) {
    let mut header = [0u8; 7];
    while stream.read_exact(&mut header).await.is_ok() {
        let mut pdu = vec![0; usize::from(word(&header, 4)) - 1];
        if stream.read_exact(&mut pdu).await.is_err() {
            return;
        }
        let (behaviour, number) = {
            let mut state = state.lock().unwrap();
            state.asked.push(Asked {
                unit: header[6],
                function: pdu[0],
                address: word(&pdu, 1),
                count: word(&pdu, 3),
                at: Instant::now(),
            });
            (state.behaviour.clone(), state.asked.len() as u16)
        };
        count.send_modify(|count| *count += 1);
        if behaviour.is_silent || behaviour.silent_units.contains(&header[6]) {
            continue;
        }
        tokio::time::sleep(behaviour.delay).await;
        let answer = answer(&pdu, &behaviour, number);
        if answer[0] < 0x80 && !behaviour.ignores_writes {
            take_over(&pdu, &mut state.lock().unwrap().behaviour.values);
        }
        let reply = frame(header, answer, behaviour.garble);
        if stream.write_all(&reply).await.is_err() || behaviour.hangs_up {
            return;
        }
    }
}

/// The reply's function code and what follows.
fn answer(pdu: &[u8], behaviour: &Behaviour, number: u16) -> Vec<u8> {
    let (function, address, count) = (pdu[0], word(pdu, 1), word(pdu, 3));
    let count = if matches!(function, 5 | 6) { 1 } else { count };
    let touched = u32::from(address)..u32::from(address) + u32::from(count);
    let is_illegal = |at: &u16| touched.contains(&u32::from(*at));
    let illegal = behaviour.illegal.iter().any(is_illegal) || touched.end > 65_536;
    let too_long = behaviour
        .count_max
        .filter(|(max, _)| count > *max)
        .map(|(_, code)| code);
    let refused = (behaviour.refuses_writes && matches!(function, 5 | 6 | 16)).then_some(4);
    if let Some(code) = behaviour
        .exception
        .or(refused)
        .or(too_long)
        .or(illegal.then_some(2))
    {
        return vec![function | 0x80, code];
    }
    let value = |at: u32| {
        let at = at as u16;
        let plain = if behaviour.counts {
            number
        } else {
            at.wrapping_add(1000)
        };
        behaviour.values.get(&at).copied().unwrap_or(plain)
    };
    let mut out = vec![function];
    match function {
        1 | 2 => {
            let bits: Vec<bool> = touched.map(|at| value(at) & 1 == 1).collect();
            let bytes = bits.chunks(8).map(|chunk| {
                let bits = chunk.iter().enumerate();
                bits.fold(0u8, |byte, (bit, is_set)| byte | u8::from(*is_set) << bit)
            });
            out.push(bits.len().div_ceil(8) as u8);
            out.extend(bytes);
        }
        3 | 4 => {
            out.push(count.wrapping_mul(2) as u8);
            out.extend(touched.flat_map(|at| value(at).to_be_bytes()));
        }
        5 | 6 | 16 => out.extend_from_slice(&pdu[1..5]),
        _ => return vec![function | 0x80, 1],
    }
    out
}

/// Keeps what a write request carries.
fn take_over(pdu: &[u8], values: &mut BTreeMap<u16, u16>) {
    let address = word(pdu, 1);
    match pdu[0] {
        5 => drop(values.insert(address, u16::from(pdu[3] == 0xFF))),
        6 => drop(values.insert(address, word(pdu, 3))),
        16 => values.extend((address..).zip(pdu[6..].chunks(2).map(|pair| word(pair, 0)))),
        _ => {}
    }
}

fn frame(header: [u8; 7], mut pdu: Vec<u8>, garble: Option<Garble>) -> Vec<u8> {
    let (mut transaction, mut unit) = (word(&header, 0), header[6]);
    let mut missing = 0;
    match garble {
        Some(Garble::WrongTransaction) => transaction = transaction.wrapping_sub(1),
        Some(Garble::WrongUnit) => unit = unit.wrapping_add(1),
        Some(Garble::WrongFunction) => pdu[0] = if pdu[0] == 3 { 4 } else { 3 },
        Some(Garble::TooShort) => {
            pdu[1] -= 2;
            pdu.truncate(pdu.len() - 2);
        }
        Some(Garble::TooLong) => {
            pdu[1] += 2;
            pdu.extend_from_slice(&[0, 0]);
        }
        Some(Garble::CutOff) => missing = 1,
        Some(Garble::Noise) => return vec![0xA5; 32],
        None => {}
    }
    let mut out = transaction.to_be_bytes().to_vec();
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(&(pdu.len() as u16 + 1).to_be_bytes());
    out.push(unit);
    out.extend_from_slice(&pdu);
    out.truncate(out.len() - missing);
    out
}
