//! Does the entropy-coded scan hold exactly the blocks that the header promises? Walks every Huffman code without
//! computing a pixel (40 % of the cost of a decode), so that a scan that is short, long or out of step is found.

use super::DecodeError;
use super::bits::BitReader;
use super::huffman::HuffmanTable;

/// What a scan needs to know of one colour component.
#[derive(Debug)]
pub(super) struct ScanComponent<'a> {
    /// Blocks of this component in one MCU.
    pub(super) blocks_per_mcu: u32,
    pub(super) dc: &'a HuffmanTable,
    pub(super) ac: &'a HuffmanTable,
    pub(super) quantisers: &'a Quantisers,
}

/// What can be wrong within a scan; small, because it is returned for every symbol.
#[derive(Debug, Clone, Copy)]
enum Fault {
    EarlyEnd,
    NoCode,
    Coefficient,
    Overfull,
    Impossible,
}

impl From<Fault> for DecodeError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::EarlyEnd => Self::Truncated("the scan ends before the last block"),
            Fault::NoCode => Self::Corrupt("a bit pattern is no code"),
            Fault::Coefficient => Self::Corrupt("a coefficient has no valid size"),
            Fault::Overfull => Self::Corrupt("a block has more than 64 coefficients"),
            Fault::Impossible => Self::Corrupt("a block holds more than samples can make"),
        }
    }
}

/// The 64 quantisers of a table in zigzag order, and what they allow.
#[derive(Debug)]
pub(super) struct Quantisers {
    /// Squares of the quantisers.
    squares: [f32; 64],
    /// Largest energy (sum of squares) of a block's dequantised coefficients.
    energy_max: f32,
}

impl Quantisers {
    /// By Parseval's theorem the energy of the coefficients is that of the 64 samples, each within ±128; rounding moves
    /// a coefficient by at most half its quantiser, for which a whole one is allowed.
    pub(super) fn new(steps: &[u16; 64]) -> Self {
        let squares = steps.map(|step| f32::from(step) * f32::from(step));
        let rounding = squares.iter().sum::<f32>().sqrt();
        Self {
            squares,
            energy_max: (8.0 * 128.0 + rounding).powi(2),
        }
    }
}

/// Walks `mcu_count` MCUs from `position`; returns where the marker after the scan starts.
pub(super) fn walk(
    data: &[u8],
    position: usize,
    components: &[ScanComponent<'_>],
    mcu_count: u32,
    restart_interval: u32,
) -> Result<usize, DecodeError> {
    let mut bits = BitReader::new(data, position);
    let mut predictors = [0_i32; 3];
    let mut restarts = 0_u8;
    for mcu in 0..mcu_count {
        if restart_interval > 0 && mcu > 0 && mcu % restart_interval == 0 {
            bits = BitReader::new(data, pass_restart(&mut bits, data, restarts)?);
            predictors = [0; 3];
            restarts = (restarts + 1) % 8;
        }
        for (component, predictor) in components.iter().zip(&mut predictors) {
            for _ in 0..component.blocks_per_mcu {
                walk_block(&mut bits, component, predictor)?;
            }
        }
    }
    bits.end()
        .ok_or(DecodeError::Corrupt("data left over after the last block"))
}

fn pass_restart(bits: &mut BitReader<'_>, data: &[u8], restarts: u8) -> Result<usize, DecodeError> {
    let at = bits
        .end()
        .ok_or(DecodeError::Corrupt("data left over before a restart marker"))?;
    let marker = data
        .get(at..at + 2)
        .ok_or(DecodeError::Truncated("the scan stops at a restart marker"))?;
    if marker == [0xFF, 0xD0 + restarts] {
        Ok(at + 2)
    } else {
        Err(DecodeError::Corrupt(
            "a restart marker is missing or out of order",
        ))
    }
}

#[inline]
fn walk_block(
    bits: &mut BitReader<'_>,
    component: &ScanComponent<'_>,
    predictor: &mut i32,
) -> Result<(), Fault> {
    let (size, difference) = symbol(bits, component.dc)?;
    if size > 11 {
        return Err(Fault::Coefficient);
    }
    *predictor += difference;
    let squares = &component.quantisers.squares;
    let energy_of = |coefficient: i32, index: usize| {
        let coefficient = coefficient as f32;
        coefficient * coefficient * squares[index]
    };
    let mut energy = energy_of(*predictor, 0);
    let mut index = 0_usize;
    while index < 63 {
        let (symbol, coefficient) = symbol(bits, component.ac)?;
        let (run, size) = (usize::from(symbol >> 4), symbol & 15);
        match (run, size) {
            (0, 0) => break,
            (15, 0) => index += 16,
            (_, 0 | 11..) => return Err(Fault::Coefficient),
            _ => index += run + 1,
        }
        if index > 63 {
            return Err(Fault::Overfull);
        }
        energy += energy_of(coefficient, index);
    }
    // Flipped bits often keep the codes in step; but then blocks come out that no samples can make.
    if energy > component.quantisers.energy_max {
        Err(Fault::Impossible)
    } else {
        Ok(())
    }
}

/// Reads one Huffman code and the coefficient whose size its low four bits give.
#[inline]
fn symbol(bits: &mut BitReader<'_>, table: &HuffmanTable) -> Result<(u8, i32), Fault> {
    bits.refill();
    let Some((symbol, length)) = table.look_up(bits.peek16()) else {
        // Zeros that only fill up the last bytes are an early end, not an unknown code.
        return Err(if bits.held_count() < 16 {
            Fault::EarlyEnd
        } else {
            Fault::NoCode
        });
    };
    let size = u32::from(symbol & 15);
    let value = bits.take(length, length + size).ok_or(Fault::EarlyEnd)?;
    Ok((symbol, extend(value, size)))
}

/// Turns the extra bits into a signed number (T.81, F.2.2.1): without its leading 1 it is negative.
#[inline]
fn extend(value: u32, size: u32) -> i32 {
    let half = (1_i32 << size) >> 1;
    let value = value as i32;
    // All ones when negative: the sign is as good as random, and a branch on it would be mispredicted half the time.
    let negative = (value - half) >> 31;
    value + (negative & (1 - 2 * half))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extra_bits_become_signed_differences_as_in_t81() {
        assert_eq!(extend(0, 0), 0);
        assert_eq!(extend(0, 1), -1);
        assert_eq!(extend(1, 1), 1);
        assert_eq!(extend(0b011, 3), -4);
        assert_eq!(extend(0b100, 3), 4);
    }
}
