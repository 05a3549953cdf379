//! Who does a TLS client say it is? Certificates of the hub's own device authority name a tenant and an edge; one that
//! has run out a while ago still opens the connection on which it is renewed.

use std::{sync::Arc, time::Duration};

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject},
    server::{
        WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use sha2::{Digest, Sha256};
use tokio_rustls::TlsAcceptor;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::{BrokerError, Device, TlsListener};

/// What a device's certificate is worth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientAuth {
    /// It is not asked for.
    Off,
    /// It takes the place of the password.
    #[default]
    Optional,
    /// Nobody gets in without one.
    Required,
}

/// How devices prove who they are by certificate.
#[derive(Clone, Debug)]
pub struct DeviceCertificates {
    /// Whether they must.
    pub client_auth: ClientAuth,
    /// The authority that signs them, PEM.
    pub authority_pem: String,
    /// How long after its end a certificate still connects, so that it can be renewed.
    pub expired_grace: Duration,
    /// What every name of a device begins with, before `TENANT/EDGE`.
    pub name_prefix: &'static str,
}

/// A device by its certificate. The signature was checked; whether it was revoked was not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certified {
    /// Whom it names.
    pub device: Device,
    /// SHA-256 of the certificate (DER).
    pub fingerprint: [u8; 32],
    /// End of its validity, seconds since 1970.
    pub not_after_s: i64,
}

/// Reads whom a certificate names; none when it names nobody in the way of the device authority.
pub(super) fn certified(certificate: &CertificateDer<'_>, name_prefix: &str) -> Option<Certified> {
    let (_, read) = X509Certificate::from_der(certificate).ok()?;
    let names = read.subject_alternative_name().ok()??;
    let name = names.value.general_names.iter().find_map(|name| match name {
        GeneralName::URI(uri) => uri.strip_prefix(name_prefix),
        _ => None,
    })?;
    let (tenant, edge) = name.split_once('/')?;
    let device = Device {
        tenant: tenant.to_owned(),
        name: edge.to_owned(),
    };
    device.is_addressable().then(|| Certified {
        device,
        fingerprint: Sha256::digest(certificate).into(),
        not_after_s: read.validity().not_after.timestamp(),
    })
}

/// A TLS server of the listener's files that asks for certificates as it says.
pub(super) fn acceptor(tls: &TlsListener) -> Result<TlsAcceptor, BrokerError> {
    let unusable = |path: &std::path::PathBuf| {
        let path = path.clone();
        move |source| BrokerError::TlsFile { path, source }
    };
    let certificates = CertificateDer::pem_file_iter(&tls.cert_file).map_err(unusable(&tls.cert_file))?;
    let chain = certificates
        .collect::<Result<Vec<_>, _>>()
        .map_err(unusable(&tls.cert_file))?;
    let key = PrivateKeyDer::from_pem_file(&tls.key_file).map_err(unusable(&tls.key_file))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?;
    let asked = tls
        .devices
        .as_ref()
        .filter(|it| it.client_auth != ClientAuth::Off);
    let config = match asked {
        None => config.with_no_client_auth(),
        Some(devices) => config.with_client_cert_verifier(verifier(devices, provider)?),
    };
    Ok(TlsAcceptor::from(Arc::new(config.with_single_cert(chain, key)?)))
}

fn verifier(
    devices: &DeviceCertificates,
    provider: Arc<rustls::crypto::CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, BrokerError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(devices.authority_pem.as_bytes()) {
        let certificate = certificate.map_err(|_| rustls::Error::NoCertificatesPresented)?;
        roots.add(certificate)?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let builder = if devices.client_auth == ClientAuth::Required {
        builder
    } else {
        builder.allow_unauthenticated()
    };
    let inner = builder
        .build()
        .map_err(|error| rustls::Error::General(error.to_string()))?;
    Ok(Arc::new(Lenient {
        inner,
        grace: devices.expired_grace,
    }))
}

/// As the usual verifier, but for certificates that ran out no longer than `grace` ago.
#[derive(Debug)]
struct Lenient {
    inner: Arc<dyn ClientCertVerifier>,
    grace: Duration,
}

impl Lenient {
    /// A moment at which the certificate was good, when it ran out within the grace.
    fn good_moment(&self, certificate: &CertificateDer<'_>, now: UnixTime) -> Option<UnixTime> {
        let (_, read) = X509Certificate::from_der(certificate).ok()?;
        let end_s = u64::try_from(read.validity().not_after.timestamp()).ok()?;
        let is_within = now.as_secs().checked_sub(end_s)? <= self.grace.as_secs();
        is_within.then(|| UnixTime::since_unix_epoch(Duration::from_secs(end_s.saturating_sub(1))))
    }
}

impl ClientCertVerifier for Lenient {
    fn offer_client_auth(&self) -> bool {
        self.inner.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.inner.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        match self.inner.verify_client_cert(end_entity, intermediates, now) {
            Err(
                expired @ rustls::Error::InvalidCertificate(
                    CertificateError::Expired | CertificateError::ExpiredContext { .. },
                ),
            ) => match self.good_moment(end_entity, now) {
                Some(then) => self.inner.verify_client_cert(end_entity, intermediates, then),
                None => Err(expired),
            },
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
