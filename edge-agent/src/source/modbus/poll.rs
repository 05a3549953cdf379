//! What happens at each due time? The loop of one device: connect, poll what is due, turn failures into bad
//! readings, report what could not be asked in time.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use protocol::{Micros, Quality, Reading, event::NotRead, reading::Alias};
use tokio::{sync::watch, task::JoinHandle};
use tokio_modbus::ExceptionCode;

use super::{
    client::Connection,
    config::{Device, Group},
    decode,
    plan::{self, Block, Place},
    schedule::{Missed, Schedule},
};
use crate::{
    clock,
    health::SourceState,
    source::{
        Closed, Outlet,
        error::{Class, SourceError},
    },
};

const BACKOFF_MIN: Duration = Duration::from_millis(500);
const BACKOFF_MAX: Duration = Duration::from_secs(15);
/// A plan that was split around refused addresses is tried whole again this often: registers do appear.
const REPLAN_EVERY: Duration = Duration::from_mins(1);

/// Polls one device until the agent shuts down.
pub async fn run(device: watch::Receiver<Device>, outlet: Outlet) -> Result<(), Closed> {
    let device = device.borrow().clone();
    let mut link = Link::new(&device);
    let mut groups: Vec<GroupState> = device
        .groups
        .iter()
        .enumerate()
        .map(|(index, group)| GroupState::new(&device, group, index))
        .collect();
    // The first connection is waited for, so that a healthy device's first poll is not recorded as bad.
    link.connect_now().await;
    let start = Instant::now();
    loop {
        let Some(next) = groups.iter_mut().min_by_key(|group| group.schedule.next_due()) else {
            return Ok(());
        };
        tokio::time::sleep_until((start + next.schedule.next_due()).into()).await;
        let elapsed = start.elapsed();
        if let Some(missed) = next.schedule.take(elapsed) {
            outlet
                .not_read(next.not_read(missed, elapsed, clock::now_us()))
                .await?;
        }
        let readings = next.poll(&device, &mut link).await;
        outlet.readings(readings).await?;
        outlet.state(link.state()).await?;
    }
}

/// The connection to a device, as it comes and goes.
struct Link {
    address: String,
    unit_id: u8,
    timeout: Duration,
    backoff: Duration,
    phase: Phase,
    last_error: Option<(Quality, String)>,
}

enum Phase {
    Up(Box<Connection>),
    Connecting(JoinHandle<Result<Connection, SourceError>>),
    Waiting(Instant),
}

impl Link {
    fn new(device: &Device) -> Self {
        Self {
            address: device.address.clone(),
            unit_id: device.unit_id,
            timeout: device.timeout,
            backoff: BACKOFF_MIN,
            phase: Phase::Waiting(Instant::now()),
            last_error: None,
        }
    }

    async fn connect_now(&mut self) {
        match Connection::open(&self.address, self.unit_id, self.timeout).await {
            Ok(connection) => self.phase = Phase::Up(Box::new(connection)),
            Err(error) => self.failed(&error),
        }
    }

    /// The connection, if there is one. Connecting goes on in the background: a dead device must not delay the
    /// record that its readings are bad.
    async fn get(&mut self) -> Option<&mut Connection> {
        match &mut self.phase {
            Phase::Waiting(until) if Instant::now() >= *until => {
                let (address, unit_id, timeout) = (self.address.clone(), self.unit_id, self.timeout);
                let attempt = tokio::spawn(async move { Connection::open(&address, unit_id, timeout).await });
                self.phase = Phase::Connecting(attempt);
            }
            Phase::Connecting(attempt) if attempt.is_finished() => match attempt.await {
                Ok(Ok(connection)) => self.phase = Phase::Up(Box::new(connection)),
                Ok(Err(error)) => self.failed(&error),
                Err(_) => self.wait(),
            },
            _ => {}
        }
        match &mut self.phase {
            Phase::Up(connection) => Some(connection),
            _ => None,
        }
    }

    fn failed(&mut self, error: &SourceError) {
        self.last_error = Some((error.quality(), chain(error)));
        self.wait();
    }

    fn wait(&mut self) {
        self.phase = Phase::Waiting(Instant::now() + self.backoff);
        self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
    }

    /// A reply came: the device is well.
    fn succeeded(&mut self) {
        self.backoff = BACKOFF_MIN;
        self.last_error = None;
    }

    fn state(&self) -> SourceState {
        match (&self.phase, &self.last_error) {
            (Phase::Up(_), None) => SourceState::Up,
            (_, Some((_, reason))) => SourceState::Down {
                reason: reason.clone(),
            },
            _ => SourceState::Starting,
        }
    }

    fn quality(&self) -> Quality {
        self.last_error
            .as_ref()
            .map_or(Quality::BAD_NOT_CONNECTED, |(quality, _)| *quality)
    }
}

/// An error with its causes on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// One poll group and its current plan.
struct GroupState {
    schedule: Schedule,
    tags: Group,
    aliases: Vec<Alias>,
    places: Vec<Place>,
    whole: Vec<Block>,
    plan: Vec<Block>,
    split_at: Option<Instant>,
}

impl GroupState {
    fn new(device: &Device, group: &Group, index: usize) -> Self {
        let places: Vec<Place> = group.tags.iter().map(|tag| tag.place).collect();
        let members: Vec<usize> = (0..places.len()).collect();
        let whole = plan::blocks(&places, &members, device.limits);
        Self {
            schedule: Schedule::new(group.period, index, device.groups.len()),
            aliases: group.tags.iter().map(|tag| tag.alias).collect(),
            tags: group.clone(),
            places,
            plan: whole.clone(),
            whole,
            split_at: None,
        }
    }

    fn not_read(&self, missed: Missed, elapsed: Duration, now_us: Micros) -> NotRead {
        let ago_us = |due: Duration| now_us - elapsed.saturating_sub(due).as_micros() as Micros;
        NotRead {
            tags: self.aliases.clone(),
            from_us: ago_us(missed.first),
            to_us: ago_us(missed.last),
            due: missed.count,
            reason: "overrun".to_owned(),
        }
    }

    /// One reading of every tag, whatever happens.
    async fn poll(&mut self, device: &Device, link: &mut Link) -> Vec<Reading> {
        if self.split_at.is_some_and(|at| at.elapsed() >= REPLAN_EVERY) {
            self.plan.clone_from(&self.whole);
            self.split_at = None;
        }
        // One time for the whole poll: Modbus has no source time, and equal times pack into almost nothing.
        let at_us = clock::now_us();
        let mut queue: VecDeque<Block> = std::mem::take(&mut self.plan).into();
        let mut readings = Vec::with_capacity(self.tags.tags.len());
        while let Some(block) = queue.pop_front() {
            let Some(connection) = link.get().await else {
                self.bad(&block, at_us, link.quality(), &mut readings);
                self.plan.push(block);
                continue;
            };
            match connection.read(&block).await {
                Ok(registers) => {
                    link.succeeded();
                    self.decode(&block, &registers, at_us, &mut readings);
                    self.plan.push(block);
                }
                Err(error) => {
                    if let Some(rest) = self.failed(device, link, (block, at_us), &error, &mut readings) {
                        rest.into_iter().rev().for_each(|piece| queue.push_front(piece));
                    }
                }
            }
        }
        readings
    }

    /// Handles a failed block: pieces to ask instead when only an address was refused, else bad readings.
    fn failed(
        &mut self,
        device: &Device,
        link: &mut Link,
        (block, at_us): (Block, Micros),
        error: &SourceError,
        readings: &mut Vec<Reading>,
    ) -> Option<Vec<Block>> {
        if error.class() == Class::Retry {
            tracing::warn!(source = %device.name, error = %chain(error), "connection dropped");
            link.failed(error);
        } else {
            link.succeeded();
        }
        if matches!(error, SourceError::Refused(ExceptionCode::IllegalDataAddress)) {
            let pieces = plan::split(&block, &self.places, device.limits);
            if !pieces.is_empty() {
                tracing::info!(source = %device.name, start = block.start, count = block.count, "block refused: split");
                self.split_at.get_or_insert_with(Instant::now);
                return Some(pieces);
            }
        }
        self.bad(&block, at_us, error.quality(), readings);
        self.plan.push(block);
        None
    }

    fn bad(&self, block: &Block, at_us: Micros, reason: Quality, readings: &mut Vec<Reading>) {
        let bad = block
            .members
            .iter()
            .map(|member| Reading::bad(self.aliases[*member], at_us, reason));
        readings.extend(bad);
    }

    fn decode(&self, block: &Block, registers: &[u16], at_us: Micros, readings: &mut Vec<Reading>) {
        for member in &block.members {
            let tag = &self.tags.tags[*member];
            let from = block.offset(&tag.place);
            let slice = registers
                .get(from..from + usize::from(tag.place.width))
                .unwrap_or(&[]);
            readings.push(match decode::value(slice, tag.decoding) {
                Ok((value, quality)) => Reading::new(tag.alias, at_us, value, quality),
                Err(reason) => Reading::bad(tag.alias, at_us, reason),
            });
        }
    }
}
