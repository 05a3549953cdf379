//! A load for the agent: the program's own simulator as a process, its counters advancing with every read.

use std::{
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use super::edge::PROGRAM;

/// A running simulator; killed when dropped.
#[derive(Debug)]
pub struct Load {
    child: Child,
    /// The agent's configuration for it.
    pub config: String,
}

impl Load {
    /// Ten devices of fifty counters, read every 100 ms: 5,000 readings a second.
    pub async fn start(directory: &Path, hub: SocketAddr) -> Self {
        Self::of(directory, hub, "devices=10,tags=50,advance=read").await
    }

    /// What `--load` says, read every 100 ms.
    pub async fn of(directory: &Path, hub: SocketAddr, load: &str) -> Self {
        Self::every(directory, hub, load, "100ms").await
    }

    /// What `--load` says, read once a tick.
    pub async fn every(directory: &Path, hub: SocketAddr, load: &str, tick: &str) -> Self {
        let data_dir = directory.join("load");
        std::fs::create_dir_all(&data_dir).unwrap();
        let child = Command::new(PROGRAM)
            .args(["simulate", "--load", load, "--tick", tick])
            .args([
                "--local-http",
                "127.0.0.1:0",
                "--hub-mqtt",
                &hub.to_string(),
                "--data-dir",
            ])
            .arg(&data_dir)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut load = Self {
            child,
            config: String::new(),
        };
        let ready = data_dir.join("ready.json");
        let waiting = async {
            while !ready.exists() {
                assert!(load.child.try_wait().unwrap().is_none(), "the simulator ended");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_mins(1), waiting)
            .await
            .expect("the simulator is ready");
        load.config = std::fs::read_to_string(data_dir.join("edge.toml")).unwrap();
        load
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            drop(self.child.kill());
            drop(self.child.wait());
        }
    }
}
