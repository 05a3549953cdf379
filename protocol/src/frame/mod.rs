//! What travels from edge to hub? A frame: readings and events of one lane under one identity.
//!
//! The hub commits a frame's rows together with its [`FrameId`]; sending a frame twice therefore changes nothing.

mod column;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    envelope::{self, DecodeError, Kind},
    event::Event,
    lane::Lane,
    reading::{Micros, Reading},
};

/// Most readings in one frame.
pub const READINGS_MAX: usize = 65_536;
/// Most events in one frame.
pub const EVENTS_MAX: usize = 4_096;

/// What makes a frame the same frame when it comes twice; unique together with the edge's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FrameId {
    /// Drawn anew at every start of the agent, so that a lost spool can never reuse an identity.
    pub boot: Uuid,
    /// The lane.
    pub lane: Lane,
    /// Counts up by one within boot and lane, from 0.
    pub seq: u64,
}

/// How far the edge's clock may be trusted when the frame was sealed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockState {
    /// Whether the operating system reports a synchronised clock.
    pub synced: bool,
    /// Bound on the error of the clock in microseconds, when known.
    pub error_us_max: Option<u64>,
}

/// What is known of a frame even when its body cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The frame's identity.
    pub id: FrameId,
    /// Name of the edge that sealed it; must equal the authenticated one.
    pub edge: String,
    /// Content id of the dictionary that explains the aliases.
    pub dictionary: Uuid,
    /// When the frame was closed, by the edge's clock: the receive time of its readings to within the frame's age.
    pub sealed_us: Micros,
    /// Trust in that clock.
    pub clock: ClockState,
    /// Number of readings in the body.
    pub readings: u32,
    /// Number of events in the body.
    pub events: u32,
}

/// A frame as both programs hold it.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    /// Identity and provenance.
    pub header: Header,
    /// Readings; order is kept within a tag, not across tags.
    pub readings: Vec<Reading>,
    /// Events in order.
    pub events: Vec<Event>,
}

#[derive(Serialize, Deserialize)]
struct Body {
    groups: Vec<column::Group>,
    events: Vec<Event>,
}

/// A frame that would not be readable again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// More readings or events than a frame may hold: split it.
    #[error("{readings} readings and {events} events exceed a frame's {READINGS_MAX} and {EVENTS_MAX}")]
    TooMany {
        /// Readings given.
        readings: usize,
        /// Events given.
        events: usize,
    },
    /// The envelope would exceed [`envelope::ENVELOPE_BYTES_MAX`]: split it.
    #[error("a frame of {bytes} bytes exceeds {}", envelope::ENVELOPE_BYTES_MAX)]
    TooLarge {
        /// Size of the envelope.
        bytes: usize,
    },
}

impl Frame {
    /// Seals the frame into an envelope. The header's counts are set from the content.
    ///
    /// # Errors
    /// [`EncodeError`] when [`decode`](Self::decode) would refuse the result.
    pub fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        let (readings, events) = (self.readings.len(), self.events.len());
        if readings > READINGS_MAX || events > EVENTS_MAX {
            return Err(EncodeError::TooMany { readings, events });
        }
        let header = Header {
            readings: readings as u32,
            events: events as u32,
            ..self.header.clone()
        };
        let body = Body {
            groups: column::pack(&self.readings),
            events: self.events.clone(),
        };
        let bytes = envelope::seal(Kind::Frame, &header, &body);
        if bytes.len() > envelope::ENVELOPE_BYTES_MAX {
            return Err(EncodeError::TooLarge { bytes: bytes.len() });
        }
        Ok(bytes)
    }

    /// Reads a frame.
    ///
    /// # Errors
    /// [`DecodeError`]; any bytes are either a frame or an error.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let opened = envelope::open(bytes, Kind::Frame)?;
        let header: Header = opened.header()?;
        let body: Body = opened.body()?;
        let readings = column::unpack(&body.groups, READINGS_MAX)?;
        if readings.len() != header.readings as usize || body.events.len() != header.events as usize {
            return Err(DecodeError::Invalid(
                "the header's counts differ from the body's".to_owned(),
            ));
        }
        if body.events.len() > EVENTS_MAX {
            return Err(DecodeError::TooLarge {
                bytes: body.events.len(),
                limit: EVENTS_MAX,
            });
        }
        Ok(Self {
            header,
            readings,
            events: body.events,
        })
    }

    /// Reads only the header: enough to acknowledge a frame whose body is damaged.
    ///
    /// # Errors
    /// [`DecodeError`] when even that cannot be read.
    pub fn decode_header(bytes: &[u8]) -> Result<Header, DecodeError> {
        envelope::open(bytes, Kind::Frame)?.header()
    }
}
