//! What happens at each due time? The loop of one device: poll what is due, report what could not be asked in time,
//! follow changes of the configuration without touching the groups that did not change.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::watch;

use super::{
    config::Device,
    group::{GroupState, Target, not_read},
    line::{Line, Lines},
    plan::Limits,
    schedule::Schedule,
    unit::Unit,
};
use crate::{
    health::SourceState,
    source::{Closed, Outlet},
};

/// Polls one device until the agent shuts down. A new value in `device` is followed at once: groups that did not
/// change keep their phase and miss no poll. Devices with the same endpoint share a connection through `lines`.
///
/// # Errors
/// [`Closed`] when nobody takes readings any more.
pub async fn run(mut device: watch::Receiver<Device>, lines: Lines, outlet: Outlet) -> Result<(), Closed> {
    let first = device.borrow_and_update().clone();
    let mut poller = Poller::start(first, &lines).await;
    let mut may_change = true;
    loop {
        tokio::select! {
            biased;
            changed = device.changed(), if may_change => match changed {
                Ok(()) => {
                    let new = device.borrow_and_update().clone();
                    poller.follow(new, &lines);
                }
                Err(_) => may_change = false,
            },
            () = poller.until_due() => poller.poll(&outlet).await?,
        }
    }
}

/// A device and the state of its polls.
struct Poller {
    device: Device,
    line: Arc<Line>,
    unit: Unit,
    /// One for each of the device's groups.
    groups: Vec<GroupState>,
    start: Instant,
}

impl Poller {
    async fn start(device: Device, lines: &Lines) -> Self {
        let line = line_of(&device, lines);
        let groups = plan_anew(&device, Vec::new(), None, Duration::ZERO);
        // The first connection is waited for, so that a healthy device's first poll is not recorded as bad.
        line.warm(device.timeout).await;
        Self {
            line,
            unit: Unit::default(),
            groups,
            start: Instant::now(),
            device,
        }
    }

    /// Takes over what changed.
    fn follow(&mut self, new: Device, lines: &Lines) {
        if new == self.device {
            return;
        }
        let is_elsewhere =
            new.endpoint != self.device.endpoint || new.has_own_connection != self.device.has_own_connection;
        if is_elsewhere {
            self.line = line_of(&new, lines);
        }
        if is_elsewhere || new.unit_id != self.device.unit_id {
            self.unit = Unit::default();
        }
        let old = std::mem::take(&mut self.groups);
        self.groups = plan_anew(&new, old, Some(self.device.limits), self.start.elapsed());
        self.device = new;
    }

    fn next(&self) -> Option<usize> {
        (0..self.groups.len()).min_by_key(|index| self.groups[*index].schedule.next_due())
    }

    async fn until_due(&self) {
        match self.next() {
            Some(index) => {
                let due = self.start + self.groups[index].schedule.next_due();
                tokio::time::sleep_until(due.into()).await;
            }
            None => std::future::pending().await,
        }
    }

    /// Polls the group that is due next.
    async fn poll(&mut self, outlet: &Outlet) -> Result<(), Closed> {
        let Some(index) = self.next() else { return Ok(()) };
        let (group, tags) = (&mut self.groups[index], &self.device.groups[index].tags);
        let elapsed = self.start.elapsed();
        if let Some(missed) = group.schedule.take(elapsed) {
            outlet.not_read(not_read(tags, missed, elapsed)).await?;
        }
        let mut target = Target {
            device: &self.device,
            line: &self.line,
            unit: &mut self.unit,
        };
        let readings = group.poll(tags, &mut target).await;
        outlet.readings(readings).await?;
        outlet.state(self.state()).await
    }

    fn state(&self) -> SourceState {
        self.unit
            .trouble()
            .map_or(SourceState::Up, |trouble| SourceState::Down {
                reason: trouble.reason.clone(),
            })
    }
}

fn line_of(device: &Device, lines: &Lines) -> Arc<Line> {
    if device.has_own_connection {
        Arc::new(Line::new(device.endpoint.clone()))
    } else {
        lines.line(&device.endpoint)
    }
}

/// The states of a device's groups. Of the old ones, those that read the same registers go on as they are; those that
/// read some of the same keep their phase; `limits` are those that the old plans were made for.
fn plan_anew(
    device: &Device,
    old: Vec<GroupState>,
    limits: Option<Limits>,
    elapsed: Duration,
) -> Vec<GroupState> {
    let mut old: Vec<Option<GroupState>> = old.into_iter().map(Some).collect();
    let mut kept: Vec<Option<GroupState>> = device
        .groups
        .iter()
        .map(|group| claim(&mut old, |state| state.is_of(group)))
        .collect();
    let is_same = limits == Some(device.limits);
    let groups = device.groups.iter().enumerate();
    groups
        .map(|(index, group)| {
            let before = kept[index].take();
            if is_same && let Some(state) = before {
                return state;
            }
            let before = before.or_else(|| claim(&mut old, |state| state.resembles(group)));
            let schedule = before.map_or_else(
                || Schedule::after(elapsed, group.period, index, device.groups.len()),
                |state| state.schedule,
            );
            GroupState::new(group, device.limits, schedule)
        })
        .collect()
}

fn claim(old: &mut [Option<GroupState>], wanted: impl Fn(&GroupState) -> bool) -> Option<GroupState> {
    old.iter_mut()
        .find(|state| state.as_ref().is_some_and(&wanted))?
        .take()
}

#[cfg(test)]
mod tests {
    use super::{super::config::tests::device, *};

    const SECOND: Duration = Duration::from_secs(1);

    fn starts(states: &[GroupState]) -> Vec<Duration> {
        states.iter().map(|state| state.schedule.next_due()).collect()
    }

    #[test]
    fn t33_a_change_of_one_tag_keeps_the_phase_of_every_group() {
        let old = device(&[&[0, 1, 2], &[10, 11], &[20]]);
        let mut states = plan_anew(&old, Vec::new(), None, Duration::ZERO);
        for state in &mut states {
            assert_eq!(state.schedule.take(state.schedule.next_due()), None);
        }
        let before = starts(&states);
        // The second group reads another register; the third one's tags are now known by other aliases.
        let mut new = device(&[&[0, 1, 2], &[10, 12], &[20]]);
        new.groups[2].tags[0].alias = protocol::reading::Alias(99);
        let states = plan_anew(&new, states, Some(old.limits), SECOND * 5);
        assert_eq!(starts(&states), before);
        assert!(
            states
                .iter()
                .zip(&new.groups)
                .all(|(state, group)| state.is_of(group))
        );
    }

    #[test]
    fn t33_groups_keep_their_phase_when_another_is_put_before_them_or_taken_away() {
        let old = device(&[&[0], &[10]]);
        let states = plan_anew(&old, Vec::new(), None, Duration::ZERO);
        let before = starts(&states);
        let more = device(&[&[30], &[0], &[10]]);
        let states = plan_anew(&more, states, Some(old.limits), SECOND * 9);
        assert_eq!(starts(&states)[1..], before);
        assert!(starts(&states)[0] >= SECOND * 9, "a new group is due from now on");
        let fewer = device(&[&[10]]);
        let states = plan_anew(&fewer, states, Some(old.limits), SECOND * 10);
        assert_eq!(starts(&states), before[1..]);
    }

    #[test]
    fn new_limits_make_new_plans_and_move_no_phase() {
        let old = device(&[&[0, 1, 2, 3]]);
        let states = plan_anew(&old, Vec::new(), None, Duration::ZERO);
        let before = starts(&states);
        let mut new = old.clone();
        new.limits.block_registers_max = 2;
        let states = plan_anew(&new, states, Some(old.limits), SECOND);
        assert_eq!(starts(&states), before);
    }
}
