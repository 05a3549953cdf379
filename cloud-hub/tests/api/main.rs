//! Does the REST API keep its contract? A real hub over HTTP, with a real PostgreSQL behind it.
#![expect(
    clippy::unwrap_used,
    reason = "a test's helpers fail the test where they stand"
)]

#[path = "../support/mod.rs"]
mod support;

mod access;
mod browser;
mod client;
mod limits;
mod live;
mod oidc;
mod plant;
mod resource;
mod safety;
mod session;
