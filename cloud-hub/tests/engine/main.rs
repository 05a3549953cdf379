//! Does the hub keep its promises about data? Tenancy, ingest, holds and outages, against a real PostgreSQL.

#![allow(clippy::unwrap_used, unreachable_pub, reason = "a test fails where it stands")]

#[path = "../support/mod.rs"]
mod support;

mod events;
