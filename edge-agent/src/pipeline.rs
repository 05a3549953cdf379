//! What happens to everything that is acquired? Judged, sealed, handed to the spool, in this order and in one
//! place. It never waits for the disk or the uplink: a control point is judged whatever they do.

use std::{sync::Arc, time::Duration};

use protocol::{
    Micros,
    event::{Alarm, ClockStep, Event, Gap, NotRead},
    frame::ClockState,
    limit::CriticalLimit,
    reading::Alias,
    tag::Dictionary,
};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    alarm::{self, Register, skew::SkewWatch},
    ccp::Engine,
    clock,
    health::{Health, SourceState},
    inspect,
    output::Outputs,
    signal::{self, Signals, config::Plan},
    source::Acquired,
    sparkplug::Tap,
    spool::{self, Appender, Batch, Left, Refused, seal::Sealer},
};

/// How often control points are told that time passed.
const TICK_EVERY: Duration = Duration::from_millis(250);
/// How often a frame's age is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Messages handled between two looks at the clock.
const MESSAGES_AT_ONCE: usize = 256;
/// Events kept in memory while the disk refuses.
const EVENTS_WAITING_MAX: usize = 10_000;
/// Why readings are given up before they reach the disk.
const DISK_REFUSES: &str = "disk does not take data";

/// What of the configuration the pipeline goes by.
#[derive(Debug)]
pub struct Rules {
    /// What is made of signals before control points are judged.
    pub signals: Plan,
    /// The sources whose readings bear times of their own, each with its tags.
    pub timed: Vec<(String, Vec<Alias>)>,
    /// Content id of the dictionary; it is on disk.
    pub dictionary: Uuid,
}
/// Gets what became of pushed limits.
type LimitsReply = oneshot::Sender<Result<Vec<CriticalLimit>, String>>;

/// Judges, seals and stores.
#[derive(Debug)]
pub struct Pipeline {
    signals: Signals,
    engine: Engine,
    alarms: Register,
    skew: SkewWatch,
    outputs: Outputs,
    sealer: Sealer,
    appender: Appender,
    health: Arc<Health>,
    /// Events that wait for a frame, oldest first.
    events: Vec<Event>,
    /// What was given up because the spool took nothing.
    lost: Option<Gap>,
    steps: clock::Steps,
    clock: ClockState,
    /// The time in which nothing ran, while the clock is too far back to say how long that was.
    unknown_pause: Option<Pause>,
    /// Who follows what is acquired beside the hub.
    tap: Option<Tap>,
}

/// Since when nothing ran, and when this start was, by a clock that may be wrong.
#[derive(Debug)]
struct Pause {
    dictionary: Dictionary,
    from_us: Micros,
    to_us: Micros,
}

impl Pipeline {
    /// A pipeline that has seen nothing.
    pub fn new(
        (engine, alarms, skew): (Engine, Register, SkewWatch),
        outputs: Outputs,
        sealer: Sealer,
        appender: Appender,
        health: Arc<Health>,
    ) -> Self {
        Self {
            signals: Signals::default(),
            engine,
            alarms,
            skew,
            outputs,
            sealer,
            appender,
            health,
            events: Vec::new(),
            lost: None,
            steps: clock::Steps::default(),
            clock: clock::state(),
            unknown_pause: None,
            tap: None,
        }
    }

    /// Copies everything that is acquired to a tap too.
    #[must_use]
    pub fn with_tap(mut self, tap: Option<Tap>) -> Self {
        self.tap = tap;
        self
    }

    /// With what is made of signals before control points are judged.
    #[must_use]
    pub fn with_signals(mut self, signals: Signals) -> Self {
        self.signals = signals;
        self
    }

    /// Takes up what an earlier start left: control points' states, events that reached only the journal, and the
    /// record of the time in which nothing ran.
    pub fn recover(&mut self, left: Left, dictionary: &Dictionary, now_us: Micros) {
        for (code, state) in &left.store.states {
            let restored = if code.starts_with(signal::STATE_PREFIX) {
                self.signals.restore(code, state).map(|()| Vec::new())
            } else if code == alarm::STATE_KEY {
                self.alarms.restore(state, now_us).map(|()| Vec::new())
            } else {
                self.engine.restore(code, state, now_us)
            };
            match restored {
                Ok(events) => self.events.extend(events),
                Err(reason) => tracing::warn!(%reason, "state not restored"),
            }
        }
        let events = self.alarms.keep_open(&self.engine.deviating(), now_us);
        self.keep(events);
        self.react();
        if let Some(last_us) = left.store.last_sealed_us {
            if now_us < last_us {
                self.unknown_pause = Some(Pause {
                    dictionary: dictionary.clone(),
                    from_us: last_us,
                    to_us: now_us,
                });
            } else {
                self.events.extend(not_running(dictionary, last_us, now_us));
            }
        }
        for path in left.store.set_aside.iter().chain(&left.journal_set_aside) {
            let message = format!("set aside as {}; records in it need a person", path.display());
            let edge = self.health.edge.clone();
            self.note(vec![Event::Alarm(alarm(
                "spool.corrupt",
                &edge,
                &message,
                now_us,
            ))]);
        }
        if !left.unstored.is_empty() {
            // They are in the journal already and must not be written there again.
            let records = self.sealer.seal_events(left.unstored, now_us, self.clock);
            self.hand_over(Batch {
                records,
                states: self.states(),
                journal: Vec::new(),
                sealed_us: now_us,
            });
        }
        self.flush(now_us, false);
    }

    /// Runs until `stop`, then seals what is left.
    pub async fn run(mut self, mut acquired: mpsc::Receiver<Acquired>, stop: CancellationToken) {
        let mut tick = tokio::time::interval(TICK_EVERY);
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut messages = Vec::new();
        loop {
            self.health.beat();
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                _ = tick.tick() => {
                    self.clock = clock::state();
                    let now_us = self.look_at_clock();
                    self.tick(now_us);
                }
                count = acquired.recv_many(&mut messages, MESSAGES_AT_ONCE) => {
                    if count == 0 {
                        break;
                    }
                    // After the messages came: a step that their times show is seen before they are judged.
                    let now_us = self.look_at_clock();
                    messages.drain(..).for_each(|message| self.take(message, now_us));
                }
                _ = look.tick() => {}
            }
            self.flush(clock::now_us(), false);
        }
        // Sources have stopped; what they handed over still counts.
        let now_us = self.look_at_clock();
        while let Ok(message) = acquired.try_recv() {
            self.take(message, now_us);
        }
        self.sealer.push(self.signals.drain(), now_us);
        self.flush(clock::now_us(), true);
    }

    fn look_at_clock(&mut self) -> Micros {
        let now_us = clock::now_us();
        if let Some(step) = self.steps.look(now_us, clock::since_boot(), self.clock.synced) {
            self.clock_stepped(step);
        }
        now_us
    }

    /// Control points are judged on when the clock is set: waiting until it is where it was would be a silence that
    /// nobody notices, and an hour that never passed is no monitoring gap.
    fn clock_stepped(&mut self, step: ClockStep) {
        self.engine.set_back(-step.by_us);
        self.alarms.set_back(-step.by_us);
        self.signals.set_back(-step.by_us);
        let way = if step.by_us < 0 { "back" } else { "forward" };
        let message = format!(
            "the clock was set {way} by {:.1} s",
            step.by_us.abs() as f64 / 1e6
        );
        let code = format!("clock.set_{way}");
        let edge = self.health.edge.clone();
        if let Some(pause) = self
            .unknown_pause
            .take_if(|pause| pause.to_us + step.correction_us > pause.from_us)
        {
            let to_us = pause.to_us + step.correction_us;
            self.events
                .extend(not_running(&pause.dictionary, pause.from_us, to_us));
        }
        let at_us = step.at_us;
        self.note(vec![
            Event::ClockStep(step),
            Event::Alarm(alarm(&code, &edge, &message, at_us)),
        ]);
    }

    fn take(&mut self, acquired: Acquired, now_us: Micros) {
        match acquired {
            Acquired::Readings {
                mut readings,
                received_us,
            } => {
                // Later than now: received before the clock was set back.
                let received_us = received_us.min(now_us);
                let events = self.signals.derive(&mut readings, received_us);
                self.note(events);
                let events = self.engine.observe(&mut readings, received_us);
                // Before anything is written down: a valve does not wait for the record of why it closes.
                self.react();
                self.note(events);
                let events = self.alarms.observe(&readings, received_us);
                self.keep(events);
                let events = self.skew.observe(&readings, received_us);
                self.note(events);
                clock::mark_times(&mut readings, received_us);
                if let Some(tap) = &self.tap {
                    tap.give(&readings);
                }
                self.signals.report(&mut readings);
                self.health
                    .note_signals(self.signals.computed(), self.signals.suppressed());
                self.sealer.push(readings, received_us);
            }
            Acquired::NotRead(mut record) => {
                self.signals.not_read(&mut record);
                self.note(vec![Event::NotRead(record)]);
            }
            Acquired::Late {
                readings,
                received_us,
            } => {
                let received_us = received_us.min(now_us);
                let events = self.engine.observe_late(&readings, received_us);
                self.note(events);
                let mut readings = readings;
                clock::mark_times(&mut readings, received_us);
                self.sealer.push(readings, received_us);
            }
            Acquired::Limits { limits, reply } => self.set_limits(limits, now_us, reply),
            Acquired::Alarm(alarm) => self.note(vec![Event::Alarm(alarm)]),
            Acquired::Inspection(inspection) => {
                inspect::count(&self.health, &inspection);
                let events = self.signals.inspected(&inspection, now_us);
                self.note(vec![Event::Inspection(*inspection)]);
                self.note(events);
            }
            Acquired::Record(event) => self.note(vec![*event]),
            Acquired::Rules(rules, done) => {
                self.follow(&rules);
                done.send(()).unwrap_or_default();
            }
            Acquired::AlarmAction(action) => {
                let ccp = action.subject.clone();
                let events = self.alarms.act(*action, now_us);
                self.keep(events);
                if self.alarms.is_settled(&ccp) {
                    self.engine.release(&ccp);
                    self.react();
                }
            }
        }
    }

    /// Goes by other rules from here on. What waits is explained by the new dictionary too: a tag never changes its
    /// alias while the agent runs.
    fn follow(&mut self, rules: &Rules) {
        self.skew = SkewWatch::new(rules.timed.clone());
        let held = self.signals.reconfigure(&rules.signals);
        self.sealer.push(held, clock::now_us());
        self.sealer.set_dictionary(rules.dictionary);
    }

    fn tick(&mut self, now_us: Micros) {
        let events = self.signals.tick(now_us);
        self.health.count_manual_not_read(&events);
        self.note(events);
        let events = self.engine.tick(now_us);
        self.react();
        self.note(events);
        let events = self.alarms.tick(now_us);
        self.keep(events);
        // A start knows nothing of the alarms that sources raised before it.
        let up: Vec<String> = (self.health.sources().iter())
            .filter(|source| source.snapshot().state == SourceState::Up)
            .map(|source| source.name.clone())
            .collect();
        for source in up {
            let events = self.alarms.source_is_up(&source, now_us);
            self.keep(events);
        }
        self.health.set_points(self.engine.status());
        self.health.set_alarm_board(self.alarms.status(now_us));
    }

    /// Tells the outputs what they are to be.
    fn react(&self) {
        self.outputs.drive(&self.engine.wanted());
    }

    fn set_limits(&mut self, limits: Vec<CriticalLimit>, now_us: Micros, reply: LimitsReply) {
        let done = self.engine.set_limits(limits, now_us).map(|events| {
            self.note(events);
            self.engine.limits()
        });
        if reply.send(done).is_err() {
            tracing::warn!("nobody waits to hear what became of the limits");
        }
    }

    /// What outlives a restart: the control points' states, and the alarms'.
    fn states(&self) -> Vec<(String, Vec<u8>)> {
        let mut states = self.engine.snapshot();
        states.extend(self.alarms.snapshot());
        states.extend(self.signals.snapshot());
        states
    }

    /// Keeps events, and what follows from them for the alarms.
    fn note(&mut self, events: Vec<Event>) {
        for event in events {
            let changes = match &event {
                Event::Alarm(alarm) => self.alarms.condition(alarm),
                Event::Deviation(deviation) => self.alarms.deviation(deviation),
                _ => Vec::new(),
            };
            self.keep(vec![event]);
            self.keep(changes);
        }
    }

    fn keep(&mut self, events: Vec<Event>) {
        for event in &events {
            if let Event::Alarm(alarm) = event {
                tracing::info!(code = %alarm.code, subject = %alarm.subject, active = alarm.active, "{}", alarm.message);
                self.health.note_alarm(alarm);
            }
            if let Event::Deviation(deviation) = event {
                tracing::warn!(ccp = %deviation.ccp, phase = ?deviation.phase, kind = ?deviation.kind, "deviation");
            }
        }
        self.events.extend(events);
    }

    /// Seals and hands over what is due; everything when `all`.
    fn flush(&mut self, now_us: Micros, all: bool) {
        self.events
            .extend(self.health.take_gaps().into_iter().map(Event::Gap));
        let readings_due = self.sealer.is_due(now_us) || all;
        if !readings_due && self.events.is_empty() {
            return;
        }
        if !self.appender.has_room() {
            self.hold_back(now_us, readings_due);
            return;
        }
        let clock = self.clock;
        if let Some(gap) = self.lost.take() {
            self.events.push(Event::Gap(gap));
        }
        let events = std::mem::take(&mut self.events);
        let journal = spool::for_journal(&events);
        let mut records = self.sealer.seal_events(events, now_us, clock);
        // Readings go along with events: the control points' states were reached by them.
        records.extend(self.sealer.seal_readings(now_us, clock, self.appender.lane()));
        if records.is_empty() {
            return;
        }
        self.hand_over(Batch {
            records,
            states: self.states(),
            journal,
            sealed_us: now_us,
        });
    }

    /// While the spool takes nothing: readings that are due are given up on record, events wait without being
    /// sealed again and again. Pictures go first, then what is not of the legal record.
    fn hold_back(&mut self, now_us: Micros, readings_due: bool) {
        if readings_due {
            let readings = self.sealer.discard();
            self.give_up(now_us, now_us, (0, readings as u64));
        }
        let mut given_up = Vec::new();
        self.events.retain_mut(|event| match event {
            Event::Gap(gap) if gap.reason == DISK_REFUSES => {
                given_up.push(gap.clone());
                false
            }
            Event::Inspection(inspection) => {
                inspection.thumbnail_jpeg = None;
                true
            }
            _ => true,
        });
        for gap in given_up {
            self.give_up(gap.from_us, gap.to_us, (gap.frames, gap.readings));
        }
        if self.events.len() > EVENTS_WAITING_MAX {
            let before = self.events.len();
            self.events
                .retain(|event| crate::ccp::is_record(event) || matches!(event, Event::Gap(_)));
            self.events.truncate(EVENTS_WAITING_MAX);
            let dropped = before - self.events.len();
            tracing::error!(events = dropped, "events given up: the disk takes nothing");
            self.give_up(now_us, now_us, (dropped as u64, 0));
        }
    }

    fn give_up(&mut self, from_us: Micros, to_us: Micros, (frames, readings): (u64, u64)) {
        if frames == 0 && readings == 0 {
            return;
        }
        let gap = self.lost.get_or_insert_with(|| Gap {
            from_us,
            to_us,
            frames: 0,
            readings: 0,
            reason: DISK_REFUSES.to_owned(),
        });
        gap.from_us = gap.from_us.min(from_us);
        gap.to_us = gap.to_us.max(to_us);
        gap.frames += frames;
        gap.readings += readings;
    }

    /// Gives a batch to the spool. When the spool is gone the readings are given up and the events wait.
    fn hand_over(&mut self, batch: Batch) {
        let Err(Refused(batch)) = self.appender.append(batch) else {
            return;
        };
        let mut kept = Vec::new();
        for record in batch.records {
            let frame = protocol::frame::Frame::decode(&record.envelope);
            kept.extend(frame.map(|frame| frame.events).unwrap_or_default());
            let (sealed_us, readings) = (record.meta.sealed_us, u64::from(record.meta.readings));
            self.give_up(sealed_us, sealed_us, (u64::from(readings > 0), readings));
        }
        kept.append(&mut self.events);
        self.events = kept;
    }
}

/// The records of the readings that were due while no agent ran, one a period.
fn not_running(dictionary: &Dictionary, from_us: Micros, to_us: Micros) -> Vec<Event> {
    let mut by_period: std::collections::BTreeMap<u32, Vec<_>> = std::collections::BTreeMap::new();
    for tag in dictionary.tags.iter().filter(|tag| tag.period_ms > 0) {
        by_period.entry(tag.period_ms).or_default().push(tag.alias);
    }
    let records = by_period.into_iter().filter_map(|(period_ms, tags)| {
        let due = (to_us - from_us) / (Micros::from(period_ms) * 1000);
        (due > 0).then(|| {
            Event::NotRead(NotRead {
                tags,
                from_us,
                to_us,
                due: u32::try_from(due).unwrap_or(u32::MAX),
                reason: "agent stopped".to_owned(),
            })
        })
    });
    records.collect()
}

/// An alarm that is raised now.
pub(crate) fn alarm(code: &str, subject: &str, message: &str, at_us: Micros) -> Alarm {
    Alarm {
        id: Uuid::now_v7(),
        at_us,
        code: code.to_owned(),
        subject: subject.to_owned(),
        line: None,
        active: true,
        message: message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use protocol::{
        Quality, Reading,
        alarm::{AlarmAction, AlarmVerb},
        event::Inspection,
        frame::Frame,
        reading::Alias,
        tag::{Dictionary, Tag},
    };

    use super::*;
    use crate::ccp::config::{Point, React};

    const SECOND: Micros = 1_000_000;

    fn pipeline(capacity: usize) -> (Pipeline, mpsc::Receiver<Batch>) {
        let health = Arc::new(Health::new("akron-1", Uuid::from_u128(1), 0));
        let engine = Engine::new("akron-1", &[], || Uuid::from_u128(3));
        let age = Duration::from_millis(250);
        let sealer = Sealer::new("akron-1", Uuid::from_u128(1), Uuid::from_u128(2), 1000, age);
        let (appender, batches) = Appender::into_channel(capacity);
        let alarms = Register::new("akron-1", alarm::config::AlarmPolicy::default(), &[], &[]);
        let judges = (engine, alarms, SkewWatch::default());
        (
            Pipeline::new(judges, Outputs::default(), sealer, appender, health),
            batches,
        )
    }

    fn readings(at_us: Micros) -> Acquired {
        Acquired::Readings {
            readings: vec![Reading::new(Alias(0), at_us, 1.0, Quality::GOOD)],
            received_us: at_us,
        }
    }

    fn shot() -> crate::inspect::Shot {
        crate::inspect::Shot {
            camera: "VS-306".to_owned(),
            line: None,
            taken_us: 0,
            arrived: std::time::Instant::now(),
            size_px: None,
            jpeg: vec![1],
        }
    }

    fn dictionary() -> Dictionary {
        let tag = |alias: u32, period_ms: u32| Tag {
            alias: Alias(alias),
            name: format!("T{alias}"),
            unit: String::new(),
            description: String::new(),
            line: None,
            period_ms,
            simulated: false,
        };
        Dictionary {
            tags: vec![tag(0, 1000), tag(1, 1000), tag(2, 5000), tag(3, 0)],
        }
    }

    fn events(batch: &Batch) -> Vec<Event> {
        let frames = batch
            .records
            .iter()
            .map(|record| Frame::decode(&record.envelope).unwrap());
        frames.flat_map(|frame| frame.events).collect()
    }

    #[test]
    fn readings_wait_for_the_frames_age_and_events_do_not() {
        let (mut pipeline, mut batches) = pipeline(8);
        pipeline.take(readings(0), 0);
        pipeline.flush(100_000, false);
        assert!(batches.try_recv().is_err());
        pipeline.flush(250_000, false);
        assert_eq!(batches.try_recv().unwrap().records.len(), 1);
        pipeline.take(
            Acquired::Alarm(alarm("source.down", "plc", "no reply", 0)),
            250_001,
        );
        pipeline.flush(250_001, false);
        let told = events(&batches.try_recv().unwrap());
        assert!(
            matches!(&told[..], [Event::Alarm(_), Event::AlarmChange(_)]),
            "{told:?}"
        );
    }

    #[test]
    fn a_disk_that_takes_nothing_costs_readings_on_record_and_no_event() {
        let (mut pipeline, mut batches) = pipeline(1);
        pipeline.take(readings(0), 0);
        pipeline.flush(SECOND, false);
        for second in 2..5 {
            pipeline.take(readings(second * SECOND), second * SECOND);
            pipeline.take(
                Acquired::Alarm(alarm("source.down", "plc", "no reply", 0)),
                second * SECOND,
            );
            pipeline.flush(second * SECOND + SECOND, false);
        }
        drop(batches.try_recv().unwrap());
        pipeline.flush(10 * SECOND, false);
        let told = events(&batches.try_recv().unwrap());
        let alarms = told
            .iter()
            .filter(|event| matches!(event, Event::Alarm(_)))
            .count();
        let lost: u64 = told
            .iter()
            .map(|event| {
                if let Event::Gap(gap) = event {
                    gap.readings
                } else {
                    0
                }
            })
            .sum();
        assert_eq!((alarms, lost), (3, 3), "{told:?}");
    }

    #[test]
    fn a_disk_that_takes_nothing_for_hours_forgets_no_lost_reading_and_fills_no_memory() {
        let (mut pipeline, mut batches) = pipeline(1);
        pipeline.take(readings(0), 0);
        pipeline.flush(SECOND, false);
        for second in 2..20_002 {
            pipeline.take(readings(second * SECOND), second * SECOND);
            let picture = Inspection {
                thumbnail_jpeg: Some(vec![0; 24_000]),
                ..crate::inspect::not_performed(&shot(), "vision is off")
            };
            pipeline.take(Acquired::Inspection(Box::new(picture)), second * SECOND);
            pipeline.flush(second * SECOND + SECOND, false);
        }
        assert!(pipeline.events.len() <= EVENTS_WAITING_MAX);
        drop(batches.try_recv().unwrap());
        pipeline.flush(30_000 * SECOND, false);
        let told = events(&batches.try_recv().unwrap());
        let lost: Vec<u64> = told
            .iter()
            .filter_map(|event| match event {
                Event::Gap(gap) => Some(gap.readings),
                _ => None,
            })
            .collect();
        assert_eq!(lost, [20_000]);
    }

    #[test]
    fn t21_a_clock_that_is_set_is_a_record_and_an_alarm() {
        for (by_us, code) in [
            (-3_600 * SECOND, "clock.set_back"),
            (3_600 * SECOND, "clock.set_forward"),
        ] {
            let (mut pipeline, mut batches) = pipeline(8);
            pipeline.clock_stepped(step(7_200 * SECOND, by_us, 0));
            pipeline.flush(SECOND, false);
            let told = events(&batches.try_recv().unwrap());
            assert!(
                matches!(&told[..], [Event::ClockStep(step), Event::Alarm(alarm), ..]
                    if step.by_us == by_us && alarm.code == code),
                "{told:?}"
            );
        }
    }

    #[test]
    fn t21_a_boot_in_1970_tells_the_pause_before_it_once_the_clock_is_set() {
        let (mut pipeline, mut batches) = pipeline(8);
        let stopped_us = 1_764_000_000 * SECOND;
        let left = Left {
            store: crate::spool::store::Recovered {
                last_sealed_us: Some(stopped_us),
                ..crate::spool::store::Recovered::default()
            },
            ..Left::default()
        };
        pipeline.recover(left, &dictionary(), 5 * SECOND);
        assert!(
            batches.try_recv().is_err(),
            "nobody knows yet how long nothing ran"
        );
        // Set at 9 s past 1970 to where the true time is: the start was 100 s after the stop.
        let by_us = stopped_us + 95 * SECOND;
        pipeline.clock_stepped(step(9 * SECOND + by_us, by_us, by_us));
        pipeline.flush(9 * SECOND + by_us, false);
        let told = events(&batches.try_recv().unwrap());
        let pause = told.iter().find_map(|event| match event {
            Event::NotRead(record) => Some(record),
            _ => None,
        });
        let pause = pause.expect("the pause is on record");
        assert_eq!(
            (pause.from_us, pause.to_us),
            (stopped_us, stopped_us + 100 * SECOND)
        );
        assert_eq!(pause.due, 100);
    }

    #[test]
    fn t21_frames_keep_their_order_by_sequence_whatever_the_clock_does() {
        let (mut pipeline, mut batches) = pipeline(64);
        let times_us = [5 * SECOND, 9_000 * SECOND, SECOND, 20 * SECOND];
        for now_us in times_us {
            pipeline.take(readings(now_us), now_us);
            pipeline.flush(now_us + SECOND, true);
        }
        let mut seqs = Vec::new();
        while let Ok(batch) = batches.try_recv() {
            for record in batch.records {
                let frame = Frame::decode(&record.envelope).unwrap();
                seqs.push((frame.header.id.seq, frame.readings[0].time_us));
            }
        }
        let expected: Vec<_> = (0..).zip(times_us).collect();
        assert_eq!(seqs, expected);
    }

    fn step(at_us: Micros, by_us: i64, correction_us: i64) -> ClockStep {
        ClockStep {
            at_us,
            by_us,
            is_synced: true,
            correction_us,
        }
    }

    #[test]
    fn the_time_in_which_nothing_ran_is_on_record_for_every_due_tag() {
        let records = not_running(&dictionary(), 0, 12 * SECOND);
        let due: Vec<(usize, u32)> = records
            .iter()
            .map(|event| match event {
                Event::NotRead(record) => (record.tags.len(), record.due),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(due, [(2, 12), (1, 2)]);
        assert!(not_running(&dictionary(), 0, SECOND / 2).is_empty());
    }

    #[test]
    fn events_that_reached_only_the_journal_are_sent_and_not_written_there_twice() {
        let (mut pipeline, mut batches) = pipeline(8);
        let left = Left {
            unstored: vec![Event::Alarm(alarm("ccp.diverted", "CCP-1", "diverted", 0))],
            ..Left::default()
        };
        pipeline.recover(left, &dictionary(), SECOND);
        let batch = batches.try_recv().unwrap();
        assert_eq!(events(&batch).len(), 1);
        assert!(batch.journal.is_empty());
    }

    #[test]
    fn pushed_limits_are_answered_and_what_does_not_fit_changes_nothing() {
        let (mut pipeline, _batches) = pipeline(8);
        let (reply, mut answer) = oneshot::channel();
        let limits = Vec::new();
        pipeline.take(Acquired::Limits { limits, reply }, 0);
        assert_eq!(answer.try_recv().unwrap(), Ok(Vec::new()));
    }

    #[test]
    fn an_alarm_that_comes_to_the_pipeline_gets_a_state_and_outlives_a_restart() {
        let (mut before, mut batches) = pipeline(8);
        before.take(
            Acquired::Alarm(alarm("source.down", "plc", "no reply", SECOND)),
            SECOND,
        );
        before.flush(SECOND, false);
        let batch = batches.try_recv().unwrap();
        assert!(
            matches!(&events(&batch)[..], [Event::Alarm(_), Event::AlarmChange(change)] if change.is_active)
        );
        assert!(
            batch
                .journal
                .iter()
                .any(|event| matches!(event, Event::AlarmChange(_)))
        );
        let (mut after, _batches) = pipeline(8);
        let mut left = Left::default();
        left.store.states = batch.states;
        after.recover(left, &dictionary(), 2 * SECOND);
        assert_eq!(after.alarms.status(2 * SECOND).counts.standing, 1);
    }

    fn reacting_point() -> Point {
        let limit = CriticalLimit {
            ccp: "CCP-1".to_owned(),
            line: None,
            tag: "T0".to_owned(),
            unit: String::new(),
            low: Some(72.0),
            high: None,
            clear_margin: 0.0,
            delay_us: 0,
            gap_us_max: 60 * SECOND,
            check_every_us: 60 * SECOND,
            period_us: SECOND,
            version: 1,
        };
        Point {
            limit,
            kind: protocol::limit::ControlKind::Limit,
            tag: Alias(0),
            gate: None,
            not_during: None,
            stuck: None,
            react: Some(React {
                output: "stop".to_owned(),
                on_deviation: 1.0,
                on_clear: 0.0,
                hold_until_reset: true,
            }),
        }
    }

    fn person(id: u128, verb: AlarmVerb, at_us: Micros) -> Acquired {
        Acquired::AlarmAction(Box::new(AlarmAction {
            id: Uuid::from_u128(id),
            code: "ccp.limit".to_owned(),
            subject: "CCP-1".to_owned(),
            at_us,
            by: "avery".to_owned(),
            second: None,
            reason: String::new(),
            verb,
        }))
    }

    #[test]
    fn an_output_that_is_held_is_released_only_by_a_reset_after_the_deviation() {
        let (mut pipeline, _batches) = pipeline(8);
        let points = [reacting_point()];
        pipeline.engine = Engine::new("akron-1", &points, || Uuid::from_u128(3));
        pipeline.alarms = Register::new("akron-1", alarm::config::AlarmPolicy::default(), &[], &points);
        let read = |second: i64, value: f64| Acquired::Readings {
            readings: vec![Reading::new(Alias(0), second * SECOND, value, Quality::GOOD)],
            received_us: second * SECOND,
        };
        let is_stopped = |pipeline: &Pipeline| pipeline.engine.wanted()["stop"] > 0.5;
        pipeline.take(read(0, 73.0), 0);
        assert!(!is_stopped(&pipeline));
        pipeline.take(read(1, 71.0), SECOND);
        assert!(is_stopped(&pipeline));
        pipeline.take(person(1, AlarmVerb::Reset, 2 * SECOND), 2 * SECOND);
        pipeline.take(read(3, 73.0), 3 * SECOND);
        assert!(is_stopped(&pipeline), "a reset during the deviation is refused");
        pipeline.take(person(2, AlarmVerb::Acknowledge, 4 * SECOND), 4 * SECOND);
        assert!(is_stopped(&pipeline), "seen is not reset");
        pipeline.take(person(3, AlarmVerb::Reset, 5 * SECOND), 5 * SECOND);
        assert!(!is_stopped(&pipeline));
    }
}
