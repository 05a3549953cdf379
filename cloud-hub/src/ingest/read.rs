//! What does a message say? Decoding and every check that needs no database.

use bytes::Bytes;
use protocol::{
    Micros, Reading,
    ack::Subject,
    envelope::payload_crc,
    frame::Frame,
    tag::Dictionary,
    topic::{Channel, Topic},
};
use serde::Deserialize;
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::{
    broker::{Hold, Settled, Taken},
    kernel::tenancy::TenantSlug,
};

/// A reading may be this far ahead of the hub's clock; beyond, the edge's clock is wrong and storing it would
/// make it the tag's newest value for ever.
const AHEAD_US_MAX: Micros = 24 * 3_600 * 1_000_000;
/// 1990-01-01: nothing measured is older; such a time is a clock that was never set.
const OLDEST_US: Micros = 631_152_000_000_000;

/// A message and what it turned out to be.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) tenant: TenantSlug,
    pub(super) edge: String,
    pub(super) topic: String,
    pub(super) payload: Bytes,
    pub(super) content: Content,
    pub(super) settled: oneshot::Sender<Settled>,
    /// Its room in the hub's memory, given back when it is settled.
    pub(super) _hold: Hold,
}

/// What a message turned out to be.
#[derive(Debug)]
pub(super) enum Content {
    /// A frame, and those of its readings whose time is impossible: they are kept apart from the others.
    Frame(Box<Frame>, Vec<Reading>),
    Dictionary(Uuid, Box<Dictionary>),
    Status(Status),
    /// Kept as a dead letter; the subject is acknowledged as rejected when there is one to name.
    Unusable {
        subject: Option<Subject>,
        reason: String,
    },
}

/// An edge's state of health.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Status {
    pub(super) online: bool,
    pub(super) boot: Option<Uuid>,
    pub(super) version: Option<String>,
    pub(super) backlog_frames: Option<u64>,
    pub(super) oldest_us: Option<Micros>,
}

impl Content {
    /// Readings it brings.
    pub(super) fn rows(&self) -> usize {
        match self {
            Self::Frame(frame, _) => frame.readings.len(),
            _ => 0,
        }
    }

    /// Whether its events can be stored without the one that is refused.
    pub(super) fn can_be_parted(&self) -> bool {
        matches!(self, Self::Frame(frame, _) if !frame.events.is_empty() && frame.readings.len() + frame.events.len() > 1)
    }

    /// Whether it should not wait for more.
    pub(super) fn is_urgent(&self) -> bool {
        !matches!(self, Self::Frame(frame, _) if frame.events.is_empty())
    }
}

/// Reads a message. The broker made sure that the topic belongs to the device. A device of no known form of
/// tenant is told to retry: that is the hub's own fault.
pub(super) fn item(taken: Taken, now_us: Micros) -> Option<Item> {
    let Taken { uplink, hold } = taken;
    let Ok(tenant) = TenantSlug::parse(&uplink.device.tenant) else {
        tracing::error!(tenant = %uplink.device.tenant, "an authenticated device has an impossible tenant");
        // The receiver may be gone: then nobody waits.
        drop(uplink.settled.send(Settled::Retry));
        return None;
    };
    let content = content(&uplink.topic, &uplink.device.name, &uplink.payload, now_us);
    Some(Item {
        tenant,
        edge: uplink.device.name,
        topic: uplink.topic,
        payload: uplink.payload,
        content,
        settled: uplink.settled,
        _hold: hold,
    })
}

fn content(topic: &str, edge: &str, payload: &Bytes, now_us: Micros) -> Content {
    match Topic::parse(topic).map(|topic| topic.channel) {
        // The lane of the topic is a class of urgency: a live frame that had to wait comes as backfill.
        Some(Channel::Up(_)) => match Frame::decode(payload) {
            Ok(frame) => checked(frame, edge, now_us),
            Err(error) => {
                let subject = Frame::decode_header(payload).map_or_else(
                    |_| Subject::Payload(payload_crc(payload)),
                    |header| Subject::Frame(header.id),
                );
                unusable(subject, error.to_string())
            }
        },
        Some(Channel::Dictionary) => match Dictionary::decode(payload) {
            Ok(dictionary) => Content::Dictionary(dictionary.id(), Box::new(dictionary)),
            Err(error) => unusable(Subject::Payload(payload_crc(payload)), error.to_string()),
        },
        Some(Channel::Status) => match serde_json::from_slice(payload) {
            Ok(status) => Content::Status(status),
            Err(error) => Content::Unusable {
                subject: None,
                reason: format!("status: {error}"),
            },
        },
        _ => Content::Unusable {
            subject: None,
            reason: "no uplink topic".to_owned(),
        },
    }
}

fn unusable(subject: Subject, reason: String) -> Content {
    Content::Unusable {
        subject: Some(subject),
        reason,
    }
}

fn checked(mut frame: Frame, edge: &str, now_us: Micros) -> Content {
    let header = &frame.header;
    let fault = if header.edge != edge {
        Some(format!(
            "the frame was sealed by edge `{}`, but `{edge}` sent it",
            header.edge
        ))
    } else if i64::try_from(header.id.seq).is_err() {
        Some("the sequence number is beyond 2^63".to_owned())
    } else {
        None
    };
    if let Some(reason) = fault {
        return unusable(Subject::Frame(header.id), reason);
    }
    // One source with a wrong clock takes neither the other sources' readings nor the frame's events with it.
    let (timely, misdated): (Vec<_>, Vec<_>) = std::mem::take(&mut frame.readings)
        .into_iter()
        .partition(|reading| is_possible(reading.time_us, now_us));
    // What a clock that was never set stamped is not refused: it waits for the edge to say what the times were.
    let header = &frame.header;
    let may_be_corrected =
        |reading: &Reading| !header.clock.synced && is_stamped_here(reading.time_us, header.sealed_us);
    let (waiting, misdated): (Vec<_>, Vec<_>) = misdated.into_iter().partition(may_be_corrected);
    let is_empty = timely.is_empty() && frame.events.is_empty() && waiting.is_empty();
    if is_empty && !misdated.is_empty() {
        return unusable(Subject::Frame(frame.header.id), misdating(&misdated));
    }
    frame.readings = timely;
    Content::Frame(Box::new(frame), misdated)
}

/// A frame holds what was taken shortly before it was sealed, by the same clock.
const STAMPED_BEFORE_US_MAX: Micros = 60_000_000;
const STAMPED_AFTER_US_MAX: Micros = 1_000_000;

/// Whether a time was given by the clock that sealed the frame, and not by a source of its own.
pub(crate) fn is_stamped_here(time_us: Micros, sealed_us: Micros) -> bool {
    let from_us = sealed_us.saturating_sub(STAMPED_BEFORE_US_MAX);
    (from_us..=sealed_us.saturating_add(STAMPED_AFTER_US_MAX)).contains(&time_us)
}

/// Whether anything can have been measured then.
pub(crate) fn is_possible(time_us: Micros, now_us: Micros) -> bool {
    (OLDEST_US..now_us.saturating_add(AHEAD_US_MAX)).contains(&time_us)
}

/// Why these readings are not stored: names the first of them.
pub(super) fn misdating(misdated: &[Reading]) -> String {
    let first = misdated.first().map_or_else(String::new, |reading| {
        format!(": alias {} has time {} µs", reading.tag.0, reading.time_us)
    });
    let count = misdated.len();
    format!("{count} readings with an impossible time{first}; check the clock of the source")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use protocol::{
        Quality, Reading,
        frame::{FrameId, Header},
        lane::Lane,
        reading::Alias,
    };

    use super::*;

    const NOW_US: Micros = 1_800_000_000_000_000;

    fn frame(edge: &str, lane: Lane, time_us: Micros) -> Frame {
        Frame {
            header: Header {
                id: FrameId {
                    boot: Uuid::nil(),
                    lane,
                    seq: 3,
                },
                edge: edge.to_owned(),
                dictionary: Uuid::nil(),
                sealed_us: time_us,
                clock: protocol::frame::ClockState {
                    synced: true,
                    error_us_max: None,
                },
                readings: 0,
                events: 0,
            },
            readings: vec![Reading::new(Alias(0), time_us, 1.0, Quality::GOOD)],
            events: vec![],
        }
    }

    fn read(topic: &str, frame: &Frame) -> Content {
        content(topic, "e1", &frame.encode().unwrap().into(), NOW_US)
    }

    #[test]
    fn a_live_frame_that_had_to_wait_may_come_as_backfill() {
        let good = frame("e1", Lane::Live, NOW_US);
        assert!(matches!(read("ff/v1/a/e1/up/live", &good), Content::Frame(..)));
        assert!(matches!(
            read("ff/v1/a/e1/up/backfill", &good),
            Content::Frame(..)
        ));
    }

    #[test]
    fn a_frame_of_another_edge_or_century_is_refused_by_its_identity() {
        let good = frame("e1", Lane::Live, NOW_US);
        let id = Subject::Frame(good.header.id);
        for (topic, frame) in [
            ("ff/v1/a/e1/up/live", frame("e2", Lane::Live, NOW_US)),
            ("ff/v1/a/e1/up/live", frame("e1", Lane::Live, NOW_US * 2)),
            ("ff/v1/a/e1/up/live", frame("e1", Lane::Live, -5)),
        ] {
            let Content::Unusable { subject, .. } = read(topic, &frame) else {
                panic!("{topic}")
            };
            assert_eq!(subject, Some(id));
        }
    }

    #[test]
    fn t21_a_frame_of_a_clock_that_was_never_set_is_kept_for_its_correction() {
        let mut booted = frame("e1", Lane::Live, 5_000_000);
        booted.header.clock.synced = false;
        let Content::Frame(kept, misdated) = read("ff/v1/a/e1/up/live", &booted) else {
            panic!("refused")
        };
        assert_eq!((kept.readings.len(), misdated.len()), (0, 0));
        assert_eq!(kept.header.readings, 1, "the one that waits");
        // What a source dated itself is its own fault, whatever the edge's clock.
        booted.readings = vec![Reading::new(Alias(0), 1, 1.0, Quality::GOOD)];
        booted.header.sealed_us = NOW_US;
        assert!(matches!(
            read("ff/v1/a/e1/up/live", &booted),
            Content::Unusable { .. }
        ));
    }

    #[test]
    fn only_what_the_sealing_clock_stamped_is_its_own() {
        let sealed_us = 10_000_000_000;
        for ours in [sealed_us, sealed_us - 250_000, sealed_us + 1_000] {
            assert!(is_stamped_here(ours, sealed_us));
        }
        // A server's own time, an hour and half a century from the edge's.
        for theirs in [
            sealed_us - 3_600_000_000,
            sealed_us + 3_600_000_000,
            1_700_000_000_000_000,
        ] {
            assert!(!is_stamped_here(theirs, sealed_us));
        }
    }

    #[test]
    fn one_impossible_time_keeps_the_other_readings_and_the_events() {
        let mut mixed = frame("e1", Lane::Live, NOW_US);
        for time_us in [NOW_US * 2, 0] {
            mixed
                .readings
                .push(Reading::new(Alias(1), time_us, 2.0, Quality::GOOD));
        }
        let Content::Frame(kept, misdated) = read("ff/v1/a/e1/up/live", &mixed) else {
            panic!("refused whole")
        };
        assert_eq!((kept.readings.len(), misdated.len()), (1, 2));
        assert_eq!(kept.readings[0].tag, Alias(0));
        let said = misdating(&misdated);
        assert!(said.contains("2 readings") && said.contains("alias 1"), "{said}");
    }

    proptest! {
        #[test]
        fn no_bytes_on_any_topic_panic(
            payload in prop::collection::vec(any::<u8>(), 0..300), channel in "(up/(live|events|backfill)|dict|status|x)",
        ) {
            let content = content(&format!("ff/v1/a/e1/{channel}"), "e1", &payload.into(), NOW_US);
            let is_unusable = matches!(content, Content::Unusable { .. });
            prop_assert!(is_unusable);
        }
    }
}
