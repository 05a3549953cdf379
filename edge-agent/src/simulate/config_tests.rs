//! Does the agent take what the simulator writes for it?

use super::*;
use crate::{config, simulate::tags};

fn settings() -> AgentSettings {
    AgentSettings {
        hub_mqtt: "127.0.0.1:1883".into(),
        local_http: "127.0.0.1:0".into(),
        vision_manifest: "vision/models/tray-defects/manifest.json".into(),
        vision_runtime: None,
        has_camera: true,
    }
}

fn address() -> SocketAddr {
    ([127, 0, 0, 1], 1502).into()
}

fn plant(speed: f64, camera_dir: &Path) -> String {
    let places = Places {
        modbus: address(),
        opcua_url: "opc.tcp://127.0.0.1:4840/",
        camera_dir,
        broker: None,
    };
    plant_config(&settings(), speed, places)
}

#[test]
fn the_plant_config_is_toml_and_names_every_tag_once() {
    let directory = Path::new("/tmp/odd \"name\"\\here");
    let config: toml::Table = plant(1.0, directory).parse().unwrap();
    let groups = config["modbus"][0]["group"].as_array().unwrap();
    let of_groups = groups.iter().flat_map(|group| group["tag"].as_array().unwrap());
    let servers = config["opcua"].as_array().unwrap();
    let of_servers = servers
        .iter()
        .flat_map(|server| server["tag"].as_array().unwrap());
    let tags = of_groups.chain(of_servers);
    let mut names: Vec<_> = tags.map(|tag| tag["name"].as_str().unwrap()).collect();
    names.sort_unstable();
    let mut expected: Vec<_> = TAGS.iter().map(|tag| tag.name).collect();
    expected.sort_unstable();
    assert_eq!(names, expected);
    assert_eq!(config["camera"][0]["directory"].as_str(), directory.to_str());
}

#[test]
fn with_a_broker_the_oven_speaks_mqtt_and_no_tag_is_named_twice() {
    for speed in [1.0, 120.0] {
        let places = Places {
            modbus: address(),
            opcua_url: "opc.tcp://127.0.0.1:4840/",
            camera_dir: Path::new("c"),
            broker: Some(("127.0.0.1", 1884)),
        };
        let config = config::parse(&plant_config(&settings(), speed, places)).unwrap();
        assert_eq!(config.mqtt[0].tags.len(), 1);
        assert_eq!(config.tag_count(), TAGS.len() + 1, "and the total of a counter");
    }
}

#[test]
fn the_agent_takes_the_config_at_every_speed() {
    for speed in [0.1, 0.5, 1.0, 10.0, 60.0, 600.0, 100_000.0] {
        let read = config::parse(&plant(speed, Path::new("c")));
        assert!(read.is_ok(), "speed {speed}: {:?}", read.err());
    }
}

#[test]
fn at_the_plants_own_speed_periods_and_delays_are_the_plants() {
    let config = config::parse(&plant(1.0, Path::new("c"))).unwrap();
    let point = config
        .points
        .iter()
        .find(|point| point.limit.ccp == "CCP-1")
        .unwrap();
    assert_eq!(
        (point.limit.delay_us, point.limit.gap_us_max),
        (1_000_000, 5_000_000)
    );
    let fast = config::parse(&plant(10.0, Path::new("c"))).unwrap();
    let point = fast
        .points
        .iter()
        .find(|point| point.limit.ccp == "CCP-1")
        .unwrap();
    assert_eq!((point.limit.delay_us, point.limit.period_us), (100_000, 100_000));
}

#[test]
fn critical_control_points_name_tags_that_exist() {
    let config: toml::Table = plant(1.0, Path::new("c")).parse().unwrap();
    for ccp in config["ccp"].as_array().unwrap() {
        let gate = ccp.get("gate").map(|gate| &gate["tag"]);
        let reference = ccp.get("stuck").map(|stuck| &stuck["reference"]);
        for tag in [Some(&ccp["tag"]), gate, reference].into_iter().flatten() {
            assert!(tags::find(tag.as_str().unwrap()).is_some(), "{tag}");
        }
    }
}

#[test]
fn the_load_config_has_a_source_a_device_and_a_tag_a_register() {
    let load = "devices=3,tags=130,period=1s".parse().unwrap();
    let text = load_config(&settings(), &[address()], load, Duration::from_millis(100));
    let config: toml::Table = text.parse().unwrap();
    let sources = config["modbus"].as_array().unwrap();
    assert_eq!(sources.len(), 3);
    assert_eq!(sources[2]["unit_id"].as_integer(), Some(3));
    assert_eq!(sources[2]["group"][0]["period"].as_str(), Some("1000ms"));
    assert_eq!(sources[2]["group"][0]["tag"].as_array().unwrap().len(), 130);
    assert_eq!(
        sources[2]["group"][0]["tag"][129]["address"].as_integer(),
        Some(129)
    );
}

#[test]
fn devices_with_a_port_each_are_unit_1_of_their_own_address() {
    let load = "devices=2,tags=1,ports=own".parse().unwrap();
    let addresses = [address(), ([127, 0, 0, 1], 1503).into()];
    let text = load_config(&settings(), &addresses, load, Duration::from_millis(100));
    let config: toml::Table = text.parse().unwrap();
    assert_eq!(config["modbus"][1]["address"].as_str(), Some("127.0.0.1:1503"));
    assert_eq!(config["modbus"][1]["unit_id"].as_integer(), Some(1));
}
