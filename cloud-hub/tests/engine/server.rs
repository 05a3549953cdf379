//! A database server of the plant's own instead of the private cluster: an owner with no more rights than needed
//! prepares it, the hub starts with the login role alone, and says so when nobody prepared it.

use cloud_hub::{
    config::{Config, Overrides},
    embedded::{Address, OWNER_ROLE, Settings},
    hub::{Databases, Hub, Options},
    kernel::tenancy::{Db, LOGIN_ROLE},
    tenant::provision,
};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};

use crate::support::{akron, start_cluster};

const SETTINGS: Settings = Settings {
    fsync: false,
    preload: None,
};

async fn as_superuser(address: &Address, sql: &str) {
    let mut connection = address.options("postgres", OWNER_ROLE).connect().await.unwrap();
    for statement in sql.split(';') {
        sqlx::raw_sql(AssertSqlSafe(statement.to_owned()))
            .execute(&mut connection)
            .await
            .unwrap();
    }
    connection.close().await.unwrap();
}

fn url(address: &Address, role: &str) -> String {
    let socket_dir = address.socket_dir.to_str().unwrap().replace('/', "%2F");
    format!("postgres://{role}@{socket_dir}:5432/plant")
}

#[tokio::test]
async fn an_owner_without_superusers_rights_prepares_a_server_for_the_login_role() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = start_cluster(&dir.path().join("server")).await;
    let address = cluster.address().clone();
    as_superuser(
        &address,
        "CREATE ROLE keeper LOGIN CREATEROLE; CREATE ROLE foodflow_app LOGIN NOINHERIT; CREATE DATABASE plant OWNER keeper",
    )
    .await;
    let overrides = Overrides {
        data_dir: Some(dir.path().join("hub")),
        http: Some("127.0.0.1:0".parse().unwrap()),
        mqtt: Some("127.0.0.1:0".parse().unwrap()),
        database_url: Some(url(&address, LOGIN_ROLE)),
        ..Overrides::default()
    };
    let config = Config::load(None, &overrides).unwrap();
    let options = Options {
        config: config.clone(),
        embedded: SETTINGS,
    };
    let unprepared = Hub::start(options.clone()).await.unwrap_err();
    assert!(
        format!("{unprepared:#}").contains("foodflow-hub migrate"),
        "{unprepared:#}"
    );

    let mut prepared = config;
    prepared.database.admin_url = Some(cloud_hub::kernel::secret::Secret::new(url(&address, "keeper")));
    let databases = Databases::start(&prepared, SETTINGS).await.unwrap();
    assert!(databases.migrate().await.unwrap().applied > 0);
    assert_eq!(databases.migrate().await.unwrap().applied, 0);
    let owner = databases.owner.unwrap().requests;
    let mut owner = owner.connect().await.unwrap();
    provision::provision(&mut owner, &akron(), "Akron").await.unwrap();
    owner.close().await.unwrap();

    let hub = Hub::start(options).await.unwrap();
    let db: &Db = &hub.app.db;
    let mut tx = db.begin(&akron()).await.unwrap();
    let form: String = sqlx::query_scalar("SELECT storage_form()")
        .fetch_one(tx.conn())
        .await
        .unwrap();
    drop(tx);
    assert_eq!(form, "plain");
    hub.stop().await;
    cluster.stop().await;
}
