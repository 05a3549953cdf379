//! Alarm rules: what the hub watches, in whose time, and how loudly.

use serde::{Deserialize, Serialize};
use sqlx::FromRow;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::kernel::{permission::Permission, resource::Resource};

/// A rule by which the hub judges a tag.
#[derive(Clone, Debug, Serialize, Deserialize, FromRow, ToSchema)]
pub struct AlarmRule {
    /// UUIDv7, so ids sort by creation time.
    pub id: Uuid,
    /// Counts changes; send it back as `If-Match` to change the record.
    pub version: i32,
    /// Short code, unique in the tenant: the alarm's.
    pub code: String,
    /// Name for people.
    pub name: String,
    /// Name of the tag it judges; one that nobody publishes yet is waited for.
    pub tag_name: String,
    /// The line its alarms belong to.
    pub line_id: Option<Uuid>,
    /// `no_data`, `threshold`, `rate`, `zscore`, `mad`, `cusum`, `ewma` or `isolation_forest`.
    pub kind: String,
    /// Alarming below this, in the tag's unit; of a rate, per minute.
    pub low: Option<f64>,
    /// Alarming above this.
    pub high: Option<f64>,
    /// How far inside the limit a value must be to end the condition.
    pub deadband: f64,
    /// How long the condition must hold, by the time of the readings.
    pub on_delay_s: i32,
    /// How long it must be over.
    pub off_delay_s: i32,
    /// Longest silence, span of a rate, or length of a block whose mean is judged.
    pub window_s: i32,
    /// Largest score that is normal: standard deviations, or 0 to 1 for an isolation forest.
    pub score_max: f64,
    /// `none` or `hour_of_week`.
    pub season: String,
    /// Judged only while the line's rate is above 0.
    pub is_running_only: bool,
    /// Further tags of the asset, for an isolation forest.
    pub tag_names: Vec<String>,
    /// 1 most urgent to 3; 4 is diagnostic.
    pub priority: i16,
    /// Held until reset after it has returned.
    pub is_latching: bool,
    /// An acknowledged alarm that stands so long asks again; 0: never.
    pub realarm_s: i32,
    /// Longest shelving.
    pub shelve_s_max: i32,
    /// What to do.
    pub response: Option<String>,
    /// Whether it judges.
    pub is_enabled: bool,
}

/// What a client sends to create one. What is left out has its default; a rule is switched on unless it says otherwise.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewAlarmRule {
    code: String,
    name: String,
    tag_name: String,
    line_id: Option<Uuid>,
    #[schema(example = "no_data")]
    kind: String,
    low: Option<f64>,
    high: Option<f64>,
    deadband: Option<f64>,
    on_delay_s: Option<i32>,
    off_delay_s: Option<i32>,
    window_s: Option<i32>,
    score_max: Option<f64>,
    #[schema(example = "hour_of_week")]
    season: Option<String>,
    is_running_only: Option<bool>,
    #[schema(example = json!(["TT-102"]))]
    tag_names: Option<Vec<String>>,
    #[schema(example = 2)]
    priority: Option<i16>,
    is_latching: Option<bool>,
    realarm_s: Option<i32>,
    shelve_s_max: Option<i32>,
    response: Option<String>,
    #[serde(default = "switched_on")]
    is_enabled: bool,
}

fn switched_on() -> bool {
    true
}

/// What a client sends to change one; absent fields stay, null clears. The change counts from when it is made:
/// earlier readings are judged by the rule as it was.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AlarmRulePatch {
    name: Option<String>,
    line_id: Option<Uuid>,
    low: Option<f64>,
    high: Option<f64>,
    deadband: Option<f64>,
    on_delay_s: Option<i32>,
    off_delay_s: Option<i32>,
    window_s: Option<i32>,
    score_max: Option<f64>,
    season: Option<String>,
    is_running_only: Option<bool>,
    tag_names: Option<Vec<String>>,
    priority: Option<i16>,
    is_latching: Option<bool>,
    realarm_s: Option<i32>,
    shelve_s_max: Option<i32>,
    response: Option<String>,
    is_enabled: Option<bool>,
}

/// Narrows a list.
#[derive(Debug, Deserialize, Serialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct AlarmRuleFilter {
    code: Option<String>,
    tag_name: Option<String>,
    line_id: Option<Uuid>,
    kind: Option<String>,
    is_enabled: Option<bool>,
    /// Part of the code or the name.
    q: Option<String>,
}

impl Resource for AlarmRule {
    type New = NewAlarmRule;
    type Patch = AlarmRulePatch;
    type Filter = AlarmRuleFilter;
    const NAME: &str = "alarm_rule";
    const PLURAL: &str = "alerts";
    const CONTEXT: &str = "sensors";
    const READ: Permission = Permission::AlarmRead;
    const WRITE: Permission = Permission::AlarmConfigure;
    const SORTABLE: &[&str] = &["code", "name"];
    const SEARCHED: &[&str] = &["code", "name"];

    fn id(&self) -> Uuid {
        self.id
    }
}
