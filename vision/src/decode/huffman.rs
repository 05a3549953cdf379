//! Which symbol do the next bits spell? A JPEG Huffman table (ITU-T T.81, annex C and F.2.2.3) with a lookup for the
//! short codes, which are nearly all of them.

use super::DecodeError;

const FAST_BITS: usize = 10;

/// A Huffman table ready for decoding.
#[derive(Debug, Clone)]
pub(super) struct HuffmanTable {
    /// By the next `FAST_BITS` bits: symbol and code length, length 0 when the code is longer.
    fast: Box<[(u8, u8); 1 << FAST_BITS]>,
    /// By code length: first code that is too large for it, aligned to 16 bits.
    limit: [u32; 17],
    /// By code length: what to add to the code to get the symbol's index.
    offset: [i32; 17],
    symbols: Vec<u8>,
}

impl HuffmanTable {
    /// Builds the table from the number of codes of each length 1 to 16 and the symbols in order.
    pub(super) fn new(counts: &[u8], symbols: &[u8]) -> Result<Self, DecodeError> {
        let mut table = Self {
            fast: Box::new([(0, 0); 1 << FAST_BITS]),
            limit: [0; 17],
            offset: [0; 17],
            symbols: symbols.to_vec(),
        };
        let (mut code, mut index) = (0_u32, 0_usize);
        for (length, &count) in (1..=16_usize).zip(counts) {
            table.offset[length] = index as i32 - code as i32;
            let end = code + u32::from(count);
            if end > 1 << length {
                return Err(DecodeError::Corrupt("a Huffman table has more codes than fit"));
            }
            for (value, &symbol) in (code..end).zip(symbols.get(index..).unwrap_or_default()) {
                table.fill_fast(value as usize, length, symbol);
            }
            index += usize::from(count);
            table.limit[length] = end << (16 - length);
            code = end << 1;
        }
        Ok(table)
    }

    fn fill_fast(&mut self, code: usize, length: usize, symbol: u8) {
        if length <= FAST_BITS {
            let free = FAST_BITS - length;
            self.fast[code << free..(code + 1) << free].fill((symbol, length as u8));
        }
    }

    /// Returns symbol and code length for the next 16 bits; `None` when no code starts so.
    #[inline]
    pub(super) fn look_up(&self, next16: usize) -> Option<(u8, u32)> {
        let (symbol, length) = self.fast[(next16 >> (16 - FAST_BITS)) & ((1 << FAST_BITS) - 1)];
        if length > 0 {
            Some((symbol, u32::from(length)))
        } else {
            self.look_up_long(next16)
        }
    }

    #[cold]
    fn look_up_long(&self, next16: usize) -> Option<(u8, u32)> {
        let length = (FAST_BITS + 1..=16).find(|&length| (next16 as u32) < self.limit[length])?;
        let index = (next16 >> (16 - length)) as i32 + self.offset[length];
        let symbol = self.symbols.get(usize::try_from(index).ok()?)?;
        Some((*symbol, length as u32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_long_codes_are_found_and_unused_codes_are_not() {
        let mut counts = [0_u8; 16];
        counts[0] = 1; // 0
        counts[1] = 1; // 10
        counts[11] = 1; // 1100_0000_0000
        let table = HuffmanTable::new(&counts, &[7, 8, 9]).unwrap();
        assert_eq!(table.look_up(0x0000), Some((7, 1)));
        assert_eq!(table.look_up(0x8000), Some((8, 2)));
        assert_eq!(table.look_up(0xC000), Some((9, 12)));
        assert_eq!(table.look_up(0xFFFF), None);
    }

    #[test]
    fn oversubscribed_table_is_refused() {
        assert!(HuffmanTable::new(&[3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[1, 2, 3]).is_err());
    }
}
