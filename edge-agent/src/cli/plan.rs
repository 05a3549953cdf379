//! `foodflow-edge plan`: what will a configuration cost? Requests and bytes a second on the plant's network, readings
//! and bytes a second to the hub, and for how long the spool bridges an outage. Estimates; nothing is connected to.
#![expect(clippy::print_stdout, reason = "a command's answer goes to standard output")]

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use crate::{
    config::{self, Config},
    source::modbus::{config::Device, plan},
};

/// Bytes of a Modbus TCP request with its answer, without registers: 12 and 9, and two TCP/IP headers of 40.
const REQUEST_BYTES: f64 = 12.0 + 9.0 + 2.0 * 40.0;
/// Bytes a reading in a frame of slowly varying sensors, measured (docs/decisions/0002-frame-encoding.md).
const READING_BYTES: f64 = 2.7;
/// Bytes a frame beyond its readings: envelope, MQTT, TCP/IP and both acknowledgements.
const FRAME_BYTES: f64 = 320.0;
/// Bytes on disk for each byte stored, measured on the store.
const DISK_FACTOR: f64 = 1.9;

/// Estimate what a configuration costs.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// The configuration.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Answer as JSON.
    #[arg(long)]
    json: bool,
}

/// The cost of a configuration.
#[derive(Debug, PartialEq, Serialize)]
pub struct Plan {
    /// Modbus poll groups.
    pub groups: Vec<GroupPlan>,
    /// Readings a second from all sources that say how often one is due.
    pub readings_per_s: f64,
    /// Modbus requests a second.
    pub requests_per_s: f64,
    /// Bytes a second between the agent and its Modbus devices.
    pub plant_bytes_per_s: f64,
    /// Bytes a second to the hub.
    pub uplink_bytes_per_s: f64,
    /// Days of outage that the spool's quota bridges; none when nothing is due.
    pub spool_days: Option<f64>,
}

/// The cost of one poll group.
#[derive(Debug, PartialEq, Serialize)]
pub struct GroupPlan {
    /// The device.
    pub device: String,
    /// Period in milliseconds.
    pub period_ms: u64,
    /// Tags.
    pub tags: usize,
    /// Requests a round.
    pub requests: usize,
    /// Registers or bits read a round, unwanted ones between tags included.
    pub registers: usize,
}

/// Estimates a configuration's cost. Pure.
pub fn plan(config: &Config) -> Plan {
    let groups: Vec<GroupPlan> = config.modbus.iter().flat_map(group_plans).collect();
    let rate = |group: &GroupPlan| 1000.0 / group.period_ms.max(1) as f64;
    let requests_per_s = groups
        .iter()
        .map(|group| rate(group) * group.requests as f64)
        .sum();
    let plant_bytes =
        |group: &GroupPlan| group.requests as f64 * REQUEST_BYTES + group.registers as f64 * 2.0;
    let plant_bytes_per_s = groups.iter().map(|group| rate(group) * plant_bytes(group)).sum();
    let due = config.dictionary.tags.iter().filter(|tag| tag.period_ms > 0);
    let readings_per_s: f64 = due.map(|tag| 1000.0 / f64::from(tag.period_ms)).sum();
    let by_age = 1.0 / config.spool.frame_age_max.as_secs_f64();
    let by_size = readings_per_s / config.spool.frame_readings_max as f64;
    let frames_per_s = if readings_per_s > 0.0 {
        by_age.min(readings_per_s).max(by_size)
    } else {
        0.0
    };
    let bytes_per_s = readings_per_s * READING_BYTES;
    let stored_per_s = (bytes_per_s + frames_per_s * 100.0) * DISK_FACTOR;
    Plan {
        groups,
        readings_per_s,
        requests_per_s,
        plant_bytes_per_s,
        uplink_bytes_per_s: bytes_per_s + frames_per_s * FRAME_BYTES,
        spool_days: (stored_per_s > 0.0).then(|| config.spool.quota_bytes as f64 / stored_per_s / 86_400.0),
    }
}

fn group_plans(device: &Device) -> Vec<GroupPlan> {
    let plans = device.groups.iter().map(|group| {
        let places: Vec<plan::Place> = group.tags.iter().map(|tag| tag.place).collect();
        let members: Vec<usize> = (0..places.len()).collect();
        let blocks = plan::blocks(&places, &members, device.limits);
        GroupPlan {
            device: device.name.clone(),
            period_ms: u64::try_from(group.period.as_millis()).unwrap_or(u64::MAX),
            tags: group.tags.len(),
            requests: blocks.len(),
            registers: blocks.iter().map(|block| usize::from(block.count)).sum(),
        }
    });
    plans.collect()
}

/// Prints the estimate.
pub fn run(args: &PlanArgs) -> anyhow::Result<()> {
    let config = config::load(&args.config)?;
    let plan = plan(&config);
    if args.json {
        println!("{}", serde_json::to_string_pretty(&plan)?);
        return Ok(());
    }
    for group in &plan.groups {
        println!(
            "{}: every {} ms {} tags in {} requests, {} registers",
            group.device, group.period_ms, group.tags, group.requests, group.registers
        );
    }
    println!(
        "{:.1} readings/s; {:.1} Modbus requests/s, {:.0} B/s on the plant's network; {:.0} B/s to the hub",
        plan.readings_per_s, plan.requests_per_s, plan.plant_bytes_per_s, plan.uplink_bytes_per_s
    );
    match plan.spool_days {
        Some(days) => println!(
            "an outage of {days:.1} days fits the spool's {} bytes",
            config.spool.quota_bytes
        ),
        None => println!("no tag says how often a reading is due: nothing can be said about the spool"),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_tags(count: usize) -> Config {
        let tag = |at| format!("[[modbus.group.tag]]\nname = \"T{at}\"\naddress = {at}\n");
        let tags = (0..count).map(tag).collect::<Vec<_>>().concat();
        let head = "[edge]\nname = \"e\"\ntenant = \"t\"\n[hub]\nmqtt = \"127.0.0.1:1883\"\n";
        let device =
            "[[modbus]]\nname = \"plc\"\naddress = \"127.0.0.1:502\"\n[[modbus.group]]\nperiod = \"500ms\"\n";
        let device = if count > 0 { device } else { "" };
        config::parse(&format!("{head}{device}{tags}")).unwrap()
    }

    #[test]
    fn a_thousand_contiguous_registers_twice_a_second_are_a_handful_of_requests() {
        let plan = plan(&with_tags(1_000));
        assert_eq!(plan.groups[0].registers, 1_000);
        assert!(plan.groups[0].requests <= 9, "{plan:?}");
        assert!((plan.readings_per_s - 2_000.0).abs() < 1e-9);
        assert!((plan.requests_per_s - 2.0 * plan.groups[0].requests as f64).abs() < 1e-9);
        // 2 GiB at 2,000 readings/s of a few bytes: days, not hours and not years.
        let days = plan.spool_days.unwrap();
        assert!((1.0..10.0).contains(&days), "{days}");
    }

    #[test]
    fn nothing_due_costs_nothing_and_promises_nothing() {
        let plan = plan(&with_tags(0));
        assert_eq!((plan.readings_per_s, plan.spool_days), (0.0, None));
    }
}
