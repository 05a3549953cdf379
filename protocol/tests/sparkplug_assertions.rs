//! Which test shows each assertion of the Sparkplug specification 3.0, and which are not shown, and why? The table is
//! `sparkplug/assertions.tsv`; this holds it to the sources and `docs/ref/sparkplug.md` to the table.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

const TABLE: &str = include_str!("sparkplug/assertions.tsv");
/// Distinct `tck-testable` ids in the specification's source.
const ASSERTIONS: usize = 299;
const WHOM: [&str; 4] = ["both", "edge node", "host", "server"];
/// Where tests of Sparkplug are.
const SOURCES: [&str; 5] = [
    "protocol/tests",
    "edge-agent/tests/agent",
    "cloud-hub/tests/integrator",
    "cloud-hub/src/integrator",
    "cloud-hub/src/broker",
];

struct Row {
    id: &'static str,
    whom: &'static str,
    tests: Vec<&'static str>,
    why_not: &'static str,
}

fn rows() -> Vec<Row> {
    let lines = TABLE.lines().skip(1);
    let rows = lines.map(|line| {
        let cells: Vec<&str> = line.split('\t').collect();
        let [id, whom, tests, why_not] = cells.try_into().unwrap_or_else(|_| panic!("{line}"));
        let tests = tests.split_whitespace().collect();
        Row {
            id,
            whom,
            tests,
            why_not,
        }
    });
    rows.collect()
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Names of all test functions below the folders.
fn tests_in_sources() -> BTreeSet<String> {
    let mut folders: Vec<PathBuf> = SOURCES.iter().map(|folder| repository().join(folder)).collect();
    let mut found = BTreeSet::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.extend(tests_in(&fs::read_to_string(path).unwrap()));
            }
        }
    }
    found
}

/// Functions that follow a test's attribute.
fn tests_in(source: &str) -> Vec<String> {
    let (mut found, mut is_test) = (Vec::new(), false);
    for line in source.lines().map(str::trim) {
        let function = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ");
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            is_test = true;
        } else if let Some(rest) = function {
            if is_test {
                let name = rest.split(['(', '<']).next().unwrap_or_default();
                found.push(name.to_owned());
            }
            is_test = false;
        }
    }
    found
}

#[test]
fn every_assertion_stands_in_the_table_once_with_its_tests_or_the_reason_why_there_are_none() {
    let rows = rows();
    let ids: BTreeSet<&str> = rows.iter().map(|row| row.id).collect();
    assert_eq!(ids.len(), ASSERTIONS, "distinct ids");
    assert_eq!(rows.len(), ASSERTIONS, "one row each");
    assert!(rows.is_sorted_by_key(|row| row.id));
    for Row {
        id,
        whom,
        tests,
        why_not,
    } in rows
    {
        assert!(id.starts_with("tck-id-"), "{id}");
        assert!(WHOM.contains(&whom), "{id}: {whom}");
        assert_ne!(
            tests.is_empty(),
            why_not.is_empty(),
            "{id}: tests, or the reason why there are none"
        );
    }
}

#[test]
fn every_test_that_the_table_names_exists_and_every_test_named_by_an_id_is_in_the_table() {
    let sources = tests_in_sources();
    let rows = rows();
    let named: BTreeSet<&str> = rows.iter().flat_map(|row| row.tests.iter().copied()).collect();
    let gone: Vec<_> = named.iter().filter(|test| !sources.contains(**test)).collect();
    assert!(gone.is_empty(), "no such test: {gone:?}");
    let unlisted: Vec<_> = sources
        .iter()
        .filter(|test| test.starts_with("tck_id_") && !named.contains(test.as_str()))
        .collect();
    assert!(unlisted.is_empty(), "not in the table: {unlisted:?}");
}

#[test]
fn the_documentation_has_the_tables_counts() {
    let mut counts: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    for row in rows() {
        let count = counts.entry(row.whom).or_default();
        if row.tests.is_empty() {
            count.1 += 1;
            *reasons.entry(row.why_not).or_default() += 1;
        } else {
            count.0 += 1;
        }
    }
    let tested: usize = counts.values().map(|count| count.0).sum();
    let mut wanted: Vec<String> = counts
        .iter()
        .map(|(whom, (shown, not))| format!("| {whom} | {shown} | {not} |"))
        .collect();
    wanted.push(format!(
        "| all {ASSERTIONS} | {tested} | {} |",
        ASSERTIONS - tested
    ));
    wanted.extend(reasons.iter().map(|(why, count)| format!("| {count} | {why} |")));
    let said = fs::read_to_string(repository().join("docs/ref/sparkplug.md")).unwrap();
    let missing: Vec<&String> = wanted
        .iter()
        .filter(|line| !said.lines().any(|it| it == *line))
        .collect();
    assert!(
        missing.is_empty(),
        "docs/ref/sparkplug.md lacks:\n{}",
        missing
            .iter()
            .map(|line| line.as_str())
            .collect::<Vec<_>>()
            .join("\n")
    );
}
