//! Plain records of food safety and quality.

pub mod supplier;
