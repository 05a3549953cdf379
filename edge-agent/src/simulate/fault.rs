//! Which twenty things can go wrong in the simulated plant, where and for how long?
//! The list of `domain.md` E4 as a type; what each does to the plant is in `plant`, what is expected in `truth`.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A fault of the simulated plant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fault {
    /// HTST dip, the flow-diversion valve works.
    F1,
    /// HTST dip, the flow-diversion valve is stuck forward.
    F2,
    /// Oven zone 2 reads 0.15 °C a day more.
    F3,
    /// `TT-101` frozen while `TT-102` moves.
    F4,
    /// No metal detector challenge for 122 minutes.
    F5,
    /// The metal detector does not reject the test piece.
    F6,
    /// A blast chiller load that cools 35 % slower.
    F7,
    /// A burst of defective trays.
    F8,
    /// The hub is away for hours and the edge loses power; a dip in between.
    F9,
    /// The oven PLC's clock is nine minutes ahead.
    F10,
    /// The oven PLC hands over two hours of readings late.
    F11,
    /// A Sparkplug node loses a message and gives its metrics new aliases.
    F12,
    /// The checkweigher's tare shifts by -6 g.
    F13,
    /// An allergen changeover without a swab.
    F14,
    /// The day of 25 hours.
    F15,
    /// A counter rolls over, then is reset.
    F16,
    /// A certificate of analysis without one analyte.
    F17,
    /// Rework of one day goes into the next day's batch.
    F18,
    /// A cold store's door stands open, and later it defrosts.
    F19,
    /// A power dip takes sixty signals within a minute.
    F20,
}

/// What is fixed about a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Script {
    /// For people.
    pub title: &'static str,
    /// The tag on which it shows first; empty for what no tag shows.
    pub tag: &'static str,
    /// Its usual length, plant seconds; none for what lasts until it is ended.
    pub seconds: Option<u32>,
    /// Faults of one group act on the same equipment: starting one ends the other.
    pub group: &'static str,
}

impl Fault {
    /// All twenty, in order.
    pub const ALL: [Self; 20] = [
        Self::F1,
        Self::F2,
        Self::F3,
        Self::F4,
        Self::F5,
        Self::F6,
        Self::F7,
        Self::F8,
        Self::F9,
        Self::F10,
        Self::F11,
        Self::F12,
        Self::F13,
        Self::F14,
        Self::F15,
        Self::F16,
        Self::F17,
        Self::F18,
        Self::F19,
        Self::F20,
    ];

    /// Its place in [`ALL`](Self::ALL).
    pub fn index(self) -> usize {
        self as usize
    }

    /// `f1` to `f20`.
    pub fn name(self) -> &'static str {
        const NAMES: [&str; 20] = [
            "f1", "f2", "f3", "f4", "f5", "f6", "f7", "f8", "f9", "f10", "f11", "f12", "f13", "f14", "f15",
            "f16", "f17", "f18", "f19", "f20",
        ];
        NAMES[self.index()]
    }

    /// What is fixed about it.
    pub fn script(self) -> Script {
        const HOUR_S: u32 = 3_600;
        let (title, tag, seconds, group) = match self {
            Self::F1 => ("HTST dip, diversion works", "TT-101", Some(75), "htst"),
            Self::F2 => ("HTST dip, diversion stuck forward", "TT-101", Some(75), "htst"),
            Self::F3 => (
                "Slow drift of an oven zone",
                "TT-302",
                Some(7 * 24 * HOUR_S),
                "zone 2",
            ),
            Self::F4 => ("Sensor stuck", "TT-101", None, "htst"),
            Self::F5 => ("Missed challenge", "MD-401-CHALLENGE", Some(122 * 60), "detector"),
            Self::F6 => ("Failed challenge", "MD-401-CHALLENGE", Some(30 * 60), "detector"),
            Self::F7 => ("Chiller overload", "TT-204", Some(400 * 60), "chiller"),
            Self::F8 => ("Vision burst", "VS-306", Some(17 * 60), "camera"),
            Self::F9 => ("Hub away and power cut", "TT-101", Some(6 * HOUR_S), "htst"),
            Self::F10 => ("PLC clock nine minutes ahead", "TT-310", Some(20 * 60), "oven"),
            Self::F11 => ("Two hours of late readings", "TT-310", Some(2 * HOUR_S), "oven"),
            Self::F12 => (
                "Sparkplug rebirth with new aliases",
                "AT-408",
                Some(60),
                "sparkplug",
            ),
            Self::F13 => ("Checkweigher tare shift", "WT-302", Some(10 * 60), "checkweigher"),
            Self::F14 => (
                "Allergen changeover without swab",
                "L2-SKU",
                Some(30 * 60),
                "changeover",
            ),
            Self::F15 => ("Day of 25 hours", "", Some(9 * HOUR_S), "calendar"),
            Self::F16 => ("Counter rollover and reset", "L1-COUNT", Some(180), "counter"),
            Self::F17 => ("COA without an analyte", "", Some(60), "receipt"),
            Self::F18 => ("Rework into the next day", "", Some(24 * HOUR_S), "rework"),
            Self::F19 => ("Door open and defrost", "RT-2", Some(45 * 60), "cold store"),
            Self::F20 => ("Alarm flood on a power dip", "KW-101", Some(120), "power"),
        };
        Script {
            title,
            tag,
            seconds,
            group,
        }
    }
}

impl FromStr for Fault {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|fault| fault.name() == name).ok_or(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_has_its_own_name_and_a_place_that_exists() {
        for (n, fault) in Fault::ALL.into_iter().enumerate() {
            assert_eq!((fault.index(), fault.name().parse()), (n, Ok(fault)));
            let tag = fault.script().tag;
            assert!(
                tag.is_empty() || tag == "VS-306" || crate::simulate::tags::find(tag).is_some(),
                "{tag}"
            );
        }
        assert_eq!("f21".parse::<Fault>(), Err(()));
    }
}
