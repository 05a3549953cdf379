//! An edge's certificate opens the door in place of its password, for as long as the hub says, and a little longer.

use std::{sync::Arc, time::Duration};

use cloud_hub::{
    broker::ClientAuth,
    edges::authority::Issued,
    kernel::{clock::Clock, role::Role},
    tenant::enrolment,
};
use reqwest::Method;
use rumqttc::{
    TlsConfiguration, Transport,
    v5::{AsyncClient, MqttOptions},
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{
    client::Caller,
    support::{TestHub, akron},
};

struct World {
    hub: TestHub,
    authority_pem: String,
    key: rcgen::KeyPair,
}

impl World {
    /// A hub that speaks TLS under a certificate of its own.
    async fn start(client_auth: ClientAuth) -> Self {
        // An error says that one is installed already.
        drop(rustls::crypto::ring::default_provider().install_default());
        let dir = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let (cert, key) = (dir.path().join("hub.pem"), dir.path().join("hub.key"));
        std::fs::write(&cert, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        let hub = TestHub::start_with(|config| {
            config.mqtt.tls_listen = Some("127.0.0.1:0".parse().unwrap());
            config.mqtt.cert_file = Some(cert.clone());
            config.mqtt.key_file = Some(key);
            config.mqtt.ca_file = Some(cert);
            config.mqtt.tls_client_auth = client_auth;
        })
        .await;
        // The broker has read them; whoever enrols reads the authority's file again.
        std::mem::forget(dir);
        Self {
            hub,
            authority_pem: made.cert.pem(),
            key: rcgen::KeyPair::generate().unwrap(),
        }
    }

    fn csr(&self) -> String {
        let params = rcgen::CertificateParams::default();
        params.serialize_request(&self.key).unwrap().pem().unwrap()
    }

    async fn enrol(&self, edge: &str) -> Value {
        let now = Clock::system().now();
        let code = enrolment::create_code(&self.hub.db, &akron(), edge, now)
            .await
            .unwrap();
        let anonymous = Caller::anonymous(&self.hub);
        let bad = json!({ "code": code, "csr_pem": "nonsense" });
        let said = anonymous.post("/edges/enroll", bad).await.problem(400);
        assert!(said.contains("PKCS #10"), "{said}");
        let asked = json!({ "code": code, "csr_pem": self.csr() });
        anonymous.post("/edges/enroll", asked).await.ok()
    }

    /// Whether the hub lets a client in that shows this certificate, or this user name and password, or both.
    async fn lets_in(&self, chain_pem: Option<&str>, login: Option<(&str, &str)>) -> bool {
        let address = self.hub.hub.mqtt_tls.unwrap();
        let mut roots = rustls::RootCertStore::empty();
        let own = CertificateDer::from_pem_slice(self.authority_pem.as_bytes()).unwrap();
        roots.add(own).unwrap();
        let config = rustls::ClientConfig::builder().with_root_certificates(roots);
        let config = match chain_pem {
            None => config.with_no_client_auth(),
            Some(pem) => {
                let chain = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>();
                let key = PrivateKeyDer::from_pem_slice(self.key.serialize_pem().as_bytes()).unwrap();
                config.with_client_auth_cert(chain.unwrap(), key).unwrap()
            }
        };
        let mut options = MqttOptions::new("client", "localhost", address.port());
        options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(Arc::new(
            config,
        ))));
        if let Some((user, password)) = login {
            options.set_credentials(user, password);
        }
        let (_client, mut events) = AsyncClient::new(options, 4);
        let first = timeout(Duration::from_secs(20), events.poll()).await;
        first.expect("an answer in time").is_ok()
    }

    /// A certificate that was signed some days ago and noted as such.
    async fn signed(&self, edge: &str, days_ago: i64) -> Issued {
        let then = Clock::system().now() - chrono::Duration::days(days_ago);
        let authority = &self.hub.hub.app.device_authority;
        let issued = authority.sign(&self.csr(), ("akron", edge), then).unwrap();
        let mut tx = self.hub.db.begin(&akron()).await.unwrap();
        sqlx::query(
            "INSERT INTO edge_certificate (id, edge_id, serial, fingerprint, not_before, not_after, issued_at) \
             SELECT gen_random_uuid(), id, $2, $3, $4, $5, $4 FROM edge WHERE name = $1",
        )
        .bind(edge)
        .bind(&issued.serial)
        .bind(&issued.fingerprint)
        .bind(issued.not_before)
        .bind(issued.not_after)
        .execute(tx.conn())
        .await
        .unwrap();
        tx.commit_unaudited("a test's certificate").await.unwrap();
        issued
    }
}

#[tokio::test]
async fn a_certificate_takes_the_place_of_the_password_until_it_is_revoked() {
    let world = World::start(ClientAuth::Optional).await;
    let identity = world.enrol("e1").await;
    let text = |field: &str| identity[field].as_str().unwrap().to_owned();
    let (chain, user, password) = (
        text("certificate_pem"),
        text("mqtt_username"),
        text("mqtt_password"),
    );
    assert_eq!(text("mqtt_ca_pem"), world.authority_pem);
    assert!(chain.ends_with(&text("device_ca_pem")));
    assert!(world.lets_in(Some(&chain), None).await, "without any password");
    assert!(
        world.lets_in(Some(&chain), Some((&user, "guess"))).await,
        "the certificate decides"
    );
    assert!(
        !world.lets_in(Some(&chain), Some(("akron/e2", &password))).await,
        "not for another edge"
    );
    assert!(world.lets_in(None, Some((&user, &password))).await);
    assert!(!world.lets_in(None, None).await);
    let admin = Caller::with_role(&world.hub, Role::Admin).await;
    let shown = admin.items("/edges").await;
    let edge = shown.iter().find(|edge| edge["name"] == "e1").unwrap();
    assert!(edge["certificate_until_us"].is_i64() && edge["commands_open"] == 0);
    admin.send(Method::POST, "/edges/e1/revoke", None).await;
    assert!(!world.lets_in(Some(&chain), None).await, "revoked");
    let again = world.enrol("e1").await;
    assert!(!world.lets_in(Some(&chain), None).await, "the old one stays dead");
    assert!(
        world
            .lets_in(Some(again["certificate_pem"].as_str().unwrap()), None)
            .await
    );
}

#[tokio::test]
async fn t11_a_certificate_that_ran_out_lately_still_connects_to_be_renewed() {
    let world = World::start(ClientAuth::Optional).await;
    let identity = world.enrol("e1").await;
    // Good for 90 days, and for 30 more to be renewed.
    assert!(
        world
            .lets_in(Some(&world.signed("e1", 100).await.chain_pem), None)
            .await
    );
    let (user, password) = (&identity["mqtt_username"], &identity["mqtt_password"]);
    let login = (user.as_str().unwrap(), password.as_str().unwrap());
    let old = world.signed("e1", 130).await;
    assert!(
        !world.lets_in(Some(&old.chain_pem), Some(login)).await,
        "too long ago"
    );
    assert!(
        world.lets_in(None, Some(login)).await,
        "the password is the way in then"
    );
}

#[tokio::test]
async fn where_a_certificate_is_required_a_password_alone_is_none() {
    let world = World::start(ClientAuth::Required).await;
    let identity = world.enrol("e1").await;
    let login = (
        identity["mqtt_username"].as_str().unwrap(),
        identity["mqtt_password"].as_str().unwrap(),
    );
    assert!(!world.lets_in(None, Some(login)).await);
    assert!(
        world
            .lets_in(Some(identity["certificate_pem"].as_str().unwrap()), None)
            .await
    );
}

#[tokio::test]
async fn a_certificate_of_another_authority_or_that_nobody_noted_opens_nothing() {
    let world = World::start(ClientAuth::Optional).await;
    world.enrol("e1").await;
    let now = Clock::system().now();
    let authority = &world.hub.hub.app.device_authority;
    let unknown = authority.sign(&world.csr(), ("akron", "e1"), now).unwrap();
    assert!(
        !world.lets_in(Some(&unknown.chain_pem), None).await,
        "not in the list of certificates"
    );
    let elsewhere = tempfile::tempdir().unwrap();
    let other = cloud_hub::edges::authority::DeviceAuthority::load_or_create(elsewhere.path(), now).unwrap();
    let forged = other.sign(&world.csr(), ("akron", "e1"), now).unwrap();
    assert!(!world.lets_in(Some(&forged.chain_pem), None).await);
}
