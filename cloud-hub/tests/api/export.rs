//! A list that leaves as a whole: what it holds, what it says of itself, and what a slow reader costs the hub.

use std::{collections::HashMap, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use cloud_hub::kernel::{hex::hex, role::Role};
use reqwest::{Method, Response};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use sqlx::ConnectOptions;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    client::Caller,
    support::{TestHub, akron, cuyahoga},
};

const SUPPLIERS: &str = "/fsq/suppliers";

/// Text that tells whether something on its way is taken for more than text.
const NASTY: [&str; 6] = [
    "=HYPERLINK(\"http://x\")",
    "'; DROP TABLE supplier; --",
    "a,\"b\"\r\nc",
    "\u{1}\u{1b}[31m",
    "Zoë 日本 🍞",
    "-1",
];

async fn exported(caller: &Caller, path: &str) -> Response {
    let response = caller.request(Method::GET, path).send().await.unwrap();
    assert_eq!(response.status(), 200, "{path}");
    response
}

fn header(response: &Response, name: &str) -> String {
    response.headers()[name].to_str().unwrap().to_owned()
}

/// What was stored, from a cell of the file.
fn stored(cell: &str) -> &str {
    cell.strip_prefix('\'').unwrap_or(cell)
}

async fn last_entry(hub: &TestHub) -> Value {
    let mut tx = hub.db.begin(&akron()).await.unwrap();
    let entry: String = sqlx::query_scalar("SELECT event FROM audit_event ORDER BY seq DESC LIMIT 1")
        .fetch_one(tx.conn())
        .await
        .unwrap();
    serde_json::from_str(&entry).unwrap()
}

#[tokio::test]
async fn a_csv_holds_what_was_stored_and_says_what_as_of_when_and_its_hash() {
    let hub = TestHub::start().await;
    let admin = Caller::with_role(&hub, Role::Admin).await;
    for (place, name) in NASTY.iter().enumerate() {
        let body = json!({ "code": format!("N{place}"), "name": name, "audit_score_pct": 0.1 + 0.2 });
        admin.post(SUPPLIERS, body).await.ok();
    }
    let path = format!("{SUPPLIERS}/export?format=csv&sort=-code&q=N");
    let response = exported(&admin, &path).await;
    assert_eq!(header(&response, "content-type"), "text/csv; charset=utf-8");
    assert_eq!(header(&response, "x-export-query"), "format=csv&sort=-code&q=N");
    assert_eq!(header(&response, "x-export-rows"), "6");
    assert!(header(&response, "x-export-as-of").ends_with('Z'));
    assert!(header(&response, "content-disposition").starts_with("attachment; filename=\"suppliers-"));
    let digest = header(&response, "content-digest");
    let bytes = response.bytes().await.unwrap();
    let sha256 = Sha256::digest(&bytes);
    assert_eq!(digest, format!("sha-256=:{}:", BASE64_STANDARD.encode(sha256)));

    let mut reader = csv::Reader::from_reader(&bytes[..]);
    let titles = [
        "id",
        "version",
        "code",
        "name",
        "audit_score_pct",
        "approved_until",
    ];
    assert_eq!(reader.headers().unwrap(), titles.to_vec());
    let rows: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
    let names: Vec<&str> = rows.iter().map(|row| stored(&row[3])).collect();
    let mut wanted = NASTY.to_vec();
    wanted.reverse();
    // An apostrophe that was there before has another in front of it.
    assert_eq!(names, wanted);
    assert!(
        rows.iter()
            .all(|row| row[4].parse() == Ok(0.1 + 0.2) && row[5].is_empty())
    );

    let entry = last_entry(&hub).await;
    assert_eq!(
        (&entry["action"], &entry["entity"]),
        (&json!("export"), &json!("supplier"))
    );
    assert_eq!(entry["after"]["rows"], 6);
    assert_eq!(entry["after"]["query"], "format=csv&sort=-code&q=N");
    assert_eq!(entry["after"]["sha256"], json!(hex(&sha256)));
}

#[tokio::test]
async fn a_workbook_opens_and_holds_no_formula() {
    let hub = TestHub::start().await;
    let admin = Caller::with_role(&hub, Role::Admin).await;
    for (place, name) in NASTY.iter().enumerate() {
        admin
            .post(SUPPLIERS, json!({ "code": format!("N{place}"), "name": name }))
            .await
            .ok();
    }
    let response = exported(&admin, &format!("{SUPPLIERS}/export?format=xlsx")).await;
    assert!(header(&response, "content-disposition").contains(".xlsx"));
    let path = hub.data_dir().join("book.xlsx");
    std::fs::write(&path, response.bytes().await.unwrap()).unwrap();
    let parts = unzipped(&path);
    let data = &parts["xl/worksheets/sheet1.xml"];
    assert!(!data.contains("<f>") && data.contains("=HYPERLINK"), "{data}");
    assert_eq!(data.matches("<row ").count(), 1 + NASTY.len());
    assert!(parts["xl/workbook.xml"].contains("\"About\""));
    let plain = exported(&admin, &format!("{SUPPLIERS}/export"))
        .await
        .bytes()
        .await
        .unwrap();
    let hex = hex(&Sha256::digest(&plain));
    let found = parts.values().any(|part| part.contains(&hex));
    assert!(found, "the workbook names the hash of the same rows as CSV");
}

/// The parts of a workbook by name, read by Python, which shares no code with the writer.
fn unzipped(path: &std::path::Path) -> HashMap<String, String> {
    let script = "import json,sys,zipfile; z=zipfile.ZipFile(sys.argv[1]); \
        print(json.dumps({n: z.read(n).decode() for n in z.namelist() if n.endswith('.xml')}))";
    let read = std::process::Command::new("python3")
        .args(["-c", script])
        .arg(path)
        .output()
        .unwrap();
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    serde_json::from_slice(&read.stdout).unwrap()
}

#[tokio::test]
async fn every_list_of_the_floor_is_exported_within_its_tenant_and_bad_questions_are_refused() {
    let hub = TestHub::start().await;
    let ours = Caller::with_role(&hub, Role::Admin).await;
    let theirs = Caller::of_tenant(&hub, &cuyahoga(), Role::Admin).await;
    for path in [
        "/plant-ops/batches/export",
        "/fsq/lots/export?status=held",
        "/fsq/lots/export",
        "/plant-ops/readings/export?from_us=0&to_us=9000000000000000",
    ] {
        let text = exported(&ours, path).await.text().await.unwrap();
        let other = exported(&theirs, path).await.text().await.unwrap();
        let ids = |text: &str| -> Vec<String> {
            let rows = text.lines().skip(1).filter_map(|line| line.split(',').next());
            rows.filter(|id| id.len() == 36).map(str::to_owned).collect()
        };
        assert!(ids(&text).iter().all(|id| !other.contains(id)), "{path}");
    }
    for wrong in [
        "/fsq/suppliers/export?format=pdf",
        "/fsq/suppliers/export?limit=5",
        "/fsq/suppliers/export?cursor=x",
        "/fsq/suppliers/export?sort=version",
        "/fsq/suppliers/export?nam=x",
        "/fsq/suppliers/export?format=csv&format=csv",
        "/plant-ops/readings/export?from_us=1&to_us=1",
        "/plant-ops/readings/export?from_us=1",
        "/plant-ops/batches/export?state=running",
        &format!("/fsq/suppliers/export?code={}", "x".repeat(5000)),
    ] {
        ours.get(wrong).await.problem(400);
    }
}

/// The most that was resident so far, where this process runs no other test; else what is now.
fn peak() -> u64 {
    if std::env::var_os("NEXTEST").is_none() {
        return resident();
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// Resident memory of this process, in bytes.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

/// Sends a GET and reads no more than `bytes` of the answer.
async fn begin_reading(hub: &TestHub, path: &str, token: &str, bytes: usize) -> (TcpStream, Vec<u8>) {
    let mut stream = TcpStream::connect(hub.hub.http).await.unwrap();
    let head = format!(
        "GET /api/v1{path} HTTP/1.1\r\nhost: hub\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut start = vec![0; bytes];
    stream.read_exact(&mut start).await.unwrap();
    (stream, start)
}

/// Transactions open on the suppliers, as the owner of the database sees them.
async fn open_on_suppliers(hub: &TestHub) -> i64 {
    let owner = hub.hub.app.owner.as_ref().unwrap();
    let mut connection = owner.requests.connect().await.unwrap();
    sqlx::query_scalar(
        "SELECT count(*) FROM pg_stat_activity WHERE usename = 'foodflow_app' AND xact_start IS NOT NULL \
           AND datname = current_database() AND query LIKE '%supplier%'",
    )
    .fetch_one(&mut connection)
    .await
    .unwrap()
}

#[tokio::test]
async fn a_slow_reader_of_a_large_export_holds_no_transaction_and_no_memory() {
    let rows: i64 = if std::env::var_os("FOODFLOW_SOAK").is_some() {
        1_000_000
    } else {
        100_000
    };
    let hub = TestHub::start().await;
    let mut tx = hub.db.begin(&akron()).await.unwrap();
    sqlx::query(
        "INSERT INTO supplier (id, code, name) \
         SELECT gen_random_uuid(), 'S' || n, repeat('name ', 20) || n FROM generate_series(1, $1) n",
    )
    .bind(rows)
    .execute(tx.conn())
    .await
    .unwrap();
    tx.commit_unaudited("the test's own rows").await.unwrap();

    let tx = {
        let mut tx = hub.db.begin(&akron()).await.unwrap();
        sqlx::query("SELECT FROM supplier LIMIT 1")
            .execute(tx.conn())
            .await
            .unwrap();
        tx
    };
    assert_eq!(open_on_suppliers(&hub).await, 1, "an open one would be seen");
    drop(tx);

    let token = hub.token(Role::Admin).await;
    let before = resident();
    let path = format!("{SUPPLIERS}/export");
    let (mut stream, start) = begin_reading(&hub, &path, &token, 1024).await;
    assert!(
        start.starts_with(b"HTTP/1.1 200"),
        "{}",
        String::from_utf8_lossy(&start)
    );
    let grown = peak().saturating_sub(before);
    assert!(grown < 64 << 20, "{} MiB more for {rows} rows", grown >> 20);

    assert_eq!(
        open_on_suppliers(&hub).await,
        0,
        "nothing is open while the reader waits"
    );

    // The reader takes its time, and gets all of it.
    let mut rest = start;
    let mut block = vec![0; 1 << 20];
    tokio::time::timeout(Duration::from_mins(3), async {
        loop {
            let read = stream.read(&mut block).await.unwrap();
            if read == 0 {
                break;
            }
            rest.extend_from_slice(&block[..read]);
        }
    })
    .await
    .unwrap();
    let body = rest.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
    let head = String::from_utf8_lossy(&rest[..body]).into_owned();
    let digest = BASE64_STANDARD.encode(Sha256::digest(&rest[body..]));
    assert!(
        head.contains(&format!("content-digest: sha-256=:{digest}:")),
        "{head}"
    );
    let lines = rest[body..].split(|byte| *byte == b'\n').count() - 1;
    assert_eq!(lines as i64, rows + 1);
}

#[tokio::test]
async fn more_exports_than_there_are_places_are_told_to_come_back() {
    let hub = TestHub::start().await;
    let admin = Caller::with_role(&hub, Role::Admin).await;
    let taken: Vec<_> = (0..4)
        .map(|_| hub.hub.app.exports.open(&akron()).unwrap())
        .collect();
    let refused = admin
        .request(Method::GET, &format!("{SUPPLIERS}/export"))
        .send()
        .await
        .unwrap();
    assert_eq!(
        (refused.status().as_u16(), header(&refused, "retry-after")),
        (503, "10".to_owned())
    );
    drop(taken);
    drop(exported(&admin, &format!("{SUPPLIERS}/export")).await);
}
