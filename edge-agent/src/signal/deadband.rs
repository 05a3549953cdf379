//! Need this reading travel? Report by exception: a value that stays near the last one sent is left out, and nothing
//! about a change is lost: the last value before it and the first after it both travel.
//!
//! A reading left out was read, and counts as read: silence of the tag is never longer than `report_every`.

use protocol::{Micros, Reading};

/// How far a value may move before it is news.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Deadband {
    /// In the tag's unit.
    pub absolute: f64,
    /// Per cent of the last value sent; the wider of the two counts.
    pub percent: f64,
    /// A reading travels at least this often, microseconds.
    pub report_every_us: Micros,
}

/// What becomes of a reading.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Verdict {
    /// A reading that was held back and travels first: the last one before the change.
    pub before: Option<Reading>,
    /// Whether the reading itself travels now.
    pub is_sent: bool,
    /// Whether a reading that was held back is now left out for good.
    pub is_one_left_out: bool,
}

/// Decides for one tag.
#[derive(Clone, Debug)]
pub(super) struct Exception {
    band: Deadband,
    sent: Option<Reading>,
    held: Option<Reading>,
}

impl Exception {
    pub(super) fn new(band: Deadband) -> Self {
        Self {
            band,
            sent: None,
            held: None,
        }
    }

    pub(super) fn take(&mut self, reading: &Reading) -> Verdict {
        let passed_us = self.sent.map(|sent| reading.time_us.saturating_sub(sent.time_us));
        let is_news = self.sent.is_none_or(|sent| self.is_news(&sent, reading));
        if is_news || passed_us.is_some_and(|passed_us| passed_us < 0) {
            self.sent = Some(*reading);
            return Verdict {
                before: self.held.take(),
                is_sent: true,
                is_one_left_out: false,
            };
        }
        if passed_us.is_some_and(|passed_us| passed_us >= self.band.report_every_us) {
            // What came before a sign of life says nothing that it does not say itself.
            self.sent = Some(*reading);
            return Verdict {
                before: None,
                is_sent: true,
                is_one_left_out: self.held.take().is_some(),
            };
        }
        Verdict {
            is_one_left_out: self.held.replace(*reading).is_some(),
            ..Verdict::default()
        }
    }

    /// What is held back: it travels when nothing comes after it.
    pub(super) fn drain(&mut self) -> Option<Reading> {
        self.held.take()
    }

    fn is_news(&self, sent: &Reading, reading: &Reading) -> bool {
        if sent.quality != reading.quality {
            return true;
        }
        match (sent.value(), reading.value()) {
            (Some(before), Some(now)) => {
                let band = self.band.absolute.max(self.band.percent / 100.0 * before.abs());
                (now - before).abs() > band
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use protocol::{Quality, reading::Alias};

    use super::*;

    const SECOND: Micros = 1_000_000;

    fn reading(second: i64, value: f64) -> Reading {
        Reading::new(Alias(0), second * SECOND, value, Quality::GOOD)
    }

    fn band(absolute: f64, percent: f64) -> Exception {
        Exception::new(Deadband {
            absolute,
            percent,
            report_every_us: 60 * SECOND,
        })
    }

    /// What travels of a series, in order, with what was still held at its end.
    fn sent(exception: &mut Exception, series: &[Reading]) -> Vec<Reading> {
        let mut out = Vec::new();
        for reading in series {
            let verdict = exception.take(reading);
            out.extend(verdict.before);
            out.extend(verdict.is_sent.then_some(*reading));
        }
        out.extend(exception.drain());
        out
    }

    fn seconds(readings: &[Reading]) -> Vec<i64> {
        readings.iter().map(|reading| reading.time_us / SECOND).collect()
    }

    #[test]
    fn the_last_value_before_a_step_and_the_first_after_it_both_travel() {
        let series: Vec<Reading> = (0..10)
            .map(|second| reading(second, if second < 6 { 4.0 } else { 9.0 }))
            .collect();
        assert_eq!(seconds(&sent(&mut band(0.5, 0.0), &series)), [0, 5, 6, 9]);
    }

    #[test]
    fn a_value_that_stands_still_is_told_once_a_heartbeat() {
        let series: Vec<Reading> = (0..=180).map(|second| reading(second, 4.0)).collect();
        assert_eq!(seconds(&sent(&mut band(0.5, 0.0), &series)), [0, 60, 120, 180]);
    }

    #[test]
    fn slow_drift_is_measured_from_what_was_sent_and_cannot_hide() {
        let series: Vec<Reading> = (0..50)
            .map(|second| reading(second, second as f64 * 0.1))
            .collect();
        let told = sent(&mut band(1.0, 0.0), &series);
        for pair in told.windows(2) {
            assert!((pair[1].value - pair[0].value).abs() <= 1.2, "{pair:?}");
        }
    }

    #[test]
    fn a_change_of_quality_travels_whatever_the_value() {
        let mut exception = band(100.0, 0.0);
        assert!(exception.take(&reading(0, 4.0)).is_sent);
        let bad = Reading::bad(Alias(0), SECOND, Quality::BAD_TIMEOUT);
        assert!(exception.take(&bad).is_sent);
        let still = Reading::bad(Alias(0), 2 * SECOND, Quality::BAD_TIMEOUT);
        assert!(!exception.take(&still).is_sent);
        let other = Reading::bad(Alias(0), 3 * SECOND, Quality::BAD_COMMUNICATION);
        let verdict = exception.take(&other);
        assert!(verdict.is_sent && verdict.before.is_some());
        assert!(exception.take(&reading(4, 4.0)).is_sent);
    }

    #[test]
    fn a_percentage_is_of_the_value_last_sent() {
        let mut exception = band(0.0, 10.0);
        assert!(exception.take(&reading(0, 200.0)).is_sent);
        assert!(!exception.take(&reading(1, 219.0)).is_sent);
        assert!(exception.take(&reading(2, 221.0)).is_sent);
    }

    #[test]
    fn a_source_whose_clock_went_back_is_not_silenced() {
        let mut exception = band(0.5, 0.0);
        assert!(exception.take(&reading(3_600, 4.0)).is_sent);
        assert!(exception.take(&reading(0, 4.0)).is_sent);
    }

    proptest! {
        #[test]
        fn every_reading_left_out_is_within_the_band_of_the_one_sent_before_it_and_all_are_counted(
            values in proptest::collection::vec(-20.0..20.0f64, 1..200), absolute in 0.0..5.0f64,
        ) {
            let series: Vec<Reading> = values.iter().enumerate()
                .map(|(second, value)| reading(second as i64, *value)).collect();
            let mut exception = band(absolute, 0.0);
            let (mut out, mut left_out) = (Vec::new(), 0);
            for reading in &series {
                let verdict = exception.take(reading);
                out.extend(verdict.before);
                out.extend(verdict.is_sent.then_some(*reading));
                left_out += usize::from(verdict.is_one_left_out);
            }
            out.extend(exception.drain());
            prop_assert_eq!(out.len() + left_out, series.len());
            prop_assert!(out.windows(2).all(|pair| pair[0].time_us < pair[1].time_us));
            prop_assert_eq!(out.last().map(|last| last.time_us), series.last().map(|last| last.time_us));
            for reading in &series {
                let before = out.iter().rev().find(|sent| sent.time_us <= reading.time_us).unwrap();
                prop_assert!((before.value - reading.value).abs() <= absolute * 2.0 + 1e-12);
            }
        }
    }
}
