//! Which models do rules judge by? Out of the database, each decoded once: a model never changes, and its hash says
//! which it is.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use chrono::{DateTime, Utc};
use protocol::Micros;
use uuid::Uuid;

use super::model::Model;
use crate::kernel::tenancy::{TenancyError, TenantTx};

/// Bytes of models, as stored, that are kept decoded.
const KEPT_BYTES_MAX: usize = 128 << 20;

/// A model's number, from when on it judges, and the model.
pub type Dated = (i32, Micros, Arc<Model>);

#[derive(Debug, Default)]
struct Kept {
    by_hash: HashMap<String, Arc<Model>>,
    bytes: usize,
}

/// Models that were decoded before. Cloning it gives another handle on the same.
#[derive(Clone, Debug, Default)]
pub struct Models(Arc<Mutex<Kept>>);

type Named = (Uuid, i32, DateTime<Utc>, String);

impl Models {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The models of rules, by rule, oldest first.
    pub(super) async fn of(
        &self,
        tx: &mut TenantTx,
        rules: &[Uuid],
    ) -> Result<BTreeMap<Uuid, Vec<Dated>>, TenancyError> {
        let named: Vec<Named> = sqlx::query_as(
            "SELECT rule_id, version, valid_from, sha256 FROM alarm_model WHERE rule_id = ANY($1) \
             ORDER BY rule_id, valid_from, version",
        )
        .bind(rules)
        .fetch_all(tx.conn())
        .await?;
        self.fetch(tx, &named).await?;
        let kept = self.kept();
        let mut found: BTreeMap<Uuid, Vec<Dated>> = BTreeMap::new();
        for (rule_id, version, from, hash) in named {
            if let Some(model) = kept.by_hash.get(&hash) {
                let dated = (version, from.timestamp_micros(), model.clone());
                found.entry(rule_id).or_default().push(dated);
            }
        }
        Ok(found)
    }

    /// Reads those that are not kept yet.
    async fn fetch(&self, tx: &mut TenantTx, named: &[Named]) -> Result<(), TenancyError> {
        let unknown: Vec<&String> = {
            let mut kept = self.kept();
            if kept.bytes > KEPT_BYTES_MAX {
                *kept = Kept::default();
            }
            let hashes = named.iter().map(|(.., hash)| hash);
            hashes.filter(|hash| !kept.by_hash.contains_key(*hash)).collect()
        };
        if unknown.is_empty() {
            return Ok(());
        }
        let rules: Vec<Uuid> = named.iter().map(|(rule_id, ..)| *rule_id).collect();
        let rows: Vec<(Uuid, i32, String, Vec<u8>)> = sqlx::query_as(
            "SELECT rule_id, version, sha256, model FROM alarm_model WHERE rule_id = ANY($1) AND sha256 = ANY($2)",
        )
        .bind(rules)
        .bind(unknown)
        .fetch_all(tx.conn())
        .await?;
        let mut kept = self.kept();
        for (rule, version, hash, bytes) in rows {
            match Model::decode(&bytes) {
                Ok(model) => {
                    kept.bytes += bytes.len();
                    kept.by_hash.insert(hash, Arc::new(model));
                }
                Err(error) => tracing::error!(%rule, version, %error, "a model is passed over"),
            }
        }
        Ok(())
    }
}
