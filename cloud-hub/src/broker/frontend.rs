//! Who may open a session, and how does a socket become one?
//! Accepts plain and TLS sockets, reads CONNECT within its time, authenticates, judges the will, lets a new
//! socket of a client take over from the old one, and delivers the will of a client that vanished.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::BytesMut;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, info, warn};

use super::{
    Authenticate, Open, OpenMessage, Uplink,
    codec::{self, CodecError, ConnectRequest, Version, Will},
    limits::Limits,
    open::is_open_topic,
    reply::{self, ConnectAnswer},
    router::RouterHandle,
    rules::{Device, may_publish},
    seats::{ClientKey, Clients},
    session::{Ended, Session},
    tls::{self, Certified},
    uplinks::UplinkSender,
};

/// How long ingest may take to accept a will.
const WILL_TIMEOUT: Duration = Duration::from_secs(1);
/// Pause after a failed accept, which is mostly a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A socket, plain or TLS.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A socket that has sent its CONNECT.
struct Opened {
    io: Box<dyn Stream>,
    inbox: BytesMut,
    request: ConnectRequest,
    certified: Option<Certified>,
}

/// What every socket of this hub shares.
pub(super) struct Frontend {
    pub(super) auth: Arc<dyn Authenticate>,
    pub(super) uplink: UplinkSender,
    /// Takes what comes outside `ff/`; none: nothing does.
    pub(super) open: Option<mpsc::Sender<Open>>,
    pub(super) router: Arc<RouterHandle>,
    pub(super) limits: Limits,
    pub(super) shutdown: CancellationToken,
    pub(super) tasks: TaskTracker,
    sockets: Arc<Semaphore>,
    pub(super) clients: Clients,
    /// What the names in devices' certificates begin with, where certificates are looked at.
    name_prefix: Option<&'static str>,
}

impl Frontend {
    pub(super) fn new(
        auth: Arc<dyn Authenticate>,
        uplink: UplinkSender,
        router: Arc<RouterHandle>,
        limits: Limits,
        shutdown: CancellationToken,
        name_prefix: Option<&'static str>,
        open: Option<mpsc::Sender<Open>>,
    ) -> Self {
        let sockets = Arc::new(Semaphore::new(limits.connections_max));
        let (tasks, clients) = (TaskTracker::new(), Clients::default());
        Self {
            auth,
            uplink,
            open,
            router,
            limits,
            shutdown,
            tasks,
            sockets,
            clients,
            name_prefix,
        }
    }

    /// Accepts sockets until the hub shuts down.
    pub(super) async fn accept(self: Arc<Self>, listener: TcpListener, tls: Option<TlsAcceptor>) {
        loop {
            let accepted = tokio::select! {
                () = self.shutdown.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((socket, peer)) => self.admit(socket, peer, tls.clone()),
                Err(source) => {
                    warn!(error = %source, "MQTT socket could not be accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn admit(self: &Arc<Self>, socket: TcpStream, peer: SocketAddr, tls: Option<TlsAcceptor>) {
        let Ok(permit) = self.sockets.clone().try_acquire_owned() else {
            metrics::counter!("foodflow_mqtt_refused_sockets_total").increment(1);
            warn!(%peer, limit = self.limits.connections_max, "MQTT socket refused: connection limit");
            return;
        };
        let frontend = self.clone();
        self.tasks
            .spawn(async move { frontend.greet(socket, peer, tls, permit).await });
    }

    /// One socket from its first byte to its last.
    async fn greet(
        &self,
        socket: TcpStream,
        peer: SocketAddr,
        tls: Option<TlsAcceptor>,
        permit: OwnedSemaphorePermit,
    ) {
        if let Err(source) = socket.set_nodelay(true) {
            debug!(error = %source, "TCP_NODELAY was refused");
        }
        let opening = timeout(self.limits.connect_timeout, self.open(socket, tls));
        let opened = tokio::select! {
            () = self.shutdown.cancelled() => return,
            opened = opening => opened,
        };
        match opened {
            Ok(Ok(opened)) => self.answer(opened, peer).await,
            Ok(Err(why)) => debug!(%peer, why, "MQTT socket closed before CONNECT"),
            Err(_elapsed) => debug!(%peer, "MQTT socket sent no CONNECT in time"),
        }
        drop(permit);
    }

    /// TLS handshake and CONNECT.
    async fn open(&self, socket: TcpStream, tls: Option<TlsAcceptor>) -> Result<Opened, &'static str> {
        let (mut io, certified): (Box<dyn Stream>, _) = match tls {
            None => (Box::new(socket), None),
            Some(acceptor) => {
                let io = acceptor
                    .accept(socket)
                    .await
                    .map_err(|_| "TLS handshake failed")?;
                let shown = io.get_ref().1.peer_certificates().and_then(|chain| chain.first());
                let certified = match (shown, self.name_prefix) {
                    (Some(shown), Some(prefix)) => {
                        Some(tls::certified(shown, prefix).ok_or("the certificate names no device")?)
                    }
                    _ => None,
                };
                (Box::new(io), certified)
            }
        };
        let mut inbox = BytesMut::with_capacity(4096);
        loop {
            match codec::read_connect(&mut inbox, &self.limits) {
                Ok(Some(request)) => {
                    return Ok(Opened {
                        io,
                        inbox,
                        request,
                        certified,
                    });
                }
                Ok(None) => {}
                Err(CodecError::Level(_)) => {
                    let mut refusal = BytesMut::new();
                    reply::write_level_refusal(&mut refusal);
                    io.write_all(&refusal).await.map_err(|_| "socket failed")?;
                    return Err("unknown protocol level");
                }
                Err(_) => return Err("no MQTT CONNECT"),
            }
            if io.read_buf(&mut inbox).await.map_err(|_| "socket failed")? == 0 {
                return Err("closed by peer");
            }
        }
    }

    /// Judges a CONNECT, and serves the session or says why not.
    async fn answer(&self, opened: Opened, peer: SocketAddr) {
        let Opened {
            io,
            inbox,
            mut request,
            certified,
        } = opened;
        let asked = self.clients.next();
        let device = self.identify(&mut request, certified).await;
        match judge(&request, device, self.open.is_some()) {
            Ok(device) => self.serve(io, inbox, request, (device, asked)).await,
            Err(answer) => {
                metrics::counter!("foodflow_mqtt_refused_logins_total").increment(1);
                info!(%peer, user = shown(&request.username), ?answer, "MQTT client refused");
                sleep(self.limits.refusal_delay).await;
                self.refuse(io, request.version, answer).await;
            }
        }
    }

    /// Who it is: by its certificate where it shows one, which the user name must not contradict; else by its password.
    async fn identify(&self, request: &mut ConnectRequest, certified: Option<Certified>) -> Option<Device> {
        let (username, password) = (request.username.clone(), std::mem::take(&mut request.password));
        let Some(certified) = certified else {
            let device = self.auth.authenticate(username, password).await;
            return device.filter(Device::is_addressable);
        };
        let Device { tenant, name } = &certified.device;
        if !username.is_empty() && username != format!("{tenant}/{name}") {
            return None;
        }
        self.auth.certify(certified).await.filter(Device::is_addressable)
    }

    /// Gives the client its seat and its link, serves it to its end, and delivers its will if that is due.
    /// `asked` is when its credentials were looked at: a client that was expelled since then has no seat.
    async fn serve(
        &self,
        io: Box<dyn Stream>,
        inbox: BytesMut,
        request: ConnectRequest,
        (device, asked): (Device, u64),
    ) {
        let is_nameless = request.client_id.is_empty();
        let assigned = is_nameless.then(|| format!("auto-{}", uuid::Uuid::now_v7()));
        let client_id = assigned.clone().unwrap_or_else(|| request.client_id.clone());
        let key = ClientKey {
            device: device.clone(),
            client_id,
        };
        let seat = match self.clients.take(key, asked, &self.limits).await {
            Ok(seat) => seat,
            Err(answer) => {
                self.refuse(io, request.version, answer).await;
                return;
            }
        };
        let Ok(link) = self.router.link().await else {
            self.refuse(io, request.version, ConnectAnswer::Busy).await;
            return;
        };
        let (silence_max, imposed_s) = keep_alive(&request, &self.limits);
        let (accepted, mut outbox) = (ConnectAnswer::Accepted, BytesMut::new());
        reply::write_connack(
            request.version,
            accepted,
            assigned,
            imposed_s,
            &self.limits,
            &mut outbox,
        );
        let session = Session {
            io,
            version: request.version,
            device: device.clone(),
            link,
            uplink: self.uplink.clone(),
            open: self.open.clone(),
            is_rooted: false,
            limits: self.limits.clone(),
            inbox,
            outbox,
            silence_max,
            receive_max: request.receive_max,
            client_packet_bytes_max: request.packet_bytes_max,
            taken_over: seat.taken_over.clone(),
            expelled: seat.expelled.clone(),
            shutdown: self.shutdown.clone(),
        };
        info!(tenant = device.tenant, edge = device.name, version = ?request.version, "MQTT client connected");
        metrics::gauge!("foodflow_mqtt_sessions").increment(1);
        let Ended { end, was_open } = session.run().await;
        metrics::gauge!("foodflow_mqtt_sessions").decrement(1);
        info!(
            tenant = device.tenant,
            edge = device.name,
            ?end,
            "MQTT client gone"
        );
        if let (Some(will), true) = (request.will, end.calls_for_will()) {
            self.deliver_will(device.clone(), will).await;
        }
        drop(seat);
        if was_open && !self.clients.is_seated(&device) {
            self.tell_gone(device).await;
        }
    }

    async fn refuse(&self, mut io: Box<dyn Stream>, version: Version, answer: ConnectAnswer) {
        let mut out = BytesMut::new();
        reply::write_connack(version, answer, None, None, &self.limits, &mut out);
        let answered = timeout(self.limits.write_timeout, io.write_all(&out)).await;
        if !matches!(answered, Ok(Ok(()))) {
            debug!("refused MQTT client did not wait for its answer");
        }
    }

    /// A will enters ingest like any publish of its device, but nobody is left to acknowledge it to. It is
    /// queued before anything of the client's next session, which waits for it, so the wait is short.
    async fn deliver_will(&self, device: Device, will: Will) {
        let (settled, _nobody_waits) = oneshot::channel();
        let Will { topic, payload, .. } = will;
        let taken = match &self.open {
            Some(open) if is_open_topic(&topic) => {
                let message = OpenMessage {
                    device,
                    topic,
                    payload,
                    is_retained: false,
                    settled,
                };
                let sent = timeout(WILL_TIMEOUT, open.send(Open::Message(message))).await;
                matches!(sent, Ok(Ok(())))
            }
            _ => {
                let message = Uplink {
                    device,
                    topic,
                    payload,
                    settled,
                };
                matches!(timeout(WILL_TIMEOUT, self.uplink.send(message)).await, Ok(Ok(())))
            }
        };
        if !taken {
            warn!("the will of a vanished MQTT client was not taken by ingest");
        }
    }

    /// What a device said over its connections ends with the last of them.
    async fn tell_gone(&self, device: Device) {
        if let Some(open) = &self.open
            && !matches!(
                timeout(WILL_TIMEOUT, open.send(Open::Gone(device))).await,
                Ok(Ok(()))
            )
        {
            debug!("nobody heard that an integrator's connection ended");
        }
    }
}

/// A user name as it may be logged: one that is no `TENANT/DEVICE` may be an access token.
fn shown(username: &str) -> &str {
    if username.contains('/') {
        username
    } else {
        "no TENANT/DEVICE"
    }
}

/// Decides a CONNECT once it is known who sent it.
fn judge(request: &ConnectRequest, device: Option<Device>, is_open: bool) -> Result<Device, ConnectAnswer> {
    let device = device.ok_or(ConnectAnswer::BadLogin)?;
    if request.client_id.is_empty() && !request.is_clean && request.version == Version::V4 {
        return Err(ConnectAnswer::BadClientId);
    }
    match &request.will {
        Some(will) if !(may_publish(&device, &will.topic) || is_open && is_open_topic(&will.topic)) => {
            Err(ConnectAnswer::NotAuthorized)
        }
        Some(will) if will.qos > 1 => Err(ConnectAnswer::QosNotSupported),
        _ => Ok(device),
    }
}

/// The silence we bear (1.5 × keep-alive) and the keep-alive to impose, where the client's does not do.
fn keep_alive(request: &ConnectRequest, limits: &Limits) -> (Duration, Option<u16>) {
    let asked = Duration::from_secs(u64::from(request.keep_alive_s));
    let fits = !asked.is_zero() && asked <= limits.keep_alive_max;
    let kept = if fits { asked } else { limits.keep_alive_max };
    let imposed_s = (!fits).then(|| u16::try_from(kept.as_secs()).unwrap_or(u16::MAX));
    (kept.mul_f64(1.5), imposed_s)
}
