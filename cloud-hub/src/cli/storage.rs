//! `foodflow-hub storage`: what an operator does to the storage of readings by hand. 0 when it is done, 4 when it cannot
//! be done here (the reasons are told), 1 when it failed and may be run again.
#![expect(clippy::print_stdout, reason = "what a script reads goes to standard output")]

use anyhow::Context as _;
use chrono::{DateTime, Utc};
use clap::Subcommand;
use serde_json::json;

use super::{
    Place,
    manage::{close, db, owner},
};
use crate::{
    kernel::tenancy::TenantSlug,
    series::convert::{ConvertError, Converted, convert},
    tenant::provision,
};

#[derive(Debug, Subcommand)]
pub(super) enum StorageCommand {
    /// Make hypertables of the readings, after the database gained TimescaleDB. May be stopped and run again; needs as
    /// much free disk space as the readings take now.
    Convert {
        /// Only this tenant.
        #[arg(long, value_parser = TenantSlug::parse)]
        tenant: Option<TenantSlug>,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Have the rollups of some hours made anew from the readings.
    Refresh {
        /// Tenant slug.
        #[arg(long, value_parser = TenantSlug::parse)]
        tenant: TenantSlug,
        /// First moment (RFC 3339).
        #[arg(long)]
        from: DateTime<Utc>,
        /// Last moment.
        #[arg(long)]
        to: DateTime<Utc>,
    },
}

pub(super) async fn run(place: &Place, command: StorageCommand) -> anyhow::Result<()> {
    match command {
        StorageCommand::Convert { tenant, json } => convert_tenants(place, tenant, json).await,
        StorageCommand::Refresh { tenant, from, to } => refresh(place, &tenant, (from, to)).await,
    }
}

/// Whether the error says that it cannot be done here.
pub(super) fn is_refusal(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(ConvertError::Refused(_)))
}

async fn convert_tenants(place: &Place, only: Option<TenantSlug>, is_json: bool) -> anyhow::Result<()> {
    let (_, databases) = place.open().await?;
    let mut connection = owner(&databases).await?;
    let tenants = match only {
        Some(tenant) => vec![tenant],
        None => provision::tenant_slugs(&db(&databases)).await?,
    };
    let mut all = Vec::new();
    for tenant in tenants {
        let done = convert(&mut connection, &tenant)
            .await
            .with_context(|| format!("converting {tenant}"))?;
        if !is_json {
            tell(&tenant, &done);
        }
        all.push(
            json!({ "tenant": tenant.as_str(), "was_done": done.was_done, "copied": done.copied,
            "found_copied": done.found_copied, "readings": done.readings }),
        );
    }
    if is_json {
        println!("{}", json!({ "tenants": all }));
    }
    drop(connection);
    close(databases).await;
    Ok(())
}

fn tell(tenant: &TenantSlug, done: &Converted) {
    if done.was_done {
        println!("{tenant}: has a hypertable already");
    } else {
        println!("{tenant}: {} readings in a hypertable now", done.readings);
    }
}

async fn refresh(
    place: &Place,
    tenant: &TenantSlug,
    (from, to): (DateTime<Utc>, DateTime<Utc>),
) -> anyhow::Result<()> {
    let (_, databases) = place.open().await?;
    let db = db(&databases);
    let mut tx = db.begin(tenant).await?;
    let hours: i64 = sqlx::query_scalar("SELECT mark_rollups($1, $2)")
        .bind(from)
        .bind(to)
        .fetch_one(tx.conn())
        .await?;
    tx.commit_unaudited("rollups follow from the readings").await?;
    println!("{hours} hours will be made anew by the hub that runs");
    db.close().await;
    close(databases).await;
    Ok(())
}
