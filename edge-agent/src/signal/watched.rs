//! What does one tag's signal say beside its value? The checks and conversions that are configured for it, in one
//! place: unit, counter, jump, rate, stillness, drift, deadband.
//!
//! A doubtful value becomes `uncertain.sensor_not_accurate` and keeps its number: what the sensor said is evidence. The
//! readings of control points, their gates and references keep their quality: only the judge of the control point says
//! what they are worth, and a true fall of temperature must not be taken for a jump.

use protocol::{Micros, Quality, Reading, limit::StuckDetector, reading::Alias};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    alarm::{Alarms, Subject},
    config::{Stillness, TagPlan},
    counter::{Counter, Happening, Scale},
    deadband::Exception,
    drift::Drift,
    watch::{JumpWatch, RateWatch, StillWatch},
};

/// One tag with its signal's configuration and memory.
#[derive(Debug)]
pub(super) struct Watched {
    plan: TagPlan,
    counter: Option<Counter>,
    rate: Option<RateWatch>,
    jump: Option<JumpWatch>,
    still: Option<Still>,
    drift: Drift,
    exception: Option<Exception>,
    open: Open,
}

#[derive(Debug)]
enum Still {
    Alone(StillWatch),
    Beside(StuckDetector),
}

/// The open alarms.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Open {
    rate: Option<Uuid>,
    jump: Option<Uuid>,
    stuck: Option<Uuid>,
    drift: Option<Uuid>,
    counter: Option<Uuid>,
}

/// What of it outlives a restart.
#[derive(Serialize, Deserialize)]
struct Saved {
    counter: Option<Counter>,
    drift: Drift,
    open: Open,
}

impl Watched {
    pub(super) fn new(plan: TagPlan) -> Self {
        let still = plan.still.map(|still| match still {
            Stillness::Alone(limit) => Still::Alone(StillWatch::new(limit)),
            Stillness::Beside { limit, .. } => {
                Still::Beside(StuckDetector::new(limit.window_us, limit.floor))
            }
        });
        Self {
            counter: None,
            rate: plan.rate.map(RateWatch::new),
            jump: plan.jump.map(JumpWatch::new),
            still,
            drift: Drift::default(),
            exception: plan.deadband.map(Exception::new),
            open: Open::default(),
            plan,
        }
    }

    pub(super) fn plan(&self) -> &TagPlan {
        &self.plan
    }

    pub(super) fn exception(&mut self) -> Option<&mut Exception> {
        self.exception.as_mut()
    }

    /// Puts the device's unit into the tag's.
    pub(super) fn convert(&self, reading: &mut Reading) {
        if let (Some(conversion), Some(value)) = (&self.plan.conversion, reading.value()) {
            *reading = Reading::new(
                reading.tag,
                reading.time_us,
                conversion.convert(value),
                reading.quality,
            );
        }
    }

    /// Takes a reading of a tag that is a reference of this one.
    pub(super) fn reference(&mut self, reading: &Reading, received_us: Micros) {
        let Some(value) = reading.value() else { return };
        if let (Some(Still::Beside(detector)), Some(Stillness::Beside { reference, .. })) =
            (&mut self.still, self.plan.still)
            && reference == reading.tag
        {
            detector.reference(received_us, value);
        }
        if let Some((reference, _)) = self.plan.drift
            && reference == reading.tag
            && reading.quality.is_good()
        {
            self.drift.reference(reading.time_us, value);
        }
    }

    /// Checks a reading of the tag itself. Doubt changes its quality.
    pub(super) fn check(&mut self, reading: &mut Reading, received_us: Micros, alarms: &mut Alarms<'_>) {
        self.retire(alarms);
        let Some(value) = reading.value() else { return };
        let is_outlier = self.check_jump(value, alarms);
        // An outlier is not the sensor's doing over time: it must not widen the other windows.
        let is_doubtful = is_outlier
            | (!is_outlier && self.check_rate(reading.time_us, value, alarms))
            | self.check_still(received_us, value, alarms)
            | (!is_outlier && reading.quality.is_good() && self.check_drift(reading.time_us, value, alarms));
        if is_doubtful && reading.quality.is_good() && !self.plan.is_protected {
            reading.quality = Quality::UNCERTAIN_SENSOR;
        }
    }

    /// Ends the alarms of checks that are no longer configured.
    fn retire(&mut self, alarms: &mut Alarms<'_>) {
        let (plan, open) = (&self.plan, &mut self.open);
        let checks = [
            (&mut open.jump, "sensor.jump", plan.jump.is_some()),
            (&mut open.rate, "sensor.rate", plan.rate.is_some()),
            (&mut open.stuck, "sensor.stuck", plan.still.is_some()),
            (&mut open.drift, "sensor.drift", plan.drift.is_some()),
            (&mut open.counter, "counter.reset", plan.counter.is_some()),
        ];
        for (held, code, is_configured) in checks {
            if !is_configured {
                alarms.set(held, code, subject(plan), false, || {
                    "no longer checked".to_owned()
                });
            }
        }
    }

    fn check_jump(&mut self, value: f64, alarms: &mut Alarms<'_>) -> bool {
        let Some(jump) = &mut self.jump else { return false };
        let is_outlier = jump.take(value);
        let unit = &self.plan.unit;
        alarms.set(
            &mut self.open.jump,
            "sensor.jump",
            subject(&self.plan),
            is_outlier,
            || {
                if is_outlier {
                    format!("jumped to {value} {unit}, which no reading beside it bears out")
                } else {
                    "steady again".to_owned()
                }
            },
        );
        is_outlier
    }

    fn check_rate(&mut self, at_us: Micros, value: f64, alarms: &mut Alarms<'_>) -> bool {
        let (Some(rate), Some(limit)) = (&mut self.rate, self.plan.rate) else {
            return false;
        };
        let change = rate.take(at_us, value);
        let unit = &self.plan.unit;
        alarms.set(
            &mut self.open.rate,
            "sensor.rate",
            subject(&self.plan),
            change.is_some(),
            || {
                change.map_or_else(
                    || "changes no faster than allowed".to_owned(),
                    |change| {
                        format!(
                            "changed by {change:.3} {unit} within {} s; {} are allowed",
                            limit.per_us / 1_000_000,
                            limit.max
                        )
                    },
                )
            },
        );
        change.is_some()
    }

    fn check_still(&mut self, received_us: Micros, value: f64, alarms: &mut Alarms<'_>) -> bool {
        let is_still = match &mut self.still {
            None => return false,
            Some(Still::Alone(watch)) => watch.take(received_us, value),
            // Once stuck it is stuck until it moves, also with the reference at rest.
            Some(Still::Beside(detector)) => {
                detector.watched(received_us, value) || self.open.stuck.is_some() && detector.is_still()
            }
        };
        alarms.set(
            &mut self.open.stuck,
            "sensor.stuck",
            subject(&self.plan),
            is_still,
            || {
                if is_still {
                    format!("stands still at {value}")
                } else {
                    "moves again".to_owned()
                }
            },
        );
        is_still
    }

    fn check_drift(&mut self, at_us: Micros, value: f64, alarms: &mut Alarms<'_>) -> bool {
        let Some((_, limit)) = self.plan.drift else {
            return false;
        };
        let is_drifting = self.drift.take(&limit, at_us, value);
        let grown = self.drift.grown();
        alarms.set(
            &mut self.open.drift,
            "sensor.drift",
            subject(&self.plan),
            is_drifting,
            || {
                if is_drifting {
                    format!("drifts away from its reference (CUSUM {grown:.1} σ)")
                } else {
                    "agrees with its reference again".to_owned()
                }
            },
        );
        is_drifting
    }

    /// Follows the counter; its total and rate are further readings.
    pub(super) fn count(&mut self, reading: &Reading, out: &mut Vec<Reading>, alarms: &mut Alarms<'_>) {
        let Some(plan) = self.plan.counter else { return };
        let Some(raw) = self.raw_count(&plan.scale, reading) else {
            return;
        };
        let at_us = reading.time_us;
        let counted = raw.map(|raw| match &mut self.counter {
            Some(counter) => counter.take(&plan.scale, at_us, raw),
            none => none.insert(Counter::start(at_us, raw)).first(&plan.scale),
        });
        let mut tell = |alias: Option<Alias>, value: Result<f64, Quality>| {
            out.extend(alias.map(|alias| match (value, counted) {
                (Ok(value), Ok(counted)) if reading.quality.is_good() => {
                    Reading::new(alias, at_us, value, counted.quality)
                }
                (Ok(value), _) => Reading::new(alias, at_us, value, Quality::UNCERTAIN),
                (Err(reason), _) => Reading::bad(alias, at_us, reason),
            }));
        };
        tell(plan.total, counted.map(|counted| counted.total));
        if let Some((alias, per_us)) = plan.rate {
            let per_s = per_us as f64 / 1e6;
            let rate = counted.and_then(|counted| counted.rate.ok_or(Quality::BAD));
            tell(Some(alias), rate.map(|rate| rate * per_s));
        }
        if let (Ok(counted), Ok(raw)) = (counted, raw) {
            let is_odd = !matches!(counted.what, Happening::Counted | Happening::RolledOver);
            let message = || describe(counted.what, raw, counted.total);
            let subject = subject(&self.plan);
            alarms.set(&mut self.open.counter, "counter.reset", subject, is_odd, message);
        }
    }

    /// What the counter stands at, or why that cannot be counted with; none for a reading that came before.
    fn raw_count(&self, scale: &Scale, reading: &Reading) -> Option<Result<f64, Quality>> {
        let newest_us = self.counter.map(|counter| counter.at_us());
        Some(match reading.value() {
            None => Err(reading.quality),
            Some(raw) if !scale.holds(raw) => Err(Quality::BAD_OUT_OF_RANGE),
            Some(_) if newest_us == Some(reading.time_us) => return None,
            Some(_) if newest_us.is_some_and(|newest_us| reading.time_us < newest_us) => {
                Err(Quality::BAD_TIMEOUT)
            }
            Some(raw) => Ok(raw),
        })
    }

    /// The clock of readings was set back: windows begin anew, what was counted stays.
    pub(super) fn set_back(&mut self, by_us: Micros) {
        if let Some(limit) = self.plan.rate {
            self.rate = Some(RateWatch::new(limit));
        }
        match (&mut self.still, self.plan.still) {
            (Some(Still::Beside(detector)), _) => detector.set_back(by_us),
            (Some(Still::Alone(watch)), Some(Stillness::Alone(limit))) => *watch = StillWatch::new(limit),
            _ => {}
        }
        if let Some(counter) = &mut self.counter {
            counter.set_back(by_us);
        }
    }

    /// What of it outlives a restart.
    pub(super) fn save(&self) -> Option<Vec<u8>> {
        let open = &self.open;
        let is_open = [open.rate, open.jump, open.stuck, open.drift, open.counter]
            .iter()
            .any(Option::is_some);
        if self.counter.is_none() && self.plan.drift.is_none() && !is_open {
            return None;
        }
        let saved = Saved {
            counter: self.counter,
            drift: self.drift,
            open: self.open,
        };
        postcard::to_stdvec(&saved).ok()
    }

    /// Puts back what [`save`](Self::save) gave.
    pub(super) fn restore(&mut self, state: &[u8]) -> Result<(), postcard::Error> {
        let saved: Saved = postcard::from_bytes(state)?;
        self.counter = saved.counter.filter(|_| self.plan.counter.is_some());
        (self.drift, self.open) = (saved.drift, saved.open);
        Ok(())
    }
}

fn subject(plan: &TagPlan) -> Subject<'_> {
    Subject {
        tag: &plan.name,
        line: plan.line.as_deref(),
    }
}

fn describe(what: Happening, raw: f64, total: f64) -> String {
    match what {
        Happening::WasReset => {
            format!(
                "reset; it stands at {raw}, and what it counted just before that is not known (total {total})"
            )
        }
        Happening::WasPreset => format!("set to {raw}; counting goes on from there (total {total})"),
        Happening::Doubted => format!("{raw} is more than can have been counted; the total stays at {total}"),
        Happening::Counted | Happening::RolledOver => format!("counts on (total {total})"),
    }
}
