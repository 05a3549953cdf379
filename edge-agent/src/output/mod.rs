//! How does a verdict become a closed valve? One task an output, with a connection of its own: the newest value
//! wanted is written until the device holds it or another is wanted. It needs neither uplink nor disk, and waits for
//! nobody's queue.

pub mod config;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use protocol::event::Alarm;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};
use uuid::Uuid;

use self::config::{Output, Place, Target};
use crate::{
    ccp::Wanted,
    clock,
    source::{
        Acquired, Closed,
        error::SourceError,
        modbus::write::{Write, write},
        opcua,
    },
};

const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(2);
/// A value that was written is written again this often: a device that restarted has forgotten it.
const AGAIN_EVERY: Duration = Duration::from_secs(10);
/// Most alarms that wait for the pipeline.
const UNTOLD_MAX: usize = 16;
/// The safe value is given this long when the agent stops.
const SAFE_WITHIN: Duration = Duration::from_secs(2);

/// Where the pipeline says what the outputs are to be.
#[derive(Debug, Default)]
pub struct Outputs {
    wanted: HashMap<String, watch::Sender<Option<f64>>>,
}

impl Outputs {
    /// Says what is wanted; never waits. A value that is wanted already changes nothing.
    pub fn drive(&self, wanted: &Wanted) {
        for (name, value) in wanted {
            let Some(sender) = self.wanted.get(name) else {
                continue;
            };
            sender.send_if_modified(|held| {
                let is_new = *held != Some(*value);
                *held = Some(*value);
                is_new
            });
        }
    }
}

/// Starts one task an output. They end when the returned value is dropped, each after its safe value.
pub fn start(
    outputs: &[Output],
    data_dir: &Path,
    acquired: &mpsc::Sender<Acquired>,
    tasks: &mut JoinSet<Result<(), Closed>>,
) -> Outputs {
    let mut wanted = HashMap::new();
    for output in outputs {
        let (sender, receiver) = watch::channel(None);
        wanted.insert(output.name.clone(), sender);
        let keeper = Keeper {
            output: output.clone(),
            pki_dir: data_dir.join("opcua-pki"),
            alarms: acquired.clone(),
            failed: None,
            untold: Vec::new(),
        };
        tasks.spawn(keeper.run(receiver));
    }
    Outputs { wanted }
}

/// Keeps one output at what is wanted.
struct Keeper {
    output: Output,
    pki_dir: PathBuf,
    alarms: mpsc::Sender<Acquired>,
    /// The open `output.failed` alarm.
    failed: Option<Uuid>,
    /// Alarms that found the pipeline's queue full, oldest first.
    untold: Vec<Alarm>,
}

impl Keeper {
    async fn run(mut self, mut wanted: watch::Receiver<Option<f64>>) -> Result<(), Closed> {
        let mut retry = RETRY_MIN;
        loop {
            let value = *wanted.borrow_and_update();
            let pause = match value {
                None => AGAIN_EVERY,
                Some(value) if self.attempt(value).await => {
                    retry = RETRY_MIN;
                    AGAIN_EVERY
                }
                Some(_) => {
                    retry = (retry * 2).min(RETRY_MAX);
                    retry
                }
            };
            tokio::select! {
                changed = wanted.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    retry = RETRY_MIN;
                }
                () = tokio::time::sleep(pause) => {}
            }
        }
        self.leave().await;
        Ok(())
    }

    /// Writes once; whether the device holds the value.
    async fn attempt(&mut self, value: f64) -> bool {
        let begin = Instant::now();
        let name = self.output.name.clone();
        match self.put(value).await {
            Ok(()) => {
                let took = begin.elapsed();
                tracing::debug!(output = %name, value, ?took, "output written");
                self.tell(false, "written again");
                true
            }
            Err(error) => {
                tracing::error!(output = %name, value, %error, "output not written; trying again");
                self.tell(true, &format!("{value} could not be written: {error}"));
                false
            }
        }
    }

    async fn put(&self, value: f64) -> Result<(), SourceError> {
        match &self.output.target {
            Target::Modbus {
                address,
                unit_id,
                timeout,
                place,
            } => {
                let what = match *place {
                    Place::Coil(address) => Write::Coil {
                        address,
                        value: value != 0.0,
                    },
                    Place::Register(address) => Write::Register {
                        address,
                        value: value as u16,
                    },
                };
                write(address, *unit_id, *timeout, &what).await
            }
            Target::Opcua { server, node } => opcua::write::write(server, &self.pki_dir, node, value).await,
        }
    }

    /// Raises or clears `output.failed`. A full queue is not waited for: the alarm is told with the next attempt.
    fn tell(&mut self, is_failed: bool, message: &str) {
        let id = match (self.failed, is_failed) {
            (None, true) => Some(Uuid::now_v7()),
            (Some(id), false) => Some(id),
            _ => None,
        };
        let alarm = id.map(|id| Alarm {
            id,
            at_us: clock::now_us(),
            code: "output.failed".to_owned(),
            subject: self.output.name.clone(),
            line: None,
            active: is_failed,
            message: message.to_owned(),
        });
        if id.is_some() {
            self.failed = id.filter(|_| is_failed);
        }
        // Raised and cleared come in turn: what is behind these two is behind them too.
        self.untold.extend(alarm);
        self.untold.drain(..self.untold.len().saturating_sub(UNTOLD_MAX));
        while let Some(alarm) = self.untold.first() {
            if self.alarms.try_send(Acquired::Alarm(alarm.clone())).is_err() {
                return;
            }
            self.untold.remove(0);
        }
    }

    /// The agent stops watching.
    async fn leave(&mut self) {
        let Some(safe) = self.output.safe else {
            return;
        };
        let written = tokio::time::timeout(SAFE_WITHIN, self.put(safe)).await;
        if !matches!(written, Ok(Ok(()))) {
            tracing::error!(output = %self.output.name, value = safe, "the safe value was not written");
        }
    }
}
