//! Which hour of the week is it in the plant? By the clocks on its walls: a day has 23, 24 or 25 hours, and shifts, cleaning
//! and night cooling follow the clock, not the sun.

use chrono::{DateTime, Datelike as _, NaiveDateTime, Timelike as _, Utc};
use chrono_tz::Tz;
use protocol::Micros;
use serde::{Deserialize, Serialize};

/// An IANA time zone; stored by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Zone(Tz);

impl Default for Zone {
    /// UTC.
    fn default() -> Self {
        Self(Tz::UTC)
    }
}

impl From<Zone> for String {
    fn from(zone: Zone) -> Self {
        zone.name().to_owned()
    }
}

impl TryFrom<String> for Zone {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        Self::parse(&name).ok_or_else(|| format!("{name:?} is no time zone that is known here"))
    }
}

impl Zone {
    /// Edition of the rules by which the zones' clocks change.
    pub const RULES: &str = chrono_tz::IANA_TZDB_VERSION;

    /// The zone of that name.
    pub fn parse(name: &str) -> Option<Self> {
        name.parse().ok().map(Self)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        self.0.name()
    }

    /// The hour of the week of a time, 0 (Monday 0:00) to 167. The hour that a clock strikes twice is one hour of the
    /// week, the one that it skips is none.
    pub fn hour_of_week(self, time_us: Micros) -> usize {
        let utc = DateTime::<Utc>::from_timestamp_micros(time_us).unwrap_or_default();
        let local: NaiveDateTime = utc.with_timezone(&self.0).naive_local();
        let (day, hour) = (local.weekday().num_days_from_monday(), local.hour());
        (day * 24 + hour) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_US: Micros = 3_600_000_000;

    fn us(text: &str) -> Micros {
        text.parse::<DateTime<Utc>>().unwrap().timestamp_micros()
    }

    /// The hours of the week of a day, from its first to its last hour in UTC.
    fn hours(zone: &str, from: &str, count: i64) -> Vec<usize> {
        let zone = Zone::parse(zone).unwrap();
        let from_us = us(from);
        (0..count)
            .map(|hour| zone.hour_of_week(from_us + hour * HOUR_US))
            .collect()
    }

    #[test]
    fn a_week_begins_on_monday() {
        let zone = Zone::default();
        let monday_us = us("2024-01-01T00:00:00Z");
        let seen = [monday_us, monday_us - 1, monday_us + 25 * HOUR_US].map(|at| zone.hour_of_week(at));
        assert_eq!(seen, [0, 167, 25]);
    }

    #[test]
    fn a_day_of_23_hours_has_no_third_hour_and_one_of_25_has_its_second_twice() {
        // Sundays of Akron: 2025-03-09 and 2025-11-02.
        let spring = hours("America/New_York", "2025-03-09T05:00:00Z", 23);
        let skipped: Vec<usize> = (144..168).filter(|hour| *hour != 146).collect();
        assert_eq!(spring, skipped);
        assert_eq!(hours("America/New_York", "2025-03-10T04:00:00Z", 1), [0]);
        let autumn = hours("America/New_York", "2025-11-02T04:00:00Z", 25);
        let doubled: Vec<usize> = [144, 145].into_iter().chain(145..168).collect();
        assert_eq!(autumn, doubled);
        assert_eq!(hours("America/New_York", "2025-11-03T05:00:00Z", 1), [0]);
    }

    #[test]
    fn a_zone_half_an_hour_off_has_its_own_hours() {
        assert_eq!(hours("Asia/Kolkata", "2025-06-01T18:29:59Z", 1), [167]);
        assert_eq!(hours("Asia/Kolkata", "2025-06-01T18:30:00Z", 1), [0]);
    }

    #[test]
    fn a_zone_is_stored_by_name_and_an_unknown_one_is_no_zone() {
        let zone = Zone::parse("America/New_York").unwrap();
        let bytes = postcard::to_stdvec(&zone).unwrap();
        assert_eq!(postcard::from_bytes::<Zone>(&bytes).unwrap(), zone);
        let strange = postcard::to_stdvec("Mars/Olympus").unwrap();
        assert!(postcard::from_bytes::<Zone>(&strange).is_err());
    }
}
