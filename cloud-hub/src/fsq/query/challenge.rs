//! When is a control point challenged next, and was a challenge missed? A point that is challenged at times owes no
//! reading between its challenges: nothing is "not seen" before it is due. Pure.

use protocol::Micros;
use serde::Serialize;
use utoipa::ToSchema;

use super::ccp::CcpState;
use crate::plant_ops::line::LineState;

/// Clocks of edges and hub may differ by this much.
const AHEAD_US_MAX: Micros = 60_000_000;

/// When a control point is challenged; it is not monitored between.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct CcpChallenge {
    /// Due so long after the one before.
    pub every_us: Micros,
    /// Missed when it is so much overdue.
    pub grace_us: Micros,
    /// When the next one is due; null while nothing is known of the point.
    pub due_us: Option<Micros>,
    /// Whether it is overdue by more than its grace.
    pub is_missed: bool,
}

/// What is known of a point's challenges.
#[derive(Debug, Clone, Copy)]
pub(super) struct Challenges<'a> {
    pub(super) every_us: Micros,
    pub(super) grace_us: Micros,
    /// The newest check: its verdict and when it ended, which is when the challenge was seen.
    pub(super) newest: Option<(&'a str, Micros)>,
    /// Since when readings of the point come; before its first challenge one is due from here on.
    pub(super) watched_from_us: Option<Micros>,
}

impl Challenges<'_> {
    /// When the next is due, and whether it was missed. A challenge of a time to come proves nothing of now.
    pub(super) fn at(&self, now_us: Micros) -> CcpChallenge {
        let made_us = self.made(now_us).map(|(_, made_us)| made_us);
        let due_us = made_us
            .or(self.watched_from_us)
            .map(|us| us.saturating_add(self.every_us));
        CcpChallenge {
            every_us: self.every_us,
            grace_us: self.grace_us,
            due_us,
            is_missed: due_us.is_some_and(|due_us| now_us >= due_us.saturating_add(self.grace_us)),
        }
    }

    fn made(&self, now_us: Micros) -> Option<(&str, Micros)> {
        self.newest
            .filter(|(_, made_us)| made_us.saturating_sub(now_us) <= AHEAD_US_MAX)
    }

    /// How the point stands, when no deviation is open.
    pub(super) fn state(&self, line: LineState, now_us: Micros) -> CcpState {
        let has_passed = self.made(now_us).is_some_and(|(verdict, _)| verdict == "met");
        match line {
            LineState::Stopped => CcpState::NotRunning,
            LineState::Running if self.at(now_us).is_missed => CcpState::MonitoringGap,
            _ if has_passed && !self.at(now_us).is_missed => CcpState::InControl,
            _ => CcpState::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE_US: Micros = 60_000_000;
    const HOUR_US: Micros = 60 * MINUTE_US;
    const NOW_US: Micros = 1_000 * HOUR_US;

    fn hourly(newest: Option<(&str, Micros)>, watched_from_us: Option<Micros>) -> Challenges<'_> {
        Challenges {
            every_us: HOUR_US,
            grace_us: 5 * MINUTE_US,
            newest,
            watched_from_us,
        }
    }

    #[test]
    fn a_point_that_was_never_challenged_says_when_it_is_due_and_is_missed_only_after_its_grace() {
        let began_us = NOW_US;
        let fresh = hourly(None, Some(began_us));
        let at = |minutes: i64| began_us + minutes * MINUTE_US;
        for minutes in [0, 1, 59, 60, 64] {
            let said = fresh.at(at(minutes));
            assert_eq!((said.due_us, said.is_missed), (Some(at(60)), false), "{minutes}");
            assert_eq!(fresh.state(LineState::Running, at(minutes)), CcpState::Unknown);
        }
        assert!(fresh.at(at(65)).is_missed);
        assert_eq!(fresh.state(LineState::Running, at(65)), CcpState::MonitoringGap);
        assert_eq!(hourly(None, None).at(NOW_US).due_us, None, "nobody reads it yet");
        assert_eq!(
            hourly(None, None).state(LineState::Running, NOW_US),
            CcpState::Unknown
        );
    }

    #[test]
    fn a_challenge_that_passed_keeps_the_point_in_control_without_any_reading_until_the_next_is_missed() {
        let passed = hourly(Some(("met", NOW_US)), Some(0));
        for minutes in [1, 30, 64] {
            let now_us = NOW_US + minutes * MINUTE_US;
            assert_eq!(
                passed.state(LineState::Running, now_us),
                CcpState::InControl,
                "{minutes}"
            );
            assert_eq!(passed.at(now_us).due_us, Some(NOW_US + HOUR_US));
        }
        assert_eq!(
            passed.state(LineState::Running, NOW_US + 65 * MINUTE_US),
            CcpState::MonitoringGap
        );
    }

    #[test]
    fn a_stopped_line_owes_no_challenge_and_an_unknown_one_is_not_accused() {
        let late_us = NOW_US + 2 * HOUR_US;
        let passed = hourly(Some(("met", NOW_US)), None);
        assert_eq!(passed.state(LineState::Stopped, late_us), CcpState::NotRunning);
        assert_eq!(passed.state(LineState::Unknown, late_us), CcpState::Unknown);
    }

    #[test]
    fn what_did_not_pass_and_what_is_still_to_come_put_nothing_in_control() {
        let failed = hourly(Some(("not_met", NOW_US)), None);
        assert_eq!(failed.state(LineState::Running, NOW_US), CcpState::Unknown);
        let ahead = hourly(Some(("met", NOW_US + 2 * MINUTE_US)), Some(NOW_US));
        assert_eq!(ahead.state(LineState::Running, NOW_US), CcpState::Unknown);
        assert_eq!(ahead.at(NOW_US).due_us, Some(NOW_US + HOUR_US));
    }
}
