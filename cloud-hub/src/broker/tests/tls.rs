//! Do the same rules hold behind TLS, and is a certificate that cannot be read named?

use std::process::{Command, Stdio};

use super::{other_clients::mosquitto, *};

/// A self-signed certificate for localhost; `None` where openssl is not installed.
fn certificate(dir: &std::path::Path) -> Option<TlsListener> {
    let (cert_file, key_file) = (dir.join("hub.pem"), dir.join("hub.key"));
    let mut command = Command::new("openssl");
    command.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ]);
    command.args([
        "-subj",
        "/CN=localhost",
        "-addext",
        "subjectAltName=DNS:localhost",
        "-days",
        "2",
    ]);
    command.arg("-keyout").arg(&key_file).arg("-out").arg(&cert_file);
    let made = command.stdin(Stdio::null()).output().ok()?;
    assert!(made.status.success(), "{made:?}");
    let listen = "127.0.0.1:0".parse().unwrap();
    Some(TlsListener {
        listen,
        cert_file,
        key_file,
        devices: None,
    })
}

#[tokio::test]
async fn tls_carries_the_same_rules_and_a_half_open_handshake_blocks_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let Some(tls) = certificate(dir.path()) else {
        return;
    };
    let authority = tls.cert_file.to_str().unwrap().to_owned();
    let limits = Limits {
        connect_timeout: Duration::from_millis(500),
        ..Limits::default()
    };
    let config = BrokerConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        tls: Some(tls),
        limits,
    };
    let mut hub = hub_of(config).await;
    let address = hub.broker.tls_addr.unwrap();
    let mut silent = TcpStream::connect(address).await.unwrap();
    let port = address.port().to_string();
    let common = [
        "-h",
        "localhost",
        "--cafile",
        &authority,
        "-V",
        "5",
        "-q",
        "1",
        "-m",
        "frame",
    ];
    let own = [&common[..], &["-p", &port, "-t", OWN]].concat();
    let Some(output) = mosquitto(&hub, "mosquitto_pub", &own).await else {
        return;
    };
    assert!(output.status.success(), "{output:?}");
    assert_eq!(hub.next().await.1, OWN);
    let foreign = [&common[..], &["-p", &port, "-t", FOREIGN]].concat();
    let output = mosquitto(&hub, "mosquitto_pub", &foreign).await.unwrap();
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("Not authorized"),
        "{output:?}"
    );
    assert!(rest(&mut silent).await.is_empty());
}

#[tokio::test]
async fn a_certificate_that_cannot_be_read_is_named() {
    let nowhere: PathBuf = "/nowhere/hub.pem".into();
    let listen = "127.0.0.1:0".parse().unwrap();
    let tls = TlsListener {
        listen,
        cert_file: nowhere.clone(),
        key_file: nowhere,
        devices: None,
    };
    let config = BrokerConfig {
        listen,
        tls: Some(tls),
        limits: Limits::default(),
    };
    let (uplink, _uplinks) = uplinks(1);
    let refused = start(config, Arc::new(TwoDevices), uplink).await.unwrap_err();
    assert_eq!(refused.to_string(), "cannot use the TLS file /nowhere/hub.pem");
}
