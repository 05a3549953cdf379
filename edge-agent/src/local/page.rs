//! What does the local status page show? How the agent is doing, as of now.

use super::{
    alarms::flood,
    html::{escape, page, put, time},
    status::Status,
};
use crate::health::{SourceState, UplinkState};

/// The page of a snapshot.
pub(super) fn render(status: &Status) -> String {
    let mut body = String::new();
    summary(status, &mut body);
    points(status, &mut body);
    sources(status, &mut body);
    alarms(status, &mut body);
    page(&status.edge, true, &body)
}

fn summary(status: &Status, out: &mut String) {
    let (class, uplink) = match &status.uplink.state {
        UplinkState::Online => ("ok", "online".to_owned()),
        UplinkState::Starting => ("warn", "starting".to_owned()),
        UplinkState::NotEnrolled => ("warn", "not enrolled: run `foodflow-edge enroll`".to_owned()),
        UplinkState::Offline { reason } => ("bad", format!("offline: {reason}")),
    };
    put(
        out,
        format_args!(
            "<p>Version {} · up since {} · now {}</p><table>\
             <tr><th>Hub</th><td class=\"{class}\">{}</td></tr>\
             <tr><th>Readings acquired / on disk / at the hub</th><td class=\"n\">{} / {} / {}</td></tr>\
             <tr><th>Readings computed / within their deadband</th><td class=\"n\">{} / {}</td></tr>\
             <tr><th>Waiting for the hub</th><td class=\"n\">{} frames, {} readings</td></tr>\
             <tr><th>Readings given up</th><td class=\"n {}\">{}</td></tr>\
             <tr><th>Spool on disk</th><td class=\"n\">{:.1} MiB, {} failed writes</td></tr>\
             <tr><th>Inspections pass / reject / unknown</th><td class=\"n\">{} / {} / {}{}</td></tr>\
             <tr><th>Signs in with</th><td>{}</td></tr></table>",
            status.version,
            time(status.started_us),
            time(status.now_us),
            escape(&uplink),
            status.acquired,
            status.spooled,
            status.acknowledged,
            status.computed,
            status.suppressed,
            status.backlog_frames,
            status.backlog_readings,
            if status.lost > 0 { "bad" } else { "" },
            status.lost,
            status.spool_disk_bytes as f64 / 1_048_576.0,
            status.spool_write_errors,
            status.vision.pass,
            status.vision.reject,
            status.vision.unknown,
            status
                .vision
                .off
                .as_ref()
                .map_or_else(String::new, |off| format!(" ({})", escape(off))),
            credential(status),
        ),
    );
}

/// What the edge signs in with, and until when its certificate is good.
fn credential(status: &Status) -> String {
    let certificate = status.uplink.certificate.as_ref().map(|certificate| {
        let word = if certificate.not_after_us > status.now_us {
            "valid until"
        } else {
            "expired"
        };
        format!(
            " · certificate {}, {word} {}",
            escape(&certificate.subject),
            time(certificate.not_after_us)
        )
    });
    format!(
        "{}{}",
        status.uplink.signs_in_with,
        certificate.unwrap_or_default()
    )
}

fn points(status: &Status, out: &mut String) {
    out.push_str(
        "<h2>Critical control points</h2><table><tr><th>Point</th><th>State</th><th>Tag</th><th>Value</th>\
         <th>Limit</th><th>Quality</th><th>At</th></tr>",
    );
    for point in &status.ccps {
        let class = match point.state {
            "in_control" => "ok",
            "deviation" => "bad",
            _ => "warn",
        };
        let limit = match (point.low, point.high) {
            (Some(low), Some(high)) => format!("{low} to {high}"),
            (Some(low), None) => format!("≥ {low}"),
            (None, Some(high)) => format!("≤ {high}"),
            (None, None) => String::new(),
        };
        let stuck = if point.stuck { ", sensor stuck" } else { "" };
        put(
            out,
            format_args!(
                "<tr><td>{}</td><td class=\"{class}\">{}{stuck}</td><td>{}</td><td class=\"n\">{}</td><td>{limit} {}</td>\
                 <td>{}</td><td>{}</td></tr>",
                escape(&point.code),
                point.state.replace('_', " "),
                escape(&point.tag),
                point
                    .value
                    .map_or_else(|| "–".to_owned(), |value| format!("{value}")),
                escape(&point.unit),
                point.quality.unwrap_or("–"),
                point.time_us.map_or_else(|| "–".to_owned(), time),
            ),
        );
    }
    out.push_str("</table>");
}

fn sources(status: &Status, out: &mut String) {
    out.push_str(
        "<h2>Sources</h2><table><tr><th>Source</th><th>Kind</th><th>State</th><th>Good</th><th>Uncertain</th><th>Bad</th>\
         <th>Not read</th><th>Due</th><th>Newest</th></tr>",
    );
    for source in &status.sources {
        let (class, state) = match &source.state {
            SourceState::Up => ("ok", "up".to_owned()),
            SourceState::Starting => ("warn", "starting".to_owned()),
            SourceState::Down { reason } => ("bad", format!("down: {reason}")),
        };
        put(
            out,
            format_args!(
                "<tr><td>{}</td><td>{}</td><td class=\"{class}\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td>\
                 <td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td>{}</td></tr>",
                escape(&source.name),
                source.kind,
                escape(&state),
                source.good,
                source.uncertain,
                source.bad,
                source.not_read,
                source.due,
                source.newest_us.map_or_else(|| "–".to_owned(), time),
            ),
        );
    }
    out.push_str("</table>");
}

fn alarms(status: &Status, out: &mut String) {
    out.push_str("<h2>Newest alarms</h2>");
    flood(status.alarm_board.flood.as_ref(), out);
    out.push_str("<table><tr><th>At</th><th>Alarm</th><th>About</th><th></th><th>Message</th></tr>");
    for alarm in &status.alarms {
        put(
            out,
            format_args!(
                "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
                time(alarm.at_us),
                escape(&alarm.code),
                escape(&alarm.subject),
                if alarm.active { "raised" } else { "cleared" },
                escape(&alarm.message),
            ),
        );
    }
    out.push_str("</table>");
}
