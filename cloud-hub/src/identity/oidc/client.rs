//! What does an identity provider say? Its description and keys, kept for ten minutes; a code exchanged for an ID
//! token that is verified (issuer, audience, nonce, age, signature); and whom that token is about.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use openidconnect::{
    AdditionalClaims, AuthType, AuthenticationFlow, AuthorizationCode, ClaimsVerificationError, ClientId,
    ClientSecret, CsrfToken, DiscoveryError, EmptyExtraTokenFields, EndpointMaybeSet, EndpointNotSet,
    EndpointSet, IdTokenClaims, IdTokenFields, IssuerUrl, Nonce, OAuth2TokenResponse as _, PkceCodeChallenge,
    PkceCodeVerifier, ProviderMetadataWithLogout, RedirectUrl, RequestTokenError, Scope,
    SignatureVerificationError, StandardErrorResponse, StandardTokenResponse, SubjectIdentifier,
    TokenResponse as _, UserInfoClaims,
    core::{
        CoreAuthDisplay, CoreAuthPrompt, CoreClientAuthMethod, CoreErrorResponseType, CoreGenderClaim,
        CoreJsonWebKey, CoreJweContentEncryptionAlgorithm, CoreJwsSigningAlgorithm, CoreResponseType,
        CoreRevocableToken, CoreRevocationErrorResponse, CoreTokenIntrospectionResponse, CoreTokenType,
    },
    url::Url,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::http::{Http, HttpError};
use crate::{
    config::Oidc,
    error::Error,
    identity::address::Address,
    kernel::{clock::Clock, secret::Secret},
};

/// How long a description and its keys are taken as they were read.
const FRESH: Duration = Duration::from_mins(10);
/// Keys are read again for a token whose key is not known, but not more often than this.
const KEYS_FRESH: Duration = Duration::from_mins(1);
/// Providers remembered; beyond this all are read anew.
const KNOWN_MAX: usize = 1000;

type Metadata = ProviderMetadataWithLogout;
type Claims = IdTokenClaims<Extra, CoreGenderClaim>;
type Fields = IdTokenFields<
    Extra,
    EmptyExtraTokenFields,
    CoreGenderClaim,
    CoreJweContentEncryptionAlgorithm,
    CoreJwsSigningAlgorithm,
>;
type Tokens = StandardTokenResponse<Fields, CoreTokenType>;
type RelyingParty = openidconnect::Client<
    Extra,
    CoreAuthDisplay,
    CoreGenderClaim,
    CoreJweContentEncryptionAlgorithm,
    CoreJsonWebKey,
    CoreAuthPrompt,
    StandardErrorResponse<CoreErrorResponseType>,
    Tokens,
    CoreTokenIntrospectionResponse,
    CoreRevocableToken,
    CoreRevocationErrorResponse,
    EndpointSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointMaybeSet,
    EndpointMaybeSet,
>;

/// What a provider says beyond the standard claims.
#[derive(Debug, Serialize, Deserialize)]
struct Extra {
    #[serde(flatten)]
    claims: Map<String, Value>,
}

impl AdditionalClaims for Extra {}

/// Why a provider is of no use. Its words never quote what a person or a token said.
#[derive(Debug, thiserror::Error)]
pub(in crate::identity) enum ProviderError {
    /// It can never work as configured.
    #[error("{0}")]
    Impossible(String),
    /// It does not answer, or not as a provider does.
    #[error("{0}")]
    Away(&'static str),
    /// It does not vouch for anybody.
    #[error("{0}")]
    Refused(&'static str),
}

impl From<ProviderError> for Error {
    fn from(error: ProviderError) -> Self {
        match error {
            ProviderError::Refused(why) => Self::Unauthenticated(why),
            ProviderError::Impossible(_) | ProviderError::Away(_) => Self::Unavailable(error.into()),
        }
    }
}

impl From<HttpError> for ProviderError {
    fn from(error: HttpError) -> Self {
        match error {
            HttpError::Refused(why) => Self::Impossible(why.to_owned()),
            HttpError::Unreachable(_) => Self::Away("the identity provider does not answer"),
            HttpError::TooLarge => Self::Away("the identity provider's answer is too large"),
        }
    }
}

impl From<DiscoveryError<HttpError>> for ProviderError {
    fn from(error: DiscoveryError<HttpError>) -> Self {
        match error {
            DiscoveryError::Request(error) => error.into(),
            DiscoveryError::Validation(_) => Self::Impossible(
                "what answers at this address calls itself by another issuer; enter the issuer exactly as \
                 the provider does"
                    .to_owned(),
            ),
            DiscoveryError::UrlParse(_) => Self::Impossible("the issuer is no address".to_owned()),
            _ => Self::Away("what answers at this address is no identity provider"),
        }
    }
}

/// The hub as a client of one provider.
#[derive(Clone, Debug)]
pub(in crate::identity) struct Registration {
    pub(in crate::identity) issuer: String,
    pub(in crate::identity) client_id: String,
    pub(in crate::identity) client_secret: Option<Secret>,
    pub(in crate::identity) scopes: Vec<String>,
    pub(in crate::identity) role_claim: Option<String>,
}

/// What ties a sign-in together.
#[derive(Clone, Debug)]
pub(in crate::identity) struct Secrets {
    pub(in crate::identity) nonce: Secret,
    pub(in crate::identity) verifier: Secret,
    pub(in crate::identity) redirect_uri: String,
}

/// Whom a provider vouches for. Not for logs.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::identity) struct Person {
    pub(in crate::identity) subject: String,
    /// The address, when the provider verified it.
    pub(in crate::identity) verified_email: Option<Address>,
    pub(in crate::identity) name: Option<String>,
    /// Values of the role claim.
    pub(in crate::identity) values: BTreeSet<String>,
}

struct Known {
    read_at: Instant,
    metadata: Arc<Metadata>,
}

/// Talks to providers and remembers their descriptions.
pub struct Providers {
    http: Http,
    clock: Clock,
    known: Mutex<HashMap<String, Known>>,
}

impl std::fmt::Debug for Providers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Providers")
    }
}

impl Providers {
    /// Under the configuration's rules.
    pub fn new(rules: Oidc, clock: Clock) -> Self {
        Self {
            http: Http::new(rules),
            clock,
            known: Mutex::default(),
        }
    }

    /// Reads a provider's description anew.
    pub(in crate::identity) async fn discover(&self, issuer: &str) -> Result<(), ProviderError> {
        let metadata = self.metadata(issuer, Duration::ZERO).await?;
        self.http.check(metadata.authorization_endpoint().url())?;
        if metadata.token_endpoint().is_none() {
            return Err(ProviderError::Impossible(
                "the provider offers no code flow".to_owned(),
            ));
        }
        Ok(())
    }

    async fn metadata(&self, issuer: &str, fresh: Duration) -> Result<Arc<Metadata>, ProviderError> {
        if let Some(known) = self
            .lock()
            .get(issuer)
            .filter(|known| known.read_at.elapsed() < fresh)
        {
            return Ok(Arc::clone(&known.metadata));
        }
        let url = IssuerUrl::new(issuer.to_owned())
            .map_err(|_| ProviderError::Impossible("the issuer is no address".to_owned()))?;
        self.http.check(url.url())?;
        let metadata = Arc::new(Metadata::discover_async(url, &self.http).await?);
        let mut known = self.lock();
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        let entry = Known {
            read_at: Instant::now(),
            metadata: Arc::clone(&metadata),
        };
        known.insert(issuer.to_owned(), entry);
        Ok(metadata)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the browser goes to sign in.
    pub(in crate::identity) async fn authorization_url(
        &self,
        at: &Registration,
        state: &str,
        secrets: &Secrets,
    ) -> Result<Url, ProviderError> {
        let metadata = self.metadata(&at.issuer, FRESH).await?;
        self.http.check(metadata.authorization_endpoint().url())?;
        let client = relying_party(&metadata, at, &secrets.redirect_uri)?;
        let (state, nonce) = (state.to_owned(), secrets.nonce.expose().to_owned());
        let verifier = PkceCodeVerifier::new(secrets.verifier.expose().to_owned());
        let request = client
            .authorize_url(
                AuthenticationFlow::<CoreResponseType>::AuthorizationCode,
                move || CsrfToken::new(state),
                move || Nonce::new(nonce),
            )
            .set_pkce_challenge(PkceCodeChallenge::from_code_verifier_sha256(&verifier))
            .add_scopes(at.scopes.iter().cloned().map(Scope::new));
        Ok(request.url().0)
    }

    /// Where the browser goes to end its session at the provider, if that offers it.
    pub(in crate::identity) async fn end_session_url(
        &self,
        at: &Registration,
        back_to: &str,
    ) -> Result<Option<Url>, ProviderError> {
        let metadata = self.metadata(&at.issuer, FRESH).await?;
        let Some(endpoint) = metadata.additional_metadata().end_session_endpoint.clone() else {
            return Ok(None);
        };
        let mut url = endpoint.url().clone();
        self.http.check(&url)?;
        url.query_pairs_mut()
            .append_pair("client_id", &at.client_id)
            .append_pair("post_logout_redirect_uri", back_to);
        Ok(Some(url))
    }

    /// Exchanges a code and says whom the provider vouches for. `issuer_said` is the answer's `iss` (RFC 9207).
    pub(in crate::identity) async fn vouched(
        &self,
        at: &Registration,
        code: String,
        issuer_said: Option<&str>,
        secrets: &Secrets,
    ) -> Result<Person, ProviderError> {
        if issuer_said.is_some_and(|said| said != at.issuer) {
            return Err(ProviderError::Refused(
                "the answer is from another identity provider",
            ));
        }
        let metadata = self.metadata(&at.issuer, FRESH).await?;
        let client = relying_party(&metadata, at, &secrets.redirect_uri)?;
        let tokens = client
            .exchange_code(AuthorizationCode::new(code))
            .map_err(|_| ProviderError::Away("the identity provider has no token endpoint"))?
            .set_pkce_verifier(PkceCodeVerifier::new(secrets.verifier.expose().to_owned()))
            .request_async(&self.http)
            .await
            .map_err(exchange_error)?;
        let mut person = self.person(at, &client, &tokens, secrets).await?;
        // Many providers put the address and groups only there.
        if person.verified_email.is_none() || (at.role_claim.is_some() && person.values.is_empty()) {
            self.ask_further(at, &client, &tokens, &mut person).await?;
        }
        Ok(person)
    }

    /// Whom the verified token is about; a key that is not known may be newer than what is remembered.
    async fn person(
        &self,
        at: &Registration,
        client: &RelyingParty,
        tokens: &Tokens,
        secrets: &Secrets,
    ) -> Result<Person, ProviderError> {
        match self.verify(at, client, tokens, secrets) {
            Err(ClaimsVerificationError::SignatureVerification(
                SignatureVerificationError::NoMatchingKey | SignatureVerificationError::CryptoError(_),
            )) => {
                let metadata = self.metadata(&at.issuer, KEYS_FRESH).await?;
                let client = relying_party(&metadata, at, &secrets.redirect_uri)?;
                self.verify(at, &client, tokens, secrets)
            }
            verified => verified,
        }
        .map_err(|_| ProviderError::Refused("the identity provider's token is not valid"))
    }

    fn verify(
        &self,
        at: &Registration,
        client: &RelyingParty,
        tokens: &Tokens,
        secrets: &Secrets,
    ) -> Result<Person, ClaimsVerificationError> {
        let now = self.clock.now();
        let missing = || ClaimsVerificationError::Other("no ID token".to_owned());
        let token = tokens.id_token().ok_or_else(missing)?;
        let verifier = client
            .id_token_verifier()
            .set_allowed_algs(asymmetric())
            .set_time_fn(move || now);
        let nonce = Nonce::new(secrets.nonce.expose().to_owned());
        Ok(person(at, token.claims(&verifier, &nonce)?))
    }

    async fn ask_further(
        &self,
        at: &Registration,
        client: &RelyingParty,
        tokens: &Tokens,
        person: &mut Person,
    ) -> Result<(), ProviderError> {
        let subject = SubjectIdentifier::new(person.subject.clone());
        let Ok(request) = client.user_info(tokens.access_token().clone(), Some(subject)) else {
            return Ok(());
        };
        let told: UserInfoClaims<Extra, CoreGenderClaim> = request
            .request_async(&self.http)
            .await
            .map_err(|_| ProviderError::Away("the identity provider does not say who it is"))?;
        if person.verified_email.is_none() && told.email_verified() == Some(true) {
            person.verified_email = told.email().and_then(|email| Address::parse(email));
        }
        if person.name.is_none() {
            let name = told.name().and_then(|names| names.get(None));
            person.name = name.map(|name| name.to_string());
        }
        if let Some(claim) = &at.role_claim {
            person
                .values
                .extend(values(&told.additional_claims().claims, claim));
        }
        Ok(())
    }
}

fn exchange_error(
    error: RequestTokenError<HttpError, StandardErrorResponse<CoreErrorResponseType>>,
) -> ProviderError {
    match error {
        RequestTokenError::Request(error) => error.into(),
        RequestTokenError::ServerResponse(said) if *said.error() == CoreErrorResponseType::InvalidGrant => {
            ProviderError::Refused("the code is not good (any more); sign in again")
        }
        RequestTokenError::ServerResponse(_) => {
            ProviderError::Away("the identity provider does not accept the hub as its client")
        }
        _ => ProviderError::Away("the identity provider's answer cannot be read"),
    }
}

fn relying_party(
    metadata: &Metadata,
    at: &Registration,
    redirect_uri: &str,
) -> Result<RelyingParty, ProviderError> {
    let redirect = RedirectUrl::new(redirect_uri.to_owned())
        .map_err(|_| ProviderError::Impossible("the redirect address cannot be read".to_owned()))?;
    let secret = at
        .client_secret
        .as_ref()
        .map(|secret| ClientSecret::new(secret.expose().to_owned()));
    let client =
        RelyingParty::from_provider_metadata(metadata.clone(), ClientId::new(at.client_id.clone()), secret)
            .set_redirect_uri(redirect);
    let offers = |method| {
        let offered = metadata.token_endpoint_auth_methods_supported();
        offered.is_none_or(|offered| offered.contains(method))
    };
    Ok(if offers(&CoreClientAuthMethod::ClientSecretBasic) {
        client
    } else {
        client.set_auth_type(AuthType::RequestBody)
    })
}

/// Signatures that only the provider can make: a shared secret would let whoever reads it here sign in as anybody.
fn asymmetric() -> [CoreJwsSigningAlgorithm; 9] {
    [
        CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha256,
        CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha384,
        CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha512,
        CoreJwsSigningAlgorithm::RsaSsaPssSha256,
        CoreJwsSigningAlgorithm::RsaSsaPssSha384,
        CoreJwsSigningAlgorithm::RsaSsaPssSha512,
        CoreJwsSigningAlgorithm::EcdsaP256Sha256,
        CoreJwsSigningAlgorithm::EcdsaP384Sha384,
        CoreJwsSigningAlgorithm::EdDsa,
    ]
}

fn person(at: &Registration, claims: &Claims) -> Person {
    let email = claims.email().filter(|_| claims.email_verified() == Some(true));
    let name = claims.name().and_then(|names| names.get(None));
    let claimed = at.role_claim.as_deref();
    Person {
        subject: claims.subject().to_string(),
        verified_email: email.and_then(|email| Address::parse(email)),
        name: name.map(|name| name.to_string()),
        values: claimed
            .map(|claim| values(&claims.additional_claims().claims, claim))
            .unwrap_or_default(),
    }
}

/// The texts of a claim: one, or a list. `realm_access.roles` is looked for within, where no claim has that name.
fn values(claims: &Map<String, Value>, name: &str) -> BTreeSet<String> {
    let found = claims.get(name).or_else(|| {
        let (outer, inner) = name.split_once('.')?;
        claims.get(outer)?.get(inner)
    });
    let texts = match found {
        Some(Value::Array(items)) => items.as_slice(),
        Some(one) => std::slice::from_ref(one),
        None => &[],
    };
    texts
        .iter()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_role_claim_is_one_text_or_a_list_also_within_another_claim() {
        let claims =
            json!({ "groups": ["qa", "ops", 7], "job": "qa", "realm_access": { "roles": ["lead"] } });
        let Value::Object(claims) = claims else {
            unreachable!()
        };
        let said = |name| values(&claims, name).into_iter().collect::<Vec<_>>();
        assert_eq!(said("groups"), ["ops", "qa"]);
        assert_eq!(said("job"), ["qa"]);
        assert_eq!(said("realm_access.roles"), ["lead"]);
        assert!(said("nothing").is_empty() && said("realm_access.x").is_empty());
    }
}
