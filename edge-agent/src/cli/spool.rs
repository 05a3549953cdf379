//! `foodflow-edge spool`: what waits for the hub, is it sound, and what is in it? For a stopped agent's directory or
//! a copy; nothing in it is changed. Exit codes: 0 sound, 1 something is damaged, 2 nothing could be read.
#![expect(clippy::print_stdout, reason = "a command's answer goes to standard output")]

use std::{
    collections::HashMap,
    fs::{File, TryLockError},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use chrono::{DateTime, SecondsFormat, Utc};
use clap::{Args, Subcommand, ValueEnum};
use protocol::{Micros, frame::Frame, tag::Dictionary};
use uuid::Uuid;

use super::Unusable;
use crate::spool::{
    dictionaries::Dictionaries,
    journal::audit::{Held, audit},
    look::{Place, State, look},
    record::Record,
};

/// Look into the spool.
#[derive(Debug, Args)]
pub struct SpoolArgs {
    #[command(subcommand)]
    command: SpoolCommand,
}

#[derive(Debug, Subcommand)]
enum SpoolCommand {
    /// What waits for the hub and what is kept, file by file.
    Ls(Where),
    /// Whether everything stored is sound: checksums of the spool, chain of the journal.
    Verify(Where),
    /// Readings and events of a time, oldest first.
    Export(ExportArgs),
}

#[derive(Debug, Args)]
struct Where {
    /// The agent's data directory, or a copy of it.
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Answer as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct ExportArgs {
    /// The agent's data directory, or a copy of it.
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// First time, RFC 3339: 2026-03-01T06:00:00Z.
    #[arg(long, value_name = "TIME")]
    from: Option<DateTime<Utc>>,
    /// Last time, RFC 3339.
    #[arg(long, value_name = "TIME")]
    to: Option<DateTime<Utc>>,
    /// Only this tag. Repeat for more.
    #[arg(long, value_name = "NAME")]
    tag: Vec<String>,
    /// One JSON object a line, or a table of readings with a head line.
    #[arg(long, value_enum, default_value = "ndjson")]
    format: Format,
    /// Where to; default: standard output.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Say what was written as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Ndjson,
    Csv,
}

/// Runs the subcommand.
pub fn run(args: &SpoolArgs) -> anyhow::Result<()> {
    match &args.command {
        SpoolCommand::Ls(place) => list(place),
        SpoolCommand::Verify(place) => verify(place),
        SpoolCommand::Export(args) => export(args),
    }
}

/// The spool's directory, which no agent uses now.
fn directory(data_dir: &Path) -> anyhow::Result<(PathBuf, Option<File>)> {
    let directory = data_dir.join("spool");
    if !directory.is_dir() {
        bail!("{}: no spool here", directory.display());
    }
    let Ok(lock) = File::open(directory.join("lock")) else {
        return Ok((directory, None));
    };
    match lock.try_lock_shared() {
        Err(TryLockError::WouldBlock) => bail!(
            "{}: an agent is running on this data directory; stop it, or look at a copy",
            directory.display()
        ),
        _ => Ok((directory, Some(lock))),
    }
}

fn places(data_dir: &Path) -> anyhow::Result<Vec<Place>> {
    let (directory, _lock) = directory(data_dir)?;
    look(&directory, |_, _, _| Ok(())).with_context(|| format!("reading {}", directory.display()))
}

fn list(args: &Where) -> anyhow::Result<()> {
    let places = places(&args.data_dir).map_err(Unusable)?;
    let sum = |of: fn(&Place) -> u64| places.iter().map(of).sum::<u64>();
    let (frames, readings) = (
        sum(|place| place.waiting_frames),
        sum(|place| place.waiting_readings),
    );
    let bytes = sum(|place| place.bytes);
    let waiting = places.iter().filter(|place| place.waiting_frames > 0);
    let oldest_us = waiting.filter_map(|place| place.from_us).min();
    if args.json {
        let answer = serde_json::json!({
            "frames": frames, "readings": readings, "oldest_us": oldest_us, "disk_bytes": bytes, "places": places,
        });
        println!("{answer}");
        return Ok(());
    }
    for place in &places {
        println!(
            "{:<10} {:>12} bytes  {:>8} frames wait ({} readings), {} acknowledged  {}  {}",
            place.kind,
            place.bytes,
            place.waiting_frames,
            place.waiting_readings,
            place.acknowledged_frames,
            place.from_us.map_or_else(String::new, rfc3339),
            place.name
        );
    }
    println!("{frames} frames with {readings} readings wait; {bytes} bytes on disk");
    Ok(())
}

fn verify(args: &Where) -> anyhow::Result<()> {
    let places = places(&args.data_dir).map_err(Unusable)?;
    let journal = args.data_dir.join("journal");
    let report = if journal.is_dir() {
        match audit(&journal, &Held::default(), |_| ()) {
            Ok(report) => Some(report),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(Unusable(error.into()).into()),
        }
    } else {
        None
    };
    let spool_faults = places
        .iter()
        .filter_map(|place| Some(format!("{}: {}", place.name, place.fault.as_ref()?)));
    let journal_fault = report.as_ref().and_then(|report| report.fault.clone());
    let faults: Vec<String> = spool_faults
        .chain(journal_fault.map(|fault| format!("journal: {fault}")))
        .collect();
    let lost: u64 = places.iter().map(|place| place.records_lost_estimate).sum();
    if args.json {
        let answer = serde_json::json!({
            "records": report.as_ref().map_or(0, |report| report.records),
            "fault": faults.first(), "faults": faults, "records_lost_estimate": lost,
            "places": places, "journal": report,
        });
        println!("{answer}");
    } else {
        let records = report.as_ref().map_or(0, |report| report.records);
        println!(
            "{} places of the spool and {records} records of the journal read",
            places.len()
        );
    }
    if faults.is_empty() {
        return Ok(());
    }
    bail!("{}", faults.join("\n"))
}

fn export(args: &ExportArgs) -> anyhow::Result<()> {
    let (directory, _lock) = directory(&args.data_dir).map_err(Unusable)?;
    let output: Box<dyn Write> = match &args.output {
        Some(path) => {
            let file = File::create(path).with_context(|| format!("writing {}", path.display()));
            Box::new(file.map_err(Unusable)?)
        }
        None => Box::new(io::stdout().lock()),
    };
    let mut exporter = Exporter {
        args,
        // Opening makes the directory; a copy may lack it and must not change.
        dictionaries: Dictionaries::at(&directory.join("dictionaries")),
        known: HashMap::new(),
        output: BufWriter::new(output),
        rows: 0,
    };
    exporter.head()?;
    let places = look(&directory, |_, record, state| exporter.record(record, state))
        .with_context(|| format!("exporting {}", directory.display()))?;
    exporter.output.flush()?;
    let rows = exporter.rows;
    if args.output.is_some() {
        if args.json {
            println!("{}", serde_json::json!({ "rows": rows }));
        } else {
            println!("{rows} rows written");
        }
    }
    let faults = places
        .iter()
        .filter(|place| place.fault.is_some() && place.kind != "set_aside")
        .count();
    if faults > 0 {
        bail!("{faults} places are damaged; the export lacks what was in them (see `spool verify`)");
    }
    Ok(())
}

struct Exporter<'a> {
    args: &'a ExportArgs,
    dictionaries: Dictionaries,
    known: HashMap<Uuid, Option<Dictionary>>,
    output: BufWriter<Box<dyn Write>>,
    rows: u64,
}

impl Exporter<'_> {
    fn head(&mut self) -> io::Result<()> {
        if self.args.format == Format::Csv {
            writeln!(self.output, "time,tag,value,unit,quality,state,boot,lane,seq")?;
        }
        Ok(())
    }

    fn is_wanted(&self, at_us: Micros) -> bool {
        self.args.from.is_none_or(|from| at_us >= from.timestamp_micros())
            && self.args.to.is_none_or(|to| at_us <= to.timestamp_micros())
    }

    fn record(&mut self, record: &Record, state: State) -> io::Result<()> {
        let frame = Frame::decode(&record.envelope).map_err(io::Error::other)?;
        let id = record.meta.dictionary;
        let dictionaries = &self.dictionaries;
        let dictionary = self.known.entry(id).or_insert_with(|| {
            let bytes = dictionaries.get(id)?;
            Dictionary::decode(&bytes).ok()
        });
        let dictionary = dictionary.take();
        let result = self.readings(&frame, dictionary.as_ref(), state);
        self.known.insert(id, dictionary);
        result?;
        if self.args.format == Format::Ndjson
            && self.args.tag.is_empty()
            && self.is_wanted(record.meta.sealed_us)
        {
            for event in &frame.events {
                let line = serde_json::json!({ "sealed": rfc3339(record.meta.sealed_us), "state": state, "event": event });
                writeln!(self.output, "{line}")?;
                self.rows += 1;
            }
        }
        Ok(())
    }

    fn readings(&mut self, frame: &Frame, dictionary: Option<&Dictionary>, state: State) -> io::Result<()> {
        let frame_id = &frame.header.id;
        for reading in &frame.readings {
            if !self.is_wanted(reading.time_us) {
                continue;
            }
            let tag = dictionary.and_then(|dictionary| dictionary.tag(reading.tag));
            // Without its dictionary a reading is shown by its number, never left out.
            let name = tag.map_or_else(|| format!("#{}", reading.tag.0), |tag| tag.name.clone());
            if !self.args.tag.is_empty() && !self.args.tag.contains(&name) {
                continue;
            }
            let unit = tag.map_or("", |tag| tag.unit.as_str());
            let time = rfc3339(reading.time_us);
            let quality = reading.quality.code();
            self.rows += 1;
            match self.args.format {
                Format::Csv => {
                    let value = reading
                        .value()
                        .map_or_else(String::new, |value| value.to_string());
                    let (name, unit) = (csv(&name), csv(unit));
                    let lane = frame_id.lane;
                    let state = if state == State::Acknowledged {
                        "acknowledged"
                    } else {
                        "waits"
                    };
                    writeln!(
                        self.output,
                        "{time},{name},{value},{unit},{quality},{state},{},{lane},{}",
                        frame_id.boot, frame_id.seq
                    )?;
                }
                Format::Ndjson => {
                    let line = serde_json::json!({
                        "time": time, "tag": name, "value": reading.value(), "unit": unit, "quality": quality,
                        "state": state, "boot": frame_id.boot, "lane": frame_id.lane, "seq": frame_id.seq,
                    });
                    writeln!(self.output, "{line}")?;
                }
            }
        }
        Ok(())
    }
}

/// A field that neither ends early nor is taken for a formula by a spreadsheet.
fn csv(text: &str) -> String {
    let guarded = if text.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        format!("'{text}")
    } else {
        text.to_owned()
    };
    if guarded.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", guarded.replace('"', "\"\""))
    } else {
        guarded
    }
}

fn rfc3339(at_us: Micros) -> String {
    DateTime::from_timestamp_micros(at_us).map_or_else(
        || at_us.to_string(),
        |at| at.to_rfc3339_opts(SecondsFormat::Micros, true),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_in_a_table_is_no_formula_and_no_end_of_a_field() {
        assert_eq!(csv("TT-101"), "TT-101");
        assert_eq!(csv("=1+1"), "'=1+1");
        assert_eq!(csv("a,\"b\""), "\"a,\"\"b\"\"\"");
    }

    #[test]
    fn a_time_is_written_to_the_microsecond() {
        assert_eq!(rfc3339(1_772_366_400_000_001), "2026-03-01T12:00:00.000001Z");
    }
}
