//! Which client sits where? One socket a client, a newer one takes over from the older; as many clients as a device and a
//! tenant may have; and none with credentials that were looked at before its device was expelled.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{limits::Limits, reply::ConnectAnswer, rules::Device};

/// How long a new socket waits for the one it displaces; clients give up on a CONNACK after five seconds.
const HANDOVER_TIMEOUT: Duration = Duration::from_secs(2);

/// A client is its device and the client id it chose; another device's equal id is another client.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct ClientKey {
    pub(super) device: Device,
    pub(super) client_id: String,
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
pub(super) struct Seat {
    key: ClientKey,
    number: u64,
    pub(super) taken_over: CancellationToken,
    pub(super) expelled: CancellationToken,
    gone: CancellationToken,
    clients: Clients,
}

impl Clients {
    /// From 1 on: 0 is the session of whoever is on a broker outside.
    pub(super) fn next(&self) -> u64 {
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
    pub(super) async fn take(
        &self,
        key: ClientKey,
        asked: u64,
        limits: &Limits,
    ) -> Result<Seat, ConnectAnswer> {
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
