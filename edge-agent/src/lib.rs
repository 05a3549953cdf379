//! The edge agent: reads PLCs and cameras on a plant's floor, judges critical control points on the spot, and keeps
//! every reading on disk until the hub has it.

pub mod agent;
pub mod alarm;
pub mod ccp;
pub mod cli;
pub mod clock;
pub mod config;
pub mod durable;
pub mod fleet;
pub mod health;
pub mod hex;
pub mod inspect;
pub mod local;
pub mod output;
pub mod pipeline;
pub mod signal;
pub mod simulate;
pub mod source;
pub mod sparkplug;
pub mod spool;
pub mod uplink;
