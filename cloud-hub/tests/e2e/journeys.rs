//! Does the main job work? Three journeys through every station, each timed: a register becomes an answer of the
//! API, an out-of-limit reading becomes a held lot, a camera frame becomes a verdict.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::plant::{Plant, now_us};

/// How long any one journey may take before it counts as not arrived.
const WITHIN: Duration = Duration::from_mins(1);

/// What a journey took, and what arrived.
#[derive(Debug)]
pub(crate) struct Journey {
    /// `register → API`, …
    pub(crate) name: &'static str,
    /// Milliseconds.
    pub(crate) latency_ms: f64,
    /// For people.
    pub(crate) what: String,
}

fn ms_since(start_us: i64) -> f64 {
    (now_us() - start_us) as f64 / 1000.0
}

/// From the poll of a PLC register to the API: the median over seven consecutive readings of TT-101.
pub(crate) async fn register_to_api(plant: &Plant) -> Result<Journey> {
    let mut latencies_ms = Vec::new();
    let mut newest = (0i64, f64::NAN);
    while latencies_ms.len() < 7 {
        let seen = plant.wait_for("plant-ops/tags?name=TT-101", WITHIN, |tags| {
            let last = &tags["items"][0]["last"];
            let (time_us, value) = (last["time_us"].as_i64()?, last["value"].as_f64()?);
            (time_us > newest.0).then_some((time_us, value))
        });
        newest = seen.await.context("no reading of TT-101 reached the API")?;
        latencies_ms.push(ms_since(newest.0));
    }
    latencies_ms.sort_by(f64::total_cmp);
    Ok(Journey {
        name: "register → API",
        latency_ms: latencies_ms[3],
        what: format!("TT-101 = {} °C", newest.1),
    })
}

/// From the moment a pasteuriser's temperature drops with its valve stuck forward to the lots on hold.
pub(crate) async fn dip_to_hold(plant: &Plant) -> Result<Journey> {
    if !open_deviations(plant, "CCP-1").await?.is_empty() {
        bail!("CCP-1 has an open deviation before any dip");
    }
    let start_us = plant.scenario("f2?seconds=10").await?;
    let hold = plant.wait_for("fsq/holds?status=open", WITHIN, |holds| {
        let fresh = |hold: &&Value| {
            hold["placed_us"].as_i64().is_some_and(|at| at >= start_us)
                && hold["lots"].as_array().is_some_and(|l| !l.is_empty())
        };
        holds["items"].as_array()?.iter().find(fresh).cloned()
    });
    let hold = hold.await.context("the dip did not become a hold")?;
    let latency_ms = ms_since(start_us);
    let lots: Vec<&str> = hold["lots"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|lot| lot["lot_code"].as_str())
        .collect();
    let deviation = plant
        .get(&format!(
            "fsq/deviations/{}",
            hold["deviation_id"].as_str().unwrap_or_default()
        ))
        .await?;
    if deviation["ccp_code"] != "CCP-1" {
        bail!("the hold is for {} instead of CCP-1", deviation["ccp_code"]);
    }
    for lot in hold["lots"].as_array().into_iter().flatten() {
        let lot = plant
            .get(&format!(
                "fsq/lots/{}",
                lot["lot_id"].as_str().unwrap_or_default()
            ))
            .await?;
        if lot["status"] != "held" {
            bail!(
                "lot {} is {} although {} names it",
                lot["code"],
                lot["status"],
                hold["code"]
            );
        }
    }
    let what = format!(
        "{} holds {}",
        hold["code"].as_str().unwrap_or_default(),
        lots.join(", ")
    );
    Ok(Journey {
        name: "CCP dip → held lot",
        latency_ms,
        what,
    })
}

/// Open deviations of one control point.
pub(crate) async fn open_deviations(plant: &Plant, ccp: &str) -> Result<Vec<Value>> {
    let open = plant.get("fsq/deviations?status=open").await?;
    let items = open["items"].as_array().cloned().unwrap_or_default();
    Ok(items
        .into_iter()
        .filter(|deviation| deviation["ccp_code"] == ccp)
        .collect())
}

/// From a frame with a defect in the camera's folder to the verdict at the API.
pub(crate) async fn frame_to_verdict(plant: &Plant) -> Result<Journey> {
    let start_us = plant.scenario("defect-burst?count=3").await?;
    let seen = plant.wait_for("vision/results?verdict=reject", WITHIN, |results| {
        let fresh = |result: &&Value| result["taken_us"].as_i64().is_some_and(|at| at >= start_us);
        results["items"].as_array()?.iter().find(fresh).cloned()
    });
    let result = seen.await.context("no drawn defect was rejected")?;
    let latency_ms = ms_since(result["taken_us"].as_i64().unwrap_or(start_us));
    let classes: Vec<&str> = result["defects"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|d| d["class"].as_str())
        .collect();
    let what = format!(
        "{} {}: {}",
        result["camera"].as_str().unwrap_or_default(),
        result["verdict"],
        classes.join(", ")
    );
    Ok(Journey {
        name: "frame → verdict",
        latency_ms,
        what,
    })
}
