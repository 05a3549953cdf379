//! How does a tenant come to be, and how do its edges prove who they are?

pub mod enrolment;
pub mod migrate;
pub mod provision;
pub mod user;
