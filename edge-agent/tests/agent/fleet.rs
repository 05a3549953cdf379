//! Does the agent do what the hub orders, once, and does it undo what does not run?

use std::time::Duration;

use protocol::{
    command::{Command, CommandOutcome, Order},
    lane::Lane,
};
use uuid::Uuid;

use crate::support::{
    edge::{Edge, count, device, head, source},
    hub::{Hub, Policy, Stored},
    plc::{Behaviour, Plc},
};

const FLEET: &str = "[fleet]\nprobation = \"3s\"\n";

fn configure(id: u128, revision: u64, toml: &str) -> Command {
    given(
        id,
        Order::Configure {
            revision,
            toml: toml.to_owned(),
        },
    )
}

fn given(id: u128, order: Order) -> Command {
    Command {
        id: Uuid::from_u128(id),
        issued_us: 0,
        expires_us: None,
        by: "avery".to_owned(),
        order,
    }
}

fn reason(outcome: &CommandOutcome) -> &str {
    match outcome {
        CommandOutcome::Refused { reason } | CommandOutcome::RolledBack { reason } => reason,
        CommandOutcome::Done | CommandOutcome::AlreadySo => "",
    }
}

struct Plant {
    directory: tempfile::TempDir,
    plc: Plc,
    hub: Hub,
    config: String,
}

impl Plant {
    async fn start() -> (Self, Edge) {
        let plc = Plc::start(Behaviour::default()).await;
        let hub = Hub::start(Policy::Store).await;
        let config = head(Some(hub.address)) + FLEET + &device("plc", plc.address, "100ms", "800ms", &[0, 1]);
        let plant = Self {
            directory: tempfile::tempdir().unwrap(),
            plc,
            hub,
            config,
        };
        let edge = plant.edge().await;
        plant.hub.until("readings", |stored| stored.readings() >= 2).await;
        (plant, edge)
    }

    async fn edge(&self) -> Edge {
        Edge::start(self.directory.path(), &self.config).await
    }

    /// The configuration with one more tag.
    fn more(&self) -> String {
        head(Some(self.hub.address)) + FLEET + &device("plc", self.plc.address, "100ms", "800ms", &[0, 1, 2])
    }
}

/// Every boot's live frames count up without a hole.
fn has_no_hole(stored: &Stored) -> bool {
    let mut next = std::collections::BTreeMap::<Uuid, u64>::new();
    stored.frames.keys().filter(|id| id.lane == Lane::Live).all(|id| {
        let expected = next.entry(id.boot).or_default();
        let is_next = *expected == id.seq;
        *expected = id.seq + 1;
        is_next
    })
}

#[tokio::test]
async fn t10_an_identical_configuration_on_each_reconnect_touches_nothing() {
    let (plant, edge) = Plant::start().await;
    let before = edge.status().await;
    for id in 1..4 {
        plant
            .hub
            .command(configure(id, u64::try_from(id).unwrap(), &plant.config));
        assert_eq!(
            plant.hub.answer(Uuid::from_u128(id)).await,
            CommandOutcome::AlreadySo
        );
        plant.hub.cut();
        let connections = u64::try_from(id).unwrap() + 1;
        edge.until("a new connection", |status| {
            count(&status["uplink"]["connections"]) >= connections
        })
        .await;
    }
    let after = edge.status().await;
    assert_eq!(before["boot"], after["boot"]);
    assert_eq!(source(&after, "plc")["state"], "up");
    assert_eq!(count(&after["lost"]), 0);
    assert!(!edge.data_dir.join("config").exists(), "nothing was written");
    assert!(has_no_hole(&plant.hub.stored.lock().unwrap()));
}

#[tokio::test]
async fn t10_a_pushed_configuration_that_runs_well_stays_over_restarts_until_the_local_file_is_edited() {
    let (plant, edge) = Plant::start().await;
    plant.hub.command(configure(1, 7, &plant.more()));
    assert_eq!(plant.hub.answer(Uuid::from_u128(1)).await, CommandOutcome::Done);
    let knows_tag = |stored: &Stored| {
        let dictionaries = stored.dictionaries.values();
        dictionaries
            .flat_map(|dictionary| &dictionary.tags)
            .any(|tag| tag.name == "plc-2")
    };
    plant.hub.until("the new tag", knows_tag).await;
    // An older revision is not gone back to.
    plant.hub.command(configure(2, 6, &plant.config));
    assert_eq!(
        plant.hub.answer(Uuid::from_u128(2)).await,
        CommandOutcome::AlreadySo
    );
    assert_eq!(edge.stop().await, Some(0));
    let current = std::fs::read_to_string(plant.directory.path().join("data/config/current.json")).unwrap();
    let current: serde_json::Value = serde_json::from_str(&current).unwrap();
    assert_eq!(
        (
            current["current"]["revision"].as_u64(),
            current["trial"].is_null()
        ),
        (Some(7), true)
    );
    let edge = plant.edge().await;
    assert!(crate::support::edge::log_of(plant.directory.path()).contains("revision 7 of the hub"));
    assert_eq!(edge.stop().await, Some(0));
    let edited = plant.config.clone() + "# edited\n";
    let _edge = Edge::start(plant.directory.path(), &edited).await;
    assert!(
        crate::support::edge::log_of(plant.directory.path())
            .contains("the local file, edited after revision 7 of the hub")
    );
    plant.hub.command(configure(3, 7, &plant.more()));
    let outcome = plant.hub.answer(Uuid::from_u128(3)).await;
    assert!(
        reason(&outcome).contains("edited after revision 7"),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn t10_a_configuration_with_which_the_hub_is_lost_is_rolled_back_and_the_hub_is_told() {
    let (plant, edge) = Plant::start().await;
    let lost = plant
        .config
        .replace(&plant.hub.address.to_string(), "127.0.0.1:9");
    plant.hub.command(configure(1, 1, &lost));
    let outcome = plant.hub.answer(Uuid::from_u128(1)).await;
    assert!(
        matches!(outcome, CommandOutcome::RolledBack { .. }),
        "{outcome:?}"
    );
    assert!(reason(&outcome).contains("hub"), "{outcome:?}");
    edge.until("the hub", |status| status["uplink"]["state"] == "online")
        .await;
    assert!(has_no_hole(&plant.hub.stored.lock().unwrap()));
}

#[tokio::test]
async fn t10_a_configuration_that_silences_a_source_is_rolled_back() {
    let (plant, edge) = Plant::start().await;
    let silenced = plant
        .config
        .replace(&plant.plc.address.to_string(), "127.0.0.1:9");
    plant.hub.command(configure(1, 1, &silenced));
    let outcome = plant.hub.answer(Uuid::from_u128(1)).await;
    assert!(reason(&outcome).contains("modbus/plc"), "{outcome:?}");
    edge.until("the source", |status| source(status, "plc")["state"] == "up")
        .await;
}

#[tokio::test]
async fn t10_a_kill_during_the_trial_ends_with_one_of_the_two_and_an_answer() {
    let (plant, edge) = Plant::start().await;
    plant.hub.command(configure(1, 1, &plant.more()));
    let pointer = edge.data_dir.join("config/current.json");
    while !pointer.exists() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    edge.kill();
    let _edge = plant.edge().await;
    assert_eq!(plant.hub.answer(Uuid::from_u128(1)).await, CommandOutcome::Done);
}

#[tokio::test]
async fn a_faulty_configuration_is_refused_with_every_fault_and_nothing_is_touched() {
    let (plant, edge) = Plant::start().await;
    let before = edge.status().await;
    let faulty = plant.config.clone() + "[spool]\nquota = \"tiny\"\n[lokal]\n";
    plant.hub.command(configure(1, 1, &faulty));
    let outcome = plant.hub.answer(Uuid::from_u128(1)).await;
    for word in ["`spool.quota`", "unknown key `lokal`", "line "] {
        assert!(reason(&outcome).contains(word), "{outcome:?}");
    }
    plant
        .hub
        .command(configure(2, 2, &plant.config.replace("akron-1", "akron-2")));
    let outcome = plant.hub.answer(Uuid::from_u128(2)).await;
    assert!(reason(&outcome).contains("`edge.name`"), "{outcome:?}");
    assert_eq!(before["boot"], edge.status().await["boot"]);
}

#[tokio::test]
async fn a_command_sent_again_after_a_restart_is_answered_as_before_and_an_expired_one_is_refused() {
    let (plant, edge) = Plant::start().await;
    let faulty = configure(1, 1, "");
    plant.hub.command(faulty.clone());
    let first = plant.hub.answer(faulty.id).await;
    assert_eq!(edge.stop().await, Some(0));
    let _edge = plant.edge().await;
    plant
        .hub
        .until("a second answer", |stored| stored.answers(faulty.id).len() >= 2)
        .await;
    let answers = plant.hub.stored.lock().unwrap().answers(faulty.id);
    assert!(answers.iter().all(|answer| *answer == first), "{answers:?}");
    let expired = Command {
        expires_us: Some(1_000_000),
        ..configure(2, 1, &plant.more())
    };
    plant.hub.command(expired.clone());
    let outcome = plant.hub.answer(expired.id).await;
    assert!(reason(&outcome).contains("expired"), "{outcome:?}");
}
