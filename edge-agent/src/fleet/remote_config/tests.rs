//! Which configuration runs after pushes, edits, trials that fail, power cuts and damage?

use super::*;
use crate::durable::cuts;

const LOCAL: &str = "[edge]\nname = \"akron-1\"\ntenant = \"akron\"\n[hub]\nmqtt = \"127.0.0.1:1883\"\n";

fn place() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("edge.toml");
    std::fs::write(&file, LOCAL).unwrap();
    let data_dir = directory.path().join("data");
    (directory, file, data_dir)
}

fn text(plant: &str) -> String {
    LOCAL.replace("[hub]", &format!("plant = \"{plant}\"\n[hub]"))
}

fn pushed(revision: u64, text: &str) -> Pushed {
    Pushed {
        revision,
        sha256: hex::sha256_hex(text.as_bytes()),
        local_sha256: hex::sha256_hex(LOCAL.as_bytes()),
    }
}

fn trial(command: u128) -> Trial {
    Trial {
        command: Uuid::from_u128(command),
        before: Vitals::default(),
        has_new_hub: false,
        starts: 0,
    }
}

fn plant(file: &Path, data_dir: &Path) -> String {
    open(file, data_dir).unwrap().0.edge.plant
}

fn push(data_dir: &Path, revision: u64, text: &str) -> State {
    let state = load(data_dir)
        .unwrap()
        .begun(pushed(revision, text), trial(u128::from(revision)));
    durable::perform(&push_steps(data_dir, text, &state).unwrap()).unwrap();
    state
}

#[test]
fn t10_a_power_cut_at_any_step_of_a_push_leaves_the_old_configuration_or_the_new_one() {
    let (_directory, file, data_dir) = place();
    let old = push(&data_dir, 1, &text("old")).kept();
    let new = old.begun(pushed(2, &text("new")), trial(2));
    let mut seen = BTreeSet::new();
    for cut in cuts(&push_steps(&data_dir, &text("new"), &new).unwrap()) {
        std::fs::remove_dir_all(&data_dir).unwrap();
        push(&data_dir, 1, &text("old"));
        save(&data_dir, &old).unwrap();
        durable::perform(&cut).unwrap();
        let (config, origin) = open(&file, &data_dir).unwrap();
        assert_eq!(origin.fell_back, None, "{cut:?}");
        seen.insert(config.edge.plant);
    }
    assert_eq!(seen, BTreeSet::from(["new".to_owned(), "old".to_owned()]));
}

#[test]
fn t10_a_power_cut_at_any_step_of_a_rollback_leaves_one_of_the_two() {
    let (_directory, file, data_dir) = place();
    push(&data_dir, 1, &text("old"));
    save(&data_dir, &load(&data_dir).unwrap().kept()).unwrap();
    let new = push(&data_dir, 2, &text("new"));
    let back = new.rolled_back("the hub was connected and is not");
    for cut in cuts(&save_steps(&data_dir, &back).unwrap()) {
        save(&data_dir, &new).unwrap();
        durable::perform(&cut).unwrap();
        let is_back = load(&data_dir).unwrap() == back;
        assert_eq!(plant(&file, &data_dir), if is_back { "old" } else { "new" });
    }
    tidy(&data_dir, &back).unwrap();
    assert!(text_path(&data_dir, 1).exists() && !text_path(&data_dir, 2).exists());
}

#[test]
fn a_pushed_configuration_runs_until_the_local_file_is_edited() {
    let (_directory, file, data_dir) = place();
    assert_eq!(open(&file, &data_dir).unwrap().1.choice, Choice::Local);
    assert!(!data_dir.exists(), "choosing the local file writes nothing");
    push(&data_dir, 3, &text("pushed"));
    save(&data_dir, &load(&data_dir).unwrap().kept()).unwrap();
    assert_eq!(plant(&file, &data_dir), "pushed");
    std::fs::write(&file, LOCAL.replace("[hub]", "plant = \"edited\"\n[hub]")).unwrap();
    let (config, origin) = open(&file, &data_dir).unwrap();
    assert_eq!(config.edge.plant, "edited");
    assert_eq!(origin.choice, Choice::LocalEdited { revision: 3 });
    assert_eq!(
        origin.choice.to_string(),
        "the local file, edited after revision 3 of the hub"
    );
}

#[test]
fn a_configuration_with_which_the_agent_ends_again_and_again_is_given_up_and_its_command_is_to_be_answered() {
    let (_directory, file, data_dir) = place();
    push(&data_dir, 1, &text("pushed"));
    for _ in 0..TRIAL_STARTS_MAX {
        assert_eq!(plant(&file, &data_dir), "pushed");
    }
    assert_eq!(plant(&file, &data_dir), "akron");
    let undone = load(&data_dir).unwrap().undone.unwrap();
    assert_eq!(undone.command, Uuid::from_u128(1));
    assert!(undone.reason.contains("ended 3 times"), "{}", undone.reason);
}

#[test]
fn a_damaged_revision_is_left_for_what_ran_before_and_that_is_said() {
    let (_directory, file, data_dir) = place();
    push(&data_dir, 1, &text("old"));
    save(&data_dir, &load(&data_dir).unwrap().kept()).unwrap();
    push(&data_dir, 2, &text("new"));
    save(&data_dir, &load(&data_dir).unwrap().kept()).unwrap();
    std::fs::write(text_path(&data_dir, 2), "damage").unwrap();
    let (config, origin) = open(&file, &data_dir).unwrap();
    assert_eq!(config.edge.plant, "old");
    assert!(origin.fell_back.unwrap().contains("not what was pushed"));
}

#[test]
fn a_push_lists_every_fault_and_may_not_change_whose_records_these_are() {
    let running = config::parse(LOCAL).unwrap();
    let check = |text: &str| check(7, text, &running, std::iter::empty()).map(|config| config.edge.plant);
    assert_eq!(check(&text("new")), Ok("new".to_owned()));
    let faulty = LOCAL.to_owned() + "[spool]\nquota = \"tiny\"\n[lokal]\n";
    let refusal = check(&faulty).unwrap_err().to_string();
    assert!(refusal.contains("line 7: `spool.quota`"), "{refusal}");
    assert!(refusal.contains("line 8: unknown key `lokal`"), "{refusal}");
    for (from, to, key) in [
        ("akron-1", "akron-2", "edge.name"),
        ("\"akron\"", "\"other\"", "edge.tenant"),
    ] {
        assert_eq!(check(&LOCAL.replace(from, to)), Err(Refusal::Held(key)));
    }
    let key = ed25519_dalek::SigningKey::from_bytes(&[7; 32]).verifying_key();
    let keys = format!(
        "{LOCAL}[update]\ntrusted_keys = [\"{}\"]\n",
        hex::hex(key.as_bytes())
    );
    assert_eq!(check(&keys), Err(Refusal::Held("update.trusted_keys")));
    let long = "#".repeat(TEXT_BYTES_MAX + 1);
    assert!(matches!(check(&long), Err(Refusal::TooLong { .. })));
    let elsewhere = config::parse(&LOCAL.replace("127.0.0.1:1883", "hub.example:8883")).unwrap();
    assert!(has_new_hub(&running, &elsewhere) && !has_new_hub(&running, &running));
}
