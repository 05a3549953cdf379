//! `foodflow-edge spool`: what waits for the hub, and is the journal whole? For a stopped agent.
#![expect(clippy::print_stdout, reason = "a command's answer goes to standard output")]

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};

use crate::spool::{journal, look::look};

/// Look into the spool and the journal.
#[derive(Debug, Args)]
pub struct SpoolArgs {
    #[command(subcommand)]
    command: SpoolCommand,
}

#[derive(Debug, Subcommand)]
enum SpoolCommand {
    /// What waits for the hub.
    Ls(Place),
    /// Whether the control points' journal is whole: checksums, numbering and hash chain.
    Verify(Place),
}

#[derive(Debug, Args)]
struct Place {
    /// The agent's data directory.
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Answer as JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the subcommand.
pub fn run(args: &SpoolArgs) -> anyhow::Result<()> {
    match &args.command {
        SpoolCommand::Ls(place) => list(&place.data_dir, place.json),
        SpoolCommand::Verify(place) => verify(&place.data_dir, place.json),
    }
}

fn list(data_dir: &Path, json: bool) -> anyhow::Result<()> {
    let directory = data_dir.join("spool");
    if !directory.is_dir() {
        bail!("{}: no spool here", directory.display());
    }
    let places = look(&directory, |_, _, _| Ok(()))?;
    println!("{places:?} {json}");
    Ok(())
}

fn verify(data_dir: &Path, json: bool) -> anyhow::Result<()> {
    let path = data_dir.join("journal").join("ccp.journal");
    let bytes = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    let verified = journal::verify(&bytes);
    if json {
        let answer = serde_json::json!({
            "records": verified.entries.len(),
            "sound_bytes": verified.sound_bytes,
            "fault": verified.fault,
        });
        println!("{answer}");
    } else {
        println!("{} sound records in {}", verified.entries.len(), path.display());
    }
    match verified.fault {
        Some(fault) => bail!("{}: {fault}", path.display()),
        None => Ok(()),
    }
}
