//! What stands in a cell? A record's fields in the order of its struct, times readable, and text that a
//! spreadsheet would run as a formula made harmless.

use chrono::DateTime;
use serde::{
    Serialize,
    de::{self, DeserializeOwned, Deserializer, Visitor},
    forward_to_deserialize_any,
};
use serde_json::{Number, Value};

use super::{super::audit::canonical, iso};
use crate::error::{Error, Result};

/// One value of a row.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Cell {
    Empty,
    Text(String),
    Number(Number),
    Flag(bool),
}

/// The fields of `T` in the order of its struct.
pub(super) fn fields<T: DeserializeOwned>() -> &'static [&'static str] {
    let mut fields: &'static [&'static str] = &[];
    // It asks for no value: the derived code says its fields and is refused.
    drop(T::deserialize(Asking(&mut fields)));
    fields
}

/// Answers a struct's question for its fields with an error, having noted which they are.
struct Asking<'a>(&'a mut &'static [&'static str]);

impl<'de> Deserializer<'de> for Asking<'_> {
    type Error = de::value::Error;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Self::Error> {
        *self.0 = fields;
        Err(de::Error::custom("only the fields were asked for"))
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
        Err(de::Error::custom("no struct with named fields"))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// The column of a field.
pub(super) fn title(field: &str) -> String {
    field
        .strip_suffix("_us")
        .map_or_else(|| field.to_owned(), |stem| format!("{stem}_at"))
}

/// The values of a record in the order of `fields`.
pub(super) fn cells(fields: &[&str], record: &impl Serialize) -> Result<Vec<Cell>> {
    let Value::Object(mut values) =
        serde_json::to_value(record).map_err(|source| Error::Internal(source.into()))?
    else {
        return Err(Error::Internal(anyhow::anyhow!("a record must be a struct")));
    };
    let of = |field: &&str| cell(field, values.remove(*field).unwrap_or_default());
    Ok(fields.iter().map(of).collect())
}

fn cell(field: &str, value: Value) -> Cell {
    match value {
        Value::Null => Cell::Empty,
        Value::Bool(flag) => Cell::Flag(flag),
        Value::String(text) => Cell::Text(text),
        Value::Number(number) if field.ends_with("_us") => number
            .as_i64()
            .and_then(DateTime::from_timestamp_micros)
            .map_or(Cell::Number(number), |time| Cell::Text(iso(time))),
        Value::Number(number) => Cell::Number(number),
        list => Cell::Text(canonical(&list)),
    }
}

/// Text as a CSV cell. Whatever a spreadsheet would take for a formula gets an apostrophe in front, and so does
/// text that has one there already: take one off to have what was stored.
pub(super) fn harmless(text: &str) -> String {
    if text.starts_with(['=', '+', '-', '@', '\t', '\r', '\'']) {
        format!("'{text}")
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Serialize, Deserialize)]
    struct Row {
        name: String,
        at_us: i64,
        score: Option<f64>,
        tags: Vec<String>,
    }

    #[test]
    fn columns_stand_in_the_order_of_the_struct_even_without_a_row() {
        assert_eq!(fields::<Row>(), ["name", "at_us", "score", "tags"]);
        assert!(fields::<Vec<i32>>().is_empty());
    }

    #[test]
    fn a_time_is_readable_and_null_is_nothing() {
        let row = json!({ "name": "x", "at_us": 1_700_000_000_000_001_i64, "score": null, "tags": ["a"] });
        assert_eq!(
            cells(fields::<Row>(), &row).unwrap(),
            [
                Cell::Text("x".to_owned()),
                Cell::Text("2023-11-14T22:13:20.000001Z".to_owned()),
                Cell::Empty,
                Cell::Text(r#"["a"]"#.to_owned())
            ]
        );
    }

    #[test]
    fn no_text_is_a_formula_and_one_apostrophe_less_is_the_text() {
        for text in ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "'quoted"] {
            let shown = harmless(text);
            assert!(shown.starts_with('\''), "{text}");
            assert_eq!(&shown[1..], text);
        }
        assert_eq!(harmless("a=b"), "a=b");
    }
}
