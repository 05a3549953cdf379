//! Do others' devices, gateways and programs get their values in, and hear what is wrong where something is? A real hub
//! with a real PostgreSQL, spoken to over MQTT and HTTP.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    unreachable_pub,
    reason = "a test fails where it stands, and says what it measured"
)]

#[path = "../support/mod.rs"]
mod support;

#[path = "../api/client.rs"]
#[allow(dead_code, reason = "this binary uses a part of it")]
mod client;

mod adopt;
mod bad_input;
mod brokers;
mod clients;
mod device;
mod explain;
mod http;
mod mosquitto;
mod outage;
mod qos;
mod sparkplug;
mod tap;
