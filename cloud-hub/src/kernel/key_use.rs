//! When was an API key last used? Known to the minute, and written at most once a minute for each key, beside the
//! requests and not within them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use chrono::{DateTime, Utc};
use protocol::Micros;
use uuid::Uuid;

use super::{
    audit::Actor,
    clock::time_from_us,
    tenancy::{Db, TenancyError, TenantSlug},
};

const MINUTE_US: Micros = 60_000_000;
/// Keys remembered; beyond this those of earlier minutes are forgotten.
const KEYS_MAX: usize = 10_000;

/// The minute in which each key was last noted. Cloning it gives another handle on the same.
#[derive(Clone, Debug, Default)]
pub struct KeyUse(Arc<Mutex<HashMap<Uuid, Micros>>>);

impl KeyUse {
    /// Notes that a good key was used, and has that written if it was not yet in this minute.
    pub(super) fn note(&self, db: &Db, tenant: &TenantSlug, key: Uuid, now_us: Micros) {
        let Some(minute_us) = self.is_new(key, now_us) else {
            return;
        };
        let (db, tenant) = (db.clone(), tenant.clone());
        tokio::spawn(async move {
            if let Err(error) = write(&db, &tenant, key, time_from_us(minute_us)).await {
                tracing::debug!(%error, %key, "the use of a key was not noted");
            }
        });
    }

    /// The minute, if the key was not noted in it.
    fn is_new(&self, key: Uuid, now_us: Micros) -> Option<Micros> {
        let minute_us = now_us - now_us.rem_euclid(MINUTE_US);
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if noted.len() >= KEYS_MAX {
            noted.retain(|_, at_us| *at_us >= minute_us);
        }
        (noted.insert(key, minute_us) != Some(minute_us)).then_some(minute_us)
    }
}

async fn write(db: &Db, tenant: &TenantSlug, key: Uuid, at: DateTime<Utc>) -> Result<(), TenancyError> {
    let actor = Actor::Hub { duty: "key use" };
    let mut tx = db.begin_as(tenant, actor).await?;
    sqlx::query(
        "UPDATE api_key SET last_used_at = $2 WHERE id = $1 AND (last_used_at IS NULL OR last_used_at < $2)",
    )
    .bind(key)
    .bind(at)
    .execute(tx.conn())
    .await?;
    tx.commit_unaudited("when a key was last used is a state, not a record")
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_noted_once_a_minute_however_often_it_is_used() {
        let (uses, key) = (KeyUse::default(), Uuid::from_u128(1));
        assert_eq!(uses.is_new(key, 61_000_000), Some(60_000_000));
        assert_eq!(uses.is_new(key, 119_999_999), None);
        assert_eq!(uses.is_new(Uuid::from_u128(2), 119_999_999), Some(60_000_000));
        assert_eq!(uses.is_new(key, 120_000_000), Some(120_000_000));
    }
}
