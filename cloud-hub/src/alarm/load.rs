//! What does judging a rule depend on? Its versions, its tags, its models and what people did, out of the database.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use protocol::{
    Micros,
    alarm::{
        AlarmAction, AlarmVerb,
        machine::{AlarmBand, AlarmName, AlarmRule as Behaviour},
    },
};
use sqlx::FromRow;
use uuid::Uuid;

use super::{
    judge::{Deed, Timeline, Version, behaviour},
    model::Model,
    rule::AlarmRule,
    watch::{Kind, Spec},
};
use crate::kernel::{
    clock::time_from_us,
    tenancy::{TenancyError, TenantTx},
};

const SECOND_US: Micros = 1_000_000;
/// The edge of the hub's own alarms in derived identities and records.
const HUB: &str = "hub";

/// A rule with all that judging it depends on.
#[derive(Clone, Debug)]
pub(super) struct Loaded {
    /// As it is now; as it last was when it is deleted.
    pub(super) rule: AlarmRule,
    /// Its versions and models.
    pub(super) timeline: Timeline,
    /// The line its alarms belong to.
    pub(super) line_id: Option<Uuid>,
    /// Every tag that any version listens to.
    pub(super) tags: Vec<i32>,
}

impl Loaded {
    /// What its alarm is called.
    pub(super) fn name(&self) -> AlarmName {
        AlarmName {
            edge: HUB.to_owned(),
            code: self.rule.code.clone(),
            subject: self.rule.tag_name.clone(),
            line: None,
        }
    }
}

/// A version that nobody noted yet is in force from now on; so is the end of a rule that was deleted.
const NOTE_VERSION: &str = "
INSERT INTO alarm_rule_version (rule_id, version, from_at, rule)
SELECT r.id, r.version, $2, to_jsonb(r) FROM alarm_rule r WHERE r.id = $1
UNION ALL
SELECT $1, v.version + 1, $2, NULL FROM (SELECT x.version, x.rule FROM alarm_rule_version x WHERE x.rule_id = $1
    ORDER BY x.version DESC LIMIT 1) v
WHERE v.rule IS NOT NULL AND NOT EXISTS (SELECT FROM alarm_rule r WHERE r.id = $1)
ON CONFLICT DO NOTHING";

type VersionRow = (i32, DateTime<Utc>, Option<serde_json::Value>);

/// Loads a rule; none when nothing is known of it.
pub(super) async fn load(
    tx: &mut TenantTx,
    rule_id: Uuid,
    now_us: Micros,
) -> Result<Option<Loaded>, TenancyError> {
    sqlx::query(NOTE_VERSION)
        .bind(rule_id)
        .bind(time_from_us(now_us))
        .execute(tx.conn())
        .await?;
    let rows: Vec<VersionRow> = sqlx::query_as(
        "SELECT version, from_at, rule FROM alarm_rule_version WHERE rule_id = $1 ORDER BY version",
    )
    .bind(rule_id)
    .fetch_all(tx.conn())
    .await?;
    let mut rules: Vec<(i32, Micros, Option<AlarmRule>)> = Vec::new();
    for (number, from, rule) in rows {
        let rule: Option<AlarmRule> = rule.and_then(|rule| serde_json::from_value(rule).ok());
        rules.push((number, from.timestamp_micros(), rule));
    }
    let Some(newest) = rules.iter().rev().find_map(|(_, _, rule)| rule.as_ref()).cloned() else {
        return Ok(None);
    };
    let names = Names::load(tx, rules.iter().filter_map(|(_, _, rule)| rule.as_ref())).await?;
    let versions: Vec<Version> = rules
        .iter()
        .map(|(number, from_us, rule)| Version {
            number: *number,
            from_us: *from_us,
            spec: rule.as_ref().and_then(|rule| names.spec(rule)),
            alarm: alarm(rule.as_ref().unwrap_or(&newest)),
        })
        .collect();
    let mut tags: Vec<i32> = versions
        .iter()
        .filter_map(|version| version.spec.as_ref())
        .flat_map(|spec| spec.tags.iter().copied().chain(spec.running_tag))
        .collect();
    tags.sort_unstable();
    tags.dedup();
    let line_id = newest
        .line_id
        .or_else(|| names.tags.get(&newest.tag_name).and_then(|(_, line_id)| *line_id));
    Ok(Some(Loaded {
        timeline: Timeline {
            rule_id,
            versions,
            models: models(tx, rule_id).await?,
        },
        rule: newest,
        line_id,
        tags,
    }))
}

/// How the rule's alarm behaves towards people.
pub(super) fn alarm(rule: &AlarmRule) -> Behaviour {
    Behaviour {
        is_latching: rule.is_latching,
        realarm_us: Micros::from(rule.realarm_s) * SECOND_US,
        shelve_us_max: Micros::from(rule.shelve_s_max) * SECOND_US,
        ..behaviour(rule.priority.clamp(1, 4) as u8)
    }
}

/// What the names in rules stand for.
#[derive(Debug, Default)]
pub(super) struct Names {
    tags: HashMap<String, (i32, Option<Uuid>)>,
    rates: HashMap<Uuid, String>,
}

impl Names {
    /// Looks up the tags and lines of rules.
    pub(super) async fn load<'r>(
        tx: &mut TenantTx,
        rules: impl Iterator<Item = &'r AlarmRule>,
    ) -> Result<Self, TenancyError> {
        let (mut wanted, mut lines) = (Vec::new(), Vec::new());
        for rule in rules {
            wanted.push(rule.tag_name.clone());
            wanted.extend(rule.tag_names.iter().cloned());
            lines.extend(rule.line_id.filter(|_| rule.is_running_only));
        }
        let rates: Vec<(Uuid, String)> =
            sqlx::query_as("SELECT id, rate_tag FROM line WHERE id = ANY($1) AND rate_tag IS NOT NULL")
                .bind(lines)
                .fetch_all(tx.conn())
                .await?;
        wanted.extend(rates.iter().map(|(_, rate)| rate.clone()));
        let tags: Vec<(String, i32, Option<Uuid>)> =
            sqlx::query_as("SELECT name, id, line_id FROM tag WHERE name = ANY($1)")
                .bind(wanted)
                .fetch_all(tx.conn())
                .await?;
        Ok(Self {
            tags: tags
                .into_iter()
                .map(|(name, id, line_id)| (name, (id, line_id)))
                .collect(),
            rates: rates.into_iter().collect(),
        })
    }

    /// How a rule judges; none while it is switched off or a tag of it is not known.
    pub(super) fn spec(&self, rule: &AlarmRule) -> Option<Spec> {
        let kind = Kind::parse(&rule.kind).filter(|_| rule.is_enabled)?;
        let id = |name: &String| self.tags.get(name).map(|(id, _)| *id);
        let mut tags = vec![id(&rule.tag_name)?];
        if kind == Kind::IsolationForest {
            for name in &rule.tag_names {
                tags.push(id(name)?);
            }
        }
        let running_tag = match rule.line_id.filter(|_| rule.is_running_only) {
            Some(line_id) => Some(id(self.rates.get(&line_id)?)?),
            None => None,
        };
        Some(Spec {
            kind,
            band: AlarmBand {
                low: rule.low,
                high: rule.high,
                deadband: rule.deadband,
            },
            on_delay_us: Micros::from(rule.on_delay_s) * SECOND_US,
            off_delay_us: Micros::from(rule.off_delay_s) * SECOND_US,
            window_us: Micros::from(rule.window_s.max(1)) * SECOND_US,
            score_max: rule.score_max,
            is_seasonal: rule.season == "hour_of_week",
            tags,
            running_tag,
        })
    }
}

async fn models(tx: &mut TenantTx, rule_id: Uuid) -> Result<Vec<(i32, Micros, Model)>, TenancyError> {
    let rows: Vec<(i32, DateTime<Utc>, Vec<u8>)> = sqlx::query_as(
        "SELECT version, valid_from, model FROM alarm_model WHERE rule_id = $1 ORDER BY valid_from, version",
    )
    .bind(rule_id)
    .fetch_all(tx.conn())
    .await?;
    let mut models = Vec::with_capacity(rows.len());
    for (version, from, bytes) in rows {
        match Model::decode(&bytes) {
            Ok(model) => models.push((version, from.timestamp_micros(), model)),
            Err(error) => tracing::error!(%rule_id, version, %error, "a model is passed over"),
        }
    }
    Ok(models)
}

#[derive(Debug, FromRow)]
struct ActionRow {
    id: Uuid,
    alarm_id: Uuid,
    at: DateTime<Utc>,
    verb: String,
    until_at: Option<DateTime<Utc>>,
    actor: String,
    reason: String,
}

impl ActionRow {
    fn verb(&self) -> Option<AlarmVerb> {
        Some(match (self.verb.as_str(), self.until_at) {
            ("acknowledge", _) => AlarmVerb::Acknowledge,
            ("shelve", Some(until)) => AlarmVerb::Shelve {
                until_us: until.timestamp_micros(),
            },
            ("unshelve", _) => AlarmVerb::Unshelve,
            ("reset", _) => AlarmVerb::Reset,
            ("take_out_of_service", _) => AlarmVerb::TakeOutOfService,
            ("return_to_service", _) => AlarmVerb::ReturnToService,
            _ => return None,
        })
    }
}

/// What people did about a rule's alarms after `after_us`, in order of time.
pub(super) async fn deeds(
    tx: &mut TenantTx,
    rule: &AlarmRule,
    after_us: Micros,
) -> Result<Vec<Deed>, TenancyError> {
    let rows: Vec<ActionRow> = sqlx::query_as(
        "SELECT id, alarm_id, at, verb, until_at, actor, reason FROM alarm_action \
         WHERE rule_id = $1 AND at > $2 ORDER BY at, id",
    )
    .bind(rule.id)
    .bind(time_from_us(after_us))
    .fetch_all(tx.conn())
    .await?;
    let deed = |row: ActionRow| {
        Some(Deed {
            alarm_id: row.alarm_id,
            action: AlarmAction {
                verb: row.verb()?,
                id: row.id,
                code: rule.code.clone(),
                subject: rule.tag_name.clone(),
                at_us: row.at.timestamp_micros(),
                by: row.actor,
                second: None,
                reason: row.reason,
            },
        })
    };
    Ok(rows.into_iter().filter_map(deed).collect())
}
