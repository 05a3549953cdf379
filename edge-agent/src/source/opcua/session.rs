//! What happens between sessions? The loop of one server: values become readings as they come; while there is
//! no session, or a node is silent, the due readings are bad and say why.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use opcua::{client::Session, types::NodeId};
use protocol::{Micros, Quality, Reading, reading::Alias};
use rand::Rng as _;
use tokio::sync::{mpsc, watch};

use super::{
    client::{self, Report},
    config::Server,
    decode,
    plan::Watch,
};
use crate::{
    clock,
    health::SourceState,
    source::{Closed, Outlet},
};

const BACKOFF_MIN: Duration = Duration::from_millis(500);
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// Values that may wait to be taken from the session.
const REPORTS_WAITING_MAX: usize = 65_536;

/// Messages handled together: what came with one publish becomes one batch.
const MESSAGES_AT_ONCE: usize = 1_024;

enum Message {
    Report(Report),
    Down(String),
}

/// Watches one server until the agent shuts down.
pub async fn run(server: watch::Receiver<Server>, pki_dir: PathBuf, outlet: Outlet) -> Result<(), Closed> {
    let server = server.borrow().clone();
    let (tx, mut rx) = mpsc::channel(REPORTS_WAITING_MAX);
    let keeper = tokio::spawn(keep(server.clone(), pki_dir, tx));
    let _stop_with_us = AbortOnDrop(keeper);
    // Times that no setting of the clock can move: a node must not count as heard for as long as it is set back.
    let start = Instant::now();
    let mut watch = Watch::new(&server.tags, server.publish, 0);
    let mut up: Option<(Arc<Session>, Arc<Vec<NodeId>>)> = None;
    let mut look = tokio::time::interval(watch.look_every());
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut messages = Vec::new();
    loop {
        tokio::select! {
            came = rx.recv_many(&mut messages, MESSAGES_AT_ONCE) => {
                if came == 0 {
                    return Ok(());
                }
                let mut readings = Vec::new();
                for message in messages.drain(..) {
                    match message {
                        Message::Report(Report::Value(index, value)) => {
                            watch.heard(index, steady_us(start));
                            take(&server, index, &value, &mut readings);
                        }
                        Message::Report(Report::Up(session, nodes)) => {
                            up = Some((session, nodes));
                            outlet.state(SourceState::Up).await?;
                        }
                        Message::Down(reason) => {
                            up = None;
                            watch.lost(steady_us(start));
                            outlet.state(SourceState::Down { reason }).await?;
                        }
                    }
                }
                outlet.readings(readings).await?;
            }
            _ = look.tick() => {
                let silent = watch.silent(steady_us(start));
                if !silent.is_empty() {
                    outlet.readings(ask(up.as_ref(), &silent).await).await?;
                }
            }
        }
    }
}

fn steady_us(start: Instant) -> Micros {
    start.elapsed().as_micros() as Micros
}

fn take(server: &Server, index: usize, value: &opcua::types::DataValue, readings: &mut Vec<Reading>) {
    let now_us = clock::now_us();
    if let Some(tag) = server.tags.get(index) {
        readings.push(decode::reading(tag.alias, value, now_us));
    }
}

/// Readings of nodes that are due and silent: asked for when there is a session, bad when there is none. A value
/// that the server gives when asked is current even if its source time is old, so it gets the present time.
async fn ask(up: Option<&(Arc<Session>, Arc<Vec<NodeId>>)>, silent: &[(usize, Alias)]) -> Vec<Reading> {
    let bad = |reason: Quality| {
        let now_us = clock::now_us();
        silent
            .iter()
            .map(|(_, tag)| Reading::bad(*tag, now_us, reason))
            .collect()
    };
    let Some((session, nodes)) = up else {
        return bad(Quality::BAD_NOT_CONNECTED);
    };
    let asked: Vec<NodeId> = silent
        .iter()
        .filter_map(|(index, _)| nodes.get(*index).cloned())
        .collect();
    match client::read(session, &asked).await {
        Ok(values) => {
            let now_us = clock::now_us();
            let readings = silent.iter().zip(&values).map(|((_, tag), value)| {
                let mut reading = decode::reading(*tag, value, now_us);
                reading.time_us = now_us;
                reading
            });
            readings.collect()
        }
        Err(_) => bad(Quality::BAD_TIMEOUT),
    }
}

/// Holds one session after the other, with growing, jittered pauses between failures.
async fn keep(server: Server, pki_dir: PathBuf, tx: mpsc::Sender<Message>) {
    let mut backoff = BACKOFF_MIN;
    loop {
        let (reports, mut reported) = mpsc::channel(REPORTS_WAITING_MAX);
        let mut was_up = false;
        let error = {
            let mut holding = Box::pin(client::hold(&server, &pki_dir, &reports));
            loop {
                tokio::select! {
                    error = &mut holding => break error,
                    Some(report) = reported.recv() => {
                        was_up |= matches!(report, Report::Up(..));
                        if tx.send(Message::Report(report)).await.is_err() {
                            return;
                        }
                    }
                }
            }
        };
        tracing::warn!(source = %server.name, error = %error, "OPC UA session ended");
        if tx.send(Message::Down(error.to_string())).await.is_err() {
            return;
        }
        backoff = if was_up {
            BACKOFF_MIN
        } else {
            (backoff * 2).min(BACKOFF_MAX)
        };
        let jitter = rand::rng().random_range(0.5..1.0);
        tokio::time::sleep(backoff.mul_f64(jitter)).await;
    }
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
