//! What is done about food safety, each verb in the transaction of its caller.

pub mod deviation;
pub mod hold;
