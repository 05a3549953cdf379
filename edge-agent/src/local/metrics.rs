//! How does Prometheus see the agent? The snapshot in the text exposition format.

use std::fmt::Write as _;

use super::status::Status;
use crate::health::{SourceState, UplinkState};

/// The metrics of a snapshot.
pub(super) fn render(status: &Status) -> String {
    let mut out = Exposition::default();
    out.one(
        "foodflow_edge_start_time_seconds",
        "gauge",
        "When the agent started.",
        status.started_us as f64 / 1e6,
    );
    out.one(
        "foodflow_edge_readings_computed_total",
        "counter",
        "Readings of derived tags and counters' totals.",
        status.computed as f64,
    );
    out.one(
        "foodflow_edge_readings_suppressed_total",
        "counter",
        "Readings within their deadband, read and not sent.",
        status.suppressed as f64,
    );
    out.one(
        "foodflow_edge_readings_spooled_total",
        "counter",
        "Readings made durable.",
        status.spooled as f64,
    );
    out.one(
        "foodflow_edge_readings_acknowledged_total",
        "counter",
        "Readings the hub has stored.",
        status.acknowledged as f64,
    );
    out.one(
        "foodflow_edge_readings_lost_total",
        "counter",
        "Readings given up.",
        status.lost as f64,
    );
    out.one(
        "foodflow_edge_spool_evicted_unsent_total",
        "counter",
        "Readings that waited for the hub and were given up for want of room.",
        status.evicted_unsent as f64,
    );
    out.one(
        "foodflow_edge_backlog_frames",
        "gauge",
        "Frames that wait for the hub.",
        status.backlog_frames as f64,
    );
    out.one(
        "foodflow_edge_backlog_readings",
        "gauge",
        "Readings that wait for the hub.",
        status.backlog_readings as f64,
    );
    let age_s = status
        .oldest_us
        .map_or(0.0, |oldest_us| (status.now_us - oldest_us).max(0) as f64 / 1e6);
    out.one(
        "foodflow_edge_backlog_age_seconds",
        "gauge",
        "Age of the oldest waiting frame.",
        age_s,
    );
    out.one(
        "foodflow_edge_spool_bytes",
        "gauge",
        "Bytes of the spool on disk.",
        status.spool_disk_bytes as f64,
    );
    out.one(
        "foodflow_edge_spool_window_seconds",
        "gauge",
        "Readings up to this old may not be on disk yet; records of control points always are.",
        status.spool_window_us as f64 / 1e6,
    );
    out.one(
        "foodflow_edge_spool_write_errors_total",
        "counter",
        "Writes that the disk refused.",
        status.spool_write_errors as f64,
    );
    sources(status, &mut out);
    points(status, &mut out);
    alarms(status, &mut out);
    let verdicts = [
        ("pass", status.vision.pass),
        ("reject", status.vision.reject),
        ("unknown", status.vision.unknown),
    ];
    out.head(
        "foodflow_edge_inspections_total",
        "counter",
        "Inspections by verdict.",
    );
    for (verdict, count) in verdicts {
        out.line(
            "foodflow_edge_inspections_total",
            &[("verdict", verdict)],
            count as f64,
        );
    }
    let online = f64::from(u8::from(status.uplink.state == UplinkState::Online));
    out.one(
        "foodflow_edge_uplink_online",
        "gauge",
        "Whether the hub is connected.",
        online,
    );
    out.one(
        "foodflow_edge_uplink_sent_bytes_total",
        "counter",
        "Bytes sent.",
        status.uplink.sent_bytes as f64,
    );
    if let Some(certificate) = &status.uplink.certificate {
        out.one(
            "foodflow_edge_certificate_expires_seconds",
            "gauge",
            "When the client certificate expires, seconds since 1970.",
            certificate.not_after_us as f64 / 1e6,
        );
    }
    out.text
}

fn alarms(status: &Status, out: &mut Exposition) {
    let counts = &status.alarm_board.counts;
    let gauges = [
        (
            "standing",
            "Alarms that are active and not hidden.",
            counts.standing,
        ),
        (
            "hidden",
            "Alarms that are shelved, suppressed or out of service.",
            counts.hidden,
        ),
        (
            "stale",
            "Alarms that are active for more than a day.",
            counts.stale,
        ),
        (
            "last_10_minutes",
            "Alarms that became active within ten minutes.",
            counts.last_10_min,
        ),
    ];
    for (name, help, value) in gauges {
        out.one(
            &format!("foodflow_edge_alarms_{name}"),
            "gauge",
            help,
            value as f64,
        );
    }
    let counters = [
        ("activations", "Alarms that became active.", counts.activations),
        (
            "floods",
            "Times of more than ten alarms in ten minutes.",
            counts.floods,
        ),
        (
            "chattering",
            "Times that an alarm came more than three times in a minute.",
            counts.chattering,
        ),
    ];
    for (name, help, value) in counters {
        out.one(
            &format!("foodflow_edge_alarm_{name}_total"),
            "counter",
            help,
            value as f64,
        );
    }
}

fn sources(status: &Status, out: &mut Exposition) {
    let name = "foodflow_edge_readings_total";
    out.head(
        name,
        "counter",
        "Due readings by source and outcome; the outcomes add up to all that were due.",
    );
    for source in &status.sources {
        let outcomes = [
            ("good", source.good),
            ("uncertain", source.uncertain),
            ("bad", source.bad),
            ("not_read", source.not_read),
        ];
        for (outcome, count) in outcomes {
            out.line(
                name,
                &[("source", &source.name), ("outcome", outcome)],
                count as f64,
            );
        }
    }
    let name = "foodflow_edge_source_up";
    out.head(name, "gauge", "Whether a source gives readings.");
    for source in &status.sources {
        let up = f64::from(u8::from(source.state == SourceState::Up));
        out.line(name, &[("source", &source.name), ("kind", source.kind)], up);
    }
}

fn points(status: &Status, out: &mut Exposition) {
    let name = "foodflow_edge_ccp_state";
    out.head(name, "gauge", "1 for the state that a control point is in.");
    for point in &status.ccps {
        for state in ["in_control", "deviation", "diverted", "unknown"] {
            let is_in = f64::from(u8::from(point.state == state));
            out.line(name, &[("ccp", &point.code), ("state", state)], is_in);
        }
    }
}

#[derive(Default)]
struct Exposition {
    text: String,
}

impl Exposition {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}")
            .expect("writing to a String cannot fail");
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: f64) {
        self.head(name, kind, help);
        self.line(name, &[], value);
    }

    fn line(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        let labels: Vec<String> = labels
            .iter()
            .map(|(label, value)| format!("{label}=\"{}\"", escape(value)))
            .collect();
        let labels = if labels.is_empty() {
            String::new()
        } else {
            format!("{{{}}}", labels.join(","))
        };
        writeln!(self.text, "{name}{labels} {value}").expect("writing to a String cannot fail");
    }
}

fn escape(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_cannot_break_out_of_its_quotes() {
        let mut out = Exposition::default();
        out.line("m", &[("source", "a\"b\\c\nd")], 1.0);
        assert_eq!(out.text, "m{source=\"a\\\"b\\\\c\\nd\"} 1\n");
    }
}
