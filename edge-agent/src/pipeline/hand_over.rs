//! When is what waits sealed and handed to the spool, and what is given up while the spool takes nothing? Readings
//! and pictures first, then what is not of the legal record; what is given up is on record.

use protocol::{
    Micros,
    event::{Event, Gap},
};

use super::Pipeline;
use crate::spool::{self, Batch, Refused};

/// Events kept in memory while the disk refuses.
pub(super) const EVENTS_WAITING_MAX: usize = 10_000;
/// Why readings are given up before they reach the disk.
const DISK_REFUSES: &str = "disk does not take data";

impl Pipeline {
    /// Seals and hands over what is due; everything when `all`.
    pub(super) fn flush(&mut self, now_us: Micros, all: bool) {
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
    pub(super) fn hand_over(&mut self, batch: Batch) {
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
