//! How is a list cut into pages? A cursor holds where the page before ended: the value it was sorted by and the id.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::IntoParams;
use uuid::Uuid;

use crate::error::{Error, Result};

/// How much of a list to return, and in what order.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PageParams {
    /// `next` of the page before.
    pub cursor: Option<String>,
    /// Rows per page, 1 to 200; 100 when absent.
    #[param(minimum = 1, maximum = 200)]
    pub limit: Option<i64>,
    /// Field to sort by; `-` in front sorts descending. By id, which is by creation, when absent.
    pub sort: Option<String>,
}

impl PageParams {
    /// The parameters that belong to the page; every other one is a filter.
    pub const NAMES: [&'static str; 3] = ["cursor", "limit", "sort"];
}

/// A sort order that was found in a list of allowed ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sort {
    /// Field.
    pub field: &'static str,
    /// Direction.
    pub is_descending: bool,
}

impl Sort {
    /// Checks `sort` against the fields that may be sorted by, besides `id`.
    ///
    /// # Errors
    /// [`Error::Invalid`] names what is allowed.
    pub fn parse(sort: Option<&str>, allowed: &'static [&'static str]) -> Result<Self> {
        let given = sort.unwrap_or("id");
        let (name, is_descending) = given
            .strip_prefix('-')
            .map_or((given, false), |name| (name, true));
        let fields = std::iter::once(&"id").chain(allowed);
        let field = fields.copied().find(|field| *field == name).ok_or_else(|| {
            let mut names = vec!["id"];
            names.extend(allowed);
            Error::Invalid(format!("`sort` must be one of {}", names.join(", ")))
        })?;
        Ok(Self { field, is_descending })
    }

    /// Direction and comparison in SQL.
    pub const fn sql(self) -> (&'static str, &'static str) {
        if self.is_descending {
            ("DESC", "<")
        } else {
            ("ASC", ">")
        }
    }
}

/// Where a page ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cursor {
    /// The sort it belongs to.
    pub s: String,
    /// Value of the sort field in the last row.
    pub v: Value,
    /// Id of the last row.
    pub i: Uuid,
}

impl Cursor {
    /// As a client carries it.
    pub fn encode(&self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).unwrap_or_default())
    }

    /// Reads a cursor of the same sort order.
    ///
    /// # Errors
    /// [`Error::Invalid`] for any other text.
    pub fn decode(text: &str, sort: &str) -> Result<Self> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok();
        let cursor: Option<Self> = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        cursor
            .filter(|cursor| cursor.s == sort && !cursor.v.is_object() && !cursor.v.is_array())
            .ok_or_else(|| Error::Invalid("`cursor` is not the `next` of a page with this `sort`".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_good_for_its_own_order_only() {
        let cursor = Cursor {
            s: "-name".to_owned(),
            v: "Zoë".into(),
            i: Uuid::from_u128(9),
        };
        assert_eq!(Cursor::decode(&cursor.encode(), "-name").unwrap(), cursor);
        assert!(Cursor::decode(&cursor.encode(), "name").is_err());
        for wrong in ["", "nonsense", "e30", "AAAA"] {
            assert!(Cursor::decode(wrong, "-name").is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_listed_fields_are_sorted_by() {
        assert_eq!(
            Sort::parse(Some("-name"), &["name"]).unwrap(),
            Sort {
                field: "name",
                is_descending: true
            }
        );
        assert_eq!(Sort::parse(None, &[]).unwrap().field, "id");
        assert!(Sort::parse(Some("name; drop table lot"), &["name"]).is_err());
        assert!(Sort::parse(Some("tenant_id"), &["name"]).is_err());
    }
}
