//! Does the REST API keep its contract? A real hub over HTTP, with a real PostgreSQL behind it.
#![expect(
    clippy::unwrap_used,
    reason = "a test's helpers fail the test where they stand"
)]

#[path = "../support/mod.rs"]
mod support;

mod access;
mod api_keys;
mod audit;
mod client;
mod export;
mod limits;
mod events;
mod live;
mod people;
mod plant;
mod postbox;
mod registration;
mod receiver;
mod resource;
mod roles;
mod safety;
mod scope;
mod session;
mod tenants;
mod users;
mod webhooks;
