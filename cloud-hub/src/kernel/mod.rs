//! What do all contexts share? The clock, tenants' transactions, roles, passwords and tokens.

pub mod bulk;
pub mod clock;
pub mod database;
pub mod duration;
pub mod password;
pub mod role;
pub mod secret;
pub mod tenancy;
pub mod token;
