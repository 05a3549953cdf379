//! What do many readings, or grains of a rollup, look like as few buckets? Pure: parts go in one after another in
//! order of time, and what is kept is bounded by the buckets of the answer.
//!
//! ```text
//! bucket      first, least, greatest and last value that is not bad, with their times; counts of all and of good
//! mean        Σ value·seconds / Σ seconds over good values, each held until the next reading, at most `hold_us`
//! gap         no reading for longer than `silence_us`, or only bad ones: no line is drawn through it
//! ```

use protocol::{Micros, Quality};

use super::{Point, plan::Plan};

/// Most gaps an answer names; how many more there are is said.
const GAPS_MAX: usize = 1_000;

/// A value and its time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct At {
    /// Source time.
    pub time_us: Micros,
    /// The value.
    pub value: f64,
}

/// What a stretch of a range says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bucket {
    /// Start of it.
    pub from_us: Micros,
    /// Readings.
    pub n: u64,
    /// Good ones of them.
    pub n_good: u64,
    /// First value that is not bad.
    pub first: Option<At>,
    /// The least.
    pub min: Option<At>,
    /// The greatest.
    pub max: Option<At>,
    /// The last.
    pub last: Option<At>,
    /// First bad reading.
    pub bad: Option<(Micros, Quality)>,
    /// Worst quality of the values that are not bad.
    pub quality: Quality,
    weighted: f64,
    seconds: f64,
}

/// A grain of a rollup. It holds at least one reading.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Grain {
    /// Readings.
    pub n: u64,
    /// Good ones of them.
    pub n_good: u64,
    /// Bad ones of them.
    pub n_bad: u64,
    /// Source time of the first reading.
    pub first_us: Micros,
    /// Source time of the last reading.
    pub last_us: Micros,
    /// Least value that is not bad.
    pub min: Option<At>,
    /// Greatest.
    pub max: Option<At>,
    /// Value of the first reading, unless that is bad.
    pub first: Option<f64>,
    /// Value of the last reading, unless that is bad.
    pub last: Option<f64>,
    /// Whether the last reading is good.
    pub ends_good: bool,
    /// Σ value·seconds of good values, up to the last reading.
    pub weighted: f64,
    /// Seconds in which a good value stood, up to the last reading.
    pub seconds: f64,
}

/// Why there is nothing to draw.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum GapKind {
    /// No reading came.
    Silent,
    /// Only bad ones.
    Bad,
    /// Its edge says that they were due and not taken.
    NotRead,
    /// Its edge had them and had to give them up.
    Lost,
}

impl GapKind {
    /// Its name in answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::Bad => "bad",
            Self::NotRead => "not_read",
            Self::Lost => "lost",
        }
    }
}

/// A stretch without a usable value.
#[derive(Clone, Debug, PartialEq)]
pub struct Gap {
    /// From the last reading before it.
    pub from_us: Micros,
    /// To the first after it.
    pub to_us: Micros,
    /// Why.
    pub kind: GapKind,
    /// In words, where somebody said so.
    pub reason: Option<String>,
}

/// What a tag did.
#[derive(Clone, Debug, PartialEq)]
pub struct TagTrend {
    /// The tag.
    pub tag_id: i32,
    /// Width of a bucket; 0 when the points are the readings themselves.
    pub resolution_us: Micros,
    /// The readings themselves, where they are few enough.
    pub points: Option<Vec<Point>>,
    /// Where they are not: buckets that hold readings, in order.
    pub buckets: Vec<Bucket>,
    /// Stretches without a usable value, in order.
    pub gaps: Vec<Gap>,
    /// Gaps beyond those.
    pub gaps_left_out: u64,
    /// Readings in the range.
    pub n: u64,
    /// Good ones of them.
    pub n_good: u64,
    /// Time-weighted mean of the good values; none where no good value stood.
    pub mean: Option<f64>,
    /// Seconds of the range in which a good value stood.
    pub seconds: f64,
}

/// How one tag is folded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rules {
    /// Most readings given as they are.
    pub points_max: usize,
    /// A value stands until the next reading, at most this long.
    pub hold_us: Micros,
    /// Longer without a reading is a gap; 0: a tag that speaks on change has none.
    pub silence_us: Micros,
}

impl Rules {
    /// For a tag that is due every `period_us`; 0 on change.
    pub fn of(period_us: Micros, points_max: usize) -> Self {
        const SILENCE_US_MIN: Micros = 3_000_000;
        // As the storage has it, so that a mean is the same wherever it comes from.
        const HOLD_US_MIN: Micros = 300_000_000;
        if period_us <= 0 {
            return Self {
                points_max,
                hold_us: Micros::MAX,
                silence_us: 0,
            };
        }
        Self {
            points_max,
            hold_us: period_us.saturating_mul(3).max(HOLD_US_MIN),
            silence_us: (period_us.saturating_mul(5) / 2).max(SILENCE_US_MIN),
        }
    }
}

/// Folds the parts of one tag.
#[derive(Clone, Debug)]
pub struct Fold {
    rules: Rules,
    from_us: Micros,
    origin_us: Micros,
    width_us: Micros,
    points: Option<Vec<Point>>,
    buckets: Vec<Bucket>,
    gaps: Vec<Gap>,
    gaps_left_out: u64,
    /// The good value that stands, since when.
    held: Option<At>,
    /// Up to where something came.
    seen_us: Option<Micros>,
    bad_us: Option<Micros>,
}

impl Fold {
    /// For a range that begins at `from_us` and is read by `plan`.
    pub fn new(plan: &Plan, from_us: Micros, rules: Rules) -> Self {
        Self {
            rules,
            from_us,
            origin_us: plan.origin_us,
            width_us: plan.width_us,
            points: Some(Vec::new()),
            buckets: Vec::new(),
            gaps: Vec::new(),
            gaps_left_out: 0,
            held: None,
            seen_us: None,
            bad_us: None,
        }
    }

    /// Takes a reading, at or after the one before. One from before the range only says what stands at its start.
    pub fn reading(&mut self, point: Point) {
        let usable = point.value.filter(|_| !point.quality.is_bad());
        self.stand_until(point.time_us);
        self.held = usable.filter(|_| point.quality.is_good()).map(|value| At {
            time_us: point.time_us.max(self.from_us),
            value,
        });
        if point.time_us < self.from_us {
            self.seen_us = Some(point.time_us);
            return;
        }
        self.note_silence(point.time_us);
        self.note_bad(point.time_us, usable.is_none());
        self.seen_us = Some(point.time_us);
        if let Some(points) = &mut self.points {
            points.push(point);
            if points.len() > self.rules.points_max {
                self.points = None;
            }
        }
        let bucket = self.bucket(point.time_us);
        bucket.n += 1;
        bucket.n_good += u64::from(point.quality.is_good());
        match usable {
            Some(value) => {
                bucket.quality = bucket.quality.max(point.quality);
                let at = At {
                    time_us: point.time_us,
                    value,
                };
                bucket.widen([at; 4]);
            }
            None => {
                bucket.bad.get_or_insert((point.time_us, point.quality));
            }
        }
    }

    /// Takes a grain of a rollup, after what came before.
    pub fn grain(&mut self, grain: &Grain) {
        self.stand_until(grain.first_us);
        self.points = None;
        self.note_silence(grain.first_us);
        self.note_bad(grain.first_us, grain.max.is_none());
        self.seen_us = Some(grain.last_us);
        let at = |time_us, value| At { time_us, value };
        self.held = grain
            .last
            .filter(|_| grain.ends_good)
            .map(|value| at(grain.last_us, value));
        let bucket = self.bucket(grain.first_us);
        bucket.n += grain.n;
        bucket.n_good += grain.n_good;
        bucket.weighted += grain.weighted;
        bucket.seconds += grain.seconds;
        if grain.n_good + grain.n_bad < grain.n {
            bucket.quality = bucket.quality.max(Quality::UNCERTAIN);
        }
        if grain.n_bad > 0 {
            bucket.bad.get_or_insert((grain.first_us, Quality::BAD));
        }
        if let Some((min, max)) = grain.min.zip(grain.max) {
            // Where the first or last reading is bad, an extreme stands for the value next to it.
            let first = grain.first.map_or(min, |value| at(grain.first_us, value));
            let last = grain.last.map_or(max, |value| at(grain.last_us, value));
            bucket.widen([first, min, max, last]);
        }
    }

    /// Ends the range at `to_us`, or now if that is before.
    pub fn finish(mut self, tag_id: i32, to_us: Micros) -> TagTrend {
        self.stand_until(to_us);
        self.note_silence(to_us);
        if let Some(since_us) = self.bad_us {
            self.push_gap(since_us, to_us, GapKind::Bad);
        }
        let sum = |of: fn(&Bucket) -> f64| self.buckets.iter().map(of).sum::<f64>();
        let (weighted, seconds) = (sum(|it| it.weighted), sum(|it| it.seconds));
        let count = |of: fn(&Bucket) -> u64| self.buckets.iter().map(of).sum::<u64>();
        TagTrend {
            tag_id,
            resolution_us: if self.points.is_some() { 0 } else { self.width_us },
            n: count(|it| it.n),
            n_good: count(|it| it.n_good),
            mean: (seconds > 0.0).then(|| weighted / seconds),
            seconds,
            buckets: if self.points.is_some() {
                vec![]
            } else {
                self.buckets.into_iter().filter(|bucket| bucket.n > 0).collect()
            },
            points: self.points,
            gaps: self.gaps,
            gaps_left_out: self.gaps_left_out,
        }
    }

    /// The bucket of a time; buckets come in order.
    fn bucket(&mut self, time_us: Micros) -> &mut Bucket {
        let from_us = self.start_of(time_us);
        if self.buckets.last().is_none_or(|last| last.from_us < from_us) {
            self.buckets.push(Bucket::at(from_us));
        }
        self.buckets.last_mut().expect("one was pushed if there was none")
    }

    fn start_of(&self, time_us: Micros) -> Micros {
        self.origin_us + (time_us - self.origin_us).div_euclid(self.width_us) * self.width_us
    }

    /// The value that stands has stood until now: its seconds go to the buckets they fall in.
    fn stand_until(&mut self, time_us: Micros) {
        let Some(held) = self.held.take() else { return };
        let end_us = time_us.min(held.time_us.saturating_add(self.rules.hold_us));
        let mut at_us = held.time_us.max(self.from_us);
        while at_us < end_us {
            let next_us = (self.start_of(at_us) + self.width_us).min(end_us);
            let seconds = (next_us - at_us) as f64 / 1e6;
            let bucket = self.bucket(at_us);
            bucket.seconds += seconds;
            bucket.weighted += held.value * seconds;
            at_us = next_us;
        }
    }

    fn note_silence(&mut self, time_us: Micros) {
        let since_us = self.seen_us.unwrap_or(self.from_us).max(self.from_us);
        let is_long = time_us.saturating_sub(self.seen_us.unwrap_or(self.from_us)) > self.rules.silence_us;
        if self.rules.silence_us > 0 && is_long && time_us > since_us {
            // What was bad before the silence was bad until then.
            if let Some(bad_us) = self.bad_us.take() {
                self.push_gap(bad_us, since_us, GapKind::Bad);
            }
            self.push_gap(since_us, time_us, GapKind::Silent);
        }
    }

    fn note_bad(&mut self, time_us: Micros, is_bad: bool) {
        if is_bad {
            self.bad_us.get_or_insert(time_us);
        } else if let Some(since_us) = self.bad_us.take() {
            self.push_gap(since_us, time_us, GapKind::Bad);
        }
    }

    fn push_gap(&mut self, from_us: Micros, to_us: Micros, kind: GapKind) {
        if from_us >= to_us {
            return;
        }
        if self.gaps.len() == GAPS_MAX {
            self.gaps_left_out += 1;
            return;
        }
        self.gaps.push(Gap {
            from_us,
            to_us,
            kind,
            reason: None,
        });
    }
}

impl Bucket {
    fn at(from_us: Micros) -> Self {
        Self {
            from_us,
            n: 0,
            n_good: 0,
            first: None,
            min: None,
            max: None,
            last: None,
            bad: None,
            quality: Quality::GOOD,
            weighted: 0.0,
            seconds: 0.0,
        }
    }

    /// Takes in later values: first, least, greatest, last.
    fn widen(&mut self, [first, min, max, last]: [At; 4]) {
        self.first.get_or_insert(first);
        if self.min.is_none_or(|known| min.value < known.value) {
            self.min = Some(min);
        }
        if self.max.is_none_or(|known| max.value > known.value) {
            self.max = Some(max);
        }
        self.last = Some(last);
    }

    /// Time-weighted mean of its good values.
    pub fn mean(&self) -> Option<f64> {
        (self.seconds > 0.0).then(|| self.weighted / self.seconds)
    }

    /// Adds what it shows to a list of points: first, least, greatest, last and the first bad one, each once, in order
    /// of time.
    pub fn push_points(&self, points: &mut Vec<Point>) {
        let mut shown: Vec<Point> = [self.first, self.min, self.max, self.last]
            .into_iter()
            .flatten()
            .map(|at| Point {
                time_us: at.time_us,
                value: Some(at.value),
                quality: self.quality,
            })
            .collect();
        shown.extend(self.bad.map(|(time_us, quality)| Point {
            time_us,
            value: None,
            quality,
        }));
        shown.sort_by_key(|point| point.time_us);
        shown.dedup();
        points.append(&mut shown);
    }
}

#[cfg(test)]
#[path = "fold_tests.rs"]
mod tests;
