//! Which control points does the agent of the simulated plant judge, and by which limits?
//! The only place that writes `[[ccp]]`.

use std::time::Duration;

use super::config_out::Toml;

/// The agent judges `kind = "hold_time" | "cooling" | "challenge"`: CCP-2, CCP-3 and CCP-5 are written only then,
/// because an unknown key is a fault.
pub const HAS_NEW_KINDS: bool = false;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);
/// The least that the agent takes.
const CHECK_MIN: Duration = Duration::from_secs(1);
const STUCK_MIN: Duration = Duration::from_secs(1);
/// A gap shorter than this would be the machine's, not the plant's.
const GAP_MIN: Duration = Duration::from_secs(1);

/// Writes CCP-1 to CCP-5.
pub(super) fn points(out: &mut Toml) {
    let check = out.wall(MINUTE, CHECK_MIN);
    let delay = out.wall(SECOND, Duration::ZERO);
    let (short, long) = (out.wall(5 * SECOND, GAP_MIN), out.wall(10 * SECOND, GAP_MIN));
    let window = out.wall(30 * SECOND, STUCK_MIN);
    out.line(format_args!(
        "[[ccp]]\ncode = \"CCP-1\"\ntag = \"TT-101\"\nlow = 72.0\nunit = \"degC\""
    ));
    out.line(format_args!(
        "clear_margin = 0.2\ndelay = \"{delay}\"\ngap_max = \"{short}\""
    ));
    out.line(format_args!(
        "version = 1\ngate = {{ tag = \"ZS-106\", value = 1.0 }}"
    ));
    out.line(format_args!(
        "stuck = {{ reference = \"TT-102\", window = \"{window}\", floor = 0.005 }}"
    ));
    out.line(format_args!("check_every = \"{check}\"\n"));
    if HAS_NEW_KINDS {
        new_kinds(out, &check);
    }
    out.line(format_args!(
        "[[ccp]]\ncode = \"CCP-4\"\ntag = \"TT-310\"\nlow = 74.0\nunit = \"degC\""
    ));
    out.line(format_args!(
        "clear_margin = 0.2\ndelay = \"{delay}\"\ngap_max = \"{long}\""
    ));
    out.line(format_args!("version = 1\ncheck_every = \"{check}\""));
}

/// Kettles, chillers and the metal detector's challenge.
fn new_kinds(out: &mut Toml, check: &str) {
    let hold = out.wall(15 * SECOND, Duration::ZERO);
    let gap = out.wall(10 * SECOND, GAP_MIN);
    let (first, total) = (out.wall(120 * MINUTE, SECOND), out.wall(360 * MINUTE, SECOND));
    let (every, grace) = (
        out.wall(60 * MINUTE, SECOND),
        out.wall(5 * MINUTE, Duration::ZERO),
    );
    out.line(format_args!(
        "[[ccp]]\ncode = \"CCP-2\"\nkind = \"hold_time\"\ntag = \"TT-201\""
    ));
    out.line(format_args!(
        "low = 74.0\nunit = \"degC\"\nhold = \"{hold}\"\ngap_max = \"{gap}\""
    ));
    out.line(format_args!("check_every = \"{check}\"\nversion = 1\n"));
    out.line(format_args!(
        "[[ccp]]\ncode = \"CCP-3\"\nkind = \"cooling\"\ntag = \"TT-204\""
    ));
    out.line(format_args!(
        "unit = \"degC\"\nfrom = 57.0\nthrough = 21.0\nthrough_within = \"{first}\""
    ));
    out.line(format_args!("to = 5.0\nwithin = \"{total}\"\nversion = 1\n"));
    out.line(format_args!(
        "[[ccp]]\ncode = \"CCP-5\"\nkind = \"challenge\"\ntag = \"MD-401-CHALLENGE\""
    ));
    out.line(format_args!(
        "passed = 1.0\nfailed = 2.0\nevery = \"{every}\"\ngrace = \"{grace}\"\nversion = 1\n"
    ));
}
