//! Which version runs after trials, confirmations, ends, power cuts and damage?

use proptest::prelude::*;

use super::*;

fn installed(version: &str) -> Installed {
    Installed {
        version: version.parse().unwrap(),
        sha256: String::new(),
    }
}

fn packaged() -> Version {
    "1.0.0".parse().unwrap()
}

fn staged() -> State {
    State::default()
        .staged(installed("1.1.0"), None, Vitals::default())
        .confirmed()
        .staged(installed("1.2.0"), Some(Uuid::from_u128(7)), Vitals::default())
}

fn whole(_: &Installed) -> bool {
    true
}

#[test]
fn t32_a_version_that_ends_by_itself_on_trial_is_followed_at_once_by_the_one_before() {
    for end in [
        End::Exited(Some(1)),
        End::Exited(Some(0)),
        End::Exited(None),
        End::TimedOut,
    ] {
        let (state, start) = staged().start(packaged(), whole);
        assert_eq!(start, Start::Installed(installed("1.2.0")));
        let (state, again) = state.ended(end);
        assert!(again, "{end:?}");
        let concluded = state.concluded.clone().unwrap();
        assert_eq!(concluded.command, Some(Uuid::from_u128(7)));
        assert!(matches!(concluded.outcome(), CommandOutcome::RolledBack { .. }));
        let (_, start) = state.start(packaged(), whole);
        assert_eq!(start, Start::Installed(installed("1.1.0")));
    }
}

#[test]
fn a_version_that_reported_itself_well_is_kept_and_its_later_ends_are_the_service_managers() {
    let (state, _) = staged().start(packaged(), whole);
    let state = state.confirmed();
    assert_eq!(state.concluded.as_ref().unwrap().outcome(), CommandOutcome::Done);
    assert_eq!(state.ended(End::Exited(Some(1))), (state.clone(), false));
    assert!(state.ended(End::Exited(Some(75))).1);
}

#[test]
fn an_agent_that_staged_a_version_and_ends_is_followed_by_that_version() {
    let (state, again) = staged().ended(End::Exited(Some(75)));
    assert!(again && state.concluded.is_none());
    assert_eq!(
        state.start(packaged(), whole).1,
        Start::Installed(installed("1.2.0"))
    );
}

#[test]
fn power_cuts_during_a_trial_do_not_end_it_and_the_service_managers_stop_does_not_count() {
    let mut state = staged();
    for _ in 0..TRIAL_STARTS_MAX {
        let (started, start) = state.start(packaged(), whole);
        assert_eq!(start, Start::Installed(installed("1.2.0")));
        assert_eq!(
            started.ended(End::Stopped).0.trial.unwrap().starts,
            state.trial.unwrap().starts
        );
        state = started;
    }
    let (state, start) = state.start(packaged(), whole);
    assert_eq!(start, Start::Installed(installed("1.1.0")));
    assert!(state.concluded.unwrap().failure.unwrap().contains("3 times"));
}

#[test]
fn damaged_programs_are_passed_over_down_to_the_packaged_one() {
    let (state, start) = staged().start(packaged(), |installed| installed.version < packaged());
    assert_eq!(start, Start::Packaged);
    assert!(state.current.is_none());
}

#[test]
fn a_newer_package_is_run_instead_of_an_older_installed_version() {
    let state = staged().start(packaged(), whole).0.confirmed();
    let (after, start) = state.start("1.3.0".parse().unwrap(), whole);
    assert_eq!((start, after.current), (Start::Packaged, None));
}

#[test]
fn t32_a_power_cut_while_the_state_is_written_leaves_one_that_starts_an_agent() {
    let directory = tempfile::tempdir().unwrap();
    let path = state_path(directory.path());
    let (old, new) = (State::default(), staged());
    for cut in durable::cuts(&durable::replace_json(&path, &new).unwrap()) {
        save(directory.path(), &old).unwrap();
        durable::perform(&cut).unwrap();
        let found = load(directory.path()).unwrap();
        assert!(found == old || found == new, "{cut:?}");
    }
}

proptest! {
    /// Whatever happens in whatever order, something is started, and never a version that failed its trial.
    #[test]
    fn something_always_starts_and_never_what_failed(
        ends in prop::collection::vec((0u8..6, any::<bool>()), 0..40),
    ) {
        let mut state = staged();
        let mut failed = Vec::new();
        for (end, is_whole) in ends {
            let (next, start) = state.start(packaged(), |_| is_whole);
            failed.extend(next.concluded.iter().filter(|concluded| concluded.failure.is_some()).map(|concluded| concluded.version));
            if let Start::Installed(installed) = &start {
                prop_assert!(is_whole && !failed.contains(&installed.version));
            }
            state = match end {
                0 => next.confirmed(),
                1 => next.ended(End::Stopped).0,
                2 => next.ended(End::TimedOut).0,
                3 => next.ended(End::Exited(None)).0,
                4 => next.ended(End::Exited(Some(75))).0,
                _ => next,
            };
            failed.extend(state.concluded.iter().filter(|concluded| concluded.failure.is_some()).map(|concluded| concluded.version));
        }
    }
}
