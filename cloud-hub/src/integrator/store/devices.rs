//! Who is there? Devices by what they say of themselves, and the alarms that they raise.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use protocol::Micros;
use uuid::Uuid;

use super::{Name, Work};
use crate::{
    integrator::DEVICES_MAX,
    kernel::{
        bulk::{BulkError, BulkTx},
        clock::time_from_us,
    },
};

impl Work<'_> {
    /// Who came, went, spoke, and raised or cleared an alarm.
    pub(super) async fn devices(&self, tx: &mut BulkTx<'_>, messages: &[usize]) -> Result<(), BulkError> {
        let mut seen: BTreeMap<&str, (Option<bool>, Micros)> = BTreeMap::new();
        for message in messages.iter().map(|index| &self.said[*index]) {
            for fact in &message.facts {
                let known = seen.entry(&fact.device).or_insert((None, message.received_us));
                known.1 = message.received_us;
            }
            for (device, is_online) in &message.presence {
                seen.insert(device, (Some(*is_online), message.received_us));
            }
        }
        if !seen.is_empty() {
            let names: Vec<&str> = seen.keys().copied().collect();
            let states: Vec<Option<bool>> = seen.values().map(|(state, _)| *state).collect();
            let times: Vec<DateTime<Utc>> = seen.values().map(|(_, at)| time_from_us(*at)).collect();
            let ids: Vec<Uuid> = seen.iter().map(|_| Uuid::now_v7()).collect();
            tx.execute(
                DEVICES,
                &[&self.edge_id, &names, &states, &times, &DEVICES_MAX, &ids],
            )
            .await?;
        }
        for message in messages.iter().map(|index| &self.said[*index]) {
            for (device, name, text) in &message.alarms {
                self.alarm(tx, (device, name), text.as_deref(), message.received_us)
                    .await?;
            }
        }
        Ok(())
    }

    /// One standing alarm for each device and type.
    async fn alarm(
        &self,
        tx: &mut BulkTx<'_>,
        (device, name): Name<'_>,
        text: Option<&str>,
        at_us: Micros,
    ) -> Result<(), BulkError> {
        let (code, at) = (format!("device.{name}"), time_from_us(at_us));
        match text {
            Some(text) => {
                let message: String = text.replace('\0', "\u{FFFD}").chars().take(500).collect();
                tx.execute(
                    "INSERT INTO alarm (id, edge_id, code, subject, message, raised_at) SELECT $1, $2, $3, $4, $5, $6 \
                     WHERE NOT EXISTS (SELECT FROM alarm WHERE edge_id = $2 AND code = $3 AND subject = $4 AND cleared_at IS NULL)",
                    &[&Uuid::now_v7(), &self.edge_id, &code, &device, &message, &at],
                )
                .await?
            }
            None => {
                tx.execute(
                    "UPDATE alarm SET cleared_at = $4 WHERE edge_id = $1 AND code = $2 AND subject = $3 AND cleared_at IS NULL",
                    &[&self.edge_id, &code, &device, &at],
                )
                .await?
            }
        };
        Ok(())
    }
}

const DEVICES: &str = "
INSERT INTO integrator_device AS d (id, edge_id, name, is_online, since_at, last_seen_at)
SELECT n.id, $1, n.name, coalesce(n.is_online, true), n.at, n.at
FROM unnest($2::text[], $3::bool[], $4::timestamptz[], $6::uuid[]) AS n (name, is_online, at, id)
WHERE EXISTS (SELECT FROM integrator_device k WHERE k.edge_id = $1 AND k.name = n.name)
   OR (SELECT count(*) FROM integrator_device k WHERE k.edge_id = $1) < $5
ON CONFLICT (edge_id, name) DO UPDATE SET last_seen_at = greatest(d.last_seen_at, excluded.last_seen_at),
    is_online = excluded.is_online,
    since_at = CASE WHEN d.is_online = excluded.is_online THEN d.since_at ELSE excluded.since_at END";
