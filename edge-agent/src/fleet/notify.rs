//! Is the agent alive, as the service manager sees it? Ready once everything runs; the watchdog is fed by the
//! pipeline's own progress: a pipeline that stands still is restarted even when every timer still fires.

use std::{sync::Arc, time::Duration};

use sd_notify::NotifyState;
use tokio_util::sync::CancellationToken;

use crate::health::Health;

/// Everything runs.
pub fn ready(status: &str) {
    say(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The agent ends on purpose.
pub fn stopping() {
    say(&[NotifyState::Stopping]);
}

/// Feeds the watchdog once.
pub fn watchdog() {
    say(&[NotifyState::Watchdog]);
}

fn say(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "the service manager was not told");
    }
}

/// Whether the pipeline went on since the last look. Pure.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    seen: u64,
}

impl Progress {
    /// Takes the pipeline's count; true when it moved.
    pub fn look(&mut self, beats: u64) -> bool {
        std::mem::replace(&mut self.seen, beats) != beats
    }
}

/// Feeds the watchdog until `stop`, three times in each period that the service manager allows. Without one it ends
/// at once.
pub async fn feed_watchdog(health: Arc<Health>, stop: CancellationToken) {
    let Some(period) = sd_notify::watchdog_enabled().filter(|period| !period.is_zero()) else {
        return;
    };
    let mut tick = tokio::time::interval(feed_every(period));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut progress = Progress::default();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        if progress.look(health.beats()) {
            watchdog();
        } else {
            tracing::error!("the pipeline stands still: the watchdog is not fed");
        }
    }
}

fn feed_every(period: Duration) -> Duration {
    (period / 3).max(Duration::from_millis(50))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_pipeline_that_goes_on_feeds_the_watchdog() {
        let mut progress = Progress::default();
        assert!(progress.look(1));
        assert!(!progress.look(1));
        assert!(progress.look(2));
    }
}
