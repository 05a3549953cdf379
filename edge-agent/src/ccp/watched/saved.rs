//! What of a control point outlives a restart? Its judge and its open alarms; of the limit it was judged by and the one
//! that is configured now the newer is in force.

use protocol::{
    Micros,
    event::Event,
    limit::{ControlJudge, Stillness},
};
use serde::{Deserialize, Serialize};

use super::{NewId, OpenAlarms, Watched};
use crate::ccp::{SOURCE_CLOCK_US_MAX, late::Late, limits};

/// What is saved.
#[derive(Serialize, Deserialize)]
struct Saved {
    judge: ControlJudge,
    alarms: OpenAlarms,
    is_paused: bool,
    is_held: bool,
}

/// What was added to [`Saved`] since, behind it: a state without it, or with more behind it, can be read too.
#[derive(Default, Serialize, Deserialize)]
struct SavedMore {
    stillness: Stillness,
    read_us: Option<Micros>,
    met_us: Option<Micros>,
    late: Late,
}

impl Watched {
    pub(in crate::ccp) fn snapshot(&self) -> Option<Vec<u8>> {
        let saved = Saved {
            judge: self.judge.clone(),
            alarms: self.alarms.clone(),
            is_paused: self.is_paused,
            is_held: self.is_held,
        };
        let more = SavedMore {
            stillness: self.stillness.clone(),
            read_us: self.read_us,
            met_us: self.met_us,
            late: self.late.clone(),
        };
        postcard::to_stdvec(&(saved, more)).ok()
    }

    pub(in crate::ccp) fn restore(
        &mut self,
        state: &[u8],
        now_us: Micros,
        new_id: NewId,
        events: &mut Vec<Event>,
    ) -> Result<(), String> {
        let code = &self.point.limit.ccp;
        let unreadable = |error| format!("state of {code} cannot be read: {error}");
        let (saved, rest): (Saved, _) = postcard::take_from_bytes(state).map_err(unreadable)?;
        let more: SavedMore = if rest.is_empty() {
            SavedMore::default()
        } else {
            postcard::from_bytes(rest).map_err(unreadable)?
        };
        if saved.judge.kind() != self.point.kind {
            return Err(format!(
                "{code} is judged in another way than before: judging begins anew"
            ));
        }
        self.judge = saved.judge;
        (self.alarms, self.is_paused, self.is_held) = (saved.alarms, saved.is_paused, saved.is_held);
        (self.stillness, self.late) = (more.stillness, more.late);
        (self.read_us, self.met_us) = (more.read_us, more.met_us);
        let ahead_us = self.judge.newest_us().map_or(0, |newest_us| newest_us - now_us);
        if ahead_us > SOURCE_CLOCK_US_MAX {
            self.judge.set_back(ahead_us);
            self.stillness.set_back(ahead_us);
            self.read_us = self.read_us.map(|read_us| read_us - ahead_us);
            self.met_us = self.met_us.map(|met_us| met_us - ahead_us);
            self.late.set_back(ahead_us);
        }
        let (before, configured) = (self.judge.limit().clone(), self.point.limit.clone());
        if before.version > configured.version
            && let Ok(before) = limits::fitted(&configured, before.clone())
        {
            // Pushed, and perhaps not yet written to its file: a limit never goes back to an older version.
            self.point.limit = before;
        } else if before != configured {
            let said = self.judge.change_limit(configured);
            self.say(said, new_id, events);
        }
        Ok(())
    }
}
