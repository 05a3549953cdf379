//! Which agent configuration matches this simulator?
//! Prints a complete `edge.toml` for what is being served, so that a demo or a test needs no hand-written one.

use std::{
    fmt::{self, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    load::Load,
    tags::{NAMESPACE_URI, Port, SimTag, TAGS, UNIT_ID},
};

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
}

/// The configuration for the plant's servers.
pub fn plant_config(agent: &AgentSettings, modbus: SocketAddr, opcua_url: &str, camera_dir: &Path) -> String {
    let mut out = Toml::new(agent);
    out.plant_modbus(modbus)
        .plant_opcua(opcua_url)
        .camera(camera_dir)
        .ccps();
    out.0
}

/// The configuration for a load: a Modbus source a device, polled once a tick.
pub fn load_config(agent: &AgentSettings, modbus: SocketAddr, load: Load, tick: Duration) -> String {
    let mut out = Toml::new(agent);
    for unit in 1..=load.devices {
        out.modbus(&format!("load-{unit:03}"), modbus, unit);
        out.line(format_args!("  [[modbus.group]]"));
        out.line(format_args!("  period = \"{}ms\"", tick.as_millis()));
        for address in 0..load.tags {
            out.line(format_args!("    [[modbus.group.tag]]"));
            out.line(format_args!("    name = \"LD-{unit:03}-{address:04}\""));
            out.line(format_args!("    line = \"L1\""));
            out.line(format_args!("    unit = \"\""));
            out.line(format_args!("    description = \"Load counter\""));
            out.line(format_args!("    kind = \"holding\""));
            out.line(format_args!("    address = {address}"));
            out.line(format_args!("    type = \"u16\""));
            out.line(format_args!("    scale_digits = 0"));
        }
    }
    out.0
}

struct Toml(String);

impl Toml {
    fn new(agent: &AgentSettings) -> Self {
        let mut out = Self(String::new());
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

    fn line(&mut self, text: fmt::Arguments<'_>) {
        writeln!(self.0, "{text}").expect("writing to a String cannot fail");
    }

    fn modbus(&mut self, name: &str, address: SocketAddr, unit: u8) {
        self.line(format_args!(
            "[[modbus]]\nname = \"{name}\"\naddress = \"{address}\"\nunit_id = {unit}"
        ));
        self.line(format_args!(
            "timeout = \"800ms\"\nblock_registers_max = 120\nhole_registers_max = 8"
        ));
    }

    fn plant_modbus(&mut self, address: SocketAddr) -> &mut Self {
        self.modbus("akron-plc", address, UNIT_ID);
        let mut periods: Vec<u32> = holding_tags().map(|tag| tag.period_ms).collect();
        periods.sort_unstable();
        periods.dedup();
        for period_ms in periods {
            self.line(format_args!("  [[modbus.group]]\n  period = \"{period_ms}ms\""));
            holding_tags()
                .filter(|tag| tag.period_ms == period_ms)
                .for_each(|tag| self.holding_tag(tag));
        }
        self.line(format_args!(""));
        self
    }

    fn holding_tag(&mut self, tag: &SimTag) {
        let Port::Holding {
            address,
            digits,
            signed,
        } = tag.port
        else {
            return;
        };
        let kind = if signed { "i16" } else { "u16" };
        self.line(format_args!("    [[modbus.group.tag]]"));
        self.tag_head("    ", tag);
        self.line(format_args!("    kind = \"holding\"\n    address = {address}"));
        self.line(format_args!("    type = \"{kind}\"\n    scale_digits = {digits}"));
    }

    fn plant_opcua(&mut self, url: &str) -> &mut Self {
        self.line(format_args!(
            "[[opcua]]\nname = \"akron-opcua\"\nurl = {}",
            quoted(url)
        ));
        self.line(format_args!(
            "namespace_uri = \"{NAMESPACE_URI}\"\npublish = \"1s\""
        ));
        for tag in &TAGS {
            let Port::OpcUa { node } = tag.port else { continue };
            self.line(format_args!("  [[opcua.tag]]"));
            self.tag_head("  ", tag);
            self.line(format_args!("  node = \"s={node}\"\n  sampling = \"1s\""));
            self.line(format_args!("  period = \"{}ms\"", tag.period_ms));
        }
        self.line(format_args!(""));
        self
    }

    fn tag_head(&mut self, indent: &str, tag: &SimTag) {
        self.line(format_args!(
            "{indent}name = \"{}\"\n{indent}line = \"{}\"",
            tag.name, tag.line
        ));
        self.line(format_args!("{indent}unit = {}", quoted(tag.unit)));
        self.line(format_args!("{indent}description = {}", quoted(tag.description)));
    }

    fn camera(&mut self, directory: &Path) -> &mut Self {
        self.line(format_args!("[[camera]]\nname = \"VS-306\"\nline = \"L3\""));
        self.line(format_args!("directory = {}", quoted_path(directory)));
        self.line(format_args!("poll = \"100ms\"\ndelete_after = true\n"));
        self
    }

    fn ccps(&mut self) -> &mut Self {
        self.line(format_args!(
            "[[ccp]]\ncode = \"CCP-1\"\ntag = \"TT-101\"\nlow = 72.0\nunit = \"degC\""
        ));
        self.line(format_args!(
            "clear_margin = 0.2\ndelay = \"1s\"\ngap_max = \"5s\"\nversion = 1"
        ));
        self.line(format_args!("gate = {{ tag = \"ZS-106\", value = 1.0 }}"));
        self.line(format_args!(
            "stuck = {{ reference = \"TT-102\", window = \"30s\", floor = 0.005 }}"
        ));
        self.line(format_args!("check_every = \"60s\"\n"));
        self.line(format_args!(
            "[[ccp]]\ncode = \"CCP-4\"\ntag = \"TT-310\"\nlow = 74.0\nunit = \"degC\""
        ));
        self.line(format_args!(
            "clear_margin = 0.2\ndelay = \"1s\"\ngap_max = \"10s\"\nversion = 1"
        ));
        self.line(format_args!("check_every = \"60s\""));
        self
    }
}

fn holding_tags() -> impl Iterator<Item = &'static SimTag> {
    TAGS.iter().filter(|tag| matches!(tag.port, Port::Holding { .. }))
}

fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

fn quoted_path(path: &Path) -> String {
    quoted(&path.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> AgentSettings {
        AgentSettings {
            hub_mqtt: "127.0.0.1:1883".into(),
            local_http: "127.0.0.1:0".into(),
            vision_manifest: "vision/models/tray-defects/manifest.json".into(),
            vision_runtime: None,
        }
    }

    fn address() -> SocketAddr {
        ([127, 0, 0, 1], 1502).into()
    }

    #[test]
    fn the_plant_config_is_toml_and_names_every_tag_once() {
        let directory = Path::new("/tmp/odd \"name\"\\here");
        let text = plant_config(&settings(), address(), "opc.tcp://127.0.0.1:4840/", directory);
        let config: toml::Table = text.parse().unwrap();
        let groups = config["modbus"][0]["group"].as_array().unwrap();
        let of_groups = groups.iter().flat_map(|group| group["tag"].as_array().unwrap());
        let tags = of_groups.chain(config["opcua"][0]["tag"].as_array().unwrap());
        let mut names: Vec<_> = tags.map(|tag| tag["name"].as_str().unwrap()).collect();
        names.sort_unstable();
        let mut expected: Vec<_> = TAGS.iter().map(|tag| tag.name).collect();
        expected.sort_unstable();
        assert_eq!(names, expected);
        assert_eq!(config["camera"][0]["directory"].as_str(), directory.to_str());
    }

    #[test]
    fn critical_control_points_name_tags_that_exist() {
        let text = plant_config(&settings(), address(), "opc.tcp://127.0.0.1:1/", Path::new("c"));
        let config: toml::Table = text.parse().unwrap();
        for ccp in config["ccp"].as_array().unwrap() {
            let gate = ccp.get("gate").map(|gate| &gate["tag"]);
            let reference = ccp.get("stuck").map(|stuck| &stuck["reference"]);
            for tag in [Some(&ccp["tag"]), gate, reference].into_iter().flatten() {
                assert!(
                    crate::simulate::tags::find(tag.as_str().unwrap()).is_some(),
                    "{tag}"
                );
            }
        }
    }

    #[test]
    fn the_load_config_has_a_source_a_device_and_a_tag_a_register() {
        let load = "devices=3,tags=130".parse().unwrap();
        let text = load_config(&settings(), address(), load, Duration::from_millis(100));
        let config: toml::Table = text.parse().unwrap();
        let sources = config["modbus"].as_array().unwrap();
        assert_eq!(sources.len(), 3);
        assert_eq!(sources[2]["unit_id"].as_integer(), Some(3));
        assert_eq!(sources[2]["group"][0]["tag"].as_array().unwrap().len(), 130);
        assert_eq!(
            sources[2]["group"][0]["tag"][129]["address"].as_integer(),
            Some(129)
        );
    }
}
