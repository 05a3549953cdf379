//! What would a camera above the tray line see? A deterministic renderer: the same spec gives the same pixels on every
//! machine. The simulator shows its trays, the trainer learns from them and the tests judge them, so it exists once.

mod belt;
mod defect;
mod noise;

use image::RgbImage;
use serde::{Deserialize, Serialize};

use crate::inspection::Defect;
use belt::Scene;
use noise::Random;

/// Smallest and largest frame edge that is drawn; a spec outside is drawn at the nearest of them.
pub const FRAME_EDGE_PX: std::ops::RangeInclusive<u32> = 64..=4096;

/// One tray to draw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraySpec {
    /// Decides everything that varies: place, food, light, noise, shape of the defects.
    pub seed: u64,
    /// Frame width.
    pub width_px: u32,
    /// Frame height.
    pub height_px: u32,
    /// Defects to draw, in this order; the same seed without them gives the same tray without them.
    pub defects: Vec<DefectKind>,
}

/// What can be wrong with a tray.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DefectKind {
    /// A piece of blue plastic or dark metal on the food.
    ForeignBody,
    /// Food on the sealing rim, where the film will not close.
    SealContamination,
    /// A burnt patch.
    OverBake,
    /// A thin crack through the tray's contents and base.
    Crack,
}

impl DefectKind {
    /// Every kind, in the order of the model's classes.
    pub const ALL: [Self; 4] = [
        Self::ForeignBody,
        Self::SealContamination,
        Self::OverBake,
        Self::Crack,
    ];

    /// Returns the class name that the model uses.
    pub const fn class(self) -> &'static str {
        match self {
            Self::ForeignBody => "foreign_body",
            Self::SealContamination => "seal_contamination",
            Self::OverBake => "over_bake",
            Self::Crack => "crack",
        }
    }
}

/// A drawn tray and what is truly wrong with it.
#[derive(Debug, Clone)]
pub struct Tray {
    /// The frame.
    pub rgb: RgbImage,
    /// The defects with the boxes of their visible pixels; every score is 1.0.
    pub truth: Vec<Defect>,
}

/// Pixels under construction, R, G, B from 0 to 255.
struct Canvas {
    width: usize,
    height: usize,
    pixels: Vec<[f32; 3]>,
}

impl Canvas {
    /// Mixes `colour` into the pixel at x, y, `alpha` from 0 to 1.
    fn blend(&mut self, x: usize, y: usize, colour: [f32; 3], alpha: f32) {
        let pixel = &mut self.pixels[y * self.width + x];
        *pixel = mix(*pixel, colour, alpha);
    }
}

/// Draws one tray.
pub fn render(spec: &TraySpec) -> Tray {
    let clamp = |edge: u32| edge.clamp(*FRAME_EDGE_PX.start(), *FRAME_EDGE_PX.end());
    let (width, height) = (clamp(spec.width_px), clamp(spec.height_px));
    let scene = Scene::new(spec.seed, width as f32, height as f32);
    let mut canvas = scene.paint(width as usize, height as usize);
    let mut truth: Vec<Defect> = Vec::new();
    for (index, kind) in spec.defects.iter().enumerate() {
        let mut random = Random::new(spec.seed).fork(100 + index as u64);
        truth.push(defect::paint(&mut canvas, &scene, *kind, &truth, &mut random));
    }
    scene.expose(&mut canvas);
    Tray {
        rgb: to_image(&canvas, width, height),
        truth,
    }
}

/// Encodes a frame as baseline JPEG, quality 1 to 100.
pub fn encode_jpeg(rgb: &RgbImage, quality: u8) -> Vec<u8> {
    let mut jpeg = Vec::new();
    let encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut jpeg, quality.clamp(1, 100));
    rgb.write_with_encoder(encoder)
        .expect("writing RGB of at most 65535 px an edge to memory cannot fail");
    jpeg
}

fn to_image(canvas: &Canvas, width: u32, height: u32) -> RgbImage {
    // `as u8` saturates, which is what an over-exposed sensor does.
    let bytes = canvas
        .pixels
        .iter()
        .flat_map(|pixel| pixel.map(|value| value.round() as u8))
        .collect();
    RgbImage::from_raw(width, height, bytes).expect("the canvas has three values for every pixel")
}

fn mix(a: [f32; 3], b: [f32; 3], share: f32) -> [f32; 3] {
    std::array::from_fn(|channel| a[channel] + (b[channel] - a[channel]) * share)
}

fn smooth_step(from: f32, to: f32, at: f32) -> f32 {
    let t = ((at - from) / (to - from)).clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(seed: u64, defects: &[DefectKind]) -> TraySpec {
        TraySpec {
            seed,
            width_px: 320,
            height_px: 240,
            defects: defects.to_vec(),
        }
    }

    #[test]
    fn same_spec_gives_the_same_pixels_and_another_seed_others() {
        let tray = render(&spec(7, &DefectKind::ALL));
        assert_eq!(tray.rgb, render(&spec(7, &DefectKind::ALL)).rgb);
        assert_ne!(tray.rgb, render(&spec(8, &DefectKind::ALL)).rgb);
    }

    #[test]
    fn defects_change_only_the_pixels_in_their_boxes() {
        for (seed, kind) in (0..20).zip(DefectKind::ALL.into_iter().cycle()) {
            let (clean, marked) = (render(&spec(seed, &[])), render(&spec(seed, &[kind])));
            let truth = &marked.truth[0];
            let (mut inside, mut outside) = (0_u32, 0_u32);
            for (x, y, pixel) in marked.rgb.enumerate_pixels() {
                let change = pixel
                    .0
                    .iter()
                    .zip(clean.rgb.get_pixel(x, y).0)
                    .map(|(a, b)| a.abs_diff(b))
                    .max();
                if change > Some(24) {
                    let (x, y) = (x as f32, y as f32);
                    let hit = x >= truth.x0 - 2.0
                        && x <= truth.x1 + 2.0
                        && y >= truth.y0 - 2.0
                        && y <= truth.y1 + 2.0;
                    *(if hit { &mut inside } else { &mut outside }) += 1;
                }
            }
            assert!(
                inside >= 10,
                "{kind:?} with seed {seed} shows on {inside} px only"
            );
            assert!(
                outside * 10 <= inside,
                "{kind:?} with seed {seed}: {outside} px outside its box, {inside} inside"
            );
        }
    }

    #[test]
    fn boxes_lie_in_the_frame_and_are_wide_enough_to_learn() {
        for seed in 0..30 {
            let tray = render(&TraySpec {
                width_px: 640,
                height_px: 480,
                ..spec(seed, &DefectKind::ALL)
            });
            assert_eq!(tray.truth.len(), 4);
            for defect in &tray.truth {
                assert!(
                    defect.x0 >= 0.0 && defect.y0 >= 0.0 && defect.x1 <= 640.0 && defect.y1 <= 480.0,
                    "{defect:?}"
                );
                assert!(
                    defect.x1 - defect.x0 >= 12.0 && defect.y1 - defect.y0 >= 12.0,
                    "{defect:?}"
                );
                assert!((defect.score - 1.0).abs() < f32::EPSILON);
            }
        }
    }

    #[test]
    fn impossible_sizes_are_drawn_at_the_nearest_possible_one() {
        let tray = render(&TraySpec {
            width_px: 0,
            height_px: 1,
            ..spec(1, &DefectKind::ALL)
        });
        assert_eq!(tray.rgb.dimensions(), (64, 64));
    }
}
