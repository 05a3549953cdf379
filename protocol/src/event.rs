//! What happened, beside readings? The records of the events lane: checks, deviations, alarms, inspections,
//! readings that were due and not read, gaps, answers to commands, manual entries and clock steps.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    alarm::AlarmChange,
    command::CommandResult,
    limit::{Check, Deviation},
    reading::{Alias, Micros},
};

/// One record of the events lane. Variants are only ever appended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// A critical control point was judged over a window.
    CcpCheck(Check),
    /// A critical limit was breached, or monitoring was lost: opened, grown or closed.
    Deviation(Deviation),
    /// Something a person should know that is not a deviation.
    Alarm(Alarm),
    /// A camera frame was judged, or could not be.
    Inspection(Inspection),
    /// Readings that were due and not taken at all.
    NotRead(NotRead),
    /// Records that were acquired and then lost, and how many.
    Gap(Gap),
    /// What became of a command of the hub.
    CommandResult(CommandResult),
    /// An alarm changed its state.
    AlarmChange(AlarmChange),
    /// A person entered a value by hand.
    ManualEntry(ManualEntry),
    /// The edge's clock was found to be wrong, or was corrected.
    ClockStep(ClockStep),
    /// The edge asks for a certificate; the answer is a command.
    CertificateRequest(CertificateRequest),
}

/// A value that a person measured and entered on the line PC.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ManualEntry {
    /// Stable identity.
    pub id: Uuid,
    /// When it was entered.
    pub at_us: Micros,
    /// When it was measured, as the person says.
    pub measured_us: Micros,
    /// Name of the tag.
    pub tag: String,
    /// The value in the tag's unit.
    pub value: f64,
    /// The badge of who measured it. What proves it, the PIN, was checked on the line PC and goes nowhere.
    pub badge: String,
    /// Name of who measured it, as the line PC knows it.
    pub name: String,
    /// What they signed: `performed`.
    pub meaning: String,
    /// In their words.
    pub note: String,
    /// SHA-256 over the entry's canonical text, lower-case hex; binds the signature to what was entered.
    pub sha256: String,
}

/// The edge's clock was found to be wrong, or was corrected. Records are ordered by sequence, never by the clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockStep {
    /// When, by the clock after the step.
    pub at_us: Micros,
    /// By how much it was set: positive forward, negative back.
    pub by_us: i64,
    /// Whether the clock is synchronised after it.
    pub is_synced: bool,
    /// Add this to the times of records of this boot that were sealed unsynchronised before the step: the first
    /// synchronisation of a boot tells what the true times were. 0 where they stand as they are.
    pub correction_us: i64,
}

/// The edge asks for a certificate of its own key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateRequest {
    /// When.
    pub at_us: Micros,
    /// PKCS #10, PEM.
    pub csr_pem: String,
}

/// Something a person should know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Alarm {
    /// Stable identity of this occurrence.
    pub id: Uuid,
    /// When it was raised or cleared.
    pub at_us: Micros,
    /// Stable machine name: `ccp.diverted`, `sensor.stuck`, `camera.silent`, `source.down`, …
    pub code: String,
    /// What it is about: a tag, a source, a camera.
    pub subject: String,
    /// Code of the line, when it has one.
    pub line: Option<String>,
    /// Raised, or back to normal.
    pub active: bool,
    /// For people.
    pub message: String,
}

/// What an inspection concluded. Unknown is never Pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Inspected and within limits.
    Pass,
    /// Inspected and defective.
    Reject,
    /// Not inspected, or not conclusively.
    Unknown,
}

/// One defect found in a camera frame.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Defect {
    /// The class name in the model's manifest.
    pub class: String,
    /// Score, 0 to 1, uncalibrated.
    pub score: f32,
    /// Left, top, right, bottom in pixels of the source frame.
    pub corners_px: [f32; 4],
}

/// Exactly which model judged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelId {
    /// Name in the manifest.
    pub name: String,
    /// Version in the manifest.
    pub version: String,
    /// SHA-256 of the ONNX file, lower-case hex.
    pub sha256: String,
}

/// Most bytes of the picture that travels with an inspection.
pub const THUMBNAIL_BYTES_MAX: usize = 32 * 1024;

/// One camera frame and what was concluded from it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Inspection {
    /// Stable identity.
    pub id: Uuid,
    /// Name of the camera.
    pub camera: String,
    /// Code of the line.
    pub line: Option<String>,
    /// When the frame was taken.
    pub taken_us: Micros,
    /// The conclusion.
    pub verdict: Verdict,
    /// Why, when it is Unknown.
    pub reason: Option<String>,
    /// What was found.
    pub defects: Vec<Defect>,
    /// Width and height of the source frame; 0 when it could not be read.
    pub size_px: [u32; 2],
    /// SHA-256 of the frame's bytes, lower-case hex: the verdict can be replayed on them.
    pub frame_sha256: String,
    /// The model that judged; none when inference was off.
    pub model: Option<ModelId>,
    /// From the frame's arrival to the verdict, microseconds.
    pub latency_us: u32,
    /// A small JPEG of the frame, at most [`THUMBNAIL_BYTES_MAX`], for verdicts that a person will look at.
    pub thumbnail_jpeg: Option<Vec<u8>>,
}

/// Readings that were due and not taken: good + bad + not read = due, always.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotRead {
    /// The tags concerned.
    pub tags: Vec<Alias>,
    /// Due time of the first reading missed.
    pub from_us: Micros,
    /// Due time of the last reading missed.
    pub to_us: Micros,
    /// How many readings of each tag were due in that time and not taken.
    pub due: u32,
    /// Why: `overrun`, `agent stopped`, …
    pub reason: String,
}

/// Records that the spool had to give up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// Time of the earliest record lost, as far as known.
    pub from_us: Micros,
    /// Time of the latest record lost, as far as known.
    pub to_us: Micros,
    /// Frames lost.
    pub frames: u64,
    /// Readings lost, as far as known.
    pub readings: u64,
    /// Why: `quota`, `corrupt segment`, …
    pub reason: String,
}
