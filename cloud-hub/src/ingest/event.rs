//! What becomes of the events of a frame? Each kind has its own table; a deviation also holds product.
//!
//! An event that names something unknown here (a control point that nobody set up) is kept as a dead letter of
//! its own and never takes its frame's other events with it.

use std::{collections::HashMap, sync::Arc};

use protocol::{
    envelope::payload_crc,
    event::{Alarm, Defect, Event, Gap, Inspection, NotRead, THUMBNAIL_BYTES_MAX, Verdict},
    limit::{Check, CheckVerdict},
};
use serde_json::json;
use uuid::Uuid;

use super::{
    dictionary::Mapping,
    fleet::{self, Issuing, Place},
    frame::Resolved,
};
use crate::{
    alarm::list,
    fsq::workflow::deviation::{self, ControlPoint},
    kernel::{
        bulk::{BulkError, BulkTx},
        clock::time_from_us,
    },
    series::bus::LiveKind,
};

/// An event that cannot be filed, and why.
#[derive(Debug)]
pub(super) struct Unfiled {
    pub(super) index: usize,
    pub(super) bytes: Vec<u8>,
    pub(super) reason: String,
}

/// What storing events led to.
#[derive(Debug, Default)]
pub(super) struct Filed {
    pub(super) live: Vec<LiveKind>,
    pub(super) unfiled: Vec<Unfiled>,
}

/// How events are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Events {
    /// One that the database refuses undoes the transaction: the usual way, without a round trip more.
    Together,
    /// One that the database refuses is kept apart, the others are stored.
    OneByOne,
}

/// Stores every event of the claimed frames, in order.
pub(super) async fn store(
    tx: &mut BulkTx<'_>,
    frames: &[Resolved<'_>],
    events: Events,
    issuing: Issuing<'_>,
) -> Result<Filed, BulkError> {
    let mut filed = Filed::default();
    if frames.iter().all(|resolved| resolved.frame.events.is_empty()) {
        return Ok(filed);
    }
    let plant = Plant::load(tx, issuing).await?;
    for from in frames {
        for (number, event) in (0..).zip(&from.frame.events) {
            let place = Place { from, number };
            let outcome = match events {
                Events::Together => file(tx, &plant, place, event, &mut filed.live).await?,
                Events::OneByOne => file_apart(tx, &plant, place, event, &mut filed.live).await?,
            };
            if let Err(reason) = outcome {
                filed.unfiled.push(Unfiled {
                    index: from.index,
                    bytes: serde_json::to_vec(event).unwrap_or_default(),
                    reason,
                });
            }
        }
    }
    Ok(filed)
}

/// Files an event so that its refusal leaves no trace but a reason.
async fn file_apart(
    tx: &mut BulkTx<'_>,
    plant: &Plant<'_>,
    place: Place<'_>,
    event: &Event,
    live: &mut Vec<LiveKind>,
) -> Result<Result<(), String>, BulkError> {
    tx.mark().await?;
    let told = live.len();
    match file(tx, plant, place, event, live).await {
        Ok(outcome) => {
            tx.leave_mark(true).await?;
            Ok(outcome)
        }
        Err(refusal @ BulkError::Refused(_)) => {
            tx.leave_mark(false).await?;
            live.truncate(told);
            Ok(Err(refusal.to_string()))
        }
        Err(error) => Err(error),
    }
}

/// What events name by code, and what answers them.
struct Plant<'a> {
    lines: HashMap<String, Uuid>,
    points: HashMap<String, ControlPoint>,
    issuing: Issuing<'a>,
}

impl<'a> Plant<'a> {
    async fn load(tx: &mut BulkTx<'_>, issuing: Issuing<'a>) -> Result<Self, BulkError> {
        let lines = tx.query("SELECT code, id FROM line", &[]).await?;
        let points = tx
            .query("SELECT code, id, line_id, equipment_id FROM ccp", &[])
            .await?;
        Ok(Self {
            issuing,
            lines: lines.iter().map(|row| (row.get(0), row.get(1))).collect(),
            points: points
                .iter()
                .map(|row| {
                    let point = ControlPoint {
                        id: row.get(1),
                        code: row.get(0),
                        line_id: row.get(2),
                        equipment_id: row.get(3),
                    };
                    (point.code.clone(), point)
                })
                .collect(),
        })
    }

    fn line(&self, code: Option<&String>) -> Option<Uuid> {
        code.and_then(|code| self.lines.get(code).copied())
    }

    fn point(&self, code: &str) -> Result<&ControlPoint, String> {
        self.points.get(code).ok_or_else(|| {
            format!("no critical control point `{code}` is set up here; set it up, then replay this letter")
        })
    }
}

async fn file(
    tx: &mut BulkTx<'_>,
    plant: &Plant<'_>,
    place: Place<'_>,
    event: &Event,
    live: &mut Vec<LiveKind>,
) -> Result<Result<(), String>, BulkError> {
    let from = place.from;
    match event {
        Event::CcpCheck(check) => match plant.point(&check.ccp) {
            Ok(point) => store_check(tx, point, from.edge_id, check).await?,
            Err(reason) => return Ok(Err(reason)),
        },
        Event::Deviation(said) => match plant.point(&said.ccp) {
            Ok(point) => {
                let recorded = deviation::record(tx, point, (from.edge_id, from.edge), said).await?;
                live.push(LiveKind::Deviation {
                    id: recorded.deviation_id,
                    version: recorded.version,
                });
                if let Some(hold) = recorded.hold {
                    live.push(LiveKind::Hold {
                        id: hold.hold_id,
                        version: hold.version,
                    });
                }
                live.push(LiveKind::Line { id: recorded.line_id });
            }
            Err(reason) => return Ok(Err(reason)),
        },
        Event::Alarm(alarm) => {
            let line_id = plant.line(alarm.line.as_ref());
            store_alarm(tx, from.edge_id, line_id, alarm).await?;
            live.extend(line_id.map(|id| LiveKind::Line { id }));
            live.extend(notice(tx, line_id, alarm.id).await?);
        }
        Event::Inspection(inspection) => {
            let line_id = plant.line(inspection.line.as_ref());
            store_inspection(tx, from.edge_id, line_id, inspection).await?;
            if inspection.verdict != Verdict::Pass {
                live.push(LiveKind::Defect { id: inspection.id });
            }
        }
        Event::NotRead(not_read) => return store_not_read(tx, from.edge_id, &from.mapping, not_read).await,
        Event::Gap(gap) => store_gap(tx, from.edge_id, gap).await?,
        Event::AlarmChange(change) => {
            let line_id = plant.line(change.line.as_ref());
            live.extend(line_id.map(|id| LiveKind::Line { id }));
            let outcome = fleet::store_change(tx, place, line_id, change).await?;
            live.extend(notice(tx, line_id, change.id).await?);
            return Ok(outcome);
        }
        Event::ManualEntry(entry) => return fleet::store_entry(tx, place, entry).await,
        Event::ClockStep(step) => return fleet::store_step(tx, place, step).await,
        Event::CommandResult(_) | Event::CertificateRequest(_) => {
            live.push(LiveKind::Edge {
                name: from.edge.to_owned(),
            });
            return file_of_edge(tx, plant, place, event).await;
        }
    }
    Ok(Ok(()))
}

/// What is between the hub and the edge itself.
async fn file_of_edge(
    tx: &mut BulkTx<'_>,
    plant: &Plant<'_>,
    place: Place<'_>,
    event: &Event,
) -> Result<Result<(), String>, BulkError> {
    match event {
        Event::CommandResult(result) => fleet::store_result(tx, place, result).await,
        Event::CertificateRequest(asked) => fleet::answer_request(tx, place, asked, plant.issuing).await,
        _ => Ok(Ok(())),
    }
}

async fn store_check(
    tx: &mut BulkTx<'_>,
    point: &ControlPoint,
    edge_id: Uuid,
    check: &Check,
) -> Result<(), BulkError> {
    let verdict = match check.verdict {
        CheckVerdict::Met => "met",
        CheckVerdict::NotMet => "not_met",
        CheckVerdict::Diverted => "diverted",
        CheckVerdict::NotMonitored => "not_monitored",
    };
    tx.execute(
        "INSERT INTO ccp_check (ccp_id, from_time, to_time, verdict, value_min, value_max, value_last, good, bad, \
           missing, limit_version, edge_id) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) \
         ON CONFLICT DO NOTHING",
        &[
            &point.id,
            &time_from_us(check.from_us),
            &time_from_us(check.to_us),
            &verdict,
            &check.value_min,
            &check.value_max,
            &check.value_last,
            &check.good.cast_signed(),
            &check.bad.cast_signed(),
            &check.missing.cast_signed(),
            &check.limit_version.cast_signed(),
            &edge_id,
        ],
    )
    .await?;
    Ok(())
}

/// The whole alarm, for live pages.
async fn notice(tx: &mut BulkTx<'_>, line_id: Option<Uuid>, id: Uuid) -> Result<Option<LiveKind>, BulkError> {
    let rows = tx.query(list::JSON, &[&id]).await?;
    Ok(rows.first().map(|row| LiveKind::Alarm {
        line_id,
        alarm: Arc::new(row.get(0)),
    }))
}

async fn store_alarm(
    tx: &mut BulkTx<'_>,
    edge_id: Uuid,
    line_id: Option<Uuid>,
    alarm: &Alarm,
) -> Result<(), BulkError> {
    let at = time_from_us(alarm.at_us);
    tx.execute(
        "INSERT INTO alarm AS a (id, edge_id, line_id, code, subject, message, raised_at, cleared_at) \
         VALUES ($1, $2, $3, $4, $5, $6, CASE WHEN $8 THEN $7::timestamptz END, \
           CASE WHEN NOT $8 THEN $7::timestamptz END) \
         ON CONFLICT (id) DO UPDATE SET message = excluded.message, \
           raised_at = coalesce(a.raised_at, excluded.raised_at), \
           cleared_at = coalesce(excluded.cleared_at, a.cleared_at), version = a.version + 1",
        &[
            &alarm.id,
            &edge_id,
            &line_id,
            &alarm.code,
            &alarm.subject,
            &alarm.message,
            &at,
            &alarm.active,
        ],
    )
    .await?;
    Ok(())
}

/// JSON has no word for what is not finite, and a list with such a box in it could not be read again.
fn is_nowhere(defect: &Defect) -> bool {
    let [x0, y0, x1, y1] = defect.corners_px;
    ![defect.score, x0, y0, x1, y1]
        .iter()
        .all(|number| number.is_finite())
}

async fn store_inspection(
    tx: &mut BulkTx<'_>,
    edge_id: Uuid,
    line_id: Option<Uuid>,
    inspection: &Inspection,
) -> Result<(), BulkError> {
    let (verdict, reason) = match inspection.verdict {
        Verdict::Pass => ("pass", inspection.reason.clone()),
        Verdict::Reject => ("reject", inspection.reason.clone()),
        Verdict::Unknown => (
            "unknown",
            Some(
                inspection
                    .reason
                    .clone()
                    .unwrap_or_else(|| "not stated".to_owned()),
            ),
        ),
    };
    let defects: Vec<_> = inspection
        .defects
        .iter()
        .filter(|defect| !is_nowhere(defect))
        .map(|defect| {
            let [x0, y0, x1, y1] = defect.corners_px;
            json!({ "class": defect.class, "score": defect.score, "x0": x0, "y0": y0, "x1": x1, "y1": y1 })
        })
        .collect();
    let left_out = inspection.defects.len() - defects.len();
    // The verdict stands: a rejected tray stays rejected.
    let reason =
        reason.or_else(|| (left_out > 0).then(|| format!("{left_out} defects have no place or score")));
    let model = inspection.model.as_ref();
    let thumbnail = inspection
        .thumbnail_jpeg
        .as_ref()
        .filter(|jpeg| jpeg.len() <= THUMBNAIL_BYTES_MAX);
    if thumbnail.is_none() && inspection.thumbnail_jpeg.is_some() {
        tracing::warn!(inspection = %inspection.id, "a picture above the protocol's limit was left out");
    }
    tx.execute(
        "INSERT INTO vision_result (id, edge_id, camera, line_id, taken_at, verdict, reason, defects, width_px, \
           height_px, frame_sha256, model_name, model_version, model_sha256, latency_us, thumbnail) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16) ON CONFLICT DO NOTHING",
        &[
            &inspection.id,
            &edge_id,
            &inspection.camera,
            &line_id,
            &time_from_us(inspection.taken_us),
            &verdict,
            &reason,
            &serde_json::Value::Array(defects),
            &inspection.size_px[0].cast_signed(),
            &inspection.size_px[1].cast_signed(),
            &inspection.frame_sha256,
            &model.map(|model| &model.name),
            &model.map(|model| &model.version),
            &model.map(|model| &model.sha256),
            &i32::try_from(inspection.latency_us).unwrap_or(i32::MAX),
            &thumbnail,
        ],
    )
    .await?;
    Ok(())
}

async fn store_not_read(
    tx: &mut BulkTx<'_>,
    edge_id: Uuid,
    mapping: &Mapping,
    not_read: &NotRead,
) -> Result<Result<(), String>, BulkError> {
    let tags: Option<Vec<i32>> = not_read
        .tags
        .iter()
        .map(|alias| mapping.get(*alias).map(|tag| tag.id))
        .collect();
    let (Some(tags), Ok(due @ 1..)) = (tags, i32::try_from(not_read.due)) else {
        return Ok(Err(
            "a not-read record names an unknown alias or counts none".to_owned()
        ));
    };
    tx.execute(
        "INSERT INTO not_read (frame_edge_id, tag_id, from_time, to_time, due, reason) \
         SELECT $1, unnest($2::int4[]), $3, $4, $5, $6",
        &[
            &edge_id,
            &tags,
            &time_from_us(not_read.from_us),
            &time_from_us(not_read.to_us),
            &due,
            &not_read.reason,
        ],
    )
    .await?;
    Ok(Ok(()))
}

async fn store_gap(tx: &mut BulkTx<'_>, edge_id: Uuid, gap: &Gap) -> Result<(), BulkError> {
    tx.execute(
        "INSERT INTO gap (id, edge_id, from_time, to_time, frames, readings, reason) \
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
        &[
            &Uuid::now_v7(),
            &edge_id,
            &time_from_us(gap.from_us),
            &time_from_us(gap.to_us),
            &gap.frames.cast_signed(),
            &gap.readings.cast_signed(),
            &gap.reason,
        ],
    )
    .await?;
    Ok(())
}

/// The row of a dead letter.
pub(super) const DEAD_LETTER: &str = "
INSERT INTO {schema}.dead_letter (id, edge_name, topic, crc32c, payload, reason) VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT DO NOTHING";

/// The reason is part of a unique index, which has room for about 2,700 bytes.
const REASON_CHARS_MAX: usize = 500;

/// Keeps bytes that could not be used, with the reason.
pub(crate) async fn bury(
    tx: &mut BulkTx<'_>,
    edge: &str,
    topic: &str,
    payload: &[u8],
    reason: &str,
) -> Result<(), BulkError> {
    let crc = i64::from(payload_crc(payload));
    // PostgreSQL's text cannot hold a zero character, which a damaged name may contain.
    let reason: String = reason
        .replace('\0', "\u{FFFD}")
        .chars()
        .take(REASON_CHARS_MAX)
        .collect();
    tx.execute(
        DEAD_LETTER,
        &[&Uuid::now_v7(), &edge, &topic, &crc, &payload, &reason],
    )
    .await?;
    Ok(())
}
