//! How is a list narrowed, sorted and cut? Filters are typed by the table, an unknown one is refused.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use sqlx::{
    AssertSqlSafe, FromRow, Postgres,
    postgres::{PgArguments, PgRow},
    query::QueryAs,
};
use uuid::Uuid;

use super::{
    Resource,
    columns::{column, in_sql, row_of, select_list},
};
use crate::{
    error::{Error, Result},
    kernel::{
        export::FormatParam,
        page::{Cursor, PageParams, Sort},
        tenancy::TenantTx,
    },
    request::{Page, Rows},
};

/// A list's query string: the page's parameters, and the filter from what is left of it.
#[derive(Debug)]
pub struct ListParams<F> {
    /// What to show.
    pub filter: F,
    /// How much of it.
    pub page: PageParams,
}

impl<F: DeserializeOwned> ListParams<F> {
    /// Reads a query string.
    ///
    /// # Errors
    /// [`Error::Invalid`] names a parameter that is unknown, given twice or of the wrong type.
    pub fn parse(query: &str) -> Result<Self> {
        Self::parse_with(query, &[]).map(|(params, _)| params)
    }

    /// Also gives what is said by `others`, the parameters of the route itself.
    fn parse_with(query: &str, others: &[&str]) -> Result<(Self, Pairs)> {
        let (mut page, mut filter, mut rest) = (Vec::new(), Vec::new(), Vec::new());
        let mut seen = Vec::new();
        for (name, value) in form_urlencoded(query) {
            if seen.contains(&name) {
                return Err(Error::Invalid(format!("`{name}` is given twice")));
            }
            seen.push(name.clone());
            if PageParams::NAMES.contains(&name.as_str()) {
                page.push((name, value));
            } else if others.contains(&name.as_str()) {
                rest.push((name, value));
            } else {
                filter.push((name, value));
            }
        }
        let (filter, page) = (typed(&filter)?, typed(&page)?);
        Ok((Self { filter, page }, rest))
    }
}

type Pairs = Vec<(String, String)>;

fn form_urlencoded(query: &str) -> Pairs {
    serde_urlencoded::from_str(query).unwrap_or_default()
}

fn typed<T: DeserializeOwned>(pairs: &[(String, String)]) -> Result<T> {
    let text = serde_urlencoded::to_string(pairs).map_err(|source| Error::Internal(source.into()))?;
    let reader = serde_urlencoded::Deserializer::new(form(text.as_bytes()));
    T::deserialize(reader).map_err(|error| Error::Invalid(error.to_string()))
}

fn form(bytes: &[u8]) -> form_urlencoded::Parse<'_> {
    form_urlencoded::parse(bytes)
}

/// A `SELECT` of `R` whose filter is bound as three JSON records: equal, at least, at most; and the searched text.
#[derive(Debug)]
pub struct Statement {
    /// `SELECT … FROM … WHERE …`, with `$1` to `$4` as below.
    pub sql: String,
    /// `$1`: columns that must be equal.
    pub equal: Value,
    /// `$2`: lower bounds.
    pub least: Value,
    /// `$3`: upper bounds.
    pub most: Value,
    /// `$4`: text to be found, as a pattern.
    pub pattern: Option<String>,
}

/// The statement that selects what `filter` describes.
///
/// # Errors
/// [`Error::Internal`] when the filter is no struct.
pub fn statement<R: Resource>(filter: &R::Filter) -> Result<Statement> {
    let (mut equal, mut least, mut most) = (Map::new(), Map::new(), Map::new());
    let mut pattern = None;
    // The parameter is there whether or not text is searched for.
    let mut terms = vec!["($4::text IS NULL OR true)".to_owned()];
    for (name, value) in fields(filter)? {
        if value.is_null() {
            continue;
        }
        if let (true, Some(text)) = (name == "q", value.as_str()) {
            pattern = Some(like(text));
            let found = R::SEARCHED.iter().map(|column| format!("t.{column} ILIKE $4"));
            terms.push(format!("({})", found.collect::<Vec<_>>().join(" OR ")));
        } else if let Some(field) = name.strip_suffix("_min") {
            let column = column(field);
            terms.push(format!("t.{column} >= lo.{column}"));
            least.insert(column, in_sql(field, value));
        } else if let Some(field) = name.strip_suffix("_max") {
            let column = column(field);
            terms.push(format!("t.{column} <= hi.{column}"));
            most.insert(column, in_sql(field, value));
        } else {
            let column = column(&name);
            terms.push(format!("t.{column} = f.{column}"));
            equal.insert(column, in_sql(&name, value));
        }
    }
    let sql = format!(
        "SELECT {list} FROM {table} t, jsonb_populate_record(null::{table}, $1) f, \
           jsonb_populate_record(null::{table}, $2) lo, jsonb_populate_record(null::{table}, $3) hi \
         WHERE {matches}",
        matches = terms.join(" AND "),
        list = select_list::<R>(),
        table = R::NAME,
    );
    Ok(Statement {
        sql,
        equal: Value::Object(equal),
        least: Value::Object(least),
        most: Value::Object(most),
        pattern,
    })
}

impl Statement {
    /// As a query with its values.
    pub(super) fn bind<T>(self) -> QueryAs<'static, Postgres, T, PgArguments>
    where
        T: for<'r> FromRow<'r, PgRow>,
    {
        sqlx::query_as(AssertSqlSafe(self.sql))
            .bind(self.equal)
            .bind(self.least)
            .bind(self.most)
            .bind(self.pattern)
    }
}

/// The parameters of an export: its form, and a list's filter and order. It has no pages.
///
/// # Errors
/// As [`ListParams::parse`].
pub(super) fn export_params<R: Resource>(query: &str) -> Result<(FormatParam, ListParams<R::Filter>)> {
    let (params, rest) = ListParams::<R::Filter>::parse_with(query, &["format"])?;
    if params.page.cursor.is_some() || params.page.limit.is_some() {
        return Err(Error::Invalid(
            "an export is whole: it takes no `cursor` and no `limit`".to_owned(),
        ));
    }
    Ok((typed(&rest)?, params))
}

/// The statement that gives all that `params` describe, in their order.
pub(super) fn whole<R: Resource>(params: &ListParams<R::Filter>) -> Result<Statement> {
    let sort = Sort::parse(params.page.sort.as_deref(), R::SORTABLE)?;
    let (order, _) = sort.sql();
    let by = column(sort.field);
    let filtered = statement::<R>(&params.filter)?;
    let sql = format!("{} ORDER BY t.{by} {order}, t.id {order}", filtered.sql);
    Ok(Statement { sql, ..filtered })
}

fn fields(filter: &impl serde::Serialize) -> Result<Map<String, Value>> {
    match serde_json::to_value(filter) {
        Ok(Value::Object(fields)) => Ok(fields),
        // A filter without fields.
        Ok(_) => Ok(Map::new()),
        Err(source) => Err(Error::Internal(source.into())),
    }
}

/// `text` anywhere, with the pattern's own signs taken literally.
fn like(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
    format!("%{escaped}%")
}

/// Returns one page of `R`, filtered and sorted.
///
/// # Errors
/// [`Error::Invalid`] for a field that cannot be sorted by, a cursor that is none, or a limit out of range.
pub async fn list<R: Resource>(tx: &mut TenantTx, params: &ListParams<R::Filter>) -> Result<Page<R>> {
    let rows = Rows::parse(params.page.limit)?;
    let sort = Sort::parse(params.page.sort.as_deref(), R::SORTABLE)?;
    let asked = params.page.sort.as_deref().unwrap_or("id");
    let cursor = match &params.page.cursor {
        Some(text) => Some(Cursor::decode(text, asked)?),
        None => None,
    };
    let (order, than) = sort.sql();
    let by = column(sort.field);
    let statement = statement::<R>(&params.filter)?;
    let sql = format!(
        "{select} AND ($5::jsonb IS NULL OR (t.{by}, t.id) {than} \
           (SELECT c.{by}, $6::uuid FROM jsonb_populate_record(null::{table}, $5) c)) \
         ORDER BY t.{by} {order}, t.id {order} LIMIT $7",
        select = statement.sql,
        table = R::NAME,
    );
    let place = cursor.as_ref().map(|cursor| {
        let value = if sort.field == "id" {
            Value::from(cursor.i.to_string())
        } else {
            cursor.v.clone()
        };
        Value::Object(Map::from_iter([(by.clone(), in_sql(sort.field, value))]))
    });
    let items: Vec<R> = sqlx::query_as(AssertSqlSafe(sql))
        .bind(&statement.equal)
        .bind(&statement.least)
        .bind(&statement.most)
        .bind(&statement.pattern)
        .bind(place)
        .bind(cursor.map(|cursor| cursor.i))
        .bind(rows.fetched())
        .fetch_all(tx.conn())
        .await?;
    Ok(Page::of(items, rows, |row: &R| {
        let shown = serde_json::to_value(row).unwrap_or_default();
        let value = shown.get(sort.field).cloned().unwrap_or_default();
        Cursor {
            s: asked.to_owned(),
            v: value,
            i: row.id(),
        }
        .encode()
    }))
}

/// Returns the row with `id`.
///
/// # Errors
/// [`Error::NotFound`], also when the row is another tenant's or on a line out of the caller's reach.
pub async fn read<R: Resource>(tx: &mut TenantTx, id: Uuid) -> Result<R> {
    fetch(tx, id, "").await
}

/// Reads a row and keeps others from changing it until the transaction ends.
pub(super) async fn lock<R: Resource>(tx: &mut TenantTx, id: Uuid) -> Result<R> {
    fetch(tx, id, " FOR UPDATE").await
}

async fn fetch<R: Resource>(tx: &mut TenantTx, id: Uuid, suffix: &str) -> Result<R> {
    let sql = format!(
        "SELECT {} FROM {} t WHERE t.id = $1{suffix}",
        select_list::<R>(),
        R::NAME
    );
    sqlx::query_as(AssertSqlSafe(sql))
        .bind(id)
        .fetch_optional(tx.conn())
        .await?
        .ok_or(Error::NotFound { entity: R::NAME })
}

/// The row that a `RETURNING` of a changed table `t` gives.
pub(super) fn returning<R: Resource>() -> String {
    select_list::<R>()
}

/// The row of a typed struct.
pub(super) fn row(fields: &impl serde::Serialize) -> Result<Map<String, Value>> {
    row_of(fields)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Filter {
        name: Option<String>,
        score_min: Option<f64>,
    }

    #[test]
    fn filter_and_page_share_the_query_string_and_nothing_else_passes() {
        let params = ListParams::<Filter>::parse("limit=5&name=a%20b&sort=-name&score_min=1.5").unwrap();
        assert_eq!(
            (params.page.limit, params.filter.name.as_deref()),
            (Some(5), Some("a b"))
        );
        assert_eq!(params.filter.score_min, Some(1.5));
        for wrong in [
            "nam=x",
            "limit=many",
            "score_min=high",
            "name=a&name=b",
            "format=csv",
        ] {
            assert!(ListParams::<Filter>::parse(wrong).is_err(), "{wrong}");
        }
        let (_, rest) = ListParams::<Filter>::parse_with("format=csv", &["format"]).unwrap();
        assert_eq!(rest, [("format".to_owned(), "csv".to_owned())]);
    }

    #[test]
    fn signs_of_a_pattern_are_taken_literally() {
        assert_eq!(like("50%_\\"), "%50\\%\\_\\\\%");
    }
}
