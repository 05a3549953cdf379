//! From frames to rows.
