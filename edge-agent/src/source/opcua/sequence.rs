//! Which notification messages are missing? Pure bookkeeping of one subscription's sequence numbers
//! (OPC UA Part 4 §7.26: they start at 1, rise by one with each message that holds data, and wrap from 2³²−1 to 1).

use std::collections::BTreeSet;

/// Numbers given up that are remembered, should their messages still come.
const GIVEN_UP_MAX: usize = 1_024;
/// More missing messages than this are given up without asking for each.
const MISSING_MAX: u32 = 1_024;

/// What a message means for the sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The next one, or a keep-alive with nothing missing before it.
    Next,
    /// It was handled before.
    Again,
    /// These were sent before it and did not come.
    Missing(Missing),
}

/// Messages that did not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The first number.
    pub first: u32,
    /// How many.
    pub count: u32,
}

impl Missing {
    /// The numbers to ask for; none when there are more than the agent will ask for.
    pub fn numbers(self) -> impl Iterator<Item = u32> {
        let asked = if self.count > MISSING_MAX { 0 } else { self.count };
        std::iter::successors(Some(self.first), |number| Some(after(*number))).take(asked as usize)
    }
}

/// The sequence of one subscription.
#[derive(Clone, Debug, Default)]
pub struct Sequence {
    expected: Option<u32>,
    given_up: BTreeSet<u32>,
}

impl Sequence {
    /// The number that the next message with data will have; none before the first message.
    pub fn expected(&self) -> Option<u32> {
        self.expected
    }

    /// Takes note of a message. A keep-alive holds no data and carries the number of the message to come.
    pub fn take(&mut self, number: u32, has_data: bool) -> Step {
        let Some(expected) = self.expected else {
            self.expected = Some(if has_data { after(number) } else { number });
            return Step::Next;
        };
        let ahead = distance(expected, number);
        if ahead >= u32::MAX / 2 {
            let was_given_up = has_data && self.given_up.remove(&number);
            return if was_given_up || !has_data {
                Step::Next
            } else {
                Step::Again
            };
        }
        self.expected = Some(if has_data { after(number) } else { number });
        if ahead == 0 {
            return Step::Next;
        }
        Step::Missing(Missing {
            first: expected,
            count: ahead,
        })
    }

    /// A missing message cannot be had any more; should it come after all, it is not taken for a repeat.
    pub fn give_up(&mut self, number: u32) {
        if self.given_up.len() == GIVEN_UP_MAX {
            self.given_up.pop_first();
        }
        self.given_up.insert(number);
    }
}

/// The number after this one.
pub fn after(number: u32) -> u32 {
    number.checked_add(1).unwrap_or(1)
}

/// How many steps lead from one number to the other; 0 is no number, so it is stepped over.
fn distance(from: u32, to: u32) -> u32 {
    if to >= from {
        to - from
    } else {
        (u32::MAX - from).wrapping_add(to)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keep_alives_tell_of_messages_that_did_not_come() {
        let mut sequence = Sequence::default();
        assert_eq!(sequence.take(1, true), Step::Next);
        assert_eq!(sequence.take(2, false), Step::Next);
        let missing = Missing { first: 2, count: 2 };
        assert_eq!(sequence.take(4, false), Step::Missing(missing));
        assert_eq!(missing.numbers().collect::<Vec<_>>(), [2, 3]);
        assert_eq!(sequence.take(4, true), Step::Next);
    }

    #[test]
    fn a_repeat_is_known_and_a_late_message_is_not_taken_for_one() {
        let mut sequence = Sequence::default();
        sequence.take(7, true);
        sequence.take(10, true);
        sequence.give_up(8);
        assert_eq!(sequence.take(9, true), Step::Again);
        assert_eq!(sequence.take(8, true), Step::Next);
        assert_eq!(sequence.take(8, true), Step::Again);
    }

    #[test]
    fn the_number_after_the_last_is_one() {
        let mut sequence = Sequence::default();
        sequence.take(u32::MAX, true);
        assert_eq!(sequence.take(1, true), Step::Next);
        assert_eq!(distance(u32::MAX, 2), 2);
        let missing = Missing {
            first: u32::MAX,
            count: 2,
        };
        assert_eq!(missing.numbers().collect::<Vec<_>>(), [u32::MAX, 1]);
    }

    proptest! {
        #[test]
        fn every_message_that_was_dropped_is_missed_exactly_once(
            start in prop_oneof![1_u32..100, u32::MAX - 50..=u32::MAX],
            kept in prop::collection::vec(any::<bool>(), 1..200),
        ) {
            let numbers: Vec<u32> =
                std::iter::successors(Some(start), |n| Some(after(*n))).take(kept.len() + 2).collect();
            let mut sequence = Sequence::default();
            sequence.take(numbers[0], true);
            let mut missed = Vec::new();
            for (number, kept) in numbers[1..=kept.len()].iter().zip(&kept) {
                if *kept && let Step::Missing(missing) = sequence.take(*number, true) {
                    missed.extend(missing.numbers());
                }
            }
            if let Step::Missing(missing) = sequence.take(numbers[kept.len() + 1], false) {
                missed.extend(missing.numbers());
            }
            let dropped: Vec<u32> = numbers[1..=kept.len()].iter().zip(&kept)
                .filter(|(_, kept)| !**kept).map(|(number, _)| *number).collect();
            prop_assert_eq!(missed, dropped);
        }
    }
}
