//! A good tray: belt, tray with its sealing rim, textured food, light and sensor noise. All lengths are for a frame of
//! 640×480 and scale with it.

use super::noise::{Random, cloudy, smooth};
use super::{Canvas, mix, smooth_step};

/// Base, highlight and browning of each dish.
const DISHES: [[[f32; 3]; 3]; 5] = [
    [[198.0, 146.0, 78.0], [226.0, 184.0, 118.0], [158.0, 96.0, 52.0]],
    [[216.0, 188.0, 124.0], [238.0, 218.0, 166.0], [182.0, 136.0, 76.0]],
    [[202.0, 124.0, 50.0], [226.0, 160.0, 84.0], [168.0, 92.0, 40.0]],
    [[132.0, 146.0, 78.0], [170.0, 174.0, 104.0], [186.0, 130.0, 66.0]],
    [[184.0, 78.0, 48.0], [214.0, 122.0, 76.0], [146.0, 62.0, 40.0]],
];
/// Colours of tray plastic and board.
const TRAYS: [[f32; 3]; 3] = [
    [232.0, 230.0, 222.0],
    [206.0, 208.0, 212.0],
    [222.0, 212.0, 190.0],
];

/// Everything about one frame except its defects.
#[derive(Debug)]
pub(super) struct Scene {
    seed: u64,
    /// Pixels of this frame per pixel of the 640×480 frame.
    pub(super) scale: f32,
    /// Centre of the tray.
    pub(super) centre: [f32; 2],
    /// Half the tray's width and height, rim included.
    pub(super) half: [f32; 2],
    /// Width of the sealing rim.
    pub(super) rim: f32,
    corner: f32,
    dish: [[f32; 3]; 3],
    tray: [f32; 3],
    belt: f32,
    grain: f32,
    specks: Vec<Speck>,
    gain: [f32; 3],
    light_slope: [f32; 2],
    sensor_noise: f32,
}

/// A herb or a pea: small, green or pale, and no defect.
#[derive(Debug)]
struct Speck {
    at: [f32; 2],
    radius: f32,
    colour: [f32; 3],
}

impl Scene {
    pub(super) fn new(seed: u64, width: f32, height: f32) -> Self {
        let mut random = Random::new(seed).fork(1);
        let scale = (width / 640.0).min(height / 480.0);
        let brightness = random.between(0.82, 1.14);
        let mut scene = Self {
            seed,
            scale,
            centre: [
                width / 2.0 + random.between(-45.0, 45.0) * scale,
                height / 2.0 + random.between(-35.0, 35.0) * scale,
            ],
            half: [
                random.between(195.0, 235.0) * scale,
                random.between(145.0, 172.0) * scale,
            ],
            rim: random.between(22.0, 30.0) * scale,
            corner: random.between(26.0, 46.0) * scale,
            dish: DISHES[random.below(DISHES.len())]
                .map(|colour| colour.map(|value| value + random.between(-8.0, 8.0))),
            tray: TRAYS[random.below(TRAYS.len())],
            belt: random.between(44.0, 78.0),
            grain: random.between(13.0, 26.0) * scale,
            specks: Vec::new(),
            gain: std::array::from_fn(|_| brightness * random.between(0.97, 1.03)),
            light_slope: [random.between(-0.08, 0.08), random.between(-0.08, 0.08)],
            sensor_noise: random.between(1.0, 3.5),
        };
        scene.sprinkle(&mut random);
        scene
    }

    fn sprinkle(&mut self, random: &mut Random) {
        for _ in 0..random.below(45) {
            let green = random.unit() < 0.7;
            let colour = if green {
                [70.0, 104.0, 44.0]
            } else {
                [232.0, 222.0, 186.0]
            };
            let at = std::array::from_fn(|axis| {
                self.centre[axis] + random.between(-0.9, 0.9) * (self.half[axis] - self.rim)
            });
            self.specks.push(Speck {
                at,
                radius: random.between(1.5, 3.6) * self.scale,
                colour,
            });
        }
    }

    /// Returns the signed distance to the tray's outer edge: negative inside, the rim from −`rim` to 0.
    pub(super) fn distance_to_edge(&self, x: f32, y: f32) -> f32 {
        let dx = (x - self.centre[0]).abs() - self.half[0] + self.corner;
        let dy = (y - self.centre[1]).abs() - self.half[1] + self.corner;
        dx.max(0.0).hypot(dy.max(0.0)) + dx.max(dy).min(0.0) - self.corner
    }

    /// Returns the colour of browned food of this dish.
    pub(super) fn browned(&self) -> [f32; 3] {
        self.dish[2]
    }

    pub(super) fn paint(&self, width: usize, height: usize) -> Canvas {
        let pixels = (0..width * height)
            .map(|at| self.colour((at % width) as f32, (at / width) as f32))
            .collect();
        let mut canvas = Canvas {
            width,
            height,
            pixels,
        };
        for speck in &self.specks {
            self.paint_speck(&mut canvas, speck);
        }
        canvas
    }

    fn colour(&self, x: f32, y: f32) -> [f32; 3] {
        let distance = self.distance_to_edge(x, y);
        if distance > 0.5 {
            return self.belt_colour(x, y, distance);
        }
        let rim = self.rim_colour(x, y, distance);
        // The food's edge wobbles a little but stays off the sealing area.
        let wobble =
            smooth(self.seed ^ 0x0b, x / (30.0 * self.scale), y / (30.0 * self.scale)) * 5.0 * self.scale;
        let food_share = smooth_step(0.0, 2.0 * self.scale, -distance - self.rim - wobble);
        let inside = if food_share > 0.0 {
            mix(rim, self.food_colour(x, y), food_share)
        } else {
            rim
        };
        mix(
            inside,
            self.belt_colour(x, y, 0.0),
            (distance + 0.5).clamp(0.0, 1.0),
        )
    }

    /// Modular plastic belt: links along and across, and the tray's shadow.
    fn belt_colour(&self, x: f32, y: f32, distance: f32) -> [f32; 3] {
        let pitch = 24.0 * self.scale;
        let joint = |at: f32| if (at / pitch).fract() < 0.12 { 0.72 } else { 1.0 };
        let dirt = 0.9 + 0.2 * smooth(self.seed ^ 5, x / (9.0 * self.scale), y / (9.0 * self.scale));
        let shadow = 0.6 + 0.4 * smooth_step(0.0, 14.0 * self.scale, distance);
        let level = self.belt
            * joint(x)
            * joint(
                y + if (x / pitch) as i32 % 2 == 0 {
                    0.0
                } else {
                    pitch / 2.0
                },
            )
            * dirt
            * shadow;
        [level, level * 1.03, level * 1.09]
    }

    /// Flat rim with the two embossed lines of the sealing tool and a step down to the food.
    fn rim_colour(&self, x: f32, y: f32, distance: f32) -> [f32; 3] {
        let across = -distance / self.rim;
        let line = |at: f32| smooth_step(0.06, 0.0, (across - at).abs()) * 16.0;
        let wall = smooth_step(0.9, 1.05, across) * 46.0;
        let mottle = (smooth(self.seed ^ 6, x / (14.0 * self.scale), y / (14.0 * self.scale)) - 0.5) * 10.0;
        self.tray
            .map(|value| value + mottle - line(0.3) - line(0.62) - wall)
    }

    fn food_colour(&self, x: f32, y: f32) -> [f32; 3] {
        let (u, v) = (x / self.grain, y / self.grain);
        let light = cloudy(self.seed ^ 0x15, u, v);
        let brown = smooth_step(0.56, 0.86, cloudy(self.seed ^ 0x16, u * 0.45, v * 0.45));
        let fine = (smooth(self.seed ^ 0x17, u * 6.0, v * 6.0) - 0.5) * 22.0;
        let base = mix(self.dish[0], self.dish[1], smooth_step(0.3, 0.75, light));
        mix(base, self.dish[2], brown * 0.8).map(|value| value + fine)
    }

    fn paint_speck(&self, canvas: &mut Canvas, speck: &Speck) {
        let reach = speck.radius + 1.0;
        for (x, y) in pixels_around(canvas, speck.at, [reach, reach]) {
            let (px, py) = (x as f32, y as f32);
            if self.distance_to_edge(px, py) < -self.rim - 6.0 * self.scale {
                let distance = (px - speck.at[0]).hypot(py - speck.at[1]);
                canvas.blend(
                    x,
                    y,
                    speck.colour,
                    0.85 * smooth_step(reach, speck.radius - 0.5, distance),
                );
            }
        }
    }

    /// Applies light fall-off, exposure, white balance and sensor noise.
    pub(super) fn expose(&self, canvas: &mut Canvas) {
        let mut random = Random::new(self.seed).fork(2);
        let (width, height) = (canvas.width as f32, canvas.height as f32);
        for (at, pixel) in canvas.pixels.iter_mut().enumerate() {
            let (u, v) = (
                (at % canvas.width) as f32 / width - 0.5,
                (at / canvas.width) as f32 / height - 0.5,
            );
            let light = 1.0 + self.light_slope[0] * u + self.light_slope[1] * v - 0.22 * (u * u + v * v);
            for (value, gain) in pixel.iter_mut().zip(self.gain) {
                *value = (*value * light * gain + self.sensor_noise * random.bell()).clamp(0.0, 255.0);
            }
        }
    }
}

/// Returns the pixels within `reach` of a point, cut to the canvas.
pub(super) fn pixels_around(
    canvas: &Canvas,
    at: [f32; 2],
    reach: [f32; 2],
) -> impl Iterator<Item = (usize, usize)> + use<> {
    let range = |axis: usize, end: usize| {
        let low = (at[axis] - reach[axis]).floor().max(0.0) as usize;
        let high = (at[axis] + reach[axis]).ceil().max(0.0) as usize + 1;
        low.min(end)..high.min(end)
    };
    let (columns, rows) = (range(0, canvas.width), range(1, canvas.height));
    rows.flat_map(move |y| columns.clone().map(move |x| (x, y)))
}
