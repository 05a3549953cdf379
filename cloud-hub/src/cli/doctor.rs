//! `foodflow-hub doctor`: which storage form runs, what it lacks, and whether anything needs a person. 0 when nothing
//! does, 3 when something does, 1 when it could not be looked at, 2 for wrong usage.
#![expect(clippy::print_stdout, reason = "what a script reads goes to standard output")]

use anyhow::Context as _;
use serde_json::json;

use super::{
    Place,
    manage::{close, db},
};
use crate::{
    integrity::key::AuditKey,
    kernel::{clock::Clock, hex::hex, tenancy::TenantSlug},
    series::report::{self, ServerReport, StorageReport},
    tenant::provision,
};

/// Something needs a person; the message says how much.
#[derive(Debug, thiserror::Error)]
#[error("{0} of the things looked at need attention")]
pub(super) struct Attention(usize);

/// A tenant and what was found.
struct Found {
    slug: TenantSlug,
    storage: Result<StorageReport, String>,
}

impl Found {
    fn faults(&self) -> Vec<String> {
        match &self.storage {
            Ok(storage) => storage.faults(),
            Err(reason) => vec![format!("its storage cannot be looked at: {reason}")],
        }
    }
}

pub(super) async fn run(place: &Place, is_json: bool) -> anyhow::Result<()> {
    let (config, databases) = place.open().await?;
    let audit_key = AuditKey::load_or_create(&config.data_dir).context("reading the audit key")?;
    let db = db(&databases);
    let server = report::of_server(&db).await?;
    let mut found = Vec::new();
    for slug in provision::tenant_slugs(&db).await? {
        let storage = report::of_tenant(&db, &slug, Clock::system().now()).await;
        found.push(Found {
            slug,
            storage: storage.map_err(|error| error.to_string()),
        });
    }
    db.close().await;
    close(databases).await;
    let audit_key = hex(&audit_key.public());
    if is_json {
        println!("{}", document(&server, &found, &audit_key));
    } else {
        tell(&server, &found, &audit_key);
    }
    match found.iter().map(|one| one.faults().len()).sum() {
        0 => Ok(()),
        faults => Err(Attention(faults).into()),
    }
}

fn document(server: &ServerReport, found: &[Found], audit_key: &str) -> serde_json::Value {
    let tenants: Vec<_> = found
        .iter()
        .map(|one| match &one.storage {
            Ok(storage) => {
                json!({ "tenant": one.slug.as_str(), "storage_form": storage.form, "lacks": storage.lacks(),
                "storage": storage, "faults": one.faults() })
            }
            Err(_) => json!({ "tenant": one.slug.as_str(), "faults": one.faults() }),
        })
        .collect();
    json!({ "postgresql": server.postgresql, "server": server, "tenants": tenants, "audit_public_key": audit_key })
}

fn tell(server: &ServerReport, found: &[Found], audit_key: &str) {
    println!("PostgreSQL {}", server.postgresql);
    match (&server.timescaledb_installed, &server.timescaledb_available) {
        (Some(version), _) => println!(
            "TimescaleDB {version}, licence {}",
            server.timescaledb_license.as_deref().unwrap_or("unknown")
        ),
        (None, Some(version)) => println!(
            "TimescaleDB {version} could be had: load it (shared_preload_libraries), then `foodflow-hub storage convert`"
        ),
        (None, None) => println!("TimescaleDB is not installed on this server"),
    }
    println!("audit roots are signed with the key whose public half is {audit_key}");
    for one in found {
        if let Ok(storage) = &one.storage {
            tell_storage(&one.slug, storage);
        }
        for fault in one.faults() {
            println!("  ATTENTION: {fault}");
        }
    }
}

fn tell_storage(slug: &TenantSlug, storage: &StorageReport) {
    let mebibytes = |bytes: i64| bytes as f64 / f64::from(1 << 20);
    let lacks = storage.lacks().join(", ");
    println!(
        "tenant {slug}: storage form {}; lacks {}",
        storage.form,
        if lacks.is_empty() { "nothing" } else { &lacks }
    );
    println!(
        "  readings {:.1} MiB (about {} of them), rollups {:.1} MiB",
        mebibytes(storage.reading_bytes),
        storage.readings_about,
        mebibytes(storage.rollup_bytes)
    );
    if let Some(days) = storage.partitions_ahead_days {
        println!(
            "  partitions {days} days ahead, {} readings outside of them",
            storage.stray_readings
        );
    }
    println!(
        "  rollups {} s behind ({} notes), {} hours to be made anew",
        storage.rollup_lag_s.unwrap_or(0),
        storage.rollup_marks,
        storage.rollup_hours_to_make
    );
    if let Some(from) = storage.raw_from {
        println!("  readings before {from} were dropped by retention");
    }
}
