//! What the benchmarks of the ways in share: an edge that publishes, the CPU time of a process and its children, a file.

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use nix::sys::resource::{UsageWho, getrusage};
use rumqttc::v5::{
    AsyncClient, Event, MqttOptions,
    mqttbytes::{QoS, v5::Packet},
};
use serde_json::Value;

/// Publishes from a thread of its own; gives the CPU time that the thread took in µs, and how long each message waited
/// for its PUBACK, which comes after the commit. `pace`: one message each so long; else as fast as `inflight` allows.
pub(crate) fn publish(
    address: SocketAddr,
    (user, password): (&str, &str),
    messages: Vec<(String, Vec<u8>)>,
    inflight: u16,
    pace: Option<Duration>,
) -> thread::JoinHandle<(f64, Vec<Duration>)> {
    let mut options = MqttOptions::new(user, address.ip().to_string(), address.port());
    options
        .set_credentials(user, password)
        .set_outgoing_inflight_upper_limit(inflight)
        .set_max_packet_size(Some(2 << 20));
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let before = thread_cpu_us();
        let waited = runtime.block_on(deliver(options, messages, pace));
        (thread_cpu_us() - before, waited)
    })
}

pub(crate) async fn deliver(
    options: MqttOptions,
    messages: Vec<(String, Vec<u8>)>,
    pace: Option<Duration>,
) -> Vec<Duration> {
    let (client, mut events) = AsyncClient::new(options, 16);
    let count = messages.len();
    let (told, mut sent_at) = tokio::sync::mpsc::unbounded_channel();
    let feeding = async move {
        for (topic, payload) in messages {
            if let Some(pace) = pace {
                tokio::time::sleep(pace).await;
            }
            let sent = Instant::now();
            client
                .publish(topic, QoS::AtLeastOnce, false, Bytes::from(payload))
                .await
                .expect("the connection lives");
            told.send(sent).expect("somebody listens");
        }
        // The client stays until all is acknowledged.
        std::future::pending::<()>().await;
    };
    let listening = async {
        let mut waited = Vec::with_capacity(count);
        while waited.len() < count {
            if let Event::Incoming(Packet::PubAck(_)) = events.poll().await.expect("the connection lives") {
                let sent: Instant = sent_at.recv().await.expect("it was sent");
                waited.push(sent.elapsed());
            }
        }
        waited
    };
    tokio::select! {
        waited = listening => waited,
        () = feeding => unreachable!("it waits for ever"),
    }
}

pub(crate) async fn join<T: Send + 'static>(thread: thread::JoinHandle<T>) -> T {
    let joined = tokio::task::spawn_blocking(move || thread.join());
    joined
        .await
        .expect("it is joined")
        .expect("the edge's thread ends well")
}

pub(crate) fn thread_cpu_us() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_THREAD).expect("Linux");
    let us = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 * 1e6 + time.tv_usec() as f64;
    us(usage.user_time()) + us(usage.system_time())
}

/// User and system time of this process and all its descendants so far, living and waited for.
pub(crate) fn cpu_us() -> f64 {
    const TICK_US: f64 = 10_000.0;
    let stats: Vec<Vec<u64>> = fs::read_dir("/proc")
        .expect("Linux")
        .flatten()
        .filter_map(|entry| {
            let text = fs::read_to_string(entry.path().join("stat")).ok()?;
            let pid = text.split(' ').next()?.parse().ok()?;
            // After the name in parentheses: state, parent, …; times are fields 14 to 17 of the whole line.
            let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
            let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
            Some(vec![
                pid,
                number(1)?,
                number(11)? + number(12)? + number(13)? + number(14)?,
            ])
        })
        .collect();
    let mut family = vec![u64::from(std::process::id())];
    loop {
        let known = family.len();
        for stat in &stats {
            if family.contains(&stat[1]) && !family.contains(&stat[0]) {
                family.push(stat[0]);
            }
        }
        if family.len() == known {
            break;
        }
    }
    stats
        .iter()
        .filter(|stat| family.contains(&stat[0]))
        .map(|stat| stat[2] as f64 * TICK_US)
        .sum()
}

/// Writes rows for the table of all benchmarks.
pub(crate) fn write(rows: &Value, file: &str) {
    let dir = std::env::var_os("FOODFLOW_BENCH_DIR").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/bench"),
        PathBuf::from,
    );
    fs::create_dir_all(&dir).expect("the directory can be made");
    fs::write(dir.join(file), rows.to_string()).expect("the file can be written");
}
