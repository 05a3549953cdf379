//! Which lots may contain product that passed a control point while it was out of control?
//!
//! The window at the control point is shifted along every path downstream by the least and the greatest time
//! product needs; a lot is suspect when it was produced during a shifted window. Where the flow is not known
//! the whole batch is suspect, and the answer says that it was widened. Nothing here ever narrows a hold.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use protocol::Micros;
use uuid::Uuid;

/// From one time to another, both included: a lot that ends in the very microsecond is suspect too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Window {
    /// First suspect microsecond.
    pub from_us: Micros,
    /// Last one; [`Micros::MAX`] while it lasts.
    pub to_us: Micros,
}

impl Window {
    /// Whether they share a microsecond.
    pub const fn overlaps(self, other: Self) -> bool {
        self.from_us <= other.to_us && other.from_us <= self.to_us
    }

    /// When product of this window arrives at the end of a link.
    #[must_use]
    pub const fn shifted(self, min_us: Micros, max_us: Micros) -> Self {
        Self {
            from_us: self.from_us.saturating_add(min_us),
            to_us: self.to_us.saturating_add(max_us),
        }
    }
}

/// How long product takes from one piece of equipment to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowLink {
    /// Upstream equipment.
    pub from: Uuid,
    /// Downstream equipment.
    pub to: Uuid,
    /// Least residence time.
    pub min_us: Micros,
    /// Greatest residence time.
    pub max_us: Micros,
}

/// What is known of a lot that might be suspect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LotSpan {
    /// The lot.
    pub lot: Uuid,
    /// The batch it belongs to.
    pub batch: Option<Uuid>,
    /// Where it came into being.
    pub equipment: Option<Uuid>,
    /// When it was produced there.
    pub produced: Option<Window>,
}

/// The answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Suspect {
    /// Suspect lots.
    pub lots: BTreeSet<Uuid>,
    /// At least one is in because the flow is not known, not because a time says so.
    pub widened: bool,
}

/// Paths followed at most; a plant's lines have tens. Beyond it the caller widens.
const PATHS_MAX: usize = 10_000;

/// When suspect product is at each piece of equipment, the control point's own included. `None` when there
/// are too many paths to follow: then nothing may be concluded from their absence.
///
/// A rework loop is followed once: product that comes back is traced by lots, not by time.
pub fn downstream(at: Uuid, window: Window, links: &[FlowLink]) -> Option<BTreeMap<Uuid, BTreeSet<Window>>> {
    let mut windows: BTreeMap<Uuid, BTreeSet<Window>> = BTreeMap::new();
    let mut paths = vec![(at, window, HashSet::from([at]))];
    let mut followed = 0;
    while let Some((equipment, window, passed)) = paths.pop() {
        followed += 1;
        if followed > PATHS_MAX {
            return None;
        }
        windows.entry(equipment).or_default().insert(window);
        for link in links
            .iter()
            .filter(|link| link.from == equipment && !passed.contains(&link.to))
        {
            let mut passed = passed.clone();
            passed.insert(link.to);
            paths.push((link.to, window.shifted(link.min_us, link.max_us), passed));
        }
    }
    Some(windows)
}

/// Decides on each lot. `batches` are those that were at the control point during the window.
pub fn suspect_lots(
    windows: Option<&BTreeMap<Uuid, BTreeSet<Window>>>,
    batches: &BTreeSet<Uuid>,
    lots: &[LotSpan],
) -> Suspect {
    let mut suspect = Suspect::default();
    for lot in lots {
        let in_batch = lot.batch.is_some_and(|batch| batches.contains(&batch));
        let known = windows.and_then(|windows| windows.get(&lot.equipment?));
        let is_suspect = if let (Some(windows), Some(produced)) = (known, lot.produced) {
            windows.iter().any(|window| window.overlaps(produced))
        } else {
            // Where or when it was made is not known: the batch decides.
            suspect.widened |= in_batch;
            in_batch
        };
        if is_suspect {
            suspect.lots.insert(lot.lot);
        }
    }
    suspect
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINUTE: Micros = 60_000_000;

    fn id(number: u8) -> Uuid {
        Uuid::from_u128(u128::from(number) + 1)
    }

    fn window(from: i64, to: i64) -> Window {
        Window {
            from_us: from * MINUTE,
            to_us: to * MINUTE,
        }
    }

    fn link(from: u8, to: u8, min: i64, max: i64) -> FlowLink {
        FlowLink {
            from: id(from),
            to: id(to),
            min_us: min * MINUTE,
            max_us: max * MINUTE,
        }
    }

    fn lot(number: u8, batch: u8, equipment: Option<u8>, produced: Option<Window>) -> LotSpan {
        LotSpan {
            lot: id(number),
            batch: Some(id(batch)),
            equipment: equipment.map(id),
            produced,
        }
    }

    #[test]
    fn a_dip_at_the_holding_tube_holds_what_is_filled_18_to_35_minutes_later() {
        let windows = downstream(id(1), window(42, 44), &[link(1, 2, 18, 35)]).unwrap();
        let batches = BTreeSet::from([id(100)]);
        let lots = [
            lot(10, 100, Some(2), Some(window(0, 59))),
            lot(11, 100, Some(2), Some(window(60, 70))),
            lot(12, 101, Some(2), Some(window(79, 90))),
            lot(13, 101, Some(2), Some(window(80, 90))),
        ];
        let found = suspect_lots(Some(&windows), &batches, &lots);
        assert_eq!(found.lots, BTreeSet::from([id(11), id(12)]));
        assert!(!found.widened);
    }

    #[test]
    fn without_a_known_flow_the_whole_batch_is_held_and_the_answer_says_so() {
        let windows = downstream(id(1), window(42, 44), &[]).unwrap();
        let batches = BTreeSet::from([id(100)]);
        let lots = [
            lot(10, 100, Some(2), Some(window(0, 10))),
            lot(11, 100, None, None),
            lot(12, 101, Some(2), Some(window(42, 44))),
        ];
        let found = suspect_lots(Some(&windows), &batches, &lots);
        assert_eq!(found.lots, BTreeSet::from([id(10), id(11)]));
        assert!(found.widened);
    }

    #[test]
    fn a_rework_loop_ends() {
        let links = [link(1, 2, 1, 1), link(2, 1, 5, 5), link(2, 3, 1, 2)];
        let windows = downstream(id(1), window(0, 1), &links).unwrap();
        assert_eq!(windows[&id(3)], BTreeSet::from([window(2, 4)]));
    }

    fn any_links() -> impl Strategy<Value = Vec<FlowLink>> {
        let one = (0u8..6, 0u8..6, 0i64..40, 0i64..40)
            .prop_filter_map("no loop on itself", |(a, b, x, y)| {
                (a != b).then(|| link(a, b, x.min(y), x.max(y)))
            });
        prop::collection::vec(one, 0..10)
    }

    /// Follows one particle of product along a path and says when it is where.
    fn particle(links: &[FlowLink], start: Micros, choices: &[(u8, u8)]) -> (Uuid, Micros, bool) {
        let (mut at, mut time, mut passed) = (id(0), start, vec![id(0)]);
        for (choice, share) in choices {
            let next: Vec<_> = links.iter().filter(|link| link.from == at).collect();
            let Some(link) = next.get(usize::from(*choice) % next.len().max(1)) else {
                break;
            };
            if passed.contains(&link.to) {
                return (at, time, true);
            }
            time += link.min_us + (link.max_us - link.min_us) * i64::from(*share) / 255;
            at = link.to;
            passed.push(at);
        }
        (at, time, true)
    }

    proptest! {
        /// Wherever a particle that passed the control point in the window ends up, the lot being made there
        /// and then is held.
        #[test]
        fn no_lot_that_a_suspect_particle_reached_is_missed(
            links in any_links(),
            choices in prop::collection::vec((any::<u8>(), any::<u8>()), 0..5),
            passes in 0i64..100, length in 0i64..50, before in 0i64..30, after in 0i64..30,
        ) {
            let dip = Window { from_us: passes * MINUTE, to_us: (passes + length) * MINUTE };
            let start = dip.from_us + (dip.to_us - dip.from_us) / 3;
            let (equipment, time, _) = particle(&links, start, &choices);
            let produced = Window { from_us: time - before * MINUTE, to_us: time + after * MINUTE };
            let candidate = LotSpan { lot: id(200), batch: None, equipment: Some(equipment), produced: Some(produced) };
            let windows = downstream(id(0), dip, &links);
            prop_assert!(windows.is_some());
            let found = suspect_lots(windows.as_ref(), &BTreeSet::new(), &[candidate]);
            prop_assert!(found.lots.contains(&id(200)));
        }

        /// A longer window never frees a lot.
        #[test]
        fn a_window_that_grows_only_adds(
            links in any_links(), from in 0i64..50, length in 0i64..20, grown in 0i64..100,
            lots in prop::collection::vec((0u8..6, 0i64..200, 0i64..30), 0..20),
        ) {
            let lots: Vec<_> = lots.into_iter().enumerate().map(|(index, (equipment, start, minutes))| {
                lot(index as u8 + 50, 9, Some(equipment), Some(window(start, start + minutes)))
            }).collect();
            let hold = |to| {
                let windows = downstream(id(0), window(from, to), &links);
                suspect_lots(windows.as_ref(), &BTreeSet::from([id(9)]), &lots).lots
            };
            prop_assert!(hold(from + length).is_subset(&hold(from + length + grown)));
        }
    }
}
