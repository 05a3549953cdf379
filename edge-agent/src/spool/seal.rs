//! When do readings and events become a frame? At a number of readings or an age; events at once. Pure but for the
//! encoding.

use std::time::Duration;

use protocol::{
    Micros, Reading,
    event::Event,
    frame::{ClockState, Frame, FrameId, Header},
    lane::Lane,
};
use uuid::Uuid;

use super::record::{Meta, Record};

/// Values of the store should stay under 64 KiB; a frame of events is closed when its pictures reach this.
const EVENTS_BYTES_MAX: usize = 40 * 1024;
/// Events in one frame beside pictures.
const EVENTS_MAX: usize = 256;

/// Who seals: goes into every frame.
#[derive(Clone, Debug)]
pub struct Sealer {
    edge: String,
    boot: Uuid,
    dictionary: Uuid,
    readings_max: usize,
    age_us_max: Micros,
    next_seq: [u64; 3],
    readings: Vec<Reading>,
    since_us: Option<Micros>,
}

impl Sealer {
    /// A sealer of one start of the agent.
    pub fn new(edge: &str, boot: Uuid, dictionary: Uuid, readings_max: usize, age_max: Duration) -> Self {
        Self {
            edge: edge.to_owned(),
            boot,
            dictionary,
            readings_max: readings_max.max(1),
            age_us_max: age_max.as_micros() as Micros,
            next_seq: [0; 3],
            readings: Vec::new(),
            since_us: None,
        }
    }

    /// Takes readings; they wait until [`is_due`](Self::is_due).
    pub fn push(&mut self, readings: Vec<Reading>, now_us: Micros) {
        if !readings.is_empty() {
            self.since_us.get_or_insert(now_us);
            self.readings.extend(readings);
        }
    }

    /// Frames sealed from here on are explained by another dictionary.
    pub fn set_dictionary(&mut self, dictionary: Uuid) {
        self.dictionary = dictionary;
    }

    /// Number of readings that wait.
    pub fn waiting(&self) -> usize {
        self.readings.len()
    }

    /// Gives up the readings that wait; returns how many.
    pub fn discard(&mut self) -> usize {
        self.since_us = None;
        let readings = self.readings.len();
        self.readings.clear();
        readings
    }

    /// Whether a frame is full or old enough. A clock that stepped back counts as old enough.
    pub fn is_due(&self, now_us: Micros) -> bool {
        self.readings.len() >= self.readings_max
            || self
                .since_us
                .is_some_and(|since_us| now_us - since_us >= self.age_us_max || now_us < since_us)
    }

    /// Seals all readings that wait, into as many frames as they need. In lane backfill they are parts: their number
    /// means nothing, they get an identity when they are merged.
    pub fn seal_readings(&mut self, now_us: Micros, clock: ClockState, lane: Lane) -> Vec<Record> {
        self.since_us = None;
        let readings = std::mem::take(&mut self.readings);
        let mut records = Vec::new();
        for chunk in readings.chunks(self.readings_max) {
            records.extend(self.seal(lane, chunk.to_vec(), Vec::new(), now_us, clock));
        }
        records
    }

    /// Seals events, into as many frames as they need.
    pub fn seal_events(&mut self, events: Vec<Event>, now_us: Micros, clock: ClockState) -> Vec<Record> {
        let mut records = Vec::new();
        let (mut group, mut bytes) = (Vec::new(), 0);
        for event in events {
            let size = picture_bytes(&event);
            if !group.is_empty() && (bytes + size > EVENTS_BYTES_MAX || group.len() >= EVENTS_MAX) {
                records.extend(self.seal(
                    Lane::Events,
                    Vec::new(),
                    std::mem::take(&mut group),
                    now_us,
                    clock,
                ));
                bytes = 0;
            }
            bytes += size;
            group.push(event);
        }
        if !group.is_empty() {
            records.extend(self.seal(Lane::Events, Vec::new(), group, now_us, clock));
        }
        records
    }

    fn seal(
        &mut self,
        lane: Lane,
        readings: Vec<Reading>,
        events: Vec<Event>,
        now_us: Micros,
        clock: ClockState,
    ) -> Option<Record> {
        let seq = &mut self.next_seq[usize::from(lane.number())];
        let id = FrameId {
            boot: self.boot,
            lane,
            seq: *seq,
        };
        *seq += u64::from(lane != Lane::Backfill);
        let meta = Meta {
            id,
            dictionary: self.dictionary,
            sealed_us: now_us,
            readings: readings.len() as u32,
            events: events.len() as u32,
        };
        let frame = Frame {
            header: Header {
                id,
                edge: self.edge.clone(),
                dictionary: self.dictionary,
                sealed_us: now_us,
                clock,
                readings: meta.readings,
                events: meta.events,
            },
            readings,
            events,
        };
        match frame.encode() {
            Ok(envelope) => Some(Record { meta, envelope }),
            Err(error) => {
                // Within this module's limits a frame is far below the protocol's.
                tracing::error!(%error, "frame cannot be encoded");
                None
            }
        }
    }
}

fn picture_bytes(event: &Event) -> usize {
    match event {
        Event::Inspection(inspection) => 512 + inspection.thumbnail_jpeg.as_ref().map_or(0, Vec::len),
        Event::NotRead(record) => 64 + record.tags.len() * 5,
        Event::CertificateRequest(request) => 64 + request.csr_pem.len(),
        _ => 256,
    }
}

#[cfg(test)]
mod tests {
    use protocol::{Quality, event::NotRead, reading::Alias};

    use super::*;

    fn sealer(readings_max: usize) -> Sealer {
        Sealer::new(
            "akron-1",
            Uuid::from_u128(1),
            Uuid::from_u128(2),
            readings_max,
            Duration::from_millis(250),
        )
    }

    fn readings(count: u32) -> Vec<Reading> {
        (0..count)
            .map(|tag| Reading::new(Alias(tag), 1_000, 1.5, Quality::GOOD))
            .collect()
    }

    #[test]
    fn a_frame_is_due_when_full_or_old() {
        let mut sealer = sealer(10);
        sealer.push(readings(3), 0);
        assert!(!sealer.is_due(249_999));
        assert!(sealer.is_due(250_000));
        sealer.push(readings(7), 1);
        assert!(sealer.is_due(1));
    }

    #[test]
    fn no_frame_is_larger_than_allowed_and_no_reading_is_lost() {
        let mut sealer = sealer(10);
        sealer.push(readings(25), 0);
        let records = sealer.seal_readings(5, ClockState::default(), Lane::Live);
        let counts: Vec<u32> = records.iter().map(|record| record.meta.readings).collect();
        assert_eq!(counts, [10, 10, 5]);
        assert_eq!(
            records
                .iter()
                .map(|record| record.meta.id.seq)
                .collect::<Vec<_>>(),
            [0, 1, 2]
        );
        let back: Vec<Reading> = records
            .iter()
            .flat_map(|record| Frame::decode(&record.envelope).unwrap().readings)
            .collect();
        assert_eq!(back.len(), 25);
        assert_eq!(sealer.waiting(), 0);
    }

    #[test]
    fn parts_take_no_number_from_any_sequence() {
        let mut sealer = sealer(10);
        for lane in [Lane::Live, Lane::Backfill, Lane::Backfill, Lane::Live] {
            sealer.push(readings(1), 0);
            let records = sealer.seal_readings(5, ClockState::default(), lane);
            assert_eq!(records[0].meta.id.lane, lane);
        }
        assert_eq!(sealer.next_seq, [0, 2, 0]);
    }

    #[test]
    fn events_have_their_own_sequence_and_stay_small() {
        let mut sealer = sealer(10);
        let event = |tags: u32| {
            Event::NotRead(NotRead {
                tags: (0..tags).map(Alias).collect(),
                from_us: 0,
                to_us: 0,
                due: 1,
                reason: "overrun".to_owned(),
            })
        };
        let records = sealer.seal_events(vec![event(5000), event(5000), event(1)], 0, ClockState::default());
        assert_eq!(records.len(), 2);
        assert!(records.iter().all(|record| record.meta.id.lane == Lane::Events));
        assert!(
            sealer
                .seal_events(Vec::new(), 0, ClockState::default())
                .is_empty()
        );
    }
}
