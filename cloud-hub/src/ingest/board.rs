//! How far behind is ingest, tenant by tenant? Gauges told anew every second, so that they grow while nothing is
//! committed; the first tenants have a series of their own, all further ones share one.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use protocol::Micros;
use tokio::time::{MissedTickBehavior, interval};

use crate::{
    broker::{UplinkWatch, Waiting},
    kernel::{clock::Clock, tenancy::TenantSlug},
};

const EVERY: Duration = Duration::from_secs(1);
/// Tenants with series of their own.
const TENANTS_MAX: usize = 50;
const OTHERS: &str = "others";

/// Newest source time that was committed, by tenant. Cloning it gives another handle on the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Board(Arc<Mutex<BTreeMap<String, Micros>>>);

impl Board {
    /// Readings up to `newest_us` were committed.
    pub(super) fn committed(&self, tenant: &TenantSlug, newest_us: Micros) {
        let mut newest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = newest.entry(tenant.as_str().to_owned()).or_insert(newest_us);
        *known = newest_us.max(*known);
    }

    fn newest(&self) -> BTreeMap<String, Micros> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Which tenants have series of their own: those that came first, for as long as the hub runs.
#[derive(Debug, Default)]
struct Labels(BTreeSet<String>);

impl Labels {
    fn of(&mut self, tenant: &str) -> String {
        if !self.0.contains(tenant) {
            if self.0.len() >= TENANTS_MAX {
                return OTHERS.to_owned();
            }
            self.0.insert(tenant.to_owned());
        }
        tenant.to_owned()
    }
}

/// What is told of one tenant; of all others together the worst, and the sum of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Told {
    lag_s: Option<f64>,
    oldest_s: f64,
    bytes: usize,
}

fn tell(
    labels: &mut Labels,
    newest: &BTreeMap<String, Micros>,
    waiting: &[Waiting],
    now_us: Micros,
) -> BTreeMap<String, Told> {
    let mut told: BTreeMap<String, Told> = BTreeMap::new();
    for (tenant, newest_us) in newest {
        let entry = told.entry(labels.of(tenant)).or_default();
        let lag_s = (now_us - newest_us) as f64 / 1e6;
        entry.lag_s = Some(entry.lag_s.map_or(lag_s, |known| known.max(lag_s)));
    }
    for one in waiting {
        let entry = told.entry(labels.of(&one.tenant)).or_default();
        entry.oldest_s = entry.oldest_s.max(one.oldest.as_secs_f64());
        entry.bytes += one.bytes;
    }
    // Who waited a second ago and does not now is told as 0.
    for label in &labels.0 {
        told.entry(label.clone()).or_default();
    }
    told
}

/// Tells the gauges until it is dropped.
pub(super) async fn run(board: Board, watch: UplinkWatch, clock: Clock) {
    let (mut labels, mut turns) = (Labels::default(), interval(EVERY));
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        turns.tick().await;
        let told = tell(&mut labels, &board.newest(), &watch.waiting(), clock.now_us());
        for (tenant, told) in told {
            if let Some(lag_s) = told.lag_s {
                metrics::gauge!("foodflow_ingest_newest_age_seconds", "tenant" => tenant.clone()).set(lag_s);
            }
            metrics::gauge!("foodflow_ingest_oldest_uncommitted_seconds", "tenant" => tenant.clone())
                .set(told.oldest_s);
            metrics::gauge!("foodflow_ingest_held_bytes", "tenant" => tenant).set(told.bytes as f64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_that_no_longer_waits_is_told_so_and_lag_grows_by_itself() {
        let mut labels = Labels::default();
        let newest = BTreeMap::from([("akron".to_owned(), 5_000_000)]);
        let waiting = [Waiting {
            tenant: "akron".to_owned(),
            messages: 2,
            bytes: 700,
            oldest: Duration::from_secs(3),
        }];
        let told = tell(&mut labels, &newest, &waiting, 7_000_000);
        let expected = Told {
            lag_s: Some(2.0),
            oldest_s: 3.0,
            bytes: 700,
        };
        assert_eq!(told["akron"], expected);
        let later = tell(&mut labels, &newest, &[], 9_000_000);
        assert_eq!((later["akron"].lag_s, later["akron"].oldest_s), (Some(4.0), 0.0));
    }

    #[test]
    fn a_thousand_tenants_make_no_thousand_series() {
        let newest: BTreeMap<String, Micros> =
            (0..1_000).map(|n| (format!("t{n:04}"), n * 1_000_000)).collect();
        let told = tell(&mut Labels::default(), &newest, &[], 1_000_000_000);
        assert_eq!(told.len(), TENANTS_MAX + 1);
        assert_eq!(told[OTHERS].lag_s, Some(950.0), "the worst of the others");
    }
}
