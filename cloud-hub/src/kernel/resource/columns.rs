//! Which columns does a record have, and how does JSON become a row? Names come from the record's own schema.

use std::collections::BTreeMap;

use chrono::DateTime;
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::{
    ToSchema,
    openapi::{RefOr, schema::Schema},
};

use super::Resource;
use crate::error::{Error, Result};

/// The fields of a record, sorted.
///
/// # Panics
/// When `T` is no struct with named fields: a fault of the program that its first test shows.
pub fn columns<T: ToSchema>() -> Vec<String> {
    let RefOr::T(Schema::Object(object)) = T::schema() else {
        panic!("{} is no plain struct", T::name());
    };
    let names: BTreeMap<_, _> = object.properties.iter().collect();
    names.into_keys().cloned().collect()
}

/// The column of a field: times are fields in microseconds and columns with a time zone.
pub(super) fn column(field: &str) -> String {
    field
        .strip_suffix("_us")
        .map_or_else(|| field.to_owned(), |stem| format!("{stem}_at"))
}

/// The select list of `R` from a table called `t`.
pub(super) fn select_list<R: Resource>() -> String {
    let fields = columns::<R>();
    let parts = fields.iter().map(|field| match field.strip_suffix("_us") {
        Some(stem) => format!("(extract(epoch FROM t.{stem}_at) * 1000000)::bigint AS {field}"),
        None => format!("t.{field}"),
    });
    parts.collect::<Vec<_>>().join(", ")
}

/// A typed struct as a row: columns with values as `jsonb_populate_record` reads them. Absent fields are left out.
///
/// # Errors
/// [`Error::Internal`] when it is no struct.
pub(super) fn row_of(fields: &impl Serialize) -> Result<Map<String, Value>> {
    match serde_json::to_value(fields) {
        Ok(Value::Object(fields)) => Ok(fields
            .into_iter()
            .map(|(field, value)| (column(&field), in_sql(&field, value)))
            .collect()),
        Ok(_) => Err(Error::Internal(anyhow::anyhow!("a record must be a struct"))),
        Err(source) => Err(Error::Internal(source.into())),
    }
}

/// Microseconds become what `timestamptz` reads. One that no time can hold is left for the database to refuse.
pub(super) fn in_sql(field: &str, value: Value) -> Value {
    match value.as_i64() {
        Some(us) if field.ends_with("_us") => {
            DateTime::from_timestamp_micros(us).map_or(value, |time| Value::from(time.to_rfc3339()))
        }
        _ => value,
    }
}

/// Names as a list in SQL.
pub(super) fn names<'a>(columns: impl Iterator<Item = &'a String>) -> String {
    columns.cloned().collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn times_are_microseconds_outside_and_timestamps_inside() {
        let row = row_of(&json!({ "valid_from_us": 1_700_000_000_000_001_i64, "name": "x" })).unwrap();
        assert_eq!(row["valid_from_at"], "2023-11-14T22:13:20.000001+00:00");
        assert_eq!(row["name"], "x");
    }
}
