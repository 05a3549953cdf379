//! Is the hub a Sparkplug host to the edge nodes of each tenant? Its state waits for them, births name what data mean,
//! a gap is answered with a request for a birth, a death makes tags stale; and tenants do not hear each other.

use std::time::Duration;

use cloud_hub::kernel::{clock::Clock, role::Role};
use protocol::{
    Quality, Reading,
    reading::Alias,
    sparkplug::{
        HostState, Outgoing,
        edge_node::{EdgeNode, MetricPlan, NodeCommand},
    },
};
use reqwest::Method;
use rumqttc::v5::mqttbytes::v5::SubscribeReasonCode;

use crate::{
    client::Caller,
    device::{Device, Heard},
    support::{TestHub, akron},
};

const STATE: &str = "spBv1.0/STATE/foodflow";

fn node() -> EdgeNode {
    let plan = |alias, name: &str| MetricPlan {
        alias: Alias(alias),
        name: name.to_owned(),
        unit: "degC".to_owned(),
    };
    let devices = [("htst".to_owned(), vec![plan(0, "TT-701"), plan(1, "TT-702")])];
    EdgeNode::new("akron", "n1", devices).unwrap()
}

async fn say(device: &mut Device, message: &Outgoing) {
    let (code, reason) = device.send(&message.topic, message.payload.clone()).await;
    assert_eq!(code, 0, "{reason}");
}

async fn payload_on(device: &mut Device, topic: &str) -> Vec<u8> {
    device
        .wait(|heard| match heard {
            Heard::Message(publish) if publish.topic == topic.as_bytes() => Some(publish.payload.to_vec()),
            _ => None,
        })
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t30_an_edge_node_is_born_sends_by_alias_is_asked_again_after_a_gap_and_dies_stale() {
    let hub = TestHub::start().await;
    let supervisor = Caller::with_role(&hub, Role::Supervisor).await;
    let mut device = Device::connect(&hub, "line-pc").await;
    let mut node = node();
    let now_us = Clock::system().now_us();
    for filter in node.subscriptions().iter().map(String::as_str).chain([STATE]) {
        assert!(
            matches!(
                device.subscribe(filter).await.as_slice(),
                [SubscribeReasonCode::Success(_)]
            ),
            "{filter}"
        );
    }
    let state: HostState = serde_json::from_slice(&payload_on(&mut device, STATE).await).unwrap();
    assert!(
        node.host_said(state),
        "the host's state was retained for who comes later"
    );

    let will = node.connect(now_us);
    for birth in node.birth(|_| true, now_us) {
        say(&mut device, &birth).await;
    }
    let waiting = supervisor.items("/integrator/pending-tags").await;
    assert_eq!(waiting.len(), 2, "{waiting:?}");
    for tag in &waiting {
        assert_eq!(tag["device"], "akron/n1/htst");
        let path = format!("/integrator/pending-tags/{}/adopt", tag["id"].as_str().unwrap());
        supervisor.send(Method::POST, &path, None).await.ok();
    }
    let reading = |alias, seconds: i64, value| {
        Reading::new(Alias(alias), now_us + seconds * 1_000_000, value, Quality::GOOD)
    };
    for data in node.data(&[reading(0, 1, 72.5), reading(1, 1, 4.5)], false, now_us) {
        say(&mut device, &data).await;
    }
    let last = |name: &str| {
        let (caller, path) = (
            supervisor.clone(),
            format!("/plant-ops/tags?name=akron/n1/htst/{name}"),
        );
        async move { caller.items(&path).await.remove(0)["last"].clone() }
    };
    assert_eq!(last("TT-701").await["value"], 72.5);
    assert_eq!(last("TT-702").await["value"], 4.5);

    // One message is lost on its way: what follows waits, and then the node is asked for its birth.
    drop(node.data(&[reading(0, 2, 73.0)], false, now_us));
    for data in node.data(&[reading(0, 3, 74.0)], false, now_us) {
        say(&mut device, &data).await;
    }
    let asked = payload_on(&mut device, "spBv1.0/akron/NCMD/n1").await;
    assert_eq!(
        node.command("spBv1.0/akron/NCMD/n1", &asked),
        Ok(NodeCommand::Rebirth)
    );
    assert_eq!(device.told("err").await["code"], "SEQUENCE_GAP");
    assert_eq!(
        last("TT-701").await["value"],
        72.5,
        "an alias behind a gap is believed by nobody"
    );
    for birth in node.birth(|_| true, now_us + 5_000_000) {
        say(&mut device, &birth).await;
    }
    assert_eq!(
        last("TT-701").await["value"],
        74.0,
        "the birth holds the newest value"
    );

    let mut old = self::node();
    let earlier = old.connect(now_us);
    say(&mut device, &earlier).await;
    drop(old.connect(now_us));
    let wrong = old.connect(now_us);
    say(&mut device, &wrong).await;
    say(&mut device, &will).await;
    let stale = last("TT-701").await;
    assert_eq!(
        (stale["value"].as_f64(), stale["quality"].as_u64()),
        (None, Some(u64::from(Quality::BAD_NOT_CONNECTED.code())))
    );
    let gone = hub
        .count(
            &akron(),
            "SELECT count(*) FROM integrator_device WHERE name = 'akron/n1/htst' AND NOT is_online",
        )
        .await;
    assert_eq!(gone, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t30_a_connection_that_is_lost_without_a_death_makes_its_nodes_stale() {
    let hub = TestHub::start().await;
    let login = crate::device::credentials(&hub, "line-pc").await;
    let mut device = Device::open(&hub, "line-pc", login, |_| ());
    let mut node = node();
    let now_us = Clock::system().now_us();
    drop(node.connect(now_us));
    for birth in node.birth(|_| true, now_us) {
        say(&mut device, &birth).await;
    }
    drop(device);
    for _ in 0..200 {
        let gone = hub
            .count(
                &akron(),
                "SELECT count(*) FROM integrator_device WHERE name LIKE 'akron/n1%' AND NOT is_online",
            )
            .await;
        if gone == 2 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the node is still said to be there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_clients_births_say_nothing_of_ones_own_nodes_and_nobody_speaks_for_the_host() {
    let hub = TestHub::start().await;
    let supervisor = Caller::with_role(&hub, Role::Supervisor).await;
    let (mut device, mut forger) = (
        Device::connect(&hub, "line-pc").await,
        Device::connect(&hub, "forger").await,
    );
    let now_us = Clock::system().now_us();
    let (mut node, mut forged) = (node(), node());
    drop((node.connect(now_us), forged.connect(now_us)));
    for birth in node.birth(|_| true, now_us) {
        say(&mut device, &birth).await;
    }
    for birth in forged.birth(|_| true, now_us) {
        say(&mut forger, &birth).await;
    }
    let waiting = supervisor.items("/integrator/pending-tags").await;
    let of = |client: &str| waiting.iter().filter(|it| it["client"] == client).count();
    assert_eq!(
        (of("line-pc"), of("forger")),
        (2, 2),
        "each client's own, never merged"
    );
    let lie = b"{\"online\":false,\"timestamp\":9999999999999}".to_vec();
    let (code, reason) = forger.send(STATE, lie).await;
    assert_eq!(code, 0x99, "{reason}");
    let (code, _) = forger.send("spBv1.0/akron/NCMD/n1", Vec::new()).await;
    assert_eq!(code, 0x87, "commands are the host's");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t30_one_client_over_two_connections_is_heard_in_the_order_of_its_numbers() {
    let hub = TestHub::start().await;
    let supervisor = Caller::with_role(&hub, Role::Supervisor).await;
    let login = crate::device::credentials(&hub, "line-pc").await;
    let mut one = Device::open(&hub, "line-pc", login.clone(), |_| ());
    let mut other = Device::open(&hub, "line-pc", login, |options| {
        options.set_client_id("line-pc-other".to_owned());
    });
    let mut node = node();
    let now_us = Clock::system().now_us();
    drop(node.connect(now_us));
    for (at, birth) in node.birth(|_| true, now_us).iter().enumerate() {
        say(if at == 0 { &mut one } else { &mut other }, birth).await;
    }
    for tag in supervisor.items("/integrator/pending-tags").await {
        let path = format!("/integrator/pending-tags/{}/adopt", tag["id"].as_str().unwrap());
        supervisor.send(Method::POST, &path, None).await.ok();
    }
    let mut data = (1..=3i64).flat_map(|number| {
        let reading = Reading::new(Alias(0), now_us + number * 1_000, number as f64, Quality::GOOD);
        node.data(&[reading], false, now_us)
    });
    let (first, second, third) = (data.next().unwrap(), data.next().unwrap(), data.next().unwrap());
    say(&mut other, &third).await;
    say(&mut one, &second).await;
    say(&mut other, &first).await;
    let stored = "SELECT count(*) FROM reading JOIN integrator_tag i USING (tag_id) WHERE i.device = 'akron/n1/htst' AND value IN (1, 2, 3)";
    assert_eq!(hub.count(&akron(), stored).await, 3);
    let tags = supervisor
        .items("/plant-ops/tags?name=akron/n1/htst/TT-701")
        .await;
    assert_eq!(tags[0]["last"]["value"], 3.0);
    let online = "SELECT count(*) FROM integrator_device WHERE name LIKE 'akron/n1%' AND is_online";
    drop(other);
    one.send("v1/plant/l1/oven/t", "4.5").await;
    assert_eq!(
        hub.count(&akron(), online).await,
        2,
        "one connection is left over which it may speak"
    );
}
