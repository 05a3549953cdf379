//! What do all contexts share? Callers and what they may do, tenants' transactions with their audit trail and
//! events, records, and the clock.

pub mod api_key;
pub mod audit;
pub mod bulk;
pub mod caller;
pub mod clock;
pub mod context;
pub mod database;
pub mod duration;
pub mod ear;
pub mod event;
pub mod export;
pub mod freeze;
pub mod hex;
pub mod idempotency;
pub mod key_file;
pub mod key_use;
pub mod lead;
pub mod page;
pub mod password;
pub mod permission;
pub mod pulse;
pub mod reply;
pub mod resource;
pub mod role;
pub mod scope;
pub mod seal;
pub mod secret;
pub mod tenancy;
pub mod token;
