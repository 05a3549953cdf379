//! What are the parts made of? Each of them from the configuration, before anything runs.

use std::{path::Path, sync::Arc};

use protocol::{reading::Alias, sparkplug::edge_node::EdgeNode};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    alarm::{Register, skew::SkewWatch},
    ccp::{Engine, config::Point, limits},
    config::Config,
    health::Health,
    local::{Book, badge::Badges},
    output::Outputs,
    pipeline::Pipeline,
    signal::Signals,
    sparkplug::{self, Tap},
    spool::{Appender, seal::Sealer},
};

/// The configured control points under the newest limits known.
pub(super) fn points_in_force(config: &Config, data_dir: &Path) -> Vec<Point> {
    let mut points = config.points.clone();
    match limits::load(data_dir) {
        Ok(kept) => {
            for fault in limits::apply(&mut points, kept) {
                tracing::warn!(%fault, "a pushed limit is not in force");
            }
        }
        Err(fault) => tracing::error!(%fault, "the pushed limits cannot be read"),
    }
    points
}

/// The sources whose readings bear times of their own, each with its tags.
pub(super) fn timed_sources(config: &Config) -> Vec<(String, Vec<Alias>)> {
    let opcua = config.opcua.iter().map(|server| {
        let tags = server.tags.iter().map(|tag| tag.alias).collect();
        (server.name.clone(), tags)
    });
    let mqtt = config.mqtt.iter().map(|broker| {
        let tags = broker.tags.iter().map(|tag| tag.alias).collect();
        (broker.name.clone(), tags)
    });
    opcua.chain(mqtt).collect()
}

/// A pipeline that has seen nothing, with its judges.
pub(super) fn new_pipeline(
    config: &Config,
    points: &[Point],
    outputs: Outputs,
    (boot, appender, health): (Uuid, Appender, Arc<Health>),
) -> Pipeline {
    let edge = &config.edge.name;
    let engine = Engine::new(edge, points, Uuid::now_v7);
    let alarms = Register::new(edge, config.alarm_policy, &config.alarms, points);
    let skew = SkewWatch::new(timed_sources(config));
    let sealer = Sealer::new(
        &config.edge.name,
        boot,
        config.dictionary.id(),
        config.spool.frame_readings_max,
        config.spool.frame_age_max,
    );
    let signals = Signals::new(&config.signals, Uuid::now_v7);
    Pipeline::new((engine, alarms, skew), outputs, sealer, appender, health).with_signals(signals)
}

/// What can be entered on the local pages, and by whom.
pub(super) fn book(config: &Config) -> Book {
    Book {
        manual: config.signals.manual.clone(),
        badges: Badges::new(config.badges.clone()),
    }
}

/// The Sparkplug edge node, when one is configured.
pub(super) fn start_node(
    config: &Config,
    health: &Arc<Health>,
) -> (Option<Tap>, Option<(JoinHandle<()>, CancellationToken)>) {
    let Some(node) = &config.sparkplug else {
        return (None, None);
    };
    let devices = sparkplug::config::devices(config);
    let edge = match EdgeNode::new(&node.group_id, &node.node_id, devices) {
        Ok(edge) => edge,
        Err(error) => {
            tracing::error!(%error, "no Sparkplug node: rename the source");
            return (None, None);
        }
    };
    let (tap, tapped) = sparkplug::tap();
    let stop = CancellationToken::new();
    let task = sparkplug::run(node.clone(), edge, tapped, health.clone(), stop.clone());
    (Some(tap), Some((tokio::spawn(task), stop)))
}
