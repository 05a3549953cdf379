//! What happens while a session is up? Its values are passed on, what is to be watched is followed, and silence is
//! looked for: a server that answers and sends nothing is left.

use std::{convert::Infallible, path::Path, time::Duration};

use opcua::types::{NodeId, VariableId, Variant};
use tokio::time::Instant;

use super::{Holding, Lost, Over, Report, held::Held};
use crate::{
    clock,
    source::opcua::{
        client::{self, failure},
        pulse::Pulse,
    },
};

/// Messages kept while items are being made.
const BACKLOG_MAX: usize = 4_096;
/// How often silence is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How often refused nodes are tried again.
const RETRY_REFUSED_EVERY: Duration = Duration::from_mins(1);
/// How long a server that has fallen silent may take to answer.
const PROBE_WITHIN: Duration = Duration::from_secs(2);
const LEAVE_WITHIN: Duration = Duration::from_secs(1);
impl Holding<'_> {
    /// Connects, subscribes and reports until the session is over for good.
    pub(super) async fn session(&mut self, pki_dir: &Path) -> Over {
        let server = self.desired.borrow_and_update().server.clone();
        let reports = self.reports;
        let connected = tokio::select! {
            connected = self.connect(&server, pki_dir) => connected,
            () = reports.closed() => return Over::Closed,
        };
        let (mut held, _driver) = match connected {
            Ok(connected) => connected,
            Err(ended) => return Over::Ended(ended),
        };
        let over = match self.serve(&mut held, pki_dir).await {
            Ok(never) => match never {},
            Err(over) => over,
        };
        // The server need not keep what nobody will come back for.
        drop(tokio::time::timeout(LEAVE_WITHIN, held.session.disconnect()).await);
        over
    }

    pub(super) async fn report(&self, report: Report) -> Result<(), Over> {
        self.reports.send(report).await.map_err(|_| Over::Closed)
    }

    async fn serve(&mut self, held: &mut Held, pki_dir: &Path) -> Result<Infallible, Over> {
        held.start_over_silence();
        if held.items.watch_clock(self.learned).await? {
            held.pulse = Some(Pulse::new(held.now_us()));
        } else {
            tracing::warn!(
                "the server's clock cannot be watched: frozen data is found by its own silence only"
            );
        }
        self.record_gap().await?;
        self.follow(held).await?;
        self.up(held).await?;
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut retry = tokio::time::interval_at(Instant::now() + RETRY_REFUSED_EVERY, RETRY_REFUSED_EVERY);
        let mut can_change = true;
        loop {
            tokio::select! {
                Some(note) = held.notes.recv() => self.take(held, note).await?,
                event = held.events.recv() => self.event(held, event, pki_dir).await?,
                _ = look.tick() => self.look(held).await?,
                _ = retry.tick() => if held.items.retry_refused() { self.follow(held).await? },
                changed = self.desired.changed(), if can_change => {
                    can_change = changed.is_ok();
                    let server = self.desired.borrow().server.clone();
                    if !server.has_same_session(&held.server) {
                        return Err(Over::Reconfigured);
                    }
                    self.follow(held).await?;
                }
                () = self.reports.closed() => return Err(Over::Closed),
            }
        }
    }

    async fn follow(&mut self, held: &mut Held) -> Result<(), Over> {
        let slots = self.desired.borrow_and_update().slots.clone();
        let names = (held.namespaces.as_ref(), held.server.namespace_uri.as_str());
        let mut backlog = Vec::new();
        let refused = {
            let mut following = Box::pin(held.items.follow(&slots, names, self.learned));
            loop {
                // Items that are there already report while others are being made.
                tokio::select! {
                    refused = &mut following => break refused?,
                    Some(note) = held.notes.recv(), if backlog.len() < BACKLOG_MAX => backlog.push(note),
                }
            }
        };
        held.start_over_silence();
        for note in backlog {
            self.take(held, note).await?;
        }
        if !refused.is_empty() {
            self.report(Report::Refused(refused)).await?;
        }
        Ok(())
    }

    /// Records what lies between this session and the one before: the items that are made next begin with the current
    /// value of every node.
    async fn record_gap(&mut self) -> Result<(), Over> {
        let Some(from_us) = *self.heard_at_us else {
            return Ok(());
        };
        let to_us = clock::now_us();
        *self.heard_at_us = Some(to_us);
        self.report(Report::Gap(Lost {
            slots: None,
            from_us,
            to_us,
            messages: 1,
            reason: "opcua session lost",
        }))
        .await
    }

    pub(super) async fn up(&mut self, held: &mut Held) -> Result<(), Over> {
        self.was_up = true;
        held.is_cut_off = false;
        held.start_over_silence();
        // After a reconnect the library publishes only once it is told to.
        held.session.trigger_publish_now();
        let (session, namespaces) = (held.session.clone(), held.namespaces.clone());
        self.report(Report::Up(session, namespaces, held.limits)).await
    }

    /// Looks whether the session still gives signs of life.
    async fn look(&mut self, held: &mut Held) -> Result<(), Over> {
        let now_us = held.now_us();
        let stands_still = held
            .pulse
            .as_ref()
            .is_some_and(|pulse| pulse.silent_for(now_us) >= self.learned.pulse_patience);
        let is_silent = held.items.subscriptions.iter().any(|subscription| {
            let silent_us = now_us.saturating_sub(subscription.heard_us);
            silent_us >= 0 && silent_us as u128 > subscription.silence_max.as_micros()
        });
        if stands_still || is_silent {
            self.probe(held).await?;
        }
        Ok(())
    }

    /// Nothing came for too long. A server that answers and sends nothing is left, frozen or not; one that does not
    /// answer may only be cut off, and its session is worth resuming.
    async fn probe(&mut self, held: &mut Held) -> Result<(), Over> {
        let clock_node = [NodeId::from(VariableId::Server_ServerStatus_CurrentTime)];
        let asked = client::read_chunk(&held.session, &clock_node);
        let Ok(Ok(values)) = tokio::time::timeout(PROBE_WITHIN, asked).await else {
            if !held.is_cut_off {
                held.is_cut_off = true;
                self.report(Report::Down("the server does not answer".to_owned()))
                    .await?;
            }
            held.start_over_silence();
            return Ok(());
        };
        let time = values.into_iter().next().and_then(|value| value.value);
        if let (Some(Variant::DateTime(time)), Some(pulse)) = (time, &held.pulse)
            && pulse.stands_at(*time)
        {
            self.learned.clock_stood_still();
            return Err(failure(
                "server clock",
                "stands still, and no value comes: the server is frozen",
            )
            .into());
        }
        Err(failure(
            "subscription",
            "the server answers and sends neither values nor keep-alives",
        )
        .into())
    }
}
