//! Does the REST API keep its contract? A real hub over HTTP, with a real PostgreSQL behind it.
#![expect(
    clippy::unwrap_used,
    reason = "a test's helpers fail the test where they stand"
)]

#[path = "../support/mod.rs"]
mod support;

mod access;
mod api_keys;
mod client;
mod devices;
mod limits;
mod live;
mod people;
mod plant;
mod resource;
mod roles;
mod safety;
mod scope;
mod session;
mod users;
