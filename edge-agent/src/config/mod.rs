//! What was the agent told to do? Reads the TOML file into typed structs and reports every fault at once, each
//! with its line. Nothing is opened or bound here.

mod environment;
mod quantity;
mod section;
mod tags;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use protocol::{limit::CriticalLimit, tag::Dictionary, topic};

pub use self::{
    section::{At, Fault, Faults, Section},
    tags::{Names, NewTag, Tags},
};
use crate::{
    alarm::config::{AlarmPolicy, TagAlarm, read_alarm, read_policy},
    ccp::config::{Point, read_point},
    fleet::config::{Fleet, read_fleet},
    local::badge::{Badge, config::read_badge},
    output::config::{Output, read_output},
    signal::config::{Plan, read_signals},
    source::{
        camera::config::{Camera, read_camera},
        modbus::config::{Device, read_device},
        mqtt::config::{Broker, read_broker},
        opcua::config::{Server, read_server},
    },
    sparkplug::config::{Node, read_node},
};

/// The commented reference of every key; parses as a configuration.
pub const REFERENCE: &str = include_str!("../../config/default.toml");

/// Everything the agent was told.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Who it is.
    pub edge: Edge,
    /// Where the hub is.
    pub hub: Hub,
    /// Address of the local status page.
    pub local_http: String,
    /// How much is kept, and how frames are cut.
    pub spool: Spool,
    /// The model that judges camera frames.
    pub vision: Vision,
    /// How pushed configurations and versions are judged.
    pub fleet: Fleet,
    /// Modbus devices.
    pub modbus: Vec<Device>,
    /// OPC UA servers.
    pub opcua: Vec<Server>,
    /// Brokers on the floor.
    pub mqtt: Vec<Broker>,
    /// Cameras.
    pub cameras: Vec<Camera>,
    /// The Sparkplug edge node, when there is one.
    pub sparkplug: Option<Node>,
    /// What is made of signals before control points are judged.
    pub signals: Plan,
    /// Who may sign on the local page.
    pub badges: Vec<Badge>,
    /// Critical control points.
    pub points: Vec<Point>,
    /// What holds for all alarms.
    pub alarm_policy: AlarmPolicy,
    /// Limits on tags that are not critical limits.
    pub alarms: Vec<TagAlarm>,
    /// Outputs that control points drive.
    pub outputs: Vec<Output>,
    /// Every tag, by alias.
    pub dictionary: Dictionary,
}

/// Who the agent is.
#[derive(Clone, Debug, PartialEq)]
pub struct Edge {
    /// Name, unique in the tenant.
    pub name: String,
    /// Tenant slug.
    pub tenant: String,
    /// Code of the plant.
    pub plant: String,
    /// Whether a simulator, not a plant, feeds it.
    pub simulated: bool,
}

/// Where the hub is.
#[derive(Clone, Debug, PartialEq)]
pub struct Hub {
    /// `host:port` of the MQTT front end.
    pub mqtt: String,
    /// Certificate authority for TLS; plain TCP without one.
    pub ca_file: Option<PathBuf>,
    /// Most readings of the backlog sent in a second; as many as the hub takes without one.
    pub drain_readings_per_s: Option<u32>,
}

/// How much is kept, and how frames are cut.
#[derive(Clone, Debug, PartialEq)]
pub struct Spool {
    /// Most bytes on disk.
    pub quota_bytes: u64,
    /// A generation is closed at this size.
    pub generation_bytes: u64,
    /// What the hub has acknowledged stays this long for replays, as far as the quota allows.
    pub keep: Duration,
    /// Records of control points stay this long in the journal.
    pub journal_keep: Duration,
    /// A frame is sealed at this many readings,
    pub frame_readings_max: usize,
    /// or at this age.
    pub frame_age_max: Duration,
}

/// The model that judges camera frames.
#[derive(Clone, Debug, PartialEq)]
pub struct Vision {
    /// ONNX Runtime's library; searched for when absent.
    pub runtime: Option<PathBuf>,
    /// The model's manifest.
    pub manifest: PathBuf,
    /// How many frames are judged at once.
    pub inspectors: usize,
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: cannot be read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file says something wrong.
    #[error("{}", list(path, faults))]
    Faulty {
        /// The file.
        path: PathBuf,
        /// Everything that is wrong with it.
        faults: Vec<Fault>,
    },
}

fn list(path: &Path, faults: &[Fault]) -> String {
    let lines: Vec<String> = faults
        .iter()
        .map(|fault| match fault.line {
            0 => format!("environment: {}", fault.message),
            line => format!("{}:{line}: {}", path.display(), fault.message),
        })
        .collect();
    lines.join("\n")
}

/// Reads a file, then the environment: `FOODFLOW_EDGE__HUB__MQTT` replaces `mqtt` of `[hub]`, and so on for every key
/// of a plain section.
///
/// # Errors
/// [`ConfigError`], listing every fault found.
pub fn load(path: &Path) -> Result<Config, ConfigError> {
    load_after(path, &Dictionary::default())
}

/// Like [`load`], for an agent that runs: tags keep their aliases, and those no longer named stay in the dictionary
/// until the next start, because readings of them may be under way.
///
/// # Errors
/// [`ConfigError`], listing every fault found.
pub fn load_after(path: &Path, running: &Dictionary) -> Result<Config, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    parse_after(&text, std::env::vars(), running).map_err(|faults| ConfigError::Faulty {
        path: path.to_owned(),
        faults,
    })
}

/// Reads a configuration's text.
///
/// # Errors
/// All faults, by line.
pub fn parse(text: &str) -> Result<Config, Vec<Fault>> {
    parse_with(text, std::iter::empty())
}

/// Reads a configuration's text and the variables that replace parts of it.
///
/// # Errors
/// All faults, by line.
pub fn parse_with(
    text: &str,
    variables: impl Iterator<Item = (String, String)>,
) -> Result<Config, Vec<Fault>> {
    parse_after(text, variables, &Dictionary::default())
}

/// Like [`parse_with`], for an agent that runs with `running`.
///
/// # Errors
/// All faults, by line.
pub fn parse_after(
    text: &str,
    variables: impl Iterator<Item = (String, String)>,
    running: &Dictionary,
) -> Result<Config, Vec<Fault>> {
    let overrides = environment::overrides(variables);
    let faults = Faults::new(text);
    let (table, errors) = toml::de::DeTable::parse_recoverable(text);
    for error in &errors {
        faults.add(
            &error.span().unwrap_or(0..0),
            format!("not TOML: {}", error.message()),
        );
    }
    if !errors.is_empty() {
        return Err(faults.into_sorted());
    }
    let config = read(
        &Section::root(table.get_ref(), &overrides, &faults),
        &faults,
        running,
    );
    let found = faults.into_sorted();
    match config {
        Some(config) if found.is_empty() => Ok(config),
        _ => Err(found),
    }
}

fn read<'a>(root: &Section<'a>, faults: &'a Faults<'a>, running: &'a Dictionary) -> Option<Config> {
    let edge = read_edge(root);
    let hub = read_hub(root);
    let local = root.table("local");
    let local_http = local
        .text("http")
        .map(|at| check_address(&local, at, "local.http"));
    local.finish();
    let spool = read_spool(root);
    let vision = read_vision(root);
    let fleet = read_fleet(root);
    let simulated = edge.as_ref().is_some_and(|edge| edge.simulated);
    let mut tags = Tags::after(running, simulated, faults);
    let mut names = Names::default();
    let modbus = each(root, "modbus", |section| {
        read_device(section, &mut tags, &mut names)
    });
    let opcua = each(root, "opcua", |section| {
        read_server(section, &mut tags, &mut names)
    });
    let mqtt = each(root, "mqtt", |section| {
        read_broker(section, &mut tags, &mut names)
    });
    let cameras = each(root, "camera", |section| read_camera(section, &mut names));
    let mut signals = read_signals(root, &mut tags, &mut names);
    signals.watch_cameras(&cameras);
    let sparkplug = read_node(root, edge.as_ref().map(|edge| edge.name.as_str()));
    let badges = each(root, "badge", |section| read_badge(section, &mut names));
    let outputs = each(root, "output", |section| {
        read_output(section, (&modbus, &opcua), &mut names)
    });
    let points = each(root, "ccp", |section| {
        read_point(section, &tags, &mut names, &outputs)
    });
    signals.protect(&points, &tags);
    let alarm_policy = read_policy(root);
    let alarms = each(root, "alarm", |section| {
        Some(read_alarm(section, &tags, &mut names, alarm_policy))
    });
    root.unknown_keys();
    Some(Config {
        edge: edge?,
        hub: hub?,
        local_http: local_http.unwrap_or_else(|| "127.0.0.1:9180".to_owned()),
        spool,
        vision,
        fleet,
        modbus,
        opcua,
        mqtt,
        cameras,
        sparkplug,
        signals,
        badges,
        points,
        alarm_policy,
        alarms: alarms.into_iter().flatten().collect(),
        outputs,
        dictionary: tags.into_dictionary(),
    })
}

fn each<'a, T>(
    root: &Section<'a>,
    key: &'static str,
    mut read: impl FnMut(&Section<'a>) -> Option<T>,
) -> Vec<T> {
    let mut out = Vec::new();
    for section in root.tables(key) {
        out.extend(read(&section));
        section.finish();
    }
    out
}

fn read_edge(root: &Section<'_>) -> Option<Edge> {
    let section = root.table("edge");
    let name = section
        .required_text("name")
        .and_then(|at| topic_name(&section, at));
    let tenant = section
        .required_text("tenant")
        .and_then(|at| topic_name(&section, at));
    let plant = section.text("plant").map(|at| at.value);
    let simulated = section.flag("simulated", false);
    section.finish();
    let tenant = tenant?;
    Some(Edge {
        name: name?,
        plant: plant.unwrap_or_else(|| tenant.clone()),
        tenant,
        simulated,
    })
}

/// Names that stand in MQTT topics may not hold wildcards or slashes.
fn topic_name(section: &Section<'_>, at: At<String>) -> Option<String> {
    if topic::is_name(&at.value) {
        return Some(at.value);
    }
    section.fault_at(
        &at.span,
        format!(
            "`{}` cannot be a name: use 1 to 63 of a-z, 0-9, - and _, not starting with -",
            at.value
        ),
    );
    None
}

fn read_hub(root: &Section<'_>) -> Option<Hub> {
    let section = root.table("hub");
    let mqtt = section
        .required_text("mqtt")
        .map(|at| check_address(&section, at, "hub.mqtt"));
    let ca_file = section.text("ca_file").map(|at| PathBuf::from(at.value));
    let drain = section.integer("drain_readings_per_s", 100..=10_000_000);
    section.finish();
    Some(Hub {
        mqtt: mqtt?,
        ca_file,
        drain_readings_per_s: drain.and_then(|readings| u32::try_from(readings).ok()),
    })
}

/// Records a fault unless the text is `host:port`.
pub(crate) fn check_address(section: &Section<'_>, at: At<String>, key: &str) -> String {
    let is_address = at
        .value
        .rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    if !is_address {
        section.fault_at(
            &at.span,
            format!("`{key}` must be host:port, like \"127.0.0.1:1502\""),
        );
    }
    at.value
}

fn read_spool(root: &Section<'_>) -> Spool {
    const MIB: u64 = 1 << 20;
    const DAY: Duration = Duration::from_hours(24);
    let section = root.table("spool");
    let quota_bytes = section.bytes("quota", 16 * MIB..=1 << 50).unwrap_or(2 << 30);
    let generation = section.bytes("generation", MIB..=1 << 40);
    let generation_bytes = generation.unwrap_or((64 * MIB).min(quota_bytes / 4));
    if generation.is_some() && generation_bytes > quota_bytes / 4 {
        section.fault(
            "`spool.generation` must be at most a quarter of `spool.quota`: whole generations are given up",
        );
    }
    let keep = section
        .duration("keep", Duration::ZERO..=DAY * 366)
        .unwrap_or(DAY * 7);
    let journal_keep = section
        .duration("journal_keep", DAY * 365..=DAY * 366 * 30)
        .unwrap_or(DAY * 366 * 2);
    let frame_readings_max = section.integer("frame_readings_max", 1..=10_000).unwrap_or(1_000) as usize;
    let frame_age_max = section
        .duration(
            "frame_age_max",
            Duration::from_millis(10)..=Duration::from_mins(1),
        )
        .unwrap_or(Duration::from_millis(250));
    section.finish();
    Spool {
        quota_bytes,
        generation_bytes,
        keep,
        journal_keep,
        frame_readings_max,
        frame_age_max,
    }
}

fn read_vision(root: &Section<'_>) -> Vision {
    let section = root.table("vision");
    let runtime = section.text("runtime").map(|at| PathBuf::from(at.value));
    let manifest = section.text("manifest").map(|at| at.value);
    let inspectors = section.integer("inspectors", 1..=64).unwrap_or(1) as usize;
    section.finish();
    Vision {
        runtime,
        manifest: PathBuf::from(
            manifest.unwrap_or_else(|| "vision/models/tray-defects/manifest.json".to_owned()),
        ),
        inspectors,
    }
}

impl Config {
    /// Number of tags.
    pub fn tag_count(&self) -> usize {
        self.dictionary.tags.len()
    }

    /// The limits of all control points.
    pub fn limits(&self) -> impl Iterator<Item = &CriticalLimit> {
        self.points.iter().map(|point| &point.limit)
    }
}

/// ` (did you mean …?)` when one of the known words is near.
fn suggest(word: &str, known: &[&str]) -> String {
    let near = known
        .iter()
        .map(|candidate| (edit_distance(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 4)
        .min();
    near.map_or_else(String::new, |(_, candidate)| {
        format!(" (did you mean `{candidate}`?)")
    })
}

fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests;
