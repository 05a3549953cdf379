//! What did the person enter? The fields of a form as a manual entry, or what is wrong with which field. Pure.

use protocol::{Micros, event::ManualEntry, manual::canonical_text};
use uuid::Uuid;

use super::{
    badge::Badge,
    form::{Fields, line},
};
use crate::{hex::sha256_hex, signal::ManualPlan};

/// Most characters of a note.
const NOTE_CHARS_MAX: usize = 500;
/// A value can be entered this long after it was measured, minutes. Control points are judged when it is entered, and
/// what they know of the product must not be much older than it seems.
const MEASURED_AGO_MIN_MAX: i64 = 15;

/// A value as it was entered, before anybody signed it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Draft {
    value: f64,
    measured_us: Micros,
    note: String,
}

/// Reads the fields `value`, `ago`, `note` and `confirmed`.
///
/// # Errors
/// For people: the field and the remedy.
pub(super) fn read(plan: &ManualPlan, fields: &Fields, now_us: Micros) -> Result<Draft, String> {
    let value = read_value(&line(fields, "value", 40)?, &plan.unit)?;
    let ago = line(fields, "ago", 10)?;
    let ago: i64 = if ago.is_empty() { Ok(0) } else { ago.parse() }.unwrap_or(-1);
    if !(0..=MEASURED_AGO_MIN_MAX).contains(&ago) {
        return Err(format!(
            "Minutes since it was measured: write a whole number from 0 to {MEASURED_AGO_MIN_MAX}."
        ));
    }
    let note = line(fields, "note", NOTE_CHARS_MAX)?;
    let is_plausible = plan.low.is_none_or(|low| value >= low) && plan.high.is_none_or(|high| value <= high);
    let is_confirmed = fields.contains_key("confirmed");
    if !is_plausible && !is_confirmed {
        return Err(format!(
            "{value} {} is unlikely ({}). If that is what you measured, tick “The value is right” and send it again.",
            plan.unit,
            range(plan)
        ));
    }
    let note = match (is_plausible, note.is_empty()) {
        (true, _) => note,
        (false, true) => format!("confirmed outside {}", range(plan)),
        (false, false) => format!("{note} (confirmed outside {})", range(plan)),
    };
    Ok(Draft {
        value,
        measured_us: now_us - ago * 60_000_000,
        note,
    })
}

/// A comma is refused: `1,234` is one number here and another there.
fn read_value(text: &str, unit: &str) -> Result<f64, String> {
    if text.contains(',') {
        return Err("Write the value with a point, like 3.4.".to_owned());
    }
    let is_number = |text: &str| text.chars().all(|c| c.is_ascii_digit() || ".-+".contains(c));
    let value = text.parse::<f64>().ok();
    value
        .filter(|value| value.is_finite() && is_number(text))
        .ok_or_else(|| format!("The value must be a number in {unit}, like 3.4."))
}

/// What is likely, for people.
pub(super) fn range(plan: &ManualPlan) -> String {
    match (plan.low, plan.high) {
        (Some(low), Some(high)) => format!("{low} to {high} {}", plan.unit),
        (Some(low), None) => format!("{low} {} or more", plan.unit),
        (None, Some(high)) => format!("{high} {} or less", plan.unit),
        (None, None) => "any value".to_owned(),
    }
}

/// The entry as it is signed: its hash covers everything else in it.
pub(super) fn sign(draft: Draft, plan: &ManualPlan, badge: &Badge, id: Uuid, now_us: Micros) -> ManualEntry {
    let mut entry = ManualEntry {
        id,
        at_us: now_us,
        measured_us: draft.measured_us,
        tag: plan.name.clone(),
        value: draft.value,
        badge: badge.id.clone(),
        name: badge.name.clone(),
        meaning: "performed".to_owned(),
        note: draft.note,
        sha256: String::new(),
    };
    entry.sha256 = sha256_hex(canonical_text(&entry).as_bytes());
    entry
}

#[cfg(test)]
mod tests {
    use protocol::reading::Alias;

    use super::*;
    use crate::local::badge::{Role, tests::badge};

    const NOW_US: Micros = 1_000_000_000_000;

    fn plan() -> ManualPlan {
        ManualPlan {
            alias: Alias(0),
            name: "TT-403.HAND".to_owned(),
            line: None,
            unit: "degC".to_owned(),
            description: String::new(),
            low: Some(-5.0),
            high: Some(30.0),
            every_us: None,
            grace_us: 0,
            gate: None,
        }
    }

    fn fields(pairs: &[(&str, &str)]) -> Fields {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn a_value_is_read_with_when_it_was_measured() {
        let draft = read(
            &plan(),
            &fields(&[("value", " 3.4 "), ("ago", "5"), ("note", "bin 2")]),
            NOW_US,
        );
        let expected = Draft {
            value: 3.4,
            measured_us: NOW_US - 300_000_000,
            note: "bin 2".to_owned(),
        };
        assert_eq!(draft, Ok(expected));
    }

    #[test]
    fn what_is_no_number_is_refused_with_the_remedy() {
        for (value, wanted) in [
            ("3,4", "with a point"),
            ("1,234", "with a point"),
            ("", "must be a number in degC"),
            ("NaN", "must be a number"),
            ("inf", "must be a number"),
            ("1e3", "must be a number"),
            ("0x10", "must be a number"),
            ("3.4 C", "must be a number"),
        ] {
            let refused = read(&plan(), &fields(&[("value", value)]), NOW_US).unwrap_err();
            assert!(refused.contains(wanted), "{value}: {refused}");
        }
        for ago in ["-1", "16", "soon", "99999999999999999999"] {
            assert!(read(&plan(), &fields(&[("value", "3"), ("ago", ago)]), NOW_US).is_err());
        }
        let note = "x".repeat(501);
        assert!(read(&plan(), &fields(&[("value", "3"), ("note", &note)]), NOW_US).is_err());
    }

    #[test]
    fn an_unlikely_value_counts_once_it_is_confirmed() {
        let refused = read(&plan(), &fields(&[("value", "85")]), NOW_US).unwrap_err();
        assert!(refused.contains("-5 to 30 degC"), "{refused}");
        let draft = read(&plan(), &fields(&[("value", "85"), ("confirmed", "on")]), NOW_US).unwrap();
        assert_eq!(
            (draft.value.to_bits(), draft.note.as_str()),
            (85f64.to_bits(), "confirmed outside -5 to 30 degC")
        );
    }

    #[test]
    fn the_signature_covers_every_field() {
        let draft = read(&plan(), &fields(&[("value", "3.4")]), NOW_US).unwrap();
        let signed = sign(
            draft,
            &plan(),
            &badge("b1", Role::Operator, "1234"),
            Uuid::nil(),
            NOW_US,
        );
        assert_eq!(signed.sha256, sha256_hex(canonical_text(&signed).as_bytes()));
        let changes: [fn(&mut ManualEntry); 5] = [
            |entry| entry.value = 3.5,
            |entry| entry.measured_us += 1,
            |entry| entry.badge = "b2".to_owned(),
            |entry| entry.tag = "TT-404".to_owned(),
            |entry| entry.note = "other".to_owned(),
        ];
        for change in changes {
            let mut changed = signed.clone();
            change(&mut changed);
            assert_ne!(sha256_hex(canonical_text(&changed).as_bytes()), signed.sha256);
        }
    }
}
