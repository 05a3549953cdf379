//! What exactly did a person sign when they entered a value by hand? The canonical text of a [`ManualEntry`], over which
//! its hash is taken: the same on the line PC and wherever the record is verified.

use crate::event::ManualEntry;

/// The text that the signature covers: every field but the hash, one a line, in this order. The value is written with
/// the fewest digits that give back the same double.
///
/// ```
/// # use protocol::event::ManualEntry;
/// # let entry = ManualEntry { id: uuid::Uuid::nil(), at_us: 2, measured_us: 1, tag: "T".into(), value: 3.4,
/// #     badge: "b1".into(), name: "Avery".into(), meaning: "performed".into(), note: String::new(),
/// #     sha256: String::new() };
/// assert_eq!(
///     protocol::manual::canonical_text(&entry),
///     "foodflow manual entry 1\nid 00000000-0000-0000-0000-000000000000\nentered_us 2\nmeasured_us 1\ntag \"T\"\n\
///      value 3.4\nbadge \"b1\"\nname \"Avery\"\nmeaning \"performed\"\nnote \"\"\n"
/// );
/// ```
pub fn canonical_text(entry: &ManualEntry) -> String {
    format!(
        "foodflow manual entry 1\nid {}\nentered_us {}\nmeasured_us {}\ntag {}\nvalue {}\nbadge {}\nname {}\n\
         meaning {}\nnote {}\n",
        entry.id.hyphenated(),
        entry.at_us,
        entry.measured_us,
        quoted(&entry.tag),
        entry.value,
        quoted(&entry.badge),
        quoted(&entry.name),
        quoted(&entry.meaning),
        quoted(&entry.note),
    )
}

/// In quotes, so that no field can be taken for another: `\` and `"` escaped, control characters as `\u{…}`.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '\\' | '"' => {
                out.push('\\');
                out.push(c);
            }
            c if c.is_control() => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn entry(tag: &str, note: &str) -> ManualEntry {
        ManualEntry {
            id: Uuid::nil(),
            at_us: 2,
            measured_us: 1,
            tag: tag.to_owned(),
            value: 3.4,
            badge: "b1".to_owned(),
            name: "Avery".to_owned(),
            meaning: "performed".to_owned(),
            note: note.to_owned(),
            sha256: String::new(),
        }
    }

    proptest! {
        #[test]
        fn two_entries_have_one_text_only_when_they_say_the_same(
            a in ("\\PC{0,12}|[\"\\\\\n]{0,6}", "\\PC{0,12}|[\"\\\\\n]{0,6}"),
            b in ("\\PC{0,12}|[\"\\\\\n]{0,6}", "\\PC{0,12}|[\"\\\\\n]{0,6}"),
        ) {
            let texts = [&a, &b].map(|(tag, note)| canonical_text(&entry(tag, note)));
            prop_assert_eq!(texts[0] == texts[1], a == b);
            prop_assert_eq!(texts[0].lines().count(), 10);
        }
    }
}
