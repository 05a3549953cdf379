//! Are plans within the limits, complete, and as short as any plan can be?

use proptest::prelude::*;
use rand::{Rng as _, SeedableRng as _};

use super::*;

const LIMITS: Limits = Limits {
    block_registers_max: 120,
    block_bits_max: 1920,
    hole_registers_max: 8,
    is_single: false,
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

/// Requests, then registers read.
fn cost(plan: &[Block]) -> (usize, u32) {
    (plan.len(), plan.iter().map(|block| u32::from(block.count)).sum())
}

#[test]
fn t16_a_thousand_contiguous_registers_take_eight_requests_of_at_most_125() {
    let places: Vec<Place> = (0..1000).map(|address| holding(address, 1)).collect();
    assert_eq!(blocks(&places, &all(&places), LIMITS).len(), 9);
    let full = Limits {
        block_registers_max: 125,
        ..LIMITS
    };
    assert_eq!(cost(&blocks(&places, &all(&places), full)), (8, 1000));
}

#[test]
fn t16_two_thousand_bits_take_one_request_and_one_more_takes_two() {
    let limits = Limits {
        block_bits_max: 2000,
        ..LIMITS
    };
    for (bits, requests) in [(2000, 1), (2001, 2)] {
        let places: Vec<Place> = (0..bits)
            .map(|address| Place {
                table: Table::Coil,
                address,
                width: 1,
            })
            .collect();
        assert_eq!(blocks(&places, &all(&places), limits).len(), requests);
    }
}

#[test]
fn t16_the_last_register_can_be_read() {
    let places = [holding(65_534, 2), holding(65_535, 1)];
    let plan = blocks(&places, &all(&places), LIMITS);
    assert_eq!((plan.len(), plan[0].start, plan[0].count), (1, 65_534, 2));
}

#[test]
fn t16_a_device_that_takes_less_is_asked_for_less() {
    let places: Vec<Place> = (0..30).map(|address| holding(address * 2, 2)).collect();
    for (registers, requests) in [(2, 30), (3, 30), (4, 15), (60, 1), (59, 2)] {
        let limits = Limits {
            block_registers_max: registers,
            ..LIMITS
        };
        assert_eq!(
            blocks(&places, &all(&places), limits).len(),
            requests,
            "at most {registers}"
        );
    }
}

#[test]
fn a_device_that_wants_single_requests_gets_one_for_each_value() {
    let limits = Limits {
        is_single: true,
        ..LIMITS
    };
    let places = [holding(0, 1), holding(1, 2), holding(0, 1), holding(3, 1)];
    // Two bits of the same register are one value to ask for.
    let plan = blocks(&places, &all(&places), limits);
    let asked: Vec<(u16, u16, usize)> = plan
        .iter()
        .map(|block| (block.start, block.count, block.members.len()))
        .collect();
    assert_eq!(asked, [(0, 1, 2), (1, 2, 1), (3, 1, 1)]);
}

#[test]
fn of_two_plans_with_as_many_requests_the_one_with_fewer_registers_is_taken() {
    let limits = Limits {
        block_registers_max: 10,
        ..LIMITS
    };
    // Filling the first request would read the hole between 1 and 8; leaving 8 to the second reads none.
    let places = [
        holding(0, 1),
        holding(1, 1),
        holding(8, 1),
        holding(9, 1),
        holding(10, 2),
        holding(12, 2),
    ];
    let plan = blocks(&places, &all(&places), limits);
    assert_eq!(cost(&plan), (2, 8));
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

#[test]
fn the_bits_of_one_refused_register_are_not_asked_for_one_by_one() {
    let places = [holding(7, 1); 16];
    let block = &blocks(&places, &all(&places), LIMITS)[0];
    assert!(split(block, &places, LIMITS).is_empty());
}

/// The least cost of all ways to put `places` into blocks, in order or not: every partition of the set is tried.
fn least(places: &[Place], limits: Limits) -> (usize, u32) {
    fn best(
        places: &[Place],
        limits: Limits,
        next: usize,
        blocks: &mut Vec<Vec<Place>>,
    ) -> Option<(usize, u32)> {
        if next == places.len() {
            let counts = blocks.iter().map(|block| count(block, limits));
            return counts.sum::<Option<u32>>().map(|sum| (blocks.len(), sum));
        }
        let mut least = None;
        for index in 0..=blocks.len() {
            if index == blocks.len() {
                blocks.push(Vec::new());
            }
            blocks[index].push(places[next]);
            least = [least, best(places, limits, next + 1, blocks)]
                .into_iter()
                .flatten()
                .min();
            blocks[index].pop();
            if blocks[index].is_empty() {
                blocks.pop();
            }
        }
        least
    }
    best(places, limits, 0, &mut Vec::new()).unwrap()
}

/// What a block reads; nothing when the limits forbid it. Members come in order of address.
fn count(block: &[Place], limits: Limits) -> Option<u32> {
    let first = block[0];
    let mut end = first.end();
    for place in block {
        let hole = u32::from(place.address).saturating_sub(end);
        if place.table != first.table || hole > limits.hole_max(first.table) {
            return None;
        }
        end = end.max(place.end());
    }
    let count = end - u32::from(first.address);
    (count <= limits.count_max(first.table)).then_some(count)
}

#[test]
fn ten_thousand_random_maps_are_read_at_the_least_cost_there_is() {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(13);
    for map in 0..10_000 {
        let limits = Limits {
            block_registers_max: rng.random_range(4..=20),
            hole_registers_max: rng.random_range(0..=6),
            ..LIMITS
        };
        let mut places: Vec<Place> = (0..rng.random_range(1..=6))
            .map(|_| holding(rng.random_range(0..40), [1, 1, 2, 4][rng.random_range(0..4)]))
            .collect();
        places.sort_by_key(|place| (place.address, place.end()));
        let plan = blocks(&places, &all(&places), limits);
        assert_eq!(
            cost(&plan),
            least(&places, limits),
            "map {map}: {places:?} {limits:?}"
        );
    }
}

fn place() -> impl Strategy<Value = Place> {
    let table = prop_oneof![
        Just(Table::Coil),
        Just(Table::Discrete),
        Just(Table::Holding),
        Just(Table::Input)
    ];
    (table, 0u16..400, prop_oneof![Just(1u16), Just(2), Just(4)]).prop_map(|(table, address, width)| Place {
        table,
        address,
        width: if table.is_bits() { 1 } else { width },
    })
}

proptest! {
    #[test]
    fn t16_every_tag_is_covered_once_and_no_limit_is_broken(
        places in prop::collection::vec(place(), 0..80),
        block_registers_max in 4u16..=125,
        block_bits_max in 1u16..=2000,
        hole_registers_max in 0u16..=20,
    ) {
        let limits = Limits { block_registers_max, block_bits_max, hole_registers_max, is_single: false };
        let plan = blocks(&places, &all(&places), limits);
        let mut seen = vec![0; places.len()];
        for block in &plan {
            prop_assert!(u32::from(block.count) <= limits.count_max(block.table));
            let mut end = u32::from(block.start);
            for member in &block.members {
                seen[*member] += 1;
                let place = &places[*member];
                prop_assert_eq!(place.table, block.table);
                prop_assert!(u32::from(place.address).saturating_sub(end) <= limits.hole_max(block.table));
                prop_assert!(place.end() <= u32::from(block.start) + u32::from(block.count));
                end = end.max(place.end());
            }
        }
        prop_assert!(seen.iter().all(|count| *count == 1));
    }

    #[test]
    fn t15_splitting_ends_in_single_tags_and_loses_none(
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
