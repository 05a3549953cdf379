//! `foodflow-edge watch`: what changes right now? Follows a running agent's status page, or reads tags from their
//! devices itself when none runs.
#![expect(clippy::print_stdout, reason = "a command's answer goes to standard output")]

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::{Value, json};

use super::read::read_tag;
use crate::{
    clock,
    config::{self, Config},
};

/// A status page is small; a longer answer is none.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// Watch a running agent, or tags, as they change.
#[derive(Debug, Args)]
pub struct WatchArgs {
    /// The data directory of a running agent: its page is found by `ready.json`.
    #[arg(long, value_name = "DIR", required_unless_present_any = ["http", "config"])]
    data_dir: Option<PathBuf>,
    /// Address of a running agent's page, like 127.0.0.1:9180.
    #[arg(long, value_name = "ADDRESS", conflicts_with_all = ["data_dir", "config"])]
    http: Option<String>,
    /// Read tags of this configuration from their devices instead.
    #[arg(long, value_name = "FILE", conflicts_with = "data_dir", requires = "tags")]
    config: Option<PathBuf>,
    /// The tags, with `--config`.
    #[arg(value_name = "TAG", requires = "config")]
    tags: Vec<String>,
    /// Seconds between two looks.
    #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=3600))]
    every: u64,
    /// Looks before it ends; for ever when absent.
    #[arg(long, value_name = "COUNT")]
    count: Option<u64>,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
}

/// Prints what changed since the look before, until interrupted.
pub async fn run(args: WatchArgs) -> anyhow::Result<()> {
    let source = Source::new(&args)?;
    let mut every = tokio::time::interval(Duration::from_secs(args.every));
    let mut seen = BTreeMap::new();
    for _ in 0..args.count.unwrap_or(u64::MAX) {
        every.tick().await;
        for (name, value) in source.look().await? {
            if seen.get(&name) == Some(&value) {
                continue;
            }
            print_line(&name, &value, args.json);
            seen.insert(name, value);
        }
    }
    Ok(())
}

enum Source {
    Page { url: String, client: reqwest::Client },
    Devices(Box<Config>, Vec<String>),
}

impl Source {
    fn new(args: &WatchArgs) -> anyhow::Result<Self> {
        if let Some(path) = &args.config {
            let config = config::load(path)?;
            let is_unknown = |name: &&String| !config.dictionary.tags.iter().any(|tag| tag.name == **name);
            if let Some(unknown) = args.tags.iter().find(is_unknown) {
                bail!("no tag is named `{unknown}` in {}", path.display());
            }
            return Ok(Self::Devices(Box::new(config), args.tags.clone()));
        }
        let address = match (&args.http, &args.data_dir) {
            (Some(address), _) => address.clone(),
            (None, Some(data_dir)) => page_of(data_dir)?,
            (None, None) => bail!("give --data-dir, --http or --config"),
        };
        drop(rustls::crypto::ring::default_provider().install_default());
        let client = reqwest::Client::builder()
            .timeout(Duration::from_secs(5))
            .build()?;
        let url = format!("http://{address}/status.json");
        Ok(Self::Page { url, client })
    }

    /// Names and what there is to say about them.
    async fn look(&self) -> anyhow::Result<Vec<(String, Value)>> {
        match self {
            Self::Page { url, client } => {
                let mut response = client
                    .get(url)
                    .send()
                    .await
                    .with_context(|| format!("asking {url}"))?;
                let mut bytes = Vec::new();
                while let Some(chunk) = response.chunk().await? {
                    bytes.extend_from_slice(&chunk);
                    if bytes.len() > ANSWER_BYTES_MAX {
                        bail!("{url}: longer than a status page can be");
                    }
                }
                let status = serde_json::from_slice(&bytes);
                Ok(of_page(
                    &status.with_context(|| format!("{url}: not a status page"))?,
                ))
            }
            Self::Devices(config, names) => {
                let mut lines = Vec::new();
                for tag in config
                    .dictionary
                    .tags
                    .iter()
                    .filter(|tag| names.contains(&tag.name))
                {
                    let reading = read_tag(config, None, tag.alias).await?;
                    let value = json!({
                        "value": reading.value(), "unit": tag.unit, "quality": reading.quality.name(),
                    });
                    lines.push((tag.name.clone(), value));
                }
                Ok(lines)
            }
        }
    }
}

/// Where the agent of a data directory serves its page.
pub(super) fn page_of(data_dir: &std::path::Path) -> anyhow::Result<String> {
    let path = data_dir.join("ready.json");
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("{}: no agent runs on this directory", path.display()))?;
    let ready: Value = serde_json::from_str(&text).with_context(|| format!("reading {}", path.display()))?;
    let http = ready["http"].as_str();
    http.map(str::to_owned)
        .with_context(|| format!("{}: names no page", path.display()))
}

/// The parts of a status page that are worth a line when they change. Pure.
fn of_page(status: &Value) -> Vec<(String, Value)> {
    let mut lines = Vec::new();
    for point in status["ccps"].as_array().into_iter().flatten() {
        let name = format!("{} {}", text(&point["code"]), text(&point["tag"]));
        let value = json!({
            "value": point["value"], "unit": point["unit"], "quality": point["quality"], "state": point["state"],
        });
        lines.push((name, value));
    }
    for source in status["sources"].as_array().into_iter().flatten() {
        let name = format!("{} {}", text(&source["kind"]), text(&source["name"]));
        let value = json!({
            "state": source["state"], "reason": source["reason"], "good": source["good"],
            "uncertain": source["uncertain"], "bad": source["bad"], "not_read": source["not_read"],
        });
        lines.push((name, value));
    }
    let uplink = json!({
        "state": status["uplink"]["state"], "reason": status["uplink"]["reason"],
        "backlog_readings": status["backlog_readings"], "lost": status["lost"],
    });
    lines.push(("hub".to_owned(), uplink));
    lines
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn print_line(name: &str, value: &Value, json: bool) {
    let now_us = clock::now_us();
    if json {
        println!("{}", json!({ "at_us": now_us, "name": name, "what": value }));
        return;
    }
    let at = chrono::DateTime::from_timestamp_micros(now_us).unwrap_or_default();
    let parts: Vec<String> = value
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(_, value)| !value.is_null())
        .map(|(key, value)| {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            format!("{key}={value}")
        })
        .collect();
    println!("{} {name}: {}", at.format("%H:%M:%S"), parts.join(" "));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_points_sources_and_the_hub_have_a_line_each() {
        let status = json!({
            "ccps": [{ "code": "CCP-1", "tag": "TT-101", "value": 72.5, "state": "in_control" }],
            "sources": [{ "kind": "modbus", "name": "plc", "state": "up", "good": 7 }],
            "uplink": { "state": "online" },
        });
        let lines = of_page(&status);
        let names: Vec<&str> = lines.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["CCP-1 TT-101", "modbus plc", "hub"]);
        assert_eq!(lines[0].1["value"], 72.5);
    }
}
