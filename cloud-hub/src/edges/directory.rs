//! Is this MQTT client an edge we know? Asked at every connection; while the database is away, an edge that was
//! known before is still known, so that a restart of the database does not look like a wrong password.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use futures_util::{FutureExt, future::BoxFuture};

use crate::{
    broker::{Authenticate, Certified, Device},
    kernel::{clock::Clock, hex::hex, secret, tenancy::Db},
    tenant::enrolment,
};

/// Edges remembered for the time without a database.
const REMEMBERED_MAX: usize = 100_000;

/// Digest of the last good password, or of the certificate, and whose it is.
type Known = ([u8; 32], Device);

/// Authenticates edges against the registry.
#[derive(Debug, Clone)]
pub struct EdgeDirectory {
    db: Db,
    /// By user name, by [`certificate_key`], and by the digest of an access token.
    remembered: Arc<Mutex<HashMap<String, Known>>>,
}

impl EdgeDirectory {
    /// A directory that asks `db`.
    pub fn new(db: Db) -> Self {
        Self {
            db,
            remembered: Arc::default(),
        }
    }

    async fn look_up_certificate(self, certified: Certified) -> Option<Device> {
        let Certified {
            device,
            fingerprint,
            not_after_s,
        } = certified;
        let key = certificate_key(&device);
        let names = (device.tenant.as_str(), device.name.as_str());
        let found = enrolment::is_certified(&self.db, names, &hex(&fingerprint)).await;
        let known = match found {
            Ok(is_good) => {
                let device = is_good.then_some(device);
                self.remember(key, fingerprint, device.clone());
                device
            }
            Err(error) => {
                tracing::warn!(%error, edge = device.name, "certificates cannot be asked for; using what is remembered");
                self.recall(&key, fingerprint)
            }
        };
        if let Some(device) = known
            .as_ref()
            .filter(|_| not_after_s < Clock::system().now().timestamp())
        {
            metrics::counter!("foodflow_mqtt_expired_certificates_total").increment(1);
            tracing::warn!(
                tenant = device.tenant,
                edge = device.name,
                "let in with a certificate that has run out"
            );
        }
        known
    }

    /// A user name without a password is an access token.
    async fn look_up_token(self, token: String) -> Option<Device> {
        let digest = secret::digest(&token);
        let key = format!("token {}", hex(&digest));
        match enrolment::authenticate_token(&self.db, &token).await {
            Ok(found) => {
                let device = found.map(|(tenant, name)| Device { tenant, name });
                self.remember(key, digest, device.clone());
                device
            }
            Err(error) => {
                tracing::warn!(%error, "edge registry cannot be asked for a token; using what is remembered");
                self.recall(&key, digest)
            }
        }
    }

    async fn look_up(self, username: String, password: Vec<u8>) -> Option<Device> {
        let password = String::from_utf8(password).ok()?;
        let digest = secret::digest(&password);
        match enrolment::authenticate(&self.db, &username, &password).await {
            Ok(found) => {
                let device = found.map(|(tenant, name)| Device { tenant, name });
                self.remember(username, digest, device.clone());
                device
            }
            Err(error) => {
                tracing::warn!(%error, user = username, "edge registry cannot be asked; using what is remembered");
                self.recall(&username, digest)
            }
        }
    }

    fn remember(&self, username: String, digest: [u8; 32], device: Option<Device>) {
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        match device {
            Some(device) if remembered.len() < REMEMBERED_MAX => {
                remembered.insert(username, (digest, device));
            }
            Some(_) => {}
            // Refused now: this very password must not be recalled later; another one may still be good.
            None => {
                if remembered
                    .get(&username)
                    .is_some_and(|(known, _)| *known == digest)
                {
                    remembered.remove(&username);
                }
            }
        }
    }

    /// Forgets an edge whose credentials were taken away.
    pub fn forget(&self, device: &Device) {
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        remembered.retain(|_, (_, known)| known != device);
    }

    fn recall(&self, username: &str, digest: [u8; 32]) -> Option<Device> {
        let remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        remembered
            .get(username)
            .filter(|(known, _)| *known == digest)
            .map(|(_, device)| device.clone())
    }
}

/// No user name has a space.
fn certificate_key(device: &Device) -> String {
    format!("certificate {}/{}", device.tenant, device.name)
}

impl Authenticate for EdgeDirectory {
    fn authenticate(&self, username: String, password: Vec<u8>) -> BoxFuture<'static, Option<Device>> {
        if password.is_empty() && !username.contains('/') {
            self.clone().look_up_token(username).boxed()
        } else {
            self.clone().look_up(username, password).boxed()
        }
    }

    fn certify(&self, certified: Certified) -> BoxFuture<'static, Option<Device>> {
        self.clone().look_up_certificate(certified).boxed()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn without_a_database_only_a_remembered_password_is_good() {
        let nowhere = "postgres://nobody@127.0.0.1:1/none".parse().unwrap();
        let directory = EdgeDirectory::new(Db::new(nowhere, 1, Duration::from_millis(200)));
        let device = Device {
            tenant: "akron".to_owned(),
            name: "akron-1".to_owned(),
        };
        let username = "akron/akron-1".to_owned();
        directory.remember(username.clone(), secret::digest("right"), Some(device.clone()));
        let ask = |password: &str| directory.authenticate(username.clone(), password.as_bytes().to_vec());
        assert_eq!(ask("wrong").await, None);
        assert_eq!(ask("right").await, Some(device));
        directory.remember(username.clone(), secret::digest("right"), None);
        assert_eq!(ask("right").await, None, "revoked while the database was there");
    }
}
