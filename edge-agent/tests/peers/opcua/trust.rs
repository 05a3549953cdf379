//! Is a server with security believed only as far as its certificate is, and is what is written to it encrypted?

use edge_agent::source::opcua::pki::Pki;

use super::*;

/// A server with Basic256Sha256 and a user, and the configuration that fits it.
struct Secured {
    directory: tempfile::TempDir,
    keys: String,
}

impl Secured {
    fn new() -> Self {
        let directory = pki();
        let password = directory.path().join("password");
        std::fs::write(&password, "s3cret\n").unwrap();
        let keys = format!(
            "security = \"Basic256Sha256\"\nuser = \"edge\"\npassword_file = \"{}\"\nwrites_enabled = true\n",
            password.display()
        );
        Self { directory, keys }
    }

    fn pki(&self) -> PathBuf {
        self.directory.path().join("pki")
    }

    async fn plant(&self, port: u16, extra: &[&str]) -> Plant {
        let certificates = self.directory.path().join("server");
        let port = port.to_string();
        let mut arguments = vec!["--port", &port, "--user", "edge:s3cret", "--secure"];
        arguments.push(certificates.to_str().unwrap());
        arguments.extend(extra);
        Plant::start(&arguments).await
    }

    /// A source that was shown a certificate which nobody has trusted yet.
    async fn refused(&self, port: u16) -> Watched {
        let config = server(port, &self.keys, &tag("COUNT", COUNT));
        let mut watched = Watched::start(config, &self.pki());
        watched
            .until("refused", |watched| watched.reason().contains("not trusted yet"))
            .await;
        watched
    }

    /// What the server shows was refused, and is accepted now.
    fn trust(&self) {
        let pki = Pki::open(&self.pki()).unwrap();
        let shown = std::fs::read(self.pki().join("rejected/oven.der")).unwrap();
        assert_eq!(
            shown,
            std::fs::read(self.directory.path().join("server/cert.der")).unwrap()
        );
        pki.trust("oven", &shown).unwrap();
    }
}

#[tokio::test]
async fn t18_a_renewed_certificate_is_refused_with_an_alarm_until_it_is_trusted() {
    let secured = Secured::new();
    let plant = secured.plant(0, &[]).await;
    let port = plant.port;
    let mut watched = secured.refused(port).await;
    secured.trust();
    watched.until_values(0, 5).await;
    assert_eq!(watched.state(), SourceState::Up);
    drop(plant);
    let plant = secured.plant(port, &[]).await;
    watched
        .until("the change", |watched| watched.reason().contains("has changed"))
        .await;
    watched
        .until("bad readings", |watched| {
            watched
                .of(0)
                .last()
                .is_some_and(|reading| reading.quality == Quality::BAD_NOT_CONNECTED)
        })
        .await;
    let before = watched.values(0).len();
    secured.trust();
    watched.until_values(0, before + 5).await;
    let alarms: Vec<(bool, &str)> = watched
        .alarms
        .iter()
        .filter(|alarm| alarm.code == "opcua.certificate")
        .map(|alarm| (alarm.active, alarm.subject.as_str()))
        .collect();
    assert_eq!(
        alarms,
        [(true, "oven"), (false, "oven"), (true, "oven"), (false, "oven")]
    );
    drop(plant);
}

#[tokio::test]
async fn t18_an_expired_certificate_is_refused_even_when_it_is_trusted() {
    let secured = Secured::new();
    let plant = secured.plant(0, &["--expired"]).await;
    let mut watched = secured.refused(plant.port).await;
    secured.trust();
    watched
        .until("the reason", |watched| {
            watched.reason().contains("renew it at the server")
        })
        .await;
    assert!(watched.values(0).is_empty());
}

#[tokio::test]
async fn a_value_is_written_encrypted_and_only_where_writing_is_enabled() {
    let secured = Secured::new();
    let mut plant = secured.plant(0, &[]).await;
    let mut config = server(plant.port, &secured.keys, &tag("COUNT", COUNT));
    let node = opcua::config::NodeIdentifier::Text("SET".to_owned());
    let refused = opcua::write(&config, &secured.pki(), &node, 7.0)
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("not trusted yet"), "{refused}");
    secured.trust();
    opcua::write(&config, &secured.pki(), &node, 7.0).await.unwrap();
    assert_eq!(plant.stat().await["set"], 7);
    assert!(opcua::write(&config, &secured.pki(), &node, 0.5).await.is_err());
    config.writes_enabled = false;
    let refused = opcua::write(&config, &secured.pki(), &node, 8.0)
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("writes_enabled"), "{refused}");
    assert_eq!(plant.stat().await["set"], 7);
}
