//! `foodflow-hub verify`: walk a tenant's audit chain and name the first row that does not hold. 0 when it is
//! whole, 1 when it is broken, 2 for wrong usage.
#![expect(clippy::print_stdout, reason = "what a script reads goes to standard output")]

use std::{
    fmt,
    fs::File,
    io::BufReader,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use anyhow::Context as _;
use chrono::NaiveDate;
use clap::Args;
use serde_json::json;

use super::{Place, manage};
use crate::kernel::hex::{from_hex, hex};
use crate::{
    config::{Config, ConfigError},
    integrity::{
        export::verify_file,
        key::{self, AuditKey},
        root::Root,
        root_file,
        verify::{self, Ask, Verified},
    },
    kernel::tenancy::{Db, TenantSlug},
};

const ACQUIRE_TIMEOUT: Duration = Duration::from_mins(1);
const PARTS_MAX: usize = 16;

#[derive(Debug, Args)]
pub(super) struct VerifyArguments {
    /// Tenant slug.
    #[arg(long, value_parser = TenantSlug::parse)]
    tenant: TenantSlug,
    /// First row, or first UTC day (YYYY-MM-DD).
    #[arg(long, value_name = "SEQ|DAY")]
    from: Option<Bound>,
    /// Last row, or last UTC day.
    #[arg(long, value_name = "SEQ|DAY")]
    to: Option<Bound>,
    /// Folder with the signed roots that you kept.
    #[arg(long, value_name = "DIR")]
    roots: Option<PathBuf>,
    /// Verify a file that `GET /api/v1/audit/export` gave instead of the database.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["from", "to"])]
    file: Option<PathBuf>,
    /// A key that may have signed roots, hexadecimal; may be given several times. The hub's own is believed too.
    #[arg(long, value_name = "HEX", value_parser = public_key)]
    key: Vec<[u8; 32]>,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

/// An end of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bound {
    Seq(i64),
    Day(NaiveDate),
}

/// The text is neither.
#[derive(Debug)]
struct BadBound;

impl fmt::Display for BadBound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected the number of a row, 1 or more, or a day YYYY-MM-DD")
    }
}

impl std::error::Error for BadBound {}

impl FromStr for Bound {
    type Err = BadBound;

    fn from_str(text: &str) -> Result<Self, BadBound> {
        if let Ok(seq) = text.parse() {
            return if seq >= 1 {
                Ok(Self::Seq(seq))
            } else {
                Err(BadBound)
            };
        }
        text.parse().map(Self::Day).map_err(|_| BadBound)
    }
}

fn public_key(text: &str) -> Result<[u8; 32], &'static str> {
    from_hex(text).ok_or("expected 64 hexadecimal digits")
}

impl Bound {
    const fn day(bound: Option<Self>) -> Option<NaiveDate> {
        match bound {
            Some(Self::Day(day)) => Some(day),
            _ => None,
        }
    }

    const fn seq(bound: Option<Self>) -> Option<i64> {
        match bound {
            Some(Self::Seq(seq)) => Some(seq),
            _ => None,
        }
    }
}

pub(super) async fn run(place: &Place, given: &VerifyArguments) -> anyhow::Result<()> {
    let found = match &given.file {
        Some(file) => check_file(place, given, file)?,
        None => check_database(place, given).await?,
    };
    if given.json {
        println!("{}", report(&given.tenant, &found));
    } else {
        tell(&given.tenant, &found);
    }
    match found.first_broken {
        None => Ok(()),
        Some(broken) => anyhow::bail!("the audit trail of {} is broken: {broken}", given.tenant),
    }
}

/// A file or folder that was named cannot be used.
fn unusable(option: &str, path: &Path, source: &std::io::Error) -> ConfigError {
    ConfigError::Impossible(vec![format!("{option} {}: {source}", path.display())])
}

fn kept_roots(given: &VerifyArguments) -> anyhow::Result<Vec<Root>> {
    let Some(folder) = &given.roots else {
        return Ok(Vec::new());
    };
    let read = root_file::read(folder, given.tenant.as_str());
    Ok(read.map_err(|source| unusable("--roots", folder, &source))?)
}

/// Verifying makes no key: where the hub has none, only the given ones are believed.
fn trusted(given: &VerifyArguments, data_dir: &Path) -> anyhow::Result<Vec<[u8; 32]>> {
    let mut trusted = key::trusted(data_dir).context("reading the keys to believe")?;
    trusted.extend(&given.key);
    if data_dir.join(key::FILE).exists() {
        let own = AuditKey::load_or_create(data_dir).context("reading the audit key")?;
        trusted.push(own.public());
    }
    Ok(trusted)
}

fn check_file(place: &Place, given: &VerifyArguments, file: &Path) -> anyhow::Result<Verified> {
    let config = Config::load(place.config.as_deref(), &place.overrides())?;
    let unusable = |source| unusable("--file", file, &source);
    let lines = BufReader::new(File::open(file).map_err(unusable)?);
    let (roots, trusted) = (kept_roots(given)?, trusted(given, &config.data_dir)?);
    Ok(verify_file(lines, given.tenant.as_str(), &roots, &trusted).map_err(unusable)?)
}

async fn check_database(place: &Place, given: &VerifyArguments) -> anyhow::Result<Verified> {
    let (config, databases) = place.open().await?;
    let parts = std::thread::available_parallelism().map_or(1, |cores| cores.get().min(PARTS_MAX));
    let connections = u32::try_from(parts + 1).unwrap_or(2);
    let db = Db::new(databases.login.requests.clone(), connections, ACQUIRE_TIMEOUT);
    let found = check(&db, &config, given, parts).await;
    db.close().await;
    manage::close(databases).await;
    found
}

async fn check(db: &Db, config: &Config, given: &VerifyArguments, parts: usize) -> anyhow::Result<Verified> {
    let (files, trusted) = (kept_roots(given)?, trusted(given, &config.data_dir)?);
    let (from_day, to_day) = (Bound::day(given.from), Bound::day(given.to));
    let days = verify::rows_of_days(db, &given.tenant, from_day, to_day).await?;
    let ask = Ask {
        from: Bound::seq(given.from).or(days.0).unwrap_or(1),
        to: Bound::seq(given.to).or(days.1).unwrap_or(i64::MAX),
        trusted: &trusted,
        files: &files,
        parts,
    };
    Ok(verify::verify(db, &given.tenant, &ask).await?)
}

fn tell(tenant: &TenantSlug, found: &Verified) {
    match &found.first_broken {
        Some(broken) => println!("{tenant}: broken: {broken}"),
        None => println!(
            "{tenant}: whole: {} rows ({} to {}), {} signed roots, {} signatures",
            found.rows, found.from, found.to, found.roots_checked, found.signatures_checked
        ),
    }
    if let Some(hash) = &found.head_hash {
        println!(
            "{tenant}: the chain ends at row {} with {}",
            found.head_seq,
            hex(hash)
        );
    }
}

fn report(tenant: &TenantSlug, found: &Verified) -> serde_json::Value {
    json!({
        "tenant": tenant.as_str(),
        "from": found.from,
        "to": found.to,
        "rows": found.rows,
        "head_seq": found.head_seq,
        "head_hash": found.head_hash.as_deref().map(hex),
        "roots_checked": found.roots_checked,
        "signatures_checked": found.signatures_checked,
        "first_broken": found.first_broken.as_ref().map(|broken| json!({
            "seq": broken.row(), "why": broken.fault.to_string() })),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_a_row_or_a_day() {
        assert_eq!("17".parse::<Bound>().unwrap(), Bound::Seq(17));
        let day = NaiveDate::from_ymd_opt(2026, 11, 20).unwrap();
        assert_eq!("2026-11-20".parse::<Bound>().unwrap(), Bound::Day(day));
        for wrong in ["0", "-1", "2026-13-01", "yesterday", ""] {
            assert!(wrong.parse::<Bound>().is_err(), "{wrong}");
        }
    }
}
