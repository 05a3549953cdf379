//! What does a person do about an alarm at the line? One form over the newest alarms: acknowledge, shelve for a stated
//! time, reset, take out of service; signed with badge and PIN. What hides a critical alarm needs two people. Whether the
//! alarm's state allows it is decided by the alarms themselves, and is on record either way.

use std::collections::HashSet;

use protocol::{
    Micros,
    alarm::{AlarmAction, AlarmVerb},
    event::{Alarm, Event},
};
use uuid::Uuid;

use super::{
    Local, Refusal,
    badge::{Denied, Role},
    form::{Fields, line},
    html::{escape, put, time},
    signed::{NO_BADGE, SignedForm, signature, signer},
};
use crate::{
    alarm::{AlarmBoard, kpi::Flood},
    ccp,
    source::Acquired,
};

/// Longest shelving, minutes.
const SHELVE_MIN_MAX: i64 = 12 * 60;
const REASON_CHARS_MAX: usize = 300;

const VERBS: [(&str, &str); 6] = [
    ("acknowledge", "Acknowledge: seen, being dealt with"),
    ("shelve", "Shelve for so many minutes"),
    ("unshelve", "End the shelving"),
    ("reset", "Reset a latched alarm"),
    ("out_of_service", "Take out of service"),
    ("in_service", "Return to service"),
];

/// What each verb needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Needs {
    role: Role,
    reason: bool,
    second: bool,
}

fn needs(verb: AlarmVerb, is_critical: bool) -> Needs {
    let hides = matches!(verb, AlarmVerb::Shelve { .. } | AlarmVerb::TakeOutOfService);
    let is_light = matches!(verb, AlarmVerb::Acknowledge | AlarmVerb::Unshelve);
    Needs {
        role: if is_light {
            Role::Operator
        } else {
            Role::Supervisor
        },
        reason: hides,
        second: hides && is_critical,
    }
}

/// The alarms that are not Normal, most urgent first, then the newest word on each other one.
fn newest(local: &Local, board: AlarmBoard) -> Vec<Alarm> {
    let mut seen = HashSet::new();
    let standing = board.shown.into_iter().map(|alarm| Alarm {
        id: alarm.id,
        at_us: alarm.since_us.unwrap_or(0),
        code: alarm.code,
        subject: alarm.subject,
        line: alarm.line,
        active: alarm.is_active,
        message: alarm.message,
    });
    let others = local.health().alarms().into_iter();
    standing
        .chain(others)
        .filter(|alarm| seen.insert((alarm.code.clone(), alarm.subject.clone())))
        .collect()
}

/// Alarms of control points and stuck sensors are of the legal record.
fn is_critical(alarm: &Alarm) -> bool {
    ccp::is_record(&Event::Alarm(alarm.clone()))
}

/// Acts on one alarm.
pub(super) struct AlarmForm;

impl SignedForm for AlarmForm {
    const PATH: &'static str = "/alarms";
    const HEADING: &'static str = "Alarms";
    type Record = AlarmAction;

    async fn read(
        local: &Local,
        fields: &Fields,
        id: Uuid,
        now_us: Micros,
    ) -> Result<(AlarmAction, Vec<Acquired>), Refusal> {
        let wanted = fields.get("alarm").and_then(|text| Uuid::try_parse(text).ok());
        let alarm = newest(local, local.health().alarm_board())
            .into_iter()
            .find(|alarm| Some(alarm.id) == wanted);
        let alarm =
            alarm.ok_or_else(|| Refusal::unusable("Choose the alarm from the list; it may have changed."))?;
        let verb = read_verb(fields, now_us).map_err(Refusal::unusable)?;
        let needs = needs(verb, is_critical(&alarm));
        let reason = line(fields, "reason", REASON_CHARS_MAX).map_err(Refusal::unusable)?;
        if needs.reason && reason.is_empty() {
            return Err(Refusal::unusable("Say why: what hides an alarm needs a reason."));
        }
        let (by, second) = signers(local, fields, needs).await?;
        let action = AlarmAction {
            id,
            code: alarm.code,
            subject: alarm.subject,
            at_us: now_us,
            by,
            second,
            reason,
            verb,
        };
        let message = Acquired::AlarmAction(Box::new(action.clone()));
        Ok((action, vec![message]))
    }

    fn recorded(_: &Local, action: AlarmAction, _: Micros) {
        tracing::info!(code = %action.code, subject = %action.subject, by = %action.by, verb = ?action.verb, "alarm action");
    }

    fn render(local: &Local, fields: &Fields, hidden: &str, out: &mut String) {
        let board = local.health().alarm_board();
        let (in_flood, standing) = (board.flood.clone(), board.shown.len());
        let alarms = newest(local, board);
        flood(in_flood.as_ref(), out);
        // In a flood the first one and the most urgent; every other can still be chosen below.
        let listed = in_flood.map_or(alarms.len(), |_| standing.min(alarms.len()));
        list(&alarms[..listed], out);
        if local.book().badges.is_empty() {
            out.push_str(NO_BADGE);
        } else if !alarms.is_empty() {
            inputs(&alarms, fields, hidden, out);
        }
    }
}

/// The badges that sign. The second is asked for only where it is needed, and is another person's.
async fn signers(local: &Local, fields: &Fields, needs: Needs) -> Result<(String, Option<String>), Refusal> {
    let book = local.book();
    let first = signer(&book, fields, ("badge", "pin"), needs.role).await?;
    if !needs.second {
        return Ok((first.id, None));
    }
    if fields.get("badge2").is_none_or(|badge| badge.trim().is_empty()) {
        return Err(Refusal::unusable(
            "This alarm is critical: a second person must sign with their own badge and PIN.",
        ));
    }
    let second = signer(&book, fields, ("badge2", "pin2"), Role::Operator).await?;
    if second.id == first.id {
        return Err(Denied::SamePerson.into());
    }
    Ok((first.id, Some(second.id)))
}

fn read_verb(fields: &Fields, now_us: Micros) -> Result<AlarmVerb, String> {
    let verb = match fields.get("verb").map_or("", String::as_str) {
        "acknowledge" => AlarmVerb::Acknowledge,
        "unshelve" => AlarmVerb::Unshelve,
        "reset" => AlarmVerb::Reset,
        "out_of_service" => AlarmVerb::TakeOutOfService,
        "in_service" => AlarmVerb::ReturnToService,
        "shelve" => {
            let minutes = fields.get("minutes").map_or("", |text| text.trim());
            let minutes = minutes
                .parse()
                .ok()
                .filter(|minutes| (1..=SHELVE_MIN_MAX).contains(minutes));
            let minutes = minutes.ok_or_else(|| {
                format!("Shelve for a whole number of minutes from 1 to {SHELVE_MIN_MAX}; the alarm then comes back.")
            })?;
            AlarmVerb::Shelve {
                until_us: now_us + minutes * 60_000_000,
            }
        }
        _ => return Err("Choose what to do from the list.".to_owned()),
    };
    Ok(verb)
}

/// What began a flood, and how much came with it.
pub(super) fn flood(flood: Option<&Flood>, out: &mut String) {
    let Some(flood) = flood else { return };
    let others: Vec<String> = flood
        .others
        .iter()
        .map(|(code, count)| format!("{count} × {}", escape(code)))
        .collect();
    put(
        out,
        format_args!(
            "<p class=\"bad\">Alarm flood since {}. First: {} {}. Since then: {}.</p>",
            time(flood.since_us),
            escape(&flood.first_code),
            escape(&flood.first_subject),
            others.join(", "),
        ),
    );
}

fn list(alarms: &[Alarm], out: &mut String) {
    if alarms.is_empty() {
        out.push_str("<p class=\"ok\">None since the start.</p>");
        return;
    }
    out.push_str("<table><tr><th>At</th><th>Alarm</th><th>About</th><th></th><th>Message</th></tr>");
    for alarm in alarms {
        let (class, state) = match (alarm.active, is_critical(alarm)) {
            (true, true) => ("bad", "raised, critical"),
            (true, false) => ("warn", "raised"),
            (false, _) => ("ok", "cleared"),
        };
        put(
            out,
            format_args!(
                "<tr><td>{}</td><td>{}</td><td>{}</td><td class=\"{class}\">{state}</td><td>{}</td></tr>",
                time(alarm.at_us),
                escape(&alarm.code),
                escape(&alarm.subject),
                escape(&alarm.message),
            ),
        );
    }
    out.push_str("</table>");
}

fn inputs(alarms: &[Alarm], fields: &Fields, hidden: &str, out: &mut String) {
    let selected = |name: &str, value: &str| match fields.get(name) {
        Some(chosen) if chosen == value => " selected",
        _ => "",
    };
    put(
        out,
        format_args!("<form method=\"post\" action=\"/alarms\">{hidden}<label>Alarm<select name=\"alarm\">"),
    );
    for alarm in alarms {
        let id = alarm.id.to_string();
        let is_selected = selected("alarm", &id);
        let (code, subject) = (escape(&alarm.code), escape(&alarm.subject));
        put(
            out,
            format_args!("<option value=\"{id}\"{is_selected}>{code} {subject}</option>"),
        );
    }
    out.push_str("</select></label><label>What to do<select name=\"verb\">");
    for (value, text) in VERBS {
        let is_selected = selected("verb", value);
        put(
            out,
            format_args!("<option value=\"{value}\"{is_selected}>{text}</option>"),
        );
    }
    let typed = |name: &str| escape(fields.get(name).map_or("", String::as_str));
    put(
        out,
        format_args!(
            "</select></label><label>Minutes, to shelve<input name=\"minutes\" value=\"{}\" inputmode=\"numeric\" \
             maxlength=\"4\"></label><label>Reason<input name=\"reason\" value=\"{}\" maxlength=\"300\"></label>",
            typed("minutes"),
            typed("reason"),
        ),
    );
    signature(out, fields, ("badge", "pin"), "Your");
    signature(
        out,
        fields,
        ("badge2", "pin2"),
        "Second person’s (critical alarms)",
    );
    out.push_str("<button>Sign</button></form>");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hides_a_critical_alarm_needs_a_reason_and_two_people() {
        let shelve = AlarmVerb::Shelve { until_us: 0 };
        assert!(needs(shelve, true).second && needs(shelve, true).reason);
        assert!(needs(AlarmVerb::TakeOutOfService, true).second);
        assert!(!needs(shelve, false).second);
        assert_eq!(needs(AlarmVerb::Acknowledge, true).role, Role::Operator);
        for verb in [shelve, AlarmVerb::Reset, AlarmVerb::ReturnToService] {
            assert_eq!(needs(verb, false).role, Role::Supervisor);
        }
    }

    #[test]
    fn f20_a_flood_is_told_by_what_came_first_and_the_number_of_the_rest() {
        let mut out = String::new();
        flood(None, &mut out);
        assert_eq!(out, "");
        let others = [("tag.bad".to_owned(), 2), ("tag.low".to_owned(), 59)];
        let told = Flood {
            since_us: 0,
            first_code: "tag.low".to_owned(),
            first_subject: "KW-101 <pump>".to_owned(),
            others: others.into(),
        };
        flood(Some(&told), &mut out);
        assert!(
            out.contains("First: tag.low KW-101 &lt;pump&gt;. Since then: 2 × tag.bad, 59 × tag.low."),
            "{out}"
        );
    }

    #[test]
    fn a_shelving_has_an_end_within_half_a_day() {
        let verb = |minutes: &str| {
            let fields = [("verb", "shelve"), ("minutes", minutes)];
            read_verb(
                &fields
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
                    .into(),
                0,
            )
        };
        assert_eq!(
            verb("30"),
            Ok(AlarmVerb::Shelve {
                until_us: 1_800_000_000
            })
        );
        for minutes in ["", "0", "-5", "721", "1.5", "for ever"] {
            assert!(verb(minutes).unwrap_err().contains("from 1 to 720"), "{minutes}");
        }
    }
}
