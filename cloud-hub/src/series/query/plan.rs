//! From where does a range come? The one place that chooses between readings and rollups, and how wide a bucket is.
//!
//! ```text
//! from ─raw─┬───1m───┬──────────1h──────────┬───1m───┬─raw─ to        the widest grain that fits a bucket in the
//!           └ next minute                                             middle, finer ones towards both ends
//! ```
//! The storage's functions give grains as the readings have them at this moment, so that nothing needs to settle.

use protocol::Micros;

const SECOND_US: Micros = 1_000_000;

/// Points of a bucket: first, least, greatest, last.
pub const POINTS_A_BUCKET: usize = 4;

/// Where a stretch of a range is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// The readings themselves.
    Raw,
    /// Minutes.
    Minute,
    /// Hours.
    Hour,
    /// Days of UTC.
    Day,
}

impl Source {
    const ROLLUPS: [Self; 3] = [Self::Minute, Self::Hour, Self::Day];

    /// Width of what it gives; 0 for readings.
    pub const fn grain_us(self) -> Micros {
        match self {
            Self::Raw => 0,
            Self::Minute => 60 * SECOND_US,
            Self::Hour => 3_600 * SECOND_US,
            Self::Day => 86_400 * SECOND_US,
        }
    }

    /// The storage's function that gives it; none for readings.
    pub const fn function(self) -> Option<&'static str> {
        match self {
            Self::Raw => None,
            Self::Minute => Some("minute_buckets"),
            Self::Hour => Some("hour_buckets"),
            Self::Day => Some("day_buckets"),
        }
    }

    /// Its name in answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Minute => "1m",
            Self::Hour => "1h",
            Self::Day => "1d",
        }
    }
}

/// A stretch of the range that is read from one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where.
    pub source: Source,
    /// From here on.
    pub from_us: Micros,
    /// Before this.
    pub to_us: Micros,
}

/// How a range is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The coarsest place that is read.
    pub source: Source,
    /// Start of the first bucket, at or before the range.
    pub origin_us: Micros,
    /// Width of a bucket, more than 0.
    pub width_us: Micros,
    /// What is read, in order of time, without gap or overlap.
    pub segments: Vec<Segment>,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Start of the range.
    pub from_us: Micros,
    /// End of the range, after its start.
    pub to_us: Micros,
    /// Most points, 1 or more.
    pub points: usize,
    /// Readings expected in it of the busiest tag; none when nobody can say.
    pub rows: Option<u64>,
}

/// Chooses buckets and where to read them.
pub fn plan(wanted: &Wanted) -> Plan {
    let Wanted { from_us, to_us, .. } = *wanted;
    let buckets = (wanted.points / POINTS_A_BUCKET).max(1) as Micros;
    let span_us = to_us.saturating_sub(from_us).max(1);
    let width_us = span_us.saturating_sub(1) / buckets + 1;
    let few = wanted.rows.is_some_and(|rows| rows <= wanted.points as u64);
    let grain = Source::ROLLUPS
        .into_iter()
        .rev()
        .find(|source| !few && source.grain_us() <= width_us);
    let Some(source) = grain else {
        let whole = Segment {
            source: Source::Raw,
            from_us,
            to_us,
        };
        return Plan {
            source: Source::Raw,
            origin_us: from_us,
            width_us,
            segments: vec![whole],
        };
    };
    let grain_us = source.grain_us();
    // Buckets of whole grains: a grain is never cut. A range that begins within one touches a bucket more.
    let width_us = span_us.saturating_sub(1) / (buckets - 1).max(1) + 1;
    let width_us = (width_us + grain_us - 1).div_euclid(grain_us) * grain_us;
    let mut segments = Vec::new();
    tile(source, (from_us, to_us), &mut segments);
    Plan {
        source,
        origin_us: from_us - from_us.rem_euclid(grain_us),
        width_us,
        segments,
    }
}

/// Covers a range with the whole grains of `source`, and what is left at its ends with finer ones.
fn tile(source: Source, (from_us, to_us): (Micros, Micros), segments: &mut Vec<Segment>) {
    if from_us >= to_us {
        return;
    }
    let finer = match source {
        Source::Raw => {
            segments.push(Segment {
                source,
                from_us,
                to_us,
            });
            return;
        }
        Source::Minute => Source::Raw,
        Source::Hour => Source::Minute,
        Source::Day => Source::Hour,
    };
    let grain_us = source.grain_us();
    let first_us = from_us + (-from_us).rem_euclid(grain_us);
    let end_us = to_us - to_us.rem_euclid(grain_us);
    if first_us >= end_us {
        tile(finer, (from_us, to_us), segments);
        return;
    }
    tile(finer, (from_us, first_us), segments);
    segments.push(Segment {
        source,
        from_us: first_us,
        to_us: end_us,
    });
    tile(finer, (end_us, to_us), segments);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY_US: Micros = 86_400 * SECOND_US;

    fn wanted(from_us: Micros, to_us: Micros, points: usize) -> Wanted {
        Wanted {
            from_us,
            to_us,
            points,
            rows: None,
        }
    }

    #[test]
    fn thirty_days_come_from_hours_and_an_hour_from_readings() {
        let month = plan(&wanted(17, 17 + 30 * DAY_US, 600));
        assert_eq!(
            (month.source, month.width_us),
            (Source::Hour, 5 * 3_600 * SECOND_US)
        );
        assert_eq!(plan(&wanted(0, 3_600 * SECOND_US, 600)).source, Source::Raw);
    }

    #[test]
    fn few_readings_are_read_as_they_are_however_long_the_range() {
        let few = Wanted {
            rows: Some(500),
            ..wanted(0, 30 * DAY_US, 600)
        };
        assert_eq!(plan(&few).source, Source::Raw);
    }

    proptest! {
        #[test]
        fn segments_cover_the_range_without_gap_or_overlap_and_grains_stay_whole(
            from_us in -3 * DAY_US..60 * DAY_US,
            span_us in 1..400 * DAY_US,
            points in 1..2_000_usize,
        ) {
            let to_us = from_us + span_us;
            let made = plan(&Wanted { from_us, to_us, points, rows: None });
            let mut at_us = from_us;
            for segment in &made.segments {
                prop_assert_eq!(segment.from_us, at_us);
                prop_assert!(segment.to_us > segment.from_us);
                let grain_us = segment.source.grain_us();
                if grain_us > 0 {
                    prop_assert_eq!(segment.from_us.rem_euclid(grain_us), 0);
                    prop_assert_eq!(segment.to_us.rem_euclid(grain_us), 0);
                    prop_assert_eq!(made.width_us % grain_us, 0);
                    prop_assert_eq!((segment.from_us - made.origin_us).rem_euclid(grain_us), 0);
                }
                at_us = segment.to_us;
            }
            prop_assert_eq!(at_us, to_us);
            let buckets = (to_us - made.origin_us + made.width_us - 1) / made.width_us;
            prop_assert!(buckets <= (points / POINTS_A_BUCKET).max(2) as Micros);
        }
    }
}
