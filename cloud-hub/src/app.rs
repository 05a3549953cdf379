//! What does every handler and task of the hub hold? The database, the live bus, the clock, the configuration
//! and the key that signs tokens. Cheap to clone; nothing in it belongs to one request.

use std::sync::Arc;

use metrics_exporter_prometheus::PrometheusHandle;

use crate::{
    config::Config,
    edges::authority::DeviceAuthority,
    identity::mail::Bell,
    integrity::key::AuditKey,
    kernel::{
        clock::Clock, database::Target, export::Exports, key_use::KeyUse, seal::SealingKey, tenancy::Db,
        token::SigningKey,
    },
    series::bus::LiveBus,
};

/// The hub's shared state.
#[derive(Clone, Debug)]
pub struct App {
    /// Tells this hub from others on the same database, for as long as it runs.
    pub name: Arc<str>,
    /// The only way to the database: transactions that belong to one tenant.
    pub db: Db,
    /// What just happened, for live pages.
    pub live: LiveBus,
    /// Now.
    pub clock: Clock,
    /// As started.
    pub config: Arc<Config>,
    /// Signs and verifies bearer tokens.
    pub signing_key: SigningKey,
    /// Seals secrets that the hub must be able to use again.
    pub sealing_key: SealingKey,
    /// When API keys were last used.
    pub key_use: KeyUse,
    /// Signs the audit chain's daily roots.
    pub audit_key: AuditKey,
    /// Signs the keys of edges.
    pub device_authority: DeviceAuthority,
    /// The owner of the database, where known: makes, migrates and removes tenants.
    pub owner: Option<Target>,
    /// Rung when a tenant has mail to be sent.
    pub mail: Bell,
    /// The exports under way.
    pub exports: Exports,
    /// Renders `/metrics`.
    pub metrics: PrometheusHandle,
}
