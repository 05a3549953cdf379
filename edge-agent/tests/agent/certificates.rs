//! Does an edge whose certificate expired go on, and get a new one, over real TLS?

use std::{path::Path, sync::Arc};

use edge_agent::fleet::certificate;
use protocol::{
    command::{Command, CommandOutcome, Order},
    event::Event,
};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, date_time_ymd,
};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    server::WebPkiClientVerifier,
};
use tokio_rustls::TlsAcceptor;
use uuid::Uuid;

use crate::support::{
    edge::{Edge, count, device, head},
    hub::{Hub, Policy, Stored},
    plc::{Behaviour, Plc},
};

const NAME: &str = "akron/akron-1";
/// 2020-01-02, when the expired certificate was good.
const THEN_US: i64 = 1_577_923_200_000_000;

/// The hub's authority: it signs its own server certificate and the edges'.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "test authority");
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    fn sign(&self, csr_pem: &str, years: (i32, i32)) -> String {
        let mut request = CertificateSigningRequestParams::from_pem(csr_pem).unwrap();
        request.params.distinguished_name.push(DnType::CommonName, NAME);
        request.params.not_before = date_time_ymd(years.0, 1, 1);
        request.params.not_after = date_time_ymd(years.1, 1, 1);
        request.params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        request.signed_by(&self.issuer).unwrap().pem()
    }

    /// Asks for certificates, takes edges without; an expired one is refused in the handshake.
    fn acceptor(&self) -> TlsAcceptor {
        drop(rustls::crypto::ring::default_provider().install_default());
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let mut roots = RootCertStore::empty();
        let authority = x509_parser::pem::parse_x509_pem(self.pem.as_bytes()).unwrap().1;
        roots.add(authority.contents.into()).unwrap();
        let verifier = WebPkiClientVerifier::builder(Arc::new(roots))
            .allow_unauthenticated()
            .build()
            .unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder()
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}

fn config(directory: &Path, hub: &Hub, plc: &Plc, authority: &Authority) -> String {
    let ca_file = directory.join("ca.pem");
    std::fs::write(&ca_file, &authority.pem).unwrap();
    let hub_line = format!("mqtt = \"{}\"", hub.address);
    let with_ca = format!("{hub_line}\nca_file = \"{}\"", ca_file.display());
    head(Some(hub.address)).replace(&hub_line, &with_ca) + &device("plc", plc.address, "100ms", "800ms", &[0])
}

fn request(stored: &Stored) -> Option<String> {
    stored.events().into_iter().find_map(|event| match event {
        Event::CertificateRequest(request) => Some(request.csr_pem),
        _ => None,
    })
}

#[tokio::test]
async fn t11_an_expired_certificate_stops_nothing_and_is_renewed_on_return() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let plc = Plc::start(Behaviour::default()).await;
    let hub = Hub::start_with(Policy::RefuseConnection, Some(authority.acceptor())).await;
    let data_dir = directory.path().join("data");
    let csr = certificate::request(&data_dir, NAME).unwrap();
    certificate::install(&data_dir, &authority.sign(&csr, (2020, 2021)), NAME, THEN_US).unwrap();
    let edge = Edge::start(
        directory.path(),
        &config(directory.path(), &hub, &plc, &authority),
    )
    .await;
    // Away and expired: acquired and kept.
    let status = edge
        .until("a backlog and an expired certificate", |status| {
            count(&status["backlog_readings"]) >= 10 && status["uplink"]["certificate"].is_object()
        })
        .await;
    assert_eq!(status["uplink"]["certificate"]["subject"], format!("CN={NAME}"));
    assert!(edge.page("/").await.contains("expired"));
    assert!(
        edge.page("/metrics")
            .await
            .contains("foodflow_edge_certificate_expires_seconds 1609459200")
    );
    let waited = count(&status["spooled"]) as usize;
    assert!(request(&hub.stored.lock().unwrap()).is_none());
    // Back: by password, and the next certificate is asked for.
    hub.set_policy(Policy::Store);
    hub.until("a request", |stored| request(stored).is_some()).await;
    hub.until("the backlog", |stored| stored.readings() >= waited)
        .await;
    let csr = request(&hub.stored.lock().unwrap()).unwrap();
    let id = Uuid::from_u128(1);
    hub.command(Command {
        id,
        issued_us: 0,
        expires_us: None,
        by: "hub".to_owned(),
        order: Order::Certificate {
            chain_pem: authority.sign(&csr, (2026, 2100)),
        },
    });
    assert_eq!(hub.answer(id).await, CommandOutcome::Done);
    assert_eq!(hub.stored.lock().unwrap().certificates.last(), Some(&false));
    // The next connection is made with it.
    hub.cut();
    hub.until("a certificate", |stored| {
        stored.certificates.last() == Some(&true)
    })
    .await;
    edge.until("the new certificate", |status| {
        status["uplink"]["signs_in_with"] == "certificate" && status["uplink"]["state"] == "online"
    })
    .await;
}
