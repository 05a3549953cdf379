//! Is a sensor repeating itself, and since when? It is when its own spread stays under a floor over a window in which a
//! reference tag clearly moved. What it said since its value last moved is then no evidence.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::reading::Micros;

/// Watches one tag against a reference tag. Pure: times come with the values.
///
/// ```
/// use protocol::limit::StuckDetector;
/// let mut detector = StuckDetector::new(30_000_000, 0.005);
/// let mut stuck = false;
/// for second in 0..40 {
///     let at = second * 1_000_000;
///     detector.reference(at, 73.2 + 0.1 * (second % 3) as f64);
///     stuck = detector.watched(at, 73.2);
/// }
/// assert!(stuck);
/// ```
#[derive(Clone, Debug)]
pub struct StuckDetector {
    window_us: Micros,
    floor: f64,
    watched: VecDeque<(Micros, f64)>,
    reference: VecDeque<(Micros, f64)>,
}

/// The reference must move this many floors before stillness is suspicious: a quiet process is not a fault.
const MOVEMENT_IN_FLOORS: f64 = 4.0;
/// Fewest values in the window of either tag.
const VALUES_MIN: usize = 8;
/// Most values kept of either tag; bounds memory at any sample rate.
const VALUES_MAX: usize = 4_096;

impl StuckDetector {
    /// A detector for stillness under `floor` (in the tag's unit) over `window_us`.
    pub fn new(window_us: Micros, floor: f64) -> Self {
        Self {
            window_us,
            floor,
            watched: VecDeque::new(),
            reference: VecDeque::new(),
        }
    }

    /// Takes a value of the reference tag.
    pub fn reference(&mut self, at_us: Micros, value: f64) {
        push(&mut self.reference, at_us, value, self.window_us);
    }

    /// Takes a value of the watched tag and says whether the tag is stuck.
    pub fn watched(&mut self, at_us: Micros, value: f64) -> bool {
        push(&mut self.watched, at_us, value, self.window_us);
        let full = self
            .watched
            .front()
            .is_some_and(|(first, _)| at_us - first >= self.window_us * 9 / 10);
        let enough = self.watched.len() >= VALUES_MIN && self.reference.len() >= VALUES_MIN;
        full && enough
            && spread(&self.watched) < self.floor
            && spread(&self.reference) >= self.floor * MOVEMENT_IN_FLOORS
    }

    /// Whether the watched tag has not moved in all that is known of it. A tag that was found stuck stays so until
    /// it moves: a reference that has come to rest says nothing for it.
    pub fn is_still(&self) -> bool {
        spread(&self.watched) < self.floor
    }

    /// The clock that times come from was set back by `by_us`: values keep their distance from now.
    pub fn set_back(&mut self, by_us: Micros) {
        for (at_us, _) in self.watched.iter_mut().chain(&mut self.reference) {
            *at_us -= by_us;
        }
    }
}

/// Most values remembered to look for the start of a run; a run that is longer remembers its own start.
const RECENT_MAX: usize = 64;

/// Since when has a value been the same? Pure: times come with the values, in the order in which they are judged.
///
/// The run is the longest stretch of values up to the newest that stay within the floor. The value before it is the last
/// that the sensor is known to have measured: whether it measured or repeated the first of the run, nobody can tell.
///
/// ```
/// use protocol::limit::Stillness;
/// let mut stillness = Stillness::default();
/// for (second, value) in [(0, 73.1), (1, 73.3), (2, 73.2), (3, 73.2), (4, 73.2)] {
///     stillness.value(second * 1_000_000, value, 0.005);
/// }
/// assert_eq!(stillness.since_us(), Some(1_000_000));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stillness {
    run: Option<Run>,
    newest_us: Option<Micros>,
    /// Product was last known to be safe without the sensor.
    cleared_us: Option<Micros>,
    /// The window of the last deviation that ended: product in it is held already.
    held_us: Option<(Micros, Micros)>,
    #[serde(skip)]
    recent: VecDeque<(Micros, f64)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Run {
    /// Time of the value before it, or of its first one where there is none before.
    since_us: Micros,
    low: f64,
    high: f64,
}

impl Run {
    /// With one value more, unless that is more than the floor away.
    fn joined(self, value: f64, floor: f64) -> Option<Self> {
        let (low, high) = (self.low.min(value), self.high.max(value));
        (high - low < floor).then_some(Self { low, high, ..self })
    }
}

impl Stillness {
    /// Takes a value that would count as good, `floor` in its unit.
    pub fn value(&mut self, at_us: Micros, value: f64, floor: f64) {
        let run = self.run.and_then(|run| run.joined(value, floor));
        self.run = Some(run.unwrap_or_else(|| self.begin(at_us, value, floor)));
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back((at_us, value));
        self.newest_us = Some(at_us);
    }

    /// A run that ends with this value and reaches back as far as the floor and the memory let it.
    fn begin(&self, at_us: Micros, value: f64, floor: f64) -> Run {
        let mut run = Run {
            since_us: self.newest_us.unwrap_or(at_us),
            low: value,
            high: value,
        };
        let before = self.recent.iter().rev().skip(1).map(|(before_us, _)| *before_us);
        let earlier = self.recent.iter().rev();
        for ((earlier_us, earlier), before_us) in earlier.zip(before.map(Some).chain([None])) {
            let Some(longer) = run.joined(*earlier, floor) else {
                break;
            };
            run = Run {
                since_us: before_us.unwrap_or(*earlier_us),
                ..longer
            };
        }
        run
    }

    /// Product was safe at this time, whatever the sensor says: it was diverted, or nothing was judged.
    pub fn clear(&mut self, at_us: Micros) {
        self.cleared_us = self.cleared_us.max(Some(at_us));
    }

    /// When product was last known to be safe without the sensor.
    pub fn cleared_us(&self) -> Option<Micros> {
        self.cleared_us
    }

    /// A deviation over this window ended: all product in it is held.
    pub fn hold(&mut self, from_us: Micros, to_us: Micros) {
        self.held_us = Some((from_us, to_us));
    }

    /// The last time up to which the value is evidence if it is stuck now; none before any value.
    pub fn since_us(&self) -> Option<Micros> {
        let since_us = self.run?.since_us.max(self.cleared_us.unwrap_or(Micros::MIN));
        let is_held = |(from_us, to_us): &(Micros, Micros)| (*from_us..*to_us).contains(&since_us);
        Some(self.held_us.filter(is_held).map_or(since_us, |(_, to_us)| to_us))
    }

    /// The clock that times come from was set back by `by_us`.
    pub fn set_back(&mut self, by_us: Micros) {
        let seen = [&mut self.newest_us, &mut self.cleared_us];
        seen.into_iter().flatten().for_each(|time_us| *time_us -= by_us);
        for (at_us, _) in &mut self.recent {
            *at_us -= by_us;
        }
        if let Some(run) = &mut self.run {
            run.since_us -= by_us;
        }
        if let Some((from_us, to_us)) = &mut self.held_us {
            (*from_us, *to_us) = (*from_us - by_us, *to_us - by_us);
        }
    }
}

fn push(values: &mut VecDeque<(Micros, f64)>, at_us: Micros, value: f64, window_us: Micros) {
    if values.len() == VALUES_MAX {
        values.pop_front();
    }
    values.push_back((at_us, value));
    while values
        .front()
        .is_some_and(|(first, _)| at_us.saturating_sub(*first) > window_us)
    {
        values.pop_front();
    }
}

fn spread(values: &VecDeque<(Micros, f64)>) -> f64 {
    let fold =
        |start: f64, pick: fn(f64, f64) -> f64| values.iter().map(|(_, value)| *value).fold(start, pick);
    fold(f64::NEG_INFINITY, f64::max) - fold(f64::INFINITY, f64::min)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FLOOR: f64 = 0.005;

    fn since(values: &[(Micros, f64)]) -> Option<Micros> {
        let mut stillness = Stillness::default();
        for (at_us, value) in values {
            stillness.value(*at_us, *value, FLOOR);
        }
        stillness.since_us()
    }

    #[test]
    fn the_last_evidence_is_the_value_before_the_first_that_repeats() {
        assert_eq!(since(&[]), None);
        assert_eq!(since(&[(3, 1.0), (4, 1.0)]), Some(3), "nothing is known before");
        assert_eq!(since(&[(0, 1.0), (1, 2.0), (2, 2.0), (3, 2.0)]), Some(0));
        assert_eq!(since(&[(0, 1.0), (1, 2.0), (2, 2.0), (3, 1.0)]), Some(2));
    }

    #[test]
    fn a_value_that_crept_within_the_floor_counts_as_still_from_where_it_came_within_it() {
        let crept = [(0, 0.9), (1, 1.0), (2, 1.003), (3, 1.006), (4, 1.006), (5, 1.006)];
        assert_eq!(since(&crept), Some(1));
    }

    #[test]
    fn product_that_was_diverted_or_is_held_already_is_not_suspect_again() {
        let mut stillness = Stillness::default();
        for second in 0..10 {
            stillness.value(second, 1.0, FLOOR);
        }
        assert_eq!(stillness.since_us(), Some(0));
        stillness.clear(4);
        stillness.clear(2);
        assert_eq!(stillness.since_us(), Some(4));
        stillness.hold(3, 7);
        assert_eq!(stillness.since_us(), Some(7));
        stillness.hold(5, 9);
        assert_eq!(
            stillness.since_us(),
            Some(4),
            "what came before the window is not held by it"
        );
    }

    proptest! {
        /// Whatever the sensor did before it froze, the last evidence is never later than the freeze; a sensor that moves
        /// by the floor with every value costs one value more at most. A restart and a set clock change nothing of that.
        #[test]
        fn no_value_of_a_freeze_is_evidence(
            before in prop::collection::vec((1..5_000_i64, 0..200_i32), 1..80),
            held in 2..200_usize,
            restart in any::<prop::sample::Index>(),
            back_us in 0..10_000_i64,
        ) {
            let mut values = Vec::new();
            let (mut at_us, mut raw) = (0, 0);
            for (pause_us, step) in before {
                at_us += pause_us;
                raw += step - 100;
                values.push((at_us, f64::from(raw) * 0.01));
            }
            let last = *values.last().unwrap();
            let frozen = (1..=held as i64).map(|n| (last.0 + n * 1_000, f64::from(raw + 1) * 0.01));
            let frozen_us = last.0 + 1_000;
            values.extend(frozen);
            let mut stillness = Stillness::default();
            let cut = restart.index(values.len());
            for (index, (at_us, value)) in values.into_iter().enumerate() {
                if index == cut {
                    stillness = postcard::from_bytes(&postcard::to_stdvec(&stillness).unwrap()).unwrap();
                }
                stillness.value(at_us, value, FLOOR);
            }
            prop_assert_eq!(stillness.since_us(), Some(last.0));
            prop_assert!(stillness.since_us() < Some(frozen_us));
            stillness.set_back(back_us);
            prop_assert_eq!(stillness.since_us(), Some(last.0 - back_us));
        }
    }

    fn run(watched: impl Fn(i64) -> f64, reference: impl Fn(i64) -> f64) -> bool {
        let mut detector = StuckDetector::new(30_000_000, 0.005);
        (0..60).any(|second| {
            detector.reference(second * 1_000_000, reference(second));
            detector.watched(second * 1_000_000, watched(second))
        })
    }

    #[test]
    fn a_frozen_sensor_beside_a_moving_one_is_stuck() {
        assert!(run(
            |_| 73.2,
            |second| 73.2 + 0.05 * f64::from((second % 5) as i32)
        ));
    }

    #[test]
    fn a_frozen_sensor_is_found_across_a_clock_that_is_set_back() {
        let mut detector = StuckDetector::new(30_000_000, 0.005);
        let mut stuck = false;
        for second in 0..40 {
            if second == 20 {
                detector.set_back(3_600_000_000);
            }
            let at = (second - if second < 20 { 0 } else { 3_600 }) * 1_000_000;
            detector.reference(at, 73.2 + 0.05 * (second % 5) as f64);
            stuck = detector.watched(at, 73.2);
        }
        assert!(stuck && detector.is_still());
    }

    #[test]
    fn two_still_sensors_are_a_quiet_process_not_a_fault() {
        assert!(!run(|_| 73.2, |_| 73.1));
    }

    #[test]
    fn a_sensor_that_moves_is_not_stuck() {
        assert!(!run(
            |second| 73.2 + 0.01 * f64::from((second % 2) as i32),
            |second| 73.0 + 0.1 * second as f64
        ));
    }
}
