//! What when the connection breaks? The library comes back by itself; the subscriptions are taken up where they stood,
//! unless the server is another one by then or was away for longer than it keeps a session.

use std::path::Path;

use opcua::client::SessionConnectMode;
use tokio::time::Instant;

use super::{Holding, Over, Report, connect::Event, held::Held};
use crate::source::opcua::{
    client::{self, failure},
    endpoint::{self, Ended},
    pki::Pki,
    sequence::Step,
};

impl Holding<'_> {
    pub(super) async fn event(
        &mut self,
        held: &mut Held,
        event: Option<Event>,
        pki_dir: &Path,
    ) -> Result<(), Over> {
        let status = match event {
            Some(Event::Lost(status) | Event::Failed(status)) => status,
            Some(Event::NoSubscription) => {
                return Err(failure("Publish", "the server has dropped the subscriptions").into());
            }
            Some(Event::Connected(mode)) => return self.resume(held, &mode).await,
            None => return Err(failure("session", "ended").into()),
        };
        self.report(Report::Down(format!("session failed: {status}")))
            .await?;
        let lost = Instant::now();
        loop {
            let left = held.server.session_timeout.saturating_sub(lost.elapsed());
            let next = tokio::select! {
                next = tokio::time::timeout(left, held.events.recv()) => next,
                () = self.reports.closed() => return Err(Over::Closed),
            };
            match next {
                Ok(Some(Event::Connected(mode))) => return self.resume(held, &mode).await,
                Ok(Some(Event::Failed(_))) => {
                    let server = self.desired.borrow().server.clone();
                    if !server.has_same_session(&held.server) {
                        return Err(Over::Reconfigured);
                    }
                    self.still_trusted(held, pki_dir).await?;
                }
                Ok(Some(_)) => {}
                Ok(None) => return Err(failure("session", "ended").into()),
                Err(_) => {
                    return Err(failure(
                        "session",
                        "the server was away for longer than it keeps a session",
                    )
                    .into());
                }
            }
        }
    }

    /// A server that came back with another certificate cannot be reached in the old session.
    async fn still_trusted(&mut self, held: &Held, pki_dir: &Path) -> Result<(), Over> {
        if !held.server.security.is_on() {
            return Ok(());
        }
        let Ok(pki) = Pki::open(pki_dir) else {
            return Ok(());
        };
        match endpoint::approach(&held.server, &pki).await {
            Err(ended @ Ended::Refused(_)) => Err(Over::Ended(ended)),
            Err(Ended::Lost(_)) => Ok(()),
            Ok(approach) => {
                let used = &held.session.endpoint_info().endpoint.server_certificate;
                if approach.endpoint.server_certificate == *used {
                    Ok(())
                } else {
                    Err(failure("session", "the server has a new certificate, which is trusted").into())
                }
            }
        }
    }

    /// Takes up the subscriptions where they stood.
    async fn resume(&mut self, held: &mut Held, mode: &SessionConnectMode) -> Result<(), Over> {
        if client::namespaces(&held.session).await? != *held.namespaces {
            return Err(failure("session", "the server has other namespaces now").into());
        }
        if let SessionConnectMode::NewSession(_) = mode {
            held.transfer().await?;
        }
        for subscription in 0..held.items.subscriptions.len() {
            let from_us = held.items.subscriptions[subscription].heard_at_us;
            while let Some(number) = held.items.subscriptions[subscription].sequence.expected() {
                let Some(message) = held.republished(subscription, number).await? else {
                    break;
                };
                let sequence = &mut held.items.subscriptions[subscription].sequence;
                if let Step::Missing(missing) = sequence.take(number, true) {
                    self.fetch(held, subscription, missing, from_us).await?;
                }
                self.deliver(held, message).await?;
            }
        }
        tracing::info!(source = %held.server.name, ?mode, "OPC UA session resumed");
        self.up(held).await
    }
}
