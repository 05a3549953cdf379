//! How does a list leave as a whole? Its rows are written to a file in one snapshot, the file is hashed, the export
//! is audited, and only then is the file sent: a slow reader holds no transaction and no rows in memory.
//!
//! One statement sees one snapshot, so an export is one statement. Every export says what was asked, as of when,
//! and the hash of what is sent.

mod cell;
mod file;
mod send;
mod slots;

use std::{collections::BTreeMap, time::Duration};

use axum::{
    http::{HeaderName, HeaderValue, header},
    response::Response,
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use chrono::{DateTime, SecondsFormat, Utc};
use futures_util::TryStreamExt;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::json;
use sqlx::{
    FromRow, Postgres,
    postgres::{PgArguments, PgRow},
    query::QueryAs,
};
use tokio::{sync::mpsc, task::spawn_blocking, time::timeout};
use utoipa::{
    IntoParams, IntoResponses, ToSchema,
    openapi::{
        ContentBuilder, HeaderBuilder, RefOr, Response as OpenApiResponse, ResponseBuilder,
        schema::{KnownFormat, Object, ObjectBuilder, SchemaFormat, Type},
    },
};

use self::file::{About, Batch, Made};
use super::{audit::Deed, tenancy::TenantTx};
use crate::{
    app::App,
    error::{Error, Result},
    kernel::hex::hex,
};

pub use cell::fields;
pub use send::{Kept, send};
pub use slots::{Exports, Slot};

/// Time in which an export must be written.
pub const MAKING_MAX: Duration = Duration::from_mins(10);
/// Rows handed to the writer at a time.
const BATCH_ROWS: usize = 500;
/// Batches that may wait for the writer; then the database waits.
const BATCHES_WAITING: usize = 4;
/// What was asked comes back in a header.
const QUERY_BYTES_MAX: usize = 4000;

/// What was asked: the query string as it came.
pub const QUERY_HEADER: HeaderName = HeaderName::from_static("x-export-query");
/// The time of the snapshot, ISO 8601 UTC.
pub const AS_OF_HEADER: HeaderName = HeaderName::from_static("x-export-as-of");
/// How many rows.
pub const ROWS_HEADER: HeaderName = HeaderName::from_static("x-export-rows");
/// SHA-256 of what is sent (RFC 9530).
pub const DIGEST_HEADER: HeaderName = HeaderName::from_static("content-digest");

/// The form of an export.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Comma-separated values, RFC 4180, UTF-8.
    #[default]
    Csv,
    /// An Office Open XML workbook.
    Xlsx,
}

impl Format {
    /// The media type.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Csv => "text/csv; charset=utf-8",
            Self::Xlsx => "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        }
    }

    const fn extension(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Xlsx => "xlsx",
        }
    }
}

/// The parameter that every export has.
#[derive(Clone, Copy, Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct FormatParam {
    /// `csv` when absent.
    #[param(inline)]
    pub format: Option<Format>,
}

/// What the API's description says of an export's success.
pub fn success() -> ResponseBuilder {
    let text = |description: &str| {
        HeaderBuilder::new()
            .schema(Some(Object::with_type(Type::String)))
            .description(Some(description))
            .build()
    };
    let file = |schema: ObjectBuilder| ContentBuilder::new().schema(Some(schema)).build();
    let binary = ObjectBuilder::new()
        .schema_type(Type::String)
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Binary)));
    ResponseBuilder::new()
        .description("The file")
        .content("text/csv", file(ObjectBuilder::new().schema_type(Type::String)))
        .content(Format::Xlsx.media_type(), file(binary))
        .header("X-Export-Query", text("The query string as it came"))
        .header("X-Export-As-Of", text("Time of the snapshot, ISO 8601 UTC"))
        .header("X-Export-Rows", text("Number of rows"))
        .header("Content-Digest", text("SHA-256 of the file, RFC 9530"))
}

/// [`success`] for a handler written by hand.
#[derive(Debug)]
pub struct Exported;

impl IntoResponses for Exported {
    fn responses() -> BTreeMap<String, RefOr<OpenApiResponse>> {
        BTreeMap::from([("200".to_owned(), success().build().into())])
    }
}

/// What is exported.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The kind of record: its table.
    pub entity: &'static str,
    /// Its plural: the file's and the sheet's name.
    pub plural: &'static str,
    /// The query string as it came.
    pub query: String,
    /// In which form.
    pub format: Format,
}

/// Writes the rows of `rows` to a file, audits that, and answers with the file. `T`'s fields are the columns, in
/// their order; a field `x_us` becomes a column `x_at` of ISO 8601 times.
///
/// # Errors
/// [`Error::Busy`] while too many exports are under way; [`Error::Invalid`] for one that is too large;
/// [`Error::Unavailable`] for one that takes too long.
pub async fn answer<T>(
    app: &App,
    mut tx: TenantTx,
    asked: Asked,
    rows: QueryAs<'_, Postgres, T, PgArguments>,
) -> Result<Response>
where
    T: Serialize + DeserializeOwned + for<'r> FromRow<'r, PgRow> + Send + Unpin,
{
    if asked.query.len() > QUERY_BYTES_MAX {
        return Err(Error::Invalid(format!(
            "a query has at most {QUERY_BYTES_MAX} bytes"
        )));
    }
    let slot = app.exports.open(tx.tenant())?;
    let about = About {
        asked: asked.clone(),
        tenant: tx.tenant().to_string(),
        as_of: app.clock.now(),
        directory: app.config.data_dir.join("exports"),
    };
    let made = timeout(MAKING_MAX, write(&mut tx, &about, rows))
        .await
        .map_err(|elapsed| Error::Unavailable(elapsed.into()))??;
    tx.audit(&deed(&about, &made));
    tx.commit().await?;
    tracing::info!(
        entity = asked.entity,
        rows = made.rows,
        bytes = made.bytes,
        "exported"
    );
    Ok(respond(&about, made, slot))
}

async fn write<T>(
    tx: &mut TenantTx,
    about: &About,
    rows: QueryAs<'_, Postgres, T, PgArguments>,
) -> Result<Made>
where
    T: Serialize + DeserializeOwned + for<'r> FromRow<'r, PgRow> + Send + Unpin,
{
    let fields = fields::<T>();
    let (batches, waiting) = mpsc::channel(BATCHES_WAITING);
    let writer = {
        let about = about.clone();
        spawn_blocking(move || file::write(&about, fields, waiting))
    };
    let mut found = rows.fetch(tx.conn());
    let mut batch = Vec::with_capacity(BATCH_ROWS);
    while let Some(row) = found.try_next().await? {
        batch.push(cell::cells(fields, &row)?);
        if batch.len() == BATCH_ROWS {
            let full = std::mem::replace(&mut batch, Vec::with_capacity(BATCH_ROWS));
            if batches.send(Batch::Rows(full)).await.is_err() {
                // The writer has given up; it says why.
                break;
            }
        }
    }
    drop(found);
    for last in [Batch::Rows(batch), Batch::End] {
        if batches.send(last).await.is_err() {
            break;
        }
    }
    writer.await.map_err(|source| Error::Internal(source.into()))?
}

fn deed(about: &About, made: &Made) -> Deed {
    Deed {
        action: "export",
        entity: about.asked.entity,
        after: Some(json!({
            "query": about.asked.query,
            "format": about.asked.format,
            "as_of_us": about.as_of.timestamp_micros(),
            "rows": made.rows,
            "rows_sha256": hex(&made.rows_sha256),
            "sha256": hex(&made.sha256),
        })),
        ..Deed::default()
    }
}

fn respond(about: &About, made: Made, slot: Slot) -> Response {
    let name = format!(
        "{}-{}.{}",
        about.asked.plural,
        about.as_of.format("%Y%m%dT%H%M%SZ"),
        about.asked.format.extension()
    );
    let mut response = send(Kept {
        file: made.file,
        bytes: made.bytes,
        sha256: made.sha256,
        media_type: HeaderValue::from_static(about.asked.format.media_type()),
        name: &name,
        slot: Some(slot),
    });
    let headers = response.headers_mut();
    // A query string has no byte that a header could not carry.
    if let Ok(query) = HeaderValue::from_bytes(about.asked.query.as_bytes()) {
        headers.insert(QUERY_HEADER, query);
    }
    if let Ok(as_of) = HeaderValue::from_str(&iso(about.as_of)) {
        headers.insert(AS_OF_HEADER, as_of);
    }
    headers.insert(ROWS_HEADER, HeaderValue::from(made.rows));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// ISO 8601 in UTC with microseconds.
pub(super) fn iso(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// A SHA-256 as `Content-Digest` (RFC 9530) carries it.
fn digest_header(sha256: &[u8; 32]) -> String {
    format!("sha-256=:{}:", BASE64_STANDARD.encode(sha256))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_has_the_form_of_rfc_9530() {
        let empty: [u8; 32] = [
            0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24,
            0x27, 0xae, 0x41, 0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55,
        ];
        assert_eq!(
            digest_header(&empty),
            "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:"
        );
        assert!(hex(&empty).starts_with("e3b0c44298fc"));
    }
}
