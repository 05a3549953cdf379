//! Which agent configuration matches this simulator?
//! Prints a complete `edge.toml` for what is being served, so that a demo or a test needs no hand-written one.
//!
//! A plant that runs faster than the wall's clock is judged in wall time: what it serves carries the wall's times,
//! and every period, delay and window in the configuration is divided by the speed, down to the least that the
//! agent takes. A clock that is wrong stays wrong by wall time.

use std::{
    fmt::{self, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    config_ccp, gateway,
    load::Load,
    tags::{NAMESPACE_URI, Port, SimTag, TAGS, UNIT_ID},
};

/// Polls faster than this would measure the machine, not the agent.
const MODBUS_PERIOD_MIN: Duration = Duration::from_millis(50);
/// The OPC UA server samples no faster.
const OPCUA_PERIOD_MIN: Duration = Duration::from_millis(100);
/// The agent calls nothing late that is younger.
const LATE_MIN: Duration = Duration::from_secs(1);
/// Often enough that no frame of a fast plant is overtaken by the next.
const CAMERA_POLL: &str = "50ms";

/// What the agent is to be told about itself, beyond the simulator's own servers.
#[derive(Debug, Clone)]
pub struct AgentSettings {
    /// The hub's MQTT address, `host:port`.
    pub hub_mqtt: String,
    /// Where the agent's local status page listens.
    pub local_http: String,
    /// Manifest of the vision model.
    pub vision_manifest: PathBuf,
    /// ONNX Runtime library, when it is not where the agent looks by itself.
    pub vision_runtime: Option<PathBuf>,
    /// Whether the agent looks at the camera's frames.
    pub has_camera: bool,
}

/// Where the plant answers.
#[derive(Debug, Clone, Copy)]
pub struct Places<'a> {
    /// Modbus.
    pub modbus: SocketAddr,
    /// OPC UA.
    pub opcua_url: &'a str,
    /// Frames.
    pub camera_dir: &'a Path,
    /// Broker to which the oven's gateway publishes, when there is one.
    pub broker: Option<(&'a str, u16)>,
}

/// The configuration for the plant's servers, for a plant that runs `speed` times as fast as the wall's clock.
pub fn plant_config(agent: &AgentSettings, speed: f64, places: Places<'_>) -> String {
    let mut out = Toml::new(agent, speed);
    out.plant_modbus(places.modbus);
    out.plant_opcua(places.opcua_url, places.broker.is_some());
    if let Some(broker) = places.broker {
        out.plant_mqtt(broker);
    }
    if agent.has_camera {
        out.camera(places.camera_dir);
    }
    config_ccp::points(&mut out);
    out.text
}

/// The configuration for a load: a Modbus source a device, polled once a period.
pub fn load_config(agent: &AgentSettings, devices: &[SocketAddr], load: Load, tick: Duration) -> String {
    let mut out = Toml::new(agent, 1.0);
    let period_ms = load.period.unwrap_or(tick).as_millis();
    for number in 1..=load.devices {
        // One address: all devices are units behind it.
        let (address, unit) = match devices {
            [shared] => (*shared, number as u8),
            own => (own[usize::from(number) - 1], 1),
        };
        out.modbus(&format!("load-{number:03}"), address, unit);
        out.line(format_args!("  [[modbus.group]]"));
        out.line(format_args!("  period = \"{period_ms}ms\""));
        for address in 0..load.tags {
            out.line(format_args!("    [[modbus.group.tag]]"));
            out.line(format_args!("    name = \"LD-{number:03}-{address:04}\""));
            out.line(format_args!("    line = \"L1\""));
            out.line(format_args!("    unit = \"\""));
            out.line(format_args!("    description = \"Load counter\""));
            out.line(format_args!("    kind = \"holding\""));
            out.line(format_args!("    address = {address}"));
            out.line(format_args!("    type = \"u16\""));
            out.line(format_args!("    scale_digits = 0"));
        }
    }
    out.text
}

/// A configuration being written.
#[derive(Debug)]
pub(super) struct Toml {
    text: String,
    speed: f64,
}

impl Toml {
    fn new(agent: &AgentSettings, speed: f64) -> Self {
        let mut out = Self {
            text: String::new(),
            speed,
        };
        out.line(format_args!(
            "# Written by `foodflow-edge simulate`; it is overwritten at each start.\n"
        ));
        out.line(format_args!(
            "[edge]\nname = \"akron-1\"\ntenant = \"akron\"\nplant = \"akron\""
        ));
        out.line(format_args!("simulated = true\n"));
        out.line(format_args!("[hub]\nmqtt = {}\n", quoted(&agent.hub_mqtt)));
        out.line(format_args!("[local]\nhttp = {}\n", quoted(&agent.local_http)));
        out.line(format_args!(
            "[vision]\nmanifest = {}",
            quoted_path(&agent.vision_manifest)
        ));
        if let Some(runtime) = &agent.vision_runtime {
            out.line(format_args!("runtime = {}", quoted_path(runtime)));
        }
        out.line(format_args!(""));
        out
    }

    /// Adds a line.
    pub(super) fn line(&mut self, text: fmt::Arguments<'_>) {
        writeln!(self.text, "{text}").expect("writing to a String cannot fail");
    }

    /// A duration of the plant in wall time, as the configuration says it; never shorter than `least`.
    pub(super) fn wall(&self, plant: Duration, least: Duration) -> String {
        let wall = plant.div_f64(self.speed).max(least);
        let ms = format!("{:.3}", wall.as_secs_f64() * 1_000.0);
        format!("{}ms", ms.trim_end_matches('0').trim_end_matches('.'))
    }

    fn modbus(&mut self, name: &str, address: SocketAddr, unit: u8) {
        self.line(format_args!(
            "[[modbus]]\nname = \"{name}\"\naddress = \"{address}\"\nunit_id = {unit}"
        ));
        self.line(format_args!(
            "timeout = \"800ms\"\nblock_registers_max = 120\nhole_registers_max = 8"
        ));
    }

    fn plant_modbus(&mut self, address: SocketAddr) {
        self.modbus("akron-plc", address, UNIT_ID);
        self.line(format_args!("writes_enabled = true"));
        let mut periods: Vec<u32> = modbus_tags().map(|tag| tag.period_ms).collect();
        periods.sort_unstable();
        periods.dedup();
        for period_ms in periods {
            let period = self.wall(Duration::from_millis(period_ms.into()), MODBUS_PERIOD_MIN);
            self.line(format_args!("  [[modbus.group]]\n  period = \"{period}\""));
            modbus_tags()
                .filter(|tag| tag.period_ms == period_ms)
                .for_each(|tag| self.modbus_tag(tag));
        }
        self.line(format_args!(""));
    }

    fn modbus_tag(&mut self, tag: &SimTag) {
        let (table, address) = match tag.port {
            Port::Register { table, address, .. } | Port::Bit { table, address } => (table, address),
            Port::OpcUa { .. } => return,
        };
        self.line(format_args!("    [[modbus.group.tag]]"));
        self.tag_head("    ", tag);
        config_ccp::tag_keys(self, "    ", tag.name);
        self.line(format_args!("    kind = \"{}\"", table.name()));
        self.line(format_args!("    address = {address}"));
        if let Port::Register { digits, signed, .. } = tag.port {
            let kind = if signed { "i16" } else { "u16" };
            self.line(format_args!("    type = \"{kind}\"\n    scale_digits = {digits}"));
        }
    }

    /// A source a PLC: one whose clock is wrong must not be excused by another's.
    fn plant_opcua(&mut self, url: &str, has_gateway: bool) {
        let publish = self.wall(Duration::from_secs(1), OPCUA_PERIOD_MIN);
        for (source, line) in [("akron-oven", "L3"), ("akron-salad", "L4")] {
            self.line(format_args!(
                "[[opcua]]\nname = \"{source}\"\nurl = {}",
                quoted(url)
            ));
            self.line(format_args!(
                "namespace_uri = \"{NAMESPACE_URI}\"\npublish = \"{publish}\""
            ));
            let by_gateway = |tag: &SimTag| has_gateway && tag.name == gateway::TAG;
            for tag in TAGS.iter().filter(|tag| tag.line == line && !by_gateway(tag)) {
                self.opcua_tag(tag, &publish);
            }
            self.line(format_args!(""));
        }
    }

    fn opcua_tag(&mut self, tag: &SimTag, publish: &str) {
        let Port::OpcUa { node } = tag.port else { return };
        let period = self.wall(Duration::from_millis(tag.period_ms.into()), OPCUA_PERIOD_MIN);
        self.line(format_args!("  [[opcua.tag]]"));
        self.tag_head("  ", tag);
        self.line(format_args!("  node = \"s={node}\"\n  sampling = \"{publish}\""));
        self.line(format_args!("  period = \"{period}\""));
        config_ccp::tag_keys(self, "  ", tag.name);
    }

    /// The oven's gateway: its values bear the times at which they were measured.
    fn plant_mqtt(&mut self, (host, port): (&str, u16)) {
        let Some(tag) = TAGS.iter().find(|tag| tag.name == gateway::TAG) else {
            return;
        };
        let late_after = self.wall(Duration::from_mins(1), LATE_MIN);
        let period = self.wall(
            Duration::from_millis(tag.period_ms.into()),
            gateway::WALL_EVERY_MIN,
        );
        let address = quoted(&format!("{host}:{port}"));
        self.line(format_args!(
            "[[mqtt]]\nname = \"akron-oven-gateway\"\naddress = {address}"
        ));
        self.line(format_args!("late_after = \"{late_after}\"\n  [[mqtt.tag]]"));
        self.tag_head("  ", tag);
        self.line(format_args!(
            "  topic = \"{}\"\n  key = \"{}\"",
            gateway::TOPIC,
            tag.name
        ));
        self.line(format_args!("  dialect = \"native\"\n  period = \"{period}\"\n"));
    }

    fn tag_head(&mut self, indent: &str, tag: &SimTag) {
        self.line(format_args!(
            "{indent}name = \"{}\"\n{indent}line = \"{}\"",
            tag.name, tag.line
        ));
        self.line(format_args!("{indent}unit = {}", quoted(tag.unit)));
        self.line(format_args!("{indent}description = {}", quoted(tag.description)));
    }

    fn camera(&mut self, directory: &Path) {
        self.line(format_args!("[[camera]]\nname = \"VS-306\"\nline = \"L3\""));
        self.line(format_args!("directory = {}", quoted_path(directory)));
        self.line(format_args!("poll = \"{CAMERA_POLL}\"\ndelete_after = true"));
        self.line(format_args!(
            "burst = {{ usual = 0.004, at = 0.045, false_alarm_every = 60000 }}\n"
        ));
    }
}

fn modbus_tags() -> impl Iterator<Item = &'static SimTag> {
    TAGS.iter()
        .filter(|tag| matches!(tag.port, Port::Register { .. } | Port::Bit { .. }))
}

fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

fn quoted_path(path: &Path) -> String {
    quoted(&path.to_string_lossy())
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
