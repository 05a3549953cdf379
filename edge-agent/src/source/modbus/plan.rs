//! Which requests read these tags? Coalesces neighbouring registers within the device's limits, and splits a
//! block that the device refuses. Pure.

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
    /// Most registers in one request; bits are limited to 16 times as many.
    pub block_registers_max: u16,
    /// Most registers that nobody asked for between two tags of one request.
    pub hole_registers_max: u16,
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

/// The fewest blocks that cover `members` of `places`: each is filled as far as the limits allow before the
/// next is begun, which is optimal for intervals on a line.
pub fn blocks(places: &[Place], members: &[usize], limits: Limits) -> Vec<Block> {
    let mut order = members.to_vec();
    order.sort_by_key(|index| {
        let place = &places[*index];
        (place.table, place.address, place.end())
    });
    let mut out: Vec<Block> = Vec::new();
    for index in order {
        let place = &places[index];
        match out.last_mut().filter(|block| fits(block, *place, limits)) {
            Some(block) => {
                let end = (u32::from(block.start) + u32::from(block.count)).max(place.end());
                block.count = (end - u32::from(block.start)) as u16;
                block.members.push(index);
            }
            None => out.push(Block {
                table: place.table,
                start: place.address,
                count: place.width,
                members: vec![index],
            }),
        }
    }
    out
}

fn fits(block: &Block, place: Place, limits: Limits) -> bool {
    let (count_max, hole_max) = if place.table.is_bits() {
        let bits = |registers: u16| u32::from(registers) * 16;
        (bits(limits.block_registers_max), bits(limits.hole_registers_max))
    } else {
        (
            u32::from(limits.block_registers_max),
            u32::from(limits.hole_registers_max),
        )
    };
    let end = u32::from(block.start) + u32::from(block.count);
    let hole = u32::from(place.address).saturating_sub(end);
    block.table == place.table
        && hole <= hole_max
        && end.max(place.end()) - u32::from(block.start) <= count_max
}

/// What to ask instead of a block that the device refused: first without its holes, then in halves; nothing when
/// a single tag is left, which is then the one that is refused.
pub fn split(block: &Block, places: &[Place], limits: Limits) -> Vec<Block> {
    if block.members.len() < 2 {
        return Vec::new();
    }
    let without_holes = Limits {
        hole_registers_max: 0,
        ..limits
    };
    let runs = blocks(places, &block.members, without_holes);
    if runs.len() > 1 {
        return runs;
    }
    let (first, second) = block.members.split_at(block.members.len() / 2);
    [first, second]
        .into_iter()
        .flat_map(|half| blocks(places, half, without_holes))
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits {
        block_registers_max: 120,
        hole_registers_max: 8,
    };

    fn holding(address: u16, width: u16) -> Place {
        Place {
            table: Table::Holding,
            address,
            width,
        }
    }

    fn all(places: &[Place]) -> Vec<usize> {
        (0..places.len()).collect()
    }

    #[test]
    fn a_thousand_contiguous_registers_take_nine_requests_of_at_most_120() {
        let places: Vec<Place> = (0..1000).map(|address| holding(address, 1)).collect();
        assert_eq!(blocks(&places, &all(&places), LIMITS).len(), 9);
        let full = Limits {
            block_registers_max: 125,
            ..LIMITS
        };
        assert_eq!(blocks(&places, &all(&places), full).len(), 8);
    }

    #[test]
    fn the_last_register_can_be_read() {
        let places = [holding(65_534, 2), holding(65_535, 1)];
        let plan = blocks(&places, &all(&places), LIMITS);
        assert_eq!((plan.len(), plan[0].start, plan[0].count), (1, 65_534, 2));
    }

    #[test]
    fn a_refused_block_loses_its_holes_first_and_is_halved_then() {
        let places = [holding(0, 1), holding(1, 1), holding(5, 1)];
        let block = &blocks(&places, &all(&places), LIMITS)[0];
        let runs = split(block, &places, LIMITS);
        assert_eq!(
            runs.iter().map(|run| run.members.len()).collect::<Vec<_>>(),
            [2, 1]
        );
        let halves = split(&runs[0], &places, LIMITS);
        assert_eq!(halves.len(), 2);
        assert!(split(&halves[0], &places, LIMITS).is_empty());
    }

    fn place() -> impl Strategy<Value = Place> {
        let table = prop_oneof![
            Just(Table::Coil),
            Just(Table::Discrete),
            Just(Table::Holding),
            Just(Table::Input)
        ];
        (table, 0u16..400, prop_oneof![Just(1u16), Just(2), Just(4)]).prop_map(|(table, address, width)| {
            Place {
                table,
                address,
                width: if table.is_bits() { 1 } else { width },
            }
        })
    }

    proptest! {
        #[test]
        fn every_tag_is_covered_once_and_no_limit_is_broken(
            places in prop::collection::vec(place(), 0..80),
            block_registers_max in 4u16..=125,
            hole_registers_max in 0u16..=20,
        ) {
            let limits = Limits { block_registers_max, hole_registers_max };
            let plan = blocks(&places, &all(&places), limits);
            let mut seen = vec![0; places.len()];
            for block in &plan {
                let max = if block.table.is_bits() { block_registers_max * 16 } else { block_registers_max };
                prop_assert!(block.count <= max);
                let mut end = u32::from(block.start);
                let hole_max = u32::from(hole_registers_max) * if block.table.is_bits() { 16 } else { 1 };
                for member in &block.members {
                    seen[*member] += 1;
                    let place = &places[*member];
                    prop_assert_eq!(place.table, block.table);
                    prop_assert!(u32::from(place.address).saturating_sub(end) <= hole_max);
                    prop_assert!(place.end() <= u32::from(block.start) + u32::from(block.count));
                    end = end.max(place.end());
                }
            }
            prop_assert!(seen.iter().all(|count| *count == 1));
        }

        #[test]
        fn splitting_ends_in_single_tags_and_loses_none(
            addresses in prop::collection::btree_set(0u16..300, 1..60),
        ) {
            let places: Vec<Place> = addresses.into_iter().map(|address| holding(address, 1)).collect();
            let mut queue = blocks(&places, &all(&places), LIMITS);
            let mut single = Vec::new();
            let mut steps = 0;
            while let Some(block) = queue.pop() {
                steps += 1;
                prop_assert!(steps < 1000);
                let pieces = split(&block, &places, LIMITS);
                if pieces.is_empty() {
                    single.extend(block.members);
                } else {
                    queue.extend(pieces);
                }
            }
            single.sort_unstable();
            prop_assert_eq!(single, all(&places));
        }
    }
}
