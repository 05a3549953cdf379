//! What is known of a session while it is up, and what can be asked of its server: messages that were sent before, and
//! to take its subscriptions over.

use std::sync::Arc;

use opcua::{
    client::Session,
    types::{NotificationMessage, StatusCode},
};
use tokio::{sync::mpsc, time::Instant};

use super::connect::Event;
use crate::source::{
    error::SourceError,
    opcua::{
        client::{self, Namespaces, failure, in_time},
        config::Server,
        items::{Items, Note},
        limits,
        pulse::Pulse,
    },
};

/// A session while it is up.
pub(super) struct Held {
    pub(super) server: Arc<Server>,
    pub(super) session: Arc<Session>,
    pub(super) namespaces: Arc<Namespaces>,
    pub(super) limits: limits::Limits,
    pub(super) items: Items,
    pub(super) notes: mpsc::Receiver<Note>,
    pub(super) events: mpsc::Receiver<Event>,
    pub(super) pulse: Option<Pulse>,
    /// Reported down although the session is not known to be lost.
    pub(super) is_cut_off: bool,
    pub(super) start: Instant,
}

/// Whether a message bears values; a keep-alive does not.
pub(super) fn has_data(message: &NotificationMessage) -> bool {
    message
        .notification_data
        .as_ref()
        .is_some_and(|data| !data.is_empty())
}

impl Held {
    pub(super) fn now_us(&self) -> i64 {
        self.start.elapsed().as_micros() as i64
    }

    /// Silence counts from now.
    pub(super) fn start_over_silence(&mut self) {
        let now_us = self.now_us();
        for subscription in &mut self.items.subscriptions {
            subscription.heard_us = now_us;
        }
        if let Some(pulse) = &mut self.pulse {
            pulse.value(now_us);
        }
    }

    /// A message that was sent before; none when the server does not have it (any more).
    pub(super) async fn republished(
        &self,
        subscription: usize,
        number: u32,
    ) -> Result<Option<NotificationMessage>, SourceError> {
        let id = self.items.subscriptions[subscription].id;
        let call = self.session.republish(id, number);
        match tokio::time::timeout(client::REQUEST_WITHIN, call).await {
            // Some servers answer with an empty message instead of BadMessageNotAvailable.
            Ok(Ok(message)) if message.sequence_number == number && has_data(&message) => Ok(Some(message)),
            Ok(Err(error)) if error.status() == StatusCode::BadSubscriptionIdInvalid => {
                Err(failure("Republish", "the server has dropped the subscription"))
            }
            Ok(_) => Ok(None),
            Err(_) => Err(failure("Republish", "no reply in time")),
        }
    }

    /// Takes the subscriptions over into the new session.
    ///
    /// # Errors
    /// When the server does not transfer every one of them: then all is begun anew, so that no item is there twice.
    pub(super) async fn transfer(&self) -> Result<(), SourceError> {
        let ids: Vec<u32> = self
            .items
            .subscriptions
            .iter()
            .map(|subscription| subscription.id)
            .collect();
        let call = self.session.transfer_subscriptions(&ids, false);
        let results = in_time("TransferSubscriptions", call).await?;
        let refused = results.iter().find(|result| result.status_code.is_bad());
        if results.len() == ids.len() && refused.is_none() {
            return Ok(());
        }
        let status = refused.map_or(StatusCode::BadUnexpectedError, |result| result.status_code);
        Err(failure("TransferSubscriptions", &status.to_string()))
    }
}
