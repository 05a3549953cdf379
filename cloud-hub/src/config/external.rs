//! Which broker of the plant's own is the hub a client of, and what does it read there?

use std::path::PathBuf;

use serde::Deserialize;

use crate::broker::Device;

/// A broker that the hub is a client of.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExternalMqtt {
    /// `mqtt://host:1883` or `mqtts://host:8883`.
    pub url: String,
    /// Who the hub is there.
    pub username: Option<String>,
    /// File with the password.
    pub password_file: Option<PathBuf>,
    /// What signed the broker's certificate, PEM; needed with `mqtts`.
    pub ca_file: Option<PathBuf>,
    /// Name that hubs share their subscriptions by.
    #[serde(default = "ExternalMqtt::share_group")]
    pub share_group: String,
    /// Integrators' messages that are read there.
    #[serde(default)]
    pub tap: Vec<TapSettings>,
}

/// What is read of a plant's own broker beside frames.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TapSettings {
    /// Whose values they are.
    pub tenant: String,
    /// The client that they count as.
    #[serde(default = "TapSettings::client")]
    pub client: String,
    /// What stands before every topic: empty, or with a `/` at its end.
    #[serde(default)]
    pub root: String,
    /// Filters below the root.
    pub topics: Vec<String>,
}

impl TapSettings {
    fn client() -> String {
        "plant-broker".to_owned()
    }

    /// Who its values come from.
    pub fn device(&self) -> Device {
        Device {
            tenant: self.tenant.clone(),
            name: self.client.clone(),
        }
    }

    fn faults(&self, faults: &mut Vec<String>) {
        let whose = format!("mqtt.external.tap ({}/{})", self.tenant, self.client);
        if !self.device().is_addressable() {
            faults.push(format!(
                "{whose}: `tenant` and `client` are names of at most 64 characters without `/`, `+`, `#` and `$`"
            ));
        }
        if !self.root.is_empty() && (!self.root.ends_with('/') || self.root.contains(['+', '#', '$'])) {
            faults.push(format!(
                "{whose}: `root` is empty or ends with `/`, and has no wildcard"
            ));
        }
        if self.topics.is_empty() {
            faults.push(format!(
                "{whose}: `topics` names no filter; write `topics = [\"v1/#\"]`"
            ));
        }
        for topic in &self.topics {
            if !rumqttc::v5::mqttbytes::valid_filter(topic) || topic.starts_with('$') {
                faults.push(format!("{whose}: `{topic}` is no topic filter"));
            }
        }
    }
}

/// Where an external broker is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerAddress {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// `mqtts`.
    pub is_tls: bool,
}

impl ExternalMqtt {
    fn share_group() -> String {
        "foodflow".to_owned()
    }

    /// Reads the URL.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn address(&self) -> Result<BrokerAddress, String> {
        const FORM: &str = "write `mqtt://host:1883` or `mqtts://host:8883`, without user, path and query";
        let fault = || {
            format!(
                "mqtt.external.url: `{}` is no address of a broker; {FORM}",
                self.url
            )
        };
        let (rest, is_tls, default_port) = match (
            self.url.strip_prefix("mqtt://"),
            self.url.strip_prefix("mqtts://"),
        ) {
            (Some(rest), _) => (rest, false, 1883),
            (_, Some(rest)) => (rest, true, 8883),
            _ => return Err(fault()),
        };
        // A password in the URL would be in the log with it.
        if rest.contains('@') {
            return Err("mqtt.external.url: holds a user; use `username` and `password_file`".to_owned());
        }
        let is_port = |text: &str| text.parse::<u16>().is_ok_and(|port| port > 0);
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if is_port(port) => (host, port.parse().unwrap_or(default_port)),
            Some((host, _)) if !host.starts_with('[') || !rest.ends_with(']') => return Err(fault()),
            _ => (rest, default_port),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let is_host = |c: char| c.is_ascii_alphanumeric() || ".-_:".contains(c);
        if host.is_empty() || !host.chars().all(is_host) {
            return Err(fault());
        }
        Ok(BrokerAddress {
            host: host.to_owned(),
            port,
            is_tls,
        })
    }

    pub(super) fn faults(&self, faults: &mut Vec<String>) {
        match self.address() {
            Err(fault) => faults.push(fault),
            Ok(address) if address.is_tls && self.ca_file.is_none() => faults.push(
                "mqtt.external.ca_file: is needed with mqtts://; for a public certificate \
                 /etc/ssl/certs/ca-certificates.crt"
                    .to_owned(),
            ),
            Ok(_) => {}
        }
        if self.username.is_none() && self.password_file.is_some() {
            faults.push("mqtt.external: `password_file` needs `username`".to_owned());
        }
        for (place, tap) in self.tap.iter().enumerate() {
            tap.faults(faults);
            if self.tap[..place]
                .iter()
                .any(|other| other.device() == tap.device())
            {
                faults.push(format!(
                    "mqtt.external.tap ({}/{}): is there twice; give each a `client` of its own",
                    tap.tenant, tap.client
                ));
            }
        }
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if self.share_group.is_empty() || !self.share_group.chars().all(is_plain) {
            faults.push("mqtt.external.share_group: must be letters, digits, `-`, `_` and `.`".to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_external_broker_is_named_by_its_address_and_by_no_password() {
        let at = |url: &str| ExternalMqtt {
            url: url.to_owned(),
            username: None,
            password_file: None,
            ca_file: None,
            share_group: "foodflow".to_owned(),
            tap: vec![],
        };
        let found = at("mqtt://broker.plant").address().unwrap();
        assert_eq!(
            (found.host.as_str(), found.port, found.is_tls),
            ("broker.plant", 1883, false)
        );
        let found = at("mqtts://[::1]:8884").address().unwrap();
        assert_eq!(
            (found.host.as_str(), found.port, found.is_tls),
            ("::1", 8884, true)
        );
        for wrong in [
            "",
            "broker",
            "http://broker",
            "mqtt://",
            "mqtt://a:b",
            "mqtt://a:0",
            "mqtt://u:hunter2@a",
            "mqtt://a/b",
        ] {
            let fault = at(wrong).address().unwrap_err();
            assert!(
                fault.contains("mqtt.external.url") && !fault.contains("hunter2"),
                "{fault}"
            );
        }
        let mut faults = Vec::new();
        at("mqtts://a").faults(&mut faults);
        assert_eq!(faults.len(), 1, "{faults:?}");
    }

    #[test]
    fn every_fault_of_a_tap_is_told_with_its_name() {
        let tap = |client: &str, root: &str, topics: &[&str]| TapSettings {
            tenant: "akron".to_owned(),
            client: client.to_owned(),
            root: root.to_owned(),
            topics: topics.iter().map(|&topic| topic.to_owned()).collect(),
        };
        let faults = |tap: Vec<TapSettings>| {
            let mut faults = Vec::new();
            let external = ExternalMqtt {
                url: "mqtt://a".to_owned(),
                username: None,
                password_file: None,
                ca_file: None,
                share_group: "foodflow".to_owned(),
                tap,
            };
            external.faults(&mut faults);
            faults
        };
        let good = || tap("plant", "akron/", &["v1/#", "spBv1.0/+/NDATA/+", "#"]);
        assert!(faults(vec![good(), tap("other", "", &["x"])]).is_empty());
        for wrong in [
            tap("a/b", "", &["x"]),
            tap("a", "akron", &["x"]),
            tap("a", "+/", &["x"]),
            tap("a", "", &[]),
            tap("a", "", &["$share/g/x"]),
            tap("a", "", &["a#"]),
            tap("a", "", &[""]),
        ] {
            let told = faults(vec![wrong.clone()]);
            assert!(
                told.len() == 1 && told[0].contains("mqtt.external.tap (akron/"),
                "{wrong:?}: {told:?}"
            );
        }
        assert_eq!(faults(vec![good(), good()]).len(), 1, "a client is one tap");
    }
}
