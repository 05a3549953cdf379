//! Alarms of the hub: rules over readings, judged in the time of the readings and not of their arrival; what people do
//! about them, beside the alarms of edges; and how good the alarms are.
//!
//! ```text
//! readings ─ note_alarm_due ─▶ evaluate ─▶ watch (is it true?) ─▶ judge (what state?) ─▶ alarm, alarm_entry, live
//! ```

pub mod act;
pub mod duty;
mod evaluate;
pub mod history;
pub mod judge;
pub mod kpi;
pub mod kpis;
pub mod list;
mod load;
mod marks;
pub mod model;
pub mod models;
mod readings;
pub mod rule;
pub mod season;
pub mod settle;
pub mod simulate;
pub mod state;
pub mod train;
pub mod watch;
mod write;

use utoipa_axum::{router::OpenApiRouter, routes};

use crate::app::App;

/// The context's name in URLs and documentation.
pub const TAG: &str = "sensors";

/// Routes under `/api/v1`, besides those of the rules, which are plain records.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list::list_alarms))
        .routes(routes!(list::list_anomalies))
        .routes(routes!(list::list_sensor_anomalies))
        .routes(routes!(list::read_alarm))
        .routes(routes!(list::read_alarm_journal))
        .routes(routes!(act::act_on_alarm))
        .routes(routes!(act::acknowledge_alarm))
        .routes(routes!(act::reset_alarm))
        .routes(routes!(act::shelve_alarm))
        .routes(routes!(kpis::read_alarm_kpis))
        .routes(routes!(train::train_alarm_rule))
        .routes(routes!(simulate::simulate_alarm_rule))
        .routes(routes!(simulate::detect_anomalies))
}
