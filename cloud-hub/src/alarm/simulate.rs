//! What would another deadband, another delay, another method have said? Judged on history, nothing stored: how many
//! alarms would remain, and which true ones would be lost.

use axum::{Json as Answer, extract::State};
use chrono::{DateTime, Utc};
use protocol::{Micros, alarm::machine::AlarmBand};
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    TAG,
    history::{AnomalySpan, has_band, inputs, learn, spans},
    load::{Loaded, Names, load},
    model::Model,
    models::Models,
    rule::AlarmRule,
    season::Zone,
    watch::{Input, Kind, Spec},
};
use crate::{
    app::App,
    error::{Error, Result},
    kernel::{caller::Caller, clock::time_from_us, permission::Permission, resource, tenancy::TenantTx},
    request::{Json, Path},
};

const SECOND_US: Micros = 1_000_000;
const SPANS_MAX: usize = 1_000;
const TRUE_S_DEFAULT: i32 = 60;
/// Delays that are tried when nobody proposes one, seconds.
const DELAYS_S: [i32; 5] = [0, 5, 15, 30, 60];
/// Deadbands that are tried, in spreads of the readings.
const DEADBANDS: [f64; 4] = [0.0, 0.25, 0.5, 1.0];

/// What is proposed, and on which time it is tried. What is not proposed stays as the rule has it; when nothing is,
/// deadbands and delays are tried until the fewest alarms remain without a true one lost.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SimulationAsked {
    /// Start of the time.
    from_us: Micros,
    /// End of it, at most 92 days later.
    to_us: Micros,
    /// In the tag's unit.
    #[schema(minimum = 0.0)]
    deadband: Option<f64>,
    /// Seconds.
    #[schema(minimum = 0, maximum = 86400)]
    on_delay_s: Option<i32>,
    /// Seconds.
    #[schema(minimum = 0, maximum = 86400)]
    off_delay_s: Option<i32>,
    /// An alarm that stood so long was a true one, as was one with a deviation; 60 s when absent.
    #[schema(minimum = 0, maximum = 86400)]
    true_s: Option<i32>,
}

/// How a rule waits.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, ToSchema)]
pub struct AlarmTuning {
    /// In the tag's unit.
    pub deadband: f64,
    /// Seconds.
    pub on_delay_s: i32,
    /// Seconds.
    pub off_delay_s: i32,
}

/// What a proposal would have done.
#[derive(Debug, Serialize, ToSchema)]
pub struct AlarmSimulation {
    /// As the rule is.
    present: AlarmTuning,
    /// As it would be.
    proposed: AlarmTuning,
    /// Readings it was tried on.
    readings: usize,
    /// Alarms as the rule is.
    alarms: usize,
    /// True ones among them.
    true_alarms: usize,
    /// Alarms that would remain.
    remaining: usize,
    /// True ones that would be lost, at most 1000.
    lost: Vec<AnomalySpan>,
    /// The longest that a true one would come later, seconds.
    later_s_max: f64,
}

/// Tries another deadband or other delays on history.
#[utoipa::path(post, path = "/sensors/alerts/{id}/simulate", operation_id = "simulate_alarm_rule", tag = TAG, security(("bearer" = ["alarm.read"])),
    params(("id" = Uuid, Path, description = "Rule")), request_body = SimulationAsked,
    responses((status = 200, description = "What it would have done", body = AlarmSimulation)))]
pub async fn simulate_alarm_rule(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<Uuid>,
    Json(asked): Json<SimulationAsked>,
) -> Result<Answer<AlarmSimulation>> {
    let mut tx = caller.begin(&app, Permission::AlarmRead).await?;
    let rule: AlarmRule = resource::read(&mut tx, id).await?;
    let (spec, model) = as_it_is(&mut tx, &app, id, rule).await?;
    let readings = inputs(&mut tx, &spec, (asked.from_us, asked.to_us)).await?;
    let deviations = deviations(&mut tx, &spec, (asked.from_us, asked.to_us)).await?;
    drop(tx);
    let present = tuning(&spec);
    let proposed = proposal(&asked, present)?;
    let true_us = Micros::from(asked.true_s.unwrap_or(TRUE_S_DEFAULT)) * SECOND_US;
    let trial = Trial {
        spec,
        model,
        readings,
        deviations,
        from_us: asked.from_us,
        to_us: asked.to_us,
        true_us,
    };
    let made = spawn_blocking(move || trial.run(present, proposed))
        .await
        .map_err(|source| Error::Internal(source.into()))?;
    Ok(Answer(made))
}

fn tuning(spec: &Spec) -> AlarmTuning {
    AlarmTuning {
        deadband: spec.band.deadband,
        on_delay_s: (spec.on_delay_us / SECOND_US) as i32,
        off_delay_s: (spec.off_delay_us / SECOND_US) as i32,
    }
}

/// What is proposed; none when nothing is.
fn proposal(asked: &SimulationAsked, present: AlarmTuning) -> Result<Option<AlarmTuning>> {
    if asked.deadband.is_some_and(|band| !band.is_finite() || band < 0.0) {
        return Err(Error::Invalid("`deadband` must be 0 or more".to_owned()));
    }
    let delays = [asked.on_delay_s, asked.off_delay_s, asked.true_s];
    if delays
        .into_iter()
        .flatten()
        .any(|delay| !(0..=86_400).contains(&delay))
    {
        return Err(Error::Invalid("a delay is 0 to 86400 seconds".to_owned()));
    }
    let is_none = asked.deadband.is_none() && asked.on_delay_s.is_none() && asked.off_delay_s.is_none();
    Ok((!is_none).then(|| AlarmTuning {
        deadband: asked.deadband.unwrap_or(present.deadband),
        on_delay_s: asked.on_delay_s.unwrap_or(present.on_delay_s),
        off_delay_s: asked.off_delay_s.unwrap_or(present.off_delay_s),
    }))
}

/// How a rule judges now, and its newest model.
async fn as_it_is(tx: &mut TenantTx, app: &App, id: Uuid, rule: AlarmRule) -> Result<(Spec, Option<Model>)> {
    let rule = AlarmRule {
        is_enabled: true,
        ..rule
    };
    let names = Names::load(tx, std::iter::once(&rule)).await?;
    let spec = names
        .spec(&rule)
        .ok_or_else(|| Error::Conflict("a tag of this rule is not known".to_owned()))?;
    // Noting a version is undone with the transaction.
    let mut loaded: Vec<Loaded> = load(tx, &[id], app.clock.now_us(), &Models::default()).await?;
    let model = loaded
        .pop()
        .and_then(|mut loaded| loaded.timeline.models.pop())
        .map(|(_, _, model)| model.as_ref().clone());
    if spec.kind.is_trained() && model.is_none() {
        return Err(Error::Conflict(
            "train this rule first: it does not know what is normal".to_owned(),
        ));
    }
    Ok((spec, model))
}

/// Open at either end.
type Window = (Option<DateTime<Utc>>, Option<DateTime<Utc>>);

async fn deviations(
    tx: &mut TenantTx,
    spec: &Spec,
    (from_us, to_us): (Micros, Micros),
) -> Result<Vec<(Micros, Micros)>> {
    let rows: Vec<Window> = sqlx::query_as(
        "SELECT lower(d.suspect), upper(d.suspect) FROM deviation d JOIN ccp c ON c.id = d.ccp_id \
         JOIN tag t ON t.name = c.tag_name WHERE t.id = ANY($1) AND d.suspect && tstzrange($2, $3)",
    )
    .bind(&spec.tags)
    .bind(time_from_us(from_us))
    .bind(time_from_us(to_us))
    .fetch_all(tx.conn())
    .await?;
    let us = |at: Option<DateTime<Utc>>, open: Micros| at.map_or(open, |at| at.timestamp_micros());
    Ok(rows
        .into_iter()
        .map(|(from, to)| (us(from, from_us), us(to, to_us)))
        .collect())
}

struct Trial {
    spec: Spec,
    model: Option<Model>,
    readings: Vec<Input>,
    deviations: Vec<(Micros, Micros)>,
    from_us: Micros,
    to_us: Micros,
    true_us: Micros,
}

impl Trial {
    fn run(&self, present: AlarmTuning, proposed: Option<AlarmTuning>) -> AlarmSimulation {
        let before = self.spans(present);
        let real: Vec<&AnomalySpan> = before.iter().filter(|span| self.is_true(span)).collect();
        let proposed = proposed.unwrap_or_else(|| self.suggest(present, &real));
        let after = self.spans(proposed);
        let mut lost: Vec<AnomalySpan> = real
            .iter()
            .filter(|span| self.found_in(span, &after).is_none())
            .map(|span| (*span).clone())
            .collect();
        lost.truncate(SPANS_MAX);
        let later = real
            .iter()
            .filter_map(|span| Some(self.found_in(span, &after)?.from_us - span.from_us));
        AlarmSimulation {
            present,
            proposed,
            readings: self.readings.len(),
            alarms: before.len(),
            true_alarms: real.len(),
            remaining: after.len(),
            later_s_max: later.max().unwrap_or(0).max(0) as f64 / 1e6,
            lost,
        }
    }

    fn spans(&self, tuning: AlarmTuning) -> Vec<AnomalySpan> {
        let spec = Spec {
            band: AlarmBand {
                deadband: tuning.deadband,
                ..self.spec.band
            },
            on_delay_us: Micros::from(tuning.on_delay_s) * SECOND_US,
            off_delay_us: Micros::from(tuning.off_delay_s) * SECOND_US,
            ..self.spec.clone()
        };
        spans(&spec, self.model.as_ref(), &self.readings, self.from_us)
    }

    fn end_of(&self, span: &AnomalySpan) -> Micros {
        span.to_us.unwrap_or(self.to_us)
    }

    fn is_true(&self, span: &AnomalySpan) -> bool {
        let end_us = self.end_of(span);
        let is_deviation = |(from_us, to_us): &(Micros, Micros)| *from_us <= end_us && span.from_us <= *to_us;
        end_us - span.from_us >= self.true_us || self.deviations.iter().any(is_deviation)
    }

    /// The alarm that would have told of it: one that stands at some time while it did.
    fn found_in<'s>(&self, span: &AnomalySpan, after: &'s [AnomalySpan]) -> Option<&'s AnomalySpan> {
        let end_us = self.end_of(span);
        after
            .iter()
            .find(|it| it.from_us <= end_us && span.from_us <= self.end_of(it))
    }

    /// The tuning with the fewest alarms that loses no true one; of equal ones the shortest delays.
    fn suggest(&self, present: AlarmTuning, real: &[&AnomalySpan]) -> AlarmTuning {
        let spread = spread(
            &self.readings,
            self.spec.tags.first().copied().unwrap_or_default(),
        );
        let bands = DEADBANDS.map(|share| (share * spread).max(present.deadband));
        let bands = if has_band(self.spec.kind) {
            &bands[..]
        } else {
            &bands[..1]
        };
        let mut best = (present, self.spans(present).len());
        for deadband in bands {
            for on_delay_s in DELAYS_S {
                for off_delay_s in DELAYS_S {
                    let tried = AlarmTuning {
                        deadband: *deadband,
                        on_delay_s: on_delay_s.max(present.on_delay_s),
                        off_delay_s: off_delay_s.max(present.off_delay_s),
                    };
                    let after = self.spans(tried);
                    let loses = real.iter().any(|span| self.found_in(span, &after).is_none());
                    if !loses && after.len() < best.1 {
                        best = (tried, after.len());
                    }
                }
            }
        }
        best.0
    }
}

/// Standard deviation of the differences between readings: the noise, whatever the level does.
fn spread(readings: &[Input], tag_id: i32) -> f64 {
    let values: Vec<f64> = readings
        .iter()
        .filter(|it| it.tag_id == tag_id)
        .filter_map(|it| it.value)
        .collect();
    let ranges: Vec<f64> = values.windows(2).map(|pair| (pair[1] - pair[0]).abs()).collect();
    ranges.iter().sum::<f64>() / ranges.len().max(1) as f64 / 1.128
}

// === detection without a rule ===

/// How to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DetectionMethod {
    /// Outside `low` and `high`.
    Threshold,
    /// Far from the mean.
    Zscore,
    /// Far from the median.
    Mad,
    /// Drifting: cumulated sum.
    Cusum,
    /// Drifting: exponentially weighted mean.
    Ewma,
    /// The tags together are unusual.
    IsolationForest,
}

impl DetectionMethod {
    fn kind(self) -> Kind {
        match self {
            Self::Threshold => Kind::Threshold,
            Self::Zscore => Kind::ZScore,
            Self::Mad => Kind::Mad,
            Self::Cusum => Kind::Cusum,
            Self::Ewma => Kind::Ewma,
            Self::IsolationForest => Kind::IsolationForest,
        }
    }

    fn score_max(self) -> f64 {
        match self {
            Self::Threshold | Self::Zscore | Self::Mad => 6.0,
            Self::Cusum => 5.0,
            Self::Ewma => 2.814,
            Self::IsolationForest => 0.65,
        }
    }
}

/// Where and how to look.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DetectionAsked {
    /// How.
    method: DetectionMethod,
    /// 1 to 16 tags; the first is judged, the others belong to its asset.
    #[schema(min_items = 1, max_items = 16)]
    tag_ids: Vec<i32>,
    /// Start of the time.
    from_us: Micros,
    /// End of it, at most 92 days later.
    to_us: Micros,
    /// What is normal is learnt from here on; from all of the time when absent.
    train_from_us: Option<Micros>,
    /// To here.
    train_to_us: Option<Micros>,
    /// Alarming below this.
    low: Option<f64>,
    /// Alarming above this.
    high: Option<f64>,
    /// Length of a block, 1 to 86400 s; 60 when absent.
    #[schema(minimum = 1, maximum = 86400)]
    window_s: Option<i32>,
    /// Largest score that is normal.
    score_max: Option<f64>,
}

/// What was found.
#[derive(Debug, Serialize, ToSchema)]
pub struct Detection {
    /// Readings that were looked at.
    readings: usize,
    /// What was taken for normal.
    #[schema(value_type = Object)]
    model: Option<serde_json::Value>,
    /// When it was not, at most 1000.
    anomalies: Vec<AnomalySpan>,
}

/// Looks for anomalies in history. Nothing is stored.
#[utoipa::path(post, path = "/sensors/anomalies/detect", operation_id = "detect_anomalies", tag = TAG, security(("bearer" = ["reading.read"])),
    request_body = DetectionAsked, responses((status = 200, description = "What was found", body = Detection)))]
pub async fn detect_anomalies(
    State(app): State<App>,
    caller: Caller,
    Json(asked): Json<DetectionAsked>,
) -> Result<Answer<Detection>> {
    let mut tx = caller.begin(&app, Permission::ReadingRead).await?;
    let spec = asked_spec(&asked)?;
    let known: i64 = sqlx::query_scalar("SELECT count(*) FROM tag WHERE id = ANY($1)")
        .bind(&spec.tags)
        .fetch_one(tx.conn())
        .await?;
    if known != spec.tags.len() as i64 {
        return Err(Error::NotFound { entity: "tag" });
    }
    let readings = inputs(&mut tx, &spec, (asked.from_us, asked.to_us)).await?;
    let training = match (asked.train_from_us, asked.train_to_us) {
        (None, None) => readings.clone(),
        (Some(from_us), Some(to_us)) => inputs(&mut tx, &spec, (from_us, to_us)).await?,
        _ => {
            return Err(Error::Invalid(
                "`train_from_us` and `train_to_us` are given together".to_owned(),
            ));
        }
    };
    drop(tx);
    let from_us = asked.from_us;
    let made = spawn_blocking(move || {
        let model = learn(&spec, Zone::default(), &training, 0)?.map(|(model, _)| model);
        let mut anomalies = spans(&spec, model.as_ref(), &readings, from_us);
        anomalies.truncate(SPANS_MAX);
        Ok::<_, Error>(Detection {
            readings: readings.len(),
            model: model.map(|model| model.about()),
            anomalies,
        })
    });
    Ok(Answer(
        made.await.map_err(|source| Error::Internal(source.into()))??,
    ))
}

fn asked_spec(asked: &DetectionAsked) -> Result<Spec> {
    let mut tags: Vec<i32> = Vec::new();
    for tag in &asked.tag_ids {
        if !tags.contains(tag) {
            tags.push(*tag);
        }
    }
    if !(1..=16).contains(&tags.len()) {
        return Err(Error::Invalid("`tag_ids` names 1 to 16 tags".to_owned()));
    }
    let window_s = asked.window_s.unwrap_or(60);
    if !(1..=86_400).contains(&window_s) {
        return Err(Error::Invalid("`window_s` must be 1 to 86400".to_owned()));
    }
    let kind = asked.method.kind();
    if kind == Kind::Threshold && asked.low.is_none() && asked.high.is_none() {
        return Err(Error::Invalid("a threshold needs `low` or `high`".to_owned()));
    }
    if kind != Kind::IsolationForest {
        tags.truncate(1);
    }
    Ok(Spec {
        kind,
        band: AlarmBand {
            low: asked.low,
            high: asked.high,
            deadband: 0.0,
        },
        on_delay_us: 0,
        off_delay_us: 0,
        window_us: Micros::from(window_s) * SECOND_US,
        score_max: asked.score_max.unwrap_or_else(|| asked.method.score_max()),
        is_seasonal: false,
        tags,
        running_tag: None,
    })
}

#[cfg(test)]
mod tests {
    use protocol::Quality;

    use super::*;

    /// A level that hovers about its limit for an hour, and once is truly over it.
    fn trial() -> Trial {
        let readings = (0..3_600_i64).map(|second| {
            let hover = if second % 20 < 3 { 0.2 } else { -0.2 };
            let value = if (2_000..2_200).contains(&second) {
                6.0
            } else {
                5.0 + hover
            };
            Input {
                tag_id: 1,
                time_us: second * SECOND_US,
                value: Some(value),
                quality: Quality::GOOD,
            }
        });
        Trial {
            spec: Spec {
                kind: Kind::Threshold,
                band: AlarmBand {
                    low: None,
                    high: Some(5.0),
                    deadband: 0.0,
                },
                on_delay_us: 0,
                off_delay_us: 0,
                window_us: 60 * SECOND_US,
                score_max: 6.0,
                is_seasonal: false,
                tags: vec![1],
                running_tag: None,
            },
            model: None,
            readings: readings.collect(),
            deviations: vec![],
            from_us: 0,
            to_us: 3_600 * SECOND_US,
            true_us: 60 * SECOND_US,
        }
    }

    #[test]
    fn a_delay_is_suggested_that_leaves_the_true_alarm_alone() {
        let trial = trial();
        let made = trial.run(tuning(&trial.spec), None);
        assert!(made.alarms > 150 && made.true_alarms == 1, "{made:?}");
        assert_eq!((made.remaining, made.lost.len()), (1, 0), "{made:?}");
        assert!(made.later_s_max <= 60.0);
    }

    #[test]
    fn a_delay_that_hides_the_true_alarm_says_which_one() {
        let trial = trial();
        let long = AlarmTuning {
            deadband: 0.0,
            on_delay_s: 600,
            off_delay_s: 0,
        };
        let made = trial.run(tuning(&trial.spec), Some(long));
        assert_eq!((made.remaining, made.lost.len()), (0, 1));
        assert!(
            (1_999..=2_001).contains(&(made.lost[0].from_us / SECOND_US)),
            "{:?}",
            made.lost
        );
    }
}
