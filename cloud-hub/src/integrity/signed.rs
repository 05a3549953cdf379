//! Do the signatures on records say what was signed? Each row of `signature` is held against the record it carries
//! and against the entry of the chain that tells of it; a signature that is gone is noticed by its entry.

use chrono::{DateTime, Utc};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use sqlx::FromRow;
use uuid::Uuid;

use super::chain::{Broken, Fault, NOWHERE};
use crate::kernel::{
    hex::hex,
    tenancy::{TenancyError, TenantTx},
};

/// A row of `signature`.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub(super) struct Signature {
    pub(super) id: Uuid,
    pub(super) at: DateTime<Utc>,
    pub(super) user_id: Uuid,
    pub(super) signer_name: String,
    pub(super) meaning: String,
    pub(super) reason: String,
    pub(super) record_type: String,
    pub(super) record_id: Uuid,
    pub(super) record_version: i32,
    pub(super) record: String,
    pub(super) record_sha256: Vec<u8>,
    pub(super) auth_factor: String,
}

/// Columns of [`Signature`], of a table called `s`.
pub(super) const COLUMNS: &str = "s.id, s.at, s.user_id, s.signer_name, s.meaning, s.reason, s.record_type, \
    s.record_id, s.record_version, s.record, s.record_sha256, s.auth_factor";

impl Signature {
    /// As the audit chain tells of it: everything but the record, which its hash stands for.
    pub(super) fn told(&self) -> Value {
        json!({
            "at_us": self.at.timestamp_micros(),
            "auth_factor": self.auth_factor,
            "meaning": self.meaning,
            "reason": self.reason,
            "record_id": self.record_id,
            "record_sha256": hex(&self.record_sha256),
            "record_type": self.record_type,
            "record_version": self.record_version,
            "signer_name": self.signer_name,
            "user_id": self.user_id,
        })
    }

    /// What is wrong with it, given the chain's entry of it.
    fn fault(&self, entry: Option<&str>) -> Option<&'static str> {
        if self.record_sha256 != Sha256::digest(&self.record)[..] {
            return Some("its record is not the one that was signed");
        }
        let Some(entry) = entry.and_then(|text| serde_json::from_str::<Value>(text).ok()) else {
            return Some("the audit chain does not know of it");
        };
        (entry["after"] != self.told()).then_some("it differs from its entry in the audit chain")
    }
}

#[derive(FromRow)]
struct Found {
    #[sqlx(flatten)]
    signature: Signature,
    seq: Option<i64>,
    event: Option<String>,
}

/// Checks every signature of a tenant; says how many there are and the first that is not good.
///
/// # Errors
/// [`TenancyError`].
pub(super) async fn check(tx: &mut TenantTx) -> Result<(u64, Option<Broken>), TenancyError> {
    let sql = format!(
        "SELECT {COLUMNS}, e.seq, e.event FROM signature s LEFT JOIN LATERAL \
           (SELECT e.seq, e.event FROM audit_event e WHERE e.entity = 'signature' AND e.entity_id = s.id::text \
              AND e.action = 'sign' ORDER BY e.seq LIMIT 1) e ON true"
    );
    let (mut count, mut first): (u64, Option<Broken>) = (0, None);
    let mut note = |broken: Broken| {
        if first.as_ref().is_none_or(|first| broken.seq < first.seq) {
            first = Some(broken);
        }
    };
    {
        let mut rows = sqlx::query_as::<_, Found>(sqlx::AssertSqlSafe(sql)).fetch(tx.conn());
        while let Some(found) = rows.next().await {
            let found = found?;
            count += 1;
            if let Some(fault) = found.signature.fault(found.event.as_deref()) {
                let id = found.signature.id.to_string();
                note(Broken::at(
                    found.seq.unwrap_or(NOWHERE),
                    Fault::Signature { id, fault },
                ));
            }
        }
    }
    let gone: Option<(i64, Option<String>)> = sqlx::query_as(
        "SELECT e.seq, e.entity_id FROM audit_event e WHERE e.entity = 'signature' AND e.action = 'sign' \
           AND NOT EXISTS (SELECT FROM signature s WHERE s.id::text = e.entity_id) ORDER BY e.seq LIMIT 1",
    )
    .fetch_optional(tx.conn())
    .await?;
    if let Some((seq, id)) = gone {
        let id = id.unwrap_or_default();
        let fault = "it is gone, though the audit chain tells of it";
        note(Broken::at(seq, Fault::Signature { id, fault }));
    }
    Ok((count, first))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signature() -> Signature {
        let record = r#"{"code":"S-1"}"#.to_owned();
        Signature {
            id: Uuid::from_u128(1),
            at: DateTime::from_timestamp_micros(1_700_000_000_000_001).unwrap(),
            user_id: Uuid::from_u128(2),
            signer_name: "Ann".to_owned(),
            meaning: "approved".to_owned(),
            reason: "checked".to_owned(),
            record_type: "supplier".to_owned(),
            record_id: Uuid::from_u128(3),
            record_version: 4,
            record_sha256: Sha256::digest(&record).to_vec(),
            record,
            auth_factor: "password".to_owned(),
        }
    }

    #[test]
    fn a_signature_that_was_altered_anywhere_is_noticed() {
        let whole = signature();
        let entry = json!({ "after": whole.told() }).to_string();
        assert_eq!(whole.fault(Some(&entry)), None);
        assert_eq!(whole.fault(None), Some("the audit chain does not know of it"));
        let changes: [fn(&mut Signature); 10] = [
            |it| it.at += chrono::Duration::microseconds(1),
            |it| it.user_id = Uuid::nil(),
            |it| it.signer_name.push('a'),
            |it| it.meaning = "reviewed".to_owned(),
            |it| it.reason.clear(),
            |it| it.record_type.push('s'),
            |it| it.record_id = Uuid::nil(),
            |it| it.record_version = 5,
            |it| it.record.push(' '),
            |it| it.record_sha256[31] ^= 1,
        ];
        for (place, change) in changes.into_iter().enumerate() {
            let mut altered = signature();
            change(&mut altered);
            assert!(altered.fault(Some(&entry)).is_some(), "change {place}");
        }
        let mut both = signature();
        both.record.push(' ');
        both.record_sha256 = Sha256::digest(&both.record).to_vec();
        assert!(
            both.fault(Some(&entry)).is_some(),
            "the chain still has the other hash"
        );
    }
}
