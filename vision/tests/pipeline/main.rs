//! The whole pipeline from outside: what goes live, what is judged how, and what no frame may do.
#![expect(clippy::unwrap_used, reason = "a test that cannot set its scene must fail")]

mod corrupt;
mod load;
mod reference;
mod support;
mod verdict;
