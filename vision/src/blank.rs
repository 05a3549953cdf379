//! Does a picture show anything at all? A covered lens, a dark line or a blinded sensor gives a picture that decodes well and
//! holds no defect; it must not pass for that.

/// Of every so many pixels one is looked at.
const STEP_PX: usize = 61;
/// A picture whose brightness differs by less than this, of 255, shows nothing.
const SPREAD_MIN: u8 = 12;
/// Share of the pixels looked at that may lie outside the spread: sensor noise and hot pixels.
const OUTLIERS: usize = 200;

/// Why an RGB picture shows nothing; none when it shows something.
pub(crate) fn reason(rgb: &[u8]) -> Option<String> {
    let mut counts = [0usize; 256];
    let mut looked = 0;
    for pixel in rgb.chunks_exact(3).step_by(STEP_PX) {
        let brightness = pixel.iter().map(|part| u32::from(*part)).sum::<u32>() / 3;
        counts[brightness as usize] += 1;
        looked += 1;
    }
    let outliers = looked / OUTLIERS;
    let darkest = percentile(&counts, outliers);
    let brightest = percentile(&counts, looked.saturating_sub(1 + outliers));
    if looked == 0 || brightest.saturating_sub(darkest) >= SPREAD_MIN {
        return None;
    }
    let what = match brightest {
        0..=40 => "black",
        215.. => "white",
        _ => "of one colour",
    };
    Some(format!(
        "the picture is {what}: a covered lens, no light or a blinded sensor; not inspected"
    ))
}

/// The brightness below which `rank` of the counted pixels lie.
fn percentile(counts: &[usize; 256], rank: usize) -> u8 {
    let mut seen = 0;
    for (brightness, count) in (0..=u8::MAX).zip(counts) {
        seen += count;
        if seen > rank {
            return brightness;
        }
    }
    u8::MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t28_a_picture_of_one_brightness_shows_nothing() {
        for (level, word) in [(2u8, "black"), (128, "one colour"), (253, "white")] {
            let picture: Vec<u8> = (0..640 * 480 * 3)
                .map(|at| level.saturating_add((at % 3) as u8))
                .collect();
            assert!(
                reason(&picture).is_some_and(|reason| reason.contains(word)),
                "{level}"
            );
        }
    }

    #[test]
    fn t28_hot_pixels_do_not_make_a_dark_picture_one_that_shows_something() {
        let mut picture = vec![3u8; 640 * 480 * 3];
        picture.iter_mut().step_by(9_001).for_each(|part| *part = 255);
        assert!(reason(&picture).is_some());
    }

    #[test]
    fn t28_a_small_picture_of_one_brightness_shows_nothing_either() {
        assert!(reason(&[128; 64 * 64 * 3]).is_some_and(|reason| reason.contains("one colour")));
        assert!(reason(&[255; 3]).is_some_and(|reason| reason.contains("white")));
    }

    #[test]
    fn a_tray_shows_something_also_when_the_light_is_dim() {
        let tray = crate::render(&crate::TraySpec {
            seed: 1,
            width_px: 640,
            height_px: 480,
            defects: Vec::new(),
        });
        let dim: Vec<u8> = tray.rgb.as_raw().iter().map(|part| part / 6).collect();
        assert_eq!(reason(&dim), None);
        assert_eq!(reason(tray.rgb.as_raw()), None);
        assert_eq!(reason(&[]), None);
    }
}
