//! Which requests read these tags? The fewest that the device's limits allow, and of those the ones that read the
//! fewest registers; and what is asked instead of a block that the device refuses. Pure.

use super::decode::Table;

/// Where a tag's value stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Which table.
    pub table: Table,
    /// First 0-based protocol address.
    pub address: u16,
    /// Registers (or bits) it takes.
    pub width: u16,
}

impl Place {
    /// First address after it; may be 65,536.
    pub fn end(&self) -> u32 {
        u32::from(self.address) + u32::from(self.width)
    }
}

/// What a device takes in one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most registers in one request, 1 to 125.
    pub block_registers_max: u16,
    /// Most bits in one request, 1 to 2,000.
    pub block_bits_max: u16,
    /// Most registers that nobody asked for between two tags of one request; of bits 16 times as many.
    pub hole_registers_max: u16,
    /// Whether each value needs a request of its own.
    pub is_single: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            block_registers_max: 120,
            block_bits_max: 1920,
            hole_registers_max: 8,
            is_single: false,
        }
    }
}

impl Limits {
    fn count_max(self, table: Table) -> u32 {
        u32::from(if table.is_bits() {
            self.block_bits_max
        } else {
            self.block_registers_max
        })
    }

    fn hole_max(self, table: Table) -> u32 {
        u32::from(self.hole_registers_max) * if table.is_bits() { 16 } else { 1 }
    }
}

/// One request, and the tags it answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Which table.
    pub table: Table,
    /// First address.
    pub start: u16,
    /// Registers or bits asked for.
    pub count: u16,
    /// Indices of the tags answered, in order of address.
    pub members: Vec<usize>,
}

impl Block {
    /// Where in the reply a tag's value starts.
    pub fn offset(&self, place: &Place) -> usize {
        usize::from(place.address - self.start)
    }
}

/// The registers of one request while it grows, in order of address.
#[derive(Clone, Copy)]
struct Run {
    first: Place,
    end: u32,
}

impl Run {
    const fn count(&self) -> u32 {
        self.end - self.first.address as u32
    }

    /// The run with `place` in it, if the limits allow. What they refuse once they refuse of every place behind.
    fn with(self, place: Place, limits: Limits) -> Option<Self> {
        let grown = Self {
            end: self.end.max(place.end()),
            ..self
        };
        let hole = u32::from(place.address).saturating_sub(self.end);
        let fits = place.table == self.first.table
            && hole <= limits.hole_max(place.table)
            && grown.count() <= limits.count_max(place.table)
            && (!limits.is_single || place == self.first);
        fits.then_some(grown)
    }
}

/// The blocks that cover `members` of `places`: of all ways within the limits one with the fewest requests, and of
/// those one that reads the fewest registers. A value wider than the limits has a block of its own.
///
/// Cost is O(members x places a block can hold).
pub fn blocks(places: &[Place], members: &[usize], limits: Limits) -> Vec<Block> {
    let mut order = members.to_vec();
    order.sort_by_key(|index| {
        let place = &places[*index];
        (place.table, place.address, place.end())
    });
    let starts = cheapest_starts(places, &order, limits);
    let mut out = Vec::new();
    let mut end = order.len();
    while end > 0 {
        let run = &order[starts[end]..end];
        out.push(block(places, run));
        end = starts[end];
    }
    out.reverse();
    out
}

fn block(places: &[Place], members: &[usize]) -> Block {
    let first = places[members[0]];
    let end = members.iter().map(|index| places[*index].end()).max();
    Block {
        table: first.table,
        start: first.address,
        count: (end.unwrap_or(first.end()) - u32::from(first.address)) as u16,
        members: members.to_vec(),
    }
}

/// For each end `n` where the last of the cheapest blocks over the first `n` places begins. Blocks are runs in order
/// of address: exchanging members between two blocks that interleave never makes either longer.
fn cheapest_starts(places: &[Place], order: &[usize], limits: Limits) -> Vec<usize> {
    let mut best = vec![(u32::MAX, u32::MAX); order.len() + 1];
    let mut starts = vec![0; order.len() + 1];
    best[0] = (0, 0);
    for first in 0..order.len() {
        let (requests, registers) = best[first];
        let place = places[order[first]];
        let mut run = Run {
            first: place,
            end: place.end(),
        };
        for end in first + 1..=order.len() {
            let cost = (requests + 1, registers + run.count());
            if cost < best[end] {
                best[end] = cost;
                starts[end] = first;
            }
            match order.get(end).and_then(|next| run.with(places[*next], limits)) {
                Some(grown) => run = grown,
                None => break,
            }
        }
    }
    starts
}

/// What to ask instead of a block that the device refused: first without its holes, then in halves; nothing when all
/// its tags are read from the same registers, which are then the ones that are refused.
pub fn split(block: &Block, places: &[Place], limits: Limits) -> Vec<Block> {
    let without_holes = Limits {
        hole_registers_max: 0,
        ..limits
    };
    let runs = blocks(places, &block.members, without_holes);
    if runs.len() > 1 {
        return runs;
    }
    let Some(middle) = middle(block, places) else {
        return Vec::new();
    };
    let (first, second) = block.members.split_at(middle);
    [first, second]
        .into_iter()
        .flat_map(|half| blocks(places, half, without_holes))
        .collect()
}

/// The cut nearest to the middle that has different registers on either side.
fn middle(block: &Block, places: &[Place]) -> Option<usize> {
    let members = &block.members;
    let half = members.len() / 2;
    (1..members.len())
        .filter(|cut| places[members[cut - 1]] != places[members[*cut]])
        .min_by_key(|cut| cut.abs_diff(half))
}

#[cfg(test)]
mod tests;
