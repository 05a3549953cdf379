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
mod audited;
mod browser;
mod client;
mod conformance;
mod core;
mod devices;
mod edge_certificates;
mod edge_fleet;
mod events;
mod export;
mod hostile;
mod hubs;
mod isolation;
mod limits;
mod live;
mod oidc;
mod people;
mod plant;
mod postbox;
mod receiver;
mod records;
mod registration;
mod resource;
mod roles;
mod rows;
mod safety;
mod scope;
mod session;
mod signature;
mod specimen;
mod tenants;
mod unauthorized;
mod users;
mod webhooks;
