//! Is this byte string one whole JPEG frame, and what are its pixels? Everything that is not provably whole is an
//! error: ordinary decoders return a half frame as success, and the missing half would pass inspection.

mod bits;
mod huffman;
mod scan;
mod structure;

use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

/// Largest width or height that is decoded.
pub const EDGE_PX_MAX: u32 = 8192;
/// Smallest width or height that can show a defect.
pub const EDGE_PX_MIN: u32 = 32;
/// Largest area that is decoded: 40 megapixels, 120 MB of RGB.
pub const AREA_PX_MAX: u64 = 40_000_000;

/// Why a byte string is not a frame that can be inspected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The first bytes are not a JPEG's.
    #[error("not a JPEG")]
    NotJpeg,
    /// The data stop before the picture is complete.
    #[error("truncated JPEG: {0}")]
    Truncated(&'static str),
    /// The data contradict themselves.
    #[error("corrupt JPEG: {0}")]
    Corrupt(&'static str),
    /// A JPEG of a kind that no camera here sends and that we cannot prove whole.
    #[error("unsupported JPEG: {0}")]
    Unsupported(&'static str),
    /// The header claims a size outside the limits.
    #[error(
        "frame of {width}×{height} px is outside the limits ({EDGE_PX_MIN} to {EDGE_PX_MAX} px an edge, {AREA_PX_MAX} px in all)"
    )]
    Size {
        /// Claimed width.
        width: u32,
        /// Claimed height.
        height: u32,
    },
    /// The pixel decoder refused what the structure check let through.
    #[error("JPEG decoder: {0}")]
    Decoder(String),
}

/// Size of a decoded frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameSize {
    /// Width in pixels.
    pub width_px: u32,
    /// Height in pixels.
    pub height_px: u32,
}

/// Checks that a JPEG is one whole frame within the limits, without computing a pixel; returns its size.
///
/// # Errors
/// See [`DecodeError`].
pub fn check(jpeg: &[u8]) -> Result<FrameSize, DecodeError> {
    structure::check(jpeg)
}

/// Decodes one whole JPEG into `rgb` (rows of R, G, B bytes, resized to fit and reused between calls).
///
/// The structure is walked first, down to every Huffman code of the scan: the number of blocks must be exactly what the
/// header promises and be followed by the end marker. Only then are pixels computed, so nothing is allocated for a
/// header that lies about its size.
///
/// # Errors
/// See [`DecodeError`]; `rgb` then holds nothing that may be used.
pub fn decode(jpeg: &[u8], rgb: &mut Vec<u8>) -> Result<FrameSize, DecodeError> {
    let size = check(jpeg)?;
    let expected = size.width_px as usize * size.height_px as usize * 3;
    rgb.clear();
    rgb.resize(expected, 0);
    // The structure is sound here, so a panic would be a fault of the decoder; it must not stop the line.
    let decoded = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| decode_pixels(jpeg, rgb)));
    decoded.unwrap_or_else(|_| Err(DecodeError::Decoder("it panicked".to_owned())))?;
    Ok(size)
}

fn decode_pixels(jpeg: &[u8], rgb: &mut [u8]) -> Result<(), DecodeError> {
    let options = DecoderOptions::default()
        .set_strict_mode(true)
        .set_max_width(EDGE_PX_MAX as usize)
        .set_max_height(EDGE_PX_MAX as usize)
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let refused = |error| DecodeError::Decoder(format!("{error:?}"));
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(jpeg), options);
    decoder.decode_headers().map_err(refused)?;
    if decoder.output_buffer_size() != Some(rgb.len()) {
        return Err(DecodeError::Corrupt(
            "the decoder reads another size than the header says",
        ));
    }
    decoder.decode_into(rgb).map_err(refused)
}

pub(crate) fn check_size(width: u32, height: u32) -> Result<(), DecodeError> {
    let edges_fit = [width, height]
        .iter()
        .all(|edge| (EDGE_PX_MIN..=EDGE_PX_MAX).contains(edge));
    if edges_fit && u64::from(width) * u64::from(height) <= AREA_PX_MAX {
        Ok(())
    } else {
        Err(DecodeError::Size { width, height })
    }
}
