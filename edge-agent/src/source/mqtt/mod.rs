//! How are devices read that publish by themselves? One task a local broker: subscribe, read each message in its
//! dialect, and turn silence into readings that say so.

pub mod client;
pub mod config;
pub mod decode;
pub mod plan;

pub use client::run;
