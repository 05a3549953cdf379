//! The hub of FoodFlow OS: takes frames from edges, keeps them for ever, holds the lots they incriminate,
//! and shows it all. `app` is what handlers are given; `router` is the table of contents.

pub mod app;
pub mod broker;
pub mod cli;
pub mod config;
pub mod embedded;
pub mod fsq;
pub mod hub;
pub mod ingest;
pub mod kernel;
pub mod seed;
pub mod series;
pub mod tenant;
