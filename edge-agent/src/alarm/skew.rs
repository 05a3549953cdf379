//! Is a source's clock wrong? When what it says is minutes away from when its readings arrive, again and again, its
//! times cannot be trusted; readings keep the time that the source gave them and are judged by when they came.

use std::collections::HashMap;

use protocol::{
    Micros, Reading,
    event::{Alarm, Event},
    reading::Alias,
};
use uuid::Uuid;

/// Further off than this is a wrong clock.
const SKEW_US_MAX: Micros = 300_000_000;
/// In so many batches of readings in a row: one late value is not a wrong clock.
const BATCHES: u32 = 5;

/// Watches the sources that have clocks of their own.
#[derive(Debug, Default)]
pub struct SkewWatch {
    source_of: HashMap<Alias, usize>,
    sources: Vec<Source>,
}

#[derive(Debug)]
struct Source {
    name: String,
    /// Batches in a row that were off, or when the alarm is open, that were right.
    against: u32,
    /// The open alarm.
    open: Option<Uuid>,
}

impl SkewWatch {
    /// Watches these sources, each with its tags.
    pub fn new(sources: impl IntoIterator<Item = (String, Vec<Alias>)>) -> Self {
        let mut watch = Self::default();
        for (name, tags) in sources {
            let index = watch.sources.len();
            watch.source_of.extend(tags.into_iter().map(|tag| (tag, index)));
            watch.sources.push(Source {
                name,
                against: 0,
                open: None,
            });
        }
        watch
    }

    /// Takes readings that arrived together.
    pub fn observe(&mut self, readings: &[Reading], received_us: Micros) -> Vec<Event> {
        if self.sources.is_empty() {
            return Vec::new();
        }
        // Readings that arrive together come from one source; the one least off speaks for its clock.
        let least = readings
            .iter()
            .filter(|reading| !reading.quality.is_bad())
            .filter_map(|reading| {
                let source = *self.source_of.get(&reading.tag)?;
                Some((source, reading.time_us - received_us))
            })
            .min_by_key(|(_, off_us)| off_us.abs());
        least
            .and_then(|(source, off_us)| self.sources.get_mut(source)?.look(off_us, received_us))
            .map(Event::Alarm)
            .into_iter()
            .collect()
    }
}

impl Source {
    fn look(&mut self, off_us: Micros, at_us: Micros) -> Option<Alarm> {
        let is_off = off_us.abs() > SKEW_US_MAX;
        if is_off == self.open.is_some() {
            self.against = 0;
            return None;
        }
        self.against += 1;
        if self.against < BATCHES {
            return None;
        }
        self.against = 0;
        // Derived, so that judging needs no randomness.
        let id = self.open.unwrap_or_else(|| {
            Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("{}\n{at_us}", self.name).as_bytes())
        });
        self.open = is_off.then_some(id);
        let message = if is_off {
            format!(
                "the clock is {:.1} min off: readings keep its times and are judged by when they arrive",
                off_us as f64 / 60e6
            )
        } else {
            "the clock is right again".to_owned()
        };
        Some(Alarm {
            id,
            at_us,
            code: "source.clock_skew".to_owned(),
            subject: self.name.clone(),
            line: None,
            active: is_off,
            message,
        })
    }
}

#[cfg(test)]
mod tests {
    use protocol::Quality;

    use super::*;

    const SECOND: Micros = 1_000_000;

    fn run(offs: impl IntoIterator<Item = i64>) -> Vec<(i64, bool)> {
        let mut watch = SkewWatch::new([("oven".to_owned(), vec![Alias(0)])]);
        let mut told = Vec::new();
        for (second, off_s) in (1_000..).zip(offs) {
            let at = second * SECOND;
            let readings = [Reading::new(Alias(0), at + off_s * SECOND, 1.0, Quality::GOOD)];
            for event in watch.observe(&readings, at) {
                if let Event::Alarm(alarm) = event {
                    assert_eq!(
                        (alarm.code.as_str(), alarm.subject.as_str()),
                        ("source.clock_skew", "oven")
                    );
                    told.push((second, alarm.active));
                }
            }
        }
        told
    }

    #[test]
    fn f10_a_clock_that_is_nine_minutes_ahead_is_alarmed_and_cleared_when_it_is_right() {
        let told = run(std::iter::repeat_n(540, 10).chain(std::iter::repeat_n(0, 10)));
        assert_eq!(told, [(1_004, true), (1_014, false)]);
    }

    #[test]
    fn late_values_now_and_then_are_no_wrong_clock() {
        assert_eq!(
            run((0..100).map(|index| if index % 3 == 0 { -900 } else { 0 })),
            []
        );
    }
}
