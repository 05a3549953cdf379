//! How is a TOML table read so that every fault is found, with its line? A section hands out typed values,
//! records what is wrong with each, and at the end names the keys that nobody asked for.

use std::{cell::RefCell, collections::BTreeSet, ops::Range, time::Duration};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{quantity, suggest};

/// One thing that is wrong with a configuration, and where.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// 1-based line; 0 for a value from the environment.
    pub line: usize,
    /// What is wrong, and what would be right.
    pub message: String,
}

/// Where values from the environment stand.
pub(super) const ENVIRONMENT: Range<usize> = usize::MAX..usize::MAX;

/// Collects the faults of one file.
#[derive(Debug)]
pub struct Faults<'a> {
    text: &'a str,
    found: RefCell<Vec<Fault>>,
}

impl<'a> Faults<'a> {
    /// An empty collection for a file's text.
    pub fn new(text: &'a str) -> Self {
        Self {
            text,
            found: RefCell::new(Vec::new()),
        }
    }

    /// Records a fault at a byte position of the text, or in the environment.
    pub fn add(&self, at: &Range<usize>, message: impl Into<String>) {
        if *at == ENVIRONMENT {
            let message = message.into();
            self.found.borrow_mut().push(Fault { line: 0, message });
            return;
        }
        let end = at.start.min(self.text.len());
        let line = String::from_utf8_lossy(&self.text.as_bytes()[..end])
            .matches('\n')
            .count()
            + 1;
        self.found.borrow_mut().push(Fault {
            line,
            message: message.into(),
        });
    }

    /// All faults, by line.
    pub fn into_sorted(self) -> Vec<Fault> {
        let mut found = self.found.into_inner();
        found.sort();
        found.dedup();
        found
    }
}

/// A value together with where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct At<T> {
    /// The value.
    pub value: T,
    /// Where it stands in the text.
    pub span: Range<usize>,
}

/// One table of the file while it is being read.
#[derive(Debug)]
pub struct Section<'a> {
    name: String,
    table: Option<&'a DeTable<'a>>,
    /// From the environment; these come before the file's.
    overrides: Option<&'a DeTable<'a>>,
    span: Range<usize>,
    asked: RefCell<BTreeSet<&'static str>>,
    faults: &'a Faults<'a>,
}

impl<'a> Section<'a> {
    /// The whole file.
    pub fn root(table: &'a DeTable<'a>, overrides: &'a DeTable<'a>, faults: &'a Faults<'a>) -> Self {
        Self {
            overrides: Some(overrides),
            ..Self::new(String::new(), Some(table), 0..0, faults)
        }
    }

    fn new(name: String, table: Option<&'a DeTable<'a>>, span: Range<usize>, faults: &'a Faults<'a>) -> Self {
        Self {
            name,
            table,
            overrides: None,
            span,
            asked: RefCell::new(BTreeSet::new()),
            faults,
        }
    }

    /// Where the section stands.
    pub fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// Whether the key is there, whatever its value.
    pub fn has(&self, key: &'static str) -> bool {
        self.get(key).is_some()
    }

    /// Records a fault of the section as a whole.
    pub fn fault(&self, message: impl Into<String>) {
        self.faults.add(&self.span, message);
    }

    /// Records a fault at a place.
    pub fn fault_at(&self, span: &Range<usize>, message: impl Into<String>) {
        self.faults.add(span, message);
    }

    fn get(&self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.asked.borrow_mut().insert(key);
        let overriding = self.overrides.and_then(|overrides| overrides.get(key));
        overriding.or_else(|| self.table?.get(key))
    }

    fn path(&self, key: &str) -> String {
        if self.name.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.name)
        }
    }

    fn wrong(&self, key: &str, value: &Spanned<DeValue<'_>>, wanted: &str) {
        let found = kind(value.get_ref());
        self.faults.add(
            &value.span(),
            format!("`{}` must be {wanted}, not {found}", self.path(key)),
        );
    }

    fn missing(&self, key: &str, wanted: &str) {
        self.faults.add(
            &self.span,
            format!("`{}` is missing (it must be {wanted})", self.path(key)),
        );
    }

    /// A table under `key`; an empty one when it is absent.
    #[must_use]
    pub fn table(&self, key: &'static str) -> Section<'a> {
        self.asked.borrow_mut().insert(key);
        let name = self.path(key);
        let mut section = Section::new(name, None, self.span.clone(), self.faults);
        if let Some(value) = self.table.and_then(|table| table.get(key)) {
            section.span = value.span();
            if let DeValue::Table(table) = value.get_ref() {
                section.table = Some(table);
            } else {
                self.wrong(key, value, "a table");
            }
        }
        if let Some(DeValue::Table(table)) = self.overrides.and_then(|all| all.get(key)).map(Spanned::get_ref)
        {
            section.overrides = Some(table);
        }
        section
    }

    /// The tables of an array `[[key]]`.
    pub fn tables(&self, key: &'static str) -> Vec<Section<'a>> {
        let Some(value) = self.get(key) else {
            return Vec::new();
        };
        let DeValue::Array(items) = value.get_ref() else {
            self.wrong(
                key,
                value,
                &format!("an array of tables `[[{}]]`", self.path(key)),
            );
            return Vec::new();
        };
        let mut sections = Vec::new();
        for item in items {
            if let DeValue::Table(table) = item.get_ref() {
                sections.push(Section::new(
                    self.path(key),
                    Some(table),
                    item.span(),
                    self.faults,
                ));
            } else {
                self.wrong(key, item, "a table");
            }
        }
        sections
    }

    /// A string, when there is one.
    pub fn text(&self, key: &'static str) -> Option<At<String>> {
        let value = self.get(key)?;
        if let DeValue::String(text) = value.get_ref() {
            Some(At {
                value: text.to_string(),
                span: value.span(),
            })
        } else {
            self.wrong(key, value, "a string");
            None
        }
    }

    /// The strings of an array.
    pub fn texts(&self, key: &'static str) -> Vec<At<String>> {
        let Some(value) = self.get(key) else {
            return Vec::new();
        };
        let DeValue::Array(items) = value.get_ref() else {
            self.wrong(key, value, "an array of strings");
            return Vec::new();
        };
        let mut texts = Vec::new();
        for item in items {
            if let DeValue::String(text) = item.get_ref() {
                texts.push(At {
                    value: text.to_string(),
                    span: item.span(),
                });
            } else {
                self.wrong(key, item, "a string");
            }
        }
        texts
    }

    /// A string that must be there and not be empty.
    pub fn required_text(&self, key: &'static str) -> Option<At<String>> {
        if !self.has(key) {
            self.missing(key, "a string");
            return None;
        }
        let text = self.text(key)?;
        if text.value.trim().is_empty() {
            self.faults
                .add(&text.span, format!("`{}` must not be empty", self.path(key)));
            return None;
        }
        Some(text)
    }

    /// One of the given words.
    pub fn choice<T: Copy>(&self, key: &'static str, words: &[(&str, T)]) -> Option<T> {
        let text = self.text(key)?;
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text.value) {
            return Some(*value);
        }
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        self.faults.add(
            &text.span,
            format!(
                "`{}` is `{}`; expected one of {}{}",
                self.path(key),
                text.value,
                known.join(", "),
                suggest(&text.value, &known)
            ),
        );
        None
    }

    /// `true` or `false`.
    pub fn flag(&self, key: &'static str, default: bool) -> bool {
        match self.get(key).map(|value| (value, value.get_ref())) {
            None => default,
            Some((_, DeValue::Boolean(flag))) => *flag,
            Some((value, _)) => {
                self.wrong(key, value, "true or false");
                default
            }
        }
    }

    /// A whole number within a range.
    pub fn integer(&self, key: &'static str, range: std::ops::RangeInclusive<i64>) -> Option<i64> {
        let value = self.get(key)?;
        let number = match value.get_ref() {
            DeValue::Integer(number) => {
                i64::from_str_radix(&number.as_str().replace('_', ""), number.radix()).ok()
            }
            DeValue::String(text) if value.span() == ENVIRONMENT => text.parse().ok(),
            _ => {
                self.wrong(key, value, "a whole number");
                return None;
            }
        };
        if let Some(number) = number.filter(|number| range.contains(number)) {
            return Some(number);
        }
        let (low, high) = range.into_inner();
        self.faults.add(
            &value.span(),
            format!("`{}` must be between {low} and {high}", self.path(key)),
        );
        None
    }

    /// A finite number, whole or not.
    pub fn number(&self, key: &'static str) -> Option<At<f64>> {
        let value = self.get(key)?;
        let number = match value.get_ref() {
            DeValue::Integer(number) => number.as_str().replace('_', "").parse::<f64>().ok(),
            DeValue::Float(number) => number.as_str().replace('_', "").parse::<f64>().ok(),
            _ => {
                self.wrong(key, value, "a number");
                return None;
            }
        };
        let finite = number.filter(|number| number.is_finite());
        if finite.is_none() {
            self.faults.add(
                &value.span(),
                format!("`{}` must be a finite number", self.path(key)),
            );
        }
        finite.map(|value_found| At {
            value: value_found,
            span: value.span(),
        })
    }

    /// A duration such as `"250ms"`, within a range.
    pub fn duration(&self, key: &'static str, range: std::ops::RangeInclusive<Duration>) -> Option<Duration> {
        let text = self.text(key)?;
        match quantity::duration(&text.value) {
            Ok(duration) if range.contains(&duration) => Some(duration),
            Ok(_) => {
                let (low, high) = range.into_inner();
                self.faults.add(
                    &text.span,
                    format!("`{}` must be between {low:?} and {high:?}", self.path(key)),
                );
                None
            }
            Err(why) => {
                self.faults
                    .add(&text.span, format!("`{}`: {why}", self.path(key)));
                None
            }
        }
    }

    /// A size such as `"64MiB"`, within a range of bytes.
    pub fn bytes(&self, key: &'static str, range: std::ops::RangeInclusive<u64>) -> Option<u64> {
        let text = self.text(key)?;
        match quantity::bytes(&text.value) {
            Ok(bytes) if range.contains(&bytes) => Some(bytes),
            Ok(_) => {
                let (low, high) = range.into_inner();
                self.faults.add(
                    &text.span,
                    format!("`{}` must be between {low} and {high} bytes", self.path(key)),
                );
                None
            }
            Err(why) => {
                self.faults
                    .add(&text.span, format!("`{}`: {why}", self.path(key)));
                None
            }
        }
    }

    /// A list of finite numbers; empty when the key is absent.
    pub fn numbers(&self, key: &'static str) -> Vec<f64> {
        let Some(value) = self.get(key) else {
            return Vec::new();
        };
        let DeValue::Array(items) = value.get_ref() else {
            self.wrong(key, value, "a list of numbers, like [-32768, 65535]");
            return Vec::new();
        };
        let numbers = items.iter().map(|item| self.finite(key, item));
        numbers.map(Option::unwrap_or_default).collect()
    }

    /// A table of names and finite numbers, like `{ "RUN" = 1 }`, in order of name; empty when the key is absent.
    pub fn named_numbers(&self, key: &'static str) -> Vec<(String, f64)> {
        let Some(value) = self.get(key) else {
            return Vec::new();
        };
        let DeValue::Table(table) = value.get_ref() else {
            self.wrong(key, value, "a table of names and numbers, like { \"RUN\" = 1 }");
            return Vec::new();
        };
        let entries = table.iter();
        entries
            .map(|(name, item)| {
                (
                    name.get_ref().to_string(),
                    self.finite(key, item).unwrap_or_default(),
                )
            })
            .collect()
    }

    fn finite(&self, key: &str, item: &Spanned<DeValue<'_>>) -> Option<f64> {
        let text = match item.get_ref() {
            DeValue::Integer(number) => number.as_str(),
            DeValue::Float(number) => number.as_str(),
            _ => {
                self.wrong(key, item, "made of numbers");
                return None;
            }
        };
        let number = text.replace('_', "").parse::<f64>().ok();
        let finite = number.filter(|number| number.is_finite());
        if finite.is_none() {
            let message = format!("`{}` must be made of finite decimal numbers", self.path(key));
            self.faults.add(&item.span(), message);
        }
        finite
    }

    /// Ends the section: every key that nobody asked for is a fault.
    pub fn finish(self) {
        self.unknown_keys();
    }

    /// Records a fault for every key that nobody asked for.
    pub fn unknown_keys(&self) {
        let asked = self.asked.borrow();
        let known: Vec<&str> = asked.iter().copied().collect();
        for key in self
            .table
            .into_iter()
            .chain(self.overrides)
            .flat_map(|table| table.keys())
        {
            let name = key.get_ref().as_ref();
            if !asked.contains(name) {
                let message = format!("unknown key `{}`{}", self.path(name), suggest(name, &known));
                self.faults.add(&key.span(), message);
            }
        }
    }
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}
