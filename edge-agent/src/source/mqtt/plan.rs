//! Which values have been silent too long, which came twice, and which complaints may be made? Pure bookkeeping.

use std::{collections::HashMap, time::Duration};

use protocol::{
    Micros, Reading,
    integrator::{Code, Refused},
    reading::Alias,
};
use serde::Serialize;

use super::config::TagPlan;

/// A value may be this many periods late before it counts as silent.
const PERIODS_LATE: u32 = 2;
/// One complaint of a kind about a topic in this time.
const COMPLAIN_EVERY: Duration = Duration::from_secs(1);
/// Topics and kinds remembered; more come from a client that makes topics up.
const COMPLAINTS_MAX: usize = 1_024;

/// When each tag was heard last, and what it said.
#[derive(Debug)]
pub struct Heard {
    tags: Vec<Tag>,
}

#[derive(Debug)]
struct Tag {
    alias: Alias,
    period: Duration,
    due: Duration,
    last: Option<(Micros, u64, u16)>,
}

impl Heard {
    /// Every tag heard just now; times are since any fixed moment.
    pub fn new(tags: &[TagPlan], now: Duration) -> Self {
        let tags = tags.iter().map(|tag| Tag {
            alias: tag.alias,
            period: tag.period,
            due: now + tag.period * PERIODS_LATE,
            last: None,
        });
        Self { tags: tags.collect() }
    }

    /// A reading came; whether it is new. The same value of the same time is one that was sent again.
    pub fn take(&mut self, place: usize, reading: &Reading, now: Duration) -> bool {
        let Some(tag) = self.tags.get_mut(place) else {
            return false;
        };
        tag.due = now + tag.period * PERIODS_LATE;
        let said = (reading.time_us, reading.value.to_bits(), reading.quality.code());
        tag.last.replace(said) != Some(said)
    }

    /// Tags that are due and silent; each is named once a period from then on.
    pub fn silent(&mut self, now: Duration) -> Vec<Alias> {
        let late = self
            .tags
            .iter_mut()
            .filter(|tag| !tag.period.is_zero() && now >= tag.due);
        late.map(|tag| {
            tag.due = now + tag.period;
            tag.alias
        })
        .collect()
    }

    /// The connection is gone: the tags that report on change, whose silence would say nothing.
    pub fn lost(&self) -> Vec<Alias> {
        let on_change = self.tags.iter().filter(|tag| tag.period.is_zero());
        on_change.map(|tag| tag.alias).collect()
    }

    /// The alias of a tag.
    pub fn alias(&self, place: usize) -> Option<Alias> {
        self.tags.get(place).map(|tag| tag.alias)
    }
}

/// What is published about refused messages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Complaint {
    /// Stable number of the code, `E101`.
    pub number: &'static str,
    /// Where the message came.
    pub topic: String,
    /// Why it was refused, and what would be right.
    #[serde(flatten)]
    pub refused: Refused,
    /// Messages refused on this topic for this since the start.
    pub count: u64,
    /// First time.
    pub first_us: Micros,
    /// Last time.
    pub last_us: Micros,
}

/// Refused messages by topic and code: one complaint of each kind a second.
#[derive(Debug, Default)]
pub struct Complaints {
    known: HashMap<(String, Code), (u64, Micros, Duration)>,
}

impl Complaints {
    /// Counts a refused message; what to publish, unless that was said just now.
    pub fn add(
        &mut self,
        topic: &str,
        refused: &Refused,
        now: Duration,
        now_us: Micros,
    ) -> Option<Complaint> {
        if self.known.len() >= COMPLAINTS_MAX {
            self.known.clear();
        }
        let key = (topic.to_owned(), refused.code);
        let is_new = !self.known.contains_key(&key);
        let (count, first_us, said) = self.known.entry(key).or_insert((0, now_us, now));
        *count += 1;
        if !is_new && now.saturating_sub(*said) < COMPLAIN_EVERY {
            return None;
        }
        *said = now;
        Some(Complaint {
            number: refused.code.number(),
            topic: topic.to_owned(),
            refused: refused.clone(),
            count: *count,
            first_us: *first_us,
            last_us: now_us,
        })
    }
}

#[cfg(test)]
mod tests {
    use protocol::Quality;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn tag(alias: u32, period: Duration) -> TagPlan {
        TagPlan {
            alias: Alias(alias),
            topic: "t".to_owned(),
            dialect: None,
            device: None,
            key: None,
            period,
        }
    }

    #[test]
    fn a_silent_tag_is_named_after_two_periods_and_then_once_a_period() {
        let mut heard = Heard::new(&[tag(7, SECOND * 2), tag(8, Duration::ZERO)], Duration::ZERO);
        let named: Vec<u32> = (0..=12)
            .filter(|second| !heard.silent(SECOND * *second).is_empty())
            .collect();
        assert_eq!(named, [4, 6, 8, 10, 12]);
        assert_eq!(heard.lost(), [Alias(8)]);
    }

    #[test]
    fn t29_what_is_sent_again_is_not_counted_twice() {
        let mut heard = Heard::new(&[tag(0, SECOND)], Duration::ZERO);
        let reading = |time_us, value| Reading::new(Alias(0), time_us, value, Quality::GOOD);
        assert!(heard.take(0, &reading(5, 1.0), SECOND));
        assert!(!heard.take(0, &reading(5, 1.0), SECOND));
        assert!(
            heard.take(0, &reading(5, 2.0), SECOND),
            "another value of the same time is kept"
        );
        assert!(heard.take(0, &reading(6, 2.0), SECOND));
    }

    #[test]
    fn t29_a_flood_of_refused_messages_makes_one_complaint_a_second_that_counts_them() {
        let refused =
            protocol::integrator::parse(protocol::integrator::Dialect::Native, "a/b", b"{x").unwrap_err();
        let mut complaints = Complaints::default();
        let said: Vec<u64> = (0..2_500_u32)
            .filter_map(|ms| complaints.add("a/b", &refused, Duration::from_millis(u64::from(ms)), 0))
            .map(|complaint| complaint.count)
            .collect();
        assert_eq!(said, [1, 1_001, 2_001]);
        assert!(complaints.add("a/c", &refused, Duration::ZERO, 0).is_some());
    }
}
