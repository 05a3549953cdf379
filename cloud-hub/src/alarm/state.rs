//! What are the states of ISA-18.2 called in SQL and in the API?

use protocol::alarm::AlarmState;

/// Every state.
pub const ALL: [AlarmState; 8] = [
    AlarmState::Normal,
    AlarmState::Unacknowledged,
    AlarmState::Acknowledged,
    AlarmState::ReturnedUnacknowledged,
    AlarmState::Latched,
    AlarmState::Shelved,
    AlarmState::Suppressed,
    AlarmState::OutOfService,
];

/// The state's name.
pub const fn name(state: AlarmState) -> &'static str {
    match state {
        AlarmState::Normal => "normal",
        AlarmState::Unacknowledged => "unacknowledged",
        AlarmState::Acknowledged => "acknowledged",
        AlarmState::ReturnedUnacknowledged => "returned_unacknowledged",
        AlarmState::Latched => "latched",
        AlarmState::Shelved => "shelved",
        AlarmState::Suppressed => "suppressed",
        AlarmState::OutOfService => "out_of_service",
    }
}

/// The state of that name; normal for one that is none.
pub fn parse(text: &str) -> AlarmState {
    ALL.into_iter()
        .find(|state| name(*state) == text)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_leads_back_to_its_state() {
        assert!(ALL.into_iter().all(|state| parse(name(state)) == state));
        assert_eq!(parse("asleep"), AlarmState::Normal);
    }
}
