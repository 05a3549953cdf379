//! How does the hub bring its own database? A private PostgreSQL cluster under the data directory: initialised
//! once, reachable only through a socket in a private directory, kept alive while the hub lives.

mod binaries;
mod keeper;
mod place;

use std::{
    fs::{File, TryLockError},
    io,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection,
    postgres::{PgConnectOptions, PgSslMode},
};

pub use binaries::Binaries;
use keeper::Keeper;
use place::Place;

/// The cluster's superuser, which owns every schema.
pub const OWNER_ROLE: &str = "foodflow_owner";
/// The database of the hub.
pub const DATABASE: &str = "foodflow";

const START_WAIT: Duration = Duration::from_mins(1);
const STOP_WAIT: Duration = Duration::from_secs(30);
const LOCK_WAIT: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(20);

/// Why there is no private cluster.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// PostgreSQL is not installed, or not in the version that the data was written with.
    #[error("{0}")]
    NoBinaries(String),
    /// Running as root without an account to drop to.
    #[error("PostgreSQL refuses to run as root and there is no user `postgres` to run it as")]
    NoUser,
    /// Another hub works on the same data.
    #[error("another hub uses {0}")]
    Busy(PathBuf),
    /// A program failed; the message is its own.
    #[error("{program} failed: {message}")]
    Failed {
        /// `initdb` or `postgres`.
        program: &'static str,
        /// Its last words.
        message: String,
    },
    /// It did not get ready, or did not stop, in time.
    #[error("PostgreSQL did not {0} in time; see {1}")]
    TooSlow(&'static str, PathBuf),
    /// Files.
    #[error("cannot prepare {path}")]
    Files {
        /// Where.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// SQL.
    #[error("the private database refused")]
    Database(#[from] sqlx::Error),
}

pub(crate) fn files(path: &Path) -> impl FnOnce(io::Error) -> EmbeddedError {
    let path = path.to_owned();
    move |source| EmbeddedError::Files { path, source }
}

/// How to reach a running cluster; kept as `postgres.json` in the data directory for other commands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// Directory of the Unix socket.
    pub socket_dir: PathBuf,
}

impl Address {
    /// Reads what a cluster wrote about itself; none when there never was one.
    pub fn read(data_dir: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(data_dir.join("postgres.json")).ok()?).ok()
    }

    /// Options for connecting to `database` as `role`.
    pub fn options(&self, database: &str, role: &str) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
            .socket(&self.socket_dir)
            .port(5432)
            .username(role)
            .database(database)
            .ssl_mode(PgSslMode::Disable)
            .disable_statement_logging()
    }

    /// Whether a server answers there now.
    pub async fn answers(&self) -> bool {
        let options = self.options("postgres", OWNER_ROLE);
        match tokio::time::timeout(Duration::from_secs(2), options.connect()).await {
            Ok(Ok(connection)) => connection.close().await.is_ok(),
            _ => false,
        }
    }
}

/// What may differ between a plant's cluster and a test's.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Wait for the disk at each commit. Off only in tests: a power cut would lose acknowledged data.
    pub fsync: bool,
    /// A library to load at the start, such as `timescaledb`.
    pub preload: Option<&'static str>,
}

/// A running private cluster. Dropping it stops PostgreSQL without waiting; [`Cluster::stop`] waits.
#[derive(Debug)]
pub struct Cluster {
    address: Address,
    keeper: Keeper,
    _lock: File,
}

impl Cluster {
    /// Starts the cluster of `data_dir`, initialising it the first time.
    ///
    /// # Errors
    /// [`EmbeddedError`].
    pub async fn start(data_dir: &Path, settings: Settings) -> Result<Self, EmbeddedError> {
        std::fs::create_dir_all(data_dir).map_err(files(data_dir))?;
        let lock = lock(data_dir, "hub.lock").await?;
        let place = Place::prepare(data_dir)?;
        let binaries = Binaries::find(&place.data())?;
        if !place.data().join("PG_VERSION").exists() {
            initialise(&place, &binaries)?;
        }
        end_orphan(&place).await?;
        let address = Address {
            socket_dir: place.socket_dir.clone(),
        };
        let keeper = Keeper::start(move || server(&place, &binaries, settings))
            .map_err(files(&data_dir.join("postgres")))?;
        let cluster = Self {
            address,
            keeper,
            _lock: lock,
        };
        cluster.wait_until_ready(data_dir).await?;
        cluster.ensure_database(DATABASE).await?;
        let json = serde_json::to_vec(&cluster.address).expect("an address serialises");
        let path = data_dir.join("postgres.json");
        std::fs::write(&path, json).map_err(files(&path))?;
        Ok(cluster)
    }

    /// How to reach it.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The server's process id while it runs.
    pub fn pid(&self) -> Option<i32> {
        self.keeper.pid()
    }

    /// Stops the server and waits for it.
    pub async fn stop(self) {
        let Self {
            keeper, _lock: lock, ..
        } = self;
        // Joining the keeper's thread blocks; a failure means that it panicked, and then the server is gone too.
        if tokio::task::spawn_blocking(move || keeper.stop()).await.is_err() {
            tracing::error!("the keeper of PostgreSQL failed while stopping");
        }
        drop(lock);
    }

    async fn wait_until_ready(&self, data_dir: &Path) -> Result<(), EmbeddedError> {
        let deadline = Instant::now() + START_WAIT;
        while !self.address.answers().await {
            if Instant::now() > deadline {
                return Err(EmbeddedError::TooSlow(
                    "start",
                    data_dir.join("postgres/postgres.log"),
                ));
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// Creates `database` unless it is there.
    async fn ensure_database(&self, database: &str) -> Result<(), EmbeddedError> {
        let mut connection = self.address.options("postgres", OWNER_ROLE).connect().await?;
        let exists: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
            .bind(database)
            .fetch_one(&mut connection)
            .await?;
        if !exists {
            sqlx::raw_sql(AssertSqlSafe(format!("CREATE DATABASE {database}")))
                .execute(&mut connection)
                .await?;
        }
        Ok(connection.close().await?)
    }
}

/// One process at a time holds the file `name`. One that is just going away is waited for.
pub(crate) async fn lock(data_dir: &Path, name: &str) -> Result<File, EmbeddedError> {
    let path = data_dir.join(name);
    let file = File::create(&path).map_err(files(&path))?;
    let deadline = Instant::now() + LOCK_WAIT;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => tokio::time::sleep(POLL).await,
            Err(TryLockError::WouldBlock) => return Err(EmbeddedError::Busy(data_dir.to_owned())),
            Err(TryLockError::Error(error)) => return Err(files(&path)(error)),
        }
    }
}

/// `initdb` into a draft directory that is renamed when complete: a crash in between leaves nothing half made.
fn initialise(place: &Place, binaries: &Binaries) -> Result<(), EmbeddedError> {
    let draft = place.base.join("data.new");
    if draft.exists() {
        std::fs::remove_dir_all(&draft).map_err(files(&draft))?;
    }
    let mut command = Command::new(binaries.program("initdb"));
    command
        .arg("--pgdata")
        .arg(&draft)
        .args(["--username", OWNER_ROLE, "--auth", "trust"])
        .args(["--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync"]);
    let output = place
        .as_owner(&mut command)
        .output()
        .map_err(files(&binaries.program("initdb")))?;
    if !output.status.success() {
        return Err(EmbeddedError::Failed {
            program: "initdb",
            message: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        });
    }
    std::fs::rename(&draft, place.data()).map_err(files(&draft))
}

/// The command that runs the server in the foreground.
fn server(place: &Place, binaries: &Binaries, settings: Settings) -> io::Result<Command> {
    let log = File::options().create(true).append(true).open(place.log())?;
    let mut command = Command::new(binaries.program("postgres"));
    command.arg("-D").arg(place.data());
    let socket_dir = place.socket_dir.display();
    let fsync = if settings.fsync { "on" } else { "off" };
    let parameters = [
        "listen_addresses=".to_owned(),
        format!("unix_socket_directories={socket_dir}"),
        "unix_socket_permissions=0700".to_owned(),
        "max_connections=100".to_owned(),
        "shared_buffers=128MB".to_owned(),
        "max_wal_size=2GB".to_owned(),
        "timezone=UTC".to_owned(),
        "log_timezone=UTC".to_owned(),
        "log_min_messages=warning".to_owned(),
        format!("fsync={fsync}"),
        format!("full_page_writes={fsync}"),
        // Never relaxed: an acknowledgement says that the data is on disk.
        "synchronous_commit=on".to_owned(),
    ];
    let preload = settings
        .preload
        .map(|library| format!("shared_preload_libraries={library}"));
    for parameter in parameters.into_iter().chain(preload) {
        command.arg("-c").arg(parameter);
    }
    command
        .stdin(std::process::Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    place.as_owner(&mut command);
    Ok(command)
}

/// A server whose hub was killed is shutting down or still serving nobody: end it and wait, then start our own.
async fn end_orphan(place: &Place) -> Result<(), EmbeddedError> {
    let Some(pid) = place.live_postmaster() else {
        return Ok(());
    };
    tracing::info!(pid, "ending the PostgreSQL that an earlier hub left behind");
    let deadline = Instant::now() + STOP_WAIT;
    keeper::signal(pid, nix::sys::signal::Signal::SIGINT);
    while place.live_postmaster() == Some(pid) {
        if Instant::now() > deadline {
            return Err(EmbeddedError::TooSlow("stop", place.log()));
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}
