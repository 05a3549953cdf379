//! Does the REST API keep its contract? A real hub over HTTP, with a real PostgreSQL behind it.
#![expect(
    clippy::unwrap_used,
    reason = "a test's helpers fail the test where they stand"
)]

#[path = "../support/mod.rs"]
mod support;

mod access;
mod audited;
mod client;
mod conformance;
mod hostile;
mod isolation;
mod limits;
mod live;
mod plant;
mod resource;
mod rows;
mod safety;
mod session;
mod specimen;
mod unauthorized;
