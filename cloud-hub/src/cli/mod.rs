//! Which commands are there, and what does each exit code mean? 0 done, 1 failed, 2 wrong usage or
//! configuration. What a script reads goes to standard output, everything else to the log on standard error.

mod doctor;
mod integrator;
mod manage;
mod serve;
mod storage;
mod tenant;
mod verify;

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};

use crate::{
    config::{Config, ConfigError, Overrides},
    embedded::{Address, DATABASE, Settings},
    hub::Databases,
    kernel::{role::Role, tenancy::TenantSlug},
};

/// The hub of FoodFlow OS.
#[derive(Debug, Parser)]
#[command(name = "foodflow-hub", version, about)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    place: Place,
    /// Write the log as JSON lines.
    #[arg(long, global = true)]
    log_json: bool,
}

#[derive(Clone, Debug, Args)]
struct Place {
    /// Configuration file (TOML).
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where the hub keeps its key, its private database and ready.json.
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// A PostgreSQL server to use instead of a private one (the hub's login role).
    #[arg(long, global = true, value_name = "URL")]
    database_url: Option<String>,
    /// Do not wait for the disk. For tests only: a power cut loses acknowledged data.
    #[arg(long, global = true, hide = true)]
    unsafe_no_fsync: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Take traffic until told to stop.
    Serve {
        /// Run a private PostgreSQL in the data directory.
        #[arg(long)]
        embedded: bool,
        /// Address of the API and the dashboard; port 0 picks a free one.
        #[arg(long, value_name = "ADDR")]
        http: Option<SocketAddr>,
        /// Address of MQTT; port 0 picks a free one.
        #[arg(long, value_name = "ADDR")]
        mqtt: Option<SocketAddr>,
    },
    /// Bring the database up to date and exit; fails when a tenant is left behind.
    Migrate {
        /// Only this tenant, after the platform.
        #[arg(long, value_parser = TenantSlug::parse)]
        tenant: Option<TenantSlug>,
        /// Change nothing; say where each tenant stands: slug, status, version/expected, word, error.
        #[arg(long)]
        report: bool,
        /// Print where each tenant stands as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Fill a tenant with a demonstration plant; may be repeated.
    Seed {
        /// Which plant.
        #[arg(value_parser = ["akron"])]
        plant: String,
        /// Password of every demonstration user; made up and printed when absent.
        #[arg(long)]
        password: Option<String>,
    },
    /// Make, change, move and remove tenants.
    #[command(subcommand)]
    Tenant(tenant::TenantCommand),
    /// Make users.
    #[command(subcommand)]
    User(UserCommand),
    /// Print a bearer token and nothing else.
    Token {
        /// Tenant slug.
        #[arg(long, value_parser = TenantSlug::parse, requires = "role", required_unless_present = "platform")]
        tenant: Option<TenantSlug>,
        /// admin, supervisor, fsq_manager, operator, integrator or auditor.
        #[arg(long, requires = "tenant")]
        role: Option<Role>,
        /// For an operator of the platform, who makes, suspends and deletes tenants.
        #[arg(long, conflicts_with_all = ["tenant", "role"])]
        platform: bool,
        /// With --platform: who it is for, as the audit chains will name them.
        #[arg(long, requires = "platform", default_value = "operator")]
        name: String,
        /// How long it is good for.
        #[arg(long, default_value = "1h", value_parser = crate::kernel::duration::parse)]
        ttl: std::time::Duration,
    },
    /// Print a one-time code with which an edge gets its identity.
    EnrollCode {
        /// Tenant slug.
        #[arg(long, value_parser = TenantSlug::parse)]
        tenant: TenantSlug,
        /// Name of the edge.
        #[arg(long)]
        edge: String,
    },
    /// Walk a tenant's audit chain and name the first row that does not hold.
    Verify(verify::VerifyArguments),
    /// Print the description of the API (OpenAPI, JSON).
    Openapi,
    /// Say how the hub would understand an integrator's message, without sending it; fails when it would take none of it.
    Explain(integrator::ExplainArguments),
    /// What a broker outside is told.
    #[command(subcommand)]
    Mqtt(integrator::MqttCommand),
    /// Look after the storage of readings by hand.
    #[command(subcommand)]
    Storage(storage::StorageCommand),
    /// Say how the hub's surroundings are; 3 when something needs attention.
    Doctor {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
enum UserCommand {
    /// Make a user, or change the password and role of one.
    Create {
        /// Tenant slug.
        #[arg(long, value_parser = TenantSlug::parse)]
        tenant: TenantSlug,
        /// Address to sign in with.
        #[arg(long)]
        email: String,
        /// What to do.
        #[arg(long)]
        role: Role,
        /// Name for people; the address when absent.
        #[arg(long)]
        name: Option<String>,
        /// Made up and printed when absent.
        #[arg(long)]
        password: Option<String>,
    },
}

impl Place {
    fn settings(&self) -> Settings {
        Settings {
            fsync: !self.unsafe_no_fsync,
            preload: None,
        }
    }

    fn overrides(&self) -> Overrides {
        Overrides {
            data_dir: self.data_dir.clone(),
            database_url: self.database_url.clone(),
            ..Overrides::default()
        }
    }

    /// The database, up to date, for a command that runs beside the hub or without it.
    async fn open(&self) -> anyhow::Result<(Config, Databases)> {
        let (config, databases) = self.reach().await?;
        // A hub that runs has brought its cluster up to date; an outside server is only where its owner is known.
        if databases.cluster.is_some() || (databases.owner.is_some() && !config.database.embedded) {
            databases.migrate().await?;
        }
        Ok((config, databases))
    }

    /// The database as it is: the hub's own cluster when it runs, else the cluster is started for the command.
    async fn reach(&self) -> anyhow::Result<(Config, Databases)> {
        let mut config = Config::load(self.config.as_deref(), &self.overrides())?;
        config.database.embedded |= config.database.url.is_none();
        if config.database.embedded
            && let Some(running) = running(&config).await
        {
            return Ok((config, running));
        }
        match Databases::start(&config, self.settings()).await {
            Ok(databases) => Ok((config, databases)),
            // A hub was just starting: by now it runs.
            Err(error) => match running(&config).await {
                Some(running) => Ok((config, running)),
                None => Err(error),
            },
        }
    }
}

/// The database of the hub that runs on this data directory, when one does.
async fn running(config: &Config) -> Option<Databases> {
    let address = Address::read(&config.data_dir)?;
    address.answers().await.then(|| Databases::of(&address, DATABASE))
}

/// Sends the log to standard error, `RUST_LOG` deciding what of it.
pub fn start_log(arguments: &Arguments) {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,sqlx=warn,rumqttd=warn"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_writer(std::io::stderr);
    let started = if arguments.log_json {
        // One flat line; what names the request (tenant, correlation id, route, principal) is under `span`.
        log.json()
            .flatten_event(true)
            .with_current_span(true)
            .with_span_list(false)
            .try_init()
    } else {
        log.try_init()
    };
    if let Err(error) = started {
        tracing::warn!(%error, "the log was started before");
    }
}

/// Runs a command.
pub async fn run(arguments: Arguments) -> ExitCode {
    let place = arguments.place;
    let done = match arguments.command {
        Command::Serve { embedded, http, mqtt } => Box::pin(serve::run(&place, embedded, http, mqtt)).await,
        Command::Migrate { tenant, report, json } => {
            tenant::migrate(&place, tenant.as_ref(), report, json).await
        }
        Command::Seed { plant: _, password } => manage::seed(&place, password).await,
        Command::Tenant(command) => tenant::run(&place, command).await,
        Command::User(UserCommand::Create {
            tenant,
            email,
            role,
            name,
            password,
        }) => manage::create_user(&place, &tenant, &email, role, name, password).await,
        Command::Token {
            tenant: Some(tenant),
            role: Some(role),
            ttl,
            ..
        } => manage::token(&place, &tenant, role, ttl).await,
        Command::Token { name, ttl, .. } => tenant::platform_token(&place, &name, ttl).await,
        Command::EnrollCode { tenant, edge } => manage::enroll_code(&place, &tenant, &edge).await,
        Command::Verify(given) => verify::run(&place, &given).await,
        Command::Openapi => manage::openapi(),
        Command::Explain(given) => integrator::explain(&given),
        Command::Mqtt(command) => integrator::run(&place, command).await,
        Command::Storage(command) => storage::run(&place, command).await,
        Command::Doctor { json } => doctor::run(&place, json).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            if error.is::<ConfigError>() {
                ExitCode::from(2)
            } else if error.is::<doctor::Attention>() {
                ExitCode::from(3)
            } else if storage::is_refusal(&error) {
                ExitCode::from(4)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}
