//! How does a hub run? The one file that knows all its parts: database, ingest, broker, HTTP, maintenance;
//! what starts first and what stops last.

mod maintenance;

use std::{net::SocketAddr, path::Path, sync::Arc, sync::OnceLock, time::Duration};

use anyhow::Context as _;
use axum::Extension;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use sqlx::{ConnectOptions, Connection};
use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    alarm,
    app::App,
    broker::{
        self, Broker, BrokerConfig, Device, DeviceCertificates, Downlinks, External, ExternalConfig, Tap,
        TapConfig, TlsListener,
    },
    config::{Config, ConfigError, TapSettings},
    edges::{
        authority::{DeviceAuthority, NAME_PREFIX},
        clock as edge_clock,
        credential::Gate,
        directory::EdgeDirectory,
        dispatch,
    },
    embedded::{self, Address, Cluster, DATABASE},
    identity::{
        mail::Bell,
        mail_sender::{self, Post},
        upkeep,
    },
    ingest,
    integrate::{projection, webhook},
    integrator,
    integrity::{key::AuditKey, sign_days},
    kernel::{
        clock::Clock,
        database::Target,
        export::Exports,
        key_use::KeyUse,
        seal::SealingKey,
        secret::{self, Secret},
        tenancy::{Db, TenancyError, TenantSlug},
        token::SigningKey,
    },
    router,
    series::{bus::LiveBus, elsewhere, relay::Relay, upkeep as series_upkeep},
    tenant::{
        fleet::{self, Migrated},
        provision,
    },
};

/// How long requests and frames in flight may take once the hub is told to stop.
const DRAIN: Duration = Duration::from_secs(5);
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
/// Messages over HTTP that wait for the intake.
const INTAKE_MESSAGES: usize = 64;
/// Messages of integrators over MQTT that may wait; whoever sent more is not read meanwhile.
const OPEN_MESSAGES: usize = 256;

/// A hub that takes traffic.
#[derive(Debug)]
pub struct Hub {
    /// The shared state.
    pub app: App,
    /// Where HTTP is served.
    pub http: SocketAddr,
    /// Where MQTT is served.
    pub mqtt: SocketAddr,
    /// Where MQTT is served over TLS, if it is.
    pub mqtt_tls: Option<SocketAddr>,
    cluster: Option<Cluster>,
    broker: Broker,
    ingest: JoinHandle<()>,
    ingest_stop: CancellationToken,
    integrators: JoinHandle<()>,
    tasks: TaskTracker,
    stop: CancellationToken,
    /// Cancelled when a part that runs for the hub's whole life ends, however it ends.
    ended: CancellationToken,
}

/// What to start a hub with.
#[derive(Clone, Debug)]
pub struct Options {
    /// The configuration.
    pub config: Config,
    /// Passed to a private cluster.
    pub embedded: embedded::Settings,
}

/// Where the databases are, and the private cluster when the hub runs one.
#[derive(Debug)]
pub struct Databases {
    /// As the login role.
    pub login: Target,
    /// As the owner; absent when an outside server's owner is not known.
    pub owner: Option<Target>,
    /// Runs while this lives.
    pub cluster: Option<Cluster>,
}

impl Databases {
    /// Those of the configuration, starting the private cluster when there is one.
    ///
    /// # Errors
    /// Anything that keeps the database from being reached.
    pub async fn start(config: &Config, settings: embedded::Settings) -> anyhow::Result<Self> {
        if config.database.embedded {
            let cluster = Cluster::start(&config.data_dir, settings).await?;
            let address = cluster.address().clone();
            return Ok(Self {
                cluster: Some(cluster),
                ..Self::of(&address, DATABASE)
            });
        }
        let url = config.database.url.as_ref().ok_or_else(|| {
            ConfigError::Impossible(vec![
                "no database: give --embedded for a private one, or --database-url (database.url) for a server"
                    .to_owned(),
            ])
        })?;
        Ok(Self {
            login: Target::from_url(url)?,
            owner: config
                .database
                .admin_url
                .as_ref()
                .map(Target::from_url)
                .transpose()?,
            cluster: None,
        })
    }

    /// Those of a cluster that somebody else runs.
    pub fn of(address: &Address, database: &str) -> Self {
        Self {
            login: Target::login(address, database),
            owner: Some(Target::owner(address, database)),
            cluster: None,
        }
    }

    /// Whether the login role gets in and the platform's tables are there. A server that is away now is waited for
    /// later; one that refuses would look like one that is away for ever.
    async fn check(&self) -> anyhow::Result<()> {
        let db = Db::new(self.login.requests.clone(), 1, ACQUIRE_TIMEOUT);
        let asked = async {
            let mut tx = db.platform().await?;
            Ok::<_, TenancyError>(provision::tenants(tx.conn()).await?)
        };
        let found = asked.await;
        db.close().await;
        match found {
            Ok(_) => Ok(()),
            Err(error @ TenancyError::Unavailable(_)) => {
                tracing::warn!(%error, "starting without the database");
                Ok(())
            }
            Err(error) => Err(error)
                .context("reading the platform's tables as the login role: was `foodflow-hub migrate` run by the owner?"),
        }
    }

    /// Brings every schema up to date, where the owner is known. A tenant whose migration fails is no error: the
    /// others are served, and this one once its migration has passed.
    ///
    /// # Errors
    /// Anything else that goes wrong.
    pub async fn migrate(&self) -> anyhow::Result<Migrated> {
        let Some(owner) = &self.owner else {
            tracing::warn!("the owner is not known (database.admin_url); the database is taken as it is");
            return Ok(Migrated::default());
        };
        let mut connection = owner
            .requests
            .connect()
            .await
            .context("connecting as the owner")?;
        let migrated = fleet::migrate_all(&mut connection).await?;
        connection.close().await?;
        Ok(migrated)
    }
}

impl Hub {
    /// Starts everything and returns once traffic is taken.
    ///
    /// # Errors
    /// Anything that keeps the hub from serving; nothing is left running then.
    pub async fn start(options: Options) -> anyhow::Result<Self> {
        let databases = Databases::start(&options.config, options.embedded).await?;
        if databases.owner.is_some() {
            let migrated = databases.migrate().await.context("migrating the database")?;
            tracing::info!(
                applied = migrated.applied,
                failed = migrated.failed.len(),
                "the database is up to date"
            );
        } else {
            databases.check().await?;
        }
        Self::start_on(options.config, databases).await
    }

    /// Starts a hub on databases that are up to date.
    ///
    /// # Errors
    /// As [`Hub::start`].
    pub async fn start_on(config: Config, mut databases: Databases) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&config.data_dir)
            .with_context(|| format!("creating {}", config.data_dir.display()))?;
        let name = format!("foodflow-hub:{}", secret::random_text(6));
        databases.login = databases.login.named(&name);
        let app = App {
            name: name.into(),
            db: Db::new(
                databases.login.requests.clone(),
                config.database.connections_max,
                ACQUIRE_TIMEOUT,
            ),
            live: LiveBus::new(),
            clock: Clock::system(),
            signing_key: SigningKey::load_or_create(&config.data_dir).context("reading the signing key")?,
            sealing_key: SealingKey::load_or_create(&config.data_dir).context("reading the sealing key")?,
            key_use: KeyUse::default(),
            audit_key: AuditKey::load_or_create(&config.data_dir).context("reading the audit key")?,
            device_authority: DeviceAuthority::load_or_create(&config.data_dir, Clock::system().now())
                .context("reading the device authority")?,
            owner: databases.owner.clone(),
            mail: Bell::default(),
            exports: Exports::default(),
            metrics: metrics_handle(),
            config: Arc::new(config),
        };
        Box::pin(Self::serve(app, databases)).await
    }

    async fn serve(app: App, databases: Databases) -> anyhow::Result<Self> {
        let (stop, ingest_stop, tasks) = (
            CancellationToken::new(),
            CancellationToken::new(),
            TaskTracker::new(),
        );
        let (uplinks, arriving) = broker::uplinks(app.config.ingest.queue_mib << 20);
        let directory = EdgeDirectory::new(app.db.clone());
        let devices = Arc::new(directory.clone());
        let rules = broker_rules(&app, devices.clone())?;
        let (open, opened) = mpsc::channel(OPEN_MESSAGES);
        let mut broker =
            broker::start_open(broker_config(&app), devices, uplinks.clone(), Some(open.clone())).await?;
        let (far, taps) = external_broker(&app.config, &app.clock)?;
        broker.sessions = broker.sessions.with(far.clone());
        let downlinks = Arc::new(Downlinks {
            near: broker.downlink.clone(),
            far: far.clone(),
        });
        let context = ingest::Context {
            target: databases.login.clone(),
            publish: downlinks.clone(),
            live: app.live.clone(),
            authority: app.device_authority.clone(),
            clock: app.clock.clone(),
            settings: ingest::Settings {
                rows_max: app.config.ingest.rows_max,
                gather: app.config.ingest.gather,
            },
        };
        // Before anybody looks on: what other hubs commit from now on is heard.
        let relay = Box::pin(Relay::start(&databases.login, &app.name)).await;
        let ended = CancellationToken::new();
        let (intake, asked) = mpsc::channel(INTAKE_MESSAGES);
        let integrators = integrator::Context {
            target: databases.login.clone(),
            db: app.db.clone(),
            downlink: broker.downlink.clone(),
            taps: taps.clone(),
            live: app.live.clone(),
            clock: app.clock.clone(),
            sparkplug_host: app.config.mqtt.sparkplug_host.clone(),
            sparkplug_patience: integrator::patience(app.config.mqtt.sparkplug_reorder_timeout),
        };
        for tap in taps {
            let reading = tap.run(databases.login.bulk.clone(), open.clone(), stop.clone());
            tasks.spawn(watched(&ended, reading));
        }
        drop(open);
        let taking = integrator::run(integrators, opened, asked, stop.clone());
        let integrators = tasks.spawn(watched(&ended, taking));
        let ingest = tokio::spawn(watched(
            &ended,
            ingest::run(context, arriving, ingest_stop.clone()),
        ));
        let post = Post::of(&app.config.mail)?;
        tasks.spawn(watched(&ended, mail_sender::run(app.clone(), post, stop.clone())));
        tasks.spawn(watched(&ended, upkeep::run(app.clone(), stop.clone())));
        let maintenance = maintenance::run(app.clone(), databases.login, stop.clone());
        tasks.spawn(watched(&ended, maintenance));
        tasks.spawn(watched(&ended, sign_days::run(app.clone(), stop.clone())));
        tasks.spawn(watched(&ended, projection::run(app.clone(), stop.clone())));
        tasks.spawn(watched(&ended, webhook::run(app.clone(), stop.clone())));
        tasks.spawn(watched(&ended, alarm::duty::run(app.clone(), stop.clone())));
        tasks.spawn(watched(&ended, relay.run(app.clone(), stop.clone())));
        tasks.spawn(watched(&ended, elsewhere::run(app.clone(), stop.clone())));
        tasks.spawn(watched(&ended, edge_clock::run(app.clone(), stop.clone())));
        tasks.spawn(watched(&ended, series_upkeep::run(app.clone(), stop.clone())));
        let sending = dispatch::run(app.clone(), downlinks, broker.sessions.clone(), stop.clone());
        tasks.spawn(watched(&ended, sending));
        match far {
            Some(far) => drop(tasks.spawn(watched(&ended, far.run(uplinks, stop.clone())))),
            None => drop(uplinks),
        }

        let listener = TcpListener::bind(app.config.http.listen)
            .await
            .with_context(|| format!("listening for HTTP on {}", app.config.http.listen))?;
        let http = listener.local_addr()?;
        let gate = Gate::new(directory, broker.sessions.clone());
        let routes = router::build(app.clone(), Arc::new(broker.readiness()), stop.clone())
            .layer(Extension(gate))
            .layer(Extension(integrator::Intake(intake)))
            .layer(Extension(rules))
            .into_make_service_with_connect_info::<SocketAddr>();
        let drained = stop.clone().cancelled_owned();
        tasks.spawn(watched(&ended, async move {
            if let Err(error) = axum::serve(listener, routes)
                .with_graceful_shutdown(drained)
                .await
            {
                tracing::error!(%error, "HTTP ended");
            }
        }));
        Ok(Self {
            http,
            mqtt: broker.local_addr,
            mqtt_tls: broker.tls_addr,
            app,
            cluster: databases.cluster,
            broker,
            ingest,
            ingest_stop,
            integrators,
            tasks,
            stop,
            ended,
        })
    }

    /// The private cluster's process id, when there is one and it runs.
    pub fn postgres_pid(&self) -> Option<i32> {
        self.cluster.as_ref().and_then(Cluster::pid)
    }

    /// Whether an edge can be sent something from here.
    pub fn reaches(&self, tenant: &TenantSlug, edge: &str) -> bool {
        let device = Device {
            tenant: tenant.as_str().to_owned(),
            name: edge.to_owned(),
        };
        self.broker.sessions.connected().contains_key(&device)
    }

    /// Returns when a part ended that should not have: a hub that stores nothing, or answers nobody, must not
    /// look alive.
    pub async fn failed(&self) {
        self.ended.cancelled().await;
    }

    /// Stops: first what takes traffic, once the Sparkplug host has said that it goes, then ingest once it has stored
    /// what it holds, then the database.
    pub async fn stop(self) {
        self.stop.cancel();
        if timeout(DRAIN, self.integrators).await.is_err() {
            tracing::warn!("the Sparkplug host did not say goodbye");
        }
        self.broker.shutdown().await;
        self.tasks.close();
        if timeout(DRAIN, self.tasks.wait()).await.is_err() {
            tracing::warn!("requests still open were cut off");
        }
        if timeout(DRAIN, self.ingest).await.is_err() {
            tracing::warn!("frames still waiting for the database stay with their edges");
            self.ingest_stop.cancel();
        }
        self.app.db.close().await;
        if let Some(cluster) = self.cluster {
            cluster.stop().await;
        }
    }
}

/// Runs a part and says so when it ends, by a panic too.
fn watched<F: Future<Output = ()>>(ended: &CancellationToken, part: F) -> impl Future<Output = ()> + use<F> {
    let guard = ended.clone().drop_guard();
    async move {
        let _guard = guard;
        part.await;
    }
}

fn broker_config(app: &App) -> BrokerConfig {
    let config = &app.config;
    let tls = match (
        &config.mqtt.tls_listen,
        &config.mqtt.cert_file,
        &config.mqtt.key_file,
    ) {
        (Some(listen), Some(cert_file), Some(key_file)) => Some(TlsListener {
            listen: *listen,
            cert_file: cert_file.clone(),
            key_file: key_file.clone(),
            devices: Some(DeviceCertificates {
                client_auth: config.mqtt.tls_client_auth,
                authority_pem: app.device_authority.certificate_pem().to_owned(),
                expired_grace: config.mqtt.tls_expired_grace,
                name_prefix: NAME_PREFIX,
            }),
        }),
        _ => None,
    };
    BrokerConfig {
        listen: config.mqtt.listen,
        tls,
        limits: broker::Limits {
            connections_max: config.mqtt.connections_max,
            device_sessions_max: config.mqtt.device_connections_max,
            tenant_sessions_max: config.mqtt.tenant_connections_max,
            ..broker::Limits::default()
        },
    }
}

/// What a broker outside may ask, and what it shows.
fn broker_rules(app: &App, devices: Arc<EdgeDirectory>) -> anyhow::Result<integrator::broker_rules::Rules> {
    let secret = match &app.config.mqtt.rules_secret_file {
        None => None,
        Some(file) => {
            let secret = std::fs::read_to_string(file)
                .with_context(|| format!("reading `mqtt.rules_secret_file` {}", file.display()))?;
            let secret = secret.trim().to_owned();
            anyhow::ensure!(
                secret.len() >= 16,
                "`mqtt.rules_secret_file` {} holds less than 16 characters; write a long random word into it",
                file.display()
            );
            Some(secret)
        }
    };
    Ok(integrator::broker_rules::Rules::new(devices, secret.as_deref()))
}

/// The plant's own broker, where one is configured: the way of frames, and what integrators send there.
fn external_broker(config: &Config, clock: &Clock) -> anyhow::Result<(Option<External>, Vec<Tap>)> {
    let Some(external) = &config.mqtt.external else {
        return Ok((None, vec![]));
    };
    let address = external
        .address()
        .map_err(|fault| ConfigError::Impossible(vec![fault]))?;
    let password = match &external.password_file {
        Some(file) => std::fs::read_to_string(file)
            .with_context(|| format!("reading mqtt.external.password_file {}", file.display()))?,
        None => String::new(),
    };
    let broker = ExternalConfig {
        host: address.host,
        port: address.port,
        is_tls: address.is_tls,
        ca_file: external.ca_file.clone(),
        login: external
            .username
            .clone()
            .map(|user| (user, Secret::new(password.trim_end()))),
        share_group: external.share_group.clone(),
        client_id: format!("foodflow-hub-{}", secret::random_text(6)),
    };
    let far = External::new(&broker).context("reading mqtt.external.ca_file")?;
    let tap = |tap: &TapSettings| {
        let config = TapConfig {
            device: tap.device(),
            root: tap.root.clone(),
            topics: tap.topics.clone(),
            sparkplug_host: config.mqtt.sparkplug_host.clone(),
        };
        Tap::new(&broker, config, clock.clone()).context("reading mqtt.external.ca_file")
    };
    let taps = external.tap.iter().map(tap).collect::<Result<_, _>>()?;
    Ok((Some(far), taps))
}

/// One recorder serves the process, however many hubs a test starts.
pub fn metrics_handle() -> PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE
        .get_or_init(|| {
            let recorder = PrometheusBuilder::new().build_recorder();
            let handle = recorder.handle();
            if metrics::set_global_recorder(recorder).is_err() {
                tracing::warn!("metrics are recorded by somebody else");
            }
            handle
        })
        .clone()
}

/// Writes `ready.json` as a whole or not at all.
///
/// # Errors
/// When the file cannot be written.
pub fn write_ready(data_dir: &Path, http: SocketAddr, mqtt: SocketAddr) -> std::io::Result<()> {
    let ready = serde_json::json!({ "http": http, "mqtt": mqtt, "pid": std::process::id() });
    let draft = data_dir.join("ready.json.tmp");
    std::fs::write(&draft, ready.to_string())?;
    std::fs::rename(draft, data_dir.join("ready.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_part_that_panics_is_noticed() {
        let ended = CancellationToken::new();
        let lasting = tokio::spawn(watched(&ended, std::future::pending()));
        let part = tokio::spawn(watched(&ended, async { panic!("on purpose") }));
        timeout(DRAIN, ended.cancelled()).await.unwrap();
        assert!(part.await.unwrap_err().is_panic() && !lasting.is_finished());
    }
}
