//! PostgreSQL is killed while a device sends: what was acknowledged is there, once, and what was not is sent again.

use cloud_hub::kernel::{clock::Clock, role::Role};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use reqwest::Method;

use crate::{
    client::Caller,
    device::Device,
    support::{TestDatabase, TestHub, akron, start_cluster},
};

const MESSAGES: i64 = 90;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killing_postgres_while_a_device_sends_loses_and_doubles_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = start_cluster(dir.path()).await;
    let hub = TestHub::start_on(TestDatabase::create_on(&cluster).await).await;
    let supervisor = Caller::with_role(&hub, Role::Supervisor).await;
    let mut device = Device::connect(&hub, "press-7").await;
    let from_us = Clock::system().now_us() - 3_600_000_000;
    let said = |second: i64| format!("{{\"value\":{second},\"ts\":{}}}", from_us + second * 1_000_000);
    device.send("v1/p/l/oven/t", said(0)).await;
    let waiting = supervisor.items("/integrator/pending-tags").await.remove(0);
    let adopt = format!(
        "/integrator/pending-tags/{}/adopt",
        waiting["id"].as_str().unwrap()
    );
    supervisor.send(Method::POST, &adopt, None).await.ok();
    for second in 1..MESSAGES {
        if second % 30 == 15 {
            let pid = cluster.pid().expect("it runs between kills");
            kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        }
        // Every third comes twice, as a client sends it that did not hear its PUBACK.
        device.publish("v1/p/l/oven/t", said(second)).await;
        if second % 3 == 0 {
            device.publish("v1/p/l/oven/t", said(second)).await;
            assert_eq!(device.acknowledged().await.0, 0);
        }
        assert_eq!(device.acknowledged().await.0, 0);
    }
    let (stored, different) = (
        hub.count(
            &akron(),
            "SELECT count(*) FROM reading r JOIN integrator_tag i ON i.tag_id = r.tag_id",
        )
        .await,
        hub.count(
            &akron(),
            "SELECT count(DISTINCT r.time) FROM reading r JOIN integrator_tag i ON i.tag_id = r.tag_id",
        )
        .await,
    );
    assert_eq!((stored, different), (MESSAGES, MESSAGES));
    hub.hub.stop().await;
    cluster.stop().await;
}
