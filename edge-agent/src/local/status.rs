//! What is there to say about the agent? One snapshot that the page, `/status.json` and `/metrics` all show.

use std::sync::atomic::Ordering::Relaxed;

use protocol::{Micros, event::Alarm};
use serde::Serialize;
use uuid::Uuid;

use crate::{
    alarm::AlarmBoard,
    ccp::PointStatus,
    clock,
    health::{CertificateStatus, Health, SourceSnapshot, UplinkState},
};

/// Everything at one moment. Counters count from the agent's start.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// Name of the edge.
    pub edge: String,
    /// Identity of this start.
    pub boot: Uuid,
    /// Version of the program.
    pub version: &'static str,
    /// When it started.
    pub started_us: Micros,
    /// Now.
    pub now_us: Micros,
    /// Readings acquired, good or not.
    pub acquired: u64,
    /// Readings that were computed from others.
    pub computed: u64,
    /// Readings that were read and, by their tags' deadbands, not sent.
    pub suppressed: u64,
    /// Readings made durable.
    pub spooled: u64,
    /// Readings the hub has.
    pub acknowledged: u64,
    /// Frames that wait.
    pub backlog_frames: u64,
    /// Readings that wait, those of earlier starts included.
    pub backlog_readings: u64,
    /// Seal time of the oldest waiting frame.
    pub oldest_us: Option<Micros>,
    /// Readings given up for want of space or to damage.
    pub lost: u64,
    /// Those of them that waited for the hub and went for want of room.
    pub evicted_unsent: u64,
    /// The spool's bytes on disk.
    pub spool_disk_bytes: u64,
    /// Readings up to this old may not be on disk yet: what a power cut may cost, microseconds.
    pub spool_window_us: u64,
    /// Failed writes.
    pub spool_write_errors: u64,
    /// Sources.
    pub sources: Vec<SourceSnapshot>,
    /// Control points.
    pub ccps: Vec<PointStatus>,
    /// Inspections.
    pub vision: VisionStatus,
    /// The uplink.
    pub uplink: UplinkStatus,
    /// Newest alarms first.
    pub alarms: Vec<Alarm>,
    /// The alarms that stand, by their states.
    pub alarm_board: AlarmBoard,
}

/// Inspections by verdict.
#[derive(Clone, Debug, Serialize)]
pub struct VisionStatus {
    /// Pass verdicts.
    pub pass: u64,
    /// Reject verdicts.
    pub reject: u64,
    /// Unknown verdicts.
    pub unknown: u64,
    /// Why nothing can be inspected.
    pub off: Option<String>,
}

/// The uplink.
#[derive(Clone, Debug, Serialize)]
pub struct UplinkStatus {
    /// Online or not, and why.
    #[serde(flatten)]
    pub state: UplinkState,
    /// Connections made.
    pub connections: u64,
    /// Frames sent, repeats included.
    pub sent_frames: u64,
    /// Bytes sent.
    pub sent_bytes: u64,
    /// Frames the hub rejected.
    pub rejected_frames: u64,
    /// What the newest connection is made with: `certificate` or `password`.
    pub signs_in_with: &'static str,
    /// The client certificate that is installed.
    pub certificate: Option<CertificateStatus>,
}

/// The snapshot now.
pub fn status(health: &Health) -> Status {
    let spool = &health.spool;
    let (vision, uplink) = (&health.vision, &health.uplink);
    Status {
        edge: health.edge.clone(),
        boot: health.boot,
        version: env!("CARGO_PKG_VERSION"),
        started_us: health.started_us,
        now_us: clock::now_us(),
        acquired: health.acquired(),
        computed: health.computed.load(Relaxed),
        suppressed: health.suppressed.load(Relaxed),
        spooled: spool.spooled_readings.load(Relaxed),
        acknowledged: spool.acknowledged_readings.load(Relaxed),
        backlog_frames: spool.backlog_frames.load(Relaxed),
        backlog_readings: spool.backlog_readings.load(Relaxed),
        oldest_us: Some(spool.oldest_us.load(Relaxed)).filter(|oldest_us| *oldest_us > 0),
        lost: spool.lost_readings.load(Relaxed),
        evicted_unsent: spool.evicted_unsent_readings.load(Relaxed),
        spool_disk_bytes: spool.disk_bytes.load(Relaxed),
        spool_window_us: spool.window_us.load(Relaxed),
        spool_write_errors: spool.write_errors.load(Relaxed),
        sources: health.sources().iter().map(|source| source.snapshot()).collect(),
        ccps: health.points(),
        vision: VisionStatus {
            pass: vision.pass.load(Relaxed),
            reject: vision.reject.load(Relaxed),
            unknown: vision.unknown.load(Relaxed),
            off: vision.off(),
        },
        uplink: UplinkStatus {
            state: uplink.get(),
            connections: uplink.connections.load(Relaxed),
            sent_frames: uplink.sent_frames.load(Relaxed),
            sent_bytes: uplink.sent_bytes.load(Relaxed),
            rejected_frames: uplink.rejected_frames.load(Relaxed),
            signs_in_with: uplink.signs_in_with(),
            certificate: uplink.certificate(),
        },
        alarms: health.alarms(),
        alarm_board: health.alarm_board(),
    }
}
