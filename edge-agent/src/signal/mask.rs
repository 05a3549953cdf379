//! Is a limit to be looked away from for a while? A cold store's door is opened and its coils are defrosted: the air
//! warms, the product does not. For limits that are not critical only, and never for ever: a door that stays open is
//! news again after `longest`.

use std::time::Duration;

use protocol::{Micros, Reading, reading::Alias};

use super::config::micros;
use crate::config::{Section, Tags};

/// Masks while `tag` has `value` and for `delay_after` after it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MaskPlan {
    /// The door, the defrost relay.
    pub tag: Alias,
    /// Open, defrosting.
    pub value: f64,
    /// How long it takes until the air is as it was, microseconds.
    pub delay_after_us: Micros,
    /// Masked at most so long at a time, `delay_after` not counted, microseconds.
    pub longest_us: Micros,
}

/// Follows one mask. Pure: times come with the readings.
#[derive(Clone, Copy, Debug)]
pub struct Mask {
    plan: MaskPlan,
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Off,
    Since(Micros),
    After { ended_us: Micros },
}

impl Mask {
    /// A mask that is off.
    pub fn new(plan: MaskPlan) -> Self {
        Self {
            plan,
            state: State::Off,
        }
    }

    /// Takes a reading of any tag. A door whose position is not known for good masks nothing.
    pub fn observe(&mut self, reading: &Reading) {
        if reading.tag != self.plan.tag {
            return;
        }
        let known = reading.value().filter(|_| reading.quality.is_good());
        let at_us = reading.time_us;
        self.state = match (known, self.state) {
            (None, _) => State::Off,
            (Some(value), state) if (value - self.plan.value).abs() < f64::EPSILON => match state {
                State::Since(_) => state,
                State::Off | State::After { .. } => State::Since(at_us),
            },
            // What was open for too long has warmed what is in there: no patience afterwards.
            (Some(_), State::Since(since_us)) if at_us - since_us > self.plan.longest_us => State::Off,
            (Some(_), State::Since(_)) => State::After { ended_us: at_us },
            (Some(_), state) => state,
        };
    }

    /// Whether a value of this time is to be looked away from.
    pub fn is_masked(&self, at_us: Micros) -> bool {
        match self.state {
            State::Off => false,
            State::Since(since_us) => (0..=self.plan.longest_us).contains(&(at_us - since_us)),
            State::After { ended_us } => (0..=self.plan.delay_after_us).contains(&(at_us - ended_us)),
        }
    }

    /// The clock that times come from was set back by `by_us`.
    pub fn set_back(&mut self, by_us: Micros) {
        match &mut self.state {
            State::Off => {}
            State::Since(at_us) | State::After { ended_us: at_us } => *at_us -= by_us,
        }
    }
}

/// Reads `mask = { tag = "DOOR", value = 1.0, delay_after = "10min", longest = "30min" }`. The outer `Option` is none
/// when the mask is there and faulty.
pub fn read_mask(section: &Section<'_>, tags: &Tags<'_>) -> Option<Option<MaskPlan>> {
    const DAY: Duration = Duration::from_hours(24);
    if !section.has("mask") {
        return Some(None);
    }
    let mask = section.table("mask");
    let tag = mask
        .required_text("tag")
        .and_then(|at| tags.find(&at).map(|tag| tag.alias));
    let value = mask.number("value").map_or(1.0, |at| at.value);
    let after = mask.duration("delay_after", Duration::ZERO..=DAY);
    let longest = mask.duration("longest", Duration::from_secs(1)..=DAY);
    mask.finish();
    Some(Some(MaskPlan {
        tag: tag?,
        value,
        delay_after_us: micros(after.unwrap_or(Duration::from_mins(10))),
        longest_us: micros(longest.unwrap_or(Duration::from_mins(30))),
    }))
}

#[cfg(test)]
mod tests {
    use protocol::Quality;

    use super::*;

    const MINUTE: Micros = 60_000_000;
    const PLAN: MaskPlan = MaskPlan {
        tag: Alias(1),
        value: 1.0,
        delay_after_us: 10 * MINUTE,
        longest_us: 30 * MINUTE,
    };

    fn door(minute: i64, is_open: bool) -> Reading {
        Reading::new(
            Alias(1),
            minute * MINUTE,
            f64::from(u8::from(is_open)),
            Quality::GOOD,
        )
    }

    /// Minutes of a night in which the store is above 4.4 °C and nothing masks it.
    fn alarmed(air: impl Fn(i64) -> f64, is_open: impl Fn(i64) -> bool) -> Vec<i64> {
        let mut mask = Mask::new(PLAN);
        let minutes = (0..600).filter(|minute| {
            mask.observe(&door(*minute, is_open(*minute)));
            air(*minute) > 4.4 && !mask.is_masked(minute * MINUTE)
        });
        minutes.collect()
    }

    #[test]
    fn f19_an_open_door_and_a_defrost_are_no_false_alarm() {
        // Open or defrosting for 12 minutes every two hours; the air needs 8 minutes more.
        let air = |minute: i64| if minute % 120 < 20 { 7.5 } else { 2.5 };
        assert_eq!(alarmed(air, |minute| minute % 120 < 12), Vec::<i64>::new());
    }

    #[test]
    fn f19_a_store_that_is_warm_with_its_door_shut_is_alarmed() {
        let found = alarmed(
            |minute| if minute > 300 { 6.0 } else { 2.5 },
            |minute| minute % 120 < 12,
        );
        assert_eq!(found.first(), Some(&301));
    }

    #[test]
    fn f19_a_door_that_is_forgotten_masks_half_an_hour_and_no_more() {
        let found = alarmed(|_| 6.0, |minute| (100..200).contains(&minute));
        assert!(!found.contains(&100) && !found.contains(&130));
        assert!(found.contains(&131) && found.contains(&205));
    }

    #[test]
    fn a_door_that_is_not_known_masks_nothing() {
        let mut mask = Mask::new(PLAN);
        mask.observe(&door(0, true));
        assert!(mask.is_masked(MINUTE));
        mask.observe(&Reading::bad(Alias(1), MINUTE, Quality::BAD_TIMEOUT));
        assert!(!mask.is_masked(MINUTE));
    }
}
