//! An exported tenant that is imported is the same tenant, row by row; an archive that was altered is not imported.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read, Write},
    path::{Path, PathBuf},
};

use cloud_hub::{
    kernel::{
        clock::Clock,
        tenancy::{TenancyError, TenantSlug},
    },
    tenant::{
        archive::{self, ArchiveError, Contents, Exported},
        migrate::Files,
        provision::{self, By, ProvisionError},
    },
};
use sqlx::{AssertSqlSafe, PgConnection};

use crate::{
    ingest::Intake,
    support::{FrameMaker, TestDatabase, akron},
};

const DAY_US: i64 = 86_400_000_000;

fn slug(name: &str) -> TenantSlug {
    TenantSlug::parse(name).unwrap()
}

async fn export(test: &TestDatabase, tenant: &TenantSlug, file: &Path) -> Exported {
    let out = File::create_new(file).unwrap();
    let scratch = file.parent().unwrap();
    archive::export(&test.db, tenant, Contents::Whole, out, scratch)
        .await
        .unwrap()
}

/// A hash of the rows of each table of a schema, whatever their order.
async fn fingerprints(owner: &mut PgConnection, schema: &str) -> BTreeMap<String, (i64, Option<String>)> {
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT relname::text FROM pg_class WHERE relnamespace = $1::regnamespace AND relkind IN ('r', 'p') \
           AND NOT relispartition ORDER BY 1",
    )
    .bind(schema)
    .fetch_all(&mut *owner)
    .await
    .unwrap();
    let mut prints = BTreeMap::new();
    for table in tables {
        let sql = format!(
            "SELECT count(*), md5(string_agg(t::text, E'\\n' ORDER BY t::text)) FROM {schema}.\"{table}\" t"
        );
        let print = sqlx::query_as(AssertSqlSafe(sql))
            .fetch_one(&mut *owner)
            .await
            .unwrap();
        prints.insert(table, print);
    }
    prints
}

/// Akron with readings of today and of two years ago, texts that are hard to carry, and some history.
async fn lived_in(test: &TestDatabase) {
    let intake = Intake::start(test);
    let maker = FrameMaker::new("e1", &["TT-101", "TT-102"]);
    intake.dictionary(&maker).await;
    let now_us = Clock::system().now_us();
    intake.frame(&maker, &maker.live(0, now_us, 500)).await;
    intake
        .frame(&maker, &maker.live(1, now_us - 730 * DAY_US, 7))
        .await;
    let mut tx = test.db.begin(&akron()).await.unwrap();
    sqlx::query("INSERT INTO supplier (id, code, name) VALUES (gen_random_uuid(), 'S-1', E'tab\\t line\\n back\\\\slash \\\\N \\u00fc')")
        .execute(tx.conn())
        .await
        .unwrap();
    tx.commit_unaudited("a test's row").await.unwrap();
}

#[tokio::test]
async fn a_tenant_that_is_exported_and_imported_is_the_same_row_by_row() {
    let (test, dir) = (TestDatabase::create().await, tempfile::tempdir().unwrap());
    lived_in(&test).await;
    let file = dir.path().join("akron.tar.zst");
    let exported = export(&test, &akron(), &file).await;
    let mut owner = test.owner().await;
    let moved = slug("moved");
    let by = By::command("test");
    let manifest = archive::import(&mut owner, &file, &moved, Some("Moved"), &by)
        .await
        .unwrap();
    assert_eq!(manifest, exported.manifest);

    let (was, mut is) = (
        fingerprints(&mut owner, "t_akron").await,
        fingerprints(&mut owner, "t_moved").await,
    );
    assert_eq!(was["reading"].0, 507);
    let chain = is.remove("audit_event").unwrap();
    assert_eq!(chain.0, was["audit_event"].0 + 1, "and the import itself");
    for (table, print) in &was {
        let is_left_out = manifest.left_out.contains(table);
        if table != "audit_event" && !is_left_out {
            assert_eq!(is.get(table), Some(print), "{table}");
        }
        let entry = manifest.tables.iter().find(|entry| entry.name == *table);
        assert_eq!(entry.is_some(), !is_left_out, "{table}");
    }
    assert_eq!(was.len(), is.len() + 1);
    let partitions = "SELECT count(*) FROM pg_inherits WHERE inhparent = 't_moved.reading'::regclass";
    let days: i64 = sqlx::query_scalar(partitions)
        .fetch_one(&mut owner)
        .await
        .unwrap();
    assert!(days as usize > manifest.reading_days.len());

    // It lives: what counts by itself goes on, and its own role may work in it.
    let intake = Intake::start(&test);
    let maker = FrameMaker::new("e9", &["TT-900"]).in_tenant("moved");
    intake.dictionary(&maker).await;
    intake
        .frame(&maker, &maker.live(0, Clock::system().now_us(), 3))
        .await;
    assert_eq!(
        test.count(
            &moved,
            "SELECT count(*) FROM tag WHERE name = 'TT-900' AND id > 1"
        )
        .await,
        1
    );
    assert_eq!(test.count(&moved, "SELECT count(*) FROM reading").await, 510);
    let again = archive::import(&mut owner, &file, &moved, None, &by).await;
    assert!(matches!(
        again,
        Err(ArchiveError::Provision(ProvisionError::Exists(_)))
    ));
}

#[tokio::test]
async fn an_archive_of_an_earlier_program_is_migrated_after_it_was_loaded() {
    let (test, dir) = (TestDatabase::create().await, tempfile::tempdir().unwrap());
    let (mut owner, old) = (test.owner().await, slug("old"));
    provision::provision_with(&mut owner, &old, "Old", &Files::tenant().until(9))
        .await
        .unwrap();
    // Only this program can write the archive, which does not serve the tenant: say that it does.
    sqlx::raw_sql("UPDATE platform.tenant SET schema_version = 1000000 WHERE slug = 'old'")
        .execute(&mut owner)
        .await
        .unwrap();
    let file = dir.path().join("old.tar.zst");
    export(&test, &old, &file).await;
    let file = rewritten(&file, |name, content| {
        if name == "manifest.json" {
            let text = String::from_utf8(std::mem::take(content)).unwrap();
            *content = text
                .replace("\"schema_version\": 1000000", "\"schema_version\": 9")
                .into_bytes();
        }
    });
    let young = slug("young");
    archive::import(&mut owner, &file, &young, None, &By::command("test"))
        .await
        .unwrap();
    assert_eq!(test.count(&young, "SELECT count(*) FROM supplier").await, 0);
}

/// The archive with its files changed, beside it.
fn rewritten(file: &Path, change: impl Fn(&str, &mut Vec<u8>)) -> PathBuf {
    let out = PathBuf::from(format!("{}.rewritten", file.display()));
    let mut from = tar::Archive::new(zstd::Decoder::new(File::open(file).unwrap()).unwrap());
    let mut to = tar::Builder::new(zstd::Encoder::new(File::create(&out).unwrap(), 1).unwrap());
    for entry in from.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().to_string_lossy().into_owned();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        change(&name, &mut content);
        let mut header = entry.header().clone();
        header.set_size(content.len() as u64);
        to.append_data(&mut header, &name, content.as_slice()).unwrap();
    }
    to.into_inner().unwrap().finish().unwrap().flush().unwrap();
    out
}

#[tokio::test]
async fn an_archive_that_was_altered_is_refused_and_nothing_of_it_stays() {
    let (test, dir) = (TestDatabase::create().await, tempfile::tempdir().unwrap());
    lived_in(&test).await;
    let file = dir.path().join("akron.tar.zst");
    export(&test, &akron(), &file).await;
    let mut owner = test.owner().await;
    let refused = async |owner: &mut PgConnection, file: &Path| {
        let error = archive::import(owner, file, &slug("moved"), None, &By::command("test"))
            .await
            .unwrap_err();
        let schemas: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_namespace WHERE nspname = 't_moved'")
            .fetch_one(&mut *owner)
            .await
            .unwrap();
        assert_eq!(schemas, 0, "{error}");
        format!("{error:#}")
    };

    let row = rewritten(&file, |name, content| {
        if name == "tables/lot.copy" {
            let place = content.iter().position(u8::is_ascii_digit).unwrap();
            content[place] ^= 1;
        }
    });
    assert!(refused(&mut owner, &row).await.contains("`lot`"));

    // Whoever alters a row and its hash is caught by the chain, where the row is part of it.
    let chain = rewritten(&file, |name, content| {
        let text = String::from_utf8(std::mem::take(content)).unwrap();
        *content = match name {
            "tables/audit_event.copy" => text.replacen("\"kind\":\"operator\"", "\"kind\":\"operators\"", 1),
            _ => text,
        }
        .into_bytes();
    });
    let chain = with_right_hashes(&chain);
    let said = refused(&mut owner, &chain).await;
    assert!(said.contains("audit chain breaks at entry 1"), "{said}");

    let strange = rewritten(&file, |name, content| {
        if name == "manifest.json" {
            let text = String::from_utf8(std::mem::take(content)).unwrap();
            *content = text
                .replace(
                    "\"quantity\"",
                    "\"x\\\") FROM STDIN; DROP SCHEMA t_akron CASCADE; --\"",
                )
                .into_bytes();
        }
    });
    let said = refused(&mut owner, &strange).await;
    assert!(said.contains("not one of schema version"), "{said}");

    let newer = rewritten(&file, |name, content| {
        if name == "manifest.json" {
            let mut manifest: serde_json::Value = serde_json::from_slice(content).unwrap();
            manifest["schema_version"] = 999_999.into();
            *content = serde_json::to_vec(&manifest).unwrap();
        }
    });
    assert!(refused(&mut owner, &newer).await.contains("999999"));

    let whole = std::fs::read(&file).unwrap();
    for cut in [0, 10, whole.len() / 2, whole.len() - 10] {
        let part = dir.path().join("part");
        std::fs::write(&part, &whole[..cut]).unwrap();
        refused(&mut owner, &part).await;
    }
    let noise = dir.path().join("noise");
    std::fs::write(&noise, "this is no archive").unwrap();
    refused(&mut owner, &noise).await;
    assert!(test.count(&akron(), "SELECT count(*) FROM lot").await > 0);
}

/// The manifest says of each file what it is.
fn with_right_hashes(file: &Path) -> PathBuf {
    use sha2::{Digest, Sha256};
    let found = std::cell::RefCell::new(BTreeMap::new());
    let out = rewritten(file, |name, content| {
        let sha256 = cloud_hub::kernel::hex::hex(&Sha256::digest(&*content));
        found
            .borrow_mut()
            .insert(name.to_owned(), (content.len() as u64, sha256));
        if name == "manifest.json" {
            let mut manifest: serde_json::Value = serde_json::from_slice(content).unwrap();
            for table in manifest["tables"].as_array_mut().unwrap() {
                let name = format!("tables/{}.copy", table["name"].as_str().unwrap());
                let (bytes, sha256) = &found.borrow()[&name];
                table["bytes"] = (*bytes).into();
                table["sha256"] = sha256.as_str().into();
            }
            *content = serde_json::to_vec(&manifest).unwrap();
        }
    });
    std::fs::rename(&out, file).unwrap();
    file.to_owned()
}

#[tokio::test]
async fn what_is_written_during_an_export_is_not_in_it() {
    let (test, dir) = (TestDatabase::create().await, tempfile::tempdir().unwrap());
    let mut snapshot = test.db.snapshot(&akron()).await.unwrap();
    let lots = "SELECT count(*) FROM lot";
    let before: i64 = sqlx::query_scalar(lots).fetch_one(snapshot.conn()).await.unwrap();
    let mut owner = test.owner().await;
    sqlx::raw_sql("INSERT INTO t_akron.lot SELECT (jsonb_populate_record(l, jsonb_build_object('id', gen_random_uuid(), 'code', 'late'))).* FROM t_akron.lot l LIMIT 1")
        .execute(&mut owner)
        .await
        .unwrap();
    let after: i64 = sqlx::query_scalar(lots).fetch_one(snapshot.conn()).await.unwrap();
    assert_eq!(before, after);
    let refused = sqlx::query("DELETE FROM supplier").execute(snapshot.conn()).await;
    assert!(refused.is_err(), "a snapshot changes nothing");
    drop(snapshot);
    let exported = export(&test, &akron(), &dir.path().join("a")).await;
    let lot = exported.manifest.tables.iter().find(|table| table.name == "lot");
    assert_eq!(lot.unwrap().rows as i64, before + 1);
    let nobody = archive::export(
        &test.db,
        &slug("nobody"),
        Contents::Whole,
        File::create(dir.path().join("b")).unwrap(),
        dir.path(),
    )
    .await;
    assert!(matches!(
        nobody,
        Err(ArchiveError::Tenancy(TenancyError::UnknownTenant))
    ));
}
