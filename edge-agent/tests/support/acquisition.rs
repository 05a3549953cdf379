//! The sources of a configuration without the rest of the agent: everything that they hand over is kept.

use std::{sync::Arc, time::Duration};

use edge_agent::{
    config::{self, Config},
    health::SourceHealth,
    source::{
        Acquired, Outlet,
        modbus::{self, config::Device},
    },
};
use protocol::{Quality, Reading, event::NotRead};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};

/// Nothing in these tests takes nearly as long.
const WITHIN: Duration = Duration::from_mins(1);

/// Running Modbus sources and what they acquired.
pub struct Acquisition {
    pub config: Config,
    pub readings: Vec<Reading>,
    pub not_read: Vec<NotRead>,
    pub health: Vec<Arc<SourceHealth>>,
    /// Changes the configuration of a device.
    pub devices: Vec<watch::Sender<Device>>,
    rx: mpsc::Receiver<Acquired>,
    _tasks: JoinSet<Result<(), edge_agent::source::Closed>>,
}

impl Acquisition {
    /// Starts the Modbus devices of a configuration.
    pub fn start(text: &str) -> Self {
        let config = config::parse(text).unwrap_or_else(|faults| panic!("{faults:#?}"));
        let (tx, rx) = mpsc::channel(4096);
        let lines = modbus::Lines::default();
        let mut tasks = JoinSet::new();
        let (mut health, mut devices) = (Vec::new(), Vec::new());
        for device in &config.modbus {
            let counters = SourceHealth::new("modbus", &device.name);
            let (sender, receiver) = watch::channel(device.clone());
            tasks.spawn(modbus::run(
                receiver,
                lines.clone(),
                Outlet::new(tx.clone(), counters.clone()),
            ));
            health.push(counters);
            devices.push(sender);
        }
        Self {
            config,
            readings: Vec::new(),
            not_read: Vec::new(),
            health,
            devices,
            rx,
            _tasks: tasks,
        }
    }

    /// Value and quality of every reading of a tag so far.
    pub fn of(&self, tag: &str) -> Vec<(Option<f64>, Quality)> {
        let tags = &self.config.dictionary.tags;
        let alias = tags.iter().find(|known| known.name == tag).unwrap().alias;
        let readings = self.readings.iter().filter(|reading| reading.tag == alias);
        readings
            .map(|reading| (reading.value(), reading.quality))
            .collect()
    }

    /// Takes what comes until it is `enough`.
    pub async fn until(&mut self, what: &str, enough: impl Fn(&Self) -> bool) {
        let waiting = async {
            while !enough(self) {
                self.take().await;
            }
        };
        let in_time = tokio::time::timeout(WITHIN, waiting).await.is_ok();
        assert!(
            in_time,
            "never came: {what}; {} readings did",
            self.readings.len()
        );
    }

    /// Takes what comes until the newest reading of a tag is this one.
    pub async fn until_last(&mut self, tag: &str, reading: (Option<f64>, Quality)) {
        let what = format!("{tag} as {reading:?}");
        self.until(&what, |source| source.of(tag).last() == Some(&reading))
            .await;
    }

    /// Takes what comes until there are that many readings of a tag.
    pub async fn until_count(&mut self, tag: &str, count: usize) {
        let what = format!("{count} readings of {tag}");
        self.until(&what, |source| source.of(tag).len() >= count).await;
    }

    /// Takes what comes for as long as that.
    pub async fn during(&mut self, time: Duration) {
        let taking = async {
            loop {
                self.take().await;
            }
        };
        drop(tokio::time::timeout(time, taking).await);
    }

    async fn take(&mut self) {
        match self.rx.recv().await.expect("a source ended") {
            Acquired::Readings { readings, .. } => self.readings.extend(readings),
            Acquired::NotRead(record) => self.not_read.push(record),
            _ => {}
        }
    }
}
