//! Commands for integrators: what the hub makes of a message, and the rules for a broker outside.
#![expect(clippy::print_stdout, reason = "what a script reads goes to standard output")]

use std::{io::Read as _, path::PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use protocol::integrator::{Dialect, PAYLOAD_BYTES_MAX};
use serde_json::Value;

use super::{
    Place,
    manage::{close, db},
};
use crate::{
    broker::Device,
    integrator::{Question, explain as explained, export},
    kernel::clock::Clock,
};

/// What to explain.
#[derive(Debug, Args)]
pub(super) struct ExplainArguments {
    /// The topic it would be published to.
    topic: String,
    /// The file with its bytes; `-` for standard input.
    file: PathBuf,
    /// As JSON.
    #[arg(long)]
    json: bool,
    /// The client that would send it.
    #[arg(long, default_value = "akron/client", value_name = "TENANT/NAME")]
    client: String,
    /// The dialect; told by topic and shape when absent.
    #[arg(long, value_parser = dialect)]
    dialect: Option<Dialect>,
}

fn dialect(name: &str) -> Result<Dialect, String> {
    let found = Dialect::ALL
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, dialect)| *dialect);
    let names: Vec<&str> = Dialect::ALL.iter().map(|(known, _)| *known).collect();
    found.ok_or_else(|| format!("no dialect; one of {}", names.join(", ")))
}

/// Commands about brokers outside.
#[derive(Debug, Subcommand)]
pub(super) enum MqttCommand {
    /// Print a Mosquitto access control file with every device that is let in now.
    ExportAcl {
        /// The hub's own user name on that broker.
        #[arg(long, default_value = "foodflow-hub")]
        hub_user: String,
    },
}

pub(super) async fn run(place: &Place, command: MqttCommand) -> anyhow::Result<()> {
    let MqttCommand::ExportAcl { hub_user } = command;
    anyhow::ensure!(
        !hub_user.is_empty() && !hub_user.contains(char::is_whitespace),
        "--hub-user must be one word"
    );
    let (_, databases) = place.open().await?;
    let db = db(&databases);
    let file = export::mosquitto_acl(&db, &hub_user).await?;
    db.close().await;
    close(databases).await;
    print!("{file}");
    Ok(())
}

fn bytes(file: &PathBuf) -> anyhow::Result<Vec<u8>> {
    let mut read = Vec::new();
    // One more than is taken, so that too much is told from just enough.
    let limit = PAYLOAD_BYTES_MAX as u64 + 1;
    if file.as_os_str() == "-" {
        std::io::stdin()
            .lock()
            .take(limit)
            .read_to_end(&mut read)
            .context("reading standard input")?;
    } else {
        let opened = std::fs::File::open(file).with_context(|| format!("opening {}", file.display()))?;
        opened
            .take(limit)
            .read_to_end(&mut read)
            .with_context(|| format!("reading {}", file.display()))?;
    }
    Ok(read)
}

pub(super) fn explain(given: &ExplainArguments) -> anyhow::Result<()> {
    let (tenant, name) = given.client.split_once('/').context("--client is TENANT/NAME")?;
    let question = Question {
        client: Device {
            tenant: tenant.to_owned(),
            name: name.to_owned(),
        },
        topic: given.topic.clone(),
        payload: bytes(&given.file)?.into(),
        received_us: Clock::system().now_us(),
    };
    let (said, is_taken) = explained(question, given.dialect);
    if given.json {
        println!("{said:#}");
    } else {
        print!("{}", in_words(&said));
    }
    anyhow::ensure!(is_taken, "the hub would take none of it");
    Ok(())
}

/// One line for each value and each refusal.
fn in_words(said: &Value) -> String {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let list = |field: &str| said[field].as_array().cloned().unwrap_or_default();
    let mut lines = vec![format!("{} on {}", text(&said["dialect"]), text(&said["topic"]))];
    for reading in list("readings") {
        let value = if reading["text"].is_null() {
            &reading["value"]
        } else {
            &reading["text"]
        };
        let (device, name, time) = (
            text(&reading["device"]),
            text(&reading["name"]),
            text(&reading["time"]),
        );
        let (note, quality) = (text(&reading["time_note"]), text(&reading["quality"]));
        lines.push(format!(
            "  {device} / {name} = {value} at {time} ({note}), {quality}"
        ));
    }
    for device in list("devices") {
        let state = if device["is_online"] == true {
            "is there"
        } else {
            "is gone"
        };
        lines.push(format!("  {} {state}", text(&device["device"])));
    }
    for announced in list("announced") {
        lines.push(format!(
            "  announces {} / {}",
            text(&announced["device"]),
            text(&announced["name"])
        ));
    }
    for alarm in list("alarms") {
        lines.push(format!(
            "  alarm {} of {}: {}",
            text(&alarm["name"]),
            text(&alarm["device"]),
            text(&alarm["text"])
        ));
    }
    for refused in list("refused") {
        let place = if refused["offset"].is_null() {
            String::new()
        } else {
            format!(" at byte {}", refused["offset"])
        };
        let (number, code, hint) = (
            text(&refused["number"]),
            text(&refused["code"]),
            text(&refused["hint"]),
        );
        lines.push(format!(
            "  refused{place}: {number} {code}: {hint}: `{}`",
            text(&refused["sample"])
        ));
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_refused_is_explained_with_place_and_remedy() {
        let said = json!({ "topic": "v1/a", "dialect": "native", "readings": [], "devices": [], "announced": [], "alarms": [],
            "refused": [{ "number": "E101", "code": "BAD_JSON", "hint": "object keys must be quoted", "offset": 1, "sample": "t:1}" }] });
        assert_eq!(
            in_words(&said),
            "native on v1/a\n  refused at byte 1: E101 BAD_JSON: object keys must be quoted: `t:1}`\n"
        );
    }
}
