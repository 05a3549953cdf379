//! What do the tests run the agent against? A PLC and a hub that misbehave on demand, and the agent itself.
#![allow(dead_code, reason = "each test binary uses its own part of the support code")]

pub mod acquisition;
pub mod broker;
pub mod edge;
pub mod hub;
pub mod jitter;
pub mod load;
pub mod peer;
pub mod plc;
pub mod tap;
