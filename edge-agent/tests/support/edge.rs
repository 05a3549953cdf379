//! The agent under test: its configuration, its process and its status page.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use edge_agent::uplink::identity::{Identity, save};
use serde_json::Value;

/// The program under test.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_foodflow-edge");
const WITHIN: Duration = Duration::from_mins(1);

/// A running `foodflow-edge run`; killed when dropped.
#[derive(Debug)]
pub struct Edge {
    pub data_dir: PathBuf,
    config: PathBuf,
    child: Child,
    http: String,
}

/// The start of every test's configuration.
pub fn head(hub: Option<SocketAddr>) -> String {
    let hub = hub.map_or_else(|| "127.0.0.1:9".to_owned(), |hub| hub.to_string());
    format!(
        "[edge]\nname = \"akron-1\"\ntenant = \"akron\"\n[hub]\nmqtt = \"{hub}\"\n[local]\nhttp = \"127.0.0.1:0\"\n"
    )
}

/// A device with one group of `u16` tags at the given addresses, called `PREFIX-ADDRESS`.
pub fn device(name: &str, address: SocketAddr, period: &str, timeout: &str, addresses: &[u16]) -> String {
    let tags: Vec<String> = addresses
        .iter()
        .map(|address| format!("[[modbus.group.tag]]\nname = \"{name}-{address}\"\naddress = {address}\n"))
        .collect();
    format!(
        "[[modbus]]\nname = \"{name}\"\naddress = \"{address}\"\ntimeout = \"{timeout}\"\n[[modbus.group]]\n\
         period = \"{period}\"\n{}",
        tags.concat()
    )
}

impl Edge {
    /// Starts the agent on a data directory and waits until it serves its page.
    pub async fn start(directory: &Path, config: &str) -> Self {
        Self::start_by(directory, config, &["run"]).await
    }

    /// Starts it by another subcommand that takes the same arguments.
    pub async fn start_by(directory: &Path, config: &str, subcommand: &[&str]) -> Self {
        let log = std::fs::File::create(directory.join("log.txt")).unwrap();
        Self::spawn(directory, config, (log, "info"), subcommand).await
    }

    /// Starts the agent with its log going, at a level, to the end of a file.
    pub async fn start_logging(directory: &Path, config: &str, log: std::fs::File, filter: &str) -> Self {
        Self::spawn(directory, config, (log, filter), &["run"]).await
    }

    async fn spawn(
        directory: &Path,
        config: &str,
        (log, filter): (std::fs::File, &str),
        subcommand: &[&str],
    ) -> Self {
        let file = directory.join("edge.toml");
        std::fs::write(&file, config).unwrap();
        let data_dir = directory.join("data");
        let identity = Identity {
            mqtt_username: "akron/akron-1".to_owned(),
            mqtt_password: "secret".to_owned(),
        };
        save(&data_dir, &identity).unwrap();
        let ready = data_dir.join("ready.json");
        if ready.exists() {
            std::fs::remove_file(&ready).unwrap();
        }
        let mut child = Command::new(PROGRAM)
            .env("RUST_LOG", filter)
            .args(subcommand)
            .args(["--log-json", "--config"])
            .arg(&file)
            .arg("--data-dir")
            .arg(&data_dir)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let http = tokio::time::timeout(WITHIN, async {
            loop {
                if let Ok(text) = std::fs::read_to_string(&ready) {
                    let ready: Value = serde_json::from_str(&text).unwrap();
                    return ready["http"].as_str().unwrap().to_owned();
                }
                let ended = child.try_wait().unwrap();
                assert!(
                    ended.is_none(),
                    "the agent ended: {ended:?}\n{}",
                    log_of(directory)
                );
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await
        .expect("the agent never became ready");
        Self {
            data_dir,
            config: file,
            child,
            http,
        }
    }

    /// Starts the agent with the configuration of before, where it can write nothing, and waits for its page.
    pub async fn start_silent(directory: &Path, http: SocketAddr) -> Self {
        let data_dir = directory.join("data");
        let log = std::fs::File::create(directory.join("log.txt")).unwrap();
        let child = Command::new(PROGRAM)
            .args(["run", "--config"])
            .arg(directory.join("edge.toml"))
            .arg("--data-dir")
            .arg(&data_dir)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut edge = Self {
            data_dir,
            config: directory.join("edge.toml"),
            child,
            http: http.to_string(),
        };
        let waiting = async {
            while std::net::TcpStream::connect(http).is_err() {
                let ended = edge.child.try_wait().unwrap();
                assert!(
                    ended.is_none(),
                    "the agent ended: {ended:?}\n{}",
                    log_of(directory)
                );
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(WITHIN, waiting)
            .await
            .expect("the agent serves its page");
        edge
    }

    /// `/status.json` now.
    pub async fn status(&self) -> Value {
        self.try_status().await.expect("the page is served")
    }

    /// `/status.json` of whatever agent runs now: one that starts its parts anew serves on another port.
    pub async fn try_status(&self) -> Option<Value> {
        let ready = std::fs::read_to_string(self.data_dir.join("ready.json")).ok();
        let ready = ready.and_then(|text| serde_json::from_str::<Value>(&text).ok());
        let http = ready.and_then(|ready| Some(ready["http"].as_str()?.to_owned()));
        // On a full disk there is no ready.json.
        let url = format!("http://{}/status.json", http.unwrap_or_else(|| self.http.clone()));
        let response = client().get(url).send().await.ok()?;
        serde_json::from_str(&response.text().await.ok()?).ok()
    }

    /// A page's text.
    pub async fn page(&self, path: &str) -> String {
        let client = client();
        let url = format!("http://{}{path}", self.http);
        client.get(url).send().await.unwrap().text().await.unwrap()
    }

    /// Opens the form of a page, fills it in and sends it; the answer's status.
    pub async fn post(&self, path: &str, fields: &[(&str, &str)]) -> u16 {
        let (client, url) = (client(), format!("http://{}{path}", self.http));
        let form = client.get(&url).send().await.unwrap();
        let cookie = form.headers()["set-cookie"].to_str().unwrap().to_owned();
        let html = form.text().await.unwrap();
        let hidden = |name: &str| {
            let (_, rest) = html.split_once(&format!("name=\"{name}\" value=\"")).unwrap();
            format!("{name}={}", rest.split('"').next().unwrap())
        };
        let typed = fields.iter().map(|(name, value)| format!("{name}={value}"));
        let pairs: Vec<String> = [hidden("form"), hidden("token")]
            .into_iter()
            .chain(typed)
            .collect();
        let request = client
            .post(&url)
            .header("cookie", cookie.split(';').next().unwrap())
            .header("content-type", "application/x-www-form-urlencoded");
        request
            .body(pairs.join("&"))
            .send()
            .await
            .unwrap()
            .status()
            .as_u16()
    }

    /// Asks for the status until it satisfies `enough`.
    pub async fn until(&self, what: &str, enough: impl Fn(&Value) -> bool) -> Value {
        let waiting = async {
            loop {
                if let Some(status) = self.try_status().await
                    && enough(&status)
                {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        if let Ok(status) = tokio::time::timeout(WITHIN, waiting).await {
            return status;
        }
        panic!("the agent never showed {what}: {:#?}", self.try_status().await)
    }

    /// Writes another configuration and tells the agent to read it.
    pub fn reload(&self, config: &str) {
        std::fs::write(&self.config, config).unwrap();
        let pid = self.child.id().to_string();
        let told = Command::new("kill").args(["-HUP", &pid]).status().unwrap();
        assert!(told.success());
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Resident memory now, KiB.
    pub fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGKILL to the launcher and to what it started, as a power cut would.
    pub fn power_cut(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.kill_started();
    }

    /// Ends what a launcher started, which would outlive it.
    fn kill_started(&self) {
        let ready = std::fs::read_to_string(self.data_dir.join("ready.json")).unwrap_or_default();
        let ready: Value = serde_json::from_str(&ready).unwrap_or_default();
        if let Some(pid) = ready["pid"].as_u64() {
            drop(Command::new("kill").args(["-KILL", &pid.to_string()]).status());
        }
    }

    /// SIGTERM; the exit code.
    pub async fn stop(mut self) -> Option<i32> {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-TERM", &pid])
                .status()
                .unwrap()
                .success()
        );
        tokio::time::timeout(WITHIN, async {
            loop {
                if let Some(status) = self.child.try_wait().unwrap() {
                    return status.code();
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await
        .expect("the agent never stopped")
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        // Already gone after `kill` and `stop`.
        if matches!(self.child.try_wait(), Ok(None)) {
            self.kill_started();
            drop(self.child.kill());
            drop(self.child.wait());
        }
    }
}

fn client() -> reqwest::Client {
    drop(rustls::crypto::ring::default_provider().install_default());
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(Duration::from_secs(5))
        .build()
        .unwrap()
}

/// What the agent logged.
pub fn log_of(directory: &Path) -> String {
    std::fs::read_to_string(directory.join("log.txt")).unwrap_or_default()
}

/// Runs a command of the program on a data directory: its exit code and what it printed.
pub fn ask(command: &[&str], data_dir: &Path) -> (Option<i32>, String) {
    let output = std::process::Command::new(PROGRAM)
        .args(command)
        .arg("--data-dir")
        .arg(data_dir)
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

/// The named source of a status.
pub fn source<'a>(status: &'a Value, name: &str) -> &'a Value {
    let sources = status["sources"].as_array().unwrap();
    sources.iter().find(|source| source["name"] == name).unwrap()
}

/// A counter of a status.
pub fn count(value: &Value) -> u64 {
    value.as_u64().unwrap()
}
