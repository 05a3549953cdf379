//! Does the API answer as it says of itself? schemathesis asks, which knows nothing of this program but its OpenAPI
//! document: no server error, no status, media type, header or body that is not described, nothing without a token.

use std::{path::Path, process::Stdio};

use cloud_hub::kernel::role::Role;

use crate::{
    rows::{self, fill},
    support::{TestHub, akron},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schemathesis_finds_no_server_error_and_no_undocumented_answer() {
    let is_soak = std::env::var_os("FOODFLOW_SOAK").is_some();
    let hub = TestHub::start().await;
    let mut owner = rows::owner(&hub).await;
    fill(&mut owner, &akron(), "conformmark", 2).await;
    // A long run outlives a token of the usual age.
    let admin = hub.lasting_token(Role::Admin, 6 * 3600).await;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/schemathesis.sh");
    let run = tokio::process::Command::new(script)
        .args(["--examples", if is_soak { "200" } else { "4" }])
        .args([
            "--phases",
            if is_soak {
                "examples,coverage,fuzzing,stateful"
            } else {
                "coverage,fuzzing"
            },
        ])
        .env("FOODFLOW_URL", format!("http://{}", hub.hub.http))
        .env("FOODFLOW_TOKEN", &admin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(
        run.status.success(),
        "{said}\n{}",
        String::from_utf8_lossy(&run.stderr)
    );
}
