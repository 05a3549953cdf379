//! How does the simulator load an agent with N devices of M registers, so that a test can prove completeness?
//! Every register is a 16-bit counter that wraps: with [`Advance::Tick`] it is a function of time, with
//! [`Advance::Read`] each reply carries the successor of the last one, so a lost or doubled reading shows.

use std::{
    str::FromStr,
    sync::atomic::{AtomicU16, Ordering},
    time::{Duration, Instant},
};

use tokio_modbus::ExceptionCode;

use super::modbus::RegisterBank;

/// Unit ids 1 to 247 address devices (Modbus over serial line, 2.2); the rest is reserved.
const DEVICES_MAX: u16 = 247;
/// Registers 0 to 9,999 a device, far beyond what one agent polls from one device.
const TAGS_MAX: u16 = 10_000;

/// When the counters advance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Advance {
    /// By one at each tick, all registers alike.
    #[default]
    Tick,
    /// Each register by one whenever it is read.
    Read,
}

/// The size of a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Unit ids 1..=devices.
    pub devices: u8,
    /// Holding registers 0..tags of each.
    pub tags: u16,
    /// When the counters advance.
    pub advance: Advance,
}

/// Why a `--load` argument is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// Not `key=value`, or an unknown key.
    #[error("`{0}` is not devices=N, tags=M or advance=tick|read")]
    Unknown(String),
    /// A number that is none, or beyond its limit.
    #[error("{key} must be 1 to {max}, not `{value}`")]
    OutOfRange {
        /// Which number.
        key: &'static str,
        /// What was given.
        value: String,
        /// Its greatest value.
        max: u16,
    },
    /// Devices or tags are not given.
    #[error("{0} is missing")]
    Missing(&'static str),
}

impl FromStr for Load {
    type Err = LoadError;

    fn from_str(text: &str) -> Result<Self, LoadError> {
        let (mut devices, mut tags, mut advance) = (None, None, Advance::default());
        for part in text.split(',') {
            match part.trim().split_once('=') {
                Some(("devices", n)) => devices = Some(number("devices", n, DEVICES_MAX)?),
                Some(("tags", n)) => tags = Some(number("tags", n, TAGS_MAX)?),
                Some(("advance", "tick")) => advance = Advance::Tick,
                Some(("advance", "read")) => advance = Advance::Read,
                _ => return Err(LoadError::Unknown(part.to_owned())),
            }
        }
        let devices = devices.ok_or(LoadError::Missing("devices"))?;
        let tags = tags.ok_or(LoadError::Missing("tags"))?;
        Ok(Self {
            devices: devices as u8,
            tags,
            advance,
        })
    }
}

fn number(key: &'static str, value: &str, max: u16) -> Result<u16, LoadError> {
    let parsed = value.parse().ok().filter(|n| (1..=max).contains(n));
    parsed.ok_or_else(|| LoadError::OutOfRange {
        key,
        value: value.to_owned(),
        max,
    })
}

/// The counters behind the registers.
#[derive(Debug)]
pub struct LoadRegisters {
    load: Load,
    tick: Duration,
    started: Instant,
    /// One counter a register, device by device; empty unless they advance when read.
    read_counters: Vec<AtomicU16>,
}

impl LoadRegisters {
    /// Counters at zero, starting now.
    pub fn new(load: Load, tick: Duration) -> Self {
        let counters = match load.advance {
            Advance::Tick => 0,
            Advance::Read => usize::from(load.devices) * usize::from(load.tags),
        };
        let read_counters = (0..counters).map(|_| AtomicU16::new(0)).collect();
        Self {
            load,
            tick,
            started: Instant::now(),
            read_counters,
        }
    }

    fn has(&self, unit: u8) -> bool {
        (1..=self.load.devices).contains(&unit)
    }
}

impl RegisterBank for LoadRegisters {
    fn read(&self, unit: u8, address: u16, quantity: u16) -> Result<Vec<u16>, ExceptionCode> {
        if !self.has(unit) {
            return Err(ExceptionCode::GatewayTargetDevice);
        }
        if u32::from(address) + u32::from(quantity) > u32::from(self.load.tags) {
            return Err(ExceptionCode::IllegalDataAddress);
        }
        Ok(match self.load.advance {
            Advance::Tick => vec![ticks(self.started.elapsed(), self.tick); usize::from(quantity)],
            Advance::Read => {
                let first = usize::from(unit - 1) * usize::from(self.load.tags) + usize::from(address);
                let counters = &self.read_counters[first..first + usize::from(quantity)];
                counters
                    .iter()
                    .map(|counter| counter.fetch_add(1, Ordering::Relaxed))
                    .collect()
            }
        })
    }
}

/// Whole ticks in `elapsed`, modulo 2^16.
fn ticks(elapsed: Duration, tick: Duration) -> u16 {
    (elapsed.as_micros() / tick.as_micros().max(1)) as u16
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::net::TcpListener;
    use tokio_modbus::{
        Slave,
        client::{Reader, tcp},
    };
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::simulate::modbus;

    #[test]
    fn the_tick_counter_shows_every_number_in_order_and_wraps() {
        let tick = Duration::from_millis(100);
        for n in 0..70_000u32 {
            let inside = tick * n + Duration::from_millis(u64::from(n % 100));
            assert_eq!(ticks(inside, tick), n as u16);
        }
    }

    #[test]
    fn arguments_are_checked() {
        let load: Load = "devices=50,tags=100".parse().unwrap();
        assert_eq!(
            load,
            Load {
                devices: 50,
                tags: 100,
                advance: Advance::Tick
            }
        );
        assert_eq!(
            "tags=1, devices=1, advance=read".parse::<Load>().unwrap().advance,
            Advance::Read
        );
        for bad in [
            "",
            "devices=0,tags=1",
            "devices=248,tags=1",
            "devices=1",
            "devices=1,tags=x",
            "n=1",
        ] {
            assert!(bad.parse::<Load>().is_err(), "{bad}");
        }
    }

    async fn serve(load: &str) -> (std::net::SocketAddr, tokio_util::sync::DropGuard) {
        let bank = LoadRegisters::new(load.parse().unwrap(), Duration::from_millis(2));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        tokio::spawn(modbus::serve(listener, Arc::new(bank), stop.clone()));
        (address, stop.drop_guard())
    }

    #[tokio::test]
    async fn counters_that_advance_when_read_never_skip_over_tcp() {
        let (address, _stop) = serve("devices=3,tags=250,advance=read").await;
        for unit in 1..=3 {
            let mut client = tcp::connect_slave(address, Slave(unit)).await.unwrap();
            for expected in 0..200u16 {
                let words = client.read_holding_registers(125, 125).await.unwrap().unwrap();
                assert_eq!(words, vec![expected; 125]);
            }
        }
    }

    #[tokio::test]
    async fn tick_counters_are_alike_in_a_block_and_never_run_backwards() {
        let (address, _stop) = serve("devices=2,tags=100").await;
        let mut client = tcp::connect_slave(address, Slave(2)).await.unwrap();
        let mut last = 0;
        while last < 20 {
            let words = client.read_holding_registers(0, 100).await.unwrap().unwrap();
            assert!(words.iter().all(|word| *word == words[0]) && words[0] >= last);
            last = words[0];
        }
    }

    #[tokio::test]
    async fn units_and_registers_beyond_the_load_are_refused() {
        let (address, _stop) = serve("devices=2,tags=100").await;
        let mut client = tcp::connect_slave(address, Slave(2)).await.unwrap();
        let answer = client.read_holding_registers(50, 51).await.unwrap();
        assert_eq!(answer, Err(ExceptionCode::IllegalDataAddress));
        let mut client = tcp::connect_slave(address, Slave(3)).await.unwrap();
        let answer = client.read_holding_registers(0, 1).await.unwrap();
        assert_eq!(answer, Err(ExceptionCode::GatewayTargetDevice));
    }
}
