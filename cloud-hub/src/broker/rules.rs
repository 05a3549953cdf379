//! Which topics may an authenticated device use? Pure rules, no sockets.
//! A device lives under `ff/v1/{tenant}/{edge}/` and sees nothing outside it.

/// The one prefix of every FoodFlow topic.
const ROOT: &str = "ff/v1/";

/// Who is at the other end of a socket, as the authenticator vouched for it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Device {
    /// The tenant's slug, for example `akron`.
    pub tenant: String,
    /// The edge's name within its tenant, for example `akron-1`.
    pub name: String,
}

impl Device {
    /// Whether both names can stand as one topic level. An authenticator that lets through a name with
    /// a slash or a wildcard would otherwise widen the device's own prefix.
    pub fn is_addressable(&self) -> bool {
        is_level(&self.tenant) && is_level(&self.name)
    }

    /// What follows this device's own prefix in `topic`, if it is under it.
    fn own_part<'t>(&self, topic: &'t str) -> Option<&'t str> {
        let rest = topic.strip_prefix(ROOT)?.strip_prefix(self.tenant.as_str())?;
        rest.strip_prefix('/')?
            .strip_prefix(self.name.as_str())?
            .strip_prefix('/')
    }
}

fn is_level(name: &str) -> bool {
    !name.is_empty() && name.len() <= 64 && !name.contains(['/', '+', '#', '$', '\0'])
}

/// Whether `device` may publish to `topic`: its own `up/{lane}`, `dict` or `status`, nothing else.
pub(super) fn may_publish(device: &Device, topic: &str) -> bool {
    match device.own_part(topic) {
        Some("dict" | "status") => true,
        Some(part) => part.strip_prefix("up/").is_some_and(is_level),
        None => false,
    }
}

/// Whether `device` may subscribe to `filter`: its own `ack`, `cmd` or `config`, spelled out.
///
/// No wildcard is ever granted, so the comparison of exact strings is the whole rule; `$share/…`
/// fails it too, which matters because a shared subscription can kill the router's thread.
pub(super) fn may_subscribe(device: &Device, filter: &str) -> bool {
    matches!(device.own_part(filter), Some("ack" | "cmd" | "config"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device() -> Device {
        Device {
            tenant: "akron".to_owned(),
            name: "akron-1".to_owned(),
        }
    }

    #[test]
    fn a_device_publishes_to_its_own_uplink_topics() {
        for own in ["up/live", "up/events", "up/backfill", "dict", "status"] {
            assert!(
                may_publish(&device(), &format!("ff/v1/akron/akron-1/{own}")),
                "{own}"
            );
        }
    }

    #[test]
    fn a_device_publishes_nowhere_else() {
        for foreign in [
            "",
            "ff/v1/akron/akron-1",
            "ff/v1/akron/akron-1/",
            "ff/v1/akron/akron-1/up",
            "ff/v1/akron/akron-1/up/",
            "ff/v1/akron/akron-1/up/live/x",
            "ff/v1/akron/akron-1/ack",
            "ff/v1/akron/akron-1/cmd",
            "ff/v1/akron/akron-11/up/live",
            "ff/v1/akron/akron-2/up/live",
            "ff/v1/akron2/akron-1/up/live",
            "ff/v1/other/akron-1/up/live",
            "ff/v2/akron/akron-1/up/live",
            "/ff/v1/akron/akron-1/up/live",
            "ff/v1/akron/akron-1/up/+",
            "ff/v1/akron/akron-1/up/#",
            "$SYS/broker",
        ] {
            assert!(!may_publish(&device(), foreign), "{foreign}");
        }
    }

    #[test]
    fn a_device_subscribes_to_its_own_downlink_topics() {
        for own in ["ack", "cmd", "config"] {
            assert!(
                may_subscribe(&device(), &format!("ff/v1/akron/akron-1/{own}")),
                "{own}"
            );
        }
    }

    #[test]
    fn wildcards_shares_and_foreign_filters_are_refused() {
        for foreign in [
            "#",
            "+",
            "ff/#",
            "ff/v1/akron/#",
            "ff/v1/akron/akron-1/#",
            "ff/v1/akron/akron-1/+",
            "ff/v1/+/akron-1/ack",
            "ff/v1/akron/akron-2/ack",
            "ff/v1/akron/akron-1/up/live",
            "$share/g/ff/v1/akron/akron-1/ack",
            "$queue/ff/v1/akron/akron-1/ack",
            "",
        ] {
            assert!(!may_subscribe(&device(), foreign), "{foreign}");
        }
    }

    #[test]
    fn a_name_that_could_widen_a_prefix_is_not_addressable() {
        for name in ["", "a/b", "+", "#", "$share", "a\0b"] {
            let device = Device {
                tenant: "akron".to_owned(),
                name: name.to_owned(),
            };
            assert!(!device.is_addressable(), "{name:?}");
        }
        assert!(device().is_addressable());
    }
}
