//! What picture travels with a verdict? A small copy of the frame: 320 px wide, at most 24 KB.

use std::io::Cursor;

use image::{DynamicImage, ImageFormat, ImageReader, Limits, codecs::jpeg::JpegEncoder};

const WIDTH_PX: u32 = 320;
const BYTES_MAX: usize = 24 * 1024;
/// Tried in turn until the picture is small enough.
const QUALITIES: [u8; 4] = [70, 50, 35, 20];
/// A header may claim any size; nothing is allocated beyond this.
const SIDE_PX_MAX: u32 = 8_192;
const ALLOC_BYTES_MAX: u64 = 160 << 20;

/// A small JPEG of a frame; none when the frame cannot be read or made small enough.
pub(super) fn make(jpeg: &[u8]) -> Option<Vec<u8>> {
    let mut reader = ImageReader::with_format(Cursor::new(jpeg), ImageFormat::Jpeg);
    let mut limits = Limits::default();
    limits.max_image_width = Some(SIDE_PX_MAX);
    limits.max_image_height = Some(SIDE_PX_MAX);
    limits.max_alloc = Some(ALLOC_BYTES_MAX);
    reader.limits(limits);
    let frame = reader.decode().ok()?;
    let small = if frame.width() > WIDTH_PX {
        frame.thumbnail(WIDTH_PX, u32::MAX)
    } else {
        frame
    };
    let small = DynamicImage::ImageRgb8(small.into_rgb8());
    QUALITIES.iter().find_map(|quality| {
        let mut out = Vec::new();
        small
            .write_with_encoder(JpegEncoder::new_with_quality(&mut out, *quality))
            .ok()?;
        (out.len() <= BYTES_MAX).then_some(out)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noisy_jpeg(width: u32, height: u32) -> Vec<u8> {
        let image = image::RgbImage::from_fn(width, height, |x, y| {
            let noise = (x.wrapping_mul(2_654_435_761) ^ y.wrapping_mul(40_503)).to_le_bytes();
            image::Rgb([noise[0], noise[1], noise[2]])
        });
        let mut out = Vec::new();
        DynamicImage::ImageRgb8(image)
            .write_with_encoder(JpegEncoder::new_with_quality(&mut out, 90))
            .unwrap();
        out
    }

    #[test]
    fn a_frame_becomes_320_px_wide_and_at_most_24_kb() {
        let small = make(&noisy_jpeg(640, 480)).unwrap();
        let decoded = image::load_from_memory(&small).unwrap();
        assert_eq!((decoded.width(), decoded.height()), (320, 240));
        assert!(small.len() <= BYTES_MAX);
    }

    #[test]
    fn what_is_no_picture_has_no_thumbnail() {
        assert_eq!(make(b"not a picture"), None);
        assert_eq!(make(&noisy_jpeg(640, 480)[..20]), None);
    }
}
