//! How does a test or a demo start a fault, and read the ground truth?
//! `POST /scenario/{f1…f20}?seconds=`, `POST /scenario/defect-burst?count=`, `POST /scenario/normal`,
//! `GET /scenario`, `GET /truth` (lines of JSON in plant time), `GET /writes`, and for a load
//! `POST /device/{n}/{normal|silent|refuse|late|exception}?ms=&code=`. Loopback only by default and without a
//! login: it simulates a plant, it guards nothing.

use std::{io, sync::Arc, time::Duration};

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
    fault::Fault,
    load::LoadRegisters,
    modbus::{Exception, Manner},
    scenario::{BURST_MAX, Command},
    state::PlantState,
    truth::{Span, Truth},
    writes::{WriteLog, Written},
};

/// Trays spoiled by a burst that names no count.
const BURST_DEFAULT: u32 = 5;
/// A fault lasts 30 days at most; longer ones are open-ended F4.
const SECONDS_MAX: u32 = 30 * 86_400;
/// Latest reply of a device, milliseconds.
const LATE_MS_MAX: u32 = 60_000;

/// What the plant is going through, all times in UTC microseconds.
#[derive(Debug, Serialize)]
struct Status {
    seed: u64,
    speed: f64,
    /// When plant time was 0.
    epoch_us: i64,
    now_us: i64,
    fault: Option<Fault>,
    faults: Vec<Fault>,
    burst_left: u32,
    journal: Vec<Truth>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Parameters {
    seconds: Option<u32>,
    count: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct MannerParameters {
    ms: Option<u32>,
    code: Option<u32>,
}

/// Why a request is refused.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("no scenario `{0}`: there are f1 to f20, defect-burst and normal")]
    Unknown(String),
    #[error("no manner `{0}`: there are normal, silent, refuse, late and exception")]
    UnknownManner(String),
    #[error("there is no device {0}")]
    NoDevice(u16),
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
            Self::Unknown(_) | Self::UnknownManner(_) | Self::NoDevice(_) => StatusCode::NOT_FOUND,
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
    match name {
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
        _ => {}
    }
    let fault = name.parse().map_err(|()| Refusal::Unknown(name.to_owned()))?;
    refuse("count", parameters.count)?;
    Ok(Command::Start {
        fault,
        seconds: within("seconds", SECONDS_MAX, parameters.seconds)?,
    })
}

fn manner(name: &str, parameters: &MannerParameters) -> Result<Manner, Refusal> {
    let manner = match name {
        "late" => {
            let ms = within("ms", LATE_MS_MAX, parameters.ms)?.unwrap_or(1_200);
            Manner::Late(Duration::from_millis(ms.into()))
        }
        "exception" => {
            let code = within("code", 0x7F, parameters.code)?.unwrap_or(6);
            Manner::Refusal(Exception(code as u8))
        }
        "normal" => Manner::Normal,
        "silent" => Manner::Silent,
        "refuse" => Manner::Refuse,
        other => return Err(Refusal::UnknownManner(other.to_owned())),
    };
    Ok(manner)
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
    let utc = |plant_us: i64| plant.clock.utc_us(plant_us);
    let in_utc = |mut truth: Truth| {
        truth.from_us = utc(truth.from_us);
        truth.to_us = truth.to_us.map(utc);
        truth.suspect = truth.suspect.map(|span| Span {
            from_us: utc(span.from_us),
            to_us: span.to_us.map(utc),
        });
        for expect in &mut truth.expect {
            expect.after_us = utc(expect.after_us);
        }
        // Its times are plant time, for tests that read the truth file.
        truth.script = None;
        truth
    };
    Status {
        seed: plant.seed,
        speed: plant.clock.speed(),
        epoch_us: utc(0),
        now_us: utc(now_us),
        fault: scenario.fault_at(now_us),
        faults: scenario.acting(now_us),
        burst_left: scenario.burst_left(),
        journal: scenario.journal().into_iter().map(in_utc).collect(),
    }
}

async fn read_scenario(State(plant): State<PlantState>) -> Json<Status> {
    Json(status(&plant))
}

async fn read_truth(State(plant): State<PlantState>) -> Response {
    let lines = plant.scenario().truth_lines();
    ([("content-type", "application/x-ndjson")], lines).into_response()
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

async fn read_writes(State(writes): State<Arc<WriteLog>>) -> Json<Vec<Written>> {
    Json(writes.list())
}

async fn behave(
    State(bank): State<Arc<LoadRegisters>>,
    Path((device, name)): Path<(u16, String)>,
    parameters: Result<Query<MannerParameters>, QueryRejection>,
) -> Result<StatusCode, Refusal> {
    let Query(parameters) = parameters?;
    let manner = manner(&name, &parameters)?;
    if !bank.behave(device, manner) {
        return Err(Refusal::NoDevice(device));
    }
    Ok(StatusCode::NO_CONTENT)
}

/// The control of a plant.
pub fn of_plant(plant: PlantState) -> Router {
    let writes = plant.writes.clone();
    Router::new()
        .route("/scenario", get(read_scenario))
        .route("/scenario/{name}", post(start_scenario))
        .route("/truth", get(read_truth))
        .with_state(plant)
        .merge(
            Router::new()
                .route("/writes", get(read_writes))
                .with_state(writes),
        )
}

/// The control of a load.
pub fn of_load(bank: Arc<LoadRegisters>) -> Router {
    let writes = bank.writes.clone();
    Router::new()
        .route("/device/{device}/{manner}", post(behave))
        .with_state(bank)
        .merge(
            Router::new()
                .route("/writes", get(read_writes))
                .with_state(writes),
        )
}

/// Serves a control on `listener` until `stop`.
///
/// # Errors
/// When the listener fails.
pub async fn serve(router: Router, listener: TcpListener, stop: CancellationToken) -> io::Result<()> {
    axum::serve(listener, router)
        .with_graceful_shutdown(stop.cancelled_owned())
        .await
}

#[cfg(test)]
#[path = "control_tests.rs"]
mod tests;
