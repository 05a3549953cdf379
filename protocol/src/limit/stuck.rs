//! Is a sensor repeating itself? It is when its own spread stays under a floor over a window in which a
//! reference tag clearly moved.

use std::collections::VecDeque;

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
    use super::*;

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
