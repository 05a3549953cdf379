//! `foodflow-edge read`: what does one configured tag say right now?
#![expect(clippy::print_stdout, reason = "a command's answer goes to standard output")]

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;
use protocol::{Reading, reading::Alias};

use super::browse::pki_dir;
use crate::{
    clock,
    config::{self, Config},
    source::{
        modbus::{
            self,
            client::{Connection, read_request, values},
        },
        opcua::{client, decode, items},
    },
};

/// Read one tag now.
#[derive(Debug, Args)]
pub struct ReadArgs {
    /// The configuration.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The agent's data directory: holds the certificates that an OPC UA server with security wants.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The tag's name.
    tag: String,
    /// Answer as JSON.
    #[arg(long)]
    json: bool,
}

/// Reads the tag; a reading without a value is an answer, not a failure.
pub async fn run(args: ReadArgs) -> anyhow::Result<()> {
    let config = config::load(&args.config)?;
    let tag = config.dictionary.tags.iter().find(|tag| tag.name == args.tag);
    let Some(tag) = tag else {
        bail!("no tag is named `{}` in {}", args.tag, args.config.display());
    };
    let reading = read_tag(&config, args.data_dir.as_deref(), tag.alias).await?;
    if args.json {
        let answer = serde_json::json!({
            "tag": tag.name,
            "time_us": reading.time_us,
            "value": reading.value(),
            "unit": tag.unit,
            "quality": reading.quality.name(),
        });
        println!("{answer}");
    } else {
        let value = reading
            .value()
            .map_or_else(|| "no value".to_owned(), |value| value.to_string());
        println!("{} = {value} {} ({})", tag.name, tag.unit, reading.quality);
    }
    Ok(())
}

/// Reads one configured tag from its device, on a connection of its own.
pub(super) async fn read_tag(
    config: &Config,
    data_dir: Option<&Path>,
    alias: Alias,
) -> anyhow::Result<Reading> {
    match read_modbus(config, alias).await? {
        Some(reading) => Ok(reading),
        None => read_opcua(config, data_dir, alias).await,
    }
}

async fn read_modbus(config: &Config, alias: Alias) -> anyhow::Result<Option<Reading>> {
    for device in &config.modbus {
        let tags = device.groups.iter().flat_map(|group| &group.tags);
        let Some(tag) = tags.into_iter().find(|tag| tag.alias == alias) else {
            continue;
        };
        let mut connection = Connection::open(&device.endpoint, device.timeout).await?;
        let block = &modbus::plan::blocks(&[tag.place], &[0], device.limits)[0];
        let request = read_request(block);
        let reply = connection.call(device.unit_id, request, device.timeout).await;
        let registers = match reply.and_then(|reply| values(reply, block.count)) {
            Ok(registers) => registers,
            Err(error) => return Ok(Some(Reading::bad(alias, clock::now_us(), error.quality()))),
        };
        return Ok(Some(match modbus::decode::value(&registers, &tag.decoding) {
            Ok((value, quality)) => Reading::new(alias, clock::now_us(), value, quality),
            Err(reason) => Reading::bad(alias, clock::now_us(), reason),
        }));
    }
    Ok(None)
}

async fn read_opcua(config: &Config, data_dir: Option<&Path>, alias: Alias) -> anyhow::Result<Reading> {
    for server in &config.opcua {
        let Some(tag) = server.tags.iter().find(|tag| tag.alias == alias) else {
            continue;
        };
        let pki = pki_dir(server, data_dir)?;
        let value = client::with_session(server, &pki, |session| async move {
            let namespaces = client::namespaces(&session).await?;
            let node = items::node_id(&namespaces, &server.namespace_uri, tag)
                .ok_or_else(|| client::failure("Read", "the server does not know the tag's namespace"))?;
            client::read_chunk(&session, &[node]).await
        })
        .await?;
        let value = value.into_iter().next().context("the server gave no value")?;
        return Ok(decode::reading(alias, &value, 0, clock::now_us()));
    }
    bail!("the tag has no source")
}
