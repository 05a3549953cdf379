//! Does the whole program keep its promises, run as a process against devices and hubs that misbehave?
#![allow(
    unreachable_pub,
    reason = "support code is shared by test binaries, not exported"
)]
#![allow(clippy::unwrap_used, reason = "a test's support code fails by panicking")]

mod support;

mod agent {
    mod cameras;
    mod ccps;
    mod commands;
    mod crash;
    mod devices;
    mod no_space;
    mod spool;
    mod uplink;
}
