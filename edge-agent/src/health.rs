//! How is the agent doing? Counters and states that every part writes and the local page, `/metrics` and the
//! uplink's status message read.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    },
};

use protocol::{
    Micros, Reading,
    event::{Alarm, Event, Gap},
    quality::Status,
};
use serde::Serialize;
use uuid::Uuid;

use crate::{alarm::AlarmBoard, ccp::PointStatus, fleet::certificate::Certificate};

/// Most alarms remembered for the status page.
const ALARMS_KEPT: usize = 50;

/// Everything about the running agent that a person or a test may ask.
#[derive(Debug)]
pub struct Health {
    /// Name of the edge.
    pub edge: String,
    /// Identity of this start.
    pub boot: Uuid,
    /// When it started.
    pub started_us: Micros,
    /// The spool's gauges.
    pub spool: SpoolHealth,
    /// The uplink's state.
    pub uplink: UplinkHealth,
    /// Inspections by verdict.
    pub vision: VisionHealth,
    sources: Mutex<Vec<Arc<SourceHealth>>>,
    /// What sources that no longer run had acquired.
    acquired_before: AtomicU64,
    /// Readings that were read and, by their tags' deadbands, not sent.
    pub suppressed: AtomicU64,
    /// Readings that were computed from others, not acquired.
    pub computed: AtomicU64,
    beats: AtomicU64,
    points: Mutex<Vec<PointStatus>>,
    alarms: Mutex<VecDeque<Alarm>>,
    alarm_board: Mutex<AlarmBoard>,
    gaps: Mutex<Vec<Gap>>,
}

impl Health {
    /// All zero.
    pub fn new(edge: &str, boot: Uuid, started_us: Micros) -> Self {
        Self {
            edge: edge.to_owned(),
            boot,
            started_us,
            sources: Mutex::default(),
            acquired_before: AtomicU64::new(0),
            spool: SpoolHealth::default(),
            uplink: UplinkHealth::default(),
            vision: VisionHealth::default(),
            suppressed: AtomicU64::new(0),
            computed: AtomicU64::new(0),
            beats: AtomicU64::new(0),
            points: Mutex::default(),
            alarms: Mutex::default(),
            alarm_board: Mutex::default(),
            gaps: Mutex::default(),
        }
    }

    /// One entry a source, in the order of the configuration.
    pub fn sources(&self) -> Vec<Arc<SourceHealth>> {
        locked(&self.sources).clone()
    }

    /// Replaces the sources; what those that go had acquired still counts.
    pub fn set_sources(&self, sources: &[Arc<SourceHealth>]) {
        let before = std::mem::replace(&mut *locked(&self.sources), sources.to_vec());
        let gone = before
            .iter()
            .filter(|old| !sources.iter().any(|new| Arc::ptr_eq(old, new)));
        let acquired: u64 = gone.map(|source| source.acquired()).sum();
        self.acquired_before.fetch_add(acquired, Relaxed);
    }

    /// Notes how many readings were computed and how many were left out, both since the start:
    /// acquired + computed = sent, left out, held back or given up.
    pub fn note_signals(&self, computed: u64, suppressed: u64) {
        self.computed.store(computed, Relaxed);
        self.suppressed.store(suppressed, Relaxed);
    }

    /// The pipeline went round once more.
    pub fn beat(&self) {
        self.beats.fetch_add(1, Relaxed);
    }

    /// How often the pipeline went round.
    pub fn beats(&self) -> u64 {
        self.beats.load(Relaxed)
    }

    /// The source that people are, when anything is entered by hand.
    pub fn people(&self) -> Option<Arc<SourceHealth>> {
        self.sources().into_iter().find(|source| source.kind == "manual")
    }

    /// Counts what people should have entered and did not.
    pub fn count_manual_not_read(&self, events: &[Event]) {
        for event in events {
            if let (Event::NotRead(record), Some(people)) = (event, self.people()) {
                people.count_not_read(u64::from(record.due) * record.tags.len() as u64);
            }
        }
    }

    /// Replaces the states of the control points.
    pub fn set_points(&self, points: Vec<PointStatus>) {
        *locked(&self.points) = points;
    }

    /// The states of the control points.
    pub fn points(&self) -> Vec<PointStatus> {
        locked(&self.points).clone()
    }

    /// Replaces what is shown of the alarms.
    pub fn set_alarm_board(&self, board: AlarmBoard) {
        *locked(&self.alarm_board) = board;
    }

    /// What is shown of the alarms.
    pub fn alarm_board(&self) -> AlarmBoard {
        locked(&self.alarm_board).clone()
    }

    /// Remembers an alarm for the status page.
    pub fn note_alarm(&self, alarm: &Alarm) {
        let mut alarms = locked(&self.alarms);
        if alarms.len() == ALARMS_KEPT {
            alarms.pop_front();
        }
        alarms.push_back(alarm.clone());
    }

    /// The newest alarms, newest first.
    pub fn alarms(&self) -> Vec<Alarm> {
        locked(&self.alarms).iter().rev().cloned().collect()
    }

    /// Leaves the record of something given up for the pipeline to send.
    pub fn note_gap(&self, gap: Gap) {
        locked(&self.gaps).push(gap);
    }

    /// Takes the records left by [`note_gap`](Self::note_gap).
    pub fn take_gaps(&self) -> Vec<Gap> {
        std::mem::take(&mut *locked(&self.gaps))
    }

    /// Readings acquired since the start.
    pub fn acquired(&self) -> u64 {
        let now: u64 = self.sources().iter().map(|source| source.acquired()).sum();
        now + self.acquired_before.load(Relaxed)
    }
}

/// A panic while holding one of these locks cannot leave the plain data behind them half-written.
fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a source gives readings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum SourceState {
    /// Not tried yet.
    Starting,
    /// Giving readings.
    Up,
    /// Giving none.
    Down {
        /// Why.
        reason: String,
    },
}

/// Counters and state of one source.
#[derive(Debug)]
pub struct SourceHealth {
    /// `modbus`, `opcua`, `camera` or `manual`.
    pub kind: &'static str,
    /// The source's name.
    pub name: String,
    good: AtomicU64,
    uncertain: AtomicU64,
    bad: AtomicU64,
    not_read: AtomicU64,
    newest_us: AtomicI64,
    state: Mutex<(SourceState, Option<Uuid>)>,
}

/// What a source's counters were at one moment.
#[derive(Clone, Debug, Serialize)]
pub struct SourceSnapshot {
    /// `modbus`, `opcua`, `camera` or `manual`.
    pub kind: &'static str,
    /// The source's name.
    pub name: String,
    /// Up or down, and why.
    #[serde(flatten)]
    pub state: SourceState,
    /// Good readings.
    pub good: u64,
    /// Uncertain readings.
    pub uncertain: u64,
    /// Readings without a usable value.
    pub bad: u64,
    /// Readings due and not taken: good + uncertain + bad + not read = due.
    pub not_read: u64,
    /// Readings due.
    pub due: u64,
    /// When the newest reading arrived.
    pub newest_us: Option<Micros>,
}

impl SourceHealth {
    /// All zero.
    pub fn new(kind: &'static str, name: &str) -> Arc<Self> {
        Arc::new(Self {
            kind,
            name: name.to_owned(),
            good: AtomicU64::new(0),
            uncertain: AtomicU64::new(0),
            bad: AtomicU64::new(0),
            not_read: AtomicU64::new(0),
            newest_us: AtomicI64::new(0),
            state: Mutex::new((SourceState::Starting, None)),
        })
    }

    /// Counts readings.
    pub fn count(&self, readings: &[Reading], received_us: Micros) {
        for reading in readings {
            let counter = match reading.quality.status() {
                Status::Good => &self.good,
                Status::Uncertain => &self.uncertain,
                Status::Bad => &self.bad,
            };
            counter.fetch_add(1, Relaxed);
        }
        self.newest_us.store(received_us, Relaxed);
    }

    /// Counts readings that were due and not taken.
    pub fn count_not_read(&self, readings: u64) {
        self.not_read.fetch_add(readings, Relaxed);
    }

    /// Readings acquired, good or not.
    pub fn acquired(&self) -> u64 {
        self.good.load(Relaxed) + self.uncertain.load(Relaxed) + self.bad.load(Relaxed)
    }

    /// Notes the state; returns the alarm to raise or clear when up turned down or the reverse.
    pub fn set_state(
        &self,
        state: SourceState,
        at_us: Micros,
        new_id: impl FnOnce() -> Uuid,
    ) -> Option<Alarm> {
        let mut held = locked(&self.state);
        let (message, active, id) = match (&state, held.1) {
            (SourceState::Down { reason }, None) => (reason.clone(), true, new_id()),
            (SourceState::Up, Some(id)) => ("giving readings again".to_owned(), false, id),
            _ => {
                held.0 = state;
                return None;
            }
        };
        *held = (state, active.then_some(id));
        Some(Alarm {
            id,
            at_us,
            code: "source.down".to_owned(),
            subject: self.name.clone(),
            line: None,
            active,
            message,
        })
    }

    /// The counters now.
    pub fn snapshot(&self) -> SourceSnapshot {
        let (good, uncertain, bad) = (
            self.good.load(Relaxed),
            self.uncertain.load(Relaxed),
            self.bad.load(Relaxed),
        );
        let not_read = self.not_read.load(Relaxed);
        SourceSnapshot {
            kind: self.kind,
            name: self.name.clone(),
            state: locked(&self.state).0.clone(),
            good,
            uncertain,
            bad,
            not_read,
            due: good + uncertain + bad + not_read,
            newest_us: Some(self.newest_us.load(Relaxed)).filter(|newest_us| *newest_us > 0),
        }
    }
}

/// The spool's gauges: counters since the start, and what waits now.
#[derive(Debug, Default)]
pub struct SpoolHealth {
    /// Readings made durable since the start.
    pub spooled_readings: AtomicU64,
    /// Readings acknowledged by the hub since the start.
    pub acknowledged_readings: AtomicU64,
    /// Frames that wait for the hub.
    pub backlog_frames: AtomicU64,
    /// Readings that wait for the hub.
    pub backlog_readings: AtomicU64,
    /// Seal time of the oldest waiting frame; 0 for none.
    pub oldest_us: AtomicI64,
    /// Bytes on disk.
    pub disk_bytes: AtomicU64,
    /// Readings given up for want of space or to damage.
    pub lost_readings: AtomicU64,
    /// Those of them that waited for the hub and went for want of room.
    pub evicted_unsent_readings: AtomicU64,
    /// Failed writes since the start.
    pub write_errors: AtomicU64,
    /// Readings up to this old may not be on disk yet: what a power cut may cost, microseconds.
    pub window_us: AtomicU64,
}

/// The uplink's state.
#[derive(Debug, Default)]
pub struct UplinkHealth {
    state: Mutex<UplinkState>,
    certificate: Mutex<Option<CertificateStatus>>,
    signs_in_with: Mutex<&'static str>,
    /// Frames sent since the start, repeats included.
    pub sent_frames: AtomicU64,
    /// Bytes sent since the start.
    pub sent_bytes: AtomicU64,
    /// Frames the hub rejected.
    pub rejected_frames: AtomicU64,
    /// Connections made.
    pub connections: AtomicU64,
}

/// The client certificate that is installed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CertificateStatus {
    /// Whom it names.
    pub subject: String,
    /// Valid from.
    pub not_before_us: Micros,
    /// Valid until.
    pub not_after_us: Micros,
}

/// Whether the hub can be reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum UplinkState {
    /// Not tried yet.
    #[default]
    Starting,
    /// Not configured: no identity.
    NotEnrolled,
    /// Connected.
    Online,
    /// Not connected.
    Offline {
        /// Why.
        reason: String,
    },
}

impl UplinkHealth {
    /// Notes the state.
    pub fn set(&self, state: UplinkState) {
        *locked(&self.state) = state;
    }

    /// The state.
    pub fn get(&self) -> UplinkState {
        locked(&self.state).clone()
    }

    /// Notes the installed certificate.
    pub fn set_certificate(&self, certificate: Option<&Certificate>) {
        *locked(&self.certificate) = certificate.map(|certificate| CertificateStatus {
            subject: certificate.subject.clone(),
            not_before_us: certificate.not_before_us,
            not_after_us: certificate.not_after_us,
        });
    }

    /// The installed certificate.
    pub fn certificate(&self) -> Option<CertificateStatus> {
        locked(&self.certificate).clone()
    }

    /// Notes what the newest connection is made with.
    pub fn set_signs_in_with(&self, credential: &'static str) {
        *locked(&self.signs_in_with) = credential;
    }

    /// `certificate` or `password`; empty before the first attempt.
    pub fn signs_in_with(&self) -> &'static str {
        *locked(&self.signs_in_with)
    }
}

/// Inspections by verdict, and why vision is off if it is.
#[derive(Debug, Default)]
pub struct VisionHealth {
    /// Pass verdicts.
    pub pass: AtomicU64,
    /// Reject verdicts.
    pub reject: AtomicU64,
    /// Unknown verdicts.
    pub unknown: AtomicU64,
    off: Mutex<Option<String>>,
}

impl VisionHealth {
    /// Notes why nothing can be inspected, or that it can.
    pub fn set_off(&self, reason: Option<String>) {
        *locked(&self.off) = reason;
    }

    /// Why nothing can be inspected.
    pub fn off(&self) -> Option<String> {
        locked(&self.off).clone()
    }
}
