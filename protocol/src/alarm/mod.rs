//! In which state is an alarm, and who may change it? The states of ISA-18.2 (IEC 62682), the changes between them
//! as records, and the actions of people.

pub mod machine;
mod people;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::reading::Micros;

/// The states of ISA-18.2 (IEC 62682).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlarmState {
    /// Nothing is wrong and nothing is to be acknowledged.
    #[default]
    Normal,
    /// Active, and nobody has acknowledged it.
    Unacknowledged,
    /// Active and acknowledged.
    Acknowledged,
    /// No longer active, and nobody has acknowledged it.
    ReturnedUnacknowledged,
    /// No longer active, and held until somebody resets it.
    Latched,
    /// Hidden by a person, for a stated time.
    Shelved,
    /// Hidden by the state of the process, as designed.
    Suppressed,
    /// Taken out of service by a person, for maintenance.
    OutOfService,
}

/// What a person does about an alarm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlarmAction {
    /// Stable identity of the action: done once, wherever it comes from.
    pub id: Uuid,
    /// Which alarm: `code` and `subject` name it on its edge.
    pub code: String,
    /// What the alarm is about.
    pub subject: String,
    /// When the person acted, by the clock of where they acted.
    pub at_us: Micros,
    /// Who: an account's name or a badge.
    pub by: String,
    /// The second person, where one is asked for.
    pub second: Option<String>,
    /// Why, in their words.
    pub reason: String,
    /// What.
    pub verb: AlarmVerb,
}

/// What can be done about an alarm. Variants are only ever appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlarmVerb {
    /// Seen, and being dealt with.
    Acknowledge,
    /// Hide it until this time; it comes back by itself.
    Shelve {
        /// End of the shelving.
        until_us: Micros,
    },
    /// End the shelving now.
    Unshelve,
    /// Release a latched alarm.
    Reset,
    /// Out of service for maintenance.
    TakeOutOfService,
    /// Back into service.
    ReturnToService,
}

/// Where the change of an alarm's state came from. Variants are only ever appended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AlarmCause {
    /// The condition became true or false, or a delay ran out.
    Condition,
    /// A shelving ran out.
    ShelvingExpired,
    /// The state of the process began or ended a suppression.
    Process,
    /// A person's action was done.
    Action(AlarmAction),
    /// A person's action was not done; the state is unchanged.
    Refused {
        /// The action.
        action: AlarmAction,
        /// For people.
        why: String,
    },
}

/// One change of one alarm's state: the record that goes to the journal and to the hub.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AlarmChange {
    /// Identity of the occurrence, as in [`Alarm::id`](crate::event::Alarm::id).
    pub id: Uuid,
    /// When.
    pub at_us: Micros,
    /// Stable machine name of the alarm.
    pub code: String,
    /// What it is about.
    pub subject: String,
    /// Code of the line, when it has one.
    pub line: Option<String>,
    /// The state before.
    pub from: AlarmState,
    /// The state after.
    pub to: AlarmState,
    /// Why.
    pub cause: AlarmCause,
    /// Whether the condition is true now, whatever the state.
    pub is_active: bool,
    /// 1 most urgent, 2, 3; 4 is diagnostic.
    pub priority: u8,
    /// The value at this moment, when the alarm judges one.
    pub value: Option<f64>,
    /// Version of the critical limit in force, for alarms of control points.
    pub limit_version: Option<u32>,
}
