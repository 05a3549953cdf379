//! How are OPC UA servers read? One task a server: subscriptions with source timestamps, resumed where they stood after a
//! loss, and a watchdog that turns silence into readings that say so.

pub mod ask;
pub mod client;
pub mod config;
pub mod decode;
pub mod endpoint;
pub mod hold;
pub mod items;
pub mod limits;
pub mod pki;
pub mod plan;
pub mod pulse;
pub mod security;
pub mod sequence;
pub mod session;
pub mod slots;
pub mod survey;
pub mod write;

pub use session::run;
pub use write::write;
