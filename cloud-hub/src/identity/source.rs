//! Where does a request come from? The address of the connection; behind a proxy that the configuration names, the
//! address the proxy says. Nobody else's `X-Forwarded-For` is believed.

use std::{
    convert::Infallible,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use axum::{
    extract::{ConnectInfo, FromRequestParts},
    http::{HeaderMap, request::Parts},
};

use crate::app::App;

/// The network a request comes from: an IPv4 address, or the 64 bits of an IPv6 address that a site is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Source(pub IpAddr);

impl FromRequestParts<App> for Source {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Infallible> {
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>();
        let peer = peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.0.ip());
        Ok(Self::of(peer, &parts.headers, &app.config.http.trusted_proxies))
    }
}

impl Source {
    fn of(peer: IpAddr, headers: &HeaderMap, trusted: &[IpAddr]) -> Self {
        let peer = peer.to_canonical();
        if !trusted.contains(&peer) {
            return Self(network(peer));
        }
        // Each proxy appends whom it talked to: the last one that is no proxy of ours is the client.
        let said = headers.get_all("x-forwarded-for");
        let mut hops: Vec<&str> = said.iter().filter_map(|value| value.to_str().ok()).collect();
        let listed = hops.drain(..).flat_map(|value| value.split(','));
        let mut addresses: Vec<IpAddr> = listed.filter_map(|hop| hop.trim().parse().ok()).collect();
        while let Some(address) = addresses.pop() {
            if !trusted.contains(&address.to_canonical()) {
                return Self(network(address.to_canonical()));
            }
        }
        Self(network(peer))
    }
}

fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(peer: &str, forwarded: &str, trusted: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-for", forwarded.parse().unwrap());
        let trusted: Vec<IpAddr> = trusted.iter().map(|it| it.parse().unwrap()).collect();
        Source::of(peer.parse().unwrap(), &headers, &trusted)
            .0
            .to_string()
    }

    #[test]
    fn only_a_proxy_that_is_trusted_is_believed() {
        assert_eq!(source("192.0.2.1", "198.51.100.7", &[]), "192.0.2.1");
        assert_eq!(
            source("192.0.2.1", "198.51.100.7", &["192.0.2.1"]),
            "198.51.100.7"
        );
        assert_eq!(
            source(
                "192.0.2.1",
                "203.0.113.9, 198.51.100.7, 192.0.2.1",
                &["192.0.2.1"]
            ),
            "198.51.100.7",
            "what stands before the last foreign hop was written by the client"
        );
        assert_eq!(source("192.0.2.1", "nonsense", &["192.0.2.1"]), "192.0.2.1");
    }

    #[test]
    fn a_site_with_many_addresses_is_one_source() {
        assert_eq!(source("2001:db8:1:2:3::4", "", &[]), "2001:db8:1:2::");
        assert_eq!(source("::ffff:192.0.2.1", "", &[]), "192.0.2.1");
    }
}
