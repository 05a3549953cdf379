//! What was written to the simulated devices, and when? A test reads it to see that a reaction came, and how soon.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde::Serialize;

use super::tags::Table;

/// Oldest writes beyond this are dropped.
const WRITES_MAX: usize = 10_000;

/// One write request, as it came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Written {
    /// When it came, UTC microseconds.
    pub at_us: i64,
    /// Unit id.
    pub unit: u8,
    /// `holding` or `coil`.
    pub table: &'static str,
    /// First address.
    pub address: u16,
    /// The values; bits are 0 and 1.
    pub values: Vec<u16>,
}

/// All writes of late, and what the written places hold.
#[derive(Debug, Default)]
pub struct WriteLog {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    writes: VecDeque<Written>,
    places: HashMap<(u8, &'static str, u16), u16>,
}

impl WriteLog {
    /// Takes a write.
    pub fn note(&self, unit: u8, table: Table, address: u16, values: &[u16]) {
        let mut inner = self.lock();
        if inner.writes.len() == WRITES_MAX {
            inner.writes.pop_front();
        }
        for (offset, value) in (0u16..).zip(values) {
            let place = (unit, table.name(), address.wrapping_add(offset));
            inner.places.insert(place, *value);
        }
        inner.writes.push_back(Written {
            at_us: chrono::Utc::now().timestamp_micros(),
            unit,
            table: table.name(),
            address,
            values: values.to_vec(),
        });
    }

    /// What was last written to a place; 0 before that.
    pub fn value(&self, unit: u8, table: Table, address: u16) -> u16 {
        let place = (unit, table.name(), address);
        self.lock().places.get(&place).copied().unwrap_or(0)
    }

    /// The writes, oldest first.
    pub fn list(&self) -> Vec<Written> {
        self.lock().writes.iter().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every statement leaves it whole, so a panic elsewhere does not spoil it.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_write_stands_and_all_are_listed_within_a_bound() {
        let log = WriteLog::default();
        log.note(1, Table::Holding, 1_000, &[7, 8]);
        log.note(1, Table::Holding, 1_001, &[9]);
        assert_eq!(log.value(1, Table::Holding, 1_001), 9);
        assert_eq!(log.value(2, Table::Holding, 1_001), 0);
        assert_eq!(log.list()[0].values, [7, 8]);
        for _ in 0..WRITES_MAX {
            log.note(1, Table::Coil, 0, &[1]);
        }
        assert_eq!(log.list().len(), WRITES_MAX);
    }
}
