//! Which variables replace parts of the file? `FOODFLOW_EDGE__SECTION__KEY`, written without quotes.

use std::borrow::Cow;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::section::ENVIRONMENT;

const PREFIX: &str = "FOODFLOW_EDGE__";

/// The variables as tables of a file would be.
pub(super) fn overrides(variables: impl Iterator<Item = (String, String)>) -> DeTable<'static> {
    let mut root = DeTable::new();
    for (name, value) in variables {
        let path = name.strip_prefix(PREFIX).and_then(|rest| rest.split_once("__"));
        let Some((section, key)) = path else { continue };
        let table = root
            .entry(spanned(Cow::Owned(section.to_lowercase())))
            .or_insert_with(|| spanned(DeValue::Table(DeTable::new())));
        if let DeValue::Table(table) = table.get_mut() {
            table.insert(spanned(Cow::Owned(key.to_lowercase())), spanned(scalar(value)));
        }
    }
    root
}

/// `true` is what it would be in the file; anything else is a string, which a section reads as a number where it
/// wants one.
fn scalar(text: String) -> DeValue<'static> {
    text.parse::<bool>()
        .map_or_else(|_| DeValue::String(Cow::Owned(text)), DeValue::Boolean)
}

fn spanned<T>(value: T) -> Spanned<T> {
    Spanned::new(ENVIRONMENT, value)
}
