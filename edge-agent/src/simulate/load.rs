//! How does the simulator load an agent with N devices of M registers, so that a test can prove completeness?
//! Every register is a 16-bit counter that wraps: with [`Advance::Tick`] it is a function of time, with
//! [`Advance::Read`] each reply carries the successor of the last one, so a lost or doubled reading shows. Some
//! devices may be dead, closed, late or refusing, from the start or on command.

use std::{
    str::FromStr,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU16, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    modbus::{Exception, Manner, Places, RegisterBank},
    tags::Table,
    writes::WriteLog,
};

/// Unit ids 1 to 247 address devices (Modbus over serial line, 2.2); the rest is reserved.
const UNITS_MAX: u16 = 247;
/// Devices with a port each.
const PORTS_MAX: u16 = 1_000;
/// Registers 0 to 9,999 a device, far beyond what one agent polls from one device.
const TAGS_MAX: u16 = 10_000;
/// Latest reply.
const LATE_MAX: Duration = Duration::from_mins(1);

/// When the counters advance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Advance {
    /// By one at each tick, all registers alike.
    #[default]
    Tick,
    /// Each register by one whenever it is read.
    Read,
}

/// The size and the manners of a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Load {
    /// Devices 1..=devices: unit ids of one port, or a port each.
    pub devices: u16,
    /// Places 0..tags of each table of each device.
    pub tags: u16,
    /// When the counters advance.
    pub advance: Advance,
    /// Period of the polls in the written configuration; the tick unless given.
    pub period: Option<Duration>,
    /// Each device has a port of its own, and unit id 1.
    pub own_ports: bool,
    /// So many devices, from the last on, do not behave: in this order.
    pub dead: u16,
    /// Devices that close connections, or do not listen.
    pub refuse: u16,
    /// Devices that answer late, and how late.
    pub late: (u16, Duration),
    /// Devices that refuse every request, and the exception.
    pub exception: (u16, u8),
}

/// Why a `--load` argument is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// Not `key=value`, or an unknown key.
    #[error(
        "`{0}` is not devices=N, tags=M, advance=tick|read, period=1s, ports=own|shared, dead=N, refuse=N, \
         late=1.2s:N or exception=6:N"
    )]
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
    /// A duration that is none, or out of range.
    #[error("{key} must be a duration like 250ms or 1.2s up to {max_s} s, not `{value}`")]
    Duration {
        /// Which.
        key: &'static str,
        /// What was given.
        value: String,
        /// Greatest, seconds.
        max_s: u64,
    },
    /// Devices or tags are not given.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// More misbehave than there are.
    #[error("dead, refusing, late and excepting devices are more than devices={0}")]
    TooMany(u16),
}

impl FromStr for Load {
    type Err = LoadError;

    fn from_str(text: &str) -> Result<Self, LoadError> {
        let mut load = Self::default();
        for part in text.split(',') {
            let pair = part.trim().split_once('=');
            let (key, value) = pair.ok_or_else(|| LoadError::Unknown(part.to_owned()))?;
            match (key, value) {
                ("devices", n) => load.devices = number("devices", n, PORTS_MAX)?,
                ("tags", n) => load.tags = number("tags", n, TAGS_MAX)?,
                ("advance", "tick") => load.advance = Advance::Tick,
                ("advance", "read") => load.advance = Advance::Read,
                ("period", t) => load.period = Some(duration("period", t, Duration::from_hours(1))?),
                ("ports", "own") => load.own_ports = true,
                ("ports", "shared") => load.own_ports = false,
                ("dead", n) => load.dead = number("dead", n, PORTS_MAX)?,
                ("refuse", n) => load.refuse = number("refuse", n, PORTS_MAX)?,
                ("late", value) => {
                    let (by, n) = value.split_once(':').unwrap_or((value, "1"));
                    load.late = (number("late", n, PORTS_MAX)?, duration("late", by, LATE_MAX)?);
                }
                ("exception", value) => {
                    let (code, n) = value.split_once(':').unwrap_or((value, "1"));
                    let code = number("exception", code, 0x7F)? as u8;
                    load.exception = (number("exception", n, PORTS_MAX)?, code);
                }
                _ => return Err(LoadError::Unknown(part.to_owned())),
            }
        }
        load.check()
    }
}

impl Load {
    fn check(self) -> Result<Self, LoadError> {
        for (key, n) in [("devices", self.devices), ("tags", self.tags)] {
            if n == 0 {
                return Err(LoadError::Missing(key));
            }
        }
        if !self.own_ports && self.devices > UNITS_MAX {
            return Err(LoadError::OutOfRange {
                key: "devices",
                value: self.devices.to_string(),
                max: UNITS_MAX,
            });
        }
        let wayward = u32::from(self.dead)
            + u32::from(self.refuse)
            + u32::from(self.late.0)
            + u32::from(self.exception.0);
        if wayward > u32::from(self.devices) {
            return Err(LoadError::TooMany(self.devices));
        }
        Ok(self)
    }

    /// How each device behaves at the start, device 1 first.
    pub fn manners(&self) -> Vec<Manner> {
        let wayward = [
            (self.dead, Manner::Silent),
            (self.refuse, Manner::Refuse),
            (self.late.0, Manner::Late(self.late.1)),
            (self.exception.0, Manner::Refusal(Exception(self.exception.1))),
        ];
        let wayward = wayward
            .into_iter()
            .flat_map(|(count, manner)| std::iter::repeat_n(manner, usize::from(count)));
        let mut manners: Vec<Manner> = wayward.collect();
        manners.resize(usize::from(self.devices), Manner::Normal);
        manners.reverse();
        manners
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

/// `250ms` or `1.2s`, from 10 ms on.
fn duration(key: &'static str, value: &str, max: Duration) -> Result<Duration, LoadError> {
    let seconds = match value.strip_suffix("ms") {
        Some(ms) => ms.parse::<f64>().ok().map(|ms| ms / 1_000.0),
        None => value.strip_suffix('s').and_then(|s| s.parse().ok()),
    };
    seconds
        .filter(|s| (0.01..=max.as_secs_f64()).contains(s))
        .map(Duration::from_secs_f64)
        .ok_or_else(|| LoadError::Duration {
            key,
            value: value.to_owned(),
            max_s: max.as_secs(),
        })
}

/// The counters behind the registers, and how each device behaves.
#[derive(Debug)]
pub struct LoadRegisters {
    load: Load,
    tick: Duration,
    started: Instant,
    /// One counter a register, device by device; empty unless they advance when read.
    read_counters: Vec<AtomicU16>,
    manners: RwLock<Vec<Manner>>,
    /// What was written to the devices.
    pub writes: Arc<WriteLog>,
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
            manners: RwLock::new(load.manners()),
            writes: Arc::default(),
        }
    }

    /// Makes a device behave differently from now on; false when there is none of this number.
    pub fn behave(&self, device: u16, manner: Manner) -> bool {
        let mut manners = self.manners.write().unwrap_or_else(PoisonError::into_inner);
        let place = usize::from(device).checked_sub(1);
        place
            .and_then(|n| manners.get_mut(n))
            .map(|place| *place = manner)
            .is_some()
    }

    fn of(&self, device: u16) -> Option<Manner> {
        let manners = self.manners.read().unwrap_or_else(PoisonError::into_inner);
        let place = usize::from(device).checked_sub(1)?;
        manners.get(place).copied()
    }

    fn count(&self, device: u16, places: Places, put: &mut dyn FnMut(u16)) -> Result<(), Exception> {
        let Places { address, quantity } = places;
        if self.of(device).is_none() {
            return Err(Exception::NO_TARGET);
        }
        if u32::from(address) + u32::from(quantity) > u32::from(self.load.tags) {
            return Err(Exception::ILLEGAL_ADDRESS);
        }
        match self.load.advance {
            Advance::Tick => {
                let ticks = ticks(self.started.elapsed(), self.tick);
                (0..quantity).for_each(|_| put(ticks));
            }
            Advance::Read => {
                let first = usize::from(device - 1) * usize::from(self.load.tags) + usize::from(address);
                let counters = &self.read_counters[first..first + usize::from(quantity)];
                for counter in counters {
                    put(counter.fetch_add(1, Ordering::Relaxed));
                }
            }
        }
        Ok(())
    }

    fn take(&self, device: u16, table: Table, address: u16, values: &[u16]) -> Result<(), Exception> {
        if usize::from(address) + values.len() > usize::from(self.load.tags) {
            return Err(Exception::ILLEGAL_ADDRESS);
        }
        // Devices with a port each are told apart by their number, as far as a unit id goes.
        self.writes.note(device as u8, table, address, values);
        Ok(())
    }
}

/// All devices of a load behind one port.
#[derive(Debug)]
pub struct Gateway(pub Arc<LoadRegisters>);

/// One device of a load behind a port of its own, as unit 1.
#[derive(Debug)]
pub struct OwnPort {
    /// The load.
    pub bank: Arc<LoadRegisters>,
    /// Which device, from 1.
    pub device: u16,
}

impl RegisterBank for Gateway {
    fn read(&self, unit: u8, _: Table, places: Places, put: &mut dyn FnMut(u16)) -> Result<(), Exception> {
        self.0.count(u16::from(unit), places, put)
    }

    fn write(&self, unit: u8, table: Table, address: u16, values: &[u16]) -> Result<(), Exception> {
        self.0.take(u16::from(unit), table, address, values)
    }

    fn manner(&self, unit: u8) -> Manner {
        self.0.of(u16::from(unit)).unwrap_or_default()
    }
}

impl RegisterBank for OwnPort {
    fn read(&self, unit: u8, _: Table, places: Places, put: &mut dyn FnMut(u16)) -> Result<(), Exception> {
        if unit != 1 {
            return Err(Exception::NO_TARGET);
        }
        self.bank.count(self.device, places, put)
    }

    fn write(&self, unit: u8, table: Table, address: u16, values: &[u16]) -> Result<(), Exception> {
        if unit != 1 {
            return Err(Exception::NO_TARGET);
        }
        self.bank.take(self.device, table, address, values)
    }

    fn manner(&self, _unit: u8) -> Manner {
        self.bank.of(self.device).unwrap_or_default()
    }
}

/// Whole ticks in `elapsed`, modulo 2^16.
fn ticks(elapsed: Duration, tick: Duration) -> u16 {
    (elapsed.as_micros() / tick.as_micros().max(1)) as u16
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
