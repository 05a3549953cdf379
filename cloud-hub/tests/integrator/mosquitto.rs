//! A real Mosquitto on a port of its own, as a plant may run one; ends with the test.

use std::{
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

#[derive(Debug)]
pub(crate) struct Mosquitto {
    child: Child,
    pub(crate) port: u16,
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A certificate for `localhost`: `server.pem`, `server.key`, and what to trust, `server-ca.pem`.
pub(crate) fn server_certificate(dir: &Path) {
    let server = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(dir.join("server.pem"), server.cert.pem()).unwrap();
    std::fs::write(dir.join("server-ca.pem"), server.cert.pem()).unwrap();
    std::fs::write(dir.join("server.key"), server.signing_key.serialize_pem()).unwrap();
}

impl Mosquitto {
    /// With one listener, of which `settings` say the rest.
    pub(crate) async fn start(dir: &Path, settings: &str) -> Self {
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let config = format!(
            "per_listener_settings false\nuser root\npersistence false\nlistener {port} 127.0.0.1\n{settings}"
        );
        std::fs::write(dir.join("mosquitto.conf"), config).unwrap();
        let program = ["/usr/sbin/mosquitto", "/usr/bin/mosquitto"]
            .into_iter()
            .find(|it| Path::new(it).exists());
        let child = Command::new(program.expect("mosquitto is installed: scripts/setup.sh test"))
            .arg("-c")
            .arg(dir.join("mosquitto.conf"))
            .stdout(Stdio::null())
            .stderr(Stdio::from(std::fs::File::create(dir.join("log")).unwrap()))
            .spawn()
            .unwrap();
        let broker = Self { child, port };
        for _ in 0..200 {
            if tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
                return broker;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!(
            "mosquitto does not listen: {}",
            std::fs::read_to_string(dir.join("log")).unwrap()
        );
    }
}
