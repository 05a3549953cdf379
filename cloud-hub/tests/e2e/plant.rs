//! How is a whole plant started? A simulator, a hub with its private database and an edge agent, as the real
//! programs in processes of their own. The demo and the end-to-end tests both stand on this.

use std::{
    fs::File,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicU16, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use reqwest::Method;
use serde_json::Value;

/// Tenant, edge and administrator that the seed and the enrolment use.
pub(crate) const TENANT: &str = "akron";
pub(crate) const EDGE: &str = "akron-1";
pub(crate) const ADMIN: &str = "admin@akron.example";

/// How long a program may take to say that it is ready. Generous: a cold, busy two-core machine runs initdb first.
const READY_WITHIN: Duration = Duration::from_mins(2);

/// What to start, and where.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// Everything the programs write goes below this folder.
    pub(crate) root: PathBuf,
    /// Hub HTTP.
    pub(crate) http: SocketAddr,
    /// Hub MQTT.
    pub(crate) mqtt: SocketAddr,
    /// The edge's local status page.
    pub(crate) edge_http: SocketAddr,
    /// Password of the seeded users.
    pub(crate) password: String,
    /// Arguments that make the simulator serve counters instead of the plant.
    pub(crate) load: Vec<String>,
    /// Keep the database's own durability off (tests that kill no database).
    pub(crate) no_fsync: bool,
}

impl Options {
    /// Everything on free ports.
    pub(crate) fn on_free_ports(root: &Path) -> Result<Self> {
        Ok(Self {
            root: root.to_owned(),
            http: free_address()?,
            mqtt: free_address()?,
            edge_http: free_address()?,
            password: "correct horse battery staple".to_owned(),
            load: Vec::new(),
            no_fsync: false,
        })
    }
}

/// An address nobody listens on right now, below the range that outgoing connections take their ports from: a
/// program that is killed and started again must find its port free.
pub(crate) fn free_address() -> Result<SocketAddr> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = std::process::id() as u16 % 4_000 * 5;
    for _ in 0..2_000 {
        let offset = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % 20_000;
        let address = SocketAddr::from(([127, 0, 0, 1], 12_000 + offset));
        if TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
    bail!("no free port between 12000 and 32000")
}

/// One running program; killed when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Process {
    fn spawn(name: &'static str, mut command: Command, log: &Path) -> Result<Self> {
        let file = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| log.display().to_string())?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn();
        let child = child.with_context(|| format!("starting {name}"))?;
        Ok(Self {
            name,
            child,
            log: log.to_owned(),
        })
    }

    /// SIGKILL, as a power cut of this program alone.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGTERM, then wait.
    pub(crate) fn stop(&mut self) -> Result<()> {
        let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        if self.child.try_wait()?.is_none() {
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)?;
            let started = Instant::now();
            while self.child.try_wait()?.is_none() && started.elapsed() < Duration::from_secs(20) {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        if self.child.try_wait()?.is_none() {
            self.kill()?;
        }
        Ok(())
    }

    fn tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    /// Waits until the program has written `file`, and returns its content.
    async fn ready(&mut self, file: &Path) -> Result<Value> {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!(
                    "{} ended with {status} before it was ready:\n{}",
                    self.name,
                    self.tail()
                );
            }
            if let Some(content) = std::fs::read(file)
                .ok()
                .and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok())
                && content["pid"] == self.child.id()
            {
                return Ok(content);
            }
            if started.elapsed() > READY_WITHIN {
                bail!(
                    "{} was not ready within {READY_WITHIN:?}:\n{}",
                    self.name,
                    self.tail()
                );
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Already gone is as good as killed.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A running plant.
#[derive(Debug)]
pub(crate) struct Plant {
    pub(crate) options: Options,
    pub(crate) hub: Process,
    pub(crate) simulator: Process,
    pub(crate) edge: Process,
    pub(crate) control: String,
    pub(crate) token: String,
    client: reqwest::Client,
}

impl Plant {
    /// Starts hub, simulator and edge, seeds the tenant and enrols the edge.
    pub(crate) async fn start(options: Options) -> Result<Self> {
        // reqwest is built without a TLS provider of its own; plain HTTP needs one installed all the same.
        drop(rustls::crypto::ring::default_provider().install_default());
        std::fs::create_dir_all(&options.root)?;
        let hub = start_hub(&options).await?;
        hub_cli(&options, &["seed", "akron", "--password", &options.password])?;
        let (simulator, control) = start_simulator(&options).await?;
        enroll(&options)?;
        let edge = start_edge(&options).await?;
        let token = hub_cli(&options, &["token", "--tenant", TENANT, "--role", "admin"])?;
        let client = reqwest::Client::builder()
            .timeout(Duration::from_secs(20))
            .build()?;
        Ok(Self {
            options,
            hub,
            simulator,
            edge,
            control,
            token,
            client,
        })
    }

    /// Starts the hub again after it was killed.
    pub(crate) async fn restart_hub(&mut self) -> Result<()> {
        self.hub = start_hub(&self.options).await?;
        Ok(())
    }

    /// Starts the edge again after it was killed.
    pub(crate) async fn restart_edge(&mut self) -> Result<()> {
        self.edge = start_edge(&self.options).await?;
        Ok(())
    }

    /// Where a browser finds the hub.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.options.http)
    }

    /// One request to the hub's API with the administrator's token.
    pub(crate) async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Result<(u16, Value)> {
        let url = format!("{}/api/v1/{path}", self.url());
        let mut request = self.client.request(method, &url).bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.with_context(|| url.clone())?;
        let status = response.status().as_u16();
        Ok((status, response.json().await.unwrap_or(Value::Null)))
    }

    /// A change of the version that was seen last; it must succeed.
    pub(crate) async fn change(&self, path: &str, version: &str, body: &Value) -> Result<Value> {
        let url = format!("{}/api/v1/{path}", self.url());
        let request = self.client.put(&url).bearer_auth(&self.token);
        let response = request.header("if-match", version).json(body).send().await?;
        let status = response.status().as_u16();
        let answer = response.json().await.unwrap_or(Value::Null);
        if !(200..300).contains(&status) {
            bail!("PUT {path} answered {status}: {answer}");
        }
        Ok(answer)
    }

    /// A GET that must succeed.
    pub(crate) async fn get(&self, path: &str) -> Result<Value> {
        match self.call(Method::GET, path, None).await? {
            (200, body) => Ok(body),
            (status, body) => bail!("GET {path} answered {status}: {body}"),
        }
    }

    /// Asks the hub until `found` sees what it looks for; the error tells the last answer.
    pub(crate) async fn wait_for<T>(
        &self,
        path: &str,
        within: Duration,
        mut found: impl FnMut(&Value) -> Option<T>,
    ) -> Result<T> {
        let started = Instant::now();
        loop {
            let answer = self.get(path).await;
            if let Ok(body) = &answer
                && let Some(what) = found(body)
            {
                return Ok(what);
            }
            if started.elapsed() > within {
                bail!(
                    "not seen at {path} within {within:?}; last answer: {answer:?}\nedge: {}",
                    self.edge.tail()
                );
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Tells the simulator to run a fault scenario, and returns when it began (microseconds).
    pub(crate) async fn scenario(&self, name: &str) -> Result<i64> {
        let url = format!("http://{}/scenario/{name}", self.control);
        let response = self.client.post(&url).send().await.with_context(|| url.clone())?;
        if !response.status().is_success() {
            bail!(
                "{url} answered {}: {}",
                response.status(),
                response.text().await.unwrap_or_default()
            );
        }
        Ok(now_us())
    }

    /// Stops all programs in an orderly way.
    pub(crate) fn stop(mut self) -> Result<()> {
        self.edge.stop()?;
        self.simulator.stop()?;
        self.hub.stop()
    }
}

/// Microseconds since the epoch.
pub(crate) fn now_us() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |now| now.as_micros() as i64)
}

async fn start_hub(options: &Options) -> Result<Process> {
    let data = options.root.join("hub");
    let mut command = Command::new(program("foodflow-hub")?);
    command.args(["serve", "--embedded"]);
    command
        .arg("--data-dir")
        .arg(&data)
        .arg("--http")
        .arg(options.http.to_string());
    command.arg("--mqtt").arg(options.mqtt.to_string());
    if options.no_fsync {
        command.arg("--unsafe-no-fsync");
    }
    let mut hub = Process::spawn("hub", command, &options.root.join("hub.log"))?;
    hub.ready(&data.join("ready.json")).await?;
    Ok(hub)
}

async fn start_simulator(options: &Options) -> Result<(Process, String)> {
    let data = options.root.join("sim");
    let mut command = Command::new(program("foodflow-edge")?);
    command
        .arg("simulate")
        .arg("--data-dir")
        .arg(&data)
        .args(["--seed", "1"]);
    command.arg("--hub-mqtt").arg(options.mqtt.to_string());
    command.arg("--local-http").arg(options.edge_http.to_string());
    command
        .arg("--vision-manifest")
        .arg(repository().join("vision/models/tray-defects/manifest.json"));
    command.args(&options.load);
    let mut simulator = Process::spawn("simulator", command, &options.root.join("sim.log"))?;
    let ready = simulator.ready(&data.join("ready.json")).await?;
    Ok((
        simulator,
        ready["control"].as_str().unwrap_or_default().to_owned(),
    ))
}

fn enroll(options: &Options) -> Result<()> {
    let code = hub_cli(options, &["enroll-code", "--tenant", TENANT, "--edge", EDGE])?;
    let mut command = Command::new(program("foodflow-edge")?);
    command
        .arg("enroll")
        .arg("--hub")
        .arg(format!("http://{}", options.http));
    command
        .args(["--code", &code])
        .arg("--data-dir")
        .arg(options.root.join("edge"));
    succeed("enroll", &command.output()?).map(drop)
}

async fn start_edge(options: &Options) -> Result<Process> {
    let data = options.root.join("edge");
    let mut command = Command::new(program("foodflow-edge")?);
    command.args(["--log-json", "run", "--config"]);
    command
        .arg(options.root.join("sim/edge.toml"))
        .arg("--data-dir")
        .arg(&data);
    if !options.load.is_empty() {
        // Names every frame once it is durable; the kill test holds the hub to that.
        command.env("RUST_LOG", "warn,edge_agent::spool=debug");
    }
    let mut edge = Process::spawn("edge", command, &options.root.join("edge.log"))?;
    edge.ready(&data.join("ready.json")).await?;
    Ok(edge)
}

/// Runs a command of the hub against its data directory and returns what it printed.
pub(crate) fn hub_cli(options: &Options, args: &[&str]) -> Result<String> {
    let mut command = Command::new(program("foodflow-hub")?);
    command.args(args).arg("--data-dir").arg(options.root.join("hub"));
    succeed(args[0], &command.output()?)
}

fn succeed(what: &str, output: &Output) -> Result<String> {
    if !output.status.success() {
        bail!(
            "{what} failed with {}:\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The repository this was built from.
pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .map(Path::to_owned)
        .unwrap_or_default()
}

/// A program of this workspace, beside the one that is running.
pub(crate) fn program(name: &str) -> Result<PathBuf> {
    let here = std::env::current_exe()?;
    let found = here
        .ancestors()
        .skip(1)
        .take(3)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file());
    found.with_context(|| format!("{name} is not built: run `cargo build --workspace --bins`"))
}
