//! How does what is stored reach the hub? One MQTT 5 connection at a time; everything is sent from the spool again
//! on every connection until the hub itself has acknowledged it.

pub mod backoff;
pub mod identity;
pub mod session;
pub mod window;

use std::{fs, io, path::PathBuf, sync::Arc, time::Duration};

use protocol::{
    event::Alarm,
    topic::{Channel, Topic},
};
use rumqttc::{
    Transport,
    v5::{
        MqttOptions,
        mqttbytes::{QoS, v5::LastWill},
    },
};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::{
    backoff::Backoff,
    identity::{Credential, Identity},
};
use crate::{
    clock,
    config::{Edge, Hub},
    fleet::certificate::{self, Certificate},
    health::{Health, UplinkState},
    source::Acquired,
    spool::Outbox,
};

/// Half of what the broker allows between packets; also how soon a dead connection is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// rumqttc's default of 10 KB would refuse most frames.
const PACKET_BYTES_MAX: u32 = 2 << 20;
/// Frames on the wire without PUBACK.
const INFLIGHT_MAX: u16 = 16;
/// The spool is the queue; rumqttc's is only a hand-over.
pub(crate) const CHANNEL: usize = 16;
/// The first attempt after a lost connection comes within this: a hub that restarts has all its edges back by then,
/// and not all in one second.
pub const RETURN_WITHIN: Duration = Duration::from_secs(5);
/// The shortest and the longest pause between attempts that fail.
pub const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// Everything the uplink needs to know.
#[derive(Clone, Debug)]
pub struct Uplink {
    /// Who the edge is.
    pub edge: Edge,
    /// Where the hub is.
    pub hub: Hub,
    /// What it signs in with.
    pub identity: Identity,
    /// Identity of this start.
    pub boot: Uuid,
    /// What waits.
    pub outbox: Outbox,
    /// Where its state is shown.
    pub health: Arc<Health>,
    /// Where its alarms go.
    pub alarms: mpsc::Sender<Acquired>,
    /// Where the hub's commands go, undecoded.
    pub commands: mpsc::Sender<Vec<u8>>,
    /// Where the client certificate lies.
    pub data_dir: PathBuf,
}

/// A hub that cannot be connected to as configured.
#[derive(Debug, thiserror::Error)]
pub enum UplinkError {
    /// The certificate authority cannot be read.
    #[error("{}: {source}", path.display())]
    CaFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The status message.
#[derive(Debug, Serialize)]
struct Status<'a> {
    online: bool,
    boot: Uuid,
    version: &'a str,
    backlog_frames: u64,
    oldest_us: Option<i64>,
    at_us: i64,
}

impl Uplink {
    fn topic(&self, channel: Channel) -> String {
        Topic::new(&self.edge.tenant, &self.edge.name, channel).to_string()
    }

    fn status(&self, online: bool) -> Vec<u8> {
        use std::sync::atomic::Ordering::Relaxed;
        let spool = &self.health.spool;
        let status = Status {
            online,
            boot: self.boot,
            version: env!("CARGO_PKG_VERSION"),
            backlog_frames: spool.backlog_frames.load(Relaxed),
            oldest_us: Some(spool.oldest_us.load(Relaxed)).filter(|oldest_us| *oldest_us > 0),
            at_us: clock::now_us(),
        };
        serde_json::to_vec(&status).expect("plain data serialises to memory")
    }

    /// The certificate, read anew for each connection: a renewed one is used at the next.
    fn certificate(&self) -> Option<Certificate> {
        self.hub.ca_file.as_ref()?;
        certificate::load(&self.data_dir).unwrap_or_else(|error| {
            tracing::warn!(%error, "the client certificate cannot be used");
            None
        })
    }

    fn options(&self, certificate: Option<&Certificate>) -> Result<MqttOptions, UplinkError> {
        let (host, port) = self.hub.mqtt.rsplit_once(':').unwrap_or((&self.hub.mqtt, "1883"));
        let client_id = format!("{}/{}", self.edge.tenant, self.edge.name);
        let mut options = MqttOptions::new(client_id, host, port.parse().unwrap_or(1883));
        options
            .set_credentials(&self.identity.mqtt_username, &self.identity.mqtt_password)
            .set_keep_alive(KEEP_ALIVE)
            .set_clean_start(true)
            .set_connection_timeout(CONNECT_WITHIN.as_secs())
            .set_max_packet_size(Some(PACKET_BYTES_MAX))
            .set_outgoing_inflight_upper_limit(INFLIGHT_MAX)
            .set_last_will(LastWill::new(
                self.topic(Channel::Status),
                self.status(false),
                QoS::AtLeastOnce,
                false,
                None,
            ));
        let mut network = options.network_options();
        network.set_tcp_nodelay(true);
        network.set_connection_timeout(CONNECT_WITHIN.as_secs());
        options.set_network_options(network);
        if let Some(path) = &self.hub.ca_file {
            let ca = fs::read(path).map_err(|source| UplinkError::CaFile {
                path: path.clone(),
                source,
            })?;
            // The file holds the key and the chain; each reader takes its own.
            let pair = certificate.map(|certificate| (certificate.pem.clone(), certificate.pem.clone()));
            options.set_transport(Transport::tls(ca, pair, None));
        }
        Ok(options)
    }

    async fn raise(&self, alarm: Alarm) {
        if self.alarms.send(Acquired::Alarm(alarm)).await.is_err() {
            tracing::debug!("alarm raised during shutdown");
        }
    }
}

/// Keeps the hub supplied until `stop`.
pub async fn run(uplink: Uplink, stop: CancellationToken) {
    let mut backoff = Backoff::new(PAUSES.0, PAUSES.1);
    let mut failures = 0;
    loop {
        let certificate = uplink.certificate();
        let is_valid = certificate
            .as_ref()
            .map(|certificate| certificate.is_valid(clock::now_us()));
        let credential = Credential::choose(is_valid, failures);
        uplink.health.uplink.set_signs_in_with(credential.name());
        let certificate = certificate.filter(|_| credential == Credential::Certificate);
        let ended = match uplink.options(certificate.as_ref()) {
            Ok(options) => session::hold(&uplink, options, &stop).await,
            Err(error) => session::Ended {
                reason: error.to_string(),
                was_online: false,
            },
        };
        if stop.is_cancelled() {
            return;
        }
        failures = if ended.was_online { 0 } else { failures + 1 };
        let pause = if ended.was_online {
            backoff.after_loss(RETURN_WITHIN, &mut rand::rng())
        } else {
            backoff.next(&mut rand::rng())
        };
        tracing::warn!(reason = %ended.reason, pause_ms = pause.as_millis() as u64, "hub not connected");
        uplink
            .health
            .uplink
            .set(UplinkState::Offline { reason: ended.reason });
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => return,
        }
    }
}
