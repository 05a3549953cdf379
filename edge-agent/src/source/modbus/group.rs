//! What does one poll of a group give? One reading of every tag, whatever happens: blocks are asked in turn, one that
//! is refused for an address is split until only the tags at fault are bad.

use std::time::{Duration, Instant};

use protocol::{Micros, Quality, Reading, event::NotRead};
use tokio_modbus::ExceptionCode;

use super::{
    client::{read_request, values},
    config::{Device, Group},
    decode,
    line::{Asking, Line},
    plan::{self, Block, Limits, Place},
    schedule::{Missed, Schedule},
    tag::TagPlan,
    unit::{Trouble, Unit},
};
use crate::{
    clock,
    source::error::{SourceError, chain},
};

/// A plan that was split around refused addresses is tried whole again this often. The refused tags themselves are
/// asked at every poll: they recover at once when their registers appear.
const REPLAN_EVERY: Duration = Duration::from_mins(1);

/// Who is asked.
#[derive(Debug)]
pub(super) struct Target<'a> {
    pub(super) device: &'a Device,
    pub(super) line: &'a Line,
    pub(super) unit: &'a mut Unit,
}

/// Why a block gave no values.
enum Unread {
    /// The device refused just this block, or cut it short: perhaps for one of its addresses or its length.
    Block(Quality),
    /// Nothing can be said about the block.
    Unit(Quality),
}

impl Target<'_> {
    async fn read(&mut self, block: &Block) -> Result<Vec<u16>, Unread> {
        if let Some(quality) = self.unit.suspended(Instant::now()) {
            return Err(Unread::Unit(quality));
        }
        let asking = Asking {
            unit_id: self.device.unit_id,
            limit: self.device.timeout,
            pause: self.device.pause,
            may_repeat: true,
        };
        let reply = self.line.exchange(asking, read_request(block)).await;
        match reply.and_then(|response| values(response, block.count)) {
            Ok(values) => {
                self.answered();
                Ok(values)
            }
            Err(error) => Err(self.failed(&error)),
        }
    }

    fn answered(&mut self) {
        if self.unit.answered() {
            tracing::info!(source = %self.device.name, "answers again");
        }
    }

    fn failed(&mut self, error: &SourceError) -> Unread {
        let quality = error.quality();
        if let SourceError::Refused(code) = error
            && !is_of_gateway(*code)
        {
            self.answered();
            return if matches!(
                code,
                ExceptionCode::IllegalDataAddress | ExceptionCode::IllegalDataValue
            ) {
                Unread::Block(quality)
            } else {
                Unread::Unit(quality)
            };
        }
        if matches!(error, SourceError::Length { .. }) {
            self.answered();
            return Unread::Block(quality);
        }
        let trouble = Trouble {
            quality,
            reason: chain(error),
        };
        let is_new = if matches!(error, SourceError::Connect { .. }) {
            self.unit.unreachable(trouble)
        } else {
            self.unit.failed(trouble, Instant::now())
        };
        if is_new {
            tracing::warn!(source = %self.device.name, error = %chain(error), "no answer");
        }
        Unread::Unit(quality)
    }
}

/// The gateway says that the unit behind it does not answer.
const fn is_of_gateway(code: ExceptionCode) -> bool {
    matches!(
        code,
        ExceptionCode::GatewayPathUnavailable | ExceptionCode::GatewayTargetDevice
    )
}

/// One poll group: when it is due, and what it asks.
#[derive(Debug)]
pub(super) struct GroupState {
    pub(super) schedule: Schedule,
    places: Vec<Place>,
    whole: Vec<Block>,
    split: Option<Split>,
}

/// A plan around refused addresses.
#[derive(Debug)]
struct Split {
    since: Instant,
    plan: Vec<Block>,
}

impl GroupState {
    /// The group's plan within the device's limits.
    pub(super) fn new(group: &Group, limits: Limits, schedule: Schedule) -> Self {
        let places: Vec<Place> = group.tags.iter().map(|tag| tag.place).collect();
        let members: Vec<usize> = (0..places.len()).collect();
        Self {
            schedule,
            whole: plan::blocks(&places, &members, limits),
            places,
            split: None,
        }
    }

    /// Whether it is due as often as `group` and reads the very same registers in the same order.
    pub(super) fn is_of(&self, group: &Group) -> bool {
        self.schedule.period() == group.period
            && self.places.len() == group.tags.len()
            && self
                .places
                .iter()
                .zip(&group.tags)
                .all(|(place, tag)| *place == tag.place)
    }

    /// Whether it is due as often as `group` and reads some of the same registers.
    pub(super) fn resembles(&self, group: &Group) -> bool {
        self.schedule.period() == group.period
            && self
                .places
                .iter()
                .any(|place| group.tags.iter().any(|tag| *place == tag.place))
    }

    /// One reading of every tag; `tags` are those that the plan was made for.
    pub(super) async fn poll(&mut self, tags: &[TagPlan], target: &mut Target<'_>) -> Vec<Reading> {
        if self
            .split
            .as_ref()
            .is_some_and(|split| split.since.elapsed() >= REPLAN_EVERY)
        {
            self.split = None;
        }
        // One time for the whole poll: Modbus has no source time, and equal times pack into almost nothing.
        let at_us = clock::now_us();
        let mut readings = Vec::with_capacity(tags.len());
        let mut index = 0;
        while let Some(block) = self.plan().get(index) {
            match target.read(block).await {
                Ok(registers) => decode_block(block, &registers, tags, at_us, &mut readings),
                Err(Unread::Block(quality)) => {
                    let pieces = plan::split(block, &self.places, target.device.limits);
                    if pieces.is_empty() {
                        bad_block(block, quality, tags, at_us, &mut readings);
                    } else {
                        tracing::info!(source = %target.device.name, start = block.start, count = block.count, "block refused: split");
                        self.replace(index, pieces);
                        continue;
                    }
                }
                Err(Unread::Unit(quality)) => bad_block(block, quality, tags, at_us, &mut readings),
            }
            index += 1;
        }
        readings
    }

    fn plan(&self) -> &[Block] {
        self.split.as_ref().map_or(&self.whole, |split| &split.plan)
    }

    fn replace(&mut self, index: usize, pieces: Vec<Block>) {
        let split = self.split.get_or_insert_with(|| Split {
            since: Instant::now(),
            plan: self.whole.clone(),
        });
        split.plan.splice(index..=index, pieces);
    }
}

/// The record of polls that could not be taken; `missed` and `elapsed` count from the same start.
pub(super) fn not_read(tags: &[TagPlan], missed: Missed, elapsed: Duration) -> NotRead {
    let now_us = clock::now_us();
    let ago_us = |due: Duration| now_us - elapsed.saturating_sub(due).as_micros() as Micros;
    NotRead {
        tags: tags.iter().map(|tag| tag.alias).collect(),
        from_us: ago_us(missed.first),
        to_us: ago_us(missed.last),
        due: missed.count,
        reason: "overrun".to_owned(),
    }
}

fn bad_block(block: &Block, reason: Quality, tags: &[TagPlan], at_us: Micros, readings: &mut Vec<Reading>) {
    let bad = block
        .members
        .iter()
        .map(|member| Reading::bad(tags[*member].alias, at_us, reason));
    readings.extend(bad);
}

/// The readings of a block's tags from its registers, or bits as 0 and 1.
pub fn decode_block(
    block: &Block,
    registers: &[u16],
    tags: &[TagPlan],
    at_us: Micros,
    readings: &mut Vec<Reading>,
) {
    readings.extend(block.members.iter().map(|member| {
        let tag = &tags[*member];
        let from = block.offset(&tag.place);
        let slice = registers
            .get(from..from + usize::from(tag.place.width))
            .unwrap_or(&[]);
        match decode::value(slice, &tag.decoding) {
            Ok((value, quality)) => Reading::new(tag.alias, at_us, value, quality),
            Err(reason) => Reading::bad(tag.alias, at_us, reason),
        }
    }));
}
