//! `foodflow-edge check`: is the configuration usable, and what would be done with it?
#![expect(clippy::print_stdout, reason = "a command's answer goes to standard output")]

use std::path::PathBuf;

use clap::Args;

use crate::{
    config::{self, Config},
    fleet::remote_config::{self, Choice},
    source::modbus::plan,
};

/// Check a configuration.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The configuration.
    #[arg(long, value_name = "FILE", required_unless_present = "print_default")]
    config: Option<PathBuf>,
    /// The agent's data directory: says whether this file runs or what the hub pushed.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Print the commented reference of every key instead.
    #[arg(long)]
    print_default: bool,
    /// Answer as JSON.
    #[arg(long)]
    json: bool,
}

/// Lists every fault, or what the configuration amounts to.
pub fn run(args: &CheckArgs) -> anyhow::Result<()> {
    if args.print_default {
        print!("{}", config::REFERENCE);
        return Ok(());
    }
    let path = args.config.clone().unwrap_or_default();
    let config = config::load(&path)?;
    let runs = match &args.data_dir {
        Some(data_dir) => remote_config::look(&path, data_dir)?.1.choice,
        None => Choice::Local,
    };
    if args.json {
        let mut summary = summary(&config);
        summary["runs"] = runs.to_string().into();
        println!("{}", serde_json::to_string_pretty(&summary)?);
    } else {
        println!(
            "{}: fine. Edge {} of tenant {}: {} tags from {} Modbus devices and {} OPC UA servers, {} cameras, {} control points.",
            path.display(),
            config.edge.name,
            config.edge.tenant,
            config.tag_count(),
            config.modbus.len(),
            config.opcua.len(),
            config.cameras.len(),
            config.points.len(),
        );
        if args.data_dir.is_some() {
            println!("  What runs: {runs}.");
        }
        for device in &config.modbus {
            println!("  {}: {} requests a round", device.name, requests(device));
        }
    }
    Ok(())
}

fn requests(device: &crate::source::modbus::config::Device) -> usize {
    let blocks = device.groups.iter().map(|group| {
        let places: Vec<plan::Place> = group.tags.iter().map(|tag| tag.place).collect();
        let members: Vec<usize> = (0..places.len()).collect();
        plan::blocks(&places, &members, device.limits).len()
    });
    blocks.sum()
}

fn summary(config: &Config) -> serde_json::Value {
    let devices: Vec<serde_json::Value> = config
        .modbus
        .iter()
        .map(|device| serde_json::json!({ "name": device.name, "address": device.endpoint.to_string(), "requests": requests(device) }))
        .collect();
    serde_json::json!({
        "ok": true,
        "edge": config.edge.name,
        "tenant": config.edge.tenant,
        "tags": config.tag_count(),
        "modbus": devices,
        "opcua": config.opcua.iter().map(|server| &server.name).collect::<Vec<_>>(),
        "cameras": config.cameras.iter().map(|camera| &camera.name).collect::<Vec<_>>(),
        "ccps": config.limits().map(|limit| &limit.ccp).collect::<Vec<_>>(),
    })
}
