//! How are Modbus TCP devices read? One task a device; registers are coalesced into few requests and every due
//! reading ends as good, uncertain, bad or not read.

pub mod client;
pub mod config;
pub mod decode;
pub mod plan;
pub mod poll;
pub mod schedule;
pub mod write;

pub use poll::run;
