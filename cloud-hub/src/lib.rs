//! The hub of FoodFlow OS: takes frames from edges, keeps them for ever, holds the lots they incriminate,
//! and shows it all. `app` is what handlers are given; `router` is the table of contents.

pub mod alarm;
pub mod app;
pub mod broker;
pub mod browser;
pub mod cli;
pub mod config;
pub mod core;
pub mod edges;
pub mod embedded;
pub mod error;
pub mod fsq;
pub mod health;
pub mod hub;
pub mod identity;
pub mod ingest;
pub mod integrate;
pub mod integrator;
pub mod integrity;
pub mod kernel;
pub mod limits;
pub mod openapi;
pub mod plant_ops;
pub mod records;
pub mod request;
pub mod request_log;
pub mod router;
pub mod seed;
pub mod series;
pub mod tenant;
pub mod ui;
pub mod vision;
