//! Do the same rules hold on a broker that is not ours? A real Mosquitto with the access control file that the hub
//! writes, its clients known by the certificates that the hub signed; and the answers that EMQX and mosquitto-go-auth get.

use std::{path::Path, process::Command};

use cloud_hub::{integrator::export, kernel::clock::Clock, tenant::enrolment};
use serde_json::{Value, json};

use crate::{
    client::http_client,
    device::credentials,
    mosquitto::{Mosquitto, server_certificate},
    support::{TestHub, akron},
};

const SECRET: &str = "a long random word 42";

async fn ask(hub: &TestHub, path: &str, secret: Option<&str>, body: &Value) -> (u16, Value) {
    let mut request = http_client().post(hub.url(path)).json(body);
    if let Some(secret) = secret {
        request = request.bearer_auth(secret);
    }
    let answer = request.send().await.unwrap();
    (
        answer.status().as_u16(),
        answer.json().await.unwrap_or(Value::Null),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn emqx_and_mosquitto_go_auth_are_told_who_may_do_what_and_nobody_else_may_ask() {
    let secrets = tempfile::tempdir().unwrap();
    let file = secrets.path().join("rules.secret");
    std::fs::write(&file, format!("{SECRET}\n")).unwrap();
    let hub = TestHub::start_with(|config| config.mqtt.rules_secret_file = Some(file)).await;
    let (user, password) = credentials(&hub, "press-7").await;
    let login = |password: &str| json!({ "username": user, "password": password, "clientid": "c" });
    let (status, said) = ask(&hub, "/mqtt/auth", Some(SECRET), &login(&password)).await;
    assert_eq!(
        (status, &said["result"], &said["ok"], &said["is_superuser"]),
        (200, &json!("allow"), &json!(true), &json!(false))
    );
    let (status, said) = ask(&hub, "/mqtt/auth", Some(SECRET), &login("wrong")).await;
    assert_eq!(
        (status, &said["result"], &said["ok"]),
        (200, &json!("deny"), &json!(false))
    );
    let ours = json!({ "username": "foodflow-hub", "password": SECRET });
    assert_eq!(
        ask(&hub, "/mqtt/auth", Some(SECRET), &ours).await.1["is_superuser"],
        true
    );
    for secret in [None, Some("guess"), Some("")] {
        assert_eq!(ask(&hub, "/mqtt/auth", secret, &login(&password)).await.0, 401);
        assert_eq!(
            ask(
                &hub,
                "/mqtt/acl",
                secret,
                &json!({ "username": user, "topic": "x" })
            )
            .await
            .0,
            401
        );
    }
    for (deed, result) in [
        (
            json!({ "username": user, "topic": "ff/v1/akron/press-7/up/live", "action": "publish" }),
            "allow",
        ),
        (
            json!({ "username": user, "topic": "akron/v1/p/l/oven/t", "acc": 2 }),
            "allow",
        ),
        (
            json!({ "username": user, "topic": "akron/v1/err/press-7", "acc": 4 }),
            "allow",
        ),
        (
            json!({ "username": user, "topic": "ff/v1/cuyahoga/press-7/up/live", "action": "publish" }),
            "deny",
        ),
        (
            json!({ "username": user, "topic": "#", "action": "subscribe" }),
            "deny",
        ),
        (
            json!({ "username": user, "topic": "akron/v1/err/press-8", "acc": 1 }),
            "deny",
        ),
        (
            json!({ "username": "foodflow-hub", "topic": "ff/v1/+/+/up/+", "action": "subscribe" }),
            "allow",
        ),
    ] {
        assert_eq!(
            ask(&hub, "/mqtt/acl", Some(SECRET), &deed).await.1["result"],
            result,
            "{deed}"
        );
    }
    let form = http_client()
        .post(hub.url("/mqtt/acl"))
        .bearer_auth(SECRET)
        .header("content-type", "application/x-www-form-urlencoded")
        .body("username=akron%2Fpress-7&topic=ff%2Fv1%2Fakron%2Fpress-7%2Fdict&acc=2&clientid=c")
        .send()
        .await
        .unwrap();
    assert_eq!(
        form.json::<Value>().await.unwrap()["ok"],
        true,
        "mosquitto-go-auth may send a form"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_secret_no_broker_may_ask() {
    let hub = TestHub::start().await;
    assert_eq!(ask(&hub, "/mqtt/auth", Some(""), &json!({})).await.0, 404);
    assert_eq!(
        ask(&hub, "/mqtt/acl", Some("x"), &json!({ "topic": "x" }))
            .await
            .0,
        404
    );
}

/// What the rules are for: clients by their certificates.
fn with_rules(dir: &Path) -> String {
    let at = |name: &str| dir.join(name).display().to_string();
    format!(
        "allow_anonymous false\ncafile {}\ncertfile {}\nkeyfile {}\nrequire_certificate true\n\
         use_identity_as_username true\nacl_file {}\n",
        at("device-ca.pem"),
        at("server.pem"),
        at("server.key"),
        at("acl")
    )
}

impl Mosquitto {
    /// What mosquitto_pub says, or what it heard first.
    fn publish(&self, dir: &Path, device: &str, topic: &str) -> String {
        let at = |name: &str| dir.join(name).display().to_string();
        let output = Command::new("mosquitto_pub")
            .args([
                "-V",
                "5",
                "-q",
                "1",
                "-d",
                "-h",
                "localhost",
                "-p",
                &self.port.to_string(),
                "-t",
                topic,
                "-m",
                "x",
            ])
            .args([
                "--cafile",
                &at("server-ca.pem"),
                "--cert",
                &at(&format!("{device}.pem")),
                "--key",
                &at(&format!("{device}.key")),
            ])
            .output()
            .expect("mosquitto_pub is installed: scripts/setup.sh test");
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    }
}

/// Enrols a device with a key of its own and writes both files.
async fn certified(hub: &TestHub, dir: &Path, name: &str) {
    let key = rcgen::KeyPair::generate().unwrap();
    let request = rcgen::CertificateParams::default()
        .serialize_request(&key)
        .unwrap()
        .pem()
        .unwrap();
    let now = Clock::system().now();
    let code = enrolment::create_code(&hub.db, &akron(), name, now)
        .await
        .unwrap();
    let authority = &hub.hub.app.device_authority;
    let identity = enrolment::redeem_with(&hub.db, &code, now, Some((authority, &request)))
        .await
        .unwrap();
    std::fs::write(
        dir.join(format!("{name}.pem")),
        identity.certificate.unwrap().chain_pem,
    )
    .unwrap();
    std::fs::write(dir.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    std::fs::write(dir.join("device-ca.pem"), authority.certificate_pem()).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_mosquitto_keeps_the_rules_that_the_hub_wrote() {
    let (hub, dir) = (TestHub::start().await, tempfile::tempdir().unwrap());
    let dir = dir.path();
    certified(&hub, dir, "press-7").await;
    certified(&hub, dir, "press-8").await;
    server_certificate(dir);
    std::fs::write(
        dir.join("acl"),
        export::mosquitto_acl(&hub.db, "foodflow-hub").await.unwrap(),
    )
    .unwrap();
    let broker = Mosquitto::start(dir, &with_rules(dir)).await;
    for own in [
        "ff/v1/akron/press-7/up/live",
        "ff/v1/akron/press-7/status",
        "akron/v1/p/l/oven/t",
    ] {
        let said = broker.publish(dir, "press-7", own);
        assert!(said.contains("RC:0") || said.contains("RC:16"), "{own}: {said}");
    }
    for foreign in [
        "ff/v1/akron/press-8/up/live",
        "ff/v1/akron/press-7/ack",
        "cuyahoga/v1/p/l/oven/t",
        "v1/p/l/oven/t",
    ] {
        let said = broker.publish(dir, "press-7", foreign);
        assert!(
            said.contains("135") || said.to_lowercase().contains("not authorized"),
            "{foreign}: {said}"
        );
    }
}
