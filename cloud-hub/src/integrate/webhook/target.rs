//! Where may a webhook send to? Public addresses over TLS. What a name resolves to is looked at when the webhook is
//! saved and again with every connection: a name may point into our own network later.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use reqwest::{
    Url,
    dns::{Addrs, Name, Resolve, Resolving},
};

const URL_CHARS_MAX: usize = 2_000;
/// A name that cannot be resolved in this time is left to the guard of the connection.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(2);

const PRIVATE: &str = "the address is not a public one; webhooks do not call into the hub's own network";

/// Checks an address as far as its text says.
pub(super) fn parse(text: &str, allow_private: bool) -> Result<Url, String> {
    if text.chars().count() > URL_CHARS_MAX || text.contains(char::is_control) {
        return Err(format!(
            "`url` must have at most {URL_CHARS_MAX} plain characters"
        ));
    }
    let url = Url::parse(text).map_err(|error| format!("`url` is no address: {error}"))?;
    let host = url.host_str().filter(|host| !host.is_empty());
    let host = host.ok_or_else(|| "`url` names no host".to_owned())?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("`url` must not carry a user name or password".to_owned());
    }
    if url.fragment().is_some() {
        return Err("`url` must not have a fragment".to_owned());
    }
    let is_here = is_loopback(host);
    match url.scheme() {
        "https" => {}
        "http" if allow_private && is_here => {}
        _ => return Err("`url` must start with https://".to_owned()),
    }
    let is_private = is_here || literal(&url).is_some_and(|ip| !is_public(ip));
    if is_private && !allow_private {
        return Err(PRIVATE.to_owned());
    }
    Ok(url)
}

fn is_loopback(host: &str) -> bool {
    let name = host.trim_end_matches('.').to_ascii_lowercase();
    name == "localhost"
        || name.ends_with(".localhost")
        || unbracketed(&name)
            .parse()
            .is_ok_and(|ip: IpAddr| ip.is_loopback())
}

fn unbracketed(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

/// The address, when the URL has one in place of a name.
fn literal(url: &Url) -> Option<IpAddr> {
    unbracketed(url.host_str()?).parse().ok()
}

/// Resolves the name and refuses one that points into a private network. A name that is not known (yet) passes.
pub(super) async fn check_name(url: &Url, allow_private: bool) -> Result<(), String> {
    let (Some(host), None, false) = (url.host_str(), literal(url), allow_private) else {
        return Ok(());
    };
    let port = url.port_or_known_default().unwrap_or(443);
    let found = tokio::time::timeout(RESOLVE_TIMEOUT, tokio::net::lookup_host((host, port))).await;
    let points_inside = match found {
        Ok(Ok(mut addresses)) => addresses.any(|address| !is_public(address.ip())),
        _ => false,
    };
    if points_inside {
        Err(PRIVATE.to_owned())
    } else {
        Ok(())
    }
}

/// Whether a connection to this URL is allowed without resolving anything: a name is the guard's business.
pub(super) fn may_connect(url: &Url, allow_private: bool) -> Result<(), String> {
    match literal(url) {
        Some(ip) if !allow_private && !is_public(ip) => Err(PRIVATE.to_owned()),
        _ => Ok(()),
    }
}

/// Resolves names for connections, and keeps private addresses from them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Guard {
    pub(super) allow_private: bool,
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let allow_private = self.allow_private;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let allowed: Vec<SocketAddr> = found
                .filter(|address| allow_private || is_public(address.ip()))
                .collect();
            if allowed.is_empty() {
                return Err(PRIVATE.into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

/// Whether an address is one of the public internet.
fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => is_public_v6(ip),
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    let is_special = ip.is_private()
        || ip.is_loopback()
        || ip.is_link_local()
        || ip.is_broadcast()
        || ip.is_documentation()
        || ip.is_multicast();
    let is_reserved = matches!(
        (a, b, c),
        // "This network", carrier-grade NAT, protocol assignments, 6to4 relays, benchmarks, class E.
        (0 | 240..=255, _, _) | (100, 64..=127, _) | (192, 0, 0) | (192, 88, 99) | (198, 18 | 19, _)
    );
    !is_special && !is_reserved
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    let [a, b, c, ..] = ip.segments();
    // Addresses that carry one of IPv4 are as public as that one.
    let [.., high, low] = ip.segments();
    let inner = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match (a, b) {
        (0, 0) => ip.to_ipv4_mapped().is_some_and(is_public_v4),
        (0x64, 0xff9b) => c == 0 && is_public_v4(inner(high, low)),
        (0x2002, _) => is_public_v4(inner(b, c)),
        // Teredo and other protocol assignments; documentation.
        (0x2001, 0..=0x1ff | 0xdb8) => false,
        // Global unicast is 2000::/3; all else is local, multicast or reserved.
        _ => (0x2000..=0x3fff).contains(&a),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_private_networks_are_told_from_public_ones_however_they_are_written() {
        for private in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "198.18.0.1",
            "192.0.0.8",
            "::",
            "::1",
            "fe80::1",
            "fd00::1",
            "fec0::1",
            "ff02::1",
            "::ffff:10.0.0.1",
            "::10.0.0.1",
            "64:ff9b::a00:1",
            "64:ff9b:1::808:808",
            "2002:a00:1::",
            "2001:db8::1",
            "2001:0:1::1",
        ] {
            assert!(!is_public(private.parse().unwrap()), "{private}");
        }
        for public in [
            "8.8.8.8",
            "172.32.0.1",
            "100.128.0.1",
            "2606:4700::1111",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
        ] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
    }

    #[test]
    fn only_https_to_a_public_host_is_saved() {
        for wrong in [
            "http://hooks.example.com/x",
            "ftp://hooks.example.com",
            "https://",
            "hooks.example.com",
            "https://u:p@hooks.example.com",
            "https://hooks.example.com/#a",
            "https://127.0.0.1/",
            "https://2130706433/",
            "https://0x7f.1/",
            "https://[::1]/",
            "https://[::ffff:10.0.0.1]/",
            "https://localhost",
            "https://LOCALHOST./",
            "https://hub.localhost",
            "https://169.254.169.254/latest",
            "https://hooks.example.com/\n",
        ] {
            assert!(parse(wrong, false).is_err(), "{wrong}");
        }
        assert!(parse("https://hooks.example.com:8443/in?x=1", false).is_ok());
        assert!(parse("http://127.0.0.1:9/x", true).is_ok());
        assert!(parse("https://10.0.0.1/x", true).is_ok());
        assert!(
            parse("http://10.0.0.1/x", true).is_err(),
            "without TLS only to this machine"
        );
    }

    #[tokio::test]
    async fn a_name_that_points_here_is_refused_when_it_is_saved_and_when_it_is_connected_to() {
        // The one name that every machine resolves.
        let url = Url::parse("https://localhost/").unwrap();
        assert!(check_name(&url, false).await.is_err());
        let name = || "localhost".parse::<Name>().unwrap();
        assert!(Guard { allow_private: false }.resolve(name()).await.is_err());
        assert!(Guard { allow_private: true }.resolve(name()).await.is_ok());
    }
}
