//! Does the REST API keep its contract? A real hub over HTTP, with a real PostgreSQL behind it.

#[path = "../support/mod.rs"]
mod support;

mod access;
mod client;
mod live;
mod plant;
mod safety;
