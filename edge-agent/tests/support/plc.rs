//! A Modbus TCP device written for tests: counts requests, and delays, refuses or ignores them on demand.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// How the device behaves.
#[derive(Clone, Debug, Default)]
pub struct Behaviour {
    /// Take requests and never answer.
    pub is_silent: bool,
    /// Answer this late.
    pub delay: Duration,
    /// Refuse every request with this exception.
    pub exception: Option<u8>,
    /// Addresses that do not exist: any request touching one is refused with exception 02.
    pub illegal: BTreeSet<u16>,
    /// Registers with a value of their own.
    pub values: BTreeMap<u16, u16>,
    /// Refuse writes with exception 04; else function 06 sets the register's value.
    pub refuses_writes: bool,
    /// Answer holding registers with the number of the request instead of `1000 + address`.
    pub counts: bool,
}

/// A running device.
#[derive(Debug)]
pub struct Plc {
    /// Where it listens.
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct State {
    behaviour: Behaviour,
    requests: Vec<(u16, u16)>,
}

impl Plc {
    pub async fn start(behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State {
            behaviour,
            requests: Vec::new(),
        }));
        let shared = state.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, shared.clone()));
            }
        });
        Self { address, state, task }
    }

    pub fn behave(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut self.state.lock().unwrap().behaviour);
    }

    /// Waits until a register has this value of its own.
    pub async fn until_value(&self, address: u16, value: u16) {
        let waiting = async {
            while self.state.lock().unwrap().behaviour.values.get(&address) != Some(&value) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_mins(1), waiting)
            .await
            .unwrap_or_else(|_| panic!("register {address} never became {value}"));
    }

    /// Address and count of every request so far.
    pub fn requests(&self) -> Vec<(u16, u16)> {
        self.state.lock().unwrap().requests.clone()
    }
}

impl Drop for Plc {
    fn drop(&mut self) {
        self.task.abort();
    }
}

const WRITE_REGISTER: u8 = 6;

/// Sets a register; the reply repeats the request.
fn written(request: &[u8; 12], state: &Mutex<State>) -> Vec<u8> {
    let word = |at: usize| u16::from_be_bytes([request[at], request[at + 1]]);
    let mut state = state.lock().unwrap();
    if state.behaviour.refuses_writes {
        let mut reply = request[..4].to_vec();
        reply.extend_from_slice(&[0, 3, request[6], WRITE_REGISTER | 0x80, 4]);
        return reply;
    }
    state.behaviour.values.insert(word(8), word(10));
    request.to_vec()
}

async fn serve(mut stream: TcpStream, state: Arc<Mutex<State>>) {
    let mut request = [0u8; 12];
    while stream.read_exact(&mut request).await.is_ok() {
        let word = |at: usize| u16::from_be_bytes([request[at], request[at + 1]]);
        let (function, address, count) = (request[7], word(8), word(10));
        if function == WRITE_REGISTER {
            let reply = written(&request, &state);
            if stream.write_all(&reply).await.is_err() {
                return;
            }
            continue;
        }
        let (behaviour, number) = {
            let mut state = state.lock().unwrap();
            state.requests.push((address, count));
            (state.behaviour.clone(), state.requests.len() as u16)
        };
        if behaviour.is_silent {
            continue;
        }
        tokio::time::sleep(behaviour.delay).await;
        let touched = address..address.saturating_add(count);
        let illegal = behaviour.illegal.iter().any(|address| touched.contains(address));
        let mut pdu = vec![function];
        if let Some(code) = behaviour.exception.or(illegal.then_some(2)) {
            pdu = vec![function | 0x80, code];
        } else {
            pdu.push((count * 2) as u8);
            for address in touched {
                let plain = if behaviour.counts { number } else { 1000 + address };
                let value = behaviour.values.get(&address).copied().unwrap_or(plain);
                pdu.extend_from_slice(&value.to_be_bytes());
            }
        }
        let mut reply = request[..4].to_vec();
        reply.extend_from_slice(&(pdu.len() as u16 + 1).to_be_bytes());
        reply.push(request[6]);
        reply.extend_from_slice(&pdu);
        if stream.write_all(&reply).await.is_err() {
            return;
        }
    }
}
