//! How do camera frames reach the inspection? A directory is watched; the newest picture wins and every picture
//! that is passed over is put on record.

pub mod client;
pub mod config;
pub mod plan;

pub use client::run;
