//! How regularly is a device polled? Measured where the requests arrive.

use std::{fmt, time::Duration};

use super::plc::Asked;

/// How far each poll was from its place in the rhythm, sorted.
#[derive(Clone, Debug)]
pub struct Jitter {
    deviations: Vec<Duration>,
    period: Duration,
}

impl Jitter {
    /// From requests that arrive once a period. The rhythm is the one that the median request keeps.
    pub fn of(asked: &[Asked], period: Duration) -> Self {
        let period_s = period.as_secs_f64();
        let offsets: Vec<f64> = asked
            .iter()
            .map(|request| (request.at - asked[0].at).as_secs_f64())
            .map(|since| since - (since / period_s).round() * period_s)
            .collect();
        let mut sorted = offsets.clone();
        sorted.sort_by(f64::total_cmp);
        let median = sorted.get(sorted.len() / 2).copied().unwrap_or_default();
        let mut deviations: Vec<Duration> = offsets
            .iter()
            .map(|offset| Duration::from_secs_f64((offset - median).abs()))
            .collect();
        deviations.sort();
        Self { deviations, period }
    }

    /// Requests measured.
    pub fn polls(&self) -> usize {
        self.deviations.len()
    }

    /// The deviation that `share` (0 to 1) of the polls stay within, in percent of the period.
    pub fn percent(&self, share: f64) -> f64 {
        let index = (self.deviations.len() as f64 * share) as usize;
        let last = self.deviations.len().saturating_sub(1);
        let deviation = self.deviations.get(index.min(last)).copied().unwrap_or_default();
        deviation.as_secs_f64() / self.period.as_secs_f64() * 100.0
    }
}

impl fmt::Display for Jitter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const EDGES_MS: [u64; 7] = [1, 2, 5, 10, 20, 50, u64::MAX];
        let mut from = 0;
        for to in EDGES_MS {
            let range = Duration::from_millis(from)..Duration::from_millis(to);
            let count = self
                .deviations
                .iter()
                .filter(|deviation| range.contains(*deviation))
                .count();
            let until = if to == u64::MAX {
                "     ".to_owned()
            } else {
                format!("{to:>2} ms")
            };
            writeln!(f, "  {from:>2} to {until} {count:>6}")?;
            from = to;
        }
        write!(
            f,
            "  p50 {:.2} %, p99 {:.2} %, max {:.2} % of the period",
            self.percent(0.5),
            self.percent(0.99),
            self.percent(1.0)
        )
    }
}
