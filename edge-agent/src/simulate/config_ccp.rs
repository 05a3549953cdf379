//! Which control points does the agent of the simulated plant judge, and by which limits?
//! The only place that writes `[[ccp]]`, `[[alarm]]` and what is said about signals.

use std::time::Duration;

use super::{
    config_out::Toml,
    tags::{Process, TAGS},
};

/// The total that follows from line 1's counter.
pub const TOTAL: &str = "L1-TOTAL";
/// The coil that stops line 4.
pub const LINE_STOP_COIL: u16 = 0;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);
/// The least that the agent takes.
const CHECK_MIN: Duration = Duration::from_secs(1);
const STUCK_MIN: Duration = Duration::from_secs(1);
const HOLD_MIN: Duration = Duration::from_secs(1);
const STAGE_MIN: Duration = Duration::from_mins(1);
/// Less would hold too few readings of a tag that is read ten times a second.
const BLOCK_MIN: Duration = Duration::from_secs(2);
/// A gap shorter than this would be the machine's, not the plant's.
const GAP_MIN: Duration = Duration::from_secs(1);

/// Writes CCP-1 to CCP-5.
pub(super) fn points(out: &mut Toml) {
    out.line(format_args!(
        "[[output]]\nname = \"line-4-stop\"\ndevice = \"akron-plc\""
    ));
    out.line(format_args!("coil = {LINE_STOP_COIL}\nsafe = 1\n"));
    htst(out);
    kettle(out);
    chiller(out);
    oven(out);
    detector(out);
    motors(out);
}

/// Keys that follow the tag of this name in its poll group.
pub(super) fn tag_keys(out: &mut Toml, indent: &str, name: &str) {
    if name == "L1-COUNT" {
        let gap = out.wall(MINUTE, SECOND);
        out.line(format_args!(
            "{indent}counter = {{ max = 65535, total = \"{TOTAL}\", gap_max = \"{gap}\" }}"
        ));
    }
    if name == "TT-302" {
        // Of a plant that is much faster than the clock a block holds few readings: it must be longer.
        let every = out.wall(60 * MINUTE, BLOCK_MIN);
        out.line(format_args!(
            "{indent}drift = {{ reference = \"TT-303\", every = \"{every}\", baseline = 24, floor = 0.05 }}"
        ));
    }
}

/// A motor that draws or shakes less than half of what it should has stopped.
fn motors(out: &mut Toml) {
    for tag in TAGS.iter() {
        if let Process::Motor { mean, .. } = tag.process {
            let low = mean / 2.0;
            out.line(format_args!("[[alarm]]\ntag = \"{}\"\nlow = {low:?}\n", tag.name));
        }
    }
}

fn htst(out: &mut Toml) {
    let delay = out.wall(SECOND, Duration::ZERO);
    let window = out.wall(30 * SECOND, STUCK_MIN);
    out.line(format_args!(
        "[[ccp]]\ncode = \"CCP-1\"\ntag = \"TT-101\"\nlow = 72.0\nunit = \"degC\""
    ));
    out.line(format_args!(
        "clear_margin = 0.2\ndelay = \"{delay}\"\nversion = 1"
    ));
    out.line(format_args!("gate = {{ tag = \"ZS-106\", value = 1.0 }}"));
    out.line(format_args!(
        "stuck = {{ reference = \"TT-102\", window = \"{window}\", floor = 0.005 }}"
    ));
    out.line(format_args!("not_during = {{ tag = \"L1-STATE\", value = 2.0 }}"));
    periods(out, 5 * SECOND);
}

/// Every batch is at 74.0 °C or more for 15 s.
fn kettle(out: &mut Toml) {
    let hold = out.wall(15 * SECOND, HOLD_MIN);
    out.line(format_args!(
        "[[ccp]]\ncode = \"CCP-2\"\nkind = \"hold_time\"\ntag = \"TT-201\""
    ));
    out.line(format_args!("low = 74.0\nunit = \"degC\"\nhold = \"{hold}\""));
    out.line(format_args!(
        "version = 1\ngate = {{ tag = \"KS-201\", value = 1.0 }}"
    ));
    periods(out, 10 * SECOND);
}

/// Every load cools from 57 to 21 °C within 120 minutes and to 5 °C within 360.
fn chiller(out: &mut Toml) {
    let (first, last) = (
        out.wall(120 * MINUTE, STAGE_MIN),
        out.wall(360 * MINUTE, 2 * STAGE_MIN),
    );
    out.line(format_args!(
        "[[ccp]]\ncode = \"CCP-3\"\nkind = \"cooling\"\ntag = \"TT-204\""
    ));
    out.line(format_args!(
        "unit = \"degC\"\nstart = 57.0\nair = -2.0\nversion = 1"
    ));
    out.line(format_args!(
        "stages = [{{ to = 21.0, within = \"{first}\" }}, {{ to = 5.0, within = \"{last}\" }}]"
    ));
    periods(out, MINUTE);
}

fn oven(out: &mut Toml) {
    let delay = out.wall(SECOND, Duration::ZERO);
    out.line(format_args!(
        "[[ccp]]\ncode = \"CCP-4\"\ntag = \"TT-310\"\nlow = 74.0\nunit = \"degC\""
    ));
    out.line(format_args!(
        "clear_margin = 0.2\ndelay = \"{delay}\"\nversion = 1"
    ));
    periods(out, 10 * SECOND);
}

/// Challenged every hour, with five minutes' grace: 1 passed, 2 failed, 0 between challenges.
fn detector(out: &mut Toml) {
    let (every, grace) = (
        out.wall(60 * MINUTE, SECOND),
        out.wall(5 * MINUTE, Duration::ZERO),
    );
    out.line(format_args!(
        "[[ccp]]\ncode = \"CCP-5\"\nkind = \"challenge\"\ntag = \"MD-401-CHALLENGE\""
    ));
    out.line(format_args!(
        "low = 0.5\nhigh = 1.5\nidle = 0.0\nunit = \"\"\nversion = 1"
    ));
    out.line(format_args!("every = \"{every}\"\ngrace = \"{grace}\""));
    out.line(format_args!(
        "react = {{ output = \"line-4-stop\", on_deviation = 1.0, on_clear = 0.0 }}"
    ));
    periods(out, MINUTE);
}

fn periods(out: &mut Toml, gap: Duration) {
    let (gap, check) = (out.wall(gap, GAP_MIN), out.wall(MINUTE, CHECK_MIN));
    out.line(format_args!("gap_max = \"{gap}\"\ncheck_every = \"{check}\"\n"));
}
