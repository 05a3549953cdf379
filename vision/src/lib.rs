//! Frames in, verdicts out: does this JPEG of a tray show a defect, and can we be sure that it was looked at?
//!
//! The path of a frame is [`decode`] → [`preprocess`] → [`engine`] → [`head`] → [`Inspection`], driven by
//! [`Detector`]. The crate knows nothing of cameras, queues, MQTT or SQL; it starts no threads and reads no clock but
//! the one that times its own stages.
#![forbid(unsafe_code)]

mod blank;
pub mod decode;
pub mod detector;
pub mod engine;
pub mod golden;
pub mod head;
pub mod inspection;
pub mod load_error;
pub mod manifest;
pub mod preprocess;
pub mod runtime;
mod stopwatch;
pub mod synthetic;

pub use detector::Detector;
pub use inspection::{Defect, Inspection, ModelId, Verdict};
pub use load_error::LoadError;
pub use manifest::Manifest;
pub use runtime::Runtime;
pub use synthetic::{DefectKind, Tray, TraySpec, encode_jpeg, render};
