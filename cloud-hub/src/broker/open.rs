//! Which topics are open to integrators, and how do tenants keep apart on them? Whatever a device publishes outside
//! `ff/` is its own tenant's, by its credentials; what it hears comes from a part of the router that is its tenant's or
//! its own alone, whatever the topic's name is outside.

use bytes::Bytes;
use tokio::sync::oneshot;

use super::{
    Settled,
    rules::{Device, may_publish, may_subscribe},
};

/// Most bytes of a topic.
const TOPIC_BYTES_MAX: usize = 512;
/// Where the router keeps what integrators hear; no device can name it.
const INSIDE: &str = "int/";

/// What the front end tells of integrators.
#[derive(Debug)]
pub enum Open {
    /// A message.
    Message(OpenMessage),
    /// The device's last connection ended; whatever will it had came before this.
    Gone(Device),
    /// From here on the device is heard here, after another hub heard it: what it said before does not bind it.
    Anew(Device),
}

/// A message on a topic outside `ff/`.
#[derive(Debug)]
pub struct OpenMessage {
    /// Who sent it, as authenticated.
    pub device: Device,
    /// The topic as it was sent.
    pub topic: String,
    /// The payload, unread.
    pub payload: Bytes,
    /// Whether a broker had kept it: then it may be old.
    pub is_retained: bool,
    /// Where it is said what became of it; the PUBACK waits for that.
    pub settled: oneshot::Sender<Settled>,
}

/// Whether a topic is one that integrators use: nothing of the broker's, nothing under `ff/`, no wildcard.
pub(super) fn is_open_topic(topic: &str) -> bool {
    let first = topic
        .trim_start_matches('/')
        .split('/')
        .next()
        .unwrap_or_default();
    !first.is_empty()
        && topic.len() <= TOPIC_BYTES_MAX
        && !topic.contains(['+', '#', '\0'])
        && !topic.starts_with('$')
        && first != "ff"
}

/// A topic without the tenant's own name in front of it, which integrators may write or leave out.
pub fn without_tenant<'t>(topic: &'t str, tenant: &str) -> &'t str {
    let rest = topic.strip_prefix(tenant).and_then(|rest| rest.strip_prefix('/'));
    rest.filter(|rest| !rest.is_empty()).unwrap_or(topic)
}

/// Where the router keeps a topic that only `device` hears.
pub fn inside_device(device: &Device, topic: &str) -> String {
    format!("{INSIDE}{}/d/{}/{topic}", device.tenant, device.name)
}

/// Where the router keeps a topic that every device of a tenant may hear.
pub fn inside_tenant(tenant: &str, topic: &str) -> String {
    format!("{INSIDE}{tenant}/t/{topic}")
}

/// Where a device listens when it subscribes to `filter`; none when the filter is not open to it.
///
/// Its own error and echo topics; ThingsBoard's `v1/devices/me/…`, on which nothing is said; commands to one edge node
/// and the states of hosts, as Sparkplug has them. Nothing that would be another device's, and no shared subscription.
pub(super) fn inside_filter(device: &Device, filter: &str) -> Option<String> {
    let own = without_tenant(filter, &device.tenant);
    if own.len() > TOPIC_BYTES_MAX || own.contains('\0') {
        return None;
    }
    let levels: Vec<&str> = own.split('/').collect();
    let is_name = |level: &str| !level.is_empty() && !level.contains(['+', '#', '$']);
    match levels.as_slice() {
        ["v1", "err" | "echo", name] if *name == device.name => Some(inside_device(device, own)),
        ["v1", "devices", "me", rest @ ..] if !rest.is_empty() => Some(inside_device(device, own)),
        ["spBv1.0", "STATE", host] if *host == "+" || is_name(host) => {
            Some(inside_tenant(&device.tenant, own))
        }
        ["spBv1.0", group, "NCMD" | "DCMD", node, rest @ ..] if is_name(group) && is_name(node) => {
            let is_narrow = match rest {
                [] | ["#" | "+"] => true,
                [device] => is_name(device),
                _ => false,
            };
            is_narrow.then(|| inside_tenant(&device.tenant, own))
        }
        _ => None,
    }
}

/// Whether a device may publish to a topic, or subscribe to a filter, on a broker that several tenants share and that is
/// not ours: its own edge's, and what is open to integrators under its tenant's name.
pub fn may_outside(device: &Device, topic: &str, publishes: bool) -> bool {
    let own = without_tenant(topic, &device.tenant);
    let is_rooted = own.len() < topic.len();
    if publishes {
        may_publish(device, topic) || is_rooted && is_open_topic(own)
    } else {
        may_subscribe(device, topic) || is_rooted && inside_filter(device, topic).is_some()
    }
}

/// The topic as a device knows it, of one inside the router; none for any other topic.
pub(super) fn outside(topic: &[u8]) -> Option<&[u8]> {
    let rest = topic.strip_prefix(INSIDE.as_bytes())?;
    let levels = |bytes: &'_ [u8], count: usize| {
        let slashes = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        slashes.map(|(at, _)| at + 1).nth(count - 1)
    };
    let tenant = levels(rest, 1)?;
    let skip = match rest.get(tenant..tenant + 2)? {
        b"d/" => levels(&rest[tenant + 2..], 1)? + tenant + 2,
        b"t/" => tenant + 2,
        _ => return None,
    };
    rest.get(skip..)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device() -> Device {
        Device {
            tenant: "akron".to_owned(),
            name: "press-7".to_owned(),
        }
    }

    #[test]
    fn what_is_the_brokers_or_an_edges_is_not_open() {
        for open in [
            "v1/akron/l1/oven/t",
            "spBv1.0/g/NBIRTH/n",
            "/neuron/n/upload",
            "a",
            "cuyahoga/v1/x",
        ] {
            assert!(is_open_topic(open), "{open}");
        }
        let long = "a/".repeat(300);
        for closed in [
            "",
            "/",
            "ff/v1/akron/e/up/live",
            "/ff/x",
            "$SYS/x",
            "$share/g/x",
            "a/+",
            "a/#",
            "a\0",
            &long,
        ] {
            assert!(!is_open_topic(closed), "{closed}");
        }
    }

    #[test]
    fn a_device_hears_its_own_errors_and_its_tenants_commands_and_nothing_else() {
        let inside = |filter| inside_filter(&device(), filter);
        assert_eq!(
            inside("v1/err/press-7").unwrap(),
            "int/akron/d/press-7/v1/err/press-7"
        );
        assert_eq!(
            inside("akron/v1/echo/press-7").unwrap(),
            "int/akron/d/press-7/v1/echo/press-7"
        );
        assert_eq!(
            inside("spBv1.0/g/NCMD/n/#").unwrap(),
            "int/akron/t/spBv1.0/g/NCMD/n/#"
        );
        assert_eq!(
            inside("spBv1.0/STATE/foodflow").unwrap(),
            "int/akron/t/spBv1.0/STATE/foodflow"
        );
        assert!(inside("v1/devices/me/rpc/request/+").is_some());
        for foreign in [
            "#",
            "+",
            "v1/#",
            "v1/err/press-8",
            "v1/err/+",
            "v1/err/#",
            "cuyahoga/v1/err/press-7",
            "spBv1.0/#",
            "spBv1.0/+/NCMD/n",
            "spBv1.0/g/NCMD/+",
            "spBv1.0/g/NCMD/n/d/#",
            "spBv1.0/g/NDATA/n",
            "int/akron/#",
            "int/akron/d/press-8/v1/err/press-8",
            "$share/g/v1/err/press-7",
            "v1/akron/l1/oven/t",
            "",
        ] {
            assert_eq!(inside(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn inside_and_outside_are_each_others_inverse() {
        let inside = inside_device(&device(), "v1/err/press-7");
        assert_eq!(outside(inside.as_bytes()), Some(&b"v1/err/press-7"[..]));
        let inside = inside_tenant("akron", "spBv1.0/g/NCMD/n");
        assert_eq!(outside(inside.as_bytes()), Some(&b"spBv1.0/g/NCMD/n"[..]));
        for other in [
            "ff/v1/akron/e/ack",
            "int/",
            "int/akron",
            "int/akron/x/y",
            "int/akron/d/",
            "",
        ] {
            assert_eq!(outside(other.as_bytes()), None, "{other}");
        }
    }
}
