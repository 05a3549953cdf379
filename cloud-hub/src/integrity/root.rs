//! What does a signed root say, and is it good? Where a tenant's chain stood at the end of a UTC day, signed with
//! the hub's audit key, each naming the one before. Pure: roots come from the database or from the customer's files.

use chrono::NaiveDate;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};
use sqlx::FromRow;

use super::{
    canonical::is_canonical,
    chain::{Broken, Fault},
    key::{AuditKey, verifies},
};
use crate::kernel::audit::canonical;
use crate::kernel::hex::{from_hex, hex};

/// A row of `audit_root`.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct Root {
    /// The UTC day at whose end it was taken.
    pub day: NaiveDate,
    /// Rows of the chain up to there.
    pub last_seq: i64,
    /// Hash of the last of them.
    pub last_hash: Vec<u8>,
    /// What was signed, byte for byte.
    pub statement: String,
    /// Ed25519.
    pub signature: Vec<u8>,
    /// By whom.
    pub public_key: Vec<u8>,
}

/// What a root states.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    /// Slug.
    pub tenant: String,
    /// The UTC day.
    pub day: NaiveDate,
    /// Rows of the chain up to its end.
    pub last_seq: i64,
    /// Hash of the last of them, hexadecimal.
    pub last_hash: String,
    /// Rows since the root before.
    pub rows_that_day: i64,
    /// SHA-256 of the statement before, hexadecimal; null in the first.
    pub previous_root_sha256: Option<String>,
}

/// What is wrong with a root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RootFault {
    /// Not what this program writes.
    #[error("its statement is no canonical JSON of a root")]
    Statement,
    /// Of another tenant.
    #[error("it is another tenant's")]
    Tenant,
    /// A column says something else than what was signed.
    #[error("its column {0} differs from its statement")]
    Column(&'static str),
    /// Nobody vouches for the key.
    #[error("it is signed with a key that is not trusted")]
    UntrustedKey,
    /// Altered.
    #[error("its signature is not over its statement")]
    Signature,
    /// One before it is gone or was replaced.
    #[error("it does not follow the root before it")]
    Previous,
    /// The customer holds it, the database does not (any more).
    #[error("the database has no such root")]
    Absent,
    /// The customer holds another one.
    #[error("the customer's file says something else")]
    Differs,
}

/// A place of the chain that a good root vouches for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// Day of the root.
    pub day: NaiveDate,
    /// The row.
    pub seq: i64,
    /// Its hash.
    pub hash: [u8; 32],
}

impl Root {
    /// Signs where the chain stands: `last_seq` and `last_hash` at the end of `day`.
    pub(super) fn sign(
        tenant: &str,
        day: NaiveDate,
        (last_seq, last_hash): (i64, [u8; 32]),
        previous: Option<&Self>,
        key: &AuditKey,
    ) -> Self {
        let statement = canonical(&json!(Statement {
            tenant: tenant.to_owned(),
            day,
            last_seq,
            last_hash: hex(&last_hash),
            rows_that_day: last_seq - previous.map_or(0, |root| root.last_seq),
            previous_root_sha256: previous.map(Self::sha256),
        }));
        Self {
            day,
            last_seq,
            last_hash: last_hash.to_vec(),
            signature: key.sign(&statement).to_vec(),
            public_key: key.public().to_vec(),
            statement,
        }
    }

    /// What the next root names this one by, hexadecimal.
    pub fn sha256(&self) -> String {
        hex(&Sha256::digest(&self.statement))
    }

    /// The signed statement, when it is one.
    pub fn stated(&self) -> Option<Statement> {
        serde_json::from_str(&self.statement).ok()
    }

    /// Whether it is good by itself: well formed, of this tenant, its columns as signed, by a trusted key.
    fn check(&self, tenant: &str, trusted: &[[u8; 32]]) -> Result<(Statement, Sealed), RootFault> {
        let stated = self.stated().filter(|_| is_canonical(&self.statement));
        let stated = stated.ok_or(RootFault::Statement)?;
        let hash = from_hex(&stated.last_hash).ok_or(RootFault::Statement)?;
        if stated.tenant != tenant {
            return Err(RootFault::Tenant);
        }
        let key = trusted.iter().find(|key| key[..] == self.public_key[..]);
        let key = key.ok_or(RootFault::UntrustedKey)?;
        if !verifies(key, &self.statement, &self.signature) {
            return Err(RootFault::Signature);
        }
        for (column, holds) in [
            ("day", stated.day == self.day),
            ("last_seq", stated.last_seq == self.last_seq),
            ("last_hash", hash[..] == self.last_hash[..]),
        ] {
            if !holds {
                return Err(RootFault::Column(column));
            }
        }
        let sealed = Sealed {
            day: stated.day,
            seq: stated.last_seq,
            hash,
        };
        Ok((stated, sealed))
    }
}

/// Checks roots in the order of their days. Says which places of the chain the good ones vouch for, and the first
/// that is not good. `is_whole` when they begin with the first root there was.
pub fn check_roots(
    tenant: &str,
    roots: &[Root],
    trusted: &[[u8; 32]],
    is_whole: bool,
) -> (Vec<Sealed>, Option<Broken>) {
    let (mut sealed, mut broken) = (Vec::new(), None);
    let mut previous: Option<&Root> = None;
    for root in roots {
        let checked = root.check(tenant, trusted).and_then(|(stated, place)| {
            let begins = previous.is_none() && !is_whole;
            if begins || follows(&stated, previous) {
                Ok(place)
            } else {
                Err(RootFault::Previous)
            }
        });
        match checked {
            Ok(place) => sealed.push(place),
            Err(fault) => {
                broken.get_or_insert_with(|| root_broken(root, fault));
            }
        }
        previous = Some(root);
    }
    (sealed, broken)
}

fn follows(stated: &Statement, previous: Option<&Root>) -> bool {
    let before = previous.and_then(Root::stated);
    let (last_seq, next_day) = match &before {
        Some(before) => (before.last_seq, before.day.succ_opt()),
        None => (0, Some(stated.day)),
    };
    stated.previous_root_sha256 == previous.map(Root::sha256)
        && next_day == Some(stated.day)
        && stated.rows_that_day == stated.last_seq - last_seq
        && stated.rows_that_day >= 0
}

/// Holds the customer's roots against those of the database.
pub fn compare(files: &[Root], stored: &[Root]) -> Option<Broken> {
    files.iter().find_map(|file| {
        let fault = match stored.iter().find(|root| root.day == file.day) {
            None => RootFault::Absent,
            Some(root) if root.statement != file.statement => RootFault::Differs,
            Some(_) => return None,
        };
        Some(root_broken(file, fault))
    })
}

fn root_broken(root: &Root, fault: RootFault) -> Broken {
    let seq = root.stated().map_or(root.last_seq, |stated| stated.last_seq);
    let day = root.day;
    Broken::at(seq, Fault::Root { day, fault })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(day: u32) -> NaiveDate {
        NaiveDate::from_ymd_opt(2026, 11, day).unwrap()
    }

    fn roots(key: &AuditKey) -> Vec<Root> {
        let first = Root::sign("akron", day(1), (5, [5; 32]), None, key);
        let second = Root::sign("akron", day(2), (5, [5; 32]), Some(&first), key);
        let third = Root::sign("akron", day(3), (9, [9; 32]), Some(&second), key);
        vec![first, second, third]
    }

    fn fault(roots: &[Root], trusted: &AuditKey) -> Option<(NaiveDate, RootFault)> {
        match check_roots("akron", roots, &[trusted.public()], true).1?.fault {
            Fault::Root { day, fault } => Some((day, fault)),
            other => panic!("{other}"),
        }
    }

    #[test]
    fn good_roots_vouch_for_where_the_chain_stood() {
        let key = AuditKey::from_bytes(&[1; 32]);
        let (sealed, broken) = check_roots("akron", &roots(&key), &[key.public()], true);
        assert_eq!(broken, None);
        assert_eq!(sealed.iter().map(|it| it.seq).collect::<Vec<_>>(), [5, 5, 9]);
        assert_eq!(
            roots(&key)[1].statement,
            format!(
                r#"{{"day":"2026-11-02","last_hash":"{}","last_seq":5,"previous_root_sha256":"{}","rows_that_day":0,"tenant":"akron"}}"#,
                "05".repeat(32),
                roots(&key)[0].sha256()
            )
        );
    }

    #[test]
    fn a_root_that_was_altered_replaced_or_dropped_is_named() {
        let key = AuditKey::from_bytes(&[1; 32]);
        let other = AuditKey::from_bytes(&[2; 32]);
        assert_eq!(
            fault(&roots(&key), &other),
            Some((day(1), RootFault::UntrustedKey))
        );
        let altered = |change: &dyn Fn(&mut Root)| {
            let mut roots = roots(&key);
            change(&mut roots[1]);
            fault(&roots, &key)
        };
        let is = |fault| Some((day(2), fault));
        assert_eq!(
            altered(&|root| root.last_seq = 4),
            is(RootFault::Column("last_seq"))
        );
        assert_eq!(
            altered(&|root| root.last_hash[0] ^= 1),
            is(RootFault::Column("last_hash"))
        );
        assert_eq!(altered(&|root| root.signature[0] ^= 1), is(RootFault::Signature));
        assert_eq!(
            altered(&|root| root.public_key[0] ^= 1),
            is(RootFault::UntrustedKey)
        );
        let forged =
            altered(&|root| root.statement = root.statement.replace("\"last_seq\":5", "\"last_seq\":4"));
        assert_eq!(forged, is(RootFault::Signature));
        assert_eq!(
            altered(&|root| root.statement.push(' ')),
            is(RootFault::Statement)
        );
        let signed_again = altered(&|root| *root = Root::sign("akron", day(2), (6, [6; 32]), None, &key));
        assert_eq!(signed_again, is(RootFault::Previous));
        let foreign = Root::sign("other", day(1), (5, [5; 32]), None, &key);
        assert_eq!(fault(&[foreign], &key), Some((day(1), RootFault::Tenant)));
        let mut dropped = roots(&key);
        dropped.remove(1);
        assert_eq!(fault(&dropped, &key), Some((day(3), RootFault::Previous)));
        assert_eq!(
            fault(&roots(&key)[1..], &key),
            Some((day(2), RootFault::Previous))
        );
    }

    #[test]
    fn the_customers_roots_outlive_those_of_the_database() {
        let key = AuditKey::from_bytes(&[1; 32]);
        let files = roots(&key);
        assert_eq!(compare(&files, &files), None);
        assert_eq!(compare(&files[1..], &files), None);
        let seq = compare(&files, &files[..2]).map(|broken| broken.seq);
        assert_eq!(seq, Some(9), "the last root was dropped");
        let again = Root::sign("akron", day(1), (4, [4; 32]), None, &key);
        let broken = compare(&files, &[again]).unwrap();
        assert!(broken.to_string().contains("says something else"), "{broken:?}");
    }
}
