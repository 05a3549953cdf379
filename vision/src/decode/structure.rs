//! Is this a complete baseline JPEG with a size that we accept? Walks the marker segments (ITU-T T.81, annex B), hands
//! the scan to [`super::scan`] and insists on the end marker. Allocates nothing but the Huffman tables.

use super::huffman::HuffmanTable;
use super::scan::{self, Quantisers, ScanComponent};
use super::{DecodeError, FrameSize, check_size};

#[derive(Debug, Clone, Copy)]
struct Component {
    id: u8,
    h: u32,
    v: u32,
    quantiser: usize,
}

#[derive(Debug)]
struct Frame {
    size: FrameSize,
    components: Vec<Component>,
}

/// What the segments before the scan have told.
#[derive(Debug, Default)]
struct Tables {
    quantisers: [Option<Quantisers>; 4],
    /// Huffman tables by class (DC, AC) and number.
    huffman: [[Option<HuffmanTable>; 4]; 2],
    frame: Option<Frame>,
    restart_interval: u32,
}

/// Returns the frame's size when `jpeg` is exactly one whole baseline JPEG.
pub(super) fn check(jpeg: &[u8]) -> Result<FrameSize, DecodeError> {
    if !jpeg.starts_with(&[0xFF, 0xD8]) {
        return Err(DecodeError::NotJpeg);
    }
    let mut tables = Tables::default();
    let mut position = 2;
    loop {
        let (marker, after) = marker_at(jpeg, position)?;
        let (body, next) = segment_at(jpeg, marker, after)?;
        match marker {
            0xDA => {
                let end = tables.scan(jpeg, body, next)?;
                return finish(jpeg, end, &tables);
            }
            0xC4 => tables.read_huffman(body)?,
            0xDB => tables.read_quantisers(body)?,
            0xDD => tables.restart_interval = u32::from(u16_at(body, 0)?),
            0xC0 | 0xC1 => tables.read_frame(body)?,
            0xC2 => return Err(DecodeError::Unsupported("progressive")),
            0xC3 | 0xC5..=0xCF => return Err(DecodeError::Unsupported("not baseline Huffman")),
            0xE0..=0xEF | 0xFE => {}
            _ => return Err(DecodeError::Corrupt("an unexpected marker before the scan")),
        }
        position = next;
    }
}

/// After the scan only the end marker may come, and after that only padding.
fn finish(jpeg: &[u8], position: usize, tables: &Tables) -> Result<FrameSize, DecodeError> {
    let (marker, after) = marker_at(jpeg, position)?;
    if marker == 0xDA {
        return Err(DecodeError::Unsupported("several scans"));
    }
    if marker != 0xD9 {
        return Err(DecodeError::Corrupt(
            "a marker other than the end marker after the scan",
        ));
    }
    if jpeg[after..].iter().any(|&byte| byte != 0 && byte != 0xFF) {
        return Err(DecodeError::Corrupt("data after the end marker"));
    }
    tables
        .frame
        .as_ref()
        .map(|frame| frame.size)
        .ok_or(DecodeError::Corrupt("no frame header"))
}

/// Returns the marker at `position` and where it ends; any number of FF may precede it.
fn marker_at(jpeg: &[u8], position: usize) -> Result<(u8, usize), DecodeError> {
    let rest = jpeg.get(position..).unwrap_or_default();
    match rest.first() {
        None => return Err(DecodeError::Truncated("no end marker")),
        Some(0xFF) => {}
        Some(_) => return Err(DecodeError::Corrupt("a marker is missing")),
    }
    let fill = rest.iter().take_while(|&&byte| byte == 0xFF).count();
    let marker = rest.get(fill).ok_or(DecodeError::Truncated("no end marker"))?;
    Ok((*marker, position + fill + 1))
}

/// Returns the segment's body and where it ends.
fn segment_at(jpeg: &[u8], marker: u8, position: usize) -> Result<(&[u8], usize), DecodeError> {
    if matches!(marker, 0x00..=0xBF | 0xD0..=0xD9) {
        return Err(DecodeError::Corrupt(
            "a marker before the scan that cannot stand there",
        ));
    }
    let cut = DecodeError::Truncated("a header segment is cut off");
    let length = usize::from(u16_at(jpeg, position).map_err(|_| cut.clone())?);
    if length < 2 {
        return Err(DecodeError::Corrupt(
            "a header segment is shorter than its length field",
        ));
    }
    let body = jpeg.get(position + 2..position + length).ok_or(cut)?;
    Ok((body, position + length))
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16, DecodeError> {
    match bytes.get(at..at + 2) {
        Some(&[high, low]) => Ok(u16::from_be_bytes([high, low])),
        _ => Err(SHORT),
    }
}

fn u8_at(bytes: &[u8], at: usize) -> Result<u8, DecodeError> {
    bytes.get(at).copied().ok_or(SHORT)
}

const SHORT: DecodeError = DecodeError::Corrupt("a header segment is too short");

impl Tables {
    fn read_quantisers(&mut self, mut body: &[u8]) -> Result<(), DecodeError> {
        while let Some(&head) = body.first() {
            let (bytes_each, number) = (1 + usize::from(head >> 4), usize::from(head & 15));
            let slot = self.quantisers.get_mut(number).filter(|_| bytes_each <= 2);
            let slot = slot.ok_or(DecodeError::Corrupt("an invalid quantisation table"))?;
            let values = body.get(1..1 + 64 * bytes_each).ok_or(SHORT)?;
            let mut steps = [0_u16; 64];
            for (step, value) in steps.iter_mut().zip(values.chunks_exact(bytes_each)) {
                *step = value.iter().fold(0, |step, &byte| step << 8 | u16::from(byte));
            }
            if steps.contains(&0) {
                return Err(DecodeError::Corrupt("a quantiser of zero"));
            }
            *slot = Some(Quantisers::new(&steps));
            body = &body[1 + 64 * bytes_each..];
        }
        Ok(())
    }

    fn read_huffman(&mut self, mut body: &[u8]) -> Result<(), DecodeError> {
        while let Some(&head) = body.first() {
            let counts = body.get(1..17).ok_or(SHORT)?;
            let total: usize = counts.iter().map(|&count| usize::from(count)).sum();
            let symbols = body.get(17..17 + total).ok_or(SHORT)?;
            let slot = self
                .huffman
                .get_mut(usize::from(head >> 4))
                .and_then(|class| class.get_mut(usize::from(head & 15)));
            *slot.ok_or(DecodeError::Corrupt("an invalid Huffman table number"))? =
                Some(HuffmanTable::new(counts, symbols)?);
            body = &body[17 + total..];
        }
        Ok(())
    }

    fn read_frame(&mut self, body: &[u8]) -> Result<(), DecodeError> {
        if self.frame.is_some() {
            return Err(DecodeError::Corrupt("two frame headers"));
        }
        if u8_at(body, 0)? != 8 {
            return Err(DecodeError::Unsupported("not 8 bits a sample"));
        }
        let (height, width) = (u32::from(u16_at(body, 1)?), u32::from(u16_at(body, 3)?));
        check_size(width, height)?;
        let count = usize::from(u8_at(body, 5)?);
        if count != 1 && count != 3 {
            return Err(DecodeError::Unsupported("neither grey nor three colours"));
        }
        if body.len() != 6 + 3 * count {
            return Err(DecodeError::Corrupt("a frame header of the wrong length"));
        }
        let components = body[6..]
            .chunks_exact(3)
            .map(read_component)
            .collect::<Result<Vec<_>, _>>()?;
        self.frame = Some(Frame {
            size: FrameSize {
                width_px: width,
                height_px: height,
            },
            components,
        });
        Ok(())
    }

    /// Checks the scan whose header is `body` and whose data start at `position`; returns where they end.
    fn scan(&self, jpeg: &[u8], body: &[u8], position: usize) -> Result<usize, DecodeError> {
        let frame = self
            .frame
            .as_ref()
            .ok_or(DecodeError::Corrupt("a scan before the frame header"))?;
        let count = usize::from(u8_at(body, 0)?);
        if body.len() != 4 + 2 * count {
            return Err(DecodeError::Corrupt("a scan header of the wrong length"));
        }
        if count != frame.components.len() {
            return Err(DecodeError::Unsupported("colours in separate scans"));
        }
        if body[1 + 2 * count..] != [0, 63, 0] {
            return Err(DecodeError::Corrupt("a baseline scan with a spectral range"));
        }
        let chosen = body[1..].chunks_exact(2).take(count).zip(&frame.components);
        let components = chosen
            .map(|(choice, component)| self.scan_component(choice, *component, count == 1))
            .collect::<Result<Vec<_>, _>>()?;
        scan::walk(
            jpeg,
            position,
            &components,
            mcu_count(frame),
            self.restart_interval,
        )
    }

    fn scan_component(
        &self,
        choice: &[u8],
        component: Component,
        alone: bool,
    ) -> Result<ScanComponent<'_>, DecodeError> {
        if choice[0] != component.id {
            return Err(DecodeError::Corrupt(
                "the scan names other components than the frame",
            ));
        }
        let missing = DecodeError::Corrupt("the scan uses a table that is not there");
        let table = |class: usize, number: u8| self.huffman[class].get(usize::from(number))?.as_ref();
        let dc = table(0, choice[1] >> 4).ok_or_else(|| missing.clone())?;
        let ac = table(1, choice[1] & 15).ok_or_else(|| missing.clone())?;
        let quantisers = self
            .quantisers
            .get(component.quantiser)
            .and_then(Option::as_ref)
            .ok_or(missing)?;
        let blocks_per_mcu = if alone { 1 } else { component.h * component.v };
        Ok(ScanComponent {
            blocks_per_mcu,
            dc,
            ac,
            quantisers,
        })
    }
}

fn read_component(bytes: &[u8]) -> Result<Component, DecodeError> {
    let (h, v) = (u32::from(bytes[1] >> 4), u32::from(bytes[1] & 15));
    if !(1..=4).contains(&h) || !(1..=4).contains(&v) {
        return Err(DecodeError::Corrupt("a sampling factor outside 1 to 4"));
    }
    Ok(Component {
        id: bytes[0],
        h,
        v,
        quantiser: usize::from(bytes[2]),
    })
}

/// Number of MCUs of the frame; a lone component is coded block by block whatever its sampling factors.
fn mcu_count(frame: &Frame) -> u32 {
    let largest = |factor: fn(&Component) -> u32| frame.components.iter().map(factor).max().unwrap_or(1);
    let (h, v) = if frame.components.len() == 1 {
        (1, 1)
    } else {
        (largest(|c| c.h), largest(|c| c.v))
    };
    frame.size.width_px.div_ceil(8 * h) * frame.size.height_px.div_ceil(8 * v)
}
