//! Which frame goes next, and which are on their way? Pure: what was sent, acknowledged and timed out.
//!
//! Order: events, then live frames as they come, then the backlog from its oldest. The backlog may fill only part of
//! the window, so that it never stands before live data.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use protocol::{
    ack::{Acknowledgement, Outcome, Subject},
    frame::FrameId,
    lane::Lane,
};
use uuid::Uuid;

use crate::spool::record::Key;

/// Frames sent and not yet acknowledged by the hub.
pub const WINDOW: usize = 64;
/// How many of them may be backlog.
const BACKLOG_WINDOW: usize = 48;
/// Without the hub's word a frame is sent again after this.
pub const ACK_TIMEOUT: Duration = Duration::from_secs(30);
/// Fresh frames remembered; older ones are reached as backlog.
const FRESH_MAX: usize = 256;
/// Frames asked of the spool at a time.
const FETCH: usize = 16;
/// A capped backlog may run ahead by what this long allows.
const AHEAD_S_MAX: f64 = 1.0;

/// What the spool is asked for next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Want {
    /// Frames of a lane after an ordinal.
    After(Lane, Option<u64>, usize),
    /// These frames.
    Keys(Vec<Key>),
}

/// What an acknowledgement asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The hub has the frame: delete it.
    Delete(FrameId, Key),
    /// The hub cannot read the frame and keeps it as a dead letter: delete it and tell a person.
    Rejected(FrameId, Key, String),
    /// Send the dictionary, then the frame again.
    SendDictionary(Uuid, Option<Key>),
}

#[derive(Clone, Copy, Debug)]
struct Sent {
    key: Key,
    at: Duration,
    crc: u32,
    is_backlog: bool,
}

/// What the backlog may still send, in readings: refilled by time, below zero after a large frame.
#[derive(Clone, Copy, Debug)]
struct Allowance {
    readings_per_s: f64,
    left: f64,
    at: Duration,
}

/// The state of one connection.
#[derive(Debug, Default)]
pub struct Window {
    /// None: as fast as the hub acknowledges.
    allowance: Option<Allowance>,
    sent: HashMap<FrameId, Sent>,
    by_key: HashMap<Key, FrameId>,
    backlog: usize,
    events_cursor: Option<u64>,
    backlog_cursor: Option<u64>,
    newest_cursor: Option<u64>,
    fresh: VecDeque<Key>,
    again: VecDeque<Key>,
    is_events_dry: bool,
    is_backlog_dry: bool,
}

impl Window {
    /// Nothing sent yet: everything stored is backlog. Of that no more than `readings_per_s` is sent, where given.
    pub fn new(readings_per_s: Option<u32>) -> Self {
        let allowance = readings_per_s.map(|readings_per_s| Allowance {
            readings_per_s: f64::from(readings_per_s),
            left: f64::from(readings_per_s) * AHEAD_S_MAX,
            at: Duration::ZERO,
        });
        Self {
            allowance,
            ..Self::default()
        }
    }

    /// Time passed: a capped backlog may go on.
    pub fn refill(&mut self, now: Duration) {
        if let Some(allowance) = &mut self.allowance {
            let passed_s = now.saturating_sub(allowance.at).as_secs_f64();
            let most = allowance.readings_per_s * AHEAD_S_MAX;
            allowance.left = (allowance.left + passed_s * allowance.readings_per_s).min(most);
            allowance.at = now;
        }
    }

    /// Notes that readings of the backlog were sent.
    pub fn spend(&mut self, readings: u32) {
        if let Some(allowance) = &mut self.allowance {
            allowance.left -= f64::from(readings);
        }
    }

    /// Whether the backlog waits for nothing but time.
    pub fn is_held_back(&self) -> bool {
        !self.is_backlog_dry && self.allowance.is_some_and(|allowance| allowance.left <= 0.0)
    }

    /// Frames on their way.
    pub fn in_flight(&self) -> usize {
        self.sent.len()
    }

    /// Something was stored: cursors that had run dry may find more.
    pub fn stored(&mut self) {
        self.is_events_dry = false;
        self.is_backlog_dry = false;
    }

    /// Frames of the past wait again: looks from the start. What is on its way is not sent twice.
    pub fn rewind(&mut self) {
        self.events_cursor = None;
        self.backlog_cursor = None;
        self.stored();
    }

    /// What to ask the spool for, if there is room; `None` when nothing is known to wait.
    pub fn want(&mut self) -> Option<Want> {
        let room = WINDOW.saturating_sub(self.sent.len()).min(FETCH);
        if room == 0 {
            return None;
        }
        if !self.again.is_empty() {
            let count = room.min(self.again.len());
            return Some(Want::Keys(self.again.drain(..count).collect()));
        }
        if !self.is_events_dry {
            return Some(Want::After(Lane::Events, self.events_cursor, room));
        }
        if !self.fresh.is_empty() {
            // In the order in which they were stored: each tag's readings arrive in order within the lane.
            let count = room.min(self.fresh.len());
            return Some(Want::Keys(self.fresh.drain(..count).collect()));
        }
        let backlog_room = BACKLOG_WINDOW.saturating_sub(self.backlog).min(room);
        if !self.is_backlog_dry && backlog_room > 0 {
            if self.is_held_back() {
                return None;
            }
            // One at a time under a cap: what the next one costs is not known before.
            let backlog_room = if self.allowance.is_some() { 1 } else { backlog_room };
            return Some(Want::After(Lane::Live, self.backlog_cursor, backlog_room));
        }
        None
    }

    /// Notes what came for an [`After`](Want::After); returns the keys that are not on their way already.
    pub fn fetched(&mut self, lane: Lane, keys: &[Key]) -> Vec<Key> {
        let last = keys.last().map(|key| key.ordinal);
        // Fewer than asked for is no end: the spool hands out what it has at hand.
        let is_dry = keys.is_empty();
        if lane == Lane::Events {
            self.events_cursor = last.or(self.events_cursor);
            self.is_events_dry = is_dry;
        } else {
            self.backlog_cursor = last.or(self.backlog_cursor);
            self.is_backlog_dry = is_dry;
        }
        keys.iter()
            .filter(|key| !self.by_key.contains_key(key))
            .copied()
            .collect()
    }

    /// Notes live frames that were stored just now.
    pub fn add_fresh(&mut self, keys: &[Key]) {
        for key in keys {
            if self.newest_cursor.is_none_or(|newest| key.ordinal > newest) {
                self.newest_cursor = Some(key.ordinal);
                self.fresh.push_back(*key);
            }
        }
        while self.fresh.len() > FRESH_MAX {
            self.fresh.pop_front();
        }
    }

    /// Whether a frame is on its way.
    pub fn is_sent(&self, key: Key) -> bool {
        self.by_key.contains_key(&key)
    }

    /// Notes that a frame was handed to the connection.
    pub fn sent(&mut self, id: FrameId, key: Key, crc: u32, at: Duration, is_backlog: bool) {
        let sent = Sent {
            key,
            at,
            crc,
            is_backlog,
        };
        self.by_key.insert(key, id);
        if let Some(before) = self.sent.insert(id, sent) {
            self.backlog -= usize::from(before.is_backlog);
        }
        self.backlog += usize::from(is_backlog);
    }

    fn forget(&mut self, id: &FrameId) -> Option<Sent> {
        let sent = self.sent.remove(id)?;
        self.by_key.remove(&sent.key);
        self.backlog -= usize::from(sent.is_backlog);
        Some(sent)
    }

    /// What an acknowledgement asks for; nothing when it is about a frame that is not on its way, which will be
    /// sent and acknowledged again.
    pub fn acknowledged(&mut self, ack: Acknowledgement) -> Option<Step> {
        let id = match ack.subject {
            Subject::Frame(id) => id,
            Subject::Payload(crc) => *self.sent.iter().find(|(_, sent)| sent.crc == crc)?.0,
            Subject::Dictionary(_) => return None,
        };
        match ack.outcome {
            Outcome::Stored => self.forget(&id).map(|sent| Step::Delete(id, sent.key)),
            Outcome::Rejected { reason } => self.forget(&id).map(|sent| Step::Rejected(id, sent.key, reason)),
            Outcome::NeedDictionary(dictionary) => {
                let key = self.forget(&id).map(|sent| sent.key);
                Some(Step::SendDictionary(dictionary, key))
            }
        }
    }

    /// Lets a frame go again: what it needed was sent.
    pub fn send_again(&mut self, key: Option<Key>) {
        self.again.extend(key);
    }

    /// Lets frames that were sent too long ago go again; returns how many.
    pub fn time_out(&mut self, now: Duration) -> usize {
        let overdue = self
            .sent
            .iter()
            .filter(|(_, sent)| now.saturating_sub(sent.at) >= ACK_TIMEOUT);
        let mut late: Vec<(Key, FrameId)> = overdue.map(|(id, sent)| (sent.key, *id)).collect();
        late.sort_unstable();
        for (key, id) in &late {
            self.forget(id);
            self.again.push_back(*key);
        }
        late.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(lane: Lane, ordinal: u64) -> Key {
        Key { lane, ordinal }
    }

    fn id(lane: Lane, seq: u64) -> FrameId {
        FrameId {
            boot: Uuid::from_u128(1),
            lane,
            seq,
        }
    }

    fn ack(id: FrameId, outcome: Outcome) -> Acknowledgement {
        Acknowledgement {
            subject: Subject::Frame(id),
            outcome,
        }
    }

    fn send(window: &mut Window, lane: Lane, ordinal: u64, is_backlog: bool) {
        window.sent(
            id(lane, ordinal),
            key(lane, ordinal),
            ordinal as u32,
            Duration::ZERO,
            is_backlog,
        );
    }

    #[test]
    fn events_go_before_fresh_and_fresh_before_backlog() {
        let mut window = Window::new(None);
        window.add_fresh(&[key(Lane::Live, 7), key(Lane::Live, 8)]);
        assert_eq!(window.want(), Some(Want::After(Lane::Events, None, 16)));
        window.fetched(Lane::Events, &[]);
        assert_eq!(
            window.want(),
            Some(Want::Keys(vec![key(Lane::Live, 7), key(Lane::Live, 8)]))
        );
        assert_eq!(window.want(), Some(Want::After(Lane::Live, None, 16)));
        window.fetched(Lane::Live, &[]);
        assert_eq!(window.want(), None);
        window.stored();
        assert_eq!(window.want(), Some(Want::After(Lane::Events, None, 16)));
    }

    #[test]
    fn a_backlog_leaves_room_for_live_frames() {
        let mut window = Window::new(None);
        window.fetched(Lane::Events, &[]);
        for ordinal in 0..48 {
            send(&mut window, Lane::Live, ordinal, true);
        }
        assert_eq!(window.want(), None);
        window.add_fresh(&[key(Lane::Live, 100)]);
        assert_eq!(window.want(), Some(Want::Keys(vec![key(Lane::Live, 100)])));
    }

    #[test]
    fn t8_a_capped_backlog_keeps_to_its_rate_over_any_time_and_live_frames_pass_it() {
        let mut window = Window::new(Some(1_000));
        window.fetched(Lane::Events, &[]);
        let (mut sent, mut ordinal) = (0u32, 0);
        for ms in 0..10_000u64 {
            window.refill(Duration::from_millis(ms));
            while let Some(Want::After(Lane::Live, _, max)) = window.want() {
                assert_eq!(max, 1);
                window.fetched(Lane::Live, &[key(Lane::Live, ordinal)]);
                window.spend(250);
                (sent, ordinal) = (sent + 250, ordinal + 1);
            }
            assert!(
                f64::from(sent) <= 1_000.0 + ms as f64 + 250.0,
                "{sent} after {ms} ms"
            );
            if ms == 5_000 {
                assert!(window.is_held_back());
                window.add_fresh(&[key(Lane::Live, 1 << 40)]);
                assert_eq!(window.want(), Some(Want::Keys(vec![key(Lane::Live, 1 << 40)])));
            }
        }
        assert!(sent >= 10_000, "{sent}: the cap is used");
    }

    #[test]
    fn frames_of_the_past_are_looked_for_again_after_a_rewind() {
        let mut window = Window::new(None);
        window.fetched(Lane::Events, &[]);
        window.fetched(Lane::Live, &[key(Lane::Live, 7)]);
        assert_eq!(window.want(), Some(Want::After(Lane::Live, Some(7), 16)));
        window.rewind();
        window.fetched(Lane::Events, &[]);
        assert_eq!(window.want(), Some(Want::After(Lane::Live, None, 16)));
    }

    #[test]
    fn only_the_hubs_word_deletes_and_only_once() {
        let mut window = Window::new(None);
        send(&mut window, Lane::Live, 3, false);
        let stored = ack(id(Lane::Live, 3), Outcome::Stored);
        assert_eq!(
            window.acknowledged(stored.clone()),
            Some(Step::Delete(id(Lane::Live, 3), key(Lane::Live, 3)))
        );
        assert_eq!(window.acknowledged(stored), None);
        assert_eq!(window.in_flight(), 0);
    }

    #[test]
    fn a_frame_without_its_dictionary_goes_again_once_that_was_sent() {
        let mut window = Window::new(None);
        send(&mut window, Lane::Live, 3, true);
        let missing = Uuid::from_u128(9);
        let step = window.acknowledged(ack(id(Lane::Live, 3), Outcome::NeedDictionary(missing)));
        assert_eq!(
            step,
            Some(Step::SendDictionary(missing, Some(key(Lane::Live, 3))))
        );
        window.fetched(Lane::Events, &[]);
        window.fetched(Lane::Live, &[]);
        assert_eq!(window.want(), None, "not before the dictionary");
        window.send_again(Some(key(Lane::Live, 3)));
        assert_eq!(window.want(), Some(Want::Keys(vec![key(Lane::Live, 3)])));
    }

    #[test]
    fn a_frame_without_an_answer_goes_again_after_a_while() {
        let mut window = Window::new(None);
        send(&mut window, Lane::Live, 3, true);
        assert_eq!(window.time_out(ACK_TIMEOUT / 2), 0);
        assert_eq!(window.time_out(ACK_TIMEOUT), 1);
        assert_eq!(window.want(), Some(Want::Keys(vec![key(Lane::Live, 3)])));
    }

    #[test]
    fn a_payload_the_hub_could_not_read_is_found_by_its_checksum() {
        let mut window = Window::new(None);
        send(&mut window, Lane::Live, 77, false);
        let rejected = Acknowledgement {
            subject: Subject::Payload(77),
            outcome: Outcome::Rejected {
                reason: "garbage".to_owned(),
            },
        };
        assert!(matches!(window.acknowledged(rejected), Some(Step::Rejected(..))));
    }

    #[test]
    fn what_is_on_its_way_is_not_fetched_twice() {
        let mut window = Window::new(None);
        send(&mut window, Lane::Live, 5, false);
        let keys = [key(Lane::Live, 4), key(Lane::Live, 5)];
        assert_eq!(window.fetched(Lane::Live, &keys), [key(Lane::Live, 4)]);
    }
}
