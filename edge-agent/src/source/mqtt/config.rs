//! What does `[[mqtt]]` say? One local broker and the values to take from its messages.

use std::{path::PathBuf, time::Duration};

use protocol::{integrator::Dialect, reading::Alias};

use crate::config::{At, Names, Section, Tags, check_address};

/// One broker on the plant's floor.
#[derive(Clone, PartialEq)]
pub struct Broker {
    /// Name, unique among sources.
    pub name: String,
    /// `host:port`.
    pub address: String,
    /// Client id at the broker.
    pub client_id: String,
    /// User, when the broker asks for one.
    pub user: Option<String>,
    /// File that holds the password.
    pub password_file: Option<PathBuf>,
    /// Certificate authority for TLS; plain TCP without one.
    pub ca_file: Option<PathBuf>,
    /// Where the devices' `online` and `offline` are published.
    pub status_topic: Option<String>,
    /// Where refused messages are reported.
    pub error_topic: String,
    /// A value whose own time is longer ago than this comes late: it is judged beside what came in time.
    pub late_after: Duration,
    /// What is taken.
    pub tags: Vec<TagPlan>,
}

impl std::fmt::Debug for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Broker")
            .field("name", &self.name)
            .field("address", &self.address)
            .field("tags", &self.tags.len())
            .finish_non_exhaustive()
    }
}

/// One value of the messages on a topic.
#[derive(Clone, Debug, PartialEq)]
pub struct TagPlan {
    /// Its alias.
    pub alias: Alias,
    /// Topic filter.
    pub topic: String,
    /// How messages there are written; told by topic and shape when absent.
    pub dialect: Option<Dialect>,
    /// Only values of this device.
    pub device: Option<String>,
    /// Name of the value in the message; the only one there is when absent.
    pub key: Option<String>,
    /// How often a reading is due; zero when it comes on change only.
    pub period: Duration,
}

const HOUR: Duration = Duration::from_hours(1);

/// Reads one `[[mqtt]]`.
pub fn read_broker(section: &Section<'_>, tags: &mut Tags<'_>, names: &mut Names) -> Option<Broker> {
    let name = section.required_text("name");
    if let Some(name) = &name {
        names.claim(section, "source", name);
    }
    let address = section
        .required_text("address")
        .map(|at| check_address(section, at, "mqtt.address"));
    let client_id = section.text("client_id").map(|at| at.value);
    let user = section.text("user");
    let password_file = section.text("password_file").map(|at| PathBuf::from(at.value));
    let ca_file = section.text("ca_file").map(|at| PathBuf::from(at.value));
    if let (None, Some(_)) = (&user, &password_file) {
        section.fault("`mqtt.password_file` without `mqtt.user`: a password belongs to a user");
    }
    let status_topic = section.text("status_topic").and_then(|at| filter(section, at));
    let error_topic = section.text("error_topic").map(|at| at.value);
    let late_after = section
        .duration("late_after", Duration::from_secs(1)..=HOUR)
        .unwrap_or(Duration::from_mins(1));
    let mut list = Vec::new();
    for tag in section.tables("tag") {
        list.extend(read_tag(&tag, tags));
        tag.finish();
    }
    if !section.has("tag") {
        section.fault("a broker needs at least one `[[mqtt.tag]]`");
    }
    let name = name?.value;
    let client_id = client_id.unwrap_or_else(|| format!("foodflow-{name}"));
    Some(Broker {
        address: address?,
        error_topic: error_topic.unwrap_or_else(|| format!("foodflow/v1/err/{client_id}")),
        client_id,
        user: user.map(|at| at.value),
        password_file,
        ca_file,
        status_topic,
        late_after,
        tags: list,
        name,
    })
}

fn read_tag(section: &Section<'_>, tags: &mut Tags<'_>) -> Option<TagPlan> {
    let period = section
        .duration("period", Duration::ZERO..=HOUR * 24)
        .unwrap_or(Duration::ZERO);
    let alias = tags.read(section, period);
    let topic = section.required_text("topic").and_then(|at| filter(section, at));
    let dialect = section.choice("dialect", &Dialect::ALL);
    let device = section.text("device").map(|at| at.value);
    let key = section.text("key").map(|at| at.value);
    Some(TagPlan {
        alias: alias?,
        topic: topic?,
        dialect,
        device,
        key,
        period,
    })
}

fn filter(section: &Section<'_>, at: At<String>) -> Option<String> {
    if rumqttc::valid_filter(&at.value) && at.value.len() <= 1_024 {
        return Some(at.value);
    }
    section.fault_at(
        &at.span,
        format!(
            "`{}` is no topic filter: `+` stands for one whole level, `#` for all that follow, at the end only",
            at.value
        ),
    );
    None
}
