//! What happens to everything that is acquired? Judged, sealed, handed to the spool, in this order and in one
//! place. It never waits for the disk or the uplink: a control point is judged whatever they do.

mod hand_over;
mod recover;
mod take;

use std::{sync::Arc, time::Duration};

use protocol::{
    Micros,
    event::{Alarm, Event, Gap},
    frame::ClockState,
    reading::Alias,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::recover::Pause;
use crate::{
    alarm::{Register, skew::SkewWatch},
    ccp::Engine,
    clock,
    health::Health,
    output::Outputs,
    signal::{Signals, config::Plan},
    source::Acquired,
    sparkplug::Tap,
    spool::{Appender, seal::Sealer},
};

/// How often control points are told that time passed.
const TICK_EVERY: Duration = Duration::from_millis(250);
/// How often a frame's age is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Messages handled between two looks at the clock.
const MESSAGES_AT_ONCE: usize = 256;

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

    /// Tells the outputs what they are to be.
    fn react(&self) {
        self.outputs.drive(&self.engine.wanted());
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
mod tests;
