//! Randomness that never changes: golden vectors and trained weights rest on these numbers, so the generator is ours
//! (SplitMix64) and no dependency's upgrade can move a pixel.

/// A seeded stream of numbers.
#[derive(Debug, Clone)]
pub(super) struct Random {
    state: u64,
}

/// SplitMix64's output function (Steele, Lea, Flood 2014).
fn scramble(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            state: scramble(seed ^ 0x5EED_7AB1_E5EE_D001),
        }
    }

    /// Returns a stream of its own for one purpose, so that adding a purpose does not shift the others.
    pub(super) fn fork(&self, purpose: u64) -> Self {
        Self {
            state: scramble(self.state ^ scramble(purpose.wrapping_add(0x9E37_79B9_7F4A_7C15))),
        }
    }

    pub(super) fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        scramble(self.state)
    }

    /// Returns a number in `[0, 1)`.
    pub(super) fn unit(&mut self) -> f32 {
        (self.next_u64() >> 40) as f32 / (1_u64 << 24) as f32
    }

    pub(super) fn between(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.unit()
    }

    pub(super) fn below(&mut self, end: usize) -> usize {
        (self.next_u64() % end as u64) as usize
    }

    /// Returns a roughly normal number, mean 0 and deviation 1: the sum of four uniform 16-bit numbers.
    pub(super) fn bell(&mut self) -> f32 {
        let bits = self.next_u64();
        let sum: u64 = (0..4).map(|part| (bits >> (16 * part)) & 0xFFFF).sum();
        (sum as f32 / 65_535.0 - 2.0) * 1.732_050_8
    }
}

/// Smooth noise in `[0, 1]` over the plane, one bump a unit.
pub(super) fn smooth(seed: u64, x: f32, y: f32) -> f32 {
    let (column, row) = (x.floor(), y.floor());
    let corner = |dx: f32, dy: f32| {
        let cell = ((column + dx) as i64 as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15)
            ^ ((row + dy) as i64 as u64).wrapping_mul(0xC2B2_AE3D_27D4_EB4F);
        (scramble(seed ^ cell) >> 40) as f32 / (1_u64 << 24) as f32
    };
    let ease = |t: f32| t * t * (3.0 - 2.0 * t);
    let (tx, ty) = (ease(x - column), ease(y - row));
    let top = corner(0.0, 0.0) + (corner(1.0, 0.0) - corner(0.0, 0.0)) * tx;
    let bottom = corner(0.0, 1.0) + (corner(1.0, 1.0) - corner(0.0, 1.0)) * tx;
    top + (bottom - top) * ty
}

/// Three octaves of [`smooth`], in `[0, 1]`.
pub(super) fn cloudy(seed: u64, x: f32, y: f32) -> f32 {
    0.55 * smooth(seed, x, y)
        + 0.3 * smooth(seed ^ 1, 2.1 * x, 2.1 * y)
        + 0.15 * smooth(seed ^ 2, 4.3 * x, 4.3 * y)
}
