//! How does an alarm of a signal come and go? Raised once when its condition begins, cleared under the same identity
//! when it ends.

use protocol::{
    Micros,
    event::{Alarm, Event},
};
use uuid::Uuid;

/// What an alarm is about.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subject<'a> {
    /// Name of the tag.
    pub tag: &'a str,
    /// Code of its line.
    pub line: Option<&'a str>,
}

/// Takes down alarms at one moment.
#[derive(Debug)]
pub(super) struct Alarms<'a> {
    /// When they are raised or cleared: the time of receipt.
    pub at_us: Micros,
    /// Draws identities.
    pub new_id: fn() -> Uuid,
    /// Where they go.
    pub events: &'a mut Vec<Event>,
}

impl Alarms<'_> {
    /// Raises or clears `held` when the condition changed; `message` is asked for only then.
    pub(super) fn set(
        &mut self,
        held: &mut Option<Uuid>,
        code: &str,
        subject: Subject<'_>,
        is_active: bool,
        message: impl FnOnce() -> String,
    ) {
        if held.is_some() == is_active {
            return;
        }
        let id = match held.take() {
            Some(id) => id,
            None => *held.insert((self.new_id)()),
        };
        self.events.push(Event::Alarm(Alarm {
            id,
            at_us: self.at_us,
            code: code.to_owned(),
            subject: subject.tag.to_owned(),
            line: subject.line.map(str::to_owned),
            active: is_active,
            message: message(),
        }));
    }
}
