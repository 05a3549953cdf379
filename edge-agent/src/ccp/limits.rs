//! Which limits outlive a restart? Those that the hub pushed, kept whole in one file beside the spool; of a limit in
//! the file and one in the configuration the higher version is in force.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use protocol::limit::CriticalLimit;

use super::config::Point;

/// Most bytes read: a thousand control points need a third of it.
const BYTES_MAX: u64 = 1 << 20;

fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("limits.json")
}

/// Writes all limits in force: whole or not at all, and on disk when it returns.
///
/// # Errors
/// The disk refused; what was there before still is.
pub fn save(data_dir: &Path, limits: &[CriticalLimit]) -> io::Result<()> {
    let text = serde_json::to_vec_pretty(limits)?;
    let draft = data_dir.join("limits.json.new");
    let mut file = File::create(&draft)?;
    file.write_all(&text)?;
    file.sync_all()?;
    fs::rename(&draft, path(data_dir))?;
    File::open(data_dir)?.sync_all()
}

/// Reads what [`save`] wrote; nothing when there is no file.
///
/// # Errors
/// Names the file and what to do.
pub fn load(data_dir: &Path) -> Result<Vec<CriticalLimit>, String> {
    let path = path(data_dir);
    let size = match fs::metadata(&path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(format!("{}: {error}", path.display())),
    };
    let remedy = "the configured limits are in force; push the limits from the hub again";
    if size > BYTES_MAX {
        return Err(format!(
            "{}: larger than {BYTES_MAX} bytes: {remedy}",
            path.display()
        ));
    }
    let text = fs::read(&path).map_err(|error| format!("{}: {error}: {remedy}", path.display()))?;
    serde_json::from_slice(&text).map_err(|error| format!("{}: {error}: {remedy}", path.display()))
}

/// Puts kept limits over the configured ones where they are newer and can be used; says what could not.
pub fn apply(points: &mut [Point], kept: Vec<CriticalLimit>) -> Vec<String> {
    let mut faults = Vec::new();
    for limit in kept {
        let Some(point) = points.iter_mut().find(|point| point.limit.ccp == limit.ccp) else {
            faults.push(format!("control point {} is no longer configured", limit.ccp));
            continue;
        };
        if limit.version <= point.limit.version {
            continue;
        }
        match fitted(&point.limit, limit) {
            Ok(limit) => point.limit = limit,
            Err(fault) => faults.push(fault),
        }
    }
    faults
}

/// A pushed limit as it is judged here: the tag, its unit and how often it is read are the edge's own.
///
/// # Errors
/// Names the control point and what does not fit.
pub fn fitted(known: &CriticalLimit, pushed: CriticalLimit) -> Result<CriticalLimit, String> {
    let ccp = &known.ccp;
    if pushed.unit != known.unit {
        return Err(format!(
            "{ccp}: the limit is in `{}` but its tag `{}` is in `{}`",
            pushed.unit, known.tag, known.unit
        ));
    }
    if pushed.tag != known.tag {
        return Err(format!(
            "{ccp}: the limit is for tag `{}` but the control point monitors `{}`; change the configuration instead",
            pushed.tag, known.tag
        ));
    }
    let limit = CriticalLimit {
        line: known.line.clone(),
        period_us: known.period_us,
        ..pushed
    };
    limit.check().map_err(|fault| format!("{ccp}: {fault}"))?;
    if limit.gap_us_max < limit.period_us {
        return Err(format!(
            "{ccp}: `gap_max` is shorter than the tag's period: every pause between readings would be a deviation"
        ));
    }
    Ok(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(version: u32, low: f64) -> CriticalLimit {
        CriticalLimit {
            ccp: "CCP-1".to_owned(),
            line: None,
            tag: "TT-101".to_owned(),
            unit: "degC".to_owned(),
            low: Some(low),
            high: None,
            clear_margin: 0.2,
            delay_us: 0,
            gap_us_max: 5_000_000,
            check_every_us: 60_000_000,
            period_us: 1_000_000,
            version,
        }
    }

    fn point(version: u32) -> Point {
        Point {
            limit: limit(version, 72.0),
            kind: protocol::limit::ControlKind::Limit,
            tag: protocol::reading::Alias(0),
            gate: None,
            not_during: None,
            stuck: None,
            react: None,
        }
    }

    #[test]
    fn kept_limits_come_before_configured_ones_only_when_they_are_newer() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(load(directory.path()), Ok(Vec::new()));
        save(directory.path(), &[limit(3, 73.0)]).unwrap();
        for (configured, in_force) in [(2, 3), (3, 3), (4, 4)] {
            let mut points = [point(configured)];
            let faults = apply(&mut points, load(directory.path()).unwrap());
            assert_eq!((faults, points[0].limit.version), (Vec::new(), in_force));
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named_with_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("limits.json"), b"[{").unwrap();
        let fault = load(directory.path()).unwrap_err();
        assert!(
            fault.contains("limits.json") && fault.contains("push the limits"),
            "{fault}"
        );
    }

    #[test]
    fn kept_limits_that_do_not_fit_are_named_and_left_out() {
        let mut points = [point(1)];
        let other_unit = CriticalLimit {
            unit: "degF".to_owned(),
            ..limit(2, 160.0)
        };
        let gone = CriticalLimit {
            ccp: "CCP-9".to_owned(),
            ..limit(2, 73.0)
        };
        let faults = apply(&mut points, vec![other_unit, gone]);
        assert!(
            faults[0].contains("degF") && faults[1].contains("CCP-9"),
            "{faults:?}"
        );
        assert_eq!(points[0].limit.version, 1);
    }
}
