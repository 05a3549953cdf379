//! What is an integrator told? Errors on `v1/err/CLIENT`, at most one a second for each client and code, with how many
//! there were; on `v1/echo/CLIENT` how a message was understood. Pure: times are arguments.

use std::collections::HashMap;

use bytes::Bytes;
use chrono::{DateTime, SecondsFormat};
use protocol::{
    Micros,
    integrator::{Code, Dialect, Fact, Refused},
    sparkplug::host::Host,
};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::{read::read, store::State};
use crate::broker::{Device, OpenMessage};

/// Least time between two errors of one code for one client.
const PAUSE_US: Micros = 1_000_000;
/// After so much silence a code counts anew.
const FORGET_US: Micros = 60_000_000;
/// Most clients and codes that are remembered.
const REMEMBERED_MAX: usize = 10_000;
/// Least time between two echoes for one client.
const ECHO_PAUSE_US: Micros = 100_000;
/// Most values that an echo shows.
const SHOWN_MAX: usize = 50;
/// Where every code is explained, in the project's documentation.
const DOCUMENTATION: &str = "docs/ref/integrators.md";

/// Which client of which tenant.
pub(super) type Client = (String, String);

#[derive(Debug)]
struct Counted {
    refused: Refused,
    topic: String,
    count: u64,
    untold: bool,
    first_us: Micros,
    last_us: Micros,
    told_us: Micros,
}

/// Errors by client and code, and when the last echo was.
#[derive(Debug, Default)]
pub(super) struct Told {
    errors: HashMap<(Client, Code), Counted>,
    kept: HashMap<(Client, Code), Micros>,
    echoes: HashMap<Client, Micros>,
}

impl Told {
    /// Notes an error. Gives it as it is to be published, unless one of its kind was told less than a second ago: then
    /// [`Told::due`] gives it later, with the count.
    pub(super) fn error(
        &mut self,
        client: &Client,
        topic: &str,
        refused: &Refused,
        now_us: Micros,
    ) -> Option<Value> {
        if self.errors.len() >= REMEMBERED_MAX {
            self.errors.retain(|_, known| now_us - known.last_us < FORGET_US);
        }
        let key = (client.clone(), refused.code);
        let is_new = !self.errors.contains_key(&key);
        if is_new && self.errors.len() >= REMEMBERED_MAX {
            return None;
        }
        let known = self.errors.entry(key).or_insert_with(|| Counted {
            refused: refused.clone(),
            topic: topic.to_owned(),
            count: 0,
            untold: true,
            first_us: now_us,
            last_us: now_us,
            told_us: Micros::MIN / 2,
        });
        if now_us - known.last_us >= FORGET_US {
            (known.count, known.first_us) = (0, now_us);
        }
        known.refused = refused.clone();
        topic.clone_into(&mut known.topic);
        (known.count, known.last_us, known.untold) = (known.count + 1, now_us, true);
        known.tell(now_us)
    }

    /// Errors that had to wait.
    pub(super) fn due(&mut self, now_us: Micros) -> Vec<(Client, Value)> {
        let due = self.errors.iter_mut().filter_map(|((client, _), known)| {
            let told = known.untold.then(|| known.tell(now_us))??;
            Some((client.clone(), told))
        });
        due.collect()
    }

    /// Whether a refused message is kept as a dead letter: one a second for each client and code. The others are counted.
    pub(super) fn may_keep(&mut self, client: &Client, code: Code, now_us: Micros) -> bool {
        if self.kept.len() >= REMEMBERED_MAX {
            self.kept.retain(|_, at| now_us - *at < PAUSE_US);
        }
        let last = self.kept.entry((client.clone(), code)).or_insert(Micros::MIN / 2);
        let may = now_us - *last >= PAUSE_US;
        if may {
            *last = now_us;
        }
        may
    }

    /// Whether an echo may be published now.
    pub(super) fn may_echo(&mut self, client: &Client, now_us: Micros) -> bool {
        if self.echoes.len() >= REMEMBERED_MAX {
            self.echoes.retain(|_, at| now_us - *at < FORGET_US);
        }
        let last = self.echoes.entry(client.clone()).or_insert(Micros::MIN / 2);
        let may = now_us - *last >= ECHO_PAUSE_US;
        if may {
            *last = now_us;
        }
        may
    }
}

impl Counted {
    fn tell(&mut self, now_us: Micros) -> Option<Value> {
        if now_us - self.told_us < PAUSE_US {
            return None;
        }
        (self.told_us, self.untold) = (now_us, false);
        let mut said = error(&self.topic, &self.refused);
        said["count"] = json!(self.count);
        said["first"] = json!(shown(self.first_us));
        said["last"] = json!(shown(self.last_us));
        Some(said)
    }
}

/// An error as JSON.
pub(super) fn error(topic: &str, refused: &Refused) -> Value {
    json!({
        "code": refused.code,
        "number": refused.code.number(),
        "topic": topic,
        "offset": refused.offset,
        "hint": refused.hint,
        "sample": refused.sample,
        "doc": format!("{DOCUMENTATION}#{}", refused.code.number().to_lowercase()),
    })
}

/// The MQTT 5 reason code that goes with a refusal.
pub(super) fn reason_code(code: Code) -> u8 {
    match code {
        Code::NotYourTopic => 0x87,
        Code::TooLarge | Code::TooManyTags | Code::TooFast => 0x97,
        _ => 0x99,
    }
}

/// A time for people.
fn shown(time_us: Micros) -> String {
    DateTime::from_timestamp_micros(time_us).map_or_else(
        || time_us.to_string(),
        |time| time.to_rfc3339_opts(SecondsFormat::Micros, true),
    )
}

/// How a message was understood, and what became of each of its values.
pub(super) fn echo(topic: &str, dialect: &str, facts: &[(&Fact, State)], refused: &[Refused]) -> Value {
    let readings = facts.iter().take(SHOWN_MAX).map(|(fact, state)| {
        let mut said = reading(fact);
        said["state"] = json!(state.name());
        said["tag_id"] = json!(state.tag_id());
        said
    });
    json!({
        "topic": topic,
        "dialect": dialect,
        "readings": readings.collect::<Vec<_>>(),
        "more": facts.len().saturating_sub(SHOWN_MAX),
        "refused": refused.iter().map(|refused| error(topic, refused)).collect::<Vec<_>>(),
    })
}

fn reading(fact: &Fact) -> Value {
    json!({
        "device": fact.device, "name": fact.name, "value": fact.value, "text": fact.text, "time_us": fact.time_us,
        "time": shown(fact.time_us), "time_form": fact.time_form, "time_note": fact.time_note,
        "quality": fact.quality.name(), "rev": fact.rev,
    })
}

/// A message to be explained.
#[derive(Clone, Debug)]
pub struct Question {
    /// The client that would send it.
    pub client: Device,
    /// Its topic.
    pub topic: String,
    /// Its bytes.
    pub payload: Bytes,
    /// When it would come, microseconds since 1970.
    pub received_us: Micros,
}

/// What the hub would make of a message, and whether it would take any of it. A Sparkplug message is heard by a host that
/// has heard nothing before.
pub fn explain(question: Question, dialect: Option<Dialect>) -> (Value, bool) {
    let Question {
        client,
        topic,
        payload,
        received_us,
    } = question;
    let message = OpenMessage {
        device: client,
        topic,
        payload,
        is_retained: false,
        settled: oneshot::channel().0,
    };
    let said = read(message, dialect, &mut Host::default(), received_us);
    let explained = json!({
        "topic": said.topic,
        "dialect": said.dialect,
        "readings": said.facts.iter().map(reading).collect::<Vec<_>>(),
        "devices": said.presence.iter().map(|(device, is_online)| json!({ "device": device, "is_online": is_online })).collect::<Vec<_>>(),
        "announced": said.announced.iter().map(|(device, name, discovery)| json!({ "device": device, "name": name, "as": discovery })).collect::<Vec<_>>(),
        "alarms": said.alarms.iter().map(|(device, name, text)| json!({ "device": device, "name": name, "text": text })).collect::<Vec<_>>(),
        "refused": said.refused.iter().map(|refused| error(&said.topic, refused)).collect::<Vec<_>>(),
    });
    (explained, !said.is_refused_whole())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client() -> Client {
        ("akron".to_owned(), "press-7".to_owned())
    }

    #[test]
    fn t29_errors_are_told_at_once_then_once_a_second_with_their_count() {
        let mut told = Told::default();
        let refused = Refused::new(Code::BadJson, "object keys must be quoted", "{t:1}");
        let first = told.error(&client(), "v1/a", &refused, 10_000_000).unwrap();
        assert_eq!(
            (&first["code"], &first["number"], &first["count"]),
            (&json!("BAD_JSON"), &json!("E101"), &json!(1))
        );
        for ms in 1..=11 {
            assert_eq!(
                told.error(&client(), "v1/b", &refused, 10_000_000 + ms * 1_000),
                None
            );
        }
        assert!(told.due(10_500_000).is_empty());
        let due = told.due(11_000_000);
        assert_eq!(
            (due.len(), &due[0].1["count"], &due[0].1["topic"]),
            (1, &json!(12), &json!("v1/b"))
        );
        assert_eq!(due[0].1["first"], "1970-01-01T00:00:10.000000Z");
        assert!(told.due(20_000_000).is_empty(), "told once");
        let other = Refused::new(Code::BadTime, "x", "");
        assert!(
            told.error(&client(), "v1/a", &other, 11_000_001).is_some(),
            "another code has its own second"
        );
        let again = told.error(&client(), "v1/a", &refused, 99_000_000).unwrap();
        assert_eq!(again["count"], 1, "after a minute it counts anew");
    }

    #[test]
    fn a_flood_of_clients_takes_no_more_memory_than_is_allowed() {
        let mut told = Told::default();
        let refused = Refused::new(Code::BadJson, "x", "");
        for number in 0..REMEMBERED_MAX + 100 {
            told.error(&("akron".to_owned(), format!("c{number}")), "t", &refused, 5);
            told.may_echo(&("akron".to_owned(), format!("c{number}")), 5);
        }
        assert!(told.errors.len() <= REMEMBERED_MAX);
    }
}
