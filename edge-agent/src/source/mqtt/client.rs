//! How is a broker on the floor followed? One connection at a time, subscribed anew on each; a message that cannot be
//! read is answered on the error topic and never ends the connection.

use std::{
    collections::BTreeSet,
    fs, io,
    time::{Duration, Instant},
};

use protocol::{Quality, event::Alarm};
use rumqttc::{
    Transport,
    v5::{
        AsyncClient, Event, EventLoop, MqttOptions,
        mqttbytes::{
            QoS,
            v5::{ConnectReturnCode, Filter, Packet, Publish},
        },
    },
};
use tokio::sync::watch;
use uuid::Uuid;

use super::{
    config::Broker,
    decode,
    plan::{Complaints, Heard},
};
use crate::{
    clock,
    health::SourceState,
    source::{Closed, Outlet},
    uplink::backoff::Backoff,
};

const KEEP_ALIVE: Duration = Duration::from_secs(10);
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// A larger message is refused by its dialect; a larger packet ends the connection.
const PACKET_BYTES_MAX: u32 = 2 << 20;
const CHANNEL: usize = 64;
/// How often silence is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// `source.malformed` clears after this long without a refused message.
const WELL_AFTER: Duration = Duration::from_mins(1);

/// Follows one broker until the agent shuts down. Other settings take effect on a new connection.
pub async fn run(mut broker: watch::Receiver<Broker>, outlet: Outlet) -> Result<(), Closed> {
    let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(15));
    let start = Instant::now();
    loop {
        let settings = broker.borrow_and_update().clone();
        let mut follower = Follower::new(&settings, &outlet, start);
        let ended = follower.follow(&mut broker).await?;
        let Ended::Lost { reason, was_up } = ended else {
            backoff.reset();
            continue;
        };
        if was_up {
            backoff.reset();
            outlet
                .bad(
                    &follower.heard.lost(),
                    clock::now_us(),
                    Quality::BAD_NOT_CONNECTED,
                )
                .await?;
        }
        tracing::warn!(source = %settings.name, %reason, "broker not connected");
        outlet.state(SourceState::Down { reason }).await?;
        let until = Instant::now() + backoff.next(&mut rand::rng());
        follower.wait(until, &mut broker).await?;
    }
}

enum Ended {
    /// The settings changed.
    Changed,
    Lost {
        reason: String,
        was_up: bool,
    },
}

struct Follower<'a> {
    broker: &'a Broker,
    outlet: &'a Outlet,
    heard: Heard,
    complaints: Complaints,
    start: Instant,
    /// The open `source.malformed` alarm, and when a message was last refused.
    malformed: Option<(Uuid, Instant)>,
}

impl<'a> Follower<'a> {
    fn new(broker: &'a Broker, outlet: &'a Outlet, start: Instant) -> Self {
        Self {
            broker,
            outlet,
            heard: Heard::new(&broker.tags, start.elapsed()),
            complaints: Complaints::default(),
            start,
            malformed: None,
        }
    }

    async fn follow(&mut self, changed: &mut watch::Receiver<Broker>) -> Result<Ended, Closed> {
        let options = match options(self.broker) {
            Ok(options) => options,
            Err(error) => {
                let reason = error.to_string();
                return Ok(Ended::Lost {
                    reason,
                    was_up: false,
                });
            }
        };
        let (client, mut event_loop) = AsyncClient::new(options, CHANNEL);
        let mut look = tokio::time::interval(LOOK_EVERY);
        let mut was_up = false;
        loop {
            tokio::select! {
                event = poll(&mut event_loop) => match event {
                    Ok(Packet::ConnAck(connack)) if connack.code == ConnectReturnCode::Success => {
                        was_up = true;
                        let filters = filters(self.broker);
                        if client.try_subscribe_many(filters).is_err() {
                            return Ok(Ended::Lost { reason: "cannot subscribe".to_owned(), was_up });
                        }
                        self.outlet.state(SourceState::Up).await?;
                    }
                    Ok(Packet::Publish(publish)) => self.published(&client, &publish).await?,
                    Ok(_) => {}
                    Err(reason) => return Ok(Ended::Lost { reason, was_up }),
                },
                _ = look.tick() => self.look(was_up).await?,
                () = is_changed(changed) => return Ok(Ended::Changed),
            }
        }
    }

    /// Waits for the next attempt; what is due meanwhile is bad.
    async fn wait(&mut self, until: Instant, changed: &mut watch::Receiver<Broker>) -> Result<(), Closed> {
        let mut look = tokio::time::interval(LOOK_EVERY);
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(until.into()) => return Ok(()),
                _ = look.tick() => self.look(false).await?,
                () = is_changed(changed) => return Ok(()),
            }
        }
    }

    async fn look(&mut self, is_up: bool) -> Result<(), Closed> {
        let silent = self.heard.silent(self.start.elapsed());
        let reason = if is_up {
            Quality::BAD_TIMEOUT
        } else {
            Quality::BAD_NOT_CONNECTED
        };
        self.outlet.bad(&silent, clock::now_us(), reason).await?;
        if let Some((id, _)) = self.malformed.take_if(|(_, last)| last.elapsed() >= WELL_AFTER) {
            self.outlet
                .alarm(self.alarm(id, "messages are readable again", false))
                .await?;
        }
        Ok(())
    }

    async fn published(&mut self, client: &AsyncClient, publish: &Publish) -> Result<(), Closed> {
        let received_us = clock::now_us();
        let topic = String::from_utf8_lossy(&publish.topic);
        let said = (publish.payload.as_ref(), publish.retain);
        let decoded = match decode::decode(self.broker, &topic, said, received_us) {
            Ok(decoded) => decoded,
            Err(refused) => return self.refused(client, &topic, refused).await,
        };
        let now = self.start.elapsed();
        let mut readings = Vec::with_capacity(decoded.readings.len());
        for (place, reading) in decoded.readings {
            if self.heard.take(place, &reading, now) {
                readings.push(reading);
            }
        }
        // A device that buffered: judged beside what came in time, not as if it were now.
        let late_after_us = i64::try_from(self.broker.late_after.as_micros()).unwrap_or(i64::MAX);
        let (late, timely): (Vec<_>, Vec<_>) = readings
            .into_iter()
            .partition(|reading| received_us - reading.time_us > late_after_us && !publish.retain);
        self.outlet.late(late).await?;
        self.outlet.readings(timely).await?;
        let gone: Vec<_> = decoded
            .gone
            .iter()
            .filter_map(|place| self.heard.alias(*place))
            .collect();
        self.outlet
            .bad(&gone, received_us, Quality::BAD_NOT_CONNECTED)
            .await
    }

    async fn refused(
        &mut self,
        client: &AsyncClient,
        topic: &str,
        refused: protocol::integrator::Refused,
    ) -> Result<(), Closed> {
        if let Some(complaint) = self
            .complaints
            .add(topic, &refused, self.start.elapsed(), clock::now_us())
        {
            tracing::warn!(source = %self.broker.name, %topic, %refused, "message refused");
            let payload = serde_json::to_vec(&complaint).unwrap_or_default();
            let told = client.try_publish(&self.broker.error_topic, QoS::AtMostOnce, false, payload);
            if told.is_err() {
                tracing::debug!("complaint dropped: the broker takes nothing now");
            }
        }
        let now = Instant::now();
        if let Some((_, last)) = &mut self.malformed {
            *last = now;
            return Ok(());
        }
        let id = Uuid::now_v7();
        self.malformed = Some((id, now));
        let message = format!("a message on {topic} cannot be read: {refused}");
        self.outlet.alarm(self.alarm(id, &message, true)).await
    }

    fn alarm(&self, id: Uuid, message: &str, active: bool) -> Alarm {
        Alarm {
            id,
            at_us: clock::now_us(),
            code: "source.malformed".to_owned(),
            subject: self.broker.name.clone(),
            line: None,
            active,
            message: message.to_owned(),
        }
    }
}

/// Waits for other settings; for ever once nobody can change them.
async fn is_changed(broker: &mut watch::Receiver<Broker>) {
    if broker.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn poll(event_loop: &mut EventLoop) -> Result<Packet, String> {
    loop {
        match event_loop.poll().await {
            Ok(Event::Incoming(Packet::Disconnect(disconnect))) => {
                return Err(format!(
                    "the broker closed the connection: {:?}",
                    disconnect.reason_code
                ));
            }
            Ok(Event::Incoming(packet)) => return Ok(packet),
            Ok(Event::Outgoing(_)) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// Each filter once.
fn filters(broker: &Broker) -> Vec<Filter> {
    let topics: BTreeSet<&String> = broker
        .tags
        .iter()
        .map(|tag| &tag.topic)
        .chain(&broker.status_topic)
        .collect();
    topics
        .into_iter()
        .map(|topic| Filter::new(topic.clone(), QoS::AtLeastOnce))
        .collect()
}

fn options(broker: &Broker) -> io::Result<MqttOptions> {
    let (host, port) = broker
        .address
        .rsplit_once(':')
        .unwrap_or((&broker.address, "1883"));
    let mut options = MqttOptions::new(&broker.client_id, host, port.parse().unwrap_or(1883));
    options
        .set_keep_alive(KEEP_ALIVE)
        .set_clean_start(true)
        .set_connection_timeout(CONNECT_WITHIN.as_secs())
        .set_max_packet_size(Some(PACKET_BYTES_MAX));
    if let Some(user) = &broker.user {
        let password = broker
            .password_file
            .as_ref()
            .map(fs::read_to_string)
            .transpose()?;
        options.set_credentials(user, password.unwrap_or_default().trim_end());
    }
    let mut network = options.network_options();
    network.set_tcp_nodelay(true);
    network.set_connection_timeout(CONNECT_WITHIN.as_secs());
    options.set_network_options(network);
    if let Some(path) = &broker.ca_file {
        options.set_transport(Transport::tls(fs::read(path)?, None, None));
    }
    Ok(options)
}
