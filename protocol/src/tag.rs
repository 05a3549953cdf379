//! What does an alias mean? The dictionary that an edge publishes before any frame that uses it.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{envelope, reading::Alias};

/// Most tags one edge may name; bounds every allocation that a dictionary can cause.
pub const TAGS_MAX: usize = 200_000;

/// One named point of a plant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tag {
    /// The number frames use for it.
    pub alias: Alias,
    /// Unique within the tenant, as on the P&ID: `TT-101`.
    pub name: String,
    /// UCUM-like unit, `degC`, `L/h`; empty when the value has none.
    pub unit: String,
    /// What a person should know about it.
    pub description: String,
    /// Code of the production line it belongs to, `L1`.
    pub line: Option<String>,
    /// How often a reading is due, in milliseconds; 0 when it reports on change.
    pub period_ms: u32,
    /// Whether a simulator, not a plant, produces it.
    pub simulated: bool,
}

/// All tags of one edge configuration. Its [`id`](Dictionary::id) is a hash of its content, so a frame can
/// never be read with the wrong one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Dictionary {
    /// The tags, in order of alias.
    pub tags: Vec<Tag>,
}

/// Why a dictionary is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DictionaryError {
    /// Two tags share an alias.
    #[error("alias {0} stands for two tags")]
    DuplicateAlias(u32),
    /// Two tags share a name.
    #[error("tag `{0}` is named twice")]
    DuplicateName(String),
    /// A name is empty or longer than 200 bytes.
    #[error("tag name `{0}` must be 1 to 200 bytes long, without control characters")]
    BadName(String),
    /// More than [`TAGS_MAX`] tags.
    #[error("{0} tags are more than an edge may name")]
    TooMany(usize),
}

impl Dictionary {
    /// Checks that every alias and name stands for one tag.
    ///
    /// # Errors
    /// The first fault found.
    pub fn check(&self) -> Result<(), DictionaryError> {
        if self.tags.len() > TAGS_MAX {
            return Err(DictionaryError::TooMany(self.tags.len()));
        }
        let mut aliases = std::collections::HashSet::new();
        let mut names = std::collections::HashSet::new();
        for tag in &self.tags {
            if tag.name.is_empty() || tag.name.len() > 200 || tag.name.chars().any(char::is_control) {
                return Err(DictionaryError::BadName(
                    tag.name.escape_default().take(200).collect(),
                ));
            }
            if !aliases.insert(tag.alias) {
                return Err(DictionaryError::DuplicateAlias(tag.alias.0));
            }
            if !names.insert(tag.name.as_str()) {
                return Err(DictionaryError::DuplicateName(tag.name.clone()));
            }
        }
        Ok(())
    }

    /// UUIDv5 of the encoded content.
    pub fn id(&self) -> Uuid {
        Uuid::new_v5(&DICTIONARY_NAMESPACE, &self.encode())
    }

    /// The dictionary as an envelope.
    pub fn encode(&self) -> Vec<u8> {
        envelope::seal(envelope::Kind::Dictionary, &(), self)
    }

    /// Reads and checks an envelope.
    ///
    /// # Errors
    /// [`envelope::DecodeError`] for bytes that are no valid dictionary.
    pub fn decode(bytes: &[u8]) -> Result<Self, envelope::DecodeError> {
        let opened = envelope::open(bytes, envelope::Kind::Dictionary)?;
        let dictionary: Self = opened.body()?;
        dictionary
            .check()
            .map_err(|fault| envelope::DecodeError::Invalid(fault.to_string()))?;
        Ok(dictionary)
    }

    /// The tag behind an alias.
    pub fn tag(&self, alias: Alias) -> Option<&Tag> {
        // Aliases are usually 0..n in order; fall back to a search when they are not.
        let guess = self.tags.get(alias.0 as usize).filter(|tag| tag.alias == alias);
        guess.or_else(|| self.tags.iter().find(|tag| tag.alias == alias))
    }
}

const DICTIONARY_NAMESPACE: Uuid = Uuid::from_u128(0x8f0f_9a4e_0c53_4d0e_9c2f_1d3a_7d1b_0001);
