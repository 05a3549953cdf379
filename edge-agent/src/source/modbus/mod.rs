//! How are Modbus devices read? One task a device; registers are coalesced into few requests and every due reading
//! ends as good, uncertain, bad or not read. Units behind one gateway share its connection.

pub mod client;
pub mod config;
pub mod decode;
pub mod endpoint;
pub mod group;
pub mod line;
pub mod plan;
pub mod poll;
pub mod schedule;
#[cfg(feature = "rtu")]
mod serial;
pub mod tag;
pub mod unit;
pub mod write;

pub use line::Lines;
pub use poll::run;
