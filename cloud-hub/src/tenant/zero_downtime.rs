//! May the program before this one still run on the migrated schema? The rule of `migrations/README.md`, for what a
//! text can show: nothing that may be in use goes, is renamed or becomes narrower unless the file says since which
//! release nobody uses it, and no index is built over a table that is large by now without a word about its lock.

use super::migrate::Files;

/// What takes something away from a program that runs.
const CONTRACTING: &[&str] = &[
    "drop table",
    "drop column",
    "drop view",
    "drop function",
    "drop schema",
    "rename to",
    "rename column",
    "set not null",
    "set data type",
    " type ",
];

/// Tables with many rows in a tenant that has run for a while.
const LARGE: &[&str] = &[
    "reading",
    "frame",
    "audit_event",
    "domain_event",
    "not_read",
    "ccp_check",
];

/// Released before there was a rule: the table was made a few lines before, in the same file.
const EXEMPT: &[(&str, i64)] = &[("tenant", 3)];

/// SQL in lower case, white space made even, without comments and without what stands in quotes.
fn bare(sql: &str) -> String {
    let uncommented: Vec<&str> = sql
        .lines()
        .map(|line| line.split("--").next().unwrap_or_default())
        .collect();
    let mut text = String::new();
    for (place, part) in uncommented.join(" ").split('\'').enumerate() {
        text.push_str(if place % 2 == 0 { part } else { "''" });
    }
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").to_lowercase()
}

fn statements(sql: &str) -> Vec<String> {
    bare(sql)
        .split(';')
        .map(|statement| statement.trim().to_owned())
        .collect()
}

/// What a file does that needs a word of explanation which it does not give.
fn faults(sql: &str) -> Vec<String> {
    let is_contract = sql
        .lines()
        .any(|line| line.trim().starts_with("-- contract: ") && line.contains(|c: char| c.is_ascii_digit()));
    let says_locks = sql.lines().any(|line| line.trim().starts_with("-- locks: "));
    let all = statements(sql);
    let makes = |table: &str| {
        all.iter()
            .any(|made| made.starts_with(&format!("create table {table} ")))
    };
    let mut faults = Vec::new();
    for statement in &all {
        let alters = statement.contains("alter table") || statement.contains("alter column");
        let takes_away = |word: &&&str| match **word {
            " type " => alters && statement.contains(" type ") && statement.contains("alter column"),
            word => statement.contains(word),
        };
        if let Some(word) = CONTRACTING.iter().find(takes_away)
            && !is_contract
        {
            faults.push(format!("`{}` without `-- contract: RELEASE …`", word.trim()));
        }
        let required = alters
            && statement.contains("add column")
            && statement.contains("not null")
            && !statement.contains("default");
        if required {
            faults.push("a new column that is NOT NULL without a default".to_owned());
        }
        let indexed = LARGE.iter().find(|table| {
            statement.starts_with("create")
                && statement.contains("index")
                && statement.contains(&format!(" on {table} "))
        });
        if let Some(table) = indexed
            && !makes(table)
            && !says_locks
        {
            faults.push(format!("an index over `{table}` without `-- locks: …`"));
        }
    }
    faults
}

#[test]
fn no_file_takes_away_what_the_program_before_may_use() {
    let mut found = Vec::new();
    for (kind, files) in [("platform", Files::platform()), ("tenant", Files::tenant())] {
        for (version, sql) in files.texts() {
            if !EXEMPT.contains(&(kind, version)) {
                found.extend(
                    faults(sql)
                        .into_iter()
                        .map(|fault| format!("{kind}/{version:04}: {fault}")),
                );
            }
        }
    }
    assert!(
        found.is_empty(),
        "see migrations/README.md:\n{}",
        found.join("\n")
    );
}

#[test]
fn what_contracts_must_say_since_when_nobody_uses_it() {
    for contracting in [
        "DROP TABLE outbox;",
        "ALTER TABLE lot DROP COLUMN code;",
        "alter table lot rename column code to lot_code;",
        "ALTER TABLE lot ALTER COLUMN code TYPE varchar(10);",
        "ALTER TABLE lot ALTER COLUMN code SET NOT NULL;",
    ] {
        assert_eq!(faults(contracting).len(), 1, "{contracting}");
        let explained = format!("-- contract: 0.3.0 reads domain_event instead\n{contracting}");
        assert!(faults(&explained).is_empty(), "{contracting}");
        let evasive = format!("-- contract: later\n{contracting}");
        assert_eq!(faults(&evasive).len(), 1, "{contracting}");
    }
    assert_eq!(faults("ALTER TABLE lot ADD COLUMN x int NOT NULL;").len(), 1);
    assert_eq!(faults("CREATE INDEX i ON reading (value);").len(), 1);
}

#[test]
fn what_expands_needs_no_word() {
    for expanding in [
        "ALTER TABLE lot ADD COLUMN x int NOT NULL DEFAULT 0;",
        "-- one day: DROP TABLE lot\nCREATE TABLE note (type text NOT NULL, of text);",
        "ALTER TABLE app_user ALTER COLUMN role DROP NOT NULL;",
        "COMMENT ON TABLE lot IS 'drop table; rename to';",
        "CREATE TABLE reading (time timestamptz); CREATE INDEX i ON reading (time);",
        "-- locks: a minute for each 10 million rows; readings wait at the edges\nCREATE INDEX i ON reading (value);",
    ] {
        assert!(
            faults(expanding).is_empty(),
            "{expanding}: {:?}",
            faults(expanding)
        );
    }
}
