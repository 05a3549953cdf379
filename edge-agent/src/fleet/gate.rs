//! Does the agent run as well as before a change? A new configuration or version is kept only when the uplink is
//! connected and every source that was up is up, for a while without a break. Pure: time is an argument.

use std::{collections::BTreeSet, time::Duration};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::health::{Health, SourceState, UplinkState};

/// How the agent does at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vitals {
    /// Identity of the start.
    pub boot: Uuid,
    /// Connections to the hub made since that start.
    pub connections: u64,
    /// Whether the hub is connected.
    pub is_online: bool,
    /// Sources that give readings, as `kind/name`.
    pub up: BTreeSet<String>,
    /// Sources that are configured, likewise.
    pub known: BTreeSet<String>,
}

impl Vitals {
    /// As the agent's counters say.
    pub fn of(health: &Health) -> Self {
        let mut known = BTreeSet::new();
        let mut up = BTreeSet::new();
        for source in health.sources().iter().map(|source| source.snapshot()) {
            let name = format!("{}/{}", source.kind, source.name);
            if source.state == SourceState::Up {
                up.insert(name.clone());
            }
            known.insert(name);
        }
        Self {
            boot: health.boot,
            connections: health
                .uplink
                .connections
                .load(std::sync::atomic::Ordering::Relaxed),
            is_online: health.uplink.get() == UplinkState::Online,
            up,
            known,
        }
    }
}

/// What must hold, and for how long.
#[derive(Clone, Debug)]
pub struct Gate {
    before: Vitals,
    /// Whether only a connection made after the change proves anything: the hub's address is part of it.
    needs_new_connection: bool,
    settle: Duration,
    within: Duration,
    good_since: Option<Duration>,
}

impl Gate {
    /// A gate that opens once everything of `before` that still exists has held for `settle`, and closes at
    /// `within` otherwise; both count from the change.
    pub fn new(before: Vitals, needs_new_connection: bool, settle: Duration, within: Duration) -> Self {
        Self {
            before,
            needs_new_connection,
            settle,
            within,
            good_since: None,
        }
    }

    /// Takes how the agent does `now` after the change: done, given up with the reason, or not known yet.
    pub fn look(&mut self, now: Duration, vitals: &Vitals) -> Option<Result<(), String>> {
        let Some(fault) = self.fault(vitals) else {
            let since = *self.good_since.get_or_insert(now);
            return (now >= since + self.settle).then_some(Ok(()));
        };
        self.good_since = None;
        (now >= self.within).then(|| Err(format!("{fault} after {} s", self.within.as_secs())))
    }

    fn fault(&self, vitals: &Vitals) -> Option<String> {
        let is_new = vitals.boot != self.before.boot || vitals.connections > self.before.connections;
        if self.before.is_online && !vitals.is_online {
            return Some("the hub was connected and is not".to_owned());
        }
        if self.before.is_online && self.needs_new_connection && !is_new {
            return Some("the hub was not connected anew".to_owned());
        }
        // A source that the change took away need not come back.
        let missing: Vec<&str> = self
            .before
            .up
            .difference(&vitals.up)
            .filter(|source| vitals.known.contains(*source))
            .map(String::as_str)
            .collect();
        (!missing.is_empty()).then(|| format!("up before and not now: {}", missing.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn vitals(is_online: bool, up: &[&str]) -> Vitals {
        Vitals {
            boot: Uuid::from_u128(1),
            connections: 1,
            is_online,
            up: up.iter().map(|name| (*name).to_owned()).collect(),
            known: ["modbus/plc", "opcua/oven"].map(str::to_owned).into(),
        }
    }

    fn gate(before: Vitals) -> Gate {
        Gate::new(before, false, S * 10, S * 60)
    }

    #[test]
    fn what_holds_for_the_settling_time_is_kept() {
        let good = vitals(true, &["modbus/plc"]);
        let mut gate = gate(good.clone());
        assert_eq!(gate.look(S, &vitals(false, &[])), None);
        assert_eq!(gate.look(S * 2, &good), None);
        // A break starts it anew.
        assert_eq!(gate.look(S * 8, &vitals(true, &[])), None);
        assert_eq!(gate.look(S * 9, &good), None);
        assert_eq!(gate.look(S * 18, &good), None);
        assert_eq!(gate.look(S * 19, &good), Some(Ok(())));
    }

    #[test]
    fn a_source_that_was_up_and_is_not_is_named() {
        let mut gate = gate(vitals(true, &["modbus/plc", "opcua/oven"]));
        let now = vitals(true, &["modbus/plc"]);
        assert_eq!(gate.look(S * 59, &now), None);
        let verdict = gate.look(S * 60, &now).unwrap().unwrap_err();
        assert!(verdict.contains("opcua/oven"), "{verdict}");
    }

    #[test]
    fn a_source_that_was_down_or_was_taken_away_is_not_waited_for() {
        let mut gate = gate(vitals(true, &["modbus/plc", "camera/vs-306"]));
        let now = vitals(true, &["modbus/plc"]);
        assert_eq!(gate.look(S, &now), None);
        assert_eq!(gate.look(S * 11, &now), Some(Ok(())));
    }

    #[test]
    fn another_hub_must_be_connected_anew() {
        let before = vitals(true, &[]);
        let mut gate = Gate::new(before.clone(), true, S, S * 5);
        assert!(matches!(gate.look(S * 5, &before), Some(Err(_))));
        let mut gate = Gate::new(before.clone(), true, S, S * 5);
        let anew = Vitals {
            connections: 2,
            ..before
        };
        assert_eq!(gate.look(S, &anew), None);
        assert_eq!(gate.look(S * 2, &anew), Some(Ok(())));
    }

    proptest! {
        #[test]
        fn there_is_a_verdict_by_the_end_of_the_settling_time_after_the_limit(
            online in prop::collection::vec(any::<bool>(), 100),
        ) {
            let mut gate = gate(vitals(true, &[]));
            let verdict = (0u32..)
                .zip(online.iter().chain(std::iter::repeat(online.last().unwrap())))
                .find_map(|(second, is_online)| Some((second, gate.look(S * second, &vitals(*is_online, &[]))?)));
            let (second, verdict) = verdict.unwrap();
            prop_assert!(second <= 70);
            if verdict.is_ok() {
                prop_assert!(second >= 10);
            }
        }
    }
}
