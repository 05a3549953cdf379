//! What words do the edge agent and the hub share? Readings, tags, frames, lanes, acknowledgements,
//! topics and critical limits. Pure: no sockets, no SQL, no clock; times are arguments.

#![forbid(unsafe_code)]

pub mod ack;
pub mod alarm;
pub mod command;
pub mod envelope;
pub mod event;
pub mod frame;
pub mod integrator;
pub mod lane;
pub mod limit;
pub mod manual;
pub mod quality;
pub mod reading;
pub mod sparkplug;
pub mod tag;
pub mod topic;
pub mod unit;

pub use quality::Quality;
pub use reading::{Micros, Reading};
