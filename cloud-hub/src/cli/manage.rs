//! Commands that change or show something and end: they use the hub's database while it runs, or start it.
#![expect(clippy::print_stdout, reason = "what a script reads goes to standard output")]

use std::time::Duration;

use anyhow::Context as _;
use sqlx::{ConnectOptions, Connection, PgConnection};
use uuid::Uuid;

use super::Place;
use crate::{
    hub::Databases,
    kernel::{
        audit::Actor,
        clock::Clock,
        password,
        role::Role,
        secret,
        tenancy::{Db, TenantSlug},
        token::{Claims, SigningKey},
    },
    seed,
    tenant::{enrolment, provision, user},
};

const CONNECTIONS_MAX: u32 = 2;
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) fn db(databases: &Databases) -> Db {
    Db::new(databases.login.requests.clone(), CONNECTIONS_MAX, ACQUIRE_TIMEOUT)
}

pub(super) async fn owner(databases: &Databases) -> anyhow::Result<PgConnection> {
    let owner = databases
        .owner
        .as_ref()
        .context("this needs the owner of the database: set database.admin_url")?;
    owner.requests.connect().await.context("connecting as the owner")
}

/// Stops the cluster if it was started for the command.
pub(super) async fn close(databases: Databases) {
    if let Some(cluster) = databases.cluster {
        cluster.stop().await;
    }
}

pub(super) async fn create_user(
    place: &Place,
    tenant: &TenantSlug,
    email: &str,
    role: Role,
    name: Option<String>,
    given: Option<String>,
) -> anyhow::Result<()> {
    let email = user::normalize_email(email)?;
    let (_, databases) = place.open().await?;
    let is_given = given.is_some();
    let password = given.unwrap_or_else(|| secret::random_text(10));
    let hash = tokio::task::spawn_blocking({
        let password = password.clone();
        move || password::hash(&password)
    })
    .await??;
    let actor = Actor::Operator {
        name: "user create".to_owned(),
    };
    let mut tx = db(&databases).begin_as(tenant, actor).await?;
    user::put(&mut tx, &email, name.as_deref().unwrap_or(&email), role, &hash).await?;
    tx.commit().await?;
    if !is_given {
        println!("{password}");
    }
    close(databases).await;
    Ok(())
}

pub(super) async fn seed(place: &Place, given: Option<String>) -> anyhow::Result<()> {
    let (_, databases) = place.open().await?;
    let password = given.unwrap_or_else(|| secret::random_text(10));
    let hash = tokio::task::spawn_blocking({
        let password = password.clone();
        move || password::hash(&password)
    })
    .await??;
    let mut connection = owner(&databases).await?;
    for tenant in seed::tenants() {
        provision::provision(&mut connection, &tenant.slug, &tenant.name).await?;
    }
    connection.close().await?;
    let db = db(&databases);
    seed::akron(&db, &hash, Clock::system().now()).await?;
    for user in seed::users() {
        println!("{}\t{}\t{}", user.role, user.email, password);
    }
    db.close().await;
    close(databases).await;
    Ok(())
}

pub(super) async fn token(
    place: &Place,
    tenant: &TenantSlug,
    role: Role,
    ttl: Duration,
) -> anyhow::Result<()> {
    let (config, databases) = place.open().await?;
    let key = SigningKey::load_or_create(&config.data_dir).context("reading the signing key")?;
    let mut tx = db(&databases).begin(tenant).await?;
    let sub: Option<Uuid> = user::first_with(&mut tx, role).await?;
    drop(tx);
    let now_s = Clock::system().now().timestamp();
    println!(
        "{}",
        key.issue(&Claims {
            sub: sub.unwrap_or_default(),
            tenant: tenant.as_str().to_owned(),
            role,
            sid: None,
            iat: now_s,
            exp: now_s + i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX / 2_000_000),
        })
    );
    close(databases).await;
    Ok(())
}

pub(super) async fn enroll_code(place: &Place, tenant: &TenantSlug, edge: &str) -> anyhow::Result<()> {
    let (_, databases) = place.open().await?;
    let code = enrolment::create_code(&db(&databases), tenant, edge, Clock::system().now()).await?;
    println!("{code}");
    close(databases).await;
    Ok(())
}

pub(super) fn openapi() -> anyhow::Result<()> {
    println!("{}", serde_json::to_string_pretty(&crate::router::document())?);
    Ok(())
}
