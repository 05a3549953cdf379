//! How does the hub talk to somebody's identity provider? Over TLS, to public addresses, for five seconds and
//! 256 KiB at most, and without following anybody elsewhere: a tenant chooses the address, and must not reach the
//! hub's own network with it.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use futures_util::future::BoxFuture;
use openidconnect::{
    AsyncHttpClient, HttpRequest, HttpResponse,
    http::Response,
    url::{Host, Url},
};
use reqwest::{
    Client,
    dns::{Addrs, Name, Resolve, Resolving},
    redirect::Policy,
};

use crate::config::Oidc;

const TIMEOUT: Duration = Duration::from_secs(5);
const BODY_BYTES_MAX: usize = 256 * 1024;

/// Why a provider did not answer.
#[derive(Debug, thiserror::Error)]
pub(in crate::identity) enum HttpError {
    /// The address is not one the hub talks to.
    #[error("{0}")]
    Refused(&'static str),
    /// It cannot be reached, or not in time.
    #[error("the identity provider does not answer")]
    Unreachable(#[source] reqwest::Error),
    /// It says more than a provider has to say.
    #[error("the identity provider's answer is too large")]
    TooLarge,
}

/// Calls providers.
#[derive(Clone, Debug)]
pub(in crate::identity) struct Http {
    /// Absent where the operating system's certificates cannot be read.
    client: Option<Client>,
    rules: Oidc,
}

impl Http {
    /// A client under the configuration's rules.
    pub(in crate::identity) fn new(rules: Oidc) -> Self {
        // reqwest takes the provider of the process; an error says that there is one.
        drop(rustls::crypto::ring::default_provider().install_default());
        let client = Client::builder()
            .redirect(Policy::none())
            .no_proxy()
            .timeout(TIMEOUT)
            .dns_resolver(Arc::new(PublicOnly(rules)))
            .build()
            .inspect_err(|error| tracing::error!(%error, "identity providers cannot be called"))
            .ok();
        Self { client, rules }
    }

    /// Whether the hub talks to this address at all; what a name stands for is checked when it is looked up.
    pub(in crate::identity) fn check(&self, url: &Url) -> Result<(), HttpError> {
        let is_loopback = match url.host() {
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            Some(Host::Domain(name)) => name == "localhost",
            None => return Err(HttpError::Refused("the address names no host")),
        };
        if url.scheme() != "https" && !(url.scheme() == "http" && self.rules.allow_http && is_loopback) {
            return Err(HttpError::Refused(
                "an identity provider's address begins with https://",
            ));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(HttpError::Refused(
                "an identity provider's address holds no password",
            ));
        }
        let address = match url.host() {
            Some(Host::Ipv4(address)) => IpAddr::V4(address),
            Some(Host::Ipv6(address)) => IpAddr::V6(address),
            _ => return Ok(()),
        };
        if is_allowed(address, self.rules) {
            Ok(())
        } else {
            Err(HttpError::Refused(
                "an identity provider is not in the hub's own network",
            ))
        }
    }

    /// Sends a request of the OpenID Connect library.
    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let bad = HttpError::Refused("the address cannot be read");
        let url = Url::parse(&request.uri().to_string()).map_err(|_| bad)?;
        self.check(&url)?;
        let (parts, body) = request.into_parts();
        let nothing = HttpError::Refused("this hub cannot make TLS connections; see its log");
        let client = self.client.as_ref().ok_or(nothing)?;
        let call = client
            .request(parts.method, url)
            .headers(parts.headers)
            .body(body);
        let mut response = call.send().await.map_err(unreachable)?;
        let mut body = Vec::new();
        while let Some(part) = response.chunk().await.map_err(unreachable)? {
            if body.len() + part.len() > BODY_BYTES_MAX {
                return Err(HttpError::TooLarge);
            }
            body.extend_from_slice(&part);
        }
        let mut answer = Response::new(body);
        *answer.status_mut() = response.status();
        *answer.headers_mut() = std::mem::take(response.headers_mut());
        Ok(answer)
    }
}

impl<'c> AsyncHttpClient<'c> for Http {
    type Error = HttpError;
    type Future = BoxFuture<'c, Result<HttpResponse, HttpError>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(self.send(request))
    }
}

/// Its address stays out of what is told of it: a query may be in it.
fn unreachable(error: reqwest::Error) -> HttpError {
    HttpError::Unreachable(error.without_url())
}

/// Looks names up and leaves out addresses that the hub does not talk to.
#[derive(Clone, Copy, Debug)]
struct PublicOnly(Oidc);

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        let rules = self.0;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let allowed: Vec<SocketAddr> = found.filter(|it| is_allowed(it.ip(), rules)).collect();
            if allowed.is_empty() {
                let refusal = "the name stands for no address that the hub talks to";
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, refusal).into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

fn is_allowed(address: IpAddr, rules: Oidc) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) if v4.is_loopback() => rules.allow_http || rules.allow_private,
        IpAddr::V6(v6) if v6.is_loopback() => rules.allow_http || rules.allow_private,
        IpAddr::V4(v4) => !is_special(v4) && (rules.allow_private || !is_private(v4)),
        IpAddr::V6(v6) => !is_special6(v6) && (rules.allow_private || !v6.is_unique_local()),
    }
}

/// Never a provider: this host, link-local (a cloud's metadata service), multicast, reserved.
fn is_special(v4: Ipv4Addr) -> bool {
    v4.octets()[0] == 0 || v4.is_link_local() || v4.is_multicast() || v4.octets()[0] >= 240
}

/// RFC 1918 and the carriers' own (RFC 6598).
fn is_private(v4: Ipv4Addr) -> bool {
    let [a, b, ..] = v4.octets();
    v4.is_private() || (a == 100 && (64..128).contains(&b)) || (a == 198 && (b == 18 || b == 19))
}

fn is_special6(v6: Ipv6Addr) -> bool {
    // What translates to IPv4 (NAT64, 6to4) would lead around the rules for that.
    let [first, second, ..] = v6.segments();
    let translates = (first == 0x64 && second == 0xff9b) || first == 0x2002;
    v6.is_unspecified() || v6.is_unicast_link_local() || v6.is_multicast() || translates
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRICT: Oidc = Oidc {
        allow_http: false,
        allow_private: false,
    };

    #[test]
    fn the_hubs_own_network_is_out_of_reach() {
        let allowed = |text: &str, rules| is_allowed(text.parse().unwrap(), rules);
        for public in ["93.184.216.34", "2606:4700::1111"] {
            assert!(allowed(public, STRICT), "{public}");
        }
        let private = ["10.1.2.3", "192.168.0.1", "172.16.9.9", "100.64.0.1", "fd00::1"];
        let open = Oidc {
            allow_private: true,
            ..STRICT
        };
        for private in private {
            assert!(!allowed(private, STRICT) && allowed(private, open), "{private}");
        }
        assert!(!allowed("127.0.0.1", STRICT) && !allowed("::ffff:127.0.0.1", STRICT));
        for never in [
            "169.254.169.254",
            "0.0.0.0",
            "fe80::1",
            "224.0.0.1",
            "64:ff9b::a00:1",
            "::ffff:169.254.169.254",
        ] {
            assert!(!allowed(never, open), "{never}");
        }
    }

    #[test]
    fn an_issuer_is_over_tls_and_carries_no_password() {
        let check = |text: &str, rules| Http::new(rules).check(&Url::parse(text).unwrap()).is_ok();
        let local = Oidc {
            allow_http: true,
            ..STRICT
        };
        assert!(check("https://login.plant.example", STRICT));
        assert!(
            !check("http://login.plant.example", local),
            "plain HTTP is for this host only"
        );
        assert!(!check("http://127.0.0.1:9", STRICT) && check("http://127.0.0.1:9", local));
        for wrong in [
            "https://user:word@login.plant.example",
            "https://10.0.0.1",
            "https://169.254.169.254",
            "https://[::1]",
            "ftp://login.plant.example",
            "data:text/html,x",
        ] {
            assert!(!check(wrong, STRICT), "{wrong}");
        }
    }
}
