//! What does a message, the passing of time or a clock that is set do to the judges? Each judge sees everything in
//! the order in which it came; what they say becomes events.

use protocol::{
    Micros,
    event::{ClockStep, Event},
    limit::CriticalLimit,
};

use tokio::sync::oneshot;

use super::{Pipeline, Rules, alarm, recover::not_running};
use crate::{alarm::skew::SkewWatch, clock, health::SourceState, inspect, source::Acquired};

/// Gets what became of pushed limits.
type LimitsReply = oneshot::Sender<Result<Vec<CriticalLimit>, String>>;

impl Pipeline {
    /// Control points are judged on when the clock is set: waiting until it is where it was would be a silence that
    /// nobody notices, and an hour that never passed is no monitoring gap.
    pub(super) fn clock_stepped(&mut self, step: ClockStep) {
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

    pub(super) fn take(&mut self, acquired: Acquired, now_us: Micros) {
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

    pub(super) fn tick(&mut self, now_us: Micros) {
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

    fn set_limits(&mut self, limits: Vec<CriticalLimit>, now_us: Micros, reply: LimitsReply) {
        let done = self.engine.set_limits(limits, now_us).map(|events| {
            self.note(events);
            self.engine.limits()
        });
        if reply.send(done).is_err() {
            tracing::warn!("nobody waits to hear what became of the limits");
        }
    }
}
