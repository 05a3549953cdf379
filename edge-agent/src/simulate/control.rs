//! How does a test or a demo start a fault, and read the ground truth?
//! `POST /scenario/{f1|f2|f4}?seconds=`, `POST /scenario/defect-burst?count=`, `POST /scenario/normal`,
//! `GET /scenario`. Loopback only by default and without a login: it simulates a plant, it guards nothing.

use std::io;

use axum::{
    Json, Router,
    extract::{Path, Query, State, rejection::QueryRejection},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{
    scenario::{BURST_MAX, Command, Fault, Truth},
    state::PlantState,
};

/// Trays spoiled by a burst that names no count.
const BURST_DEFAULT: u32 = 5;
/// A fault lasts a day at most; longer ones are open-ended F4.
const SECONDS_MAX: u32 = 86_400;

/// What the plant is going through, all times in UTC microseconds.
#[derive(Debug, Serialize)]
struct Status {
    seed: u64,
    now_us: i64,
    fault: Option<Fault>,
    burst_left: u32,
    journal: Vec<Truth>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Parameters {
    seconds: Option<u32>,
    count: Option<u32>,
}

/// Why a request is refused.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("no scenario `{0}`: there are f1, f2, f4, defect-burst and normal")]
    Unknown(String),
    #[error("{name} must be 1 to {max}")]
    OutOfRange { name: &'static str, max: u32 },
    #[error("`{0}` does not apply to this scenario")]
    Foreign(&'static str),
    #[error("{0}")]
    Query(#[from] QueryRejection),
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = match &self {
            Self::Unknown(_) => StatusCode::NOT_FOUND,
            Self::OutOfRange { .. } | Self::Foreign(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Query(_) => StatusCode::BAD_REQUEST,
        };
        let problem = serde_json::json!({
            "type": "about:blank",
            "title": status.canonical_reason(),
            "status": status.as_u16(),
            "detail": self.to_string(),
        });
        (
            status,
            [("content-type", "application/problem+json")],
            problem.to_string(),
        )
            .into_response()
    }
}

/// The command a request stands for.
fn command(name: &str, parameters: &Parameters) -> Result<Command, Refusal> {
    let fault = match name {
        "f1" => Fault::F1,
        "f2" => Fault::F2,
        "f4" => Fault::F4,
        "defect-burst" => {
            refuse("seconds", parameters.seconds)?;
            let count = within("count", BURST_MAX, parameters.count)?.unwrap_or(BURST_DEFAULT);
            return Ok(Command::DefectBurst { count });
        }
        "normal" => {
            refuse("seconds", parameters.seconds)?;
            refuse("count", parameters.count)?;
            return Ok(Command::Normal);
        }
        other => return Err(Refusal::Unknown(other.to_owned())),
    };
    refuse("count", parameters.count)?;
    Ok(Command::Start {
        fault,
        seconds: within("seconds", SECONDS_MAX, parameters.seconds)?,
    })
}

fn refuse(name: &'static str, given: Option<u32>) -> Result<(), Refusal> {
    if given.is_some() {
        Err(Refusal::Foreign(name))
    } else {
        Ok(())
    }
}

fn within(name: &'static str, max: u32, given: Option<u32>) -> Result<Option<u32>, Refusal> {
    match given {
        Some(n) if n == 0 || n > max => Err(Refusal::OutOfRange { name, max }),
        given => Ok(given),
    }
}

fn status(plant: &PlantState) -> Status {
    let now_us = plant.clock.plant_us();
    let scenario = plant.scenario();
    let in_utc = |truth: &Truth| Truth {
        from_us: plant.clock.utc_us(truth.from_us),
        to_us: truth.to_us.map(|to_us| plant.clock.utc_us(to_us)),
        ..truth.clone()
    };
    Status {
        seed: plant.seed,
        now_us: plant.clock.utc_us(now_us),
        fault: scenario.fault_at(now_us),
        burst_left: scenario.burst_left(),
        journal: scenario.journal().map(in_utc).collect(),
    }
}

async fn read_scenario(State(plant): State<PlantState>) -> Json<Status> {
    Json(status(&plant))
}

async fn start_scenario(
    State(plant): State<PlantState>,
    Path(name): Path<String>,
    parameters: Result<Query<Parameters>, QueryRejection>,
) -> Result<Json<Status>, Refusal> {
    let Query(parameters) = parameters?;
    let command = command(&name, &parameters)?;
    tracing::info!(?command, "scenario");
    plant.scenario().apply(command, plant.clock.plant_us());
    Ok(Json(status(&plant)))
}

fn router(plant: PlantState) -> Router {
    Router::new()
        .route("/scenario", get(read_scenario))
        .route("/scenario/{name}", post(start_scenario))
        .with_state(plant)
}

/// Serves the control on `listener` until `stop`.
///
/// # Errors
/// When the listener fails.
pub async fn serve(plant: PlantState, listener: TcpListener, stop: CancellationToken) -> io::Result<()> {
    axum::serve(listener, router(plant))
        .with_graceful_shutdown(stop.cancelled_owned())
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn control() -> (PlantState, String, tokio_util::sync::DropGuard) {
        let plant = PlantState::start(5, 1.0);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        tokio::spawn(serve(plant.clone(), listener, stop.clone()));
        (plant, url, stop.drop_guard())
    }

    /// A plain HTTP/1.0 exchange: status code and body.
    async fn ask(url: &str, method: &str, path: &str) -> (u16, serde_json::Value) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let address = url.strip_prefix("http://").unwrap();
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = format!("{method} {path} HTTP/1.0\r\nhost: {address}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let code = answer.split(' ').nth(1).unwrap().parse().unwrap();
        let body = answer.split_once("\r\n\r\n").unwrap().1;
        (code, serde_json::from_str(body).unwrap_or_default())
    }

    #[tokio::test]
    async fn a_fault_is_started_shown_and_ended_over_http() {
        let (plant, url, _stop) = control().await;
        let (code, body) = ask(&url, "POST", "/scenario/f2?seconds=20").await;
        assert_eq!((code, body["fault"].as_str()), (200, Some("f2")));
        assert!(plant.now().register(0).unwrap() < 7_200);
        let entry = &body["journal"][0];
        let length_us = entry["to_us"].as_i64().unwrap() - entry["from_us"].as_i64().unwrap();
        assert_eq!((entry["what"].as_str(), length_us), (Some("f2"), 20_000_000));
        assert!(
            (entry["from_us"].as_i64().unwrap() - chrono::Utc::now().timestamp_micros()).abs() < 60_000_000
        );

        let (code, body) = ask(&url, "POST", "/scenario/normal").await;
        assert_eq!((code, &body["fault"]), (200, &serde_json::Value::Null));
        let (code, body) = ask(&url, "GET", "/scenario").await;
        assert_eq!((code, body["seed"].as_u64()), (200, Some(5)));
        assert!(plant.now().register(0).unwrap() > 7_200);
    }

    #[tokio::test]
    async fn a_burst_takes_a_count() {
        let (plant, url, _stop) = control().await;
        assert_eq!(ask(&url, "POST", "/scenario/defect-burst?count=7").await.0, 200);
        assert_eq!(plant.scenario().burst_left(), 7);
        assert_eq!(
            ask(&url, "POST", "/scenario/defect-burst").await.1["burst_left"],
            5
        );
    }

    #[tokio::test]
    async fn nonsense_is_refused_with_a_reason_and_changes_nothing() {
        let (plant, url, _stop) = control().await;
        for (path, expected) in [
            ("/scenario/f99", 404),
            ("/scenario/f1?seconds=0", 422),
            ("/scenario/f1?seconds=86401", 422),
            ("/scenario/f1?count=2", 422),
            ("/scenario/normal?seconds=2", 422),
            ("/scenario/defect-burst?count=10001", 422),
            ("/scenario/f1?seconds=soon", 400),
            ("/scenario/f1?minutes=1", 400),
        ] {
            let (code, body) = ask(&url, "POST", path).await;
            assert_eq!(
                (code, body["status"].as_u64()),
                (expected, Some(u64::from(expected))),
                "{path}"
            );
        }
        assert_eq!(plant.scenario().journal().count(), 0);
        assert_eq!(ask(&url, "GET", "/scenario/f1").await.0, 405);
    }
}
