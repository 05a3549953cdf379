//! Which bits come next in an entropy-coded segment? Undoes byte stuffing and never reads past a marker.

/// Reads the bits of one entropy-coded segment.
#[derive(Debug)]
pub(super) struct BitReader<'a> {
    data: &'a [u8],
    /// Index of the first byte not yet taken.
    position: usize,
    /// Bits not yet consumed, at the top.
    held: u64,
    held_count: u32,
}

impl<'a> BitReader<'a> {
    pub(super) fn new(data: &'a [u8], position: usize) -> Self {
        Self {
            data,
            position,
            held: 0,
            held_count: 0,
        }
    }

    /// Holds at least 32 bits afterwards unless the segment ends before.
    #[inline]
    pub(super) fn refill(&mut self) {
        if self.held_count >= 32 {
            return;
        }
        // Four bytes at once when none of them is FF, which is the rule.
        if let Some(&[a, b, c, d]) = self.data.get(self.position..self.position + 4) {
            let word = u32::from_be_bytes([a, b, c, d]);
            if (!word).wrapping_sub(0x0101_0101) & word & 0x8080_8080 == 0 {
                self.held |= u64::from(word) << (32 - self.held_count);
                self.held_count += 32;
                self.position += 4;
                return;
            }
        }
        self.refill_bytewise();
    }

    fn refill_bytewise(&mut self) {
        while self.held_count <= 56 {
            let Some(&byte) = self.data.get(self.position) else {
                return;
            };
            if byte == 0xFF {
                // FF 00 is a stuffed FF; FF followed by anything else is a marker and ends the segment.
                if self.data.get(self.position + 1) != Some(&0) {
                    return;
                }
                self.position += 1;
            }
            self.position += 1;
            self.held |= u64::from(byte) << (56 - self.held_count);
            self.held_count += 8;
        }
    }

    pub(super) fn held_count(&self) -> u32 {
        self.held_count
    }

    /// Returns the next 16 bits, zeros after the end, without consuming them.
    #[inline]
    pub(super) fn peek16(&self) -> usize {
        (self.held >> 48) as usize
    }

    /// Consumes `count` (≤ 32) bits and returns those after the first `skip` as a number; `None` past the end.
    #[inline]
    pub(super) fn take(&mut self, skip: u32, count: u32) -> Option<u32> {
        if count > self.held_count {
            return None;
        }
        // In two steps, because a shift by 64 does not exist.
        let value = ((self.held << skip) >> 1) >> (63 - (count - skip));
        self.held <<= count;
        self.held_count -= count;
        Some(value as u32)
    }

    /// Returns where the marker after this segment starts; `None` when whole bytes are left unread.
    pub(super) fn end(&mut self) -> Option<usize> {
        self.refill();
        (self.held_count < 8).then_some(self.position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stuffed_bytes_are_undone_and_markers_end_the_segment() {
        let mut bits = BitReader::new(&[0xFF, 0x00, 0x81, 0xFF, 0xD9], 0);
        bits.refill();
        assert_eq!(bits.held_count(), 16);
        assert_eq!(bits.peek16(), 0xFF81);
        assert_eq!(bits.take(4, 12), Some(0xF8));
        assert_eq!(bits.take(0, 5), None);
        assert_eq!(bits.end(), Some(3));
    }

    #[test]
    fn unread_bytes_before_the_marker_are_noticed() {
        let mut bits = BitReader::new(&[1, 2, 0xFF, 0xD9], 0);
        bits.refill();
        assert_eq!(bits.take(0, 4), Some(0));
        assert_eq!(bits.end(), None);
    }
}
