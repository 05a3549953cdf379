//! Where do readings come from? Every source is a task that hands what it acquired to one outlet and never
//! waits for another source.

pub mod camera;
pub mod error;
pub mod modbus;
pub mod mqtt;
pub mod opcua;
pub mod running;

use std::sync::Arc;

use protocol::{
    Quality, Reading,
    alarm::AlarmAction,
    event::{Alarm, Event, Inspection, NotRead},
    limit::CriticalLimit,
    reading::{Alias, Micros},
};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use crate::{
    clock,
    health::{SourceHealth, SourceState},
    pipeline::Rules,
};

/// What a source acquired.
#[derive(Debug)]
pub enum Acquired {
    /// Readings that arrived together.
    Readings {
        /// The readings, in order of time within a tag.
        readings: Vec<Reading>,
        /// When they arrived.
        received_us: Micros,
    },
    /// Readings that were due and not taken.
    NotRead(NotRead),
    /// Something a person should know.
    Alarm(Alarm),
    /// A camera frame and its verdict.
    Inspection(Box<Inspection>),
    /// A record that is complete as it is: a manual entry, the answer to a command.
    Record(Box<Event>),
    /// The configuration changed: what comes after this is judged and sealed by it. Answered once that is so.
    Rules(Box<Rules>, oneshot::Sender<()>),
    /// What a person does about an alarm.
    AlarmAction(Box<AlarmAction>),
    /// Readings that the source knows to be late (a replay, a device that buffered): stored like others, judged
    /// retroactively.
    Late {
        /// The readings.
        readings: Vec<Reading>,
        /// When they arrived.
        received_us: Micros,
    },
    /// Pushed critical limits, put in force all or none.
    Limits {
        /// The limits.
        limits: Vec<CriticalLimit>,
        /// Gets all limits in force, to be kept by [`ccp::limits::save`](crate::ccp::limits::save), or why not.
        reply: oneshot::Sender<Result<Vec<CriticalLimit>, String>>,
    },
}

/// Where a source puts what it acquired. A full outlet makes the source wait, which it then records as overrun.
#[derive(Clone, Debug)]
pub struct Outlet {
    tx: mpsc::Sender<Acquired>,
    health: Arc<SourceHealth>,
}

/// The agent is shutting down: nobody takes readings any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the agent is shutting down")]
pub struct Closed;

impl Outlet {
    /// An outlet into `tx`, counted in `health`.
    pub fn new(tx: mpsc::Sender<Acquired>, health: Arc<SourceHealth>) -> Self {
        Self { tx, health }
    }

    /// The source's counters and state.
    pub fn health(&self) -> &SourceHealth {
        &self.health
    }

    /// Hands over readings.
    pub async fn readings(&self, readings: Vec<Reading>) -> Result<(), Closed> {
        if readings.is_empty() {
            return Ok(());
        }
        let received_us = clock::now_us();
        self.health.count(&readings, received_us);
        self.send(Acquired::Readings {
            readings,
            received_us,
        })
        .await
    }

    /// Hands over readings that are late by the source's own word.
    pub async fn late(&self, readings: Vec<Reading>) -> Result<(), Closed> {
        if readings.is_empty() {
            return Ok(());
        }
        let received_us = clock::now_us();
        self.health.count(&readings, received_us);
        self.send(Acquired::Late {
            readings,
            received_us,
        })
        .await
    }

    /// Hands over one bad reading for each tag.
    pub async fn bad(&self, tags: &[Alias], time_us: Micros, reason: Quality) -> Result<(), Closed> {
        let readings = tags
            .iter()
            .map(|tag| Reading::bad(*tag, time_us, reason))
            .collect();
        self.readings(readings).await
    }

    /// Hands over the record of readings that were due and not taken.
    pub async fn not_read(&self, record: NotRead) -> Result<(), Closed> {
        self.health
            .count_not_read(u64::from(record.due) * record.tags.len() as u64);
        self.send(Acquired::NotRead(record)).await
    }

    /// Hands over an inspection.
    pub async fn inspection(&self, inspection: Inspection) -> Result<(), Closed> {
        self.send(Acquired::Inspection(Box::new(inspection))).await
    }

    /// Hands over an alarm.
    pub async fn alarm(&self, alarm: Alarm) -> Result<(), Closed> {
        self.send(Acquired::Alarm(alarm)).await
    }

    /// Notes the source's state, raising or clearing its `source.down` alarm when that changed.
    pub async fn state(&self, state: SourceState) -> Result<(), Closed> {
        let Some(transition) = self.health.set_state(state, clock::now_us(), Uuid::now_v7) else {
            return Ok(());
        };
        self.alarm(transition).await
    }

    async fn send(&self, acquired: Acquired) -> Result<(), Closed> {
        self.tx.send(acquired).await.map_err(|_| Closed)
    }
}
