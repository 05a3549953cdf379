//! What does COPY BINARY want? The file format of PostgreSQL's manual (COPY, "Binary Format"), written by hand:
//! the generic writer costs four times as much a row.
//!
//! ```text
//! header   "PGCOPY\n\xff\r\n\0", flags i32 = 0, extension length i32 = 0
//! row      field count i16 = 4, then each field: length i32 (-1 = null), bytes (big endian)
//! trailer  i16 = -1
//! ```

use bytes::{BufMut, BytesMut};
use protocol::Micros;

/// 2000-01-01 in microseconds since 1970: PostgreSQL counts from there.
const POSTGRES_EPOCH_US: Micros = 946_684_800_000_000;
const ROW_BYTES_MAX: usize = 2 + (4 + 8) + (4 + 4) + (4 + 8) + (4 + 2);

/// The statement that takes what [`Rows`] writes.
pub(super) const COPY_READINGS: &str =
    "COPY {schema}.reading (time, tag_id, value, quality) FROM STDIN (FORMAT binary)";

/// Rows of table `reading`.
#[derive(Debug)]
pub(super) struct Rows {
    bytes: BytesMut,
    count: usize,
}

impl Rows {
    /// No rows yet, with room for `rows`.
    pub(super) fn with_capacity(rows: usize) -> Self {
        let mut bytes = BytesMut::with_capacity(21 + rows * ROW_BYTES_MAX);
        bytes.put_slice(b"PGCOPY\n\xff\r\n\0");
        bytes.put_i32(0);
        bytes.put_i32(0);
        Self { bytes, count: 0 }
    }

    /// Adds a reading.
    pub(super) fn push(&mut self, time_us: Micros, tag_id: i32, value: Option<f64>, quality: i16) {
        self.bytes.put_i16(4);
        self.bytes.put_i32(8);
        self.bytes.put_i64(time_us - POSTGRES_EPOCH_US);
        self.bytes.put_i32(4);
        self.bytes.put_i32(tag_id);
        if let Some(value) = value {
            self.bytes.put_i32(8);
            self.bytes.put_f64(value);
        } else {
            self.bytes.put_i32(-1);
        }
        self.bytes.put_i32(2);
        self.bytes.put_i16(quality);
        self.count += 1;
    }

    /// How many rows.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// The whole file.
    pub(super) fn finish(mut self) -> BytesMut {
        self.bytes.put_i16(-1);
        self.bytes
    }
}
