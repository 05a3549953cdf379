//! What does COPY BINARY want? The file format of PostgreSQL's manual (COPY, "Binary Format"), written by hand:
//! the generic writer costs four times as much a row.
//!
//! ```text
//! header   "PGCOPY\n\xff\r\n\0", flags i32 = 0, extension length i32 = 0
//! row      field count i16 = 4, then each field: length i32 (-1 = null), bytes (big endian)
//! trailer  i16 = -1
//! ```

use std::ops::Range;

use bytes::{BufMut, BytesMut};
use protocol::Micros;

/// 2000-01-01 in microseconds since 1970: PostgreSQL counts from there.
const POSTGRES_EPOCH_US: Micros = 946_684_800_000_000;
const ROW_BYTES_MAX: usize = 2 + (4 + 8) + (4 + 4) + (4 + 8) + (4 + 2);
const TIME: Range<usize> = 6..14;
const TAG: Range<usize> = 18..22;
const VALUE: Range<usize> = 26..34;
/// A row with a value: the count and the lengths are there, the fields are not. It is written in one go, which looks for room
/// once and not eight times.
const ROW: [u8; ROW_BYTES_MAX] = {
    let mut row = [0; ROW_BYTES_MAX];
    row[1] = 4;
    row[TIME.start - 1] = 8;
    row[TAG.start - 1] = 4;
    row[VALUE.start - 1] = 8;
    row[VALUE.end + 3] = 2;
    row
};

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
        let mut row = ROW;
        row[TIME].copy_from_slice(&(time_us - POSTGRES_EPOCH_US).to_be_bytes());
        row[TAG].copy_from_slice(&tag_id.to_be_bytes());
        let value = value.map(f64::to_be_bytes);
        let end = if let Some(value) = value {
            row[VALUE].copy_from_slice(&value);
            ROW_BYTES_MAX
        } else {
            row[VALUE.start - 4..VALUE.start].copy_from_slice(&(-1_i32).to_be_bytes());
            row[VALUE.start..VALUE.start + 4].copy_from_slice(&2_i32.to_be_bytes());
            VALUE.start + 6
        };
        row[end - 2..end].copy_from_slice(&quality.to_be_bytes());
        self.bytes.put_slice(&row[..end]);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_its_fields_each_after_its_length_and_no_value_is_none() {
        let mut rows = Rows::with_capacity(2);
        rows.push(POSTGRES_EPOCH_US + 1, 7, Some(72.5), 0);
        rows.push(POSTGRES_EPOCH_US - 1, -2, None, -3);
        assert_eq!(rows.count(), 2);
        let mut expected = BytesMut::new();
        expected.put_slice(b"PGCOPY\n\xff\r\n\0");
        expected.put_i64(0);
        for (time_us, tag_id, value, quality) in [(1_i64, 7, Some(72.5), 0), (-1, -2, None, -3)] {
            expected.put_i16(4);
            expected.put_i32(8);
            expected.put_i64(time_us);
            expected.put_i32(4);
            expected.put_i32(tag_id);
            match value {
                Some(value) => {
                    expected.put_i32(8);
                    expected.put_f64(value);
                }
                None => expected.put_i32(-1),
            }
            expected.put_i32(2);
            expected.put_i16(quality);
        }
        expected.put_i16(-1);
        assert_eq!(rows.finish(), expected);
    }
}
