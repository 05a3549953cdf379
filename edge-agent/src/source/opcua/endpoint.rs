//! By which door is a server entered? Picks the endpoint of the configured security, judges the server's certificate
//! before anything is sent to it, and makes ready who the agent says it is.

use std::time::Duration;

use opcua::{
    client::{Client, IdentityToken, Password},
    crypto::SecurityPolicy,
    types::{EndpointDescription, MessageSecurityMode, UserTokenPolicy, UserTokenType},
};

use super::{
    client::{self, Manner, failure},
    config::Server,
    pki::{self, Pki, Refusal},
    security::{Identity, Mode, Policy, Security},
};
use crate::{clock, source::error::SourceError};

const ENDPOINTS_WITHIN: Duration = Duration::from_secs(10);

/// Where and as whom to connect.
#[derive(Debug)]
pub struct Approach {
    /// The endpoint, with the certificate that was judged.
    pub endpoint: EndpointDescription,
    /// Who the agent says it is.
    pub identity: IdentityToken,
}

/// Why there is no session.
#[derive(Debug)]
pub enum Ended {
    /// The server's certificate is not accepted.
    Refused(Refusal),
    /// Anything else.
    Lost(SourceError),
}

impl From<SourceError> for Ended {
    fn from(error: SourceError) -> Self {
        Self::Lost(error)
    }
}

/// An error with its causes in one line.
pub fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Finds the endpoint and judges its certificate. A server without security and without a user is entered as it stands.
///
/// # Errors
/// [`Ended::Refused`] when the certificate is not the accepted one; [`Ended::Lost`] when the server cannot be asked or has
/// no such endpoint, or when a file of the identity cannot be read.
pub async fn approach(server: &Server, pki: &Pki) -> Result<Approach, Ended> {
    if !server.security.is_on() && server.identity == Identity::Anonymous {
        let endpoint = (
            server.url.as_str(),
            "None",
            MessageSecurityMode::None,
            UserTokenPolicy::anonymous(),
        );
        return Ok(Approach {
            endpoint: endpoint.into(),
            identity: IdentityToken::Anonymous,
        });
    }
    if server.security.is_on() {
        let own = pki.clone();
        tokio::task::spawn_blocking(move || own.ensure_own())
            .await
            .map_err(|error| failure("certificate store", &error.to_string()))?
            .map_err(|error| failure("certificate store", &causes(&error)))?;
    }
    let mut endpoint = find(server, pki).await?;
    if server.security.is_on() {
        accept(server, pki, endpoint.server_certificate.as_ref())?;
    }
    choose_token_policy(server, &mut endpoint)?;
    Ok(Approach {
        endpoint,
        identity: identity(&server.identity)?,
    })
}

/// Judges a certificate and keeps it for people to look at when it is refused.
fn accept(server: &Server, pki: &Pki, shown: &[u8]) -> Result<(), Ended> {
    let store = |error: pki::PkiError| failure("certificate store", &causes(&error));
    let trusted = pki.trusted(&server.name).map_err(store)?;
    match pki::judge(shown, trusted.as_deref(), clock::now_us()) {
        Ok(_) => Ok(()),
        Err(refusal) => {
            pki.reject(&server.name, shown).map_err(store)?;
            Err(Ended::Refused(refusal))
        }
    }
}

/// Asks the server for its endpoints and takes the one of the configured security.
///
/// # Errors
/// When the server does not answer in time, or has no such endpoint; the error names those it has.
pub async fn find(server: &Server, pki: &Pki) -> Result<EndpointDescription, SourceError> {
    let mut plain = server.clone();
    plain.security = Security::default();
    let client = client::client(pki, &plain, Manner::default())?;
    let asked = client.get_server_endpoints_from_url(server.url.as_str());
    let endpoints = tokio::time::timeout(ENDPOINTS_WITHIN, asked)
        .await
        .map_err(|_| SourceError::Timeout {
            address: server.url.clone(),
            limit: ENDPOINTS_WITHIN,
        })?
        .map_err(|error| failure("GetEndpoints", &error.status().to_string()))?;
    let (policy, mode) = wanted(server.security);
    let found = Client::find_matching_endpoint(&endpoints, &server.url, policy, mode)
        .or_else(|| any_path(&endpoints, server, policy, mode));
    found.ok_or_else(|| {
        let offered: Vec<String> = endpoints
            .iter()
            .map(|endpoint| {
                let uri = endpoint.security_policy_uri.as_ref();
                let policy = uri.rsplit_once('#').map_or(uri, |(_, name)| name);
                format!("{policy} {:?}", endpoint.security_mode)
            })
            .collect();
        failure(
            "GetEndpoints",
            &format!(
                "the server offers no endpoint with {}; it offers {}",
                server.security.policy.name(),
                offered.join(", ")
            ),
        )
    })
}

/// Servers behind gateways list endpoints under other hosts and paths; what was configured is what can be reached.
fn any_path(
    endpoints: &[EndpointDescription],
    server: &Server,
    policy: SecurityPolicy,
    mode: MessageSecurityMode,
) -> Option<EndpointDescription> {
    let mut found = endpoints
        .iter()
        .find(|endpoint| {
            endpoint.security_mode == mode
                && SecurityPolicy::from_uri(endpoint.security_policy_uri.as_ref()) == policy
        })?
        .clone();
    found.endpoint_url = server.url.as_str().into();
    Some(found)
}

fn wanted(security: Security) -> (SecurityPolicy, MessageSecurityMode) {
    let policy = match security.policy {
        Policy::None => return (SecurityPolicy::None, MessageSecurityMode::None),
        Policy::Basic256Sha256 => SecurityPolicy::Basic256Sha256,
        Policy::Aes128Sha256RsaOaep => SecurityPolicy::Aes128Sha256RsaOaep,
        Policy::Aes256Sha256RsaPss => SecurityPolicy::Aes256Sha256RsaPss,
        Policy::Basic256 => SecurityPolicy::Basic256,
        Policy::Basic128Rsa15 => SecurityPolicy::Basic128Rsa15,
    };
    let mode = match security.mode {
        Mode::Sign => MessageSecurityMode::Sign,
        Mode::SignAndEncrypt => MessageSecurityMode::SignAndEncrypt,
    };
    (policy, mode)
}

/// Leaves one token policy of the identity's kind, the one that encrypts where there is a choice: the library takes the
/// first. An empty policy means the channel's (Part 4 §7.42), which the library does not know for certificates.
fn choose_token_policy(server: &Server, endpoint: &mut EndpointDescription) -> Result<(), SourceError> {
    let kind = match server.identity {
        Identity::Anonymous => UserTokenType::Anonymous,
        Identity::User { .. } => UserTokenType::UserName,
        Identity::Certificate { .. } => UserTokenType::Certificate,
    };
    let offered = endpoint.user_identity_tokens.take().unwrap_or_default();
    let of_kind = offered.into_iter().filter(|policy| policy.token_type == kind);
    let strength = |policy: &UserTokenPolicy| {
        let uri = policy.security_policy_uri.as_ref();
        match SecurityPolicy::from_uri(uri) {
            SecurityPolicy::Unknown if !uri.is_empty() => 0,
            SecurityPolicy::Basic128Rsa15 | SecurityPolicy::Basic256 => 1,
            SecurityPolicy::None => 2,
            SecurityPolicy::Unknown => 3,
            _ => 4,
        }
    };
    let Some(mut best) = of_kind.max_by_key(strength) else {
        return Err(failure(
            "GetEndpoints",
            &format!(
                "the endpoint takes no identity of the kind {kind:?}; ask the server's administrator for one that it takes"
            ),
        ));
    };
    if kind == UserTokenType::Certificate && best.security_policy_uri.is_empty() {
        best.security_policy_uri = endpoint.security_policy_uri.clone();
    }
    endpoint.user_identity_tokens = Some(vec![best]);
    Ok(())
}

fn identity(identity: &Identity) -> Result<IdentityToken, SourceError> {
    match identity {
        Identity::Anonymous => Ok(IdentityToken::Anonymous),
        Identity::User { name, password } => {
            let password = password
                .read()
                .map_err(|error| failure("reading the password", &error.to_string()))?;
            Ok(IdentityToken::new_user_name(name, Password(password)))
        }
        Identity::Certificate {
            certificate_file,
            key_file,
        } => IdentityToken::new_x509_path(certificate_file, key_file)
            .map_err(|error| failure("reading the identity's certificate", &error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user_policy(id: &str, uri: &str) -> UserTokenPolicy {
        UserTokenPolicy {
            policy_id: id.into(),
            token_type: UserTokenType::UserName,
            security_policy_uri: uri.into(),
            ..UserTokenPolicy::anonymous()
        }
    }

    #[test]
    fn the_token_policy_that_encrypts_is_taken_where_there_is_a_choice() {
        let mut server = Server::plain("opc.tcp://h:1/");
        server.identity = Identity::User {
            name: "u".to_owned(),
            password: super::super::security::PasswordFrom::Variable("X".to_owned()),
        };
        let mut endpoint = EndpointDescription::from("opc.tcp://h:1/");
        endpoint.user_identity_tokens = Some(vec![
            UserTokenPolicy::anonymous(),
            user_policy("plain", SecurityPolicy::None.to_uri()),
            user_policy("sealed", SecurityPolicy::Basic256Sha256.to_uri()),
            user_policy("old", SecurityPolicy::Basic128Rsa15.to_uri()),
        ]);
        choose_token_policy(&server, &mut endpoint).unwrap();
        let left = endpoint.user_identity_tokens.unwrap();
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].policy_id.as_ref(), "sealed");
    }

    #[test]
    fn an_identity_that_the_server_does_not_take_is_an_error_that_names_its_kind() {
        let server = Server::plain("opc.tcp://h:1/");
        let mut endpoint = EndpointDescription::from("opc.tcp://h:1/");
        endpoint.user_identity_tokens = Some(vec![user_policy("plain", "")]);
        let error = choose_token_policy(&server, &mut endpoint).unwrap_err();
        assert!(error.to_string().contains("Anonymous"), "{error}");
    }
}
