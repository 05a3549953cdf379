//! `foodflow-edge verify`: is the legal record of the control points whole? For an auditor, offline, on a stopped
//! edge's data directory or on a copy of its journal. Exit codes: 0 whole, 1 broken, 2 nothing could be verified.
#![expect(clippy::print_stdout, reason = "a command's answer goes to standard output")]

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::Args;

use super::Unusable;
use crate::spool::journal::{
    audit::{Held, Report, audit},
    checkpoint,
};

/// Verify the record of the control points.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// The agent's data directory.
    #[arg(long, value_name = "DIR", required_unless_present = "journal")]
    data_dir: Option<PathBuf>,
    /// The journal's directory, where it lies elsewhere.
    #[arg(long, value_name = "DIR", conflicts_with = "data_dir")]
    journal: Option<PathBuf>,
    /// The edge's public key in hexadecimal digits, as it was handed over; default: the one in the journal's directory.
    #[arg(long, value_name = "HEX")]
    public_key: Option<String>,
    /// Checkpoints that were kept elsewhere, a JSON object a line. Repeat for more files.
    #[arg(long, value_name = "FILE")]
    checkpoints: Vec<PathBuf>,
    /// Show every sound record, a JSON object a line, before the answer.
    #[arg(long)]
    records: bool,
    /// Answer as JSON.
    #[arg(long)]
    json: bool,
}

/// Verifies and answers.
pub fn run(args: &VerifyArgs) -> anyhow::Result<()> {
    let report = examine(args).map_err(Unusable)?;
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print(&report);
    }
    match report.fault {
        Some(fault) => bail!("the record is broken: {fault}"),
        None => Ok(()),
    }
}

fn examine(args: &VerifyArgs) -> anyhow::Result<Report> {
    let directory = match (&args.journal, &args.data_dir) {
        (Some(journal), _) => journal.clone(),
        (None, Some(data_dir)) => data_dir.join("journal"),
        (None, None) => bail!("--data-dir or --journal must be given"),
    };
    let mut held = Held::default();
    if let Some(text) = &args.public_key {
        let key = checkpoint::public_key(text);
        held.public_key = Some(key.context("--public-key must be 64 hexadecimal digits of an Ed25519 key")?);
    }
    for path in &args.checkpoints {
        let (statements, unreadable) =
            checkpoint::read(path).with_context(|| format!("reading {}", path.display()))?;
        if unreadable > 0 {
            bail!("{}: {unreadable} lines are no checkpoints", path.display());
        }
        held.checkpoints.extend(statements);
    }
    let show = |entry: &crate::spool::journal::Entry| {
        if args.records {
            println!(
                "{}",
                serde_json::json!({ "seq": entry.seq, "written_us": entry.written_us, "event": entry.event })
            );
        }
    };
    audit(&directory, &held, show).with_context(|| format!("reading {}", directory.display()))
}

fn print(report: &Report) {
    println!(
        "{} sound records ({} to {}) in {} files; {} signed checkpoints agree",
        report.records,
        report.first_seq.unwrap_or(0),
        report.last_seq,
        report.files.len(),
        report.checkpoints
    );
    println!("last: {} {}", report.last_seq, report.last_hash);
    for name in &report.set_aside {
        println!("set aside: {name}; a person should look at it");
    }
}
