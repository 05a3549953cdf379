//! `foodflow-edge enroll`: a one-time code becomes this edge's identity.
#![expect(clippy::print_stdout, reason = "a command's answer goes to standard output")]

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, bail};
use clap::Args;
use serde::Deserialize;

use crate::uplink::identity::{self, Identity};

/// Enrol this edge.
#[derive(Debug, Args)]
pub struct EnrollArgs {
    /// The hub, like `https://hub.example:8080`.
    #[arg(long, value_name = "URL")]
    hub: String,
    /// The one-time code that the hub gave out.
    #[arg(long, value_name = "CODE")]
    code: String,
    /// Where the identity is kept.
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Answer as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Deserialize)]
struct Enrolled {
    tenant: String,
    edge: String,
    #[serde(flatten)]
    identity: Identity,
}

/// Asks the hub and writes the identity.
pub async fn run(args: EnrollArgs) -> anyhow::Result<()> {
    drop(rustls::crypto::ring::default_provider().install_default());
    let url = format!("{}/api/v1/edges/enroll", args.hub.trim_end_matches('/'));
    let client = reqwest::Client::builder()
        .timeout(Duration::from_secs(20))
        .build()?;
    let response = client
        .post(&url)
        .json(&serde_json::json!({ "code": args.code }))
        .send()
        .await
        .with_context(|| format!("asking {url}"))?;
    let status = response.status();
    let text = response.text().await.context("reading the hub's answer")?;
    if !status.is_success() {
        let problem: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        let detail = problem["detail"]
            .as_str()
            .or(problem["title"].as_str())
            .unwrap_or("no reason given");
        bail!("the hub refused ({status}): {detail}");
    }
    let enrolled: Enrolled = serde_json::from_str(&text).context("the hub's answer is no identity")?;
    let path = identity::save(&args.data_dir, &enrolled.identity)?;
    if args.json {
        let answer =
            serde_json::json!({ "tenant": enrolled.tenant, "edge": enrolled.edge, "identity": path });
        println!("{answer}");
    } else {
        println!(
            "enrolled as {}/{}; identity in {}",
            enrolled.tenant,
            enrolled.edge,
            path.display()
        );
    }
    Ok(())
}
