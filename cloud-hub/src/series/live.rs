//! What does a live page hear? One stream of server-sent events a browser: samples at most once a second with
//! the newest value of each tag, deviations and holds never dropped, a heartbeat every five seconds.
//! A stream that broke resumes by its last event id within ten minutes; otherwise it is told to start over. So is
//! a reader that is too slow: its stream ends with an id from which nothing that matters is missing.
//! Who works on some lines hears of those only, and who is no longer let in hears nothing more. What other hubs commit
//! is heard too (`relay`, `elsewhere`).

use std::{
    collections::{BTreeMap, BTreeSet, HashSet, VecDeque},
    convert::Infallible,
    sync::Arc,
    time::Duration,
};

use axum::{
    Extension,
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue},
    response::{IntoResponse, Response, Sse, sse::Event},
};
use protocol::lane::Lane;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{
    sync::{OwnedSemaphorePermit, broadcast, mpsc},
    time::{Instant, interval, interval_at, sleep_until, timeout},
};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use utoipa::IntoParams;
use uuid::Uuid;

use super::{
    bus::{LiveEvent, LiveKind, Sample, Watching},
    feed::Feed,
};
use crate::{
    app::App,
    error::{Error, Result},
    kernel::{
        caller::{Caller, bearer},
        permission::Permission,
        scope::{Grants, Scope},
    },
    request::Query,
};

/// Events that the socket has not taken yet, and those that wait behind them before we give up.
const QUEUE_EVENTS: usize = 8;
const WAITING_MAX: usize = 64;
/// Missed events that a stream is told when it resumes; more, and it starts over.
const REPLAY_MAX: usize = 1_000;
const SAMPLES_EVERY: Duration = Duration::from_secs(1);
const HEARTBEAT_EVERY: Duration = Duration::from_secs(5);
/// How soon an open stream notices that its caller was suspended, or works on other lines now.
const SIGHT_EVERY: Duration = Duration::from_secs(10);
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(5);
const TAGS_MAX: usize = 500;
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

const FLAG_LATE: u8 = 1;
/// A sample that comes later than this was waiting somewhere; a live frame re-sent after an outage is late too.
const LATE_US: i64 = 5_000_000;
const FLAG_SIMULATED: u8 = 2;

// === what one stream asked for ===

/// What to hear.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct LiveQuery {
    /// Of `lines,alarms,samples`; all when absent.
    topics: Option<String>,
    /// Numbers of the tags whose samples are wanted, separated by commas; all when absent.
    tags: Option<String>,
    /// The bearer token, for clients that cannot set a header.
    access_token: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Wanted {
    lines: bool,
    alarms: bool,
    samples: bool,
    /// Empty means every tag.
    tags: HashSet<i32>,
}

impl Wanted {
    fn parse(topics: Option<&str>, tags: Option<&str>) -> Result<Self> {
        let mut wanted = Self {
            lines: false,
            alarms: false,
            samples: false,
            tags: HashSet::new(),
        };
        for topic in topics.unwrap_or("lines,alarms,samples").split(',').map(str::trim) {
            match topic {
                "lines" => wanted.lines = true,
                "alarms" => wanted.alarms = true,
                "samples" => wanted.samples = true,
                other => {
                    return Err(Error::Invalid(format!(
                        "`{other}` is no topic of lines, alarms, samples"
                    )));
                }
            }
        }
        for tag in tags
            .unwrap_or_default()
            .split(',')
            .map(str::trim)
            .filter(|tag| !tag.is_empty())
        {
            let id = tag
                .parse()
                .map_err(|_| Error::Invalid(format!("`{tag}` is no tag number")))?;
            wanted.tags.insert(id);
        }
        if wanted.tags.len() > TAGS_MAX {
            return Err(Error::Invalid(format!(
                "at most {TAGS_MAX} tags may be asked for"
            )));
        }
        Ok(wanted)
    }

    /// The event's name and data, if it is wanted and no sample.
    fn notice(&self, kind: &LiveKind) -> Option<(&'static str, Value)> {
        match kind {
            LiveKind::Deviation { id, version } if self.alarms => {
                Some(("deviation", json!({ "id": id, "version": version })))
            }
            LiveKind::Hold { id, version } if self.alarms => {
                Some(("hold", json!({ "id": id, "version": version })))
            }
            LiveKind::Alarm { alarm, .. } if self.alarms => Some(("alarm", (**alarm).clone())),
            LiveKind::Defect { id } if self.alarms => Some(("defect", json!({ "id": id }))),
            LiveKind::Edge { name } => Some(("edge", json!({ "name": name }))),
            LiveKind::Line { id } if self.lines => Some(("line", json!({ "id": id }))),
            LiveKind::Missed => Some((
                "resync",
                json!({ "reason": "other hubs were not heard for a while" }),
            )),
            _ => None,
        }
    }
}

/// Opens the live stream.
#[utoipa::path(get, path = "/live", operation_id = "open_live", tag = "live", security(("bearer" = ["live.read"])), params(LiveQuery),
    responses((status = 200, description = "hello, heartbeat, samples, alarm, deviation, hold, defect, edge, line, resync",
        body = String, content_type = "text/event-stream")))]
pub async fn open_live(
    State(app): State<App>,
    Extension(feed): Extension<Arc<Feed>>,
    headers: HeaderMap,
    Query(query): Query<LiveQuery>,
) -> Result<Response> {
    let token = bearer(&headers).or(query.access_token.as_deref());
    let caller = Caller::from_credential(
        token.ok_or(Error::Unauthenticated("a bearer token is needed"))?,
        &app,
    )?;
    let (sight, grants) = look(&app, &caller).await?;
    let wanted = Wanted::parse(query.topics.as_deref(), query.tags.as_deref())?;
    let permit = feed
        .admit()
        .ok_or_else(|| Error::Unavailable(anyhow::anyhow!("too many live streams")))?;
    let last_id = headers
        .get(LAST_EVENT_ID)
        .and_then(|id| id.to_str().ok())
        .map(str::to_owned);
    let (sender, receiver) = mpsc::channel(QUEUE_EVENTS);
    let bus = app.live.subscribe();
    let app_cursor = app.live.cursor().saturating_sub(1);
    let watching = wanted
        .samples
        .then(|| app.live.watch(&caller.tenant, &wanted.tags));
    let mut listener = Listener {
        cursor: app_cursor,
        app,
        feed,
        caller,
        grants,
        sight,
        wanted,
        replayed: HashSet::new(),
        waiting: VecDeque::new(),
        given: app_cursor,
        replaying: 0,
        seq: 0,
        samples: BTreeMap::new(),
        _permit: permit,
        _watching: watching,
    };
    listener.greet(last_id.as_deref()).await;
    tokio::spawn(listener.run(bus, sender));
    let mut response = Sse::new(ReceiverStream::new(receiver).map(Ok::<_, Infallible>)).into_response();
    // A buffering proxy would turn the stream into a download.
    response
        .headers_mut()
        .insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

// === what its caller may see ===

/// What a stream may tell.
#[derive(Debug, PartialEq, Eq)]
enum Sight {
    Everything,
    /// Of these lines, and of what belongs to no line.
    Lines {
        lines: BTreeSet<Uuid>,
        tags: HashSet<i32>,
    },
}

impl Sight {
    fn has_tag(&self, id: i32) -> bool {
        match self {
            Self::Everything => true,
            Self::Lines { tags, .. } => tags.contains(&id),
        }
    }
}

/// Asks the database whether the caller may listen, and to what.
async fn look(app: &App, caller: &Caller) -> Result<(Sight, Grants)> {
    let (mut tx, grants) = caller.begin_granted(app, Permission::LiveRead).await?;
    let sight = match grants.scope(Permission::LiveRead) {
        Some(Scope::Lines(lines)) => {
            let tags: Vec<i32> = sqlx::query_scalar("SELECT id FROM tag")
                .fetch_all(tx.conn())
                .await?;
            Sight::Lines {
                lines,
                tags: tags.into_iter().collect(),
            }
        }
        _ => Sight::Everything,
    };
    Ok((sight, grants))
}

/// Whether a notice is about something that a caller of some lines sees: its row's own policy decides.
async fn is_seen(app: &App, caller: &Caller, lines: &BTreeSet<Uuid>, kind: &LiveKind) -> Result<bool> {
    let (sql, id) = match kind {
        LiveKind::Deviation { id, .. } => ("SELECT EXISTS (SELECT FROM deviation WHERE id = $1)", id),
        LiveKind::Hold { id, .. } => ("SELECT EXISTS (SELECT FROM hold WHERE id = $1)", id),
        LiveKind::Defect { id } => ("SELECT EXISTS (SELECT FROM vision_result WHERE id = $1)", id),
        LiveKind::Line { id } => return Ok(lines.contains(id)),
        LiveKind::Alarm { line_id, .. } => {
            return Ok(line_id.is_none_or(|line_id| lines.contains(&line_id)));
        }
        LiveKind::Edge { .. } | LiveKind::Samples { .. } | LiveKind::Missed => return Ok(true),
    };
    let mut tx = caller.begin(app, Permission::LiveRead).await?;
    Ok(sqlx::query_scalar(sql).bind(id).fetch_one(tx.conn()).await?)
}

// === one stream ===

struct Listener {
    app: App,
    feed: Arc<Feed>,
    caller: Caller,
    grants: Grants,
    sight: Sight,
    wanted: Wanted,
    /// The newest event that this stream has seen.
    cursor: u64,
    /// Events told by the replay that the bus may tell again.
    replayed: HashSet<u64>,
    /// What must not be lost, in order, each with its cursor.
    waiting: VecDeque<(u64, Event)>,
    /// The cursor of the last event that the socket was given: who is closed for being slow resumes after it.
    given: u64,
    /// Events of the replay that the socket has still to take: they do not count as waiting.
    replaying: usize,
    /// Counts what samples were sent.
    seq: u64,
    /// The newest value of each tag since samples were last sent.
    samples: BTreeMap<i32, (Sample, u8)>,
    _permit: OwnedSemaphorePermit,
    _watching: Option<Watching>,
}

impl Listener {
    fn event(&self, name: &str, data: &Value) -> Event {
        Event::default()
            .event(name)
            .id(self.feed.id(self.cursor))
            .data(data.to_string())
    }

    fn tell(&mut self, name: &str, data: &Value) {
        let event = self.event(name, data);
        self.waiting.push_back((self.cursor, event));
    }

    /// Says hello, then what was missed since `last_id` or that it cannot be said.
    async fn greet(&mut self, last_id: Option<&str>) {
        let now = self.cursor;
        let missed = match last_id {
            Some(id) => Some(self.feed.missed_since(id, &self.caller.tenant, now).await),
            None => None,
        };
        let hello = json!({
            "server_now_us": self.app.clock.now_us(), "tenant": self.caller.tenant.as_str(),
            "can": self.grants.permissions(), "cursor": self.feed.id(now), "schema": 1,
        });
        self.tell("hello", &hello);
        match missed {
            None => {}
            Some(Some(events)) if events.len() <= REPLAY_MAX => {
                self.replaying = events.len();
                for event in events {
                    self.replayed.insert(event.cursor);
                    self.take(&event).await;
                }
            }
            Some(_) => self.tell(
                "resync",
                &json!({ "reason": "the events since your last one are gone" }),
            ),
        }
        self.cursor = self.cursor.max(now);
    }

    async fn take(&mut self, event: &LiveEvent) {
        self.cursor = self.cursor.max(event.cursor);
        if let LiveKind::Samples { lane, samples } = &event.kind {
            if self.wanted.samples {
                self.keep(*lane, samples);
            }
        } else if let Some((name, data)) = self.wanted.notice(&event.kind) {
            let seen = match &self.sight {
                Sight::Everything => Ok(true),
                Sight::Lines { lines, .. } => is_seen(&self.app, &self.caller, lines, &event.kind).await,
            };
            match seen {
                Ok(true) => self.tell(name, &data),
                Ok(false) => {}
                // It may have been theirs: let them ask.
                Err(_) => self.tell("resync", &json!({ "reason": "an event could not be looked at" })),
            }
        }
    }

    /// Looks again at what the caller may see; false when that is nothing any more. While the database is away the
    /// last answer stands.
    async fn look_again(&mut self) -> bool {
        match look(&self.app, &self.caller).await {
            Ok((sight, grants)) => {
                (self.sight, self.grants) = (sight, grants);
                true
            }
            Err(error) => matches!(error, Error::Unavailable(_) | Error::Internal(_)),
        }
    }

    fn keep(&mut self, lane: Lane, samples: &[Sample]) {
        for sample in samples {
            let is_wanted = self.wanted.tags.is_empty() || self.wanted.tags.contains(&sample.tag_id);
            if !is_wanted || !self.sight.has_tag(sample.tag_id) {
                continue;
            }
            let age_us = self.app.clock.now_us() - sample.time_us;
            let late = if lane == Lane::Backfill || age_us > LATE_US {
                FLAG_LATE
            } else {
                0
            };
            let flags = late | if sample.simulated { FLAG_SIMULATED } else { 0 };
            let kept = self.samples.entry(sample.tag_id).or_insert((*sample, flags));
            if kept.0.time_us <= sample.time_us {
                *kept = (*sample, flags);
            }
        }
    }

    async fn run(mut self, mut bus: broadcast::Receiver<Arc<LiveEvent>>, sender: mpsc::Sender<Event>) {
        let (mut samples_due, mut heartbeat_due) = (interval(SAMPLES_EVERY), interval(HEARTBEAT_EVERY));
        let mut look_due = interval_at(Instant::now() + SIGHT_EVERY, SIGHT_EVERY);
        // The first one follows the hello at once: a page need not wait to know how old its data is.
        let first = self.heartbeat().await;
        self.tell("heartbeat", &first);
        let valid_us = (self.caller.expires_us - self.app.clock.now_us()).max(0);
        let expires = Instant::now() + Duration::from_micros(valid_us as u64);
        while self.waiting.len() < WAITING_MAX + self.replaying {
            tokio::select! {
                () = sender.closed() => return,
                () = self.feed.stop().cancelled() => return,
                () = sleep_until(expires) => return,
                permit = sender.reserve(), if !self.waiting.is_empty() => {
                    let (Ok(permit), Some((cursor, event))) = (permit, self.waiting.pop_front()) else { return };
                    self.given = cursor;
                    self.replaying = self.replaying.saturating_sub(1);
                    permit.send(event);
                }
                event = bus.recv() => match event {
                    Ok(event) => {
                        if event.tenant == self.caller.tenant && !self.replayed.remove(&event.cursor) {
                            self.take(&event).await;
                        }
                    }
                    Err(broadcast::error::RecvError::Lagged(missed)) => {
                        self.tell("resync", &json!({ "reason": format!("{missed} events were missed") }));
                    }
                    Err(broadcast::error::RecvError::Closed) => return,
                },
                _ = samples_due.tick() => self.offer_samples(&sender),
                _ = heartbeat_due.tick() => self.offer_heartbeat(&sender).await,
                _ = look_due.tick() => if !self.look_again().await { return },
            }
        }
        // What waited was not lost: who comes back with this id is told it.
        self.cursor = self.given;
        let slow = self.event(
            "resync",
            &json!({ "reason": "you read too slowly", "resume": self.feed.id(self.given) }),
        );
        if !matches!(timeout(GOODBYE_TIMEOUT, sender.send(slow)).await, Ok(Ok(()))) {
            tracing::debug!("a live stream was closed before its reader caught up");
        }
    }

    /// Samples go only when nothing more important waits; what cannot go now is overwritten by newer values.
    fn offer_samples(&mut self, sender: &mpsc::Sender<Event>) {
        if self.samples.is_empty() || !self.waiting.is_empty() {
            return;
        }
        let row = |(sample, flags): &(Sample, u8)| {
            json!([sample.tag_id, sample.time_us, sample.value, sample.quality, flags])
        };
        let values: Vec<_> = self.samples.values().map(row).collect();
        let event = self.event(
            "samples",
            &json!({ "seq": self.seq, "t_hub_us": self.app.clock.now_us(), "v": values }),
        );
        if sender.try_send(event).is_ok() {
            (self.given, self.seq) = (self.cursor, self.seq + 1);
            self.samples.clear();
        }
    }

    async fn heartbeat(&self) -> Value {
        let edges = self.feed.edges(&self.app, &self.caller.tenant).await;
        json!({ "server_now_us": self.app.clock.now_us(), "edges": *edges })
    }

    async fn offer_heartbeat(&mut self, sender: &mpsc::Sender<Event>) {
        if !self.waiting.is_empty() {
            return;
        }
        let said = self.heartbeat().await;
        if sender.try_send(self.event("heartbeat", &said)).is_ok() {
            self.given = self.cursor;
        } else {
            tracing::debug!("a live stream has no room for a heartbeat");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_topics_and_tags_are_refused() {
        assert!(Wanted::parse(Some("lines,alarm"), None).is_err());
        assert!(Wanted::parse(None, Some("1,x")).is_err());
        let wanted = Wanted::parse(Some("samples"), Some("1, 2,")).unwrap();
        assert!(wanted.samples && !wanted.lines && !wanted.alarms);
        assert_eq!(wanted.tags, HashSet::from([1, 2]));
    }
}
