//! `foodflow-edge diag`: what stands between this machine and readings at the hub? Examines configuration, clock, disk,
//! identity, certificate, versions, the hub step by step (name, TCP, TLS, MQTT) and every source; nothing is changed.
#![expect(clippy::print_stdout, reason = "a command's answer goes to standard output")]

use std::{
    net::ToSocketAddrs as _,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use rumqttc::{
    Transport,
    v5::{AsyncClient, Event, MqttOptions, mqttbytes::v5::Packet},
};
use serde::Serialize;
use tokio::{net::TcpStream, time::timeout};

use super::{ExitWith, read::read_tag};
use crate::{
    clock,
    config::{Config, ConfigError},
    fleet::{
        certificate,
        remote_config::{self, Origin},
        update::{manifest, versions},
    },
    uplink::identity,
};

/// Each step towards the hub or a source may take this long.
const STEP_WITHIN: Duration = Duration::from_secs(5);
/// Free space below which the spool will soon be full.
const FREE_BYTES_MIN: u64 = 256 << 20;

/// Examine everything the agent depends on.
#[derive(Debug, Args)]
pub struct DiagArgs {
    /// The configuration.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The agent's data directory.
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Leave the hub and the sources alone.
    #[arg(long)]
    offline: bool,
    /// Answer as JSON.
    #[arg(long)]
    json: bool,
}

/// What one examination found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Finding {
    /// What was examined.
    what: String,
    /// Whether it is as it should be.
    ok: bool,
    /// What was found; for a fault also what to do.
    detail: String,
}

fn good(what: &str, detail: impl Into<String>) -> Finding {
    Finding {
        what: what.to_owned(),
        ok: true,
        detail: detail.into(),
    }
}

fn bad(what: &str, detail: impl Into<String>) -> Finding {
    Finding {
        ok: false,
        ..good(what, detail)
    }
}

fn judged(what: &str, found: Result<String, String>) -> Finding {
    match found {
        Ok(detail) => good(what, detail),
        Err(detail) => bad(what, detail),
    }
}

/// Examines, prints, and exits 0 when all is well, 1 when something is not, 2 when the configuration cannot be used.
pub async fn run(args: DiagArgs) -> anyhow::Result<()> {
    drop(rustls::crypto::ring::default_provider().install_default());
    let mut findings = vec![
        clock_finding(),
        disk(&args.data_dir),
        versions_finding(&args.data_dir),
    ];
    let opened = remote_config::look(&args.config, &args.data_dir);
    findings.push(configuration(&opened));
    let code = match &opened {
        Ok((config, _)) => {
            findings.extend(credentials(config, &args.data_dir));
            if !args.offline {
                findings.extend(hub(config, &args.data_dir).await);
                findings.extend(sources(config).await);
            }
            u8::from(findings.iter().any(|finding| !finding.ok))
        }
        Err(_) => 2,
    };
    print(&findings, args.json)?;
    if code == 0 {
        Ok(())
    } else {
        Err(ExitWith(code).into())
    }
}

fn print(findings: &[Finding], json: bool) -> anyhow::Result<()> {
    if json {
        let answer = serde_json::json!({
            "version": env!("CARGO_PKG_VERSION"),
            "at_us": clock::now_us(),
            "ok": findings.iter().all(|finding| finding.ok),
            "findings": findings,
        });
        println!("{}", serde_json::to_string_pretty(&answer)?);
        return Ok(());
    }
    for finding in findings {
        let mark = if finding.ok { "ok   " } else { "FAULT" };
        println!("{mark} {}: {}", finding.what, finding.detail);
    }
    Ok(())
}

fn configuration(opened: &Result<(Config, Origin), ConfigError>) -> Finding {
    let what = "configuration";
    match opened {
        Ok((config, origin)) => {
            let detail = format!("{} runs: {} tags", origin.choice, config.tag_count());
            match &origin.fell_back {
                None => good(what, detail),
                Some(reason) => bad(what, format!("{detail}; {reason}")),
            }
        }
        Err(error) => {
            let cause =
                std::error::Error::source(error).map_or_else(String::new, |cause| format!(": {cause}"));
            bad(what, format!("{error}{cause}"))
        }
    }
}

fn clock_finding() -> Finding {
    // Anything before this program was written is a clock without a battery.
    const WRITTEN_US: i64 = 1_767_225_600_000_000;
    let now_us = clock::now_us();
    let now = chrono::DateTime::from_timestamp_micros(now_us).unwrap_or_default();
    let state = clock::state();
    if now_us < WRITTEN_US {
        return bad(
            "clock",
            format!("{now}: not set; check the battery and the time service"),
        );
    }
    if state.synced {
        good("clock", format!("{now}, synchronised"))
    } else {
        bad(
            "clock",
            format!("{now}, not known to be synchronised: enable systemd-timesyncd or chrony"),
        )
    }
}

fn disk(data_dir: &Path) -> Finding {
    let what = "disk";
    // Before the first start the directory above is what will be used.
    let place = data_dir
        .ancestors()
        .find(|place| place.exists())
        .unwrap_or(data_dir);
    let stat = match nix::sys::statvfs::statvfs(place) {
        Ok(stat) => stat,
        Err(error) => return bad(what, format!("{}: {error}", place.display())),
    };
    let free = stat.blocks_available().saturating_mul(stat.fragment_size());
    if stat.flags().contains(nix::sys::statvfs::FsFlags::ST_RDONLY) {
        return bad(
            what,
            format!("{} is mounted read-only: remount it", place.display()),
        );
    }
    let detail = format!("{} MiB free at {}", free >> 20, place.display());
    if free < FREE_BYTES_MIN {
        bad(what, format!("{detail}: make room or lower `spool.quota`"))
    } else {
        good(what, detail)
    }
}

fn versions_finding(data_dir: &Path) -> Finding {
    let what = "version";
    let packaged = manifest::running();
    match versions::load(data_dir) {
        Ok(state) => {
            let detail = state.current.as_ref().map_or_else(
                || format!("{packaged}"),
                |current| format!("{} installed over {packaged}", current.version),
            );
            let failure = state
                .concluded
                .and_then(|concluded| concluded.failure.map(|why| (concluded.version, why)));
            match failure {
                None => good(what, detail),
                Some((version, why)) => bad(what, format!("{detail}; {version} was given up: {why}")),
            }
        }
        Err(error) => bad(what, error.to_string()),
    }
}

fn credentials(config: &Config, data_dir: &Path) -> Vec<Finding> {
    let name = format!("{}/{}", config.edge.tenant, config.edge.name);
    let what = "identity";
    let identity = match identity::load(data_dir) {
        Ok(Some(identity)) if identity.mqtt_username == name => good(what, name),
        Ok(Some(identity)) => bad(
            what,
            format!(
                "enrolled as {}, configured as {name}: correct [edge] or enrol again",
                identity.mqtt_username
            ),
        ),
        Ok(None) => bad(
            what,
            "not enrolled: run `foodflow-edge enroll` with a code from the hub",
        ),
        Err(error) => bad(what, error.to_string()),
    };
    let what = "certificate";
    let certificate = match certificate::load(data_dir) {
        Ok(None) => good(what, "none; the edge signs in with its password"),
        Ok(Some(certificate)) => {
            let until = chrono::DateTime::from_timestamp_micros(certificate.not_after_us).unwrap_or_default();
            if certificate.is_valid(clock::now_us()) {
                good(what, format!("{} until {until}", certificate.subject))
            } else {
                bad(
                    what,
                    format!(
                        "{} until {until}: renewed once the hub is connected",
                        certificate.subject
                    ),
                )
            }
        }
        Err(error) => bad(what, error.to_string()),
    };
    vec![identity, certificate]
}

/// The hub, step by step: the first that fails is where to look.
async fn hub(config: &Config, data_dir: &Path) -> Vec<Finding> {
    let address = config.hub.mqtt.clone();
    let names = {
        let address = address.clone();
        timeout(
            STEP_WITHIN,
            tokio::task::spawn_blocking(move || address.to_socket_addrs()),
        )
        .await
    };
    let resolved = match names {
        Ok(Ok(Ok(mut found))) => found.next().ok_or_else(|| "the name has no address".to_owned()),
        Ok(Ok(Err(error))) => Err(format!(
            "{address}: {error}; check `hub.mqtt` and the name server"
        )),
        _ => Err(format!("{address}: the name server does not answer")),
    };
    let mut findings = vec![judged(
        "hub name",
        resolved.clone().map(|found| found.to_string()),
    )];
    let Ok(resolved) = resolved else { return findings };
    let reached = reach(resolved).await;
    let is_reached = reached.is_ok();
    findings.push(judged("hub tcp", reached));
    if is_reached {
        let what = if config.hub.ca_file.is_some() {
            "hub tls and mqtt"
        } else {
            "hub mqtt"
        };
        findings.push(judged(what, sign_in(config, data_dir).await));
    }
    findings
}

async fn reach(address: std::net::SocketAddr) -> Result<String, String> {
    match timeout(STEP_WITHIN, TcpStream::connect(address)).await {
        Ok(Ok(_)) => Ok(format!("{address} accepts connections")),
        Ok(Err(error)) => Err(format!(
            "{address}: {error}; is it running, is a firewall in between?"
        )),
        Err(_) => Err(format!(
            "{address}: no answer within {} s; a firewall?",
            STEP_WITHIN.as_secs()
        )),
    }
}

/// Signs in under a client id of its own, so that a running agent keeps its connection.
async fn sign_in(config: &Config, data_dir: &Path) -> Result<String, String> {
    let identity = identity::load(data_dir)
        .map_err(|error| error.to_string())?
        .ok_or("not enrolled: nothing to sign in with")?;
    let (host, port) = config
        .hub
        .mqtt
        .rsplit_once(':')
        .unwrap_or((&config.hub.mqtt, "1883"));
    let client_id = format!("{}/{}/diag", config.edge.tenant, config.edge.name);
    let mut options = MqttOptions::new(client_id, host, port.parse().unwrap_or(1883));
    options
        .set_credentials(&identity.mqtt_username, &identity.mqtt_password)
        .set_connection_timeout(STEP_WITHIN.as_secs());
    if let Some(path) = &config.hub.ca_file {
        let ca = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let certificate = certificate::load(data_dir).ok().flatten();
        let pair = certificate
            .filter(|certificate| certificate.is_valid(clock::now_us()))
            .map(|certificate| (certificate.pem.clone(), certificate.pem));
        options.set_transport(Transport::tls(ca, pair, None));
    }
    let (_client, mut events) = AsyncClient::new(options, 4);
    let connected = async {
        loop {
            match events.poll().await {
                Ok(Event::Incoming(Packet::ConnAck(_))) => return Ok("signed in".to_owned()),
                Ok(_) => {}
                Err(error) => {
                    return Err(format!(
                        "{error}; enrol again if the hub refuses, check `hub.ca_file` if TLS does"
                    ));
                }
            }
        }
    };
    timeout(STEP_WITHIN * 2, connected)
        .await
        .unwrap_or_else(|_| Err("no answer to the sign-in in time".to_owned()))
}

/// One tag of every device is read, and every camera's directory looked into.
async fn sources(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    for device in &config.modbus {
        let tag = device.groups.iter().flat_map(|group| &group.tags).next();
        findings.push(
            read_one(
                config,
                &format!("modbus {}", device.name),
                tag.map(|tag| tag.alias),
            )
            .await,
        );
    }
    for server in &config.opcua {
        let tag = server.tags.first();
        findings.push(
            read_one(
                config,
                &format!("opcua {}", server.name),
                tag.map(|tag| tag.alias),
            )
            .await,
        );
    }
    for camera in &config.cameras {
        let what = format!("camera {}", camera.name);
        let listed = std::fs::read_dir(&camera.directory).map(Iterator::count);
        let listed = listed.map(|files| format!("{files} files in {}", camera.directory.display()));
        findings.push(judged(
            &what,
            listed.map_err(|error| format!("{}: {error}", camera.directory.display())),
        ));
    }
    findings
}

async fn read_one(config: &Config, what: &str, tag: Option<protocol::reading::Alias>) -> Finding {
    let Some(alias) = tag else {
        return good(what, "no tags");
    };
    let name = config
        .dictionary
        .tags
        .get(alias.0 as usize)
        .map_or("", |tag| tag.name.as_str());
    match timeout(STEP_WITHIN * 2, read_tag(config, None, alias)).await {
        Ok(Ok(reading)) if reading.quality.is_bad() => bad(what, format!("{name}: {}", reading.quality)),
        Ok(Ok(reading)) => good(
            what,
            format!("{name} = {:?} ({})", reading.value(), reading.quality),
        ),
        Ok(Err(error)) => bad(what, format!("{name}: {error:#}")),
        Err(_) => bad(what, format!("{name}: no answer in time")),
    }
}
