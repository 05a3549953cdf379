//! `foodflow-edge replay`: does judging the recorded readings again come to the recorded verdicts? The same engine,
//! the same limits; every monitoring window that the readings cover from end to end must come out equal to the byte.
#![expect(clippy::print_stdout, reason = "a command's answer goes to standard output")]

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use clap::Args;
use protocol::{Micros, Quality, Reading, event::Event, frame::Frame, limit::Check};
use serde::Deserialize;
use uuid::Uuid;

use crate::{
    ccp::Engine,
    config::{self, Config},
    spool::{
        journal::audit::{Held, audit},
        look::look,
    },
};

/// How often the agent lets time pass for its control points.
const TICK_US: Micros = 250_000;
/// Longest line of an exported file.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// Judge recorded readings again and compare with the recorded checks.
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// The configuration with the control points as they were.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The data directory of a stopped agent, or a copy: readings from its spool, checks from its journal.
    #[arg(long, value_name = "DIR", required_unless_present = "readings")]
    data_dir: Option<PathBuf>,
    /// Readings, one JSON object a line: `tag`, `time_us`, `received_us` (optional), `value`, `quality`.
    #[arg(long, value_name = "FILE")]
    readings: Option<PathBuf>,
    /// The directory of the journal with the recorded checks; without it and without a data directory verdicts are only printed.
    #[arg(long, value_name = "DIR")]
    journal: Option<PathBuf>,
    /// Answer as JSON.
    #[arg(long)]
    json: bool,
}

/// What arrived together.
struct Batch {
    received_us: Micros,
    readings: Vec<Reading>,
}

/// Replays, prints each verdict, and fails at the first that differs.
pub fn run(args: &ReplayArgs) -> anyhow::Result<()> {
    let config = config::load(&args.config)?;
    let batches = match (&args.readings, &args.data_dir) {
        (Some(path), _) => from_file(path, &config)?,
        (None, Some(data_dir)) => from_spool(data_dir)?,
        (None, None) => bail!("give --readings or --data-dir"),
    };
    let checks = judge(&config, &batches);
    let journal = args.journal.clone().or_else(|| {
        let data_dir = args.data_dir.as_ref()?;
        Some(data_dir.join("journal"))
    });
    let recorded = match &journal {
        Some(path) => recorded(path)?,
        None => Vec::new(),
    };
    for check in &checks {
        if args.json {
            println!("{}", serde_json::to_string(check)?);
        } else {
            println!(
                "{} {} to {}: {:?}, {} good, {} bad, {} missing, limit version {}",
                check.ccp,
                check.from_us,
                check.to_us,
                check.verdict,
                check.good,
                check.bad,
                check.missing,
                check.limit_version
            );
        }
    }
    let compared = compare(&checks, &recorded, covered(&batches));
    match compared {
        Ok(count) => {
            if !args.json {
                println!("{count} recorded checks compared: equal");
            }
            Ok(())
        }
        Err(difference) => bail!("{difference}"),
    }
}

/// The time from the first to the last reading.
fn covered(batches: &[Batch]) -> (Micros, Micros) {
    let times = || {
        batches
            .iter()
            .flat_map(|batch| &batch.readings)
            .map(|reading| reading.time_us)
    };
    (times().min().unwrap_or(0), times().max().unwrap_or(0))
}

/// Judges batches in order, letting time pass between them as the agent does. Pure.
fn judge(config: &Config, batches: &[Batch]) -> Vec<Check> {
    let mut engine = Engine::new(&config.edge.name, &config.points, Uuid::now_v7);
    let mut events = Vec::new();
    let mut ticked_us = None;
    for batch in batches {
        // A pause longer than a day is ticked through once: windows run to where the new one starts anyway.
        let from_us = ticked_us.unwrap_or(batch.received_us);
        let mut at_us = from_us.max(batch.received_us - 86_400_000_000);
        while at_us + TICK_US <= batch.received_us {
            at_us += TICK_US;
            events.extend(engine.tick(at_us));
        }
        ticked_us = Some(at_us);
        let mut readings = batch.readings.clone();
        events.extend(engine.observe(&mut readings, batch.received_us));
    }
    let checks = events.into_iter().filter_map(|event| match event {
        Event::CcpCheck(check) => Some(check),
        _ => None,
    });
    checks.collect()
}

/// Compares the recorded checks of windows that the readings cover from end to end; how many there were. Pure.
fn compare(
    replayed: &[Check],
    recorded: &[Check],
    (from_us, to_us): (Micros, Micros),
) -> Result<usize, String> {
    let by_window: BTreeMap<(&str, Micros), &Check> = replayed
        .iter()
        .map(|check| ((check.ccp.as_str(), check.from_us), check))
        .collect();
    let whole = recorded
        .iter()
        .filter(|check| check.from_us > from_us && check.to_us <= to_us);
    let mut count = 0;
    for check in whole {
        let again = by_window.get(&(check.ccp.as_str(), check.from_us));
        let Some(again) = again else {
            return Err(format!("recorded and not found again: {check:?}"));
        };
        if postcard::to_stdvec(*again) != postcard::to_stdvec(check) {
            return Err(format!("recorded {check:?}\nreplayed {again:?}"));
        }
        count += 1;
    }
    Ok(count)
}

fn recorded(path: &Path) -> anyhow::Result<Vec<Check>> {
    let mut checks = Vec::new();
    let report = audit(path, &Held::default(), |entry| {
        if let Event::CcpCheck(check) = &entry.event {
            checks.push(check.clone());
        }
    });
    let report = report.with_context(|| format!("reading {}", path.display()))?;
    if let Some(fault) = report.fault {
        bail!("{}: {fault}", path.display());
    }
    Ok(checks)
}

fn from_spool(data_dir: &Path) -> anyhow::Result<Vec<Batch>> {
    let directory = data_dir.join("spool");
    if !directory.is_dir() {
        bail!("{}: no spool here", directory.display());
    }
    // What the hub has already is still there for a while, and is judged again too.
    let mut readings = Vec::new();
    let places = look(&directory, |_, record, _| {
        let frame = Frame::decode(&record.envelope).map_err(std::io::Error::other)?;
        readings.extend(frame.readings);
        Ok(())
    });
    let places = places.with_context(|| format!("reading {}", directory.display()))?;
    if let Some(place) = places
        .iter()
        .find(|place| place.fault.is_some() && place.kind != "set_aside")
    {
        bail!("{} is damaged: what it held cannot be judged again", place.name);
    }
    // Readings arrived one after the other; they are judged in the order of their times.
    readings.sort_by_key(|reading| reading.time_us);
    let batches = readings.into_iter().map(|reading| Batch {
        received_us: reading.time_us,
        readings: vec![reading],
    });
    Ok(batches.collect())
}

/// A line of an exported file.
#[derive(Deserialize)]
struct Line {
    tag: String,
    time_us: Micros,
    received_us: Option<Micros>,
    value: Option<f64>,
    quality: String,
}

fn from_file(path: &Path, config: &Config) -> anyhow::Result<Vec<Batch>> {
    let file = File::open(path).with_context(|| format!("reading {}", path.display()))?;
    let aliases: BTreeMap<&str, _> = config
        .dictionary
        .tags
        .iter()
        .map(|tag| (tag.name.as_str(), tag.alias))
        .collect();
    let qualities = qualities();
    let mut batches: Vec<Batch> = Vec::new();
    for (number, line) in (1..).zip(BufReader::new(file).lines()) {
        let place = || format!("{}:{number}", path.display());
        let line = line.with_context(place)?;
        if line.trim().is_empty() {
            continue;
        }
        if line.len() > LINE_BYTES_MAX {
            bail!("{}: longer than {LINE_BYTES_MAX} bytes", place());
        }
        let line: Line = serde_json::from_str(&line).with_context(place)?;
        // Tags that no control point looks at need not be configured.
        let Some(alias) = aliases.get(line.tag.as_str()) else {
            continue;
        };
        let quality = *qualities
            .get(line.quality.as_str())
            .with_context(|| format!("{}: unknown quality `{}`", place(), line.quality))?;
        let reading = match line.value {
            Some(value) => Reading::new(*alias, line.time_us, value, quality),
            None => Reading::bad(*alias, line.time_us, quality),
        };
        let received_us = line.received_us.unwrap_or(line.time_us);
        match batches.last_mut() {
            Some(batch) if batch.received_us == received_us => batch.readings.push(reading),
            _ => batches.push(Batch {
                received_us,
                readings: vec![reading],
            }),
        }
    }
    Ok(batches)
}

/// Qualities by name, like `good` or `bad.sensor_failure`; the plainest code where several share a name.
fn qualities() -> BTreeMap<&'static str, Quality> {
    let codes = (0..=u16::MAX).rev().map(Quality::from_code);
    codes.map(|quality| (quality.name(), quality)).collect()
}

#[cfg(test)]
mod tests {
    use protocol::reading::Alias;

    use super::*;

    const S: Micros = 1_000_000;
    const START: Micros = 1_700_000_000 * S;

    fn config() -> Config {
        config::parse(
            "[edge]\nname = \"e\"\ntenant = \"t\"\n[hub]\nmqtt = \"127.0.0.1:1883\"\n[[modbus]]\nname = \"plc\"\n\
             address = \"127.0.0.1:502\"\n[[modbus.group]]\nperiod = \"1s\"\n[[modbus.group.tag]]\nname = \"TT-101\"\n\
             unit = \"degC\"\naddress = 0\n[[ccp]]\ncode = \"CCP-1\"\ntag = \"TT-101\"\nlow = 72.0\nunit = \"degC\"\n\
             check_every = \"10s\"\n",
        )
        .unwrap()
    }

    fn batches(values: impl Iterator<Item = f64>) -> Vec<Batch> {
        let readings = (0i64..).zip(values).map(|(second, value)| Batch {
            received_us: START + second * S,
            readings: vec![Reading::new(Alias(0), START + second * S, value, Quality::GOOD)],
        });
        readings.collect()
    }

    #[test]
    fn readings_judged_twice_come_to_the_same_checks_and_one_changed_value_shows() {
        let values = |dip: f64| (0..65).map(move |second| if second == 33 { dip } else { 73.0 });
        let recorded = judge(&config(), &batches(values(71.0)));
        assert!(recorded.len() >= 6);
        let again = batches(values(71.0));
        assert_eq!(
            compare(&judge(&config(), &again), &recorded, covered(&again)),
            Ok(recorded.len() - 1)
        );
        let other = judge(&config(), &batches(values(71.5)));
        let difference = compare(&other, &recorded, covered(&again)).unwrap_err();
        assert!(
            difference.contains("recorded") && difference.contains("71.5"),
            "{difference}"
        );
    }

    #[test]
    fn windows_that_the_readings_do_not_cover_are_not_compared() {
        let recorded = judge(&config(), &batches((0..65).map(|_| 73.0)));
        let mut rest = batches((0..65).map(|_| 73.0));
        drop(rest.drain(..25));
        let count = compare(&judge(&config(), &rest), &recorded, covered(&rest)).unwrap();
        assert!(count < recorded.len() && count >= 2, "{count}");
    }

    #[test]
    fn a_quality_is_known_by_its_name() {
        let qualities = qualities();
        for quality in [
            Quality::GOOD,
            Quality::UNCERTAIN,
            Quality::BAD,
            Quality::BAD_SENSOR_FAILURE,
        ] {
            assert_eq!(qualities.get(quality.name()), Some(&quality));
        }
        assert_eq!(qualities.get("fine"), None);
    }
}
