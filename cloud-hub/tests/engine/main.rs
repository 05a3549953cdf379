//! Does the hub keep its promises about data? Tenancy, ingest, holds and outages, against a real PostgreSQL.

#[path = "../support/mod.rs"]
mod support;

mod hold;
mod ingest;
mod outage;
mod series;
mod tenancy;
