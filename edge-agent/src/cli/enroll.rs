//! `foodflow-edge enroll`: a one-time code becomes this edge's identity.
#![expect(clippy::print_stdout, reason = "a command's answer goes to standard output")]

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail};
use clap::Args;
use serde::Deserialize;

use crate::{
    clock, durable,
    fleet::certificate,
    uplink::identity::{self, Identity},
};

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

/// An answer of the hub is short; a longer one is none.
const ANSWER_BYTES_MAX: usize = 256 * 1024;

#[derive(Deserialize)]
struct Enrolled {
    tenant: String,
    edge: String,
    #[serde(flatten)]
    identity: Identity,
    /// The client certificate, leaf first, from hubs that sign requests.
    #[serde(default)]
    certificate_pem: Option<String>,
    /// The authority by which the hub's MQTT front end is known, from hubs that offer TLS.
    #[serde(default)]
    mqtt_ca_pem: Option<String>,
}

/// Asks the hub and writes the identity: the password, and where the hub signs requests a certificate of a key that
/// was made here.
pub async fn run(args: EnrollArgs) -> anyhow::Result<()> {
    drop(rustls::crypto::ring::default_provider().install_default());
    let enrolled = ask(&args).await?;
    let path = identity::save(&args.data_dir, &enrolled.identity)?;
    identity::save_hub_url(&args.data_dir, &args.hub)?;
    let name = format!("{}/{}", enrolled.tenant, enrolled.edge);
    let certificate = match &enrolled.certificate_pem {
        Some(chain) => Some(certificate::install(
            &args.data_dir,
            chain,
            &name,
            clock::now_us(),
        )?),
        None => None,
    };
    let ca_file = match &enrolled.mqtt_ca_pem {
        Some(pem) => Some(save_authority(&args.data_dir, pem)?),
        None => None,
    };
    let until_us = certificate.as_ref().map(|certificate| certificate.not_after_us);
    if args.json {
        let answer = serde_json::json!({
            "tenant": enrolled.tenant,
            "edge": enrolled.edge,
            "identity": path,
            "certificate_expires_us": until_us,
            "ca_file": ca_file,
        });
        println!("{answer}");
        return Ok(());
    }
    println!("enrolled as {name}; identity in {}", path.display());
    if let Some(expires) = until_us.and_then(chrono::DateTime::from_timestamp_micros) {
        println!("client certificate until {}", expires.format("%Y-%m-%d"));
    }
    if let Some(ca_file) = ca_file {
        println!(
            "the hub offers TLS: set `ca_file = \"{}\"` in [hub]",
            ca_file.display()
        );
    }
    Ok(())
}

fn save_authority(data_dir: &Path, pem: &str) -> anyhow::Result<PathBuf> {
    let path = data_dir.join("hub-ca.pem");
    durable::perform(&durable::replace(&path, pem.as_bytes().to_vec(), 0o644))?;
    Ok(path)
}

/// Exchanges the code. A hub that knows no certificate requests refuses the question before it uses up the code; it
/// is asked again without.
async fn ask(args: &EnrollArgs) -> anyhow::Result<Enrolled> {
    let url = format!("{}/api/v1/edges/enroll", args.hub.trim_end_matches('/'));
    let client = reqwest::Client::builder()
        .timeout(Duration::from_secs(20))
        .build()?;
    // The name stands in the hub's answer: whose certificate it becomes is decided by the code.
    let csr_pem = certificate::request(&args.data_dir, "enrolment")?;
    let questions = [
        serde_json::json!({ "code": args.code, "csr_pem": csr_pem }),
        serde_json::json!({ "code": args.code }),
    ];
    for (attempt, question) in questions.iter().enumerate() {
        let response = client.post(&url).json(question).send().await;
        let response = response.with_context(|| format!("asking {url}"))?;
        let status = response.status();
        let text = read(response).await?;
        if status.is_success() {
            return serde_json::from_str(&text).context("the hub's answer is no identity");
        }
        if attempt == 0 && matches!(status.as_u16(), 400 | 422) {
            continue;
        }
        let problem: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        let detail = problem["detail"].as_str().or(problem["title"].as_str());
        bail!(
            "the hub refused ({status}): {}",
            detail.unwrap_or("no reason given")
        );
    }
    bail!("the hub gave no answer")
}

async fn read(mut response: reqwest::Response) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.context("reading the hub's answer")? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > ANSWER_BYTES_MAX {
            bail!("the hub's answer is longer than {ANSWER_BYTES_MAX} bytes: is it a hub?");
        }
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
