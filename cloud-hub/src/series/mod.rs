//! Where do readings live? Their upkeep, their queries, and the bus that tells live pages what just arrived.

pub mod bus;
pub mod convert;
pub mod elsewhere;
pub mod feed;
pub mod live;
pub mod partitions;
pub mod query;
pub mod relay;
pub mod report;
pub mod upkeep;
