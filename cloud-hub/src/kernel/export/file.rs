//! How is an export written? Row by row into a file without a name, on a thread of its own; the hash is of the rows
//! as CSV, whatever the form, and of the file as it is sent.

use std::{
    fs::File,
    io::{self, BufWriter, Read, Seek, Write},
    path::PathBuf,
};

use chrono::{DateTime, Utc};
use csv::Terminator;
use rust_xlsxwriter::{Format as Style, Workbook, Worksheet, XlsxError};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::{
    Asked, Format,
    cell::{Cell, harmless, title},
    iso,
};
use crate::error::{Error, Result};
use crate::kernel::hex::hex;

/// Rows below the header that a sheet of a workbook can have.
const SHEET_ROWS_MAX: u32 = 1_048_575;
/// Characters that a cell of a workbook can have, less room for the mark.
const CELL_CHARS_MAX: usize = 32_700;
/// Whole numbers that a workbook's numbers hold exactly.
const EXACT_MAX: u64 = 1 << 53;
/// Most bytes of rows, as CSV.
const BYTES_MAX: u64 = 4 << 30;

/// What is written, and what the file says of itself.
#[derive(Clone, Debug)]
pub(super) struct About {
    pub(super) asked: Asked,
    pub(super) tenant: String,
    pub(super) as_of: DateTime<Utc>,
    pub(super) directory: PathBuf,
}

/// What comes to the writer. When nothing comes any more without an `End`, the export was given up.
#[derive(Debug)]
pub(super) enum Batch {
    Rows(Vec<Vec<Cell>>),
    End,
}

/// A file that is ready, at its start. It has no name: it is gone when it is closed.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) file: File,
    pub(super) rows: u64,
    pub(super) bytes: u64,
    pub(super) rows_sha256: [u8; 32],
    pub(super) sha256: [u8; 32],
}

/// Writes what comes until its end. Blocks.
pub(super) fn write(about: &About, fields: &[&str], mut waiting: mpsc::Receiver<Batch>) -> Result<Made> {
    std::fs::create_dir_all(&about.directory).map_err(failed)?;
    let mut sheet = Sheet::new(about, fields, SHEET_ROWS_MAX)?;
    while let Some(batch) = waiting.blocking_recv() {
        match batch {
            Batch::Rows(rows) => rows.iter().try_for_each(|row| sheet.add(row))?,
            Batch::End => return sheet.finish(),
        }
    }
    Err(Error::Internal(anyhow::anyhow!("the export was given up")))
}

fn failed(source: impl Into<anyhow::Error>) -> Error {
    Error::Internal(source.into().context("writing an export"))
}

/// The rows as CSV, hashed and counted; kept in the file or, for a workbook, only hashed.
struct Sheet<'a> {
    about: &'a About,
    lines: csv::Writer<Hashed>,
    book: Option<Book>,
    rows: u64,
}

impl<'a> Sheet<'a> {
    fn new(about: &'a About, fields: &[&str], sheet_rows_max: u32) -> Result<Self> {
        let titles: Vec<String> = fields.iter().map(|field| title(field)).collect();
        let (file, book) = match about.asked.format {
            Format::Csv => (
                Some(BufWriter::new(
                    tempfile::tempfile_in(&about.directory).map_err(failed)?,
                )),
                None,
            ),
            Format::Xlsx => (None, Some(Book::new(about, titles.clone(), sheet_rows_max)?)),
        };
        let hashed = Hashed {
            file,
            sha256: Sha256::new(),
            bytes: 0,
        };
        let mut lines = csv::WriterBuilder::new()
            .terminator(Terminator::CRLF)
            .from_writer(hashed);
        lines.write_record(&titles).map_err(failed)?;
        Ok(Self {
            about,
            lines,
            book,
            rows: 0,
        })
    }

    fn add(&mut self, row: &[Cell]) -> Result<()> {
        self.lines.write_record(row.iter().map(text)).map_err(failed)?;
        if self.lines.get_ref().bytes > BYTES_MAX {
            return Err(Error::Invalid(
                "an export has at most 4 GiB; narrow it with a filter".to_owned(),
            ));
        }
        if let Some(book) = &mut self.book {
            book.add(row).map_err(failed)?;
        }
        self.rows += 1;
        Ok(())
    }

    fn finish(self) -> Result<Made> {
        let hashed = self
            .lines
            .into_inner()
            .map_err(|error| failed(error.into_error()))?;
        let rows_sha256: [u8; 32] = hashed.sha256.finalize().into();
        let mut file = match (hashed.file, self.book) {
            (Some(file), _) => file.into_inner().map_err(|error| failed(error.into_error()))?,
            (None, Some(book)) => book.finish(self.about, self.rows, &rows_sha256)?,
            (None, None) => return Err(Error::Internal(anyhow::anyhow!("an export without a form"))),
        };
        file.rewind().map_err(failed)?;
        let (bytes, sha256) = match self.about.asked.format {
            Format::Csv => (hashed.bytes, rows_sha256),
            Format::Xlsx => hash(&mut file).map_err(failed)?,
        };
        Ok(Made {
            file,
            rows: self.rows,
            bytes,
            rows_sha256,
            sha256,
        })
    }
}

fn text(cell: &Cell) -> String {
    match cell {
        Cell::Empty => String::new(),
        Cell::Text(text) => harmless(text),
        Cell::Number(number) => number.to_string(),
        Cell::Flag(flag) => flag.to_string(),
    }
}

fn hash(file: &mut File) -> io::Result<(u64, [u8; 32])> {
    let (mut sha256, mut bytes, mut block) = (Sha256::new(), 0, vec![0; 1 << 16]);
    loop {
        let read = file.read(&mut block)?;
        if read == 0 {
            break;
        }
        sha256.update(&block[..read]);
        bytes += read as u64;
    }
    file.rewind()?;
    Ok((bytes, sha256.finalize().into()))
}

/// Hashes and counts what passes on its way to a file, or to nowhere.
struct Hashed {
    file: Option<BufWriter<File>>,
    sha256: Sha256,
    bytes: u64,
}

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(file) = &mut self.file {
            file.write_all(bytes)?;
        }
        self.sha256.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.as_mut().map_or(Ok(()), Write::flush)
    }
}

/// A workbook whose sheets are written through to disk: one row is in memory.
struct Book {
    file: Workbook,
    name: &'static str,
    titles: Vec<String>,
    sheets: usize,
    row: u32,
    sheet_rows_max: u32,
}

impl Book {
    fn new(about: &About, titles: Vec<String>, sheet_rows_max: u32) -> Result<Self> {
        let mut book = Workbook::new();
        book.set_tempdir(&about.directory).map_err(failed)?;
        let mut made = Self {
            file: book,
            name: about.asked.plural,
            titles,
            sheets: 0,
            row: 0,
            sheet_rows_max,
        };
        made.open_sheet().map_err(failed)?;
        Ok(made)
    }

    fn open_sheet(&mut self) -> Result<(), XlsxError> {
        self.sheets += 1;
        let name = match self.sheets {
            1 => self.name.to_owned(),
            more => format!("{} {more}", self.name),
        };
        let bold = Style::new().set_bold();
        let sheet = self.file.add_worksheet_with_constant_memory()?;
        sheet.set_name(name)?.set_freeze_panes(1, 0)?;
        for (column, title) in (0..).zip(&self.titles) {
            sheet.write_string_with_format(0, column, title, &bold)?;
        }
        self.row = 0;
        Ok(())
    }

    fn add(&mut self, row: &[Cell]) -> Result<(), XlsxError> {
        if self.row == self.sheet_rows_max {
            self.open_sheet()?;
        }
        self.row += 1;
        let sheet = self.file.worksheet_from_index(self.sheets - 1)?;
        for (column, cell) in (0..).zip(row) {
            put(sheet, self.row, column, cell)?;
        }
        Ok(())
    }

    fn finish(mut self, about: &About, rows: u64, rows_sha256: &[u8; 32]) -> Result<File> {
        self.about(about, rows, rows_sha256).map_err(failed)?;
        let mut file = tempfile::tempfile_in(&about.directory).map_err(failed)?;
        let mut out = BufWriter::new(&mut file);
        self.file.save_to_writer(&mut out).map_err(failed)?;
        out.flush().map_err(failed)?;
        drop(out);
        Ok(file)
    }

    fn about(&mut self, about: &About, rows: u64, rows_sha256: &[u8; 32]) -> Result<(), XlsxError> {
        let sheet = self.file.add_worksheet();
        sheet.set_name("About")?.set_column_width(0, 24)?;
        let said = [
            ("records", about.asked.plural.to_owned()),
            ("tenant", about.tenant.clone()),
            ("query", about.asked.query.clone()),
            ("as of", iso(about.as_of)),
            ("rows", rows.to_string()),
            ("SHA-256 of the rows as CSV", hex(rows_sha256)),
        ];
        for (row, (name, value)) in (0..).zip(said) {
            sheet.write_string(row, 0, name)?;
            sheet.write_string(row, 1, value)?;
        }
        Ok(())
    }
}

fn put(sheet: &mut Worksheet, row: u32, column: u16, cell: &Cell) -> Result<(), XlsxError> {
    match cell {
        Cell::Empty => return Ok(()),
        Cell::Flag(flag) => sheet.write_boolean(row, column, *flag)?,
        Cell::Number(number) => match (number.as_f64(), number.as_i64()) {
            // A workbook has no other numbers than doubles.
            (_, Some(whole)) if whole.unsigned_abs() > EXACT_MAX => {
                sheet.write_string(row, column, number.to_string())?
            }
            (Some(value), _) => sheet.write_number(row, column, value)?,
            (None, _) => sheet.write_string(row, column, number.to_string())?,
        },
        Cell::Text(text) if text.chars().count() > CELL_CHARS_MAX => {
            let cut: String = text.chars().take(CELL_CHARS_MAX).collect();
            sheet.write_string(row, column, cut + " … (cut; the CSV has all of it)")?
        }
        Cell::Text(text) => sheet.write_string(row, column, text)?,
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn about(directory: PathBuf, format: Format) -> About {
        About {
            asked: Asked {
                entity: "supplier",
                plural: "suppliers",
                query: "code=A".to_owned(),
                format,
            },
            tenant: "akron".to_owned(),
            as_of: DateTime::from_timestamp_micros(1_700_000_000_000_001).unwrap(),
            directory,
        }
    }

    fn rows() -> Vec<Vec<Cell>> {
        let names = ["plain", "=1+1", "a,\"b\"\r\nc", "\u{1}ä"];
        let row = |name: &&str| {
            vec![
                Cell::Text((*name).to_owned()),
                Cell::Number(9_007_199_254_740_993_i64.into()),
                Cell::Empty,
                Cell::Flag(true),
            ]
        };
        names.iter().map(row).collect()
    }

    fn made(format: Format, sheet_rows_max: u32) -> (Made, Vec<u8>) {
        let dir = tempfile::tempdir().unwrap();
        let about = about(dir.path().to_owned(), format);
        let mut sheet = Sheet::new(&about, &["name", "n", "at_us", "is_x"], sheet_rows_max).unwrap();
        for row in rows() {
            sheet.add(&row).unwrap();
        }
        let mut made = sheet.finish().unwrap();
        let mut bytes = Vec::new();
        made.file.read_to_end(&mut bytes).unwrap();
        (made, bytes)
    }

    #[test]
    fn the_rows_as_csv_come_back_as_they_were_and_are_hashed() {
        let (made, bytes) = made(Format::Csv, SHEET_ROWS_MAX);
        assert_eq!((made.rows, made.bytes), (4, bytes.len() as u64));
        assert_eq!(<[u8; 32]>::from(Sha256::digest(&bytes)), made.sha256);
        let mut reader = csv::Reader::from_reader(&bytes[..]);
        assert_eq!(reader.headers().unwrap(), vec!["name", "n", "at_at", "is_x"]);
        let names: Vec<String> = reader.records().map(|row| row.unwrap()[0].to_owned()).collect();
        assert_eq!(names, ["plain", "'=1+1", "a,\"b\"\r\nc", "\u{1}ä"]);
    }

    #[test]
    fn a_workbook_carries_the_hash_of_the_same_rows_and_starts_another_sheet_when_one_is_full() {
        let (csv, _) = made(Format::Csv, SHEET_ROWS_MAX);
        let (book, bytes) = made(Format::Xlsx, 3);
        assert_eq!(csv.rows_sha256, book.rows_sha256);
        assert_eq!(<[u8; 32]>::from(Sha256::digest(&bytes)), book.sha256);
        assert!(bytes.starts_with(b"PK"));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("book.xlsx");
        std::fs::write(&path, &bytes).unwrap();
        let unzip = std::process::Command::new("unzip").arg("-p").arg(&path).output();
        let Ok(unzipped) = unzip else { return };
        let xml = String::from_utf8_lossy(&unzipped.stdout).into_owned();
        let facts: HashMap<&str, usize> = ["suppliers 2", "=1+1", "9007199254740993", "_x0001_"]
            .into_iter()
            .map(|sought| (sought, xml.matches(sought).count()))
            .collect();
        assert!(facts.values().all(|found| *found > 0), "{facts:?}");
        assert!(
            xml.contains(&hex(&csv.rows_sha256)),
            "the sheet About has the hash"
        );
        assert!(!xml.contains("<f>"), "nothing is a formula");
    }

    #[test]
    fn an_export_that_is_given_up_makes_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let (batches, waiting) = mpsc::channel(1);
        batches.blocking_send(Batch::Rows(rows())).unwrap();
        drop(batches);
        let about = about(dir.path().to_owned(), Format::Csv);
        assert!(write(&about, &["name", "n", "at_us", "is_x"], waiting).is_err());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
