//! What is to be known of each tag of a batch: its earliest and its newest reading. A lookup for every reading cost as much
//! as writing its row; polls repeat their order, so the next tag is mostly the one that came after this one the last time.

use std::collections::HashMap;

use protocol::Micros;

use crate::series::bus::Sample;

/// One tag's part of a batch.
#[derive(Debug, PartialEq)]
pub(super) struct TagNote {
    pub(super) earliest_us: Micros,
    /// The latest; of equals the one that came last.
    pub(super) newest: Sample,
    /// The minute that was marked last.
    pub(super) marked_us: Option<Micros>,
}

/// The tags of a batch.
#[derive(Debug, Default)]
pub(super) struct PerTag {
    /// In the order in which they came first.
    notes: Vec<TagNote>,
    places: HashMap<i32, usize>,
    /// Place of the last reading's tag.
    at: usize,
}

impl PerTag {
    /// Takes a reading; the note of its tag.
    pub(super) fn note(&mut self, sample: Sample) -> &mut TagNote {
        self.at = self.place(&sample);
        let note = &mut self.notes[self.at];
        note.earliest_us = note.earliest_us.min(sample.time_us);
        if sample.time_us >= note.newest.time_us {
            note.newest = sample;
        }
        note
    }

    fn place(&mut self, sample: &Sample) -> usize {
        let next = if self.at + 1 < self.notes.len() {
            self.at + 1
        } else {
            0
        };
        for guess in [self.at, next] {
            if self
                .notes
                .get(guess)
                .is_some_and(|note| note.newest.tag_id == sample.tag_id)
            {
                return guess;
            }
        }
        let notes = &mut self.notes;
        *self.places.entry(sample.tag_id).or_insert_with(|| {
            notes.push(TagNote {
                earliest_us: sample.time_us,
                newest: *sample,
                marked_us: None,
            });
            notes.len() - 1
        })
    }

    /// The notes by number of the tag, so that whoever locks their rows does so in one order.
    pub(super) fn finish(mut self) -> Vec<TagNote> {
        self.notes.sort_unstable_by_key(|note| note.newest.tag_id);
        self.notes
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_tag_has_its_earliest_and_its_newest_in_whatever_order_readings_come(
            readings in prop::collection::vec((0..6_i32, -50..50_i64), 0..200)
        ) {
            let (mut tags, mut expected) = (PerTag::default(), BTreeMap::new());
            for (number, (tag_id, time_us)) in readings.iter().enumerate() {
                let sample = Sample {
                    tag_id: *tag_id,
                    time_us: *time_us,
                    value: Some(number as f64),
                    quality: 0,
                    simulated: false,
                };
                tags.note(sample);
                let (earliest_us, newest): &mut (i64, Sample) = expected.entry(*tag_id).or_insert((*time_us, sample));
                *earliest_us = *time_us.min(earliest_us);
                if *time_us >= newest.time_us {
                    *newest = sample;
                }
            }
            let found: Vec<_> = tags.finish().into_iter().map(|note| (note.earliest_us, note.newest)).collect();
            prop_assert_eq!(found, expected.into_values().collect::<Vec<_>>());
        }
    }
}
