//! How does a test get a hub? One private PostgreSQL a test process, started when first needed and gone with the
//! process; one database a test, copied from a template that holds both demonstration tenants.
#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    missing_docs,
    clippy::unwrap_used,
    clippy::let_underscore_must_use,
    reason = "each test binary uses its part, and a test fails where it stands"
)]

mod edge;

use std::{
    fs::File,
    path::{Path, PathBuf},
    time::Duration,
};

use cloud_hub::{
    config::{Config, Overrides},
    embedded::{Address, Cluster, OWNER_ROLE, Settings},
    hub::{Databases, Hub},
    kernel::{
        clock::Clock,
        password,
        role::Role,
        tenancy::{Db, TenantSlug},
        token::Claims,
    },
    seed,
    tenant::{enrolment, provision, user},
};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection};
use tokio::sync::OnceCell;
use uuid::Uuid;

pub use edge::{FrameMaker, MqttEdge};

/// Password of every demonstration user.
pub const PASSWORD: &str = "akron-demo-1";
const TEMPLATE: &str = "foodflow_template";

/// The tenant that tests work in.
pub fn akron() -> TenantSlug {
    TenantSlug::parse("akron").unwrap()
}

/// The tenant that must never be seen from Akron.
pub fn cuyahoga() -> TenantSlug {
    TenantSlug::parse("cuyahoga").unwrap()
}

/// A database of its own, with both demonstration tenants.
#[derive(Debug)]
pub struct TestDatabase {
    pub databases: Databases,
    pub db: Db,
}

impl TestDatabase {
    pub async fn create() -> Self {
        let cluster = shared_cluster().await;
        let name = format!("t{}", Uuid::now_v7().simple());
        copy_template(cluster.address(), &name).await;
        Self::open(cluster.address(), &name)
    }

    /// On a cluster of the test's own, which it may kill.
    pub async fn create_on(cluster: &Cluster) -> Self {
        prepare_template(cluster.address()).await;
        Self::open(cluster.address(), TEMPLATE)
    }

    /// The database of [`TestDatabase::create_on`], after its cluster was started again.
    pub fn reopen_on(cluster: &Cluster) -> Self {
        Self::open(cluster.address(), TEMPLATE)
    }

    /// Without any table.
    pub async fn create_empty() -> Self {
        let address = shared_cluster().await.address();
        let name = format!("t{}", Uuid::now_v7().simple());
        run(address, "postgres", format!("CREATE DATABASE {name}")).await;
        Self::open(address, &name)
    }

    fn open(address: &Address, name: &str) -> Self {
        let databases = Databases::of(address, name);
        let db = Db::new(databases.login.requests.clone(), 4, Duration::from_secs(10));
        Self { databases, db }
    }

    /// A connection of the database's owner, who is the superuser here.
    pub async fn owner(&self) -> PgConnection {
        let owner = self.databases.owner.as_ref().unwrap();
        owner.requests.connect().await.unwrap()
    }

    /// URL of this database for another process, as a role.
    pub fn url(&self, role: &str) -> String {
        let options = &self.databases.login.requests;
        let socket_dir = options
            .get_socket()
            .unwrap()
            .to_str()
            .unwrap()
            .replace('/', "%2F");
        let name = options.get_database().unwrap();
        format!("postgres://{role}@{socket_dir}:5432/{name}")
    }

    /// Another handle on the same database.
    pub fn again(&self) -> Self {
        let databases = Databases {
            login: self.databases.login.clone(),
            owner: self.databases.owner.clone(),
            cluster: None,
        };
        let db = Db::new(databases.login.requests.clone(), 4, Duration::from_secs(10));
        Self { databases, db }
    }

    /// One number from one tenant.
    pub async fn count(&self, tenant: &TenantSlug, sql: &'static str) -> i64 {
        let mut tx = self.db.begin(tenant).await.unwrap();
        sqlx::query_scalar(sql).fetch_one(tx.conn()).await.unwrap()
    }
}

/// A hub in this process, on a database of its own.
#[derive(Debug)]
pub struct TestHub {
    pub hub: Hub,
    pub db: Db,
    dir: tempfile::TempDir,
}

impl TestHub {
    pub async fn start() -> Self {
        Self::start_on(TestDatabase::create().await).await
    }

    pub async fn start_on(database: TestDatabase) -> Self {
        Self::start_configured(database, |_| ()).await
    }

    /// With a configuration of its own.
    pub async fn start_with(configure: impl FnOnce(&mut Config)) -> Self {
        Self::start_configured(TestDatabase::create().await, configure).await
    }

    pub async fn start_configured(database: TestDatabase, configure: impl FnOnce(&mut Config)) -> Self {
        Self::start_in(database, tempfile::tempdir().unwrap(), configure).await
    }

    /// With a data directory that may hold keys already.
    pub async fn start_in(
        database: TestDatabase,
        dir: tempfile::TempDir,
        configure: impl FnOnce(&mut Config),
    ) -> Self {
        let overrides = Overrides {
            data_dir: Some(dir.path().to_owned()),
            http: Some("127.0.0.1:0".parse().unwrap()),
            mqtt: Some("127.0.0.1:0".parse().unwrap()),
            ..Overrides::default()
        };
        let mut config = Config::load(None, &overrides).unwrap();
        configure(&mut config);
        let login = database.databases.login.clone();
        let hub = Hub::start_on(config, database.databases).await.unwrap();
        // In the hub's name: what a test writes beside it is not another hub's news.
        let login = login.named(&hub.app.name);
        Self {
            db: Db::new(login.requests, 4, Duration::from_secs(10)),
            hub,
            dir,
        }
    }

    /// Address of a path, `/api/v1/…`.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.hub.http)
    }

    pub fn data_dir(&self) -> &Path {
        self.dir.path()
    }

    /// A bearer token of Akron's demonstration user of that role.
    pub async fn token(&self, role: Role) -> String {
        self.token_in(&akron(), role).await
    }

    pub async fn token_in(&self, tenant: &TenantSlug, role: Role) -> String {
        let mut tx = self.db.begin(tenant).await.unwrap();
        let sub = user::first_with(&mut tx, role).await.unwrap();
        self.issue(tenant, sub.unwrap_or_default(), role, None, 900)
    }

    /// A token of Akron's that is good for longer than a session's.
    pub async fn lasting_token(&self, role: Role, ttl_s: i64) -> String {
        let mut tx = self.db.begin(&akron()).await.unwrap();
        let sub = user::first_with(&mut tx, role).await.unwrap();
        self.issue(&akron(), sub.unwrap_or_default(), role, None, ttl_s)
    }

    /// A bearer token of one user, who has what was granted to them.
    pub fn token_of(&self, tenant: &TenantSlug, user: Uuid, session: Option<Uuid>) -> String {
        self.issue(tenant, user, Role::Auditor, session, 900)
    }

    fn issue(&self, tenant: &TenantSlug, sub: Uuid, role: Role, sid: Option<Uuid>, ttl_s: i64) -> String {
        let now_s = Clock::system().now().timestamp();
        self.hub.app.signing_key.issue(&Claims {
            sub,
            tenant: tenant.as_str().to_owned(),
            role,
            sid,
            iat: now_s,
            exp: now_s + ttl_s,
        })
    }

    /// A bearer token of one account of Akron, given at a sign-in.
    pub fn token_in_session(&self, user: Uuid, session: Option<Uuid>) -> String {
        self.token_of(&akron(), user, session)
    }

    /// A new user with a role of their own that holds these permissions everywhere.
    pub async fn person(&self, tenant: &TenantSlug, permissions: &[&str]) -> Uuid {
        let (user, role) = (Uuid::now_v7(), Uuid::now_v7());
        let mut tx = self.db.begin(tenant).await.unwrap();
        let permissions: Vec<String> = permissions.iter().map(ToString::to_string).collect();
        sqlx::query(
            "WITH u AS (INSERT INTO app_user (id, email, display_name, email_verified_at) \
               VALUES ($1, 'p' || $1 || '@example.org', 'Person', now())), \
             r AS (INSERT INTO role (id, name) VALUES ($2, 'r' || replace($2::text, '-', ''))), \
             p AS (INSERT INTO role_permission (role_id, permission) SELECT $2, unnest($3::text[])) \
             INSERT INTO user_role (user_id, role_id) VALUES ($1, $2)",
        )
        .bind(user)
        .bind(role)
        .bind(permissions)
        .execute(tx.conn())
        .await
        .unwrap();
        tx.commit_unaudited("a test's person").await.unwrap();
        user
    }

    /// One number from one tenant.
    pub async fn count(&self, tenant: &TenantSlug, sql: &'static str) -> i64 {
        let mut tx = self.db.begin(tenant).await.unwrap();
        sqlx::query_scalar(sql).fetch_one(tx.conn()).await.unwrap()
    }

    /// Changes a tenant's rows behind the API's back.
    pub async fn execute(&self, tenant: &TenantSlug, sql: &'static str, ids: &[Uuid]) {
        let mut tx = self.db.begin(tenant).await.unwrap();
        let statement = ids
            .iter()
            .fold(sqlx::query(sql), |statement, id| statement.bind(*id));
        statement.execute(tx.conn()).await.unwrap();
        tx.commit_unaudited("a test's change").await.unwrap();
    }

    /// Enrols an edge of Akron and connects it.
    pub async fn edge(&self, name: &str) -> MqttEdge {
        let now = Clock::system().now();
        let code = enrolment::create_code(&self.db, &akron(), name, now)
            .await
            .unwrap();
        let identity = enrolment::redeem(&self.db, &code, now).await.unwrap();
        MqttEdge::connect(self.hub.mqtt, &identity).await
    }
}

/// Starts a cluster in a directory; nothing is waited to disk.
pub async fn start_cluster(dir: &Path) -> Cluster {
    start_cluster_with(dir, None).await
}

/// With a library loaded at the start.
pub async fn start_cluster_with(dir: &Path, preload: Option<&'static str>) -> Cluster {
    let settings = Settings {
        fsync: false,
        preload,
    };
    Cluster::start(dir, settings).await.unwrap()
}

async fn shared_cluster() -> &'static Cluster {
    static CLUSTER: OnceCell<Cluster> = OnceCell::const_new();
    CLUSTER
        .get_or_init(|| async {
            let dir = process_dir(std::process::id());
            sweep();
            copy_prepared(&dir).await;
            start_cluster(&dir).await
        })
        .await
}

/// Copies a cluster that holds the template already. The first test process of a build prepares it while the
/// others wait; copying costs a tenth of `initdb`, migrations and seed.
async fn copy_prepared(dir: &Path) {
    let program = std::fs::metadata(std::env::current_exe().unwrap()).unwrap();
    let built = program
        .modified()
        .unwrap()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    let prepared = std::env::temp_dir().join(format!(
        "foodflow-template-{}-{}",
        built.as_nanos(),
        program.len()
    ));
    let lock = File::create(prepared.with_extension("lock")).unwrap();
    lock.lock().unwrap();
    if !prepared.exists() {
        let draft = prepared.with_extension("draft");
        drop(std::fs::remove_dir_all(&draft));
        let cluster = start_cluster(&draft).await;
        prepare_template(cluster.address()).await;
        cluster.stop().await;
        std::fs::rename(&draft, &prepared).unwrap();
    }
    let copied = std::process::Command::new("cp")
        .args(["--archive", "--reflink=auto"])
        .arg(&prepared)
        .arg(dir)
        .status()
        .unwrap();
    assert!(copied.success(), "the prepared cluster can be copied");
}

fn process_dir(pid: u32) -> PathBuf {
    std::env::temp_dir().join(format!("foodflow-test-{pid}"))
}

/// A static is never dropped: what test processes that are gone left behind is removed by the next, and so are
/// prepared clusters of earlier builds.
fn sweep() {
    const OLD: Duration = Duration::from_mins(30);
    for entry in std::fs::read_dir(std::env::temp_dir())
        .into_iter()
        .flatten()
        .flatten()
    {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let is_orphan = name
            .strip_prefix("foodflow-test-")
            .is_some_and(|pid| !Path::new("/proc").join(pid).exists());
        let is_old = name.starts_with("foodflow-template-")
            && entry
                .metadata()
                .and_then(|metadata| metadata.modified())
                .is_ok_and(|modified| modified.elapsed().is_ok_and(|age| age > OLD));
        if is_orphan || is_old {
            // Another process may be removing the same.
            drop(std::fs::remove_dir_all(entry.path()));
        }
    }
}

async fn prepare_template(address: &Address) {
    run(address, "postgres", format!("CREATE DATABASE {TEMPLATE}")).await;
    let databases = Databases::of(address, TEMPLATE);
    databases.migrate().await.unwrap();
    let mut owner = databases
        .owner
        .as_ref()
        .unwrap()
        .requests
        .connect()
        .await
        .unwrap();
    for tenant in seed::tenants() {
        provision::provision(&mut owner, &tenant.slug, &tenant.name)
            .await
            .unwrap();
    }
    owner.close().await.unwrap();
    let db = Db::new(databases.login.requests.clone(), 1, Duration::from_secs(10));
    let hash = password::hash(PASSWORD).unwrap();
    seed::akron(&db, &hash, Clock::system().now()).await.unwrap();
    db.close().await;
}

async fn copy_template(address: &Address, name: &str) {
    run(
        address,
        "postgres",
        format!("CREATE DATABASE {name} TEMPLATE {TEMPLATE}"),
    )
    .await;
}

async fn run(address: &Address, database: &str, sql: String) {
    let mut connection = address.options(database, OWNER_ROLE).connect().await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
}
