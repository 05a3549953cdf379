//! A real mosquitto on a free port, and its command-line clients.

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

/// A running broker; killed when dropped.
#[derive(Debug)]
pub struct Broker {
    pub address: SocketAddr,
    child: Child,
}

/// Where Debian and others put the daemon.
fn program() -> &'static str {
    [
        "/usr/sbin/mosquitto",
        "/usr/bin/mosquitto",
        "/usr/local/sbin/mosquitto",
    ]
    .into_iter()
    .find(|path| Path::new(path).exists())
    .expect("mosquitto is not installed; run scripts/setup.sh test")
}

impl Broker {
    /// Starts on a free port, or on `address` again.
    pub async fn start(directory: &Path, address: Option<SocketAddr>) -> Self {
        let address = address.unwrap_or_else(|| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap()
        });
        let file = directory.join("mosquitto.conf");
        let config = format!(
            "listener {} 127.0.0.1\nallow_anonymous true\nmax_packet_size 4000000\n",
            address.port()
        );
        std::fs::write(&file, config).unwrap();
        let child = Command::new(program())
            .arg("-c")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let broker = Self { address, child };
        let up = async {
            while TcpStream::connect(address).is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), up)
            .await
            .expect("mosquitto never listened");
        broker
    }

    fn client(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args([
            "-h",
            "127.0.0.1",
            "-p",
            &self.address.port().to_string(),
            "-V",
            "mqttv5",
        ]);
        command.args(arguments);
        command
    }

    /// Publishes a payload with QoS 1.
    pub fn publish(&self, topic: &str, payload: &[u8], more: &[&str]) {
        use std::io::Write as _;
        let mut child = self
            .client("mosquitto_pub", &[&["-q", "1", "-t", topic, "-s"], more].concat())
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(payload).unwrap();
        assert!(child.wait().unwrap().success());
    }

    /// Starts collecting messages of a topic, one a line, into a file.
    pub fn collect(&self, topic: &str, file: &Path) -> Collector {
        let out = std::fs::File::create(file).unwrap();
        let child = self
            .client("mosquitto_sub", &["-q", "1", "-t", topic])
            .stdout(out)
            .spawn()
            .unwrap();
        Collector(child)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A running `mosquitto_sub`.
#[derive(Debug)]
pub struct Collector(Child);

impl Drop for Collector {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
