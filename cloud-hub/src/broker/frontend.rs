//! Who may open a session, and how does a socket become one?
//! Accepts plain and TLS sockets, reads CONNECT within its time, authenticates, judges the will, lets a new
//! socket of a client take over from the old one, and delivers the will of a client that vanished.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

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
    session::{Ended, Session},
    tls::{self, Certified},
    uplinks::UplinkSender,
};

/// How long a new socket waits for the one it displaces; clients give up on a CONNACK after five seconds.
const HANDOVER_TIMEOUT: Duration = Duration::from_secs(2);
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

// === one seat a client ===

/// A client is its device and the client id it chose; another device's equal id is another client.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct ClientKey {
    device: Device,
    client_id: String,
}

/// Who sits where. Cloning it gives another handle on the same.
#[derive(Clone, Default)]
pub(super) struct Clients(Arc<Roster>);

#[derive(Default)]
struct Roster {
    seats: Mutex<Seats>,
    /// Counts what happens here, so that it is known what came first.
    counted: AtomicU64,
}

#[derive(Default)]
struct Seats {
    taken: HashMap<ClientKey, Occupant>,
    /// When a device was last expelled.
    expelled: HashMap<Device, u64>,
}

struct Occupant {
    number: u64,
    taken_over: CancellationToken,
    expelled: CancellationToken,
    gone: CancellationToken,
}

/// The right to be the one socket of a client; dropping it frees the seat.
struct Seat {
    key: ClientKey,
    number: u64,
    taken_over: CancellationToken,
    expelled: CancellationToken,
    gone: CancellationToken,
    clients: Clients,
}

impl Clients {
    /// From 1 on: 0 is the session of whoever is on a broker outside.
    fn next(&self) -> u64 {
        self.0.counted.fetch_add(1, Ordering::SeqCst) + 1
    }

    fn seats(&self) -> MutexGuard<'_, Seats> {
        self.0.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends every session of a device, and keeps out whoever was asked for credentials before this.
    pub(super) fn expel(&self, device: &Device) {
        let mut seats = self.seats();
        seats.expelled.insert(device.clone(), self.next());
        for (_, occupant) in seats.taken.iter().filter(|(key, _)| key.device == *device) {
            occupant.expelled.cancel();
        }
    }

    /// The devices that have a seat, each with its newest number.
    pub(super) fn connected(&self) -> HashMap<Device, u64> {
        let mut found = HashMap::new();
        for (key, occupant) in &self.seats().taken {
            let newest = found.entry(key.device.clone()).or_insert(occupant.number);
            *newest = occupant.number.max(*newest);
        }
        found
    }

    /// Whether a device has a seat.
    pub(super) fn is_seated(&self, device: &Device) -> bool {
        self.seats().taken.keys().any(|key| key.device == *device)
    }

    /// Takes the client's seat, and waits until the one who sat there has left its will. Refused when the device was
    /// expelled after its credentials were looked at, or has as many seats as it may have.
    async fn take(&self, key: ClientKey, asked: u64, limits: &Limits) -> Result<Seat, ConnectAnswer> {
        let number = self.next();
        let seat = Seat {
            key: key.clone(),
            number,
            taken_over: CancellationToken::new(),
            expelled: CancellationToken::new(),
            gone: CancellationToken::new(),
            clients: self.clone(),
        };
        let occupant = Occupant {
            number,
            taken_over: seat.taken_over.clone(),
            expelled: seat.expelled.clone(),
            gone: seat.gone.clone(),
        };
        let displaced = {
            let mut seats = self.seats();
            if seats.expelled.get(&key.device).is_some_and(|at| *at > asked) {
                // The seat is dropped after the lock that its end takes.
                drop(seats);
                return Err(ConnectAnswer::BadLogin);
            }
            if !seats.taken.contains_key(&key) && seats.is_full(&key.device, limits) {
                drop(seats);
                metrics::counter!("foodflow_mqtt_quota_refusals_total").increment(1);
                return Err(ConnectAnswer::Quota);
            }
            seats.taken.insert(key, occupant)
        };
        if let Some(displaced) = displaced {
            displaced.taken_over.cancel();
            if timeout(HANDOVER_TIMEOUT, displaced.gone.cancelled())
                .await
                .is_err()
            {
                warn!("a displaced MQTT session is slow to end");
            }
        }
        Ok(seat)
    }
}

impl Seats {
    /// Whether a device, or its tenant, has as many seats as it may have.
    fn is_full(&self, device: &Device, limits: &Limits) -> bool {
        let count =
            |is_its: &dyn Fn(&Device) -> bool| self.taken.keys().filter(|key| is_its(&key.device)).count();
        count(&|other| other == device) >= limits.device_sessions_max
            || count(&|other| other.tenant == device.tenant) >= limits.tenant_sessions_max
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut seats = self.clients.seats();
        let is_mine = |occupant: &Occupant| occupant.number == self.number;
        if seats.taken.get(&self.key).is_some_and(is_mine) {
            seats.taken.remove(&self.key);
        }
        self.gone.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> ClientKey {
        ClientKey {
            device: Device {
                tenant: "akron".to_owned(),
                name: name.to_owned(),
            },
            client_id: "c".to_owned(),
        }
    }

    #[tokio::test]
    async fn an_expelled_device_keeps_no_seat_and_gets_none_with_credentials_seen_before() {
        let clients = Clients::default();
        let limits = Limits::default();
        let take = |name: &str, asked| {
            let (clients, limits, key) = (clients.clone(), limits.clone(), key(name));
            async move { clients.take(key, asked, &limits).await }
        };
        let before = clients.next();
        let seat = take("e1", before).await.unwrap();
        let neighbour = take("e2", before).await.unwrap();
        clients.expel(&seat.key.device);
        assert!(seat.expelled.is_cancelled() && !neighbour.expelled.is_cancelled());
        assert!(take("e1", before).await.is_err());
        drop(seat);
        assert!(
            take("e1", clients.next()).await.is_ok(),
            "credentials that are good now are good"
        );
    }

    #[tokio::test]
    async fn a_device_has_as_many_seats_as_it_may_have_and_its_own_client_comes_back_at_any_time() {
        let (clients, limits) = (
            Clients::default(),
            Limits {
                device_sessions_max: 2,
                tenant_sessions_max: 3,
                ..Limits::default()
            },
        );
        let named = |device: &str, client: &str| ClientKey {
            client_id: client.to_owned(),
            ..key(device)
        };
        let one = clients
            .take(named("e1", "a"), clients.next(), &limits)
            .await
            .unwrap();
        let _two = clients
            .take(named("e1", "b"), clients.next(), &limits)
            .await
            .unwrap();
        let third = clients.take(named("e1", "c"), clients.next(), &limits).await;
        assert_eq!(third.err(), Some(ConnectAnswer::Quota));
        drop(one);
        let _again = clients
            .take(named("e1", "a"), clients.next(), &limits)
            .await
            .unwrap();
        let _other = clients
            .take(named("e2", "a"), clients.next(), &limits)
            .await
            .unwrap();
        let tenant = clients.take(named("e3", "a"), clients.next(), &limits).await;
        assert_eq!(
            tenant.err(),
            Some(ConnectAnswer::Quota),
            "the tenant's three are taken"
        );
        assert!(clients.is_seated(&key("e2").device) && !clients.is_seated(&key("e3").device));
    }
}
