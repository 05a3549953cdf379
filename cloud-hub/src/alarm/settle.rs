//! What changes in the list of alarms, and what does the journal say of it? Pure: what is stored, what was found, and
//! who has acknowledged what, in; changed rows and entries out. What was found before stays found: only readings
//! that disprove it withdraw it, and that is an entry of its own.

use std::collections::BTreeMap;

use protocol::{Micros, alarm::AlarmState};
use uuid::Uuid;

use super::judge::{Judge, Occurrence};

/// An alarm of a rule as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// What it is about.
    pub occurrence: Occurrence,
    /// The state that people see.
    pub state: AlarmState,
    /// When the hub found it.
    pub found_us: Micros,
    /// When it was disproved.
    pub withdrawn_us: Option<Micros>,
    /// Until when it is hidden.
    pub shelved_until_us: Option<Micros>,
    /// Who acknowledged it, and when.
    pub acked: Option<(Micros, String)>,
}

/// An acknowledgement or a reset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    /// The occurrence they saw.
    pub alarm_id: Uuid,
    /// When.
    pub at_us: Micros,
    /// Who, by name.
    pub by: String,
}

/// Why a row changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It began.
    Raised,
    /// It ended.
    Returned,
    /// Late readings moved its end.
    Corrected,
    /// Late readings showed that it never was.
    Withdrawn,
    /// A person acted.
    Action,
    /// A time ran out.
    Time,
}

impl Cause {
    /// Its name in SQL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Raised => "raised",
            Self::Returned => "returned",
            Self::Corrected => "corrected",
            Self::Withdrawn => "withdrawn",
            Self::Action => "action",
            Self::Time => "time",
        }
    }
}

/// A row that is new or changed, and the entries of the journal about it: cause, when, state before.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// As it is now.
    pub row: Row,
    /// What is written about it.
    pub entries: Vec<(Cause, Micros, Option<AlarmState>)>,
}

/// Which occurrences were judged again: all that began in a time, and the one that stood at its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reach {
    /// Start of the time, exclusive.
    pub after_us: Micros,
    /// End of it: what was too much for one turn is judged in the next, and stands till then.
    pub until_us: Micros,
    /// The one that stood.
    pub open: Option<Uuid>,
}

impl Reach {
    fn covers(&self, occurrence: &Occurrence) -> bool {
        let began = occurrence.raised_us;
        (began > self.after_us && began <= self.until_us) || self.open == Some(occurrence.id)
    }
}

/// What changes, oldest first.
pub fn settle(
    stored: &[Row],
    found: &[Occurrence],
    reach: Reach,
    judge: &Judge,
    acks: &[Ack],
    now_us: Micros,
) -> Vec<Change> {
    let before: BTreeMap<Uuid, Row> = stored
        .iter()
        .map(|row| (row.occurrence.id, row.clone()))
        .collect();
    let mut after: BTreeMap<Uuid, Row> = before.clone();
    let mut causes: BTreeMap<Uuid, Vec<(Cause, Micros)>> = BTreeMap::new();
    let mut note = |id: Uuid, cause: Cause, at_us: Micros| causes.entry(id).or_default().push((cause, at_us));
    for occurrence in found {
        let known = after.get(&occurrence.id).filter(|row| row.withdrawn_us.is_none());
        let cleared_before = known.map(|row| row.occurrence.cleared_us);
        match (cleared_before, occurrence.cleared_us) {
            (None, cleared) => {
                note(occurrence.id, Cause::Raised, occurrence.raised_us);
                if let Some(at_us) = cleared {
                    note(occurrence.id, Cause::Returned, at_us);
                }
            }
            (Some(None), Some(at_us)) => note(occurrence.id, Cause::Returned, at_us),
            (Some(before), now) if before != now => {
                note(occurrence.id, Cause::Corrected, now.unwrap_or(now_us));
            }
            _ => {}
        }
        let row = after.entry(occurrence.id).or_insert_with(|| Row {
            occurrence: occurrence.clone(),
            state: AlarmState::Normal,
            found_us: now_us,
            withdrawn_us: None,
            shelved_until_us: None,
            acked: None,
        });
        row.occurrence = occurrence.clone();
        row.withdrawn_us = None;
    }
    for row in after.values_mut() {
        let is_found = found.iter().any(|it| it.id == row.occurrence.id);
        if !is_found && row.withdrawn_us.is_none() && reach.covers(&row.occurrence) {
            row.withdrawn_us = Some(now_us);
            note(row.occurrence.id, Cause::Withdrawn, now_us);
        }
        show(row, judge, acks);
    }
    let mut changes: Vec<Change> = after
        .into_values()
        .filter(|row| before.get(&row.occurrence.id) != Some(row))
        .map(|row| entries(row, &before, &causes, now_us))
        .collect();
    changes.sort_by_key(|change| (change.row.occurrence.raised_us, change.row.occurrence.id));
    changes
}

/// What people see of a row. The machine speaks of the newest occurrence; an earlier one asks for an acknowledgement
/// of its own until somebody gave one after it was found.
fn show(row: &mut Row, judge: &Judge, acks: &[Ack]) {
    let id = row.occurrence.id;
    let known_us = row.found_us.max(row.occurrence.raised_us);
    let ack = acks
        .iter()
        .find(|ack| ack.alarm_id == id || ack.at_us >= known_us);
    row.acked = ack.map(|ack| (ack.at_us, ack.by.clone()));
    let is_newest = judge.newest() == id;
    row.shelved_until_us = judge.shelved_until_us().filter(|_| is_newest);
    row.state = if row.withdrawn_us.is_some() {
        AlarmState::Normal
    } else if is_newest {
        judge.state()
    } else if ack.is_some() {
        AlarmState::Normal
    } else if row.occurrence.cleared_us.is_some() {
        AlarmState::ReturnedUnacknowledged
    } else {
        AlarmState::Unacknowledged
    };
}

fn entries(
    row: Row,
    before: &BTreeMap<Uuid, Row>,
    causes: &BTreeMap<Uuid, Vec<(Cause, Micros)>>,
    now_us: Micros,
) -> Change {
    let was = before.get(&row.occurrence.id);
    let from = was.map(|row| row.state);
    let mut entries: Vec<_> = causes
        .get(&row.occurrence.id)
        .into_iter()
        .flatten()
        .map(|(cause, at_us)| (*cause, *at_us, from))
        .collect();
    if entries.is_empty() && from != Some(row.state) {
        let cause = if was.is_some_and(|was| was.acked != row.acked) {
            Cause::Action
        } else {
            Cause::Time
        };
        entries.push((cause, now_us, from));
    }
    Change { row, entries }
}

#[cfg(test)]
mod tests {
    use protocol::alarm::machine::AlarmName;

    use super::*;

    fn judge() -> Judge {
        Judge::new(AlarmName {
            edge: "hub".to_owned(),
            code: "a".to_owned(),
            subject: "b".to_owned(),
            line: None,
        })
    }

    fn occurrence(number: u128, raised_us: Micros, cleared_us: Option<Micros>) -> Occurrence {
        Occurrence {
            id: Uuid::from_u128(number),
            raised_us,
            cleared_us,
            value: Some(1.0),
            score: None,
            rule_version: 1,
            model_version: None,
        }
    }

    const ALL: Reach = Reach {
        after_us: 0,
        until_us: Micros::MAX,
        open: None,
    };

    fn causes(change: &Change) -> Vec<Cause> {
        change.entries.iter().map(|(cause, ..)| *cause).collect()
    }

    #[test]
    fn an_alarm_that_was_found_late_is_not_covered_by_an_earlier_acknowledgement() {
        let early = Ack {
            alarm_id: Uuid::from_u128(9),
            at_us: 500,
            by: "avery".to_owned(),
        };
        let late = settle(
            &[],
            &[occurrence(1, 100, Some(200))],
            ALL,
            &judge(),
            std::slice::from_ref(&early),
            1_000,
        );
        assert_eq!(late[0].row.state, AlarmState::ReturnedUnacknowledged);
        assert_eq!(causes(&late[0]), [Cause::Raised, Cause::Returned]);
        let own = Ack {
            alarm_id: Uuid::from_u128(1),
            at_us: 1_100,
            ..early
        };
        let stored = vec![late[0].row.clone()];
        let settled = settle(
            &stored,
            &[occurrence(1, 100, Some(200))],
            ALL,
            &judge(),
            &[own],
            1_200,
        );
        assert_eq!(
            (settled[0].row.state, causes(&settled[0])),
            (AlarmState::Normal, vec![Cause::Action])
        );
    }

    #[test]
    fn what_is_judged_again_and_not_found_is_withdrawn_and_what_lies_before_stays() {
        let rows: Vec<Row> = settle(
            &[],
            &[
                occurrence(1, 100, Some(150)),
                occurrence(2, 300, Some(350)),
                occurrence(3, 500, None),
            ],
            ALL,
            &judge(),
            &[],
            600,
        )
        .into_iter()
        .map(|change| change.row)
        .collect();
        let reach = Reach {
            after_us: 200,
            until_us: Micros::MAX,
            open: None,
        };
        let changes = settle(&rows, &[occurrence(3, 500, Some(550))], reach, &judge(), &[], 700);
        let said: Vec<_> = changes
            .iter()
            .map(|it| (it.row.occurrence.id.as_u128(), causes(it)))
            .collect();
        assert_eq!(said, [(2, vec![Cause::Withdrawn]), (3, vec![Cause::Returned])]);
        assert_eq!(changes[0].row.state, AlarmState::Normal);
    }

    #[test]
    fn what_lies_beyond_what_was_judged_in_this_turn_stays() {
        let rows: Vec<Row> = settle(
            &[],
            &[occurrence(1, 100, Some(150)), occurrence(2, 300, Some(350))],
            ALL,
            &judge(),
            &[],
            600,
        )
        .into_iter()
        .map(|change| change.row)
        .collect();
        let reach = Reach {
            after_us: 50,
            until_us: 200,
            open: None,
        };
        let changes = settle(&rows, &[], reach, &judge(), &[], 700);
        let said: Vec<_> = changes.iter().map(causes).collect();
        assert_eq!(said, [[Cause::Withdrawn]], "only the one that began by 200");
        assert_eq!(changes[0].row.occurrence.id, Uuid::from_u128(1));
    }

    #[test]
    fn judging_the_same_again_changes_nothing() {
        let found = [occurrence(1, 100, Some(150)), occurrence(2, 300, None)];
        let rows: Vec<Row> = settle(&[], &found, ALL, &judge(), &[], 400)
            .into_iter()
            .map(|change| change.row)
            .collect();
        assert!(settle(&rows, &found, ALL, &judge(), &[], 900).is_empty());
    }
}
