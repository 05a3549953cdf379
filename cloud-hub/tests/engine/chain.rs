//! Is tampering noticed? The owner of the database, who may do anything, changes the audit trail in every way there
//! is; verifying names the row each time. The hub's own roles cannot change it at all.

use std::time::Duration;

use chrono::{DateTime, Days, NaiveDate, Utc};
use cloud_hub::{
    integrity::{
        chain::{Broken, Fault},
        key::AuditKey,
        root::Root,
        root_file, sign_days,
        verify::{Ask, Verified, verify},
    },
    kernel::{
        audit::{Actor, Deed, GENESIS, link},
        clock::Clock,
        tenancy::Db,
    },
};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use serde_json::json;
use sqlx::{AssertSqlSafe, ConnectOptions as _, PgConnection};
use uuid::Uuid;

use crate::support::{TestDatabase, akron};

struct Trail {
    test: TestDatabase,
    owner: PgConnection,
    key: AuditKey,
}

impl Trail {
    /// Akron's chain with `rows` more entries of every shape.
    async fn of(rows: usize) -> Self {
        let test = TestDatabase::create().await;
        let owner = test.databases.owner.as_ref().unwrap();
        let mut owner = owner.requests.connect().await.unwrap();
        run(&mut owner, "SET search_path TO t_akron").await;
        let trail = Self {
            test,
            owner,
            key: AuditKey::from_bytes(&[7; 32]),
        };
        write(&trail.test.db, rows).await;
        trail
    }

    async fn sql(&mut self, sql: &str) {
        run(&mut self.owner, sql).await;
    }

    async fn number(&mut self, sql: &str) -> i64 {
        sqlx::query_scalar(AssertSqlSafe(sql.to_owned()))
            .fetch_one(&mut self.owner)
            .await
            .unwrap()
    }

    async fn verify(&self, files: &[Root]) -> Verified {
        let ask = Ask {
            from: 1,
            to: i64::MAX,
            trusted: &[self.key.public()],
            files,
            parts: 1,
        };
        verify(&self.test.db, &akron(), &ask).await.unwrap()
    }

    async fn broken(&self) -> Option<Broken> {
        self.verify(&[]).await.first_broken
    }

    async fn sign(&self, now: DateTime<Utc>) -> Vec<Root> {
        sign_days::sign_due(&self.test.db, &akron(), &self.key, now)
            .await
            .unwrap()
    }

    /// Takes a copy that [`Self::undo`] goes back to.
    async fn save(&mut self) {
        self.sql("CREATE TABLE saved AS SELECT * FROM audit_event; CREATE INDEX ON saved (seq)")
            .await;
    }

    async fn undo(&mut self) {
        self.sql(
            "DELETE FROM audit_event e WHERE NOT EXISTS (SELECT FROM saved s WHERE s.* IS NOT DISTINCT FROM e.*); \
             INSERT INTO audit_event SELECT * FROM saved ON CONFLICT DO NOTHING",
        )
        .await;
    }

    /// Hashes every row anew from `seq` on, as somebody would who knows how the chain is made.
    async fn rehash(&mut self, seq: i64) {
        let rows: Vec<(i64, String, Vec<u8>)> =
            sqlx::query_as("SELECT seq, event, hash FROM audit_event WHERE seq >= $1 - 1 ORDER BY seq")
                .bind(seq)
                .fetch_all(&mut self.owner)
                .await
                .unwrap();
        let mut last = GENESIS;
        for (at, event, hash) in rows {
            if at < seq {
                last = hash.try_into().unwrap();
                continue;
            }
            let next = link(&last, at, &event);
            sqlx::query("UPDATE audit_event SET prev_hash = $2, hash = $3 WHERE seq = $1")
                .bind(at)
                .bind(&last[..])
                .bind(&next[..])
                .execute(&mut self.owner)
                .await
                .unwrap();
            last = next;
        }
    }
}

async fn run(owner: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
        .execute(owner)
        .await
        .unwrap();
}

async fn write(db: &Db, rows: usize) {
    for row in 0..rows {
        let actor = match row % 3 {
            0 => Actor::Nobody,
            1 => Actor::User {
                id: Uuid::from_u128(row as u128),
                name: "Zoë \"Z\" \\ Ünal".to_owned(),
            },
            _ => Actor::Hub { duty: "test" },
        };
        let mut tx = db.begin_as(&akron(), actor).await.unwrap();
        let deed = Deed {
            action: "test",
            entity: "lot",
            ..Deed::default()
        };
        tx.audit(&if row % 2 == 0 {
            deed
        } else {
            Deed::on("update", "lot", row)
                .before(json!({ "x": 1.5e-7, "name": "tab\there" }))
                .after(json!({ "x": 20305, "name": "ü" }))
        });
        tx.commit().await.unwrap();
    }
}

/// A change of one byte of one column of a row, as SQL; `None` where there is nothing to change.
fn flip(random: &mut StdRng, column: &str, seq: i64, head: i64) -> String {
    let place = random.random::<u16>();
    match column {
        "seq" => {
            // Another place that is free: every one up to the head is taken.
            let bit = random.random_range(0..62);
            let other = if seq ^ (1 << bit) > head {
                seq ^ (1 << bit)
            } else {
                head + 1 + i64::from(place)
            };
            format!("seq = {other}")
        }
        "at_us" => format!("at_us = at_us # (1::bigint << {})", random.random_range(0..62)),
        "prev_hash" | "hash" => {
            let (byte, mask) = (place % 32, 1 << random.random_range(0..8));
            format!("{column} = set_byte({column}, {byte}, get_byte({column}, {byte}) # {mask})")
        }
        text => {
            let letter = char::from(random.random_range(b'a'..=b'z'));
            let at = format!("1 + {place} % greatest(length({text}), 1)");
            let changed = format!(
                "overlay({text} placing CASE WHEN substr({text}, {at}, 1) = '{letter}' THEN '#' ELSE '{letter}' END \
                 from {at} for 1)"
            );
            format!("{text} = CASE WHEN {text} IS NULL THEN '{letter}' ELSE {changed} END")
        }
    }
}

#[tokio::test]
async fn flipping_any_byte_of_any_row_makes_verify_name_it() {
    const COLUMNS: [&str; 11] = [
        "seq",
        "at_us",
        "actor_kind",
        "actor_id",
        "action",
        "entity",
        "entity_id",
        "correlation_id",
        "event",
        "prev_hash",
        "hash",
    ];
    let mut trail = Trail::of(30).await;
    trail.save().await;
    let head = trail.number("SELECT max(seq) FROM audit_event").await;
    assert_eq!(trail.broken().await, None, "whole before");
    let seed = rand::random::<u64>();
    let mut random = StdRng::seed_from_u64(seed);
    for round in 0..330_usize {
        let column = COLUMNS[round % COLUMNS.len()];
        let seq = random.random_range(1..=head);
        let change = flip(&mut random, column, seq, head);
        let sql = format!("UPDATE audit_event SET {change} WHERE seq = {seq}");
        trail.sql(&sql).await;
        let named = trail.broken().await.map(|broken| broken.seq);
        assert_eq!(named, Some(seq), "seed {seed}, round {round}: {sql}");
        trail.undo().await;
    }
    assert_eq!(trail.broken().await, None, "whole after");
}

#[tokio::test]
async fn rows_that_are_removed_swapped_inserted_or_emptied_are_named() {
    let mut trail = Trail::of(12).await;
    trail.save().await;
    let head = trail.number("SELECT max(seq) FROM audit_event").await;
    for (change, named) in [
        ("DELETE FROM audit_event WHERE seq = 5".to_owned(), 5),
        ("DELETE FROM audit_event WHERE seq BETWEEN 1 AND 3".to_owned(), 1),
        (
            "UPDATE audit_event a SET event = b.event, actor_kind = b.actor_kind, actor_id = b.actor_id, \
               action = b.action, entity = b.entity, entity_id = b.entity_id, at_us = b.at_us, \
               correlation_id = b.correlation_id FROM audit_event b \
             WHERE (a.seq, b.seq) IN ((6, 7), (7, 6))"
                .to_owned(),
            6,
        ),
        (
            format!(
                "INSERT INTO audit_event SELECT seq + 1, at_us, actor_kind, actor_id, action, entity, entity_id, \
                   correlation_id, event, prev_hash, hash FROM audit_event WHERE seq = {head}"
            ),
            head + 1,
        ),
        (
            "UPDATE audit_event SET actor_id = NULL, entity_id = NULL WHERE seq = 4".to_owned(),
            4,
        ),
    ] {
        trail.sql(&change).await;
        assert_eq!(trail.broken().await.map(|it| it.seq), Some(named), "{change}");
        trail.undo().await;
    }
    trail
        .sql("UPDATE audit_event SET event = '{}' WHERE seq = 3")
        .await;
    trail.rehash(3).await;
    assert_eq!(
        trail.broken().await,
        Some(Broken::at(3, Fault::Event)),
        "hashed anew, but no entry"
    );
}

#[tokio::test]
async fn a_chain_that_is_cut_or_written_anew_is_caught_by_its_signed_root() {
    let mut trail = Trail::of(10).await;
    let tomorrow = Clock::system().now() + Days::new(1);
    let roots = trail.sign(tomorrow).await;
    let head = roots[0].last_seq;
    write(&trail.test.db, 3).await;
    trail.save().await;
    let found = trail.verify(&[]).await;
    assert_eq!((found.first_broken, found.roots_checked), (None, 1));

    trail
        .sql(&format!("DELETE FROM audit_event WHERE seq >= {head}"))
        .await;
    let cut = trail.broken().await.unwrap();
    assert_eq!(cut.seq, head);
    assert!(
        matches!(cut.fault, Fault::Cut { last_seq, .. } if last_seq == head),
        "{cut}"
    );
    trail.undo().await;

    trail
        .sql(
            "UPDATE audit_event SET action = 'forged', event = regexp_replace(event, '^\\{\"action\":\"[a-z]+\"', \
               '{\"action\":\"forged\"') WHERE seq = 2",
        )
        .await;
    trail.rehash(2).await;
    let rewritten = trail.broken().await.unwrap();
    assert_eq!(rewritten, Broken::at(head, Fault::Rewritten(roots[0].day)));
    // The roots in the database may go too; the customer's copy stays.
    trail.sql("DELETE FROM audit_root").await;
    assert_eq!(trail.broken().await, None, "nothing left to tell by");
    let with_files = trail.verify(&roots).await.first_broken.unwrap();
    assert_eq!(with_files, Broken::at(head, Fault::Rewritten(roots[0].day)));
}

#[tokio::test]
async fn any_change_of_a_root_is_named_by_its_row() {
    let mut trail = Trail::of(4).await;
    let today = Clock::system().now();
    let roots = trail.sign(today + Days::new(3)).await;
    assert_eq!(roots.len(), 3, "days without entries have their root too");
    let last = roots[1].last_seq;
    trail
        .sql("CREATE TABLE saved_root AS SELECT * FROM audit_root")
        .await;
    for change in [
        "last_seq = last_seq - 1",
        "last_hash = set_byte(last_hash, 3, get_byte(last_hash, 3) # 1)",
        "statement = replace(statement, '\"tenant\":\"akron\"', '\"tenant\":\"akrom\"')",
        "statement = statement || ' '",
        "signature = set_byte(signature, 60, get_byte(signature, 60) # 1)",
        "public_key = set_byte(public_key, 0, get_byte(public_key, 0) # 1)",
    ] {
        trail
            .sql(&format!(
                "UPDATE audit_root SET {change} WHERE day = '{}'",
                roots[1].day
            ))
            .await;
        let broken = trail.broken().await.unwrap();
        assert_eq!(broken.seq, last, "{change}");
        assert!(
            matches!(broken.fault, Fault::Root { day, .. } if day == roots[1].day),
            "{change}: {broken}"
        );
        trail
            .sql("DELETE FROM audit_root; INSERT INTO audit_root SELECT * FROM saved_root")
            .await;
    }
    trail
        .sql(&format!("DELETE FROM audit_root WHERE day = '{}'", roots[2].day))
        .await;
    assert_eq!(trail.broken().await, None, "the newest may be dropped unnoticed");
    let broken = trail.verify(&roots).await.first_broken.unwrap();
    assert!(
        broken.to_string().contains("the database has no such root"),
        "{broken}"
    );
}

#[tokio::test]
async fn each_midnight_signs_the_day_that_ended_and_missed_days_are_made_up_for() {
    let test = TestDatabase::create().await;
    let key = AuditKey::from_bytes(&[7; 32]);
    let start = Clock::system().now();
    let clock = Clock::fixed(start.timestamp_micros());
    let db =
        Db::new(test.databases.login.requests.clone(), 2, Duration::from_secs(10)).with_clock(clock.clone());
    let head = async || test.count(&akron(), "SELECT max(seq) FROM audit_event").await;
    let sign = async || {
        sign_days::sign_due(&db, &akron(), &key, clock.now())
            .await
            .unwrap()
    };
    let days = |roots: &[Root]| roots.iter().map(|it| (it.day, it.last_seq)).collect::<Vec<_>>();
    let day = |after: u64| start.date_naive() + Days::new(after);
    let midnight = |day: NaiveDate| day.and_time(chrono::NaiveTime::MIN).and_utc().timestamp_micros();

    assert!(sign().await.is_empty(), "the first day is not over");
    let first = head().await;
    clock.set(midnight(day(1)) - 1);
    assert!(sign().await.is_empty(), "still not");
    clock.set(midnight(day(1)));
    write(&db, 2).await;
    assert_eq!(
        days(&sign().await),
        [(day(0), first)],
        "what is of the new day is not in it"
    );
    assert!(sign().await.is_empty(), "once a day");
    let second = head().await;
    clock.set(midnight(day(4)) + 1);
    write(&db, 1).await;
    let made_up = sign().await;
    assert_eq!(
        days(&made_up),
        [(day(1), second), (day(2), second), (day(3), second)]
    );
    assert_eq!(
        made_up[0].stated().unwrap().rows_that_day,
        2,
        "{}",
        made_up[0].statement
    );
    clock.set(start.timestamp_micros());
    assert!(
        sign().await.is_empty(),
        "a clock that is set back signs nothing twice"
    );
    let ask = Ask {
        from: 1,
        to: i64::MAX,
        trusted: &[key.public()],
        files: &[],
        parts: 1,
    };
    let found = verify(&db, &akron(), &ask).await.unwrap();
    assert_eq!((found.first_broken, found.roots_checked), (None, 4));
    let stranger = [AuditKey::from_bytes(&[8; 32]).public()];
    let ask = Ask {
        trusted: &stranger,
        ..ask
    };
    let broken = verify(&db, &akron(), &ask).await.unwrap().first_broken.unwrap();
    assert!(broken.to_string().contains("not trusted"), "{broken}");
}

#[tokio::test]
async fn a_long_chain_is_walked_in_parts_that_fit_together() {
    let mut trail = Trail::of(0).await;
    // Entries made by the database as fast as it can: the same text as the program's.
    trail
        .sql(
            "SELECT record(array_agg(format('{\"action\":\"test\",\"actor\":{\"id\":null,\"kind\":\"nobody\",\
               \"name\":null},\"after\":null,\"at_us\":%s,\"before\":null,\"correlation_id\":\"c\",\
               \"entity\":\"lot\",\"entity_id\":null,\"why\":null}', n)), '{}') FROM generate_series(1, 45000) n",
        )
        .await;
    let ask = |from, to| Ask {
        from,
        to,
        trusted: &[],
        files: &[],
        parts: 2,
    };
    let head = trail.number("SELECT max(seq) FROM audit_event").await;
    let whole = verify(&trail.test.db, &akron(), &ask(1, i64::MAX)).await.unwrap();
    assert_eq!((whole.rows, whole.first_broken), (head.unsigned_abs(), None));
    let within = verify(&trail.test.db, &akron(), &ask(100, 200)).await.unwrap();
    assert_eq!((within.rows, within.from, within.to), (101, 100, 200));
    let beyond = verify(&trail.test.db, &akron(), &ask(head + 5, i64::MAX))
        .await
        .unwrap();
    assert_eq!((beyond.rows, beyond.first_broken), (0, None));
    // Where two parts meet, the second one's first row must still follow the first one's last.
    let meeting = head.div_euclid(2) + head % 2 + 1;
    for seq in [meeting - 1, meeting, meeting + 1] {
        trail
            .sql(&format!(
                "CREATE TABLE saved AS SELECT * FROM audit_event WHERE seq = {seq}"
            ))
            .await;
        let event: String = sqlx::query_scalar("SELECT event FROM audit_event WHERE seq = $1")
            .bind(seq)
            .fetch_one(&mut trail.owner)
            .await
            .unwrap();
        sqlx::query("UPDATE audit_event SET prev_hash = $2, hash = $3 WHERE seq = $1")
            .bind(seq)
            .bind(&[9_u8; 32][..])
            .bind(&link(&[9; 32], seq, &event)[..])
            .execute(&mut trail.owner)
            .await
            .unwrap();
        let found = verify(&trail.test.db, &akron(), &ask(1, i64::MAX)).await.unwrap();
        assert_eq!(found.first_broken, Some(Broken::at(seq, Fault::PrevHash)));
        trail
            .sql(&format!(
                "DELETE FROM audit_event WHERE seq = {seq}; INSERT INTO audit_event SELECT * FROM saved; DROP TABLE saved"
            ))
            .await;
    }
}

#[tokio::test]
async fn the_hubs_roles_can_neither_change_nor_invent_what_is_on_record() {
    let trail = Trail::of(1).await;
    let refused = async |sql: &str, is_tenant: bool| {
        let sql = AssertSqlSafe(sql.to_owned());
        let error = if is_tenant {
            let mut tx = trail.test.db.begin(&akron()).await.unwrap();
            sqlx::raw_sql(sql).execute(tx.conn()).await.unwrap_err()
        } else {
            let mut tx = trail.test.db.platform().await.unwrap();
            sqlx::raw_sql(sql).execute(tx.conn()).await.unwrap_err()
        };
        let code = error.as_database_error().unwrap().code().unwrap().into_owned();
        assert_eq!(code, "42501", "{error}");
    };
    for (table, column) in [
        ("audit_event", "seq"),
        ("audit_root", "last_seq"),
        ("domain_event", "seq"),
        ("signature", "record_version"),
    ] {
        for is_tenant in [true, false] {
            let table = format!("t_akron.{table}");
            refused(&format!("UPDATE {table} SET {column} = {column}"), is_tenant).await;
            refused(&format!("DELETE FROM {table}"), is_tenant).await;
            refused(&format!("TRUNCATE {table}"), is_tenant).await;
            refused(&format!("DROP TABLE {table}"), is_tenant).await;
            refused(&format!("ALTER TABLE {table} ADD COLUMN x int"), is_tenant).await;
            if !(is_tenant && table.ends_with("signature")) {
                refused(&format!("INSERT INTO {table} DEFAULT VALUES"), is_tenant).await;
            }
        }
    }
    refused("SELECT record('{}', '{}') FROM t_akron.record('{}', '{}')", false).await;
}

#[tokio::test]
async fn a_temporary_table_does_not_take_the_place_of_the_chain() {
    let trail = Trail::of(1).await;
    let head = async || {
        trail
            .test
            .count(&akron(), "SELECT max(seq) FROM t_akron.audit_event")
            .await
    };
    let before = head().await;
    let mut tx = trail.test.db.begin(&akron()).await.unwrap();
    sqlx::raw_sql("CREATE TEMPORARY TABLE audit_event (LIKE t_akron.audit_event) ON COMMIT DROP")
        .execute(tx.conn())
        .await
        .unwrap();
    tx.audit(&Deed::on("test", "lot", 1));
    tx.commit().await.unwrap();
    assert_eq!(head().await, before + 1);
}

#[tokio::test]
async fn a_root_is_of_a_row_that_is_there_and_of_the_day_that_comes_next() {
    let trail = Trail::of(1).await;
    let sign = async |day: &str, hash: &str| {
        let mut tx = trail.test.db.begin(&akron()).await.unwrap();
        let sql = format!(
            "SELECT sign_root('{day}', 1, {hash}, '{{}}', decode(repeat('00', 64), 'hex'), \
               decode(repeat('00', 32), 'hex'))"
        );
        let appended: Result<bool, sqlx::Error> =
            sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(tx.conn()).await;
        if appended.is_ok() {
            tx.commit_unaudited("a test").await.unwrap();
        }
        appended
    };
    let own = "(SELECT hash FROM audit_event WHERE seq = 1)";
    assert!(
        sign("2026-01-01", "decode(repeat('00', 32), 'hex')")
            .await
            .is_err()
    );
    assert!(sign("2026-01-01", own).await.unwrap());
    assert!(!sign("2026-01-01", own).await.unwrap());
    assert!(!sign("2025-12-31", own).await.unwrap());
    assert!(sign("2026-01-03", own).await.is_err());
    assert!(sign("2026-01-02", own).await.unwrap());
}

#[tokio::test]
async fn a_folder_of_roots_is_checked_without_the_databases_own() {
    let trail = Trail::of(2).await;
    let roots = trail.sign(Clock::system().now() + Days::new(2)).await;
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("akron");
    std::fs::create_dir(&folder).unwrap();
    for root in &roots {
        let text = json!({ "statement": root.statement, "signature": cloud_hub::kernel::hex::hex(&root.signature),
            "public_key": cloud_hub::kernel::hex::hex(&root.public_key) });
        std::fs::write(folder.join(format!("{}.json", root.day)), text.to_string()).unwrap();
    }
    let files = root_file::read(dir.path(), "akron").unwrap();
    assert_eq!(files, roots);
    assert_eq!(trail.verify(&files).await.first_broken, None);
    assert_eq!(
        trail.verify(&files[1..]).await.first_broken,
        None,
        "older ones may be kept elsewhere"
    );
}
