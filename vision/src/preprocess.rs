//! What does the network see? RGB bytes → resized, letterboxed or stretched → `[1, 3, height, width]` f32, exactly as
//! the manifest says the training did it. Buffers are kept between frames.

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};

use crate::decode::FrameSize;
use crate::manifest::{ColourOrder, InputSpec, ResizeFilter};

/// Why a frame could not be brought into the network's form.
#[derive(Debug, thiserror::Error)]
pub enum PreprocessError {
    /// The pixels are not the ones of a frame of that size.
    #[error("frame of {width}×{height} px has {bytes} bytes", width = .size.width_px, height = .size.height_px)]
    Buffer {
        /// The frame's size.
        size: FrameSize,
        /// The bytes given for it.
        bytes: usize,
    },
    /// The resizer refused the frame.
    #[error("cannot resize the frame")]
    Resize(#[from] fast_image_resize::ResizeError),
    /// The frame shows next to nothing: a covered lens, a dead sensor, a light that is off.
    #[error("frame has no contrast ({span} of 255): lens covered, light off or camera faulty")]
    Blank {
        /// Brightest minus darkest sample.
        span: u8,
    },
}

/// Contrast under which a frame cannot show a defect.
const CONTRAST_SPAN_MIN: u8 = 12;

/// Where the source image lies in the network's input, to map boxes back.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Placement {
    /// Frame that was placed.
    pub source: FrameSize,
    /// Size of the image within the input.
    pub width_px: u32,
    /// Height of the image within the input.
    pub height_px: u32,
    /// Bar to the left of it.
    pub left_px: u32,
    /// Bar above it.
    pub top_px: u32,
}

impl Placement {
    /// Places a frame in the network's input: centred with bars, or stretched.
    pub fn of(source: FrameSize, input: &InputSpec) -> Self {
        if input.letterbox.is_none() {
            return Self {
                source,
                width_px: input.width,
                height_px: input.height,
                left_px: 0,
                top_px: 0,
            };
        }
        let scale = (f64::from(input.width) / f64::from(source.width_px))
            .min(f64::from(input.height) / f64::from(source.height_px));
        let fit = |edge: u32, most: u32| ((f64::from(edge) * scale).round() as u32).clamp(1, most);
        let (width_px, height_px) = (
            fit(source.width_px, input.width),
            fit(source.height_px, input.height),
        );
        Self {
            source,
            width_px,
            height_px,
            left_px: (input.width - width_px) / 2,
            top_px: (input.height - height_px) / 2,
        }
    }

    /// Maps a box in pixels of the network's input to pixels of the source, cut to the frame.
    pub fn to_source(&self, rect: [f32; 4]) -> [f32; 4] {
        let along = |at: f32, pad: u32, placed: u32, source: u32| {
            ((at - pad as f32) * source as f32 / placed as f32).clamp(0.0, source as f32)
        };
        let x = |at| along(at, self.left_px, self.width_px, self.source.width_px);
        let y = |at| along(at, self.top_px, self.height_px, self.source.height_px);
        [
            x(rect[0].min(rect[2])),
            y(rect[1].min(rect[3])),
            x(rect[0].max(rect[2])),
            y(rect[1].max(rect[3])),
        ]
    }
}

/// Fills the network's input tensor from frames.
#[derive(Debug)]
pub struct Preprocessor {
    spec: InputSpec,
    resizer: Resizer,
    options: ResizeOptions,
    resized: Image<'static>,
    tensor: Vec<f32>,
    placement: Option<Placement>,
}

impl Preprocessor {
    /// Prepares for inputs as the manifest describes them.
    pub fn new(spec: &InputSpec) -> Self {
        let algorithm = match spec.resize_filter {
            ResizeFilter::Bilinear => ResizeAlg::Interpolation(FilterType::Bilinear),
            ResizeFilter::BilinearAntialiased => ResizeAlg::Convolution(FilterType::Bilinear),
            ResizeFilter::Nearest => ResizeAlg::Nearest,
        };
        Self {
            spec: spec.clone(),
            resizer: Resizer::new(),
            options: ResizeOptions::new().resize_alg(algorithm),
            resized: Image::new(1, 1, PixelType::U8x3),
            tensor: vec![0.0; 3 * spec.width as usize * spec.height as usize],
            placement: None,
        }
    }

    /// Fills the tensor from `rgb` (rows of R, G, B bytes) and returns where the image was placed.
    ///
    /// # Errors
    /// See [`PreprocessError`]; the tensor then holds nothing that may be used.
    pub fn run(&mut self, rgb: &[u8], source: FrameSize) -> Result<Placement, PreprocessError> {
        let placement = self.place(source);
        let frame = ImageRef::new(source.width_px, source.height_px, rgb, PixelType::U8x3).map_err(|_| {
            PreprocessError::Buffer {
                size: source,
                bytes: rgb.len(),
            }
        })?;
        self.resizer.resize(&frame, &mut self.resized, &self.options)?;
        check_contrast(self.resized.buffer())?;
        self.fill(placement);
        Ok(placement)
    }

    /// Returns the tensor of the last frame, `[1, 3, height, width]`, channels in the manifest's order.
    pub fn tensor(&self) -> &[f32] {
        &self.tensor
    }

    /// Returns the factor from a byte to the network's value.
    pub fn scale(&self) -> f32 {
        self.spec.scale
    }

    /// Draws the bars and sizes the buffer anew only when the camera's frame size changes.
    fn place(&mut self, source: FrameSize) -> Placement {
        if let Some(placement) = self.placement.filter(|placement| placement.source == source) {
            return placement;
        }
        let placement = Placement::of(source, &self.spec);
        self.resized = Image::new(placement.width_px, placement.height_px, PixelType::U8x3);
        let colour = self.spec.letterbox.unwrap_or_default();
        let plane_len = self.tensor.len() / 3;
        for (plane, channel) in self
            .tensor
            .chunks_exact_mut(plane_len)
            .zip(channels(self.spec.colour_order))
        {
            plane.fill(f32::from(colour[channel]) * self.spec.scale);
        }
        self.placement = Some(placement);
        placement
    }

    fn fill(&mut self, placement: Placement) {
        let (input_width, width) = (self.spec.width as usize, placement.width_px as usize);
        let start = placement.top_px as usize * input_width + placement.left_px as usize;
        let scale = self.spec.scale;
        let (first, rest) = self.tensor.split_at_mut(input_width * self.spec.height as usize);
        let (second, third) = rest.split_at_mut(first.len());
        let (red, blue) = match self.spec.colour_order {
            ColourOrder::Rgb => (first, third),
            ColourOrder::Bgr => (third, first),
        };
        for (row, pixels) in self.resized.buffer().chunks_exact(3 * width).enumerate() {
            let span = start + row * input_width..start + row * input_width + width;
            let planes = red[span.clone()]
                .iter_mut()
                .zip(&mut second[span.clone()])
                .zip(&mut blue[span]);
            for (((r, g), b), pixel) in planes.zip(pixels.chunks_exact(3)) {
                *r = f32::from(pixel[0]) * scale;
                *g = f32::from(pixel[1]) * scale;
                *b = f32::from(pixel[2]) * scale;
            }
        }
    }
}

/// Index into R, G, B of each plane of the tensor.
const fn channels(order: ColourOrder) -> [usize; 3] {
    match order {
        ColourOrder::Rgb => [0, 1, 2],
        ColourOrder::Bgr => [2, 1, 0],
    }
}

/// Refuses frames without contrast; looks at green, where the eye and the sensor are best, of every seventh pixel.
fn check_contrast(samples: &[u8]) -> Result<(), PreprocessError> {
    let (low, high) = samples
        .chunks_exact(3)
        .step_by(7)
        .fold((u8::MAX, u8::MIN), |(low, high), pixel| {
            (low.min(pixel[1]), high.max(pixel[1]))
        });
    let span = high.saturating_sub(low);
    if span >= CONTRAST_SPAN_MIN {
        Ok(())
    } else {
        Err(PreprocessError::Blank { span })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Layout;

    fn spec(letterbox: Option<[u8; 3]>) -> InputSpec {
        InputSpec {
            width: 16,
            height: 16,
            layout: Layout::Nchw,
            colour_order: ColourOrder::Rgb,
            scale: 1.0 / 255.0,
            resize_filter: ResizeFilter::Bilinear,
            letterbox,
        }
    }

    fn size(width_px: u32, height_px: u32) -> FrameSize {
        FrameSize { width_px, height_px }
    }

    /// Left half dark, right half bright; red, green and blue all different.
    fn two_halves(width: usize, height: usize) -> Vec<u8> {
        let pixel = |x: usize| {
            if x < width / 2 {
                [10, 20, 30]
            } else {
                [200, 150, 100]
            }
        };
        (0..width * height).flat_map(|at| pixel(at % width)).collect()
    }

    #[test]
    fn letterbox_centres_the_image_between_bars_of_the_given_colour() {
        let mut preprocessor = Preprocessor::new(&spec(Some([255, 0, 51])));
        let placement = preprocessor.run(&two_halves(32, 16), size(32, 16)).unwrap();
        assert_eq!(
            (
                placement.width_px,
                placement.height_px,
                placement.left_px,
                placement.top_px
            ),
            (16, 8, 0, 4)
        );
        let tensor = preprocessor.tensor();
        assert!((tensor[0] - 1.0).abs() < 1e-6, "red bar");
        assert!(tensor[256].abs() < 1e-6, "green bar");
        assert!((tensor[512] - 0.2).abs() < 1e-6, "blue bar");
        assert!((tensor[8 * 16] - 10.0 / 255.0).abs() < 1e-6, "left half, red");
        assert!(
            (tensor[512 + 8 * 16 + 15] - 100.0 / 255.0).abs() < 1e-6,
            "right half, blue"
        );
    }

    #[test]
    fn bgr_swaps_the_first_and_third_plane() {
        let rgb = two_halves(32, 32);
        let mut straight = Preprocessor::new(&spec(None));
        let mut swapped = Preprocessor::new(&InputSpec {
            colour_order: ColourOrder::Bgr,
            ..spec(None)
        });
        straight.run(&rgb, size(32, 32)).unwrap();
        swapped.run(&rgb, size(32, 32)).unwrap();
        assert_eq!(straight.tensor()[..256], swapped.tensor()[512..]);
        assert_eq!(straight.tensor()[256..512], swapped.tensor()[256..512]);
    }

    #[test]
    fn boxes_map_back_to_the_source_and_are_cut_to_it() {
        let placement = Placement::of(size(32, 16), &spec(Some([0; 3])));
        let mapped = |rect| placement.to_source(rect).map(|edge| edge.round() as i32);
        assert_eq!(mapped([0.0, 4.0, 8.0, 8.0]), [0, 0, 16, 8]);
        assert_eq!(mapped([-5.0, 0.0, 99.0, 99.0]), [0, 0, 32, 16]);
    }

    #[test]
    fn camera_that_changes_its_frame_size_gets_clean_bars() {
        let mut preprocessor = Preprocessor::new(&spec(Some([0; 3])));
        preprocessor.run(&two_halves(32, 32), size(32, 32)).unwrap();
        preprocessor.run(&two_halves(32, 16), size(32, 16)).unwrap();
        assert!(
            preprocessor.tensor()[..4 * 16]
                .iter()
                .all(|value| value.abs() < 1e-6)
        );
    }

    #[test]
    fn frame_without_contrast_and_frame_of_the_wrong_length_are_refused() {
        let mut preprocessor = Preprocessor::new(&spec(None));
        let black = vec![3_u8; 32 * 32 * 3];
        assert!(matches!(
            preprocessor.run(&black, size(32, 32)),
            Err(PreprocessError::Blank { span: 0 })
        ));
        assert!(matches!(
            preprocessor.run(&black[1..], size(32, 32)),
            Err(PreprocessError::Buffer { .. })
        ));
    }
}
