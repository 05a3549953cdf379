//! How many exports are under way? One is from its first row until its last byte is sent; beyond the limit the
//! caller is told to come back.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use super::super::tenancy::TenantSlug;
use crate::error::{Error, Result};

/// Exports under way in one tenant.
const TENANT_MAX: usize = 4;
/// Exports under way in all.
const ALL_MAX: usize = 8;
const RETRY_AFTER_S: u64 = 10;

/// The exports under way, by tenant.
#[derive(Clone, Debug, Default)]
pub struct Exports(Arc<Mutex<HashMap<TenantSlug, usize>>>);

/// The place of one export, given back when dropped.
#[derive(Debug)]
pub struct Slot {
    exports: Exports,
    tenant: TenantSlug,
}

impl Exports {
    /// Takes a place.
    ///
    /// # Errors
    /// [`Error::Busy`] when there is none.
    pub fn open(&self, tenant: &TenantSlug) -> Result<Slot> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (own, all) = (
            open.get(tenant).copied().unwrap_or(0),
            open.values().sum::<usize>(),
        );
        if own >= TENANT_MAX || all >= ALL_MAX {
            return Err(Error::Busy {
                what: "too many exports are under way",
                retry_after_s: RETRY_AFTER_S,
            });
        }
        open.insert(tenant.clone(), own + 1);
        Ok(Slot {
            exports: self.clone(),
            tenant: tenant.clone(),
        })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut open = self.exports.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = open.get_mut(&self.tenant) {
            *own -= 1;
            if *own == 0 {
                open.remove(&self.tenant);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_tenant_cannot_take_every_place_and_a_place_given_back_is_free() {
        let exports = Exports::default();
        let tenants = ["a", "b", "c"].map(|slug| TenantSlug::parse(slug).unwrap());
        let mut taken: Vec<Slot> = (0..TENANT_MAX)
            .map(|_| exports.open(&tenants[0]).unwrap())
            .collect();
        assert!(exports.open(&tenants[0]).is_err());
        taken.extend((TENANT_MAX..ALL_MAX).map(|_| exports.open(&tenants[1]).unwrap()));
        assert!(exports.open(&tenants[2]).is_err());
        taken.remove(0);
        assert!(exports.open(&tenants[2]).is_ok());
        drop(taken);
        assert!(exports.0.lock().unwrap().is_empty());
    }
}
