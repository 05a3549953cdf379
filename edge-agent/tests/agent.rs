//! Does the whole program keep its promises, run as a process against devices and hubs that misbehave?
#![allow(
    unreachable_pub,
    reason = "support code is shared by test binaries, not exported"
)]
#![allow(clippy::unwrap_used, reason = "a test's support code fails by panicking")]

mod support;

mod agent {
    mod alarms;
    mod brokers;
    mod cameras;
    mod ccps;
    mod certificates;
    mod commands;
    mod crash;
    mod devices;
    mod fleet;
    mod fleet_commands;
    mod gateways;
    mod manual;
    mod modbus;
    mod no_space;
    mod reload;
    mod scenarios;
    #[cfg(feature = "rtu")]
    mod serial;
    mod service;
    mod signals;
    mod soak;
    mod sparkplug;
    mod sparkplug_fault;
    mod sparkplug_servers;
    mod sparkplug_wire;
    mod spool;
    mod uplink;
    mod versions;
    mod writes;
}
