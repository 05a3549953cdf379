//! What did the hub do with what it was sent? The message that alone frees an edge's spool.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    envelope::{self, DecodeError, Kind},
    frame::FrameId,
};

/// What an acknowledgement is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Subject {
    /// A frame, by identity.
    Frame(FrameId),
    /// A dictionary, by content id.
    Dictionary(Uuid),
    /// A payload whose identity could not be read, by the CRC32C of its bytes.
    Payload(u32),
}

/// What the hub did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Committed to the database now, or found there already: free it.
    Stored,
    /// Kept as a dead letter with this reason: free it, and tell a person.
    Rejected {
        /// For people; names the place and the remedy.
        reason: String,
    },
    /// Send the dictionary with this id, then the frame again.
    NeedDictionary(Uuid),
}

/// One word of the hub.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledgement {
    /// About what.
    pub subject: Subject,
    /// What happened to it.
    pub outcome: Outcome,
}

/// Most acknowledgements in one message.
pub const ACKS_MAX: usize = 4096;

/// Several acknowledgements in one envelope.
///
/// # Panics
/// When given more than [`ACKS_MAX`]; batch them.
pub fn encode(acks: &[Acknowledgement]) -> Vec<u8> {
    assert!(
        acks.len() <= ACKS_MAX,
        "acknowledgements are sent in batches of at most {ACKS_MAX}"
    );
    envelope::seal(Kind::Acknowledgement, &(), &acks)
}

/// Reads what [`encode`] wrote.
///
/// # Errors
/// [`DecodeError`] for anything else.
pub fn decode(bytes: &[u8]) -> Result<Vec<Acknowledgement>, DecodeError> {
    let acks: Vec<Acknowledgement> = envelope::open(bytes, Kind::Acknowledgement)?.body()?;
    if acks.len() > ACKS_MAX {
        return Err(DecodeError::TooLarge {
            bytes: acks.len(),
            limit: ACKS_MAX,
        });
    }
    Ok(acks)
}
