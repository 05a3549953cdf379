//! Does the hub keep its promises about data? Tenancy, ingest, holds and outages, against a real PostgreSQL.

#![allow(clippy::unwrap_used, unreachable_pub, reason = "a test fails where it stands")]

#[path = "../support/mod.rs"]
mod support;

mod alarms;
mod archive;
mod chain;
mod command;
mod dispatch;
mod edge_records;
mod events;
mod fleet;
mod hold;
mod ingest;
mod logs;
mod mqtt;
mod outage;
mod series;
mod server;
mod storage;
mod tenancy;
