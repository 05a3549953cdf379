//! What does judging rules depend on? Their versions, tags, models and what people did, out of the database: of many
//! rules in as many questions as of one.

use std::collections::{BTreeMap, HashMap};

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
    models::{Dated, Models},
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
    /// Its id.
    pub(super) fn id(&self) -> Uuid {
        self.timeline.rule_id
    }

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
const NOTE_VERSIONS: &str = "
INSERT INTO alarm_rule_version (rule_id, version, from_at, rule)
SELECT r.id, r.version, $2, to_jsonb(r) FROM alarm_rule r WHERE r.id = ANY($1)
    AND NOT EXISTS (SELECT FROM alarm_rule_version v WHERE v.rule_id = r.id AND v.version = r.version)
UNION ALL
SELECT n.id, v.version + 1, $2, NULL FROM unnest($1::uuid[]) AS n (id)
CROSS JOIN LATERAL (SELECT x.version, x.rule FROM alarm_rule_version x WHERE x.rule_id = n.id
    ORDER BY x.version DESC LIMIT 1) v
WHERE v.rule IS NOT NULL AND NOT EXISTS (SELECT FROM alarm_rule r WHERE r.id = n.id)
ON CONFLICT DO NOTHING";

type VersionRow = (Uuid, i32, DateTime<Utc>, Option<String>);
/// Number, in force from, the rule; none where it was deleted.
type Known = (i32, Micros, Option<AlarmRule>);

/// Loads rules; those of which nothing is known are left out.
pub(super) async fn load(
    tx: &mut TenantTx,
    ids: &[Uuid],
    now_us: Micros,
    models: &Models,
) -> Result<Vec<Loaded>, TenancyError> {
    sqlx::query(NOTE_VERSIONS)
        .bind(ids)
        .bind(time_from_us(now_us))
        .execute(tx.conn())
        .await?;
    let rows: Vec<VersionRow> = sqlx::query_as(
        "SELECT rule_id, version, from_at, rule::text FROM alarm_rule_version WHERE rule_id = ANY($1) \
         ORDER BY rule_id, version",
    )
    .bind(ids)
    .fetch_all(tx.conn())
    .await?;
    let mut rules: BTreeMap<Uuid, Vec<Known>> = BTreeMap::new();
    for (id, number, from, rule) in rows {
        let rule = rule.and_then(|text| {
            let read = serde_json::from_str(&text);
            read.inspect_err(
                |error| tracing::error!(rule = %id, number, %error, "a version of a rule is passed over"),
            )
            .ok()
        });
        let known = (number, from.timestamp_micros(), rule);
        rules.entry(id).or_default().push(known);
    }
    let all = rules.values().flatten().filter_map(|(_, _, rule)| rule.as_ref());
    let names = Names::load(tx, all).await?;
    let mut models = models.of(tx, ids).await?;
    Ok(rules
        .into_iter()
        .filter_map(|(id, versions)| assemble(id, &versions, &names, models.remove(&id).unwrap_or_default()))
        .collect())
}

/// A rule's past and present; none when it never was one.
fn assemble(rule_id: Uuid, known: &[Known], names: &Names, models: Vec<Dated>) -> Option<Loaded> {
    let newest = known.iter().rev().find_map(|(_, _, rule)| rule.as_ref())?.clone();
    let versions: Vec<Version> = known
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
    Some(Loaded {
        timeline: Timeline {
            rule_id,
            versions,
            models,
        },
        rule: newest,
        line_id,
        tags,
    })
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

#[derive(Debug, FromRow)]
struct ActionRow {
    rule_id: Uuid,
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

const DEEDS: &str = "
SELECT a.rule_id, a.id, a.alarm_id, a.at, a.verb, a.until_at, a.actor, a.reason
FROM unnest($1::uuid[], $2::timestamptz[]) AS n (rule_id, after)
JOIN alarm_action a ON a.rule_id = n.rule_id AND a.at > n.after ORDER BY a.at, a.id";

/// What people did about rules' alarms, each rule's after a time, in order of time.
pub(super) async fn deeds<'r>(
    tx: &mut TenantTx,
    rules: impl Iterator<Item = (&'r AlarmRule, Micros)>,
) -> Result<BTreeMap<Uuid, Vec<Deed>>, TenancyError> {
    let (mut by_id, mut ids, mut after) = (HashMap::new(), Vec::new(), Vec::new());
    for (rule, after_us) in rules {
        by_id.insert(rule.id, rule);
        ids.push(rule.id);
        after.push(time_from_us(after_us));
    }
    let rows: Vec<ActionRow> = sqlx::query_as(DEEDS)
        .bind(ids)
        .bind(after)
        .fetch_all(tx.conn())
        .await?;
    let mut deeds: BTreeMap<Uuid, Vec<Deed>> = BTreeMap::new();
    for row in rows {
        let (Some(verb), Some(rule)) = (row.verb(), by_id.get(&row.rule_id)) else {
            continue;
        };
        deeds.entry(row.rule_id).or_default().push(Deed {
            alarm_id: row.alarm_id,
            action: AlarmAction {
                verb,
                id: row.id,
                code: rule.code.clone(),
                subject: rule.tag_name.clone(),
                at_us: row.at.timestamp_micros(),
                by: row.actor,
                second: None,
                reason: row.reason,
            },
        });
    }
    Ok(deeds)
}
