//! How long from a value to the plant's answer? The whole agent against a Modbus device of the bench: from the reply that
//! bears a value out of limit to the write of the output, with the hub away, the disk full and every core but one
//! busy with something else.
//!
//! Prints a line and writes `reaction.json` into `$FOODFLOW_BENCH_DIR` (default `target/bench` of the repository).
//! `REACTIONS` sets how many, `FULL_DISK=0` leaves the disk as it is.
#![expect(clippy::print_stdout, reason = "a benchmark's answer goes to standard output")]

mod results;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use edge_agent::{
    agent,
    fleet::remote_config,
    uplink::identity::{Identity, save},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_util::sync::CancellationToken;

const VALUE: u16 = 0;
const OUTPUT: u16 = 10;
const IN_LIMIT: u16 = 7320;
const OUT_OF_LIMIT: u16 = 7110;
const GOAL_MS: f64 = 50.0;
const DISK_BYTES: u64 = 48 << 20;
const READ_HOLDING: u8 = 3;
const WRITE_REGISTER: u8 = 6;

fn main() {
    let reactions: usize = number("REACTIONS", 5_000);
    let is_full = number("FULL_DISK", 1) == 1;
    drop(rustls::crypto::ring::default_provider().install_default());
    let busy = BusyThreads::start();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let (mut took_ms, write_errors) = runtime.block_on(measure(reactions, is_full));
    drop(busy);
    took_ms.sort_by(f64::total_cmp);
    let at = |share: f64| took_ms[((took_ms.len() as f64 * share) as usize).min(took_ms.len() - 1)];
    println!(
        "{} reactions, {write_errors} refused disk writes: p50 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms, most {:.2} ms",
        took_ms.len(),
        at(0.5),
        at(0.99),
        at(0.999),
        at(1.0)
    );
    let row = |name: &str, value: f64| {
        json!({
            "name": format!("edge/reaction_{name}"), "value": value, "unit": "ms", "reference": GOAL_MS,
            "ratio": value / GOAL_MS, "goal": GOAL_MS, "pass": value <= GOAL_MS && (write_errors > 0 || !is_full),
        })
    };
    results::write(
        "reaction.json",
        &[row("p50", at(0.5)), row("p99", at(0.99)), row("p999", at(0.999))],
    );
}

fn number(name: &str, default: usize) -> usize {
    // A benchmark is told by its environment; there is no configuration to read it from.
    std::env::var_os(name)
        .and_then(|text| text.to_str()?.parse().ok())
        .unwrap_or(default)
}

/// What an inference does to the machine: a thread on every core but one that never waits.
struct BusyThreads {
    stop: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<u64>>,
}

impl BusyThreads {
    fn start() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let threads = (1..cores.max(2)).map(|_| {
            let stop = stop.clone();
            std::thread::spawn(move || {
                let mut sum = 0u64;
                while !stop.load(Relaxed) {
                    sum = sum.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                }
                sum
            })
        });
        Self {
            threads: threads.collect(),
            stop,
        }
    }
}

impl Drop for BusyThreads {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            std::hint::black_box(thread.join().unwrap_or_default());
        }
    }
}

/// The device: its registers, and when it said what.
struct Device {
    value: u16,
    output: u16,
    /// When the value was first told since it was set.
    told: Option<Instant>,
    writes: mpsc::Sender<(u16, Instant)>,
}

async fn measure(reactions: usize, is_full: bool) -> (Vec<f64>, u64) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (writes, mut written) = mpsc::channel(64);
    let device = Arc::new(Mutex::new(Device {
        value: IN_LIMIT,
        output: 0,
        told: None,
        writes,
    }));
    let shared = device.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, shared.clone()));
        }
    });
    let disk = Disk::make(is_full);
    let data_dir = disk.path.join("data");
    let identity = Identity {
        mqtt_username: "akron/akron-1".to_owned(),
        mqtt_password: "secret".to_owned(),
    };
    save(&data_dir, &identity).expect("an identity in the data directory");
    let file = disk.path.join("edge.toml");
    std::fs::write(&file, config_text(address)).expect("room for the configuration");
    let (config, origin) = remote_config::open(&file, &data_dir).expect("the bench's configuration is right");
    let stop = CancellationToken::new();
    let agent = tokio::spawn({
        let (data_dir, stop) = (data_dir.clone(), stop.clone());
        async move { agent::run(config, origin, &data_dir, stop).await }
    });
    // The output's first value: the agent runs and reacts.
    next(&mut written, 0).await;
    disk.fill();
    let mut took_ms = Vec::with_capacity(reactions);
    let mut is_out = false;
    while took_ms.len() < reactions {
        is_out = !is_out;
        set(&device, if is_out { OUT_OF_LIMIT } else { IN_LIMIT });
        let seen = next(&mut written, u16::from(is_out)).await;
        let told = device.lock().expect("the device's lock").told;
        let told = told.expect("nothing is written before the value was told");
        took_ms.push(seen.duration_since(told).as_secs_f64() * 1e3);
        // Not in step with the polls, and not always at the same distance.
        tokio::time::sleep(Duration::from_micros(
            1_000 + (took_ms.len() as u64 * 7_919) % 9_000,
        ))
        .await;
    }
    let write_errors = write_errors(&data_dir).await;
    // With room again the spool ends in order.
    disk.empty();
    stop.cancel();
    drop(tokio::time::timeout(Duration::from_secs(30), agent).await);
    (took_ms, write_errors)
}

fn set(device: &Mutex<Device>, value: u16) {
    let mut device = device.lock().expect("the device's lock");
    device.value = value;
    device.told = None;
}

/// Waits until the output has this value.
async fn next(written: &mut mpsc::Receiver<(u16, Instant)>, value: u16) -> Instant {
    let waiting = async {
        loop {
            match written.recv().await {
                Some((found, at)) if found == value => return at,
                Some(_) => {}
                None => panic!("the device is gone"),
            }
        }
    };
    tokio::time::timeout(Duration::from_mins(1), waiting)
        .await
        .unwrap_or_else(|_| panic!("the output never became {value}"))
}

fn config_text(address: SocketAddr) -> String {
    // A thousand more tags every second share the pipeline.
    let others: Vec<String> = (100..1_100)
        .map(|register| format!("[[modbus.group.tag]]\nname = \"T-{register}\"\naddress = {register}\n"))
        .collect();
    let others = others.concat();
    format!(
        "[edge]\nname = \"akron-1\"\ntenant = \"akron\"\n[hub]\nmqtt = \"127.0.0.1:9\"\n[local]\nhttp = \"127.0.0.1:0\"\n\
         [spool]\nquota = \"1GiB\"\n\
         [[modbus]]\nname = \"htst\"\naddress = \"{address}\"\nwrites_enabled = true\n\
         [[modbus.group]]\nperiod = \"10ms\"\n\
         [[modbus.group.tag]]\nname = \"TT-101\"\naddress = {VALUE}\ntype = \"i16\"\nscale_digits = 2\n\
         [[modbus]]\nname = \"others\"\naddress = \"{address}\"\n[[modbus.group]]\nperiod = \"1s\"\n{others}\
         [[output]]\nname = \"stop\"\ndevice = \"htst\"\nregister = {OUTPUT}\n\
         [[ccp]]\ncode = \"CCP-1\"\ntag = \"TT-101\"\nlow = 72.0\ngap_max = \"10s\"\n\
         react = {{ output = \"stop\", on_deviation = 1, on_clear = 0 }}\n"
    )
}

async fn serve(mut stream: TcpStream, device: Arc<Mutex<Device>>) {
    drop(stream.set_nodelay(true));
    let mut request = [0u8; 12];
    while stream.read_exact(&mut request).await.is_ok() {
        let now = Instant::now();
        let word = |at: usize| u16::from_be_bytes([request[at], request[at + 1]]);
        let reply = answer(&request, (word(8), word(10)), &device, now);
        if stream.write_all(&reply).await.is_err() {
            return;
        }
    }
}

fn answer(request: &[u8; 12], (address, count): (u16, u16), device: &Mutex<Device>, now: Instant) -> Vec<u8> {
    let mut device = device.lock().expect("the device's lock");
    if request[7] == WRITE_REGISTER {
        device.output = count;
        // When it is full nobody waits for this write.
        device.writes.try_send((count, now)).unwrap_or_default();
        return request.to_vec();
    }
    let mut pdu = vec![request[7]];
    if request[7] == READ_HOLDING {
        pdu.push((count * 2) as u8);
        for register in address..address + count {
            let value = match register {
                VALUE => device.value,
                OUTPUT => device.output,
                other => other,
            };
            pdu.extend_from_slice(&value.to_be_bytes());
        }
        if address == VALUE {
            device.told.get_or_insert(now);
        }
    } else {
        pdu = vec![request[7] | 0x80, 1];
    }
    let mut reply = request[..4].to_vec();
    reply.extend_from_slice(&(pdu.len() as u16 + 1).to_be_bytes());
    reply.push(request[6]);
    reply.extend_from_slice(&pdu);
    reply
}

/// A directory on a file system of its own that can be filled; an ordinary one where mounting is not allowed, whose
/// spool is made read-only instead (which does not stop root).
struct Disk {
    path: PathBuf,
    is_mounted: bool,
    is_full: bool,
}

impl Disk {
    fn make(is_full: bool) -> Self {
        let path = std::env::temp_dir().join(format!("foodflow-reaction-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a temporary directory");
        let is_mounted = is_full
            && Command::new("mount")
                .args(["-t", "tmpfs", "-o", &format!("size={DISK_BYTES}"), "tmpfs"])
                .arg(&path)
                .status()
                .is_ok_and(|status| status.success());
        Self {
            path,
            is_mounted,
            is_full,
        }
    }

    fn empty(&self) {
        if self.is_mounted {
            drop(std::fs::remove_file(self.path.join("filler")));
        } else {
            drop(Command::new("chmod").args(["-R", "u+w"]).arg(&self.path).status());
        }
    }

    fn fill(&self) {
        if self.is_mounted {
            // Ends with "no space left on device", which is what is wanted.
            drop(std::fs::write(
                self.path.join("filler"),
                vec![1u8; DISK_BYTES as usize],
            ));
        } else if self.is_full {
            let spool = self.path.join("data");
            drop(Command::new("chmod").args(["-R", "a-w"]).arg(spool).status());
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.is_mounted {
            drop(Command::new("umount").arg("-l").arg(&self.path).status());
        }
        drop(std::fs::remove_dir_all(&self.path));
    }
}

/// How often the disk refused, by the agent's own page.
async fn write_errors(data_dir: &Path) -> u64 {
    let ready = std::fs::read_to_string(data_dir.join("ready.json")).unwrap_or_default();
    let ready: Value = serde_json::from_str(&ready).unwrap_or_default();
    let url = format!(
        "http://{}/status.json",
        ready["http"].as_str().unwrap_or_default()
    );
    let status = async { reqwest::get(url).await?.text().await };
    let text = status.await.unwrap_or_default();
    let status: Value = serde_json::from_str(&text).unwrap_or_default();
    status["spool_write_errors"].as_u64().unwrap_or(0)
}
