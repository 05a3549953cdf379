//! The demonstration plant.
