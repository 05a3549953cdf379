//! `foodflow-edge badge hash`: what stands in `pin_hash` of a `[[badge]]`. The PIN is read from standard input, so that it
//! is neither in the shell's history nor in the list of processes.
#![expect(clippy::print_stdout, reason = "a command's answer goes to standard output")]

use std::io::Read as _;

use anyhow::Context as _;
use clap::{Args, Subcommand};

use crate::local::badge::{PIN_BYTES_MAX, Pin};

/// Badges of people who sign on the local page.
#[derive(Debug, Args)]
pub struct BadgeArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Read a PIN from standard input and print its hash for `pin_hash`.
    Hash {
        /// Answer as JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Prints the hash.
pub fn run(args: &BadgeArgs) -> anyhow::Result<()> {
    let What::Hash { json } = args.what;
    let mut text = String::new();
    let input = std::io::stdin().lock();
    // One byte more than a PIN and its line ending can have: anything longer is refused, not cut.
    input
        .take(PIN_BYTES_MAX as u64 + 3)
        .read_to_string(&mut text)
        .context("reading the PIN from standard input")?;
    let hash = Pin::new(text.trim_end_matches(['\r', '\n']))?.hash()?;
    if json {
        println!("{}", serde_json::json!({ "pin_hash": hash }));
    } else {
        println!("{hash}");
    }
    Ok(())
}
