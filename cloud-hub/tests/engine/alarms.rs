//! Alarms of the hub: judged in the time of the readings, by however many hubs, whatever comes late or twice.

use cloud_hub::{
    alarm::duty,
    kernel::{clock::Clock, role::Role},
};
use futures_util::future::BoxFuture;
use protocol::{Quality, Reading, lane::Lane, reading::Alias};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _};
use uuid::Uuid;

use crate::{
    ingest::Intake,
    support::{FrameMaker, TestDatabase, TestHub, akron},
};

const SECOND: i64 = 1_000_000;
const ENTRIES: &str = "SELECT count(*) FROM alarm_entry";

/// A hub with a rule on TT-403 above 5, five seconds on delay, that has judged since a while ago.
struct Plant {
    hub: TestHub,
    intake: Intake,
    maker: FrameMaker,
    /// The rule's readings begin here.
    from_us: i64,
    token: String,
}

impl Plant {
    fn start(rule: Value) -> BoxFuture<'static, Self> {
        Box::pin(Self::started(rule))
    }

    async fn started(rule: Value) -> Self {
        let database = TestDatabase::create().await;
        let intake = Intake::start(&database);
        let maker = FrameMaker::new("e1", &["TT-403", "L4-RATE"]);
        intake.dictionary(&maker).await;
        let hub = TestHub::start_on(database).await;
        let token = hub.token(Role::Supervisor).await;
        let plant = Self {
            intake,
            maker,
            from_us: Clock::system().now_us() - 3_000 * SECOND,
            token,
            hub,
        };
        let made = plant.send(Method::POST, "/sensors/alerts", Some(rule)).await;
        assert_eq!(made.0, 201, "{made:?}");
        plant.judge().await;
        // As if it had been made an hour ago.
        plant
            .as_owner(
                "UPDATE alarm_rule_version SET from_at = now() - interval '1 hour'; DELETE FROM alarm_state",
            )
            .await;
        plant
    }

    /// What no tenant's role may do.
    async fn as_owner(&self, sql: &str) {
        let owner = self.hub.hub.app.owner.as_ref().unwrap();
        let mut owner = owner.requests.connect().await.unwrap();
        let sql = format!("SET search_path TO t_akron, public; {sql}");
        sqlx::raw_sql(AssertSqlSafe(sql))
            .execute(&mut owner)
            .await
            .unwrap();
        owner.close().await.unwrap();
    }

    async fn send(&self, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
        drop(rustls::crypto::ring::default_provider().install_default());
        let mut request = reqwest::Client::new()
            .request(method, self.hub.url(&format!("/api/v1{path}")))
            .bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap_or_default())
    }

    async fn put(&self, seq: u64, values: &[(i64, f64)]) {
        let reading = |(second, value): &(i64, f64)| {
            Reading::new(Alias(0), self.from_us + second * SECOND, *value, Quality::GOOD)
        };
        let frame = self
            .maker
            .frame(Lane::Backfill, seq, values.iter().map(reading).collect(), vec![]);
        self.intake.frame(&self.maker, &frame).await;
    }

    async fn judge(&self) -> usize {
        loop {
            let judged = duty::judge(&self.hub.hub.app, &akron(), true).await.unwrap();
            // The hub's own duty may be at it.
            if judged.elsewhere == 0 {
                return judged.changed;
            }
            tokio::task::yield_now().await;
        }
    }

    async fn alarms(&self) -> Vec<Value> {
        let (status, page) = self
            .send(Method::GET, "/sensors/alarms?withdrawn=true&code=warm", None)
            .await;
        assert_eq!(status, 200, "{page}");
        page["items"].as_array().unwrap().clone()
    }

    async fn causes(&self, id: &str) -> Vec<String> {
        let (_, journal) = self
            .send(Method::GET, &format!("/sensors/alarms/{id}/journal"), None)
            .await;
        let entries = journal["items"].as_array().unwrap();
        entries
            .iter()
            .map(|entry| entry["cause"].as_str().unwrap().to_owned())
            .collect()
    }
}

fn warm() -> Value {
    json!({ "code": "warm", "name": "Tank too warm", "tag_name": "TT-403", "kind": "threshold", "high": 5.0,
        "deadband": 0.5, "on_delay_s": 5, "off_delay_s": 2 })
}

#[tokio::test]
async fn a_late_reading_withdraws_the_alarm_that_it_disproves_and_the_journal_says_so() {
    let plant = Plant::start(warm()).await;
    plant.put(0, &[(0, 4.0), (10, 6.0), (20, 6.0), (30, 4.0)]).await;
    plant.judge().await;
    let alarms = plant.alarms().await;
    let [alarm] = &alarms[..] else {
        panic!("{alarms:?}")
    };
    assert_eq!(alarm["raised_us"], plant.from_us + 15 * SECOND);
    // It came back at 30, and nothing after that confirmed it for the delay.
    assert_eq!(
        (&alarm["cleared_us"], &alarm["state"]),
        (&Value::Null, &json!("unacknowledged"))
    );
    plant.put(1, &[(33, 4.0)]).await;
    plant.judge().await;
    let alarm = plant.alarms().await.remove(0);
    assert_eq!(alarm["cleared_us"], plant.from_us + 32 * SECOND);
    assert_eq!(alarm["state"], "returned_unacknowledged");
    assert_eq!(plant.judge().await, 0, "judged again, nothing changes");

    plant.put(2, &[(13, 4.0), (18, 4.0), (23, 4.0)]).await;
    plant.judge().await;
    let alarm = plant.alarms().await.remove(0);
    assert!(
        alarm["withdrawn_us"].is_i64() && alarm["state"] == "normal",
        "{alarm}"
    );
    let id = alarm["id"].as_str().unwrap();
    assert_eq!(plant.causes(id).await, ["raised", "returned", "withdrawn"]);
    let (_, page) = plant.send(Method::GET, "/sensors/alarms?code=warm", None).await;
    assert_eq!(
        page["items"],
        json!([]),
        "the list shows what stands by the readings"
    );
}

#[tokio::test]
async fn the_same_readings_in_another_order_and_twice_over_give_the_same_alarms() {
    let plant = Plant::start(warm()).await;
    let values: Vec<(i64, f64)> = (0..400)
        .map(|n| (n * 5, if (n / 7) % 3 == 0 { 6.0 } else { 4.0 }))
        .collect();
    let mut chunks: Vec<&[(i64, f64)]> = values.chunks(23).collect();
    chunks.reverse();
    chunks.swap(2, 9);
    for (seq, chunk) in (0..).zip(&chunks) {
        plant.put(seq, chunk).await;
        if seq % 3 == 0 {
            plant.judge().await;
        }
    }
    plant.judge().await;
    let shown = |alarms: Vec<Value>| -> Vec<(Value, Value, Value)> {
        let stands = alarms.into_iter().filter(|alarm| alarm["withdrawn_us"].is_null());
        stands
            .map(|alarm| {
                (
                    alarm["id"].clone(),
                    alarm["raised_us"].clone(),
                    alarm["cleared_us"].clone(),
                )
            })
            .collect()
    };
    let shuffled = shown(plant.alarms().await);
    let entries = plant.hub.count(&akron(), ENTRIES).await;
    assert_eq!(shuffled.len(), 19);
    // From the beginning, in order, as a hub would that had just been handed the database.
    plant.hub.execute(&akron(), "DELETE FROM alarm_state", &[]).await;
    plant
        .hub
        .execute(
            &akron(),
            "INSERT INTO alarm_due (rule_id, from_at) SELECT id, now() - interval '1 hour' FROM alarm_rule",
            &[],
        )
        .await;
    plant.judge().await;
    assert_eq!(
        plant.hub.count(&akron(), ENTRIES).await,
        entries,
        "the verdicts are replayed to the same"
    );
    assert_eq!(shown(plant.alarms().await), shuffled);
}

#[tokio::test]
async fn two_hubs_at_once_raise_an_alarm_once() {
    let plant = Plant::start(warm()).await;
    plant.put(0, &[(0, 4.0), (10, 6.0), (20, 6.0), (30, 6.0)]).await;
    let app = &plant.hub.hub.app;
    let tenant = akron();
    let turns = (0..8).map(|_| duty::judge(app, &tenant, true));
    let done = futures_util::future::join_all(turns).await;
    let changed: usize = done.into_iter().map(|judged| judged.unwrap().changed).sum();
    // The hub's own duty may have come first.
    assert!(changed <= 1, "{changed}");
    plant.judge().await;
    assert_eq!(plant.alarms().await.len(), 1);
    let raised = plant
        .hub
        .count(
            &akron(),
            "SELECT count(*) FROM alarm_entry WHERE cause = 'raised'",
        )
        .await;
    assert_eq!(raised, 1);
}

#[tokio::test]
async fn people_acknowledge_shelve_and_reset_and_refusals_say_why() {
    let mut rule = warm();
    rule["is_latching"] = json!(true);
    let plant = Plant::start(rule).await;
    plant.put(0, &[(0, 4.0), (10, 6.0), (20, 6.0), (30, 6.0)]).await;
    plant.judge().await;
    let id = plant.alarms().await[0]["id"].as_str().unwrap().to_owned();
    let act = async |verb: &str, body: Value| {
        plant
            .send(Method::POST, &format!("/sensors/alarms/{id}/{verb}"), Some(body))
            .await
    };
    let why = json!({ "reason": "valve stuck, fitter called" });
    assert_eq!(act("acknowledge", json!({ "reason": "  " })).await.0, 400);
    let (status, refused) = act("reset", why.clone()).await;
    assert_eq!(status, 409);
    assert!(
        refused["detail"].as_str().unwrap().contains("still true"),
        "{refused}"
    );
    let (status, acked) = act("acknowledge", why.clone()).await;
    assert_eq!(
        (status, &acked["state"]),
        (200, &json!("acknowledged")),
        "{acked}"
    );
    assert!(acked["acked_by"].is_string());
    assert_eq!(act("acknowledge", why.clone()).await.0, 409, "once is enough");
    plant.judge().await;
    assert_eq!(
        plant.alarms().await[0]["state"],
        "acknowledged",
        "judging comes to the same"
    );

    let now_us = Clock::system().now_us();
    let long = json!({ "until_us": now_us + 40_000 * SECOND, "reason": "works" });
    assert_eq!(act("shelve", long).await.0, 409);
    let short = json!({ "until_us": now_us + 600 * SECOND, "reason": "works" });
    let (_, shelved) = act("shelve", short).await;
    assert_eq!(shelved["state"], "shelved");
    let unshelve = json!({ "verb": "unshelve", "reason": "done" });
    assert_eq!(act("actions", unshelve).await.1["state"], "acknowledged");
    plant.put(1, &[(40, 4.0), (50, 4.0)]).await;
    plant.judge().await;
    assert_eq!(plant.alarms().await[0]["state"], "latched");
    assert_eq!(act("reset", why).await.1["state"], "normal");
    plant.judge().await;
    assert_eq!(plant.alarms().await[0]["state"], "normal");
    let causes = plant.causes(&id).await;
    assert_eq!(
        causes,
        ["raised", "action", "action", "action", "returned", "action"],
        "the journal has every step once"
    );
    let acts = plant
        .hub
        .count(
            &akron(),
            "SELECT count(*) FROM audit_event WHERE entity = 'alarm' AND action IN ('acknowledge', 'shelve', 'unshelve', 'reset')",
        )
        .await;
    assert_eq!(acts, 4);
}

#[tokio::test]
async fn silence_is_noticed_by_time_alone_and_ends_with_the_next_reading() {
    let rule = json!({ "code": "warm", "name": "TT-403 silent", "tag_name": "TT-403", "kind": "no_data", "window_s": 60 });
    let plant = Plant::start(rule).await;
    plant.put(0, &[(0, 4.0), (30, 4.0)]).await;
    plant.judge().await;
    // Another silence was before the first reading.
    let alarm = plant.alarms().await.remove(0);
    assert_eq!(alarm["raised_us"], plant.from_us + 90 * SECOND);
    assert_eq!(alarm["state"], "unacknowledged");
    let now_s = (Clock::system().now_us() - plant.from_us) / SECOND;
    plant.put(1, &[(now_s, 4.0)]).await;
    plant.judge().await;
    let alarms = plant.alarms().await;
    assert_eq!(alarms.len(), 2, "{alarms:?}");
    let alarm = &alarms[0];
    assert_eq!(alarm["cleared_us"], plant.from_us + now_s * SECOND);
    // What the edge had meanwhile comes from its spool: it was never silent.
    let kept: Vec<(i64, f64)> = (2..now_s / 30).map(|n| (n * 30, 4.0)).collect();
    plant.put(2, &kept).await;
    plant.judge().await;
    assert!(plant.alarms().await[0]["withdrawn_us"].is_i64());
}

#[tokio::test]
async fn a_rule_that_is_switched_off_or_deleted_ends_its_alarm() {
    let plant = Plant::start(warm()).await;
    plant.put(0, &[(0, 4.0), (10, 6.0), (20, 6.0)]).await;
    plant.judge().await;
    let (_, rules) = plant.send(Method::GET, "/sensors/alerts?code=warm", None).await;
    let id: Uuid = rules["items"][0]["id"].as_str().unwrap().parse().unwrap();
    plant
        .hub
        .execute(&akron(), "DELETE FROM alarm_rule WHERE id = $1", &[id])
        .await;
    plant.judge().await;
    let alarm = plant.alarms().await.remove(0);
    assert!(alarm["cleared_us"].is_i64(), "{alarm}");
    assert_eq!(
        alarm["state"], "returned_unacknowledged",
        "it is still to be looked at"
    );
}

#[tokio::test]
async fn the_threshold_of_a_rule_is_shown_over_the_time_in_which_it_was_in_force() {
    let plant = Plant::start(warm()).await;
    let (_, tags) = plant.send(Method::GET, "/plant-ops/tags", None).await;
    let tags = tags["items"].as_array().unwrap();
    let of = |name: &str| tags.iter().find(|tag| tag["name"] == name).unwrap()["id"].clone();
    let (tag, other) = (of("TT-403"), of("L4-RATE"));
    let limits = |from_us: i64, to_us: i64| {
        let path =
            format!("/plant-ops/series?tags={tag},{other}&from_us={from_us}&to_us={to_us}&limits=true");
        let plant = &plant;
        async move {
            let (status, series) = plant.send(Method::GET, &path, None).await;
            assert_eq!(status, 200, "{series}");
            assert_eq!(
                series["tags"][1]["limits"],
                json!([]),
                "another tag's are not its"
            );
            series["tags"][0]["limits"].as_array().unwrap().clone()
        }
    };
    let (from_us, far_us) = (plant.from_us, plant.from_us + 86_400 * SECOND);
    let standing = limits(from_us, far_us).await;
    assert_eq!(standing.len(), 1);
    assert_eq!(
        (&standing[0]["kind"], &standing[0]["code"], &standing[0]["high"]),
        (&json!("rule"), &json!("warm"), &json!(5.0))
    );
    assert!(standing[0]["from_us"].is_i64() && standing[0]["to_us"].is_null());
    let earlier = limits(from_us - 86_400 * SECOND, from_us - 7_200 * SECOND).await;
    assert_eq!(earlier, Vec::<Value>::new(), "before it was made");
    let (_, rules) = plant.send(Method::GET, "/sensors/alerts?code=warm", None).await;
    let id: Uuid = rules["items"][0]["id"].as_str().unwrap().parse().unwrap();
    plant
        .hub
        .execute(&akron(), "DELETE FROM alarm_rule WHERE id = $1", &[id])
        .await;
    plant.judge().await;
    let over = limits(from_us, far_us).await.remove(0);
    let ended_us = over["to_us"].as_i64().unwrap();
    assert!(ended_us > over["from_us"].as_i64().unwrap());
    assert_eq!(limits(ended_us, far_us).await, Vec::<Value>::new());
}

#[tokio::test]
async fn a_statistical_rule_is_trained_judges_and_names_its_model() {
    let rule = json!({ "code": "warm", "name": "TT-403 unusual", "tag_name": "TT-403", "kind": "mad", "window_s": 60,
        "score_max": 8.0 });
    let plant = Plant::start(rule).await;
    let normal: Vec<(i64, f64)> = (0..240).map(|n| (n * 10, 4.0 + 0.1 * (n % 7) as f64)).collect();
    plant.put(0, &normal).await;
    let (_, rules) = plant.send(Method::GET, "/sensors/alerts?code=warm", None).await;
    let id = rules["items"][0]["id"].as_str().unwrap();
    let window = json!({ "from_us": plant.from_us, "to_us": plant.from_us + 2_400 * SECOND });
    let (status, model) = plant
        .send(
            Method::POST,
            &format!("/sensors/alerts/{id}/train"),
            Some(window.clone()),
        )
        .await;
    assert_eq!((status, &model["version"]), (201, &json!(1)), "{model}");
    assert!((40..=41).contains(&model["n"].as_i64().unwrap()), "{model}");
    plant
        .as_owner("UPDATE alarm_model SET valid_from = now() - interval '1 hour'")
        .await;
    let trained = "SELECT count(*) FROM audit_event WHERE entity = 'alarm_rule' AND action = 'train'";
    assert_eq!(plant.hub.count(&akron(), trained).await, 1);
    let strange: Vec<(i64, f64)> = (240..280).map(|n| (n * 10, 7.0)).collect();
    plant.put(1, &strange).await;
    plant.judge().await;
    let alarm = plant.alarms().await.remove(0);
    assert!(alarm["score"].as_f64().unwrap() > 8.0, "{alarm}");
    let (_, found) = plant.send(Method::GET, "/sensors/anomalies", None).await;
    assert_eq!(found["items"][0]["id"], alarm["id"]);

    let tag: i64 = plant
        .hub
        .count(&akron(), "SELECT id::int8 FROM tag WHERE name = 'TT-403'")
        .await;
    let ask = json!({ "method": "zscore", "tag_ids": [tag], "from_us": plant.from_us,
        "to_us": plant.from_us + 2_900 * SECOND, "train_from_us": plant.from_us,
        "train_to_us": plant.from_us + 2_400 * SECOND });
    let (status, detected) = plant
        .send(Method::POST, "/sensors/anomalies/detect", Some(ask))
        .await;
    assert_eq!(status, 200, "{detected}");
    assert_eq!(detected["anomalies"].as_array().unwrap().len(), 1);
    let kpis = format!(
        "/sensors/alarms/kpis?from_us={}&to_us={}",
        plant.from_us,
        Clock::system().now_us()
    );
    let (_, measured) = plant.send(Method::GET, &kpis, None).await;
    assert_eq!(
        (&measured["alarms"], &measured["standing"]),
        (&json!(1), &json!(1)),
        "{measured}"
    );
}

#[tokio::test]
async fn a_proposed_delay_is_tried_on_history() {
    let mut rule = warm();
    rule["on_delay_s"] = json!(0);
    rule["off_delay_s"] = json!(0);
    let plant = Plant::start(rule).await;
    let values: Vec<(i64, f64)> = (0..600)
        .map(|n| {
            (
                n * 2,
                if n % 10 == 0 || (400..500).contains(&n) {
                    6.0
                } else {
                    4.0
                },
            )
        })
        .collect();
    plant.put(0, &values).await;
    let (_, rules) = plant.send(Method::GET, "/sensors/alerts?code=warm", None).await;
    let id = rules["items"][0]["id"].as_str().unwrap();
    let ask = json!({ "from_us": plant.from_us, "to_us": plant.from_us + 1_300 * SECOND });
    let (status, made) = plant
        .send(Method::POST, &format!("/sensors/alerts/{id}/simulate"), Some(ask))
        .await;
    assert_eq!(status, 200, "{made}");
    assert_eq!(
        (&made["true_alarms"], &made["remaining"], &made["lost"]),
        (&json!(1), &json!(1), &json!([]))
    );
    assert!(made["alarms"].as_i64().unwrap() > 40, "{made}");
}

#[tokio::test]
async fn a_seasonal_model_is_learnt_by_the_plants_clocks_and_its_anomalies_are_listed_by_sensor() {
    let rule = json!({ "code": "warm", "name": "TT-403 unusual", "tag_name": "TT-403", "kind": "mad", "window_s": 60,
        "score_max": 8.0, "season": "hour_of_week" });
    let plant = Plant::start(rule).await;
    let normal: Vec<(i64, f64)> = (0..240).map(|n| (n * 10, 4.0 + 0.1 * (n % 7) as f64)).collect();
    plant.put(0, &normal).await;
    let (_, rules) = plant.send(Method::GET, "/sensors/alerts?code=warm", None).await;
    let id = rules["items"][0]["id"].as_str().unwrap();
    let window = json!({ "from_us": plant.from_us, "to_us": plant.from_us + 2_400 * SECOND });
    let path = format!("/sensors/alerts/{id}/train");
    let (status, model) = plant.send(Method::POST, &path, Some(window)).await;
    assert_eq!(
        (status, &model["about"]["zone"]),
        (201, &json!("America/New_York")),
        "{model}"
    );
    assert!(model["about"]["tzdata"].is_string(), "{model}");
    plant
        .as_owner("UPDATE alarm_model SET valid_from = now() - interval '1 hour'")
        .await;
    plant
        .put(1, &(240..280).map(|n| (n * 10, 7.0)).collect::<Vec<_>>())
        .await;
    plant.judge().await;
    let alarm = plant.alarms().await.remove(0);
    let tag = plant
        .hub
        .count(&akron(), "SELECT id::int8 FROM tag WHERE name = 'TT-403'")
        .await;
    let other = plant
        .hub
        .count(&akron(), "SELECT id::int8 FROM tag WHERE name = 'L4-RATE'")
        .await;
    let list = async |tag: i64, query: &str| {
        plant
            .send(Method::GET, &format!("/sensors/{tag}/anomalies{query}"), None)
            .await
    };
    assert_eq!(list(tag, "").await.1["items"][0]["id"], alarm["id"]);
    assert_eq!(list(tag, "?code=cold").await.1["items"], json!([]));
    assert_eq!(list(other, "?limit=1").await.1["items"], json!([]));
    assert_eq!(list(2_000_000_000, "").await.0, 404);
}

#[tokio::test]
async fn many_rules_are_judged_together_and_one_that_cannot_be_holds_up_no_other() {
    let plant = Plant::start(warm()).await;
    for number in 0..40 {
        let rule = json!({ "code": format!("r{number}"), "name": "Of many", "tag_name": "TT-403", "kind": "threshold",
            "high": 4.0 + f64::from(number) / 10.0 });
        let made = plant.send(Method::POST, "/sensors/alerts", Some(rule)).await;
        assert_eq!(made.0, 201, "{made:?}");
    }
    plant.judge().await;
    plant
        .as_owner(
            "UPDATE alarm_rule_version SET from_at = now() - interval '1 hour'; DELETE FROM alarm_state; \
             CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'on purpose'; END $$; \
             CREATE TRIGGER refuse BEFORE INSERT ON alarm FOR EACH ROW WHEN (NEW.code = 'r7') EXECUTE FUNCTION refuse()",
        )
        .await;
    // Above the limits of the first twenty, of which one cannot be judged.
    plant.put(0, &[(0, 3.0), (10, 5.95), (20, 3.0)]).await;
    plant.judge().await;
    let of_many = "SELECT count(*) FROM alarm WHERE code LIKE 'r%' AND cleared_at IS NOT NULL";
    assert_eq!(plant.hub.count(&akron(), of_many).await, 19);
    let left = "SELECT count(DISTINCT rule_id) FROM alarm_due";
    assert_eq!(plant.hub.count(&akron(), left).await, 1, "it is tried again");
    plant.as_owner("DROP TRIGGER refuse ON alarm").await;
    plant.judge().await;
    assert_eq!(plant.hub.count(&akron(), of_many).await, 20);
    let raised = "SELECT count(*) FROM alarm_entry WHERE cause = 'raised' AND code LIKE 'r%'";
    assert_eq!(plant.hub.count(&akron(), raised).await, 20);
}
