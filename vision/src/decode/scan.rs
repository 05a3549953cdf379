//! Does the entropy-coded scan hold exactly the blocks that the header promises? Walks every Huffman code without
//! computing a pixel (about a tenth of a decode), so that a scan that is short, long or out of step is found.

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

/// The 64 quantisers of a table in zigzag order, and what they allow.
#[derive(Debug)]
pub(super) struct Quantisers {
    steps: [u16; 64],
    /// Largest energy (sum of squares) of a block's dequantised coefficients.
    energy_max: f64,
}

impl Quantisers {
    /// By Parseval's theorem the energy of the coefficients is that of the 64 samples, each within ±128; rounding moves
    /// a coefficient by at most half its quantiser, for which a whole one is allowed.
    pub(super) fn new(steps: [u16; 64]) -> Self {
        let rounding: f64 = steps.iter().map(|&step| f64::from(step).powi(2)).sum();
        Self {
            steps,
            energy_max: (8.0 * 128.0 + rounding.sqrt()).powi(2),
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
) -> Result<(), DecodeError> {
    let (size, value) = symbol(bits, component.dc, u32::from)?;
    if size > 11 {
        return Err(DecodeError::Corrupt("a DC difference is too large"));
    }
    *predictor += extend(value, u32::from(size));
    let quantisers = component.quantisers;
    let square = |coefficient: i32, index: usize| {
        (f64::from(coefficient) * f64::from(quantisers.steps[index])).powi(2)
    };
    let mut energy = square(*predictor, 0);
    let mut index = 0_usize;
    while index < 63 {
        let (symbol, value) = symbol(bits, component.ac, |symbol| u32::from(symbol & 15))?;
        let (run, size) = (usize::from(symbol >> 4), symbol & 15);
        match (run, size) {
            (0, 0) => break,
            (15, 0) => index += 16,
            (_, 0 | 11..) => return Err(DecodeError::Corrupt("a coefficient has no valid code")),
            _ => index += run + 1,
        }
        if index > 63 {
            return Err(DecodeError::Corrupt("a block has more than 64 coefficients"));
        }
        energy += square(extend(value, u32::from(size)), index);
    }
    // Flipped bits often keep the codes in step; but then blocks come out that no samples can make.
    if energy > quantisers.energy_max {
        return Err(DecodeError::Corrupt("a block holds more than samples can make"));
    }
    Ok(())
}

/// Reads one Huffman code and the extra bits that its symbol announces.
#[inline]
fn symbol(
    bits: &mut BitReader<'_>,
    table: &HuffmanTable,
    extra: impl Fn(u8) -> u32,
) -> Result<(u8, u32), DecodeError> {
    if bits.held_count() < 32 {
        bits.refill();
    }
    let Some((symbol, length)) = table.look_up(bits.peek16()) else {
        // Zeros or ones that only fill up the last bytes are an early end, not an unknown code.
        return Err(if bits.held_count() < 16 {
            DecodeError::Truncated("the scan ends before the last block")
        } else {
            DecodeError::Corrupt("a bit pattern is no code")
        });
    };
    let value = bits
        .take(length, length + extra(symbol).min(16))
        .ok_or(DecodeError::Truncated("the scan ends before the last block"))?;
    Ok((symbol, value))
}

/// Turns the extra bits into a signed difference (T.81, F.2.2.1).
fn extend(value: u32, size: u32) -> i32 {
    if size == 0 || value >> (size - 1) != 0 {
        value as i32
    } else {
        value as i32 - (1 << size) + 1
    }
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
