//! How are OPC UA servers read? One task a server: a subscription with source timestamps, and a watchdog that
//! turns silence into readings that say so.

pub mod client;
pub mod config;
pub mod decode;
pub mod plan;
pub mod session;
pub mod write;

pub use session::run;
