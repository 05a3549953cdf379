//! A tag has a reading for this time already and another one comes: the same again, a newer version, an older one that
//! comes late, or a contradiction? Pure, so that every hub decides alike, in whatever order versions come.

use crate::{Quality, quality::Status};

/// One version of what a tag was at a time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Version {
    /// The value; none when the quality is bad.
    pub value: Option<f64>,
    /// How far it may be trusted.
    pub quality: Quality,
    /// The number that its source gives it; a higher one takes the place of a lower one, and any of none.
    pub rev: Option<i64>,
}

/// What a version is beside those that are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Known already.
    Duplicate,
    /// It is what holds from now on.
    Newer,
    /// A version that a newer one has taken the place of before it came: kept, and not in force.
    Older,
    /// Another value under the same number, or without one where the quality is the same.
    Contradiction,
}

impl Version {
    /// Whether both say the same. A doubt of ours about the time of a good value is no other word of its source.
    fn is_same(&self, other: &Self) -> bool {
        self.value == other.value && self.status() == other.status()
    }

    fn status(&self) -> Status {
        if self.quality == Quality::UNCERTAIN_TIME {
            Status::Good
        } else {
            self.quality.status()
        }
    }
}

/// The version in force: the highest number, of those without one the last that came. None of no versions.
pub fn in_force(known: &[Version]) -> Option<&Version> {
    // The last of equals.
    known.iter().max_by_key(|version| version.rev)
}

/// Judges `said` beside the versions known of that tag and time, in the order in which they came.
///
/// A source that sends another value for a time says by `rev` that it means it. Without a number, only another quality
/// counts as newer knowledge: a probe that is found broken afterwards. What was said before is a message that came again.
///
/// ```
/// use protocol::{Quality, integrator::{Standing, Version, standing}};
/// let version = |value, rev| Version { value: Some(value), quality: Quality::GOOD, rev };
/// let known = [version(71.2, None)];
/// assert_eq!(standing(&known, &version(71.2, None)), Standing::Duplicate);
/// assert_eq!(standing(&known, &version(69.8, None)), Standing::Contradiction);
/// assert_eq!(standing(&known, &version(69.8, Some(1))), Standing::Newer);
/// let bad = Version { value: None, quality: Quality::BAD, rev: None };
/// assert_eq!(standing(&known, &bad), Standing::Newer);
/// ```
pub fn standing(known: &[Version], said: &Version) -> Standing {
    let Some(current) = in_force(known) else {
        return Standing::Newer;
    };
    if said.rev.is_none() {
        return if known.iter().any(|version| version.is_same(said)) {
            Standing::Duplicate
        } else if current.rev.is_none() && current.status() != said.status() {
            Standing::Newer
        } else {
            Standing::Contradiction
        };
    }
    match known.iter().find(|version| version.rev == said.rev) {
        Some(version) if version.is_same(said) => Standing::Duplicate,
        Some(_) => Standing::Contradiction,
        None if said.rev > current.rev => Standing::Newer,
        None => Standing::Older,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn version(value: impl Into<Option<f64>>, rev: impl Into<Option<i64>>) -> Version {
        let value = value.into();
        Version {
            value,
            quality: if value.is_some() {
                Quality::GOOD
            } else {
                Quality::BAD
            },
            rev: rev.into(),
        }
    }

    /// What is known after these versions came, and how many of them were contradictions.
    fn heard(said: &[Version]) -> (Vec<Version>, usize) {
        let (mut known, mut refused) = (Vec::new(), 0);
        for one in said {
            match standing(&known, one) {
                Standing::Newer | Standing::Older => known.push(*one),
                Standing::Duplicate => {}
                Standing::Contradiction => refused += 1,
            }
        }
        (known, refused)
    }

    #[test]
    fn a_higher_number_holds_whichever_comes_first() {
        let (first, second) = (version(1.0, 1), version(2.0, 2));
        assert_eq!(in_force(&heard(&[first, second]).0), Some(&second));
        assert_eq!(in_force(&heard(&[second, first]).0), Some(&second));
        assert_eq!(
            heard(&[second, first]).0.len(),
            2,
            "the older one is kept beside it"
        );
    }

    #[test]
    fn a_reading_found_bad_afterwards_is_bad_and_the_first_message_again_does_not_undo_it() {
        let (good, bad) = (version(71.2, None), version(None, None));
        let (known, refused) = heard(&[good, bad, good, bad]);
        assert_eq!((in_force(&known), refused), (Some(&bad), 0));
    }

    #[test]
    fn where_numbers_are_used_another_value_needs_one() {
        let (known, refused) = heard(&[version(1.0, 3), version(None, None)]);
        assert_eq!((known.len(), refused), (1, 1));
        let (_, refused) = heard(&[version(1.0, 3), version(2.0, 3)]);
        assert_eq!(refused, 1, "one number, two values");
    }

    #[test]
    fn a_doubt_about_the_time_is_not_another_quality() {
        let ahead = Version {
            quality: Quality::UNCERTAIN_TIME,
            ..version(1.0, None)
        };
        assert_eq!(standing(&[ahead], &version(1.0, None)), Standing::Duplicate);
        assert_eq!(standing(&[version(1.0, None)], &ahead), Standing::Duplicate);
    }

    proptest! {
        #[test]
        fn numbered_versions_end_the_same_in_whatever_order_and_however_often_they_come(
            order in prop::collection::vec(0_i64..6, 1..30)
        ) {
            let all: Vec<Version> = order.iter().map(|rev| version(*rev as f64 * 1.5, *rev)).collect();
            let (known, refused) = heard(&all);
            prop_assert_eq!(refused, 0);
            let highest = order.iter().max().copied();
            prop_assert_eq!(in_force(&known).and_then(|version| version.rev), highest);
            let mut distinct = order.clone();
            distinct.sort_unstable();
            distinct.dedup();
            prop_assert_eq!(known.len(), distinct.len(), "each is kept once");
        }

        #[test]
        fn what_came_once_never_changes_anything_when_it_comes_again(
            said in prop::collection::vec((prop::option::of(0_i64..4), prop::option::of(0_u8..3)), 1..20)
        ) {
            let all: Vec<Version> = said.iter().map(|(rev, value)| version(value.map(f64::from), *rev)).collect();
            let (known, _) = heard(&all);
            for one in &known {
                prop_assert_eq!(standing(&known, one), Standing::Duplicate);
            }
        }
    }
}
