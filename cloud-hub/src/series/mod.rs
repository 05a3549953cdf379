//! Where do readings live? Their queries, and the bus that tells live pages what just arrived.

pub mod bus;
pub mod feed;
pub mod live;
pub mod partitions;
pub mod query;
