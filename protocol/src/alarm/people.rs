//! What have people decided about one alarm? Shelving and service as last-writer-wins registers over the actions'
//! own times, so that actions made in two places and delivered in any order end in the same state.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::reading::Micros;

/// Most action ids remembered of one alarm: an id that comes again within them is the same deed. An older one is
/// decided again and, being older than what it competes with, changes nothing.
pub(super) const IDS_REMEMBERED_MAX: usize = 64;

/// When and by which action something was decided; the order in which decisions count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Stamp {
    pub(super) at_us: Micros,
    pub(super) id: Uuid,
}

/// The newest decision about one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Decision<T> {
    pub(super) stamp: Stamp,
    pub(super) what: T,
}

/// Keeps the newer of two decisions; whether it was the new one.
pub(super) fn decide<T>(kept: &mut Option<Decision<T>>, stamp: Stamp, what: T) -> bool {
    if kept.as_ref().is_some_and(|kept| kept.stamp >= stamp) {
        return false;
    }
    *kept = Some(Decision { stamp, what });
    true
}

/// Until when an alarm is hidden, and whether that has run out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Shelving {
    pub(super) until_us: Micros,
    pub(super) is_over: bool,
}

/// What people have decided.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct People {
    pub(super) shelving: Option<Decision<Option<Shelving>>>,
    pub(super) out_of_service: Option<Decision<bool>>,
    done: VecDeque<Uuid>,
}

impl People {
    /// Remembers an action's id; false when it was known.
    pub(super) fn is_new(&mut self, id: Uuid) -> bool {
        if self.done.contains(&id) {
            return false;
        }
        if self.done.len() == IDS_REMEMBERED_MAX {
            self.done.pop_front();
        }
        self.done.push_back(id);
        true
    }

    /// End of the shelving that is in force.
    pub(super) fn shelved_until_us(&self) -> Option<Micros> {
        self.shelving
            .as_ref()
            .and_then(|decision| decision.what)
            .filter(|shelving| !shelving.is_over)
            .map(|shelving| shelving.until_us)
    }

    /// Marks the shelving as run out.
    pub(super) fn end_shelving(&mut self) {
        if let Some(shelving) = self.shelving.as_mut().and_then(|decision| decision.what.as_mut()) {
            shelving.is_over = true;
        }
    }

    pub(super) fn is_out_of_service(&self) -> bool {
        self.out_of_service.is_some_and(|decision| decision.what)
    }

    /// Whether nobody ever decided anything.
    pub(super) fn is_empty(&self) -> bool {
        self.shelving.is_none() && self.out_of_service.is_none() && self.done.is_empty()
    }

    /// The clock was set back by `by_us`. Stamps stay as people gave them; what runs out does so as much later.
    pub(super) fn set_back(&mut self, by_us: Micros) {
        if let Some(shelving) = self.shelving.as_mut().and_then(|decision| decision.what.as_mut()) {
            shelving.until_us = shelving.until_us.saturating_sub(by_us);
        }
    }
}
