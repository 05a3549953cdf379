//! How do edges talk to the hub over MQTT?
//! `frontend` owns the sockets and `session` one of them each; `rules` says which topics a device may use.
//! Uplink messages go to ingest and are acknowledged once settled; only downlink passes through `router`,
//! which is rumqttd without its listeners, session store and acknowledgements.

mod codec;
mod external;
mod frontend;
#[cfg(test)]
mod fuzz;
mod inflight;
mod limits;
mod open;
mod reply;
mod router;
mod rules;
mod seats;
mod session;
mod tap;
#[cfg(test)]
mod tests;
mod tls;
mod uplinks;

use std::{collections::HashMap, fmt, io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

pub use external::{Downlinks, External, ExternalConfig};
pub use limits::Limits;
pub use open::{Open, OpenMessage, inside_device, inside_tenant, may_outside, without_tenant};
pub use router::Downlink;
pub use rules::Device;
pub use tap::{Tap, TapConfig};
pub use tls::{Certified, ClientAuth, DeviceCertificates};
pub use uplinks::{
    Closed, Hold, Taken, UplinkReceiver, UplinkSender, UplinkWatch, Waiting, channel as uplinks,
};

use frontend::Frontend;
use router::RouterHandle;
use seats::Clients;

/// Time that open sessions get to end after a shutdown.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// One message of a device, on its way to ingest.
#[derive(Debug)]
pub struct Uplink {
    /// Who sent it, as authenticated; the topic agrees with it.
    pub device: Device,
    /// `ff/v1/{tenant}/{edge}/` and `up/{lane}`, `dict` or `status`.
    pub topic: String,
    /// The payload, unread.
    pub payload: Bytes,
    /// Where ingest says what became of it; the PUBACK waits for that.
    pub settled: oneshot::Sender<Settled>,
}

/// What became of an [`Uplink`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    /// Committed: PUBACK with success.
    Stored,
    /// Never to be stored: PUBACK with 0x99 in MQTT 5; the connection stays.
    Rejected {
        /// Told to the client in MQTT 5.
        reason: String,
    },
    /// Never to be stored: PUBACK with this reason code in MQTT 5; the connection stays.
    Refused {
        /// MQTT 5 reason code, 0x80 or more.
        code: u8,
        /// Told to the client in MQTT 5.
        reason: String,
    },
    /// Not now: the socket is closed without PUBACK, so that the client sends it again.
    Retry,
}

/// Says which device a user name and password belong to.
pub trait Authenticate: Send + Sync + 'static {
    /// Returns the device, or `None` when the credentials are wrong.
    fn authenticate(&self, username: String, password: Vec<u8>) -> BoxFuture<'static, Option<Device>>;

    /// Returns the device of a certificate that the device authority signed, or `None` when it is not good any more.
    /// Who knows no certificates lets nobody in by one.
    fn certify(&self, certified: Certified) -> BoxFuture<'static, Option<Device>> {
        drop(certified);
        Box::pin(std::future::ready(None))
    }
}

/// Where the front end listens, and its limits.
#[derive(Debug, Clone)]
pub struct BrokerConfig {
    /// Address of the plain listener; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The TLS listener, when certificates are given.
    pub tls: Option<TlsListener>,
    /// What one socket may ask for.
    pub limits: Limits,
}

/// A second listener that speaks TLS 1.2 and 1.3.
#[derive(Debug, Clone)]
pub struct TlsListener {
    /// Address; port 0 takes a free one.
    pub listen: SocketAddr,
    /// PEM file with the server's certificate chain.
    pub cert_file: PathBuf,
    /// PEM file with its private key.
    pub key_file: PathBuf,
    /// How devices show who they are by certificate; none: they do not.
    pub devices: Option<DeviceCertificates>,
}

/// Why the front end cannot start or cannot deliver.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The address is taken or not ours.
    #[error("cannot listen for MQTT on {address}")]
    Listen {
        /// The address as configured.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A certificate or key file does not serve.
    #[error("cannot use the TLS file {path}")]
    TlsFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// Certificate and key do not make a TLS server.
    #[error("the TLS certificate and key cannot be used")]
    Tls(#[from] rustls::Error),
    /// The router's thread is gone; the watchdog replaces it.
    #[error("the MQTT router is gone")]
    RouterGone,
    /// The router's queue stayed full.
    #[error("the MQTT router is behind")]
    RouterBusy,
    /// Nothing can be published there.
    #[error("`{0}` is not a topic to publish to")]
    Topic(String),
}

/// A running MQTT front end; [`Broker::shutdown`] ends it.
#[derive(Debug)]
pub struct Broker {
    /// Where the plain listener listens.
    pub local_addr: SocketAddr,
    /// Where the TLS listener listens, if there is one.
    pub tls_addr: Option<SocketAddr>,
    /// The way from the hub to its devices.
    pub downlink: Downlink,
    /// Who is connected.
    pub sessions: Sessions,
    router: Arc<RouterHandle>,
    shutdown: CancellationToken,
    tasks: tokio_util::task::TaskTracker,
}

/// Who is connected. Cloning it gives another handle on the same.
#[derive(Clone)]
pub struct Sessions {
    near: Clients,
    far: Option<External>,
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sessions")
    }
}

impl Sessions {
    /// Ends every session of a device at once. It may come back with credentials that are good then.
    pub fn expel(&self, device: &Device) {
        self.near.expel(device);
    }

    /// Which devices are connected here, each with the number of its newest session: a device that came again has a
    /// greater one.
    /// One that was heard of on the external broker counts as connected, always in the same session.
    pub fn connected(&self) -> HashMap<Device, u64> {
        let mut connected = self.near.connected();
        for device in self.far.iter().flat_map(External::heard) {
            connected.entry(device).or_default();
        }
        connected
    }

    /// Knows who is on an external broker, too.
    #[must_use]
    pub fn with(mut self, far: Option<External>) -> Self {
        self.far = far;
        self
    }
}

impl Broker {
    /// Whether the router passed its last loop-back probe.
    pub fn is_ready(&self) -> bool {
        self.router.is_ready()
    }

    /// A probe for `/ready` that outlives this value.
    pub fn readiness(&self) -> impl Fn() -> bool + Clone + Send + Sync + 'static {
        let router = self.router.clone();
        move || router.is_ready()
    }

    /// Closes the listeners and every session, and waits a moment for them to end.
    pub async fn shutdown(self) {
        self.shutdown.cancel();
        self.tasks.close();
        if timeout(DRAIN_TIMEOUT, self.tasks.wait()).await.is_err() {
            tracing::warn!("some MQTT sessions did not end in time");
        }
    }
}

/// Binds the listeners, starts the router and its watchdog, and serves until [`Broker::shutdown`].
///
/// # Errors
/// [`BrokerError`] when an address is taken, a TLS file does not serve, or the router does not start.
pub async fn start(
    config: BrokerConfig,
    auth: Arc<dyn Authenticate>,
    uplink: UplinkSender,
) -> Result<Broker, BrokerError> {
    start_open(config, auth, uplink, None).await
}

/// As [`start`], and takes messages on topics outside `ff/` too: they go to `open`.
///
/// # Errors
/// As [`start`].
pub async fn start_open(
    config: BrokerConfig,
    auth: Arc<dyn Authenticate>,
    uplink: UplinkSender,
    open: Option<mpsc::Sender<Open>>,
) -> Result<Broker, BrokerError> {
    let tls = config
        .tls
        .as_ref()
        .map(|tls| Ok::<_, BrokerError>((tls.listen, tls::acceptor(tls)?)))
        .transpose()?;
    let name_prefix = config
        .tls
        .as_ref()
        .and_then(|tls| Some(tls.devices.as_ref()?.name_prefix));
    let (plain, local_addr) = bind(config.listen).await?;
    let tls = match tls {
        None => None,
        Some((address, acceptor)) => Some((bind(address).await?, acceptor)),
    };
    let router = RouterHandle::start(&config.limits).await?;
    let shutdown = CancellationToken::new();
    let frontend = Arc::new(Frontend::new(
        auth,
        uplink,
        router.clone(),
        config.limits.clone(),
        shutdown.clone(),
        name_prefix,
        open,
    ));
    let sessions = Sessions {
        near: frontend.clients.clone(),
        far: None,
    };
    let tasks = frontend.tasks.clone();
    tasks.spawn(router.clone().watch(config.limits, shutdown.clone()));
    tasks.spawn(frontend.clone().accept(plain, None));
    let mut tls_addr = None;
    if let Some(((listener, address), acceptor)) = tls {
        tls_addr = Some(address);
        tasks.spawn(frontend.accept(listener, Some(acceptor)));
    }
    Ok(Broker {
        local_addr,
        tls_addr,
        downlink: Downlink::new(router.clone()),
        sessions,
        router,
        shutdown,
        tasks,
    })
}

async fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), BrokerError> {
    let failed = |source| BrokerError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}
