//! How far may a value be trusted? OPC UA's good / uncertain / bad with its sub-status.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The high 16 bits of an OPC UA `StatusCode` (OPC UA Part 4 §7.39): two bits of severity, then the sub-status.
///
/// Storing the standard's own number keeps a reading's reason comparable with what the device said.
///
/// ```
/// use protocol::quality::{Quality, Status};
/// assert_eq!(Quality::GOOD.status(), Status::Good);
/// assert_eq!(Quality::from_code(0x808C).status(), Status::Bad);
/// assert_eq!(Quality::from_code(0x808C).name(), "bad.sensor_failure");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Quality(u16);

/// The severity of a [`Quality`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Use it.
    Good,
    /// Use it knowing the reason it is doubtful.
    Uncertain,
    /// Do not use the value; the record says why there is none.
    Bad,
}

macro_rules! sub_statuses {
    ($($(#[$doc:meta])* $constant:ident = $code:literal, $name:literal;)*) => {
        impl Quality {
            $($(#[$doc])* pub const $constant: Self = Self($code);)*

            /// Dotted name of a known code, or the name of its severity.
            pub const fn name(self) -> &'static str {
                match self.0 {
                    $($code => $name,)*
                    code if code & 0xC000 == 0 => "good",
                    code if code & 0xC000 == 0x4000 => "uncertain",
                    _ => "bad",
                }
            }
        }
    };
}

sub_statuses! {
    /// Valid value.
    GOOD = 0x0000, "good";
    /// A good value whose source says no time: the time of receipt stands for it. Not in the standard, which has no
    /// word for it.
    GOOD_TIME_OF_RECEIPT = 0x00F0, "good.time_of_receipt";
    /// A good value that came more than a week after its time: filled in later. Not in the standard.
    GOOD_LATE = 0x00F1, "good.late";
    /// Doubtful without a stated reason.
    UNCERTAIN = 0x4000, "uncertain";
    /// The last value before the source stopped updating.
    UNCERTAIN_LAST_USABLE = 0x4090, "uncertain.last_usable";
    /// The sensor's own self-check doubts it.
    UNCERTAIN_SENSOR = 0x4093, "uncertain.sensor_not_accurate";
    /// A good value whose source time cannot be right: far ahead of or far behind the receive time. Not in the
    /// standard, which has no word for it.
    UNCERTAIN_TIME = 0x40F0, "uncertain.time";
    /// No value, no stated reason.
    BAD = 0x8000, "bad";
    /// The transport failed in the middle of an exchange.
    BAD_COMMUNICATION = 0x8005, "bad.communication_error";
    /// No reply in time.
    BAD_TIMEOUT = 0x800A, "bad.timeout";
    /// The device refused this address or node.
    BAD_ADDRESS = 0x8034, "bad.node_id_unknown";
    /// A value outside what the type or scale can carry (NaN and infinities included).
    BAD_OUT_OF_RANGE = 0x803C, "bad.out_of_range";
    /// The device answered with another type than the tag's.
    BAD_TYPE = 0x8074, "bad.type_mismatch";
    /// The tag's configuration cannot be used.
    BAD_CONFIGURATION = 0x8089, "bad.configuration_error";
    /// Not connected when the reading was due.
    BAD_NOT_CONNECTED = 0x808A, "bad.not_connected";
    /// The device reports a failure of its own.
    BAD_DEVICE_FAILURE = 0x808B, "bad.device_failure";
    /// The sensor reports or is judged to have failed (stuck).
    BAD_SENSOR_FAILURE = 0x808C, "bad.sensor_failure";
    /// Taken out of service by a person.
    BAD_OUT_OF_SERVICE = 0x808D, "bad.out_of_service";
}

impl Quality {
    /// From the 16-bit code as stored and sent.
    pub const fn from_code(code: u16) -> Self {
        Self(code)
    }

    /// From a whole OPC UA status code; the low half (limit and overflow bits) is not quality.
    pub const fn from_opcua(status: u32) -> Self {
        Self((status >> 16) as u16)
    }

    /// The 16-bit code.
    pub const fn code(self) -> u16 {
        self.0
    }

    /// As PostgreSQL's `int2` holds it: the same 16 bits, signed.
    pub const fn to_i16(self) -> i16 {
        self.0.cast_signed()
    }

    /// Back from PostgreSQL's `int2`.
    pub const fn from_i16(bits: i16) -> Self {
        Self(bits.cast_unsigned())
    }

    /// Good, uncertain or bad. The reserved severity `0b11` counts as bad: unknown is never trusted.
    pub const fn status(self) -> Status {
        match self.0 >> 14 {
            0 => Status::Good,
            1 => Status::Uncertain,
            _ => Status::Bad,
        }
    }

    /// Whether a critical limit may be judged on it.
    pub const fn is_good(self) -> bool {
        matches!(self.status(), Status::Good)
    }

    /// Whether there is no value at all.
    pub const fn is_bad(self) -> bool {
        matches!(self.status(), Status::Bad)
    }
}

impl fmt::Debug for Quality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({:#06x})", self.name(), self.0)
    }
}

impl fmt::Display for Quality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserved_severity_counts_as_bad() {
        assert_eq!(Quality::from_code(0xC000).status(), Status::Bad);
    }

    #[test]
    fn every_code_survives_the_signed_column() {
        for code in 0..=u16::MAX {
            assert_eq!(Quality::from_i16(Quality::from_code(code).to_i16()).code(), code);
        }
    }

    #[test]
    fn an_opcua_status_code_keeps_its_reason_and_drops_its_info_bits() {
        // BadSensorFailure with the Overflow info bits set (Part 4, Table 177).
        assert_eq!(Quality::from_opcua(0x808C_0480), Quality::BAD_SENSOR_FAILURE);
    }
}
