//! How does a message of an integrator become rows and answers? Gathered while the database is busy, understood,
//! stored a tenant at a time, and only then acknowledged. While the database is away nothing is given up: the sockets
//! are not read.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use bytes::Bytes;
use protocol::{
    Micros,
    integrator::Dialect,
    lane::Lane,
    sparkplug::{Outgoing, host::Patience},
};
use serde_json::Value;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    read::{Said, read},
    settle::{Verdict, verdict},
    sparkplug::Hosts,
    store::{self, Stored},
    told::{Client, Told},
};
use crate::{
    broker::{BrokerError, Downlink, Open, OpenMessage, Settled, Tap, inside_device, inside_tenant},
    kernel::{
        bulk::{BulkConnection, BulkError},
        clock::Clock,
        database::Target,
        tenancy::{Db, TenantSlug},
    },
    series::bus::{LiveBus, LiveKind},
    tenant::provision,
};

/// Most messages of one transaction.
const MESSAGES_MAX: usize = 256;
const TICK: Duration = Duration::from_millis(250);
/// How often new tenants are looked for, which are told that their host is there.
const TICKS_TO_TENANTS: u64 = 20;
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// A tenant that cannot be served is not asked again for this long.
const ASIDE: Duration = Duration::from_secs(1);

/// What the intake works with.
#[derive(Clone, Debug)]
pub struct Context {
    /// The database, as the login role.
    pub target: Target,
    /// For the list of tenants.
    pub db: Db,
    /// The way to clients.
    pub downlink: Downlink,
    /// Clients that are whole brokers.
    pub taps: Vec<Tap>,
    /// Who is told after a commit.
    pub live: LiveBus,
    /// Now.
    pub clock: Clock,
    /// The name of the Sparkplug host that this hub is.
    pub sparkplug_host: String,
    /// How long that host waits for a missing message.
    pub sparkplug_patience: Patience,
}

/// A message that came over HTTP, and who wants to know what became of it.
#[derive(Debug)]
pub struct Asked {
    /// The message.
    pub message: OpenMessage,
    /// How it is written; none: to be told by topic and shape.
    pub dialect: Option<Dialect>,
    /// Told once it is stored.
    pub answer: oneshot::Sender<Value>,
}

/// The way into the intake for requests.
#[derive(Clone, Debug)]
pub struct Intake(pub mpsc::Sender<Asked>);

/// Runs until `messages` closes or `stop` is cancelled.
pub async fn run(
    context: Context,
    mut messages: mpsc::Receiver<Open>,
    mut asked: mpsc::Receiver<Asked>,
    stop: CancellationToken,
) {
    let mut worker = Worker {
        hosts: Hosts::new(context.sparkplug_patience),
        context,
        connection: None,
        told: Told::default(),
        aside: HashMap::new(),
        stop: stop.clone(),
    };
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut ticked = 0u64;
    loop {
        let mut batch = BTreeMap::new();
        tokio::select! {
            () = stop.cancelled() => break,
            first = messages.recv() => {
                let Some(first) = first else { break };
                worker.read(first, &mut batch);
                for _ in 1..MESSAGES_MAX {
                    let Ok(next) = messages.try_recv() else { break };
                    worker.read(next, &mut batch);
                }
            }
            Some(first) = asked.recv() => worker.read_asked(first, &mut batch),
            _ = ticks.tick() => {
                worker.tick(ticked, &mut batch).await;
                ticked += 1;
            }
        }
        for (tenant, said) in batch {
            worker.store(&tenant, said).await;
        }
    }
    worker.leave().await;
}

type Batch = BTreeMap<TenantSlug, Vec<Said>>;

struct Worker {
    context: Context,
    connection: Option<BulkConnection>,
    hosts: Hosts,
    told: Told,
    aside: HashMap<TenantSlug, Instant>,
    stop: CancellationToken,
}

impl Worker {
    fn now_us(&self) -> Micros {
        self.context.clock.now_us()
    }

    fn read(&mut self, open: Open, batch: &mut Batch) {
        let now_us = self.now_us();
        let device = match &open {
            Open::Message(message) => message.device.clone(),
            Open::Gone(device) | Open::Anew(device) => device.clone(),
        };
        let Ok(tenant) = TenantSlug::parse(&device.tenant) else {
            tracing::error!(tenant = %device.tenant, "an authenticated device has an impossible tenant");
            return;
        };
        let client = (device.tenant.clone(), device.name.clone());
        let said = match open {
            Open::Message(message) => read(message, None, self.hosts.of(&client), now_us),
            Open::Anew(_) => return self.hosts.forget(&client),
            Open::Gone(_) => {
                let mut said = Said {
                    client: device.name.clone(),
                    received_us: now_us,
                    ..Said::default()
                };
                let effects = self.hosts.lost(&client, now_us);
                said.presence.push((device.name, false));
                said.apply(effects);
                said
            }
        };
        batch.entry(tenant).or_default().push(said);
    }

    fn read_asked(&mut self, asked: Asked, batch: &mut Batch) {
        let Asked {
            message,
            dialect,
            answer,
        } = asked;
        let Ok(tenant) = TenantSlug::parse(&message.device.tenant) else {
            return;
        };
        let client = (message.device.tenant.clone(), message.device.name.clone());
        let now_us = self.now_us();
        let mut said = read(message, dialect, self.hosts.of(&client), now_us);
        said.answer = Some(answer);
        batch.entry(tenant).or_default().push(said);
    }

    /// Gaps that were waited for, errors that had to wait, tenants that are new.
    async fn tick(&mut self, ticked: u64, batch: &mut Batch) {
        let now_us = self.now_us();
        for (client, effects) in self.hosts.tick(now_us) {
            let Ok(tenant) = TenantSlug::parse(&client.0) else {
                continue;
            };
            let mut said = Said {
                client: client.1,
                received_us: now_us,
                dialect: "sparkplug",
                ..Said::default()
            };
            said.apply(effects);
            batch.entry(tenant).or_default().push(said);
        }
        for (client, error) in self.told.due(now_us) {
            self.tell(&client, "err", &error).await;
        }
        if ticked.is_multiple_of(TICKS_TO_TENANTS) {
            self.be_known().await;
        }
    }

    async fn be_known(&mut self) {
        let Ok(mut tx) = self.context.db.platform().await else {
            return;
        };
        let Ok(tenants) = provision::tenants(tx.conn()).await else {
            return;
        };
        drop(tx);
        let slugs: Vec<TenantSlug> = tenants.into_iter().map(|tenant| tenant.slug).collect();
        let births = self
            .hosts
            .births(&self.context.sparkplug_host, &slugs, self.context.clock.now_us());
        for (tenant, birth) in births {
            self.publish(&tenant, birth, true).await;
        }
    }

    /// The tap that a client is.
    fn tap(&self, (tenant, name): &Client) -> Option<&Tap> {
        let is_it = |tap: &&Tap| tap.device().tenant == *tenant && tap.device().name == *name;
        self.context.taps.iter().find(is_it)
    }

    /// The last words of the host.
    async fn leave(&self) {
        for (tenant, death) in self.hosts.deaths(self.now_us()) {
            self.publish(&tenant, death, true).await;
        }
    }

    /// What the specification wants with QoS 0 goes out so, whatever its subscribers asked for.
    async fn publish(&self, tenant: &TenantSlug, outgoing: Outgoing, retain: bool) {
        let topic = inside_tenant(tenant.as_str(), &outgoing.topic);
        let (downlink, payload) = (&self.context.downlink, outgoing.payload.into());
        let published = if outgoing.is_acknowledged {
            downlink.publish(&topic, payload, retain).await
        } else {
            downlink.publish_at_most_once(&topic, payload).await
        };
        told(&topic, published);
    }

    /// Asks an edge node, where it speaks through.
    async fn ask(&self, tenant: &TenantSlug, client: &Client, ask: Outgoing) {
        match self.tap(client) {
            Some(tap) => told(
                &ask.topic,
                tap.publish_at_most_once(&ask.topic, ask.payload.into()),
            ),
            None => self.publish(tenant, ask, false).await,
        }
    }

    async fn tell(&self, client: &Client, kind: &str, said: &Value) {
        let (tenant, name) = client;
        let (topic, payload) = (format!("v1/{kind}/{name}"), Bytes::from(said.to_string()));
        if let Some(tap) = self.tap(client) {
            return told(&topic, tap.publish(&topic, payload, false));
        }
        let device = crate::broker::Device {
            tenant: tenant.clone(),
            name: name.clone(),
        };
        let topic = inside_device(&device, &topic);
        told(
            &topic,
            self.context.downlink.publish(&topic, payload, false).await,
        );
    }

    /// Stores messages of one tenant, however long the database is away. Those of a tenant that cannot be served now
    /// are given back: their sockets close without a PUBACK, and the clients send them again.
    async fn store(&mut self, tenant: &TenantSlug, said: Vec<Said>) {
        if self
            .aside
            .get(tenant)
            .is_some_and(|until| Instant::now() < *until)
        {
            return give_back(said);
        }
        let now_us = self.now_us();
        let dead: Vec<bool> = said
            .iter()
            .map(|said| {
                let client = (tenant.as_str().to_owned(), said.client.clone());
                let first = said.refused.first().filter(|_| said.is_refused_whole());
                first.is_some_and(|refused| self.told.may_keep(&client, refused.code, now_us))
            })
            .collect();
        let mut backoff = BACKOFF_MIN;
        loop {
            match self.attempt(tenant, &said, &dead).await {
                Ok(stored) => return self.finish(tenant, said, stored).await,
                Err(BulkError::Refused(error)) if said.len() == 1 => {
                    tracing::error!(%tenant, %error, "the database refuses an integrator's message");
                    let reason = "the database refuses it".to_owned();
                    for settled in said.into_iter().filter_map(|said| said.settled) {
                        drop(settled.send(Settled::Rejected {
                            reason: reason.clone(),
                        }));
                    }
                    return;
                }
                Err(BulkError::Refused(_)) => {
                    for one in said {
                        Box::pin(self.store(tenant, vec![one])).await;
                    }
                    return;
                }
                Err(
                    error @ (BulkError::UnknownTenant
                    | BulkError::NotMigrated
                    | BulkError::Suspended
                    | BulkError::Unfit(_)),
                ) => {
                    tracing::warn!(%tenant, %error, "integrators' messages wait at their senders");
                    self.aside.insert(tenant.clone(), Instant::now() + ASIDE);
                    return give_back(said);
                }
                Err(error) => {
                    tracing::warn!(%tenant, %error, "the intake waits for the database");
                    if matches!(error, BulkError::Unavailable(_)) {
                        self.connection = None;
                    }
                    tokio::select! {
                        () = self.stop.cancelled() => return give_back(said),
                        () = sleep(backoff) => backoff = (backoff * 2).min(BACKOFF_MAX),
                    }
                }
            }
        }
    }

    async fn attempt(
        &mut self,
        tenant: &TenantSlug,
        said: &[Said],
        dead: &[bool],
    ) -> Result<Stored, BulkError> {
        let now = self.context.clock.now();
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(BulkConnection::connect(&self.context.target.bulk).await?),
        };
        let mut tx = connection.begin(tenant).await?;
        let stored = store::store(&mut tx, said, dead, now).await?;
        tx.commit().await?;
        Ok(stored)
    }

    /// After the commit: live pages, edge nodes, errors, echoes, and the broker, which then sends its PUBACKs.
    async fn finish(&mut self, tenant: &TenantSlug, said: Vec<Said>, stored: Stored) {
        let now_us = self.now_us();
        metrics::counter!("foodflow_integrator_readings_total").increment(stored.readings);
        if !stored.newest.is_empty() {
            let kind = LiveKind::Samples {
                lane: Lane::Live,
                samples: stored.newest,
            };
            self.context.live.publish(tenant, now_us, kind);
        }
        for (mut said, outcome) in said.into_iter().zip(stored.outcomes) {
            let client = (tenant.as_str().to_owned(), said.client.clone());
            for ask in std::mem::take(&mut said.asks) {
                self.ask(tenant, &client, ask).await;
            }
            let verdict = verdict(&said, outcome);
            self.answer(&client, said, verdict, now_us).await;
        }
    }

    async fn answer(&mut self, client: &Client, mut said: Said, verdict: Verdict, now_us: Micros) {
        for refused in &verdict.refused {
            metrics::counter!("foodflow_integrator_refused_total", "code" => refused.code.number())
                .increment(1);
            if let Some(error) = self.told.error(client, &said.topic, refused, now_us) {
                self.tell(client, "err", &error).await;
            }
        }
        if let Some(answer) = said.answer.take() {
            // Who asked may have given up.
            drop(answer.send(verdict.echo(&said)));
        } else if said.settled.is_some() && self.told.may_echo(client, now_us) {
            self.tell(client, "echo", &verdict.echo(&said)).await;
        }
        if let Some(settled) = said.settled {
            // Nobody waits when the client has left.
            drop(settled.send(verdict.settled));
        }
    }
}

/// What a client was to hear could not be said: it is told nothing else of it, so the log is.
fn told(topic: &str, said: Result<(), BrokerError>) {
    if let Err(error) = said {
        tracing::warn!(topic, %error, "a client could not be told");
    }
}

/// Messages whose senders are to send them again.
fn give_back(said: Vec<Said>) {
    for settled in said.into_iter().filter_map(|said| said.settled) {
        drop(settled.send(Settled::Retry));
    }
}
