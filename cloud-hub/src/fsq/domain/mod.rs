//! What follows from a deviation, decided without a database: which product is suspect.

pub mod suspect;
