//! Commands on tenants: make, list, rename, suspend, take up again, delete, export, import, and bring their schemas up
//! to date. Those that make or remove a schema need the owner of the database.
#![expect(clippy::print_stdout, reason = "what a script reads goes to standard output")]

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use clap::Subcommand;
use serde_json::json;
use sqlx::Connection;

use super::{
    Place,
    manage::{close, db, owner},
};
use crate::{
    kernel::{
        audit::{Actor, Deed},
        clock::Clock,
        tenancy::{Db, TenantSlug},
        token::{PLATFORM_AUDIENCE, PlatformClaims, SigningKey},
    },
    tenant::{
        archive::{self, Contents},
        fleet,
        migrate::Files,
        provision::{self, By, Tenant},
        registry::{self, TenantRecord, TenantStatus},
    },
};

#[derive(Debug, Subcommand)]
pub(super) enum TenantCommand {
    /// Make a tenant.
    Create {
        /// 1 to 40 of a-z, 0-9 and `-`; never changes.
        #[arg(value_parser = TenantSlug::parse)]
        slug: TenantSlug,
        /// Name for people.
        #[arg(long)]
        name: String,
        /// Print its entry as JSON.
        #[arg(long)]
        json: bool,
    },
    /// List tenants: slug, tab, name, tab, status.
    List {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Give a tenant another name for people.
    Rename {
        /// Which.
        #[arg(value_parser = TenantSlug::parse)]
        slug: TenantSlug,
        /// Name for people.
        #[arg(long)]
        name: String,
    },
    /// Refuse a tenant's people, keys and edges; its data stays.
    Suspend {
        /// Which.
        #[arg(value_parser = TenantSlug::parse)]
        slug: TenantSlug,
        /// Why; goes into the audit chains.
        #[arg(long)]
        reason: String,
    },
    /// Take a suspended tenant up again.
    Reactivate {
        /// Which.
        #[arg(value_parser = TenantSlug::parse)]
        slug: TenantSlug,
        /// Why; goes into the audit chains.
        #[arg(long)]
        reason: String,
    },
    /// Delete a suspended tenant with everything in it.
    Delete {
        /// Which.
        #[arg(value_parser = TenantSlug::parse)]
        slug: TenantSlug,
        /// The slug again: what is deleted does not come back.
        #[arg(long, value_parser = TenantSlug::parse)]
        confirm: TenantSlug,
        /// Why; stays on the tombstone.
        #[arg(long)]
        reason: String,
    },
    /// Write all of a tenant's data to a file. It holds password hashes: keep it like the database itself.
    Export {
        /// Which.
        #[arg(value_parser = TenantSlug::parse)]
        slug: TenantSlug,
        /// The file (`.tar.zst`), which must not be there yet.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// Print the manifest and the file's hash as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Make a tenant of an exported file. Its edges enrol anew.
    Import {
        /// The file.
        file: PathBuf,
        /// Slug of the new tenant.
        #[arg(long, value_parser = TenantSlug::parse)]
        slug: TenantSlug,
        /// Name for people; the exported tenant's when absent.
        #[arg(long)]
        name: Option<String>,
        /// Print the manifest as JSON.
        #[arg(long)]
        json: bool,
    },
}

pub(super) async fn run(place: &Place, command: TenantCommand) -> anyhow::Result<()> {
    match command {
        TenantCommand::Create { slug, name, json } => create(place, slug, name, json).await,
        TenantCommand::List { json } => list(place, json).await,
        TenantCommand::Rename { slug, name } => rename(place, &slug, &name).await,
        TenantCommand::Suspend { slug, reason } => {
            set_status(place, &slug, TenantStatus::Suspended, &reason).await
        }
        TenantCommand::Reactivate { slug, reason } => {
            set_status(place, &slug, TenantStatus::Active, &reason).await
        }
        TenantCommand::Delete {
            slug,
            confirm,
            reason,
        } => delete(place, &slug, &confirm, reason).await,
        TenantCommand::Export { slug, out, json } => export(place, &slug, &out, json).await,
        TenantCommand::Import {
            file,
            slug,
            name,
            json,
        } => import(place, &file, &slug, name.as_deref(), json).await,
    }
}

async fn create(place: &Place, slug: TenantSlug, name: String, json: bool) -> anyhow::Result<()> {
    let (_, databases) = place.open().await?;
    let mut connection = owner(&databases).await?;
    let tenant = Tenant { slug, name };
    provision::create(&mut connection, &tenant, &By::command("tenant create")).await?;
    connection.close().await?;
    if json {
        let made = read(&db(&databases), &tenant.slug).await?;
        println!("{}", serde_json::to_string(&made)?);
    }
    close(databases).await;
    Ok(())
}

async fn read(db: &Db, slug: &TenantSlug) -> anyhow::Result<TenantRecord> {
    let mut tx = db.platform().await?;
    Ok(registry::read(tx.conn(), slug).await?)
}

async fn list(place: &Place, json: bool) -> anyhow::Result<()> {
    let (_, databases) = place.open().await?;
    let mut tx = db(&databases).platform().await?;
    let tenants = registry::list(&mut tx, None, None, i64::MAX).await?;
    drop(tx);
    if json {
        println!("{}", serde_json::to_string(&tenants)?);
    } else {
        for tenant in tenants {
            println!("{}\t{}\t{}", tenant.slug, tenant.name, tenant.status.as_str());
        }
    }
    close(databases).await;
    Ok(())
}

fn operator(command: &str) -> Actor {
    Actor::Operator {
        name: command.to_owned(),
    }
}

async fn rename(place: &Place, slug: &TenantSlug, name: &str) -> anyhow::Result<()> {
    let (_, databases) = place.open().await?;
    let mut tx = db(&databases).platform_as(operator("tenant rename")).await?;
    registry::rename(&mut tx, slug, None, name).await?;
    tx.commit_in(slug).await?;
    close(databases).await;
    Ok(())
}

async fn set_status(
    place: &Place,
    slug: &TenantSlug,
    status: TenantStatus,
    reason: &str,
) -> anyhow::Result<()> {
    let (_, databases) = place.open().await?;
    let mut tx = db(&databases).platform_as(operator("tenant status")).await?;
    registry::set_status(&mut tx, slug, status, reason).await?;
    tx.commit_in(slug).await?;
    close(databases).await;
    Ok(())
}

async fn delete(
    place: &Place,
    slug: &TenantSlug,
    confirm: &TenantSlug,
    reason: String,
) -> anyhow::Result<()> {
    anyhow::ensure!(slug == confirm, "`--confirm` must be the tenant's slug, `{slug}`");
    let (_, databases) = place.open().await?;
    let version = read(&db(&databases), slug).await?.version;
    let mut connection = owner(&databases).await?;
    let by = By {
        why: Some(reason),
        ..By::command("tenant delete")
    };
    provision::remove(&mut connection, slug, version, &by).await?;
    connection.close().await?;
    close(databases).await;
    Ok(())
}

async fn export(place: &Place, slug: &TenantSlug, out: &Path, json: bool) -> anyhow::Result<()> {
    let (_, databases) = place.open().await?;
    let db = db(&databases);
    // On record before it is written, so that no copy leaves without an entry.
    let mut tx = db.platform_as(operator("tenant export")).await?;
    tx.audit(&Deed::on("export", "tenant", slug).after(json!({ "contents": "whole" })));
    tx.commit_in(slug).await?;
    let folder = out
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let draft = tempfile::Builder::new()
        .prefix(".export-")
        .tempfile_in(folder)
        .with_context(|| format!("writing into {}", folder.display()))?;
    let exported = archive::export(&db, slug, Contents::Whole, draft.reopen()?, folder).await?;
    draft
        .persist_noclobber(out)
        .with_context(|| format!("writing {}", out.display()))?;
    let sha256 = crate::kernel::hex::hex(&exported.sha256);
    if json {
        println!(
            "{}",
            json!({ "file": out, "bytes": exported.bytes, "sha256": sha256, "manifest": exported.manifest })
        );
    } else {
        let rows: u64 = exported.manifest.tables.iter().map(|table| table.rows).sum();
        println!("{sha256}  {}", out.display());
        tracing::info!(rows, bytes = exported.bytes, "the tenant is exported");
    }
    close(databases).await;
    Ok(())
}

async fn import(
    place: &Place,
    file: &Path,
    slug: &TenantSlug,
    name: Option<&str>,
    json: bool,
) -> anyhow::Result<()> {
    let (_, databases) = place.open().await?;
    let mut connection = owner(&databases).await?;
    let by = By::command("tenant import");
    let manifest = archive::import(&mut connection, file, slug, name, &by)
        .await
        .with_context(|| format!("importing {}", file.display()))?;
    connection.close().await?;
    if json {
        println!("{}", serde_json::to_string(&manifest)?);
    }
    close(databases).await;
    Ok(())
}

/// Brings the platform and all tenants, or `only` one, up to date, or with `is_report` only says where they stand.
/// Fails when a tenant that was asked for is not served by this program.
pub(super) async fn migrate(
    place: &Place,
    only: Option<&TenantSlug>,
    is_report: bool,
    json: bool,
) -> anyhow::Result<()> {
    let databases = place.reach().await?.1;
    let mut connection = owner(&databases).await?;
    let files = Files::tenant();
    if !is_report {
        let mut applied = fleet::platform(&mut connection).await?;
        applied += fleet::tenants(&mut connection, &files, only).await?.applied;
        tracing::info!(applied, "migrated");
    }
    let mut report = fleet::report(&mut connection, &files).await?;
    report.retain(|standing| only.is_none_or(|only| only.as_str() == standing.tenant));
    connection.close().await?;
    close(databases).await;
    anyhow::ensure!(only.is_none() || !report.is_empty(), "no such tenant");
    if json {
        println!("{}", serde_json::to_string(&report)?);
    } else if is_report {
        for standing in &report {
            println!(
                "{}\t{}\t{}/{}\t{}\t{}",
                standing.tenant,
                standing.status,
                standing.schema_version,
                standing.expected_version,
                standing.word(),
                standing.migration_error.as_deref().unwrap_or("-")
            );
        }
    }
    let behind = report.iter().filter(|standing| !standing.is_served());
    let behind: Vec<&str> = behind.map(|standing| standing.tenant.as_str()).collect();
    anyhow::ensure!(
        behind.is_empty(),
        "not served for lack of a migration: {}",
        behind.join(", ")
    );
    Ok(())
}

/// Prints a token of an operator of the platform.
pub(super) async fn platform_token(place: &Place, name: &str, ttl: Duration) -> anyhow::Result<()> {
    let (config, databases) = place.open().await?;
    let key = SigningKey::load_or_create(&config.data_dir).context("reading the signing key")?;
    let now_s = Clock::system().now().timestamp();
    println!(
        "{}",
        key.issue_platform(&PlatformClaims {
            aud: PLATFORM_AUDIENCE.to_owned(),
            sub: name.to_owned(),
            iat: now_s,
            exp: now_s + i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX / 2_000_000),
        })
    );
    close(databases).await;
    Ok(())
}
