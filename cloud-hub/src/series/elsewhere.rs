//! What did other hubs ingest? The newest value of each tag that somebody looks at here is asked for once a second, while
//! other hubs are there. What this hub ingests itself is told at once and not a second time.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use chrono::{DateTime, Utc};
use protocol::{Micros, lane::Lane};
use tokio::{
    sync::broadcast::error::RecvError,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use super::bus::{LiveEvent, LiveKind, Sample};
use crate::{
    app::App,
    kernel::tenancy::{TenancyError, TenantSlug},
};

const TURN: Duration = Duration::from_secs(1);
/// What was stored just before somebody began to look is told.
const JUST_US: Micros = 3_000_000;

/// Whether a tag's newest reading says what was not told: it is newer, or a correction, which has the same time.
fn is_news(sample: &Sample, told: Option<&Sample>) -> bool {
    told.is_none_or(|told| {
        let is_same =
            sample.value.map(f64::to_bits) == told.value.map(f64::to_bits) && sample.quality == told.quality;
        sample.time_us > told.time_us || sample.time_us == told.time_us && !is_same
    })
}

/// What was told of one tag.
#[derive(Clone, Copy, Debug)]
struct Told {
    /// The newest that was told; none: nothing yet.
    newest: Option<Sample>,
    /// It stood by the last turn, and this hub did not tell it since.
    seen: Option<Sample>,
    /// Another hub ingests it.
    is_elsewhere: bool,
}

impl Told {
    fn up_to(newest: Option<Sample>) -> Self {
        Self {
            newest,
            seen: None,
            is_elsewhere: false,
        }
    }

    /// This hub told of it.
    fn here(&mut self, sample: Sample) {
        if is_news(&sample, self.newest.as_ref()) {
            self.newest = Some(sample);
        }
        self.is_elsewhere = false;
    }

    /// It is what is stored: whether to tell it. A value that this hub just committed and is about to tell is given a
    /// turn.
    fn stored(&mut self, sample: Sample) -> bool {
        let told = self.newest.as_ref();
        if !is_news(&sample, told) {
            self.seen = None;
            return false;
        }
        self.is_elsewhere |= self.seen.is_some_and(|seen| is_news(&seen, told));
        if self.is_elsewhere {
            (self.newest, self.seen) = (Some(sample), None);
        } else {
            self.seen = Some(sample);
        }
        self.is_elsewhere
    }
}

type Tags = HashMap<i32, Told>;

/// Runs until `stop` is cancelled.
pub async fn run(app: App, stop: CancellationToken) {
    let mut bus = app.live.subscribe();
    let mut turns = interval(TURN);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told: HashMap<TenantSlug, Tags> = HashMap::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            event = bus.recv() => match event {
                Ok(event) => note(&mut told, &event),
                Err(RecvError::Lagged(_)) => told.clear(),
                Err(RecvError::Closed) => return,
            },
            _ = turns.tick() => turn(&app, &mut told).await,
        }
    }
}

fn note(told: &mut HashMap<TenantSlug, Tags>, event: &LiveEvent) {
    let LiveKind::Samples { samples, .. } = &event.kind else {
        return;
    };
    let Some(tags) = told.get_mut(&event.tenant).filter(|_| event.is_here) else {
        return;
    };
    for sample in samples {
        let of_tag = tags.entry(sample.tag_id).or_insert(Told::up_to(None));
        of_tag.here(*sample);
    }
}

async fn turn(app: &App, told: &mut HashMap<TenantSlug, Tags>) {
    let watched = if app.live.is_shared() {
        app.live.watched()
    } else {
        HashMap::new()
    };
    told.retain(|tenant, _| watched.contains_key(tenant));
    for (tenant, tags) in watched {
        match newest(app, &tenant, &tags).await {
            Ok(rows) => tell(app, &tenant, rows, told),
            Err(error) => tracing::debug!(%tenant, %error, "what other hubs ingest is asked for again"),
        }
    }
}

/// A tag's newest reading, and when it was stored.
type Newest = (Sample, Option<Micros>);
type Row = (i32, DateTime<Utc>, Option<f64>, i16, bool, Option<DateTime<Utc>>);

async fn newest(app: &App, tenant: &TenantSlug, tags: &HashSet<i32>) -> Result<Vec<Newest>, TenancyError> {
    let mut tx = app.db.begin(tenant).await?;
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT l.tag_id, l.time, l.value, l.quality, t.is_simulated, l.received_at FROM tag_last l \
         JOIN tag t ON t.id = l.tag_id WHERE cardinality($1::int4[]) = 0 OR l.tag_id = ANY($1)",
    )
    .bind(tags.iter().copied().collect::<Vec<i32>>())
    .fetch_all(tx.conn())
    .await?;
    let newest = |(tag_id, time, value, quality, simulated, received): Row| {
        let sample = Sample {
            tag_id,
            time_us: time.timestamp_micros(),
            value,
            quality: quality.cast_unsigned(),
            simulated,
        };
        (sample, received.map(|at| at.timestamp_micros()))
    };
    Ok(rows.into_iter().map(newest).collect())
}

fn tell(app: &App, tenant: &TenantSlug, rows: Vec<Newest>, told: &mut HashMap<TenantSlug, Tags>) {
    let now_us = app.clock.now_us();
    let tags = told.entry(tenant.clone()).or_default();
    let mut is_news = |(sample, received_us): &Newest| {
        let is_fresh = received_us.is_some_and(|at_us| now_us - at_us < JUST_US);
        let first = || Told::up_to((!is_fresh).then_some(*sample));
        tags.entry(sample.tag_id).or_insert_with(first).stored(*sample)
    };
    let samples: Vec<Sample> = rows
        .into_iter()
        .filter(|row| is_news(row))
        .map(|(sample, _)| sample)
        .collect();
    if !samples.is_empty() {
        let kind = LiveKind::Samples {
            lane: Lane::Live,
            samples,
        };
        app.live.relay(tenant, now_us, kind);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(time_us: Micros, value: f64) -> Sample {
        Sample {
            tag_id: 1,
            time_us,
            value: Some(value),
            quality: 0,
            simulated: false,
        }
    }

    #[test]
    fn what_this_hub_tells_itself_is_not_told_again() {
        let mut told = Told::up_to(Some(at(10, 1.0)));
        assert!(!told.stored(at(10, 1.0)));
        assert!(!told.stored(at(20, 1.0)), "it may be about to tell it");
        told.here(at(20, 1.0));
        for time_us in [20, 30, 40] {
            assert!(!told.stored(at(time_us, 1.0)));
            told.here(at(time_us, 1.0));
        }
    }

    #[test]
    fn what_another_hub_stores_is_told_after_a_turn_and_then_at_once() {
        let mut told = Told::up_to(Some(at(10, 1.0)));
        assert!(!told.stored(at(20, 1.0)));
        assert!(told.stored(at(20, 1.0)));
        assert!(!told.stored(at(20, 1.0)), "once");
        assert!(told.stored(at(30, 1.0)) && told.stored(at(40, 1.0)));
        // Its edge came to this hub.
        told.here(at(50, 1.0));
        assert!(!told.stored(at(60, 1.0)));
        assert!(told.stored(at(70, 1.0)), "and left again");
    }

    #[test]
    fn a_correction_by_another_hub_is_told_once_though_its_time_is_the_same() {
        let mut told = Told::up_to(None);
        told.here(at(10, 1.0));
        assert!(!told.stored(at(10, 2.0)));
        assert!(told.stored(at(10, 2.0)));
        assert!(!told.stored(at(10, 2.0)), "once");
        assert!(
            !told.stored(at(5, 3.0)),
            "an older value is no news of the present"
        );
    }
}
