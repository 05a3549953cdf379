//! What does a reading cost that comes from an integrator? JSON over MQTT at QoS 1 through the whole way (front end,
//! dialect, tags, versions, COPY, newest values, rollup marks, commit, PUBACK), in CPU microseconds a reading and readings a
//! second, beside a bare COPY BINARY of the same rows in the same run. Counted are this process, without the thread that
//! plays the device, and every process of its private cluster.
#![expect(clippy::print_stdout, reason = "a benchmark prints its result")]

mod common;
#[path = "../tests/support/mod.rs"]
mod support;

use std::time::Instant;

use bytes::{BufMut, BytesMut};
use cloud_hub::{
    kernel::{bulk::BulkConnection, clock::Clock},
    tenant::enrolment,
};
use common::{cpu_us, join, publish, write};
use serde_json::{Map, Value, json};
use sqlx::AssertSqlSafe;
use support::{TestDatabase, TestHub, akron};

const MESSAGES: i64 = if cfg!(debug_assertions) { 200 } else { 2_000 };
const TAGS: i64 = 50;
/// Times in one message.
const TIMES: i64 = 4;
const READINGS: i64 = MESSAGES * TIMES * TAGS;
const CLIENT: &str = "gateway";
/// Rows of a bare COPY.
const CHUNK: i64 = 10_000;

/// One message of a gateway: values of every tag at some times.
fn message(number: i64, now_us: i64) -> Vec<u8> {
    let at = |place: i64| {
        let second = number * TIMES + place;
        let values: Map<String, Value> = (0..TAGS)
            .map(|tag| {
                (
                    format!("t{tag}"),
                    json!(70.0 + ((tag * 7 + second) % 500) as f64 / 100.0),
                )
            })
            .collect();
        json!({ "ts": now_us / 1_000 - (MESSAGES * TIMES - second) * 1_000, "values": values })
    };
    Value::from((0..TIMES).map(at).collect::<Vec<_>>())
        .to_string()
        .into_bytes()
}

/// Values of the client that are tags already.
async fn adopt(database: &TestDatabase) {
    let mut owner = database.owner().await;
    let sql = format!(
        "SET search_path TO t_akron, public; \
         INSERT INTO tag (name, edge_id, period_ms) SELECT 'I-' || n, (SELECT id FROM edge WHERE name = '{CLIENT}'), 1000 \
           FROM generate_series(0, {TAGS} - 1) n; \
         INSERT INTO integrator_tag (edge_id, device, name, tag_id) \
           SELECT edge_id, '{CLIENT}', 't' || substr(name, 3), id FROM tag WHERE name LIKE 'I-%'"
    );
    sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(&mut owner)
        .await
        .expect("they can be adopted");
}

/// CPU µs a row, and rows a second.
fn cost((cpu_before, started): (f64, Instant), not_counted_us: f64) -> (f64, f64) {
    let rows = READINGS as f64;
    (
        (cpu_us() - cpu_before - not_counted_us) / rows,
        rows / started.elapsed().as_secs_f64(),
    )
}

async fn bare(database: &TestDatabase, now_us: i64) -> (f64, f64) {
    let mut connection = BulkConnection::connect(&database.databases.login.bulk)
        .await
        .expect("the cluster runs");
    let before = (cpu_us(), Instant::now());
    for chunk in 0..READINGS / CHUNK {
        let mut bytes = BytesMut::with_capacity(CHUNK as usize * 50);
        bytes.put_slice(b"PGCOPY\n\xff\r\n\0");
        bytes.put_u64(0);
        for row in chunk * CHUNK..(chunk + 1) * CHUNK {
            bytes.put_i16(4);
            bytes.put_i32(8);
            bytes.put_i64(now_us - (READINGS - row) / TAGS * 1_000_000 - 946_684_800_000_000);
            bytes.put_i32(4);
            bytes.put_i32((row % TAGS) as i32 + 1_000);
            bytes.put_i32(8);
            bytes.put_f64(70.0 + (row % 500) as f64 / 100.0);
            bytes.put_i32(2);
            bytes.put_i16(0);
        }
        bytes.put_i16(-1);
        let mut tx = connection.begin(&akron()).await.expect("the tenant exists");
        let sql = "COPY reading (time, tag_id, value, quality) FROM STDIN (FORMAT binary)";
        tx.copy_in(sql, bytes).await.expect("the rows are good");
        tx.commit().await.expect("the cluster runs");
    }
    cost(before, 0.0)
}

async fn whole(now_us: i64) -> (f64, f64) {
    let database = TestDatabase::create().await;
    let hub = TestHub::start_on(database.again()).await;
    let now = Clock::system().now();
    let code = enrolment::create_code(&hub.db, &akron(), CLIENT, now)
        .await
        .expect("the tenant exists");
    let identity = enrolment::redeem(&hub.db, &code, now)
        .await
        .expect("the code is good");
    let login = (identity.mqtt_username.as_str(), identity.mqtt_password.expose());
    let topic = "v1/devices/me/telemetry".to_owned();
    // The first message makes the client known.
    let first = vec![(topic.clone(), b"{\"hello\":1}".to_vec())];
    join(publish(hub.hub.mqtt, login, first, 1, None)).await;
    adopt(&database).await;
    let messages = (0..MESSAGES)
        .map(|number| (topic.clone(), message(number, now_us)))
        .collect();
    let before = (cpu_us(), Instant::now());
    let (device_cpu_us, _) = join(publish(hub.hub.mqtt, login, messages, 64, None)).await;
    let cost = cost(before, device_cpu_us);
    let stored = hub.count(&akron(), "SELECT count(*) FROM reading").await;
    assert_eq!(stored, READINGS, "each is stored once");
    hub.hub.stop().await;
    cost
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    // An error says that one is installed already.
    drop(rustls::crypto::ring::default_provider().install_default());
    let now_us = Clock::system().now_us();
    let (bare, whole) = (
        bare(&TestDatabase::create().await, now_us).await,
        Box::pin(whole(now_us)).await,
    );
    println!(
        "bare COPY {:.2} µs/row at {:.0}/s, integrators {:.2} µs/reading at {:.0}/s",
        bare.0, bare.1, whole.0, whole.1
    );
    let reference = format!(
        "{} readings of JSON a message, QoS 1; bare COPY BINARY",
        TIMES * TAGS
    );
    let rows = json!([
        { "name": "ingest/integrator_cpu_us_per_reading", "value": whole.0, "unit": "µs", "ratio": whole.0 / bare.0,
          "reference": reference },
        { "name": "ingest/integrator_readings_per_s", "value": whole.1, "unit": "1/s", "ratio": whole.1 / bare.1,
          "reference": reference },
    ]);
    write(&rows, "integrators.json");
}
