//! Is every message the next one? One that comes again is dropped, one that is missing is asked for, and what the
//! server does not have any more is a gap.

use opcua::types::{DataChangeNotification, NotificationMessage, StatusChangeNotification, Variant};

use super::{
    Holding, Lost, Over, Report,
    held::{Held, has_data},
};
use crate::{
    clock,
    source::opcua::{
        client::{self, failure},
        items::Note,
        pulse,
        sequence::{Missing, Step},
    },
};

impl Holding<'_> {
    pub(super) async fn take(&mut self, held: &mut Held, note: Note) -> Result<(), Over> {
        let has_data = has_data(&note.message);
        let now_us = held.now_us();
        let subscription = &mut held.items.subscriptions[note.subscription];
        let heard_before_us = std::mem::replace(&mut subscription.heard_at_us, clock::now_us());
        subscription.heard_us = now_us;
        match subscription.sequence.take(note.message.sequence_number, has_data) {
            Step::Next => {}
            Step::Again => return Ok(()),
            Step::Missing(missing) => {
                self.fetch(held, note.subscription, missing, heard_before_us)
                    .await?;
            }
        }
        self.deliver(held, note.message).await
    }

    /// Asks for messages that did not come; what the server does not have any more is a gap.
    pub(super) async fn fetch(
        &mut self,
        held: &mut Held,
        subscription: usize,
        missing: Missing,
        from_us: i64,
    ) -> Result<(), Over> {
        let mut lost = missing.count;
        for number in missing.numbers() {
            if let Some(message) = held.republished(subscription, number).await? {
                lost -= 1;
                self.deliver(held, message).await?;
            } else {
                held.items.subscriptions[subscription].sequence.give_up(number);
            }
        }
        if lost == 0 {
            return Ok(());
        }
        tracing::warn!(messages = lost, "notification messages are lost");
        self.report(Report::Gap(Lost {
            slots: Some(held.items.slots_of(subscription)),
            from_us,
            to_us: clock::now_us(),
            messages: lost,
            reason: "opcua notifications lost",
        }))
        .await
    }

    pub(super) async fn deliver(
        &mut self,
        held: &mut Held,
        message: NotificationMessage,
    ) -> Result<(), Over> {
        let now_us = held.now_us();
        for part in message.notification_data.into_iter().flatten() {
            if let Some(change) = part.inner_as::<StatusChangeNotification>() {
                return Err(failure("subscription", &change.status.to_string()).into());
            }
            let Some(data) = part.into_inner_as::<DataChangeNotification>() else {
                continue;
            };
            let values = data.monitored_items.unwrap_or_default();
            *self.heard_at_us = Some(clock::now_us());
            if let Some(pulse) = &mut held.pulse {
                for value in &values {
                    match &value.value.value {
                        Some(Variant::DateTime(time)) if value.client_handle == pulse::HANDLE => {
                            pulse.beat(**time, now_us);
                            self.judge_clock(time.as_chrono().timestamp_micros())?;
                        }
                        _ if value.client_handle != pulse::HANDLE => pulse.value(now_us),
                        _ => {}
                    }
                }
            }
            let shifted_us = if self.learned.is_skewed {
                client::shifted_us(&held.session)
            } else {
                0
            };
            self.report(Report::Values(values, shifted_us)).await?;
        }
        Ok(())
    }
}
