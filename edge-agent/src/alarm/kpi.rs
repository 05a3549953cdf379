//! Is the alarm system itself in order? Floods with what came first, chattering and stale alarms, counted as
//! ISA-18.2 counts them. Pure: times are arguments.

use std::collections::{BTreeMap, VecDeque};

use protocol::Micros;
use serde::Serialize;

const MINUTE_US: Micros = 60_000_000;
const WINDOW_US: Micros = 10 * MINUTE_US;
/// More activations than this within ten minutes are a flood.
const FLOOD_ABOVE: usize = 10;
/// A flood is over when fewer than this came within ten minutes.
const FLOOD_OVER_BELOW: usize = 5;
/// Alarms that lie further apart than this have not one cause: the first one of a flood comes after the last such pause.
const PAUSE_US: Micros = MINUTE_US;
/// More activations of one alarm than this within a minute are chattering.
const CHATTER_ABOVE: usize = 3;
/// An alarm that is active for longer than this is stale.
pub const STALE_US: Micros = 24 * 60 * MINUTE_US;
/// Most activations remembered; in a flood beyond it the oldest are forgotten and still counted as one flood.
const REMEMBERED_MAX: usize = 4_096;

/// Code and subject of an alarm.
pub type AlarmKey = (String, String);

/// The counters since the agent's start, and what stands now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AlarmCounts {
    /// Activations since the start.
    pub activations: u64,
    /// Activations within the last ten minutes.
    pub last_10_min: usize,
    /// Floods since the start.
    pub floods: u64,
    /// Times that an alarm began to chatter since the start.
    pub chattering: u64,
    /// Active now and not hidden.
    pub standing: usize,
    /// Active for longer than a day.
    pub stale: usize,
    /// Hidden by people or by the process now.
    pub hidden: usize,
}

/// A flood while it lasts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Flood {
    /// Since when.
    pub since_us: Micros,
    /// Code of the alarm that came first.
    pub first_code: String,
    /// Its subject.
    pub first_subject: String,
    /// Activations since then by code, the first one left out.
    pub others: BTreeMap<String, u64>,
}

/// Remembers when alarms became active.
#[derive(Clone, Debug, Default)]
pub struct Kpi {
    recent: VecDeque<(Micros, AlarmKey)>,
    flood: Option<Flood>,
    activations: u64,
    floods: u64,
    chattering: u64,
}

impl Kpi {
    /// An alarm became active where people see it.
    pub fn activated(&mut self, at_us: Micros, key: AlarmKey) {
        self.pass(at_us);
        self.activations += 1;
        let within_minute = self
            .recent
            .iter()
            .rev()
            .take_while(|(seen_us, _)| at_us - seen_us < MINUTE_US)
            .filter(|(_, seen)| *seen == key)
            .count();
        // Counted when the limit is crossed, not with every activation beyond it.
        self.chattering += u64::from(within_minute == CHATTER_ABOVE);
        if let Some(flood) = &mut self.flood {
            *flood.others.entry(key.0.clone()).or_default() += 1;
        }
        if self.recent.len() == REMEMBERED_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back((at_us, key));
        if self.flood.is_none() && self.recent.len() > FLOOD_ABOVE {
            self.begin_flood();
        }
    }

    fn begin_flood(&mut self) {
        let next = self.recent.iter().skip(1);
        let pause = (self.recent.iter().zip(next))
            .rposition(|((before_us, _), (after_us, _))| after_us - before_us > PAUSE_US);
        let mut seen = self.recent.iter().skip(pause.map_or(0, |index| index + 1));
        let Some((since_us, (first_code, first_subject))) = seen.next().cloned() else {
            return;
        };
        let mut others = BTreeMap::new();
        for (_, (code, _)) in seen {
            *others.entry(code.clone()).or_default() += 1;
        }
        self.floods += 1;
        self.flood = Some(Flood {
            since_us,
            first_code,
            first_subject,
            others,
        });
    }

    /// Lets time pass.
    pub fn pass(&mut self, now_us: Micros) {
        while self
            .recent
            .front()
            .is_some_and(|(seen_us, _)| now_us - seen_us >= WINDOW_US)
        {
            self.recent.pop_front();
        }
        if self.recent.len() < FLOOD_OVER_BELOW {
            self.flood = None;
        }
    }

    /// The clock was set back by `by_us`.
    pub fn set_back(&mut self, by_us: Micros) {
        for (seen_us, _) in &mut self.recent {
            *seen_us -= by_us;
        }
        if let Some(flood) = &mut self.flood {
            flood.since_us -= by_us;
        }
    }

    /// The flood that lasts.
    pub fn flood(&self) -> Option<&Flood> {
        self.flood.as_ref()
    }

    /// The counters; what stands now is the caller's to fill in.
    pub fn counts(&self) -> AlarmCounts {
        AlarmCounts {
            activations: self.activations,
            last_10_min: self.recent.len(),
            floods: self.floods,
            chattering: self.chattering,
            ..AlarmCounts::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(code: &str, subject: &str) -> AlarmKey {
        (code.to_owned(), subject.to_owned())
    }

    #[test]
    fn f20_a_flood_shows_what_came_first_and_groups_the_rest() {
        let mut kpi = Kpi::default();
        kpi.activated(0, key("source.down", "ups"));
        for second in 1..60 {
            kpi.activated(second * 1_000_000, key("tag.low", &format!("PT-{second}")));
        }
        let flood = kpi.flood().unwrap();
        assert_eq!(
            (flood.first_code.as_str(), flood.first_subject.as_str()),
            ("source.down", "ups")
        );
        assert_eq!(flood.others, BTreeMap::from([("tag.low".to_owned(), 59)]));
        assert_eq!(kpi.counts().floods, 1);
        kpi.pass(20 * MINUTE_US);
        assert_eq!(kpi.flood(), None);
    }

    #[test]
    fn f20_an_alarm_that_came_minutes_before_a_flood_is_not_called_its_first() {
        let mut kpi = Kpi::default();
        kpi.activated(0, key("source.down", "oven"));
        for second in 0..60 {
            kpi.activated(
                5 * MINUTE_US + second * 1_000_000,
                key("tag.low", &format!("KW-{second}")),
            );
        }
        let flood = kpi.flood().unwrap();
        assert_eq!(
            (flood.since_us, flood.first_subject.as_str()),
            (5 * MINUTE_US, "KW-0")
        );
        assert_eq!(flood.others, BTreeMap::from([("tag.low".to_owned(), 59)]));
    }

    #[test]
    fn ten_alarms_in_ten_minutes_are_no_flood() {
        let mut kpi = Kpi::default();
        for minute in 0..100 {
            kpi.activated(minute * MINUTE_US, key("tag.low", "PT-1"));
        }
        assert_eq!(kpi.counts().floods, 0);
    }

    #[test]
    fn an_alarm_that_comes_four_times_in_a_minute_chatters_once() {
        let mut kpi = Kpi::default();
        for second in 0..6 {
            kpi.activated(second * 5_000_000, key("tag.low", "PT-1"));
        }
        assert_eq!(kpi.counts().chattering, 1);
    }
}
