//! What becomes of what a server sends, and of what it does not send? Values become readings as they come; while there
//! is no session, or a node is silent, the due readings are bad and say why; what was lost is on record.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use opcua::types::{MonitoredItemNotification, StatusCode, Variant};
use protocol::{
    Micros, Quality, Reading,
    event::{Alarm, NotRead},
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};
use uuid::Uuid;

use super::{
    ask::{self, Connection},
    config::Server,
    decode,
    hold::{self, Desired, Lost, Report},
    items,
    plan::Watch,
    pulse::{self, Pulse},
    slots::Slots,
};
use crate::{
    clock,
    health::SourceState,
    source::{Closed, Outlet},
};

/// Reports that may wait: each is as large as a notification message.
const REPORTS_WAITING_MAX: usize = 64;
/// Nodes named in one warning.
const NAMED_MAX: usize = 5;

/// Watches one server until the agent shuts down, and follows its configuration: changed tags touch only their own
/// items, a changed server is connected to anew. A closed sender means that nothing will change any more.
///
/// # Errors
/// [`Closed`] when nobody takes readings any more.
pub async fn run(
    mut server: watch::Receiver<Server>,
    pki_dir: PathBuf,
    outlet: Outlet,
) -> Result<(), Closed> {
    let (tx, mut rx) = mpsc::channel(REPORTS_WAITING_MAX);
    let mut source = Source::new(server.borrow_and_update().clone(), outlet);
    let (desired, following) = watch::channel(source.desired());
    let keeper = tokio::spawn(hold::keep(following, pki_dir, tx));
    let _stop_with_us = AbortOnDrop(keeper);
    let mut look = source.look();
    let mut can_change = true;
    loop {
        tokio::select! {
            report = rx.recv() => match report {
                Some(report) => source.report(report).await?,
                None => return Ok(()),
            },
            _ = look.tick() => source.ask_the_silent().await?,
            Some(Ok(readings)) = source.asking.join_next() => source.outlet.readings(readings).await?,
            changed = server.changed(), if can_change => {
                can_change = changed.is_ok();
                source.follow(server.borrow_and_update().clone());
                desired.send_replace(source.desired());
                look = source.look();
            }
        }
    }
}

/// Ends a task with its owner.
struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Source {
    server: Arc<Server>,
    slots: Arc<Slots>,
    watch: Watch,
    outlet: Outlet,
    up: Option<Arc<Connection>>,
    pulse: Pulse,
    /// Source time of each slot's last value: where a loss begins.
    newest_us: Vec<Micros>,
    /// The alarm of a certificate that is not accepted, while it stands.
    untrusted: Option<Uuid>,
    asking: JoinSet<Vec<Reading>>,
    /// Times that no setting of the clock can move: a node must not count as heard for as long as it is set back.
    start: Instant,
}

impl Source {
    fn new(server: Server, outlet: Outlet) -> Self {
        let slots = Slots::new(&server.tags);
        let mut watch = Watch::default();
        watch.follow(&slots, server.publish, 0);
        Self {
            newest_us: vec![0; slots.len()],
            server: Arc::new(server),
            slots: Arc::new(slots),
            watch,
            outlet,
            up: None,
            pulse: Pulse::new(0),
            untrusted: None,
            asking: JoinSet::new(),
            start: Instant::now(),
        }
    }

    fn now_us(&self) -> Micros {
        self.start.elapsed().as_micros() as Micros
    }

    fn desired(&self) -> Desired {
        Desired {
            server: self.server.clone(),
            slots: self.slots.clone(),
        }
    }

    fn look(&self) -> tokio::time::Interval {
        let mut look = tokio::time::interval(self.watch.look_every());
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        look
    }

    fn follow(&mut self, server: Server) {
        let mut slots = Slots::clone(&self.slots);
        slots.follow(&server.tags);
        self.watch.follow(&slots, server.publish, self.now_us());
        self.newest_us.resize(slots.len(), 0);
        self.slots = Arc::new(slots);
        self.server = Arc::new(server);
    }

    async fn report(&mut self, report: Report) -> Result<(), Closed> {
        match report {
            Report::Values(values, shifted_us) => self.values(values, shifted_us).await,
            Report::Up(session, namespaces, limits) => {
                self.up = Some(Arc::new(Connection {
                    session,
                    namespaces,
                    reads_max: limits.reads,
                }));
                // The pulse goes on: a server that froze is not alive for having accepted a session, and its clock may
                // have been reported before this.
                self.trusted().await?;
                self.outlet.state(SourceState::Up).await
            }
            Report::Refused(nodes) => self.refused(&nodes).await,
            Report::Gap(lost) => self.gap(lost).await,
            Report::Untrusted(refusal) => {
                let message = refusal.message(&self.server.name);
                self.untrusted(&message).await?;
                self.down(message).await
            }
            Report::Down(reason) => self.down(reason).await,
        }
    }

    async fn down(&mut self, reason: String) -> Result<(), Closed> {
        self.up = None;
        // Answers of the lost session prove nothing; those who asked are due again.
        self.watch.lost(self.now_us());
        self.outlet.state(SourceState::Down { reason }).await
    }

    async fn untrusted(&mut self, message: &str) -> Result<(), Closed> {
        if self.untrusted.is_some() {
            return Ok(());
        }
        let id = Uuid::now_v7();
        self.untrusted = Some(id);
        self.certificate_alarm(id, true, message).await
    }

    async fn trusted(&mut self) -> Result<(), Closed> {
        match self.untrusted.take() {
            Some(id) => {
                self.certificate_alarm(id, false, "the certificate is trusted")
                    .await
            }
            None => Ok(()),
        }
    }

    async fn certificate_alarm(&self, id: Uuid, active: bool, message: &str) -> Result<(), Closed> {
        self.outlet
            .alarm(Alarm {
                id,
                at_us: clock::now_us(),
                code: "opcua.certificate".to_owned(),
                subject: self.server.name.clone(),
                line: None,
                active,
                message: message.to_owned(),
            })
            .await
    }

    async fn values(
        &mut self,
        values: Vec<MonitoredItemNotification>,
        shifted_us: Micros,
    ) -> Result<(), Closed> {
        let (now_us, received_us) = (self.now_us(), clock::now_us());
        let mut readings = Vec::with_capacity(values.len());
        let mut overflowed = Vec::new();
        for MonitoredItemNotification { client_handle, value } in values {
            if client_handle == pulse::HANDLE {
                if let Some(Variant::DateTime(time)) = value.value {
                    self.pulse.beat(*time, now_us);
                }
                continue;
            }
            let slot = items::slot(client_handle);
            let Some(plan) = self.slots.get(slot) else {
                // It was taken out of the configuration while the value was on its way.
                continue;
            };
            let reading = decode::reading(plan.alias, &value, shifted_us, received_us);
            let newest_us = std::mem::replace(&mut self.newest_us[slot as usize], reading.time_us);
            if decode::has_overflowed(&value) {
                overflowed.push((reading.tag, newest_us, reading.time_us));
            }
            self.watch.heard(slot, now_us);
            // What a new subscription begins with may be as old as what was known.
            if reading.time_us != newest_us {
                self.pulse.value(now_us);
            }
            readings.push(reading);
        }
        // The loss comes before the values that follow it.
        if !overflowed.is_empty() {
            let from = overflowed.iter().map(
                |(_, from_us, to_us)| {
                    if *from_us == 0 { *to_us } else { *from_us }
                },
            );
            let record = NotRead {
                from_us: from.min().unwrap_or(received_us),
                to_us: overflowed
                    .iter()
                    .map(|(_, _, to_us)| *to_us)
                    .max()
                    .unwrap_or(received_us),
                tags: overflowed.into_iter().map(|(tag, _, _)| tag).collect(),
                due: 1,
                reason: "opcua overflow".to_owned(),
            };
            self.outlet.not_read(record).await?;
        }
        self.outlet.readings(readings).await
    }

    /// A node that the server refuses has a bad reading at once; from then on it is asked for when it is due.
    async fn refused(&mut self, nodes: &[(u32, StatusCode)]) -> Result<(), Closed> {
        let named: Vec<String> = nodes
            .iter()
            .take(NAMED_MAX)
            .filter_map(|(slot, status)| Some(format!("{:?}: {status}", self.slots.get(*slot)?.node)))
            .collect();
        tracing::warn!(
            source = %self.server.name,
            count = nodes.len(),
            nodes = named.join(", "),
            "the server refuses nodes; their tags are bad, the others are not concerned"
        );
        let time_us = clock::now_us();
        let readings = nodes.iter().filter_map(|(slot, status)| {
            let plan = self.slots.get(*slot)?;
            Some(Reading::bad(
                plan.alias,
                time_us,
                Quality::from_opcua(status.bits()),
            ))
        });
        self.outlet.readings(readings.collect()).await
    }

    async fn gap(&mut self, lost: Lost) -> Result<(), Closed> {
        let tags: Vec<_> = match lost.slots {
            Some(slots) => slots
                .iter()
                .filter_map(|slot| Some(self.slots.get(*slot)?.alias))
                .collect(),
            None => self
                .slots
                .iter()
                .filter(|(_, plan)| plan.period == Duration::ZERO)
                .map(|(_, plan)| plan.alias)
                .collect(),
        };
        if tags.is_empty() {
            return Ok(());
        }
        let record = NotRead {
            tags,
            from_us: lost.from_us,
            to_us: lost.to_us,
            due: lost.messages.max(1),
            reason: lost.reason.to_owned(),
        };
        self.outlet.not_read(record).await
    }

    /// Nodes that are due and silent are asked for when there is a session, and bad when there is none.
    async fn ask_the_silent(&mut self) -> Result<(), Closed> {
        let now_us = self.now_us();
        let silent = self.watch.silent(now_us);
        if silent.is_empty() {
            return Ok(());
        }
        let Some(connection) = &self.up else {
            let time_us = clock::now_us();
            let readings = silent.iter().filter_map(|slot| {
                let plan = self.slots.get(*slot)?;
                Some(Reading::bad(plan.alias, time_us, Quality::BAD_NOT_CONNECTED))
            });
            return self.outlet.readings(readings.collect()).await;
        };
        let question = ask::Question {
            connection: connection.clone(),
            namespace_uri: self.server.namespace_uri.clone(),
            plans: silent
                .iter()
                .filter_map(|slot| self.slots.get(*slot).cloned())
                .collect(),
            pulse: self.pulse,
            pulse_silent_for: self.pulse.silent_for(now_us),
            patience: pulse::patience(self.server.publish),
        };
        self.asking.spawn(question.ask());
        Ok(())
    }
}
