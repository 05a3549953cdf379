//! Is the service manager told what it relies on: ready, alive, stopping?

use std::{process::Stdio, time::Duration};

use tokio::{net::UnixDatagram, process::Command};

use crate::support::{
    edge::{PROGRAM, device, head},
    plc::{Behaviour, Plc},
};

/// Waits for a message with this line in it.
async fn told(socket: &UnixDatagram, line: &str) {
    let waiting = async {
        let mut buffer = [0; 4096];
        loop {
            let length = socket.recv(&mut buffer).await.unwrap();
            let message = String::from_utf8_lossy(&buffer[..length]);
            if message.lines().any(|found| found == line) {
                return;
            }
        }
    };
    let within = tokio::time::timeout(Duration::from_mins(1), waiting).await;
    assert!(within.is_ok(), "the service manager never heard {line}");
}

/// Both ways of starting: alone, and through the launcher, whose child speaks.
async fn speaks(subcommand: &str) {
    let directory = tempfile::tempdir().unwrap();
    let plc = Plc::start(Behaviour::default()).await;
    let file = directory.path().join("edge.toml");
    std::fs::write(
        &file,
        head(None) + &device("plc", plc.address, "100ms", "800ms", &[0]),
    )
    .unwrap();
    let path = directory.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    let mut child = Command::new(PROGRAM)
        .args([subcommand, "--config"])
        .arg(&file)
        .arg("--data-dir")
        .arg(directory.path().join("data"))
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "600000")
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    told(&socket, "READY=1").await;
    for _ in 0..3 {
        told(&socket, "WATCHDOG=1").await;
    }
    let pid = child.id().unwrap().to_string();
    Command::new("kill").args(["-TERM", &pid]).status().await.unwrap();
    told(&socket, "STOPPING=1").await;
    assert_eq!(child.wait().await.unwrap().code(), Some(0));
}

#[tokio::test]
async fn the_agent_says_when_it_is_ready_alive_and_stopping() {
    speaks("run").await;
}

#[tokio::test]
async fn the_launchers_child_says_so_too() {
    speaks("launch").await;
}
