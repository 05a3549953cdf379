//! How do readings reach an analyst's tools? As an Apache Parquet file with typed columns, written row group by row
//! group: what is in memory is one of them.
//!
//! ```text
//! time     INT64 TIMESTAMP(MICROS, UTC)      value    DOUBLE, null exactly when the quality is bad
//! tag      BYTE_ARRAY UTF8                   quality  INT32, high 16 bits of the OPC UA status code
//! unit     BYTE_ARRAY UTF8
//! ```

use std::{fs::File, io::Seek, path::Path, sync::Arc};

use axum::{
    extract::{RawQuery, State},
    http::HeaderValue,
    response::Response,
};
use futures_util::TryStreamExt;
use parquet::{
    basic::{Compression, LogicalType, Repetition, TimeUnit, Type as PhysicalType, ZstdLevel},
    data_type::{ByteArray, ByteArrayType, DoubleType, Int32Type, Int64Type},
    errors::ParquetError,
    file::{metadata::KeyValue, properties::WriterProperties, writer::SerializedFileWriter},
    schema::types::Type,
};
use protocol::{Micros, Quality};
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::{sync::mpsc, task::spawn_blocking, time::timeout};
use utoipa::IntoParams;

use super::{
    TAG,
    series::{known_tags, tag_numbers},
};
use crate::{
    app::App,
    error::{Error, Result},
    kernel::{
        audit::Deed,
        caller::Caller,
        clock::time_from_us,
        export::{Kept, MAKING_MAX, send},
        hex::hex,
        permission::Permission,
        tenancy::TenantTx,
    },
    request::Query,
};

const TAGS_MAX: usize = 200;
const ROWS_A_GROUP: usize = 65_536;
/// Row groups that may wait for the writer; then the database waits.
const GROUPS_WAITING: usize = 2;
const MEDIA_TYPE: &str = "application/vnd.apache.parquet";

/// Which readings to export.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct SeriesExportQuery {
    /// Numbers of 1 to 200 tags, separated by commas.
    tags: String,
    /// From this source time on.
    from_us: Micros,
    /// Before this source time.
    to_us: Micros,
}

/// Columns of one row group.
#[derive(Debug, Default)]
struct Group {
    times: Vec<i64>,
    tags: Vec<ByteArray>,
    units: Vec<ByteArray>,
    /// Those that there are.
    values: Vec<f64>,
    /// 1 where there is a value.
    is_there: Vec<i16>,
    qualities: Vec<i32>,
}

impl Group {
    fn push(
        &mut self,
        time_us: Micros,
        (tag, unit): (&ByteArray, &ByteArray),
        value: Option<f64>,
        quality: i16,
    ) {
        self.times.push(time_us);
        self.tags.push(tag.clone());
        self.units.push(unit.clone());
        self.is_there.push(i16::from(value.is_some()));
        self.values.extend(value);
        self.qualities.push(i32::from(Quality::from_i16(quality).code()));
    }
}

/// What comes to the writer; without an end the export was given up.
enum Part {
    Rows(Group),
    End,
}

struct Made {
    file: File,
    rows: u64,
    bytes: u64,
    sha256: [u8; 32],
}

/// Exports readings as they were stored, none thinned out, as Apache Parquet.
#[utoipa::path(get, path = "/plant-ops/series/export", operation_id = "export_series", tag = TAG, security(("bearer" = ["reading.read"])),
    params(SeriesExportQuery),
    responses((status = 200, description = "The file", body = Vec<u8>, content_type = "application/vnd.apache.parquet")))]
pub async fn export_series(
    State(app): State<App>,
    caller: Caller,
    RawQuery(raw): RawQuery,
    Query(query): Query<SeriesExportQuery>,
) -> Result<Response> {
    let mut tx = caller.begin(&app, Permission::ReadingRead).await?;
    if query.from_us >= query.to_us {
        return Err(Error::Invalid("`from_us` must be before `to_us`".to_owned()));
    }
    let ids = tag_numbers(&query.tags, TAGS_MAX)?;
    known_tags(&mut tx, &ids).await?;
    let slot = app.exports.open(tx.tenant())?;
    let directory = app.config.data_dir.join("exports");
    let asked = raw.unwrap_or_default();
    let about = vec![
        ("foodflow.tenant".to_owned(), tx.tenant().to_string()),
        ("foodflow.query".to_owned(), asked.clone()),
        ("foodflow.as_of_us".to_owned(), app.clock.now_us().to_string()),
    ];
    let (parts, waiting) = mpsc::channel(GROUPS_WAITING);
    let writer = spawn_blocking(move || write(&directory, about, waiting));
    timeout(
        MAKING_MAX,
        read(&mut tx, &ids, (query.from_us, query.to_us), parts),
    )
    .await
    .map_err(|elapsed| Error::Unavailable(elapsed.into()))??;
    let made = writer.await.map_err(|source| Error::Internal(source.into()))??;
    tx.audit(&Deed {
        action: "export",
        entity: "reading",
        after: Some(
            json!({ "query": asked, "format": "parquet", "rows": made.rows, "sha256": hex(&made.sha256) }),
        ),
        ..Deed::default()
    });
    let name = format!("readings-{}.parquet", tx.at().format("%Y%m%dT%H%M%SZ"));
    tx.commit().await?;
    Ok(send(Kept {
        file: made.file,
        bytes: made.bytes,
        sha256: made.sha256,
        media_type: HeaderValue::from_static(MEDIA_TYPE),
        name: &name,
        slot: Some(slot),
    }))
}

/// Hands the rows to the writer. One that has given up says why itself.
async fn read(
    tx: &mut TenantTx,
    ids: &[i32],
    (from_us, to_us): (Micros, Micros),
    parts: mpsc::Sender<Part>,
) -> Result<()> {
    let names: std::collections::HashMap<i32, (ByteArray, ByteArray)> = known_tags(tx, ids)
        .await?
        .into_iter()
        .map(|tag| (tag.id, (tag.name.as_str().into(), tag.unit.as_str().into())))
        .collect();
    let mut rows = sqlx::query_as::<_, (i32, chrono::DateTime<chrono::Utc>, Option<f64>, i16)>(
        "SELECT tag_id, time, value, quality FROM reading WHERE tag_id = ANY($1) AND time >= $2 AND time < $3 \
         ORDER BY tag_id, time",
    )
    .bind(ids)
    .bind(time_from_us(from_us))
    .bind(time_from_us(to_us))
    .fetch(tx.conn());
    let mut group = Group::default();
    while let Some((tag_id, time, value, quality)) = rows.try_next().await? {
        let Some((tag, unit)) = names.get(&tag_id) else {
            continue;
        };
        group.push(time.timestamp_micros(), (tag, unit), value, quality);
        if group.times.len() == ROWS_A_GROUP
            && parts.send(Part::Rows(std::mem::take(&mut group))).await.is_err()
        {
            return Ok(());
        }
    }
    drop(rows);
    for part in [Part::Rows(group), Part::End] {
        if parts.send(part).await.is_err() {
            break;
        }
    }
    Ok(())
}

fn failed(source: impl Into<anyhow::Error>) -> Error {
    Error::Internal(source.into().context("writing an export"))
}

/// Writes what comes until its end, into a file without a name. Blocks.
fn write(directory: &Path, about: Vec<(String, String)>, mut waiting: mpsc::Receiver<Part>) -> Result<Made> {
    std::fs::create_dir_all(directory).map_err(failed)?;
    let mut file = tempfile::tempfile_in(directory).map_err(failed)?;
    let about = about
        .into_iter()
        .map(|(key, value)| KeyValue::new(key, value))
        .collect();
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_key_value_metadata(Some(about))
        .build();
    let schema = Arc::new(schema().map_err(failed)?);
    let kept = file.try_clone().map_err(failed)?;
    let mut writer = SerializedFileWriter::new(kept, schema, Arc::new(properties)).map_err(failed)?;
    let mut rows = 0;
    loop {
        match waiting.blocking_recv() {
            Some(Part::Rows(group)) if group.times.is_empty() => {}
            Some(Part::Rows(group)) => {
                rows += group.times.len() as u64;
                write_group(&mut writer, &group).map_err(failed)?;
            }
            Some(Part::End) => break,
            None => return Err(Error::Internal(anyhow::anyhow!("the export was given up"))),
        }
    }
    writer.close().map_err(failed)?;
    file.rewind().map_err(failed)?;
    let mut sha256 = Sha256::new();
    let bytes = std::io::copy(&mut file, &mut sha256).map_err(failed)?;
    file.rewind().map_err(failed)?;
    Ok(Made {
        file,
        rows,
        bytes,
        sha256: sha256.finalize().into(),
    })
}

fn schema() -> Result<Type, ParquetError> {
    let column = |name: &str, kind, repetition, logical: Option<LogicalType>| {
        Type::primitive_type_builder(name, kind)
            .with_repetition(repetition)
            .with_logical_type(logical)
            .build()
            .map(Arc::new)
    };
    let micros = LogicalType::timestamp(true, TimeUnit::MICROS);
    let fields = vec![
        column("time", PhysicalType::INT64, Repetition::REQUIRED, Some(micros))?,
        column(
            "tag",
            PhysicalType::BYTE_ARRAY,
            Repetition::REQUIRED,
            Some(LogicalType::String),
        )?,
        column(
            "unit",
            PhysicalType::BYTE_ARRAY,
            Repetition::REQUIRED,
            Some(LogicalType::String),
        )?,
        column("value", PhysicalType::DOUBLE, Repetition::OPTIONAL, None)?,
        column("quality", PhysicalType::INT32, Repetition::REQUIRED, None)?,
    ];
    Type::group_type_builder("reading").with_fields(fields).build()
}

fn write_group(writer: &mut SerializedFileWriter<File>, group: &Group) -> Result<(), ParquetError> {
    let mut columns = writer.next_row_group()?;
    let mut place = 0;
    while let Some(mut column) = columns.next_column()? {
        match place {
            0 => column
                .typed::<Int64Type>()
                .write_batch(&group.times, None, None)?,
            1 => column
                .typed::<ByteArrayType>()
                .write_batch(&group.tags, None, None)?,
            2 => column
                .typed::<ByteArrayType>()
                .write_batch(&group.units, None, None)?,
            3 => column
                .typed::<DoubleType>()
                .write_batch(&group.values, Some(&group.is_there), None)?,
            _ => column
                .typed::<Int32Type>()
                .write_batch(&group.qualities, None, None)?,
        };
        column.close()?;
        place += 1;
    }
    columns.close()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use parquet::{
        file::reader::{FileReader, SerializedFileReader},
        record::Field,
    };

    use super::*;

    #[test]
    fn what_was_written_is_read_back_with_its_types_and_its_missing_values() {
        let dir = tempfile::tempdir().unwrap();
        let (parts, waiting) = mpsc::channel(8);
        let (tag, unit) = (ByteArray::from("TT-101"), ByteArray::from("degC"));
        for first in [0, 100] {
            let mut group = Group::default();
            for number in first..first + 100 {
                let value = (number % 10 != 0).then_some(number as f64 / 4.0);
                let quality = value.map_or(Quality::BAD_TIMEOUT, |_| Quality::GOOD);
                group.push(number, (&tag, &unit), value, quality.to_i16());
            }
            parts.blocking_send(Part::Rows(group)).unwrap();
        }
        parts.blocking_send(Part::End).unwrap();
        let about = vec![("foodflow.query".to_owned(), "tags=1".to_owned())];
        let made = write(dir.path(), about, waiting).unwrap();
        assert_eq!(made.rows, 200);
        let reader = SerializedFileReader::new(made.file).unwrap();
        assert_eq!(reader.metadata().num_row_groups(), 2);
        let rows: Vec<_> = reader.get_row_iter(None).unwrap().map(Result::unwrap).collect();
        let fields: Vec<&Field> = rows[10].get_column_iter().map(|(_, field)| field).collect();
        assert_eq!(fields[0], &Field::TimestampMicros(10));
        assert_eq!(fields[1], &Field::Str("TT-101".to_owned()));
        assert_eq!((fields[3], fields[4]), (&Field::Null, &Field::Int(0x800A)));
        assert_eq!(rows[11].get_column_iter().nth(3).unwrap().1, &Field::Double(2.75));
    }

    #[test]
    fn an_export_that_is_given_up_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let (parts, waiting) = mpsc::channel(1);
        drop(parts);
        assert!(write(dir.path(), vec![], waiting).is_err());
    }
}
