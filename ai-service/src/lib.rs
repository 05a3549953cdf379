//! What do the numbers of a plant mean? Pure models (equipment effectiveness, drift, anomalies) and a thin HTTP face.

#![forbid(unsafe_code)]

pub mod anomaly;
pub mod api;
pub mod drift;
pub mod oee;
