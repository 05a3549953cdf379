//! Is this a time zone? Lots take their day from it, so the hub's own list of zones decides.

use serde::{Deserialize, Deserializer, de::Error as _};

/// Reads the name of an IANA time zone.
pub(super) fn needed<'de, D: Deserializer<'de>>(given: D) -> Result<String, D::Error> {
    let zone = String::deserialize(given)?;
    match zone.parse::<chrono_tz::Tz>() {
        Ok(_) => Ok(zone),
        Err(_) => Err(D::Error::custom("`zone` must be the name of an IANA time zone")),
    }
}

/// The same where it may be absent.
pub(super) fn if_given<'de, D: Deserializer<'de>>(given: D) -> Result<Option<String>, D::Error> {
    Option::<Named>::deserialize(given).map(|named| named.map(|Named(zone)| zone))
}

#[derive(Deserialize)]
struct Named(#[serde(deserialize_with = "needed")] String);
