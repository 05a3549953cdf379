//! What goes wrong with a tray, drawn where it happens: foreign bodies and burns on the food, smears on the rim, cracks
//! across. Each painter answers how much of its colour a pixel takes; the box is that of the pixels that took enough.

use super::belt::{Scene, pixels_around};
use super::noise::{Random, cloudy, smooth};
use super::{Canvas, DefectKind, smooth_step};
use crate::inspection::Defect;

/// Share of the defect's colour from which a pixel counts as part of it.
const VISIBLE_ALPHA: f32 = 0.3;
/// Boxes are padded to this edge, in pixels of the 640×480 frame: thinner ones cannot be learned.
const BOX_EDGE_PX_MIN: f32 = 12.0;
/// Places tried before a defect may overlap another.
const PLACES_TRIED: usize = 24;

/// A defect that has a place but is not drawn yet.
struct Mark {
    at: [f32; 2],
    reach: [f32; 2],
    shape: Shape,
}

enum Shape {
    Ellipse {
        axes: [f32; 2],
        turn: f32,
        colour: [f32; 3],
        seed: u64,
        ragged: f32,
        soft: f32,
        opacity: f32,
        shine: bool,
    },
    Smear {
        along: usize,
        half_length: f32,
        half_width: f32,
        colour: [f32; 3],
        seed: u64,
    },
    Line {
        points: Vec<[f32; 2]>,
        half_width: f32,
    },
}

/// Draws one defect where it overlaps none of `others`, if there is such a place, and returns its truth.
pub(super) fn paint(
    canvas: &mut Canvas,
    scene: &Scene,
    kind: DefectKind,
    others: &[Defect],
    random: &mut Random,
) -> Defect {
    let mut mark = place(scene, kind, random);
    for _ in 0..PLACES_TRIED {
        let bounds = bounds(&mark, kind, canvas);
        if others.iter().all(|other| other.iou(&bounds) <= 0.0) {
            break;
        }
        mark = place(scene, kind, random);
    }
    draw(canvas, scene, &mark, kind)
}

fn place(scene: &Scene, kind: DefectKind, random: &mut Random) -> Mark {
    match kind {
        DefectKind::ForeignBody => foreign_body(scene, random),
        DefectKind::SealContamination => seal_contamination(scene, random),
        DefectKind::OverBake => over_bake(scene, random),
        DefectKind::Crack => crack(scene, random),
    }
}

/// Returns a point on the food at least `margin` inside its edge.
fn on_food(scene: &Scene, margin: f32, random: &mut Random) -> [f32; 2] {
    std::array::from_fn(|axis| {
        let room = (scene.half[axis] - scene.rim - margin).max(1.0);
        scene.centre[axis] + random.between(-room, room)
    })
}

fn foreign_body(scene: &Scene, random: &mut Random) -> Mark {
    let blue = [[28.0, 70.0, 196.0], [20.0, 110.0, 210.0], [44.0, 52.0, 150.0]];
    let metal = [36.0, 40.0, 48.0];
    let colour = if random.unit() < 0.65 {
        blue[random.below(blue.len())]
    } else {
        metal
    };
    let long = random.between(9.0, 17.0) * scene.scale;
    let axes = [long, long * random.between(0.55, 1.0)];
    let shape = Shape::Ellipse {
        axes,
        turn: random.between(0.0, std::f32::consts::PI),
        colour,
        seed: random.next_u64(),
        ragged: 0.25,
        soft: 0.12,
        opacity: 0.96,
        shine: true,
    };
    Mark {
        at: on_food(scene, 22.0 * scene.scale, random),
        reach: [long * 1.4; 2],
        shape,
    }
}

fn over_bake(scene: &Scene, random: &mut Random) -> Mark {
    let axes = [
        random.between(30.0, 62.0) * scene.scale,
        random.between(26.0, 50.0) * scene.scale,
    ];
    let shape = Shape::Ellipse {
        axes,
        turn: random.between(0.0, std::f32::consts::PI),
        colour: [
            random.between(38.0, 58.0),
            random.between(22.0, 32.0),
            random.between(12.0, 20.0),
        ],
        seed: random.next_u64(),
        ragged: 0.5,
        soft: 0.4,
        opacity: random.between(0.8, 0.94),
        shine: false,
    };
    let reach = axes[0].max(axes[1]) * 1.6;
    Mark {
        at: on_food(scene, 40.0 * scene.scale, random),
        reach: [reach; 2],
        shape,
    }
}

fn seal_contamination(scene: &Scene, random: &mut Random) -> Mark {
    // The side it lies on: along the x axis at the top or bottom, or along y at the left or right.
    let along = random.below(2);
    let across = 1 - along;
    let half_length = random.between(22.0, 58.0) * scene.scale;
    let side = if random.unit() < 0.5 { -1.0 } else { 1.0 };
    let room = (scene.half[along] - half_length - 30.0 * scene.scale).max(1.0);
    let mut at = [0.0; 2];
    at[along] = scene.centre[along] + random.between(-room, room);
    at[across] = scene.centre[across] + side * (scene.half[across] - scene.rim * random.between(0.4, 0.6));
    let half_width = scene.rim * random.between(0.4, 0.62);
    let mut reach = [half_width * 1.5; 2];
    reach[along] = half_length * 1.25;
    let colour = scene.browned().map(|value| value * random.between(0.78, 0.92));
    Mark {
        at,
        reach,
        shape: Shape::Smear {
            along,
            half_length,
            half_width,
            colour,
            seed: random.next_u64(),
        },
    }
}

fn crack(scene: &Scene, random: &mut Random) -> Mark {
    let length = random.between(80.0, 170.0) * scene.scale;
    let steps = 7 + random.below(5);
    let mut heading = random.between(0.0, std::f32::consts::TAU);
    let middle = on_food(scene, 70.0 * scene.scale, random);
    let step = length / steps as f32;
    let mut points = vec![std::array::from_fn(|axis| {
        middle[axis] - 0.5 * length * if axis == 0 { heading.cos() } else { heading.sin() }
    })];
    for _ in 0..steps {
        heading += random.between(-0.55, 0.55);
        let [x, y]: [f32; 2] = points[points.len() - 1];
        points.push([x + step * heading.cos(), y + step * heading.sin()]);
    }
    let half_width = random.between(1.1, 1.9) * scene.scale.max(0.7);
    let low: [f32; 2] = std::array::from_fn(|axis| points.iter().map(|p| p[axis]).fold(f32::MAX, f32::min));
    let high: [f32; 2] = std::array::from_fn(|axis| points.iter().map(|p| p[axis]).fold(f32::MIN, f32::max));
    let at = std::array::from_fn(|axis| f32::midpoint(low[axis], high[axis]));
    let reach = std::array::from_fn(|axis| (high[axis] - low[axis]) / 2.0 + 4.0 * half_width);
    Mark {
        at,
        reach,
        shape: Shape::Line { points, half_width },
    }
}

fn draw(canvas: &mut Canvas, scene: &Scene, mark: &Mark, kind: DefectKind) -> Defect {
    let mut seen: Option<[f32; 4]> = None;
    for (x, y) in pixels_around(canvas, mark.at, mark.reach) {
        let (px, py) = (x as f32, y as f32);
        let (colour, alpha) = mark.shape.at(px, py, mark.at, scene);
        if alpha <= 0.0 {
            continue;
        }
        canvas.blend(x, y, colour, alpha);
        if alpha >= VISIBLE_ALPHA {
            let grown = seen.unwrap_or([px, py, px, py]);
            seen = Some([
                grown[0].min(px),
                grown[1].min(py),
                grown[2].max(px + 1.0),
                grown[3].max(py + 1.0),
            ]);
        }
    }
    let rect = seen.unwrap_or([mark.at[0], mark.at[1], mark.at[0], mark.at[1]]);
    to_defect(rect, kind, canvas, BOX_EDGE_PX_MIN * scene.scale.max(1.0))
}

fn bounds(mark: &Mark, kind: DefectKind, canvas: &Canvas) -> Defect {
    let rect = [
        mark.at[0] - mark.reach[0],
        mark.at[1] - mark.reach[1],
        mark.at[0] + mark.reach[0],
        mark.at[1] + mark.reach[1],
    ];
    to_defect(rect, kind, canvas, 0.0)
}

/// Pads a box to `edge_min` and moves it into the frame.
fn to_defect(rect: [f32; 4], kind: DefectKind, canvas: &Canvas, edge_min: f32) -> Defect {
    let span = |low: f32, high: f32, end: usize| {
        let end = end as f32;
        let edge = (high - low).max(edge_min).min(end);
        let start = (f32::midpoint(low, high) - edge / 2.0).clamp(0.0, end - edge);
        (start, start + edge)
    };
    let ((x0, x1), (y0, y1)) = (
        span(rect[0], rect[2], canvas.width),
        span(rect[1], rect[3], canvas.height),
    );
    Defect {
        class: kind.class().to_owned(),
        score: 1.0,
        x0,
        y0,
        x1,
        y1,
    }
}

impl Shape {
    /// Returns colour and opacity at a pixel, given where the mark's centre lies.
    fn at(&self, x: f32, y: f32, centre: [f32; 2], scene: &Scene) -> ([f32; 3], f32) {
        match self {
            Self::Ellipse {
                axes,
                turn,
                colour,
                seed,
                ragged,
                soft,
                opacity,
                shine,
            } => {
                let (sin, cos) = turn.sin_cos();
                let (dx, dy) = (x - centre[0], y - centre[1]);
                let (u, v) = ((dx * cos + dy * sin) / axes[0], (dy * cos - dx * sin) / axes[1]);
                let edge = 1.0 + (cloudy(*seed, u * 1.7, v * 1.7) - 0.5) * ragged;
                let on_tray = f32::from(scene.distance_to_edge(x, y) < -scene.rim * 0.9);
                let alpha = opacity * smooth_step(edge, edge - soft, u.hypot(v)) * on_tray;
                // Plastic and metal glint on the side that faces the lamp; a burn is matt.
                let glint = if *shine {
                    70.0 * smooth_step(0.35, 0.0, (u + 0.35).hypot(v + 0.35))
                } else {
                    0.0
                };
                (colour.map(|value| value + glint), alpha)
            }
            Self::Smear {
                along,
                half_length,
                half_width,
                colour,
                seed,
            } => {
                let offset = [x - centre[0], y - centre[1]];
                let (u, v) = (offset[*along] / half_length, offset[1 - *along] / half_width);
                let edge = 1.0 + (cloudy(*seed, u * 2.6, v * 0.8) - 0.5) * 0.8;
                let on_tray = f32::from(scene.distance_to_edge(x, y) < 0.0);
                let alpha = 0.93 * smooth_step(edge, edge - 0.25, (u * u * u * u + v * v).sqrt()) * on_tray;
                let clots = (smooth(*seed ^ 3, u * 5.0, v * 2.0) - 0.5) * 30.0;
                (colour.map(|value| value + clots), alpha)
            }
            Self::Line { points, half_width } => {
                let distance = points
                    .windows(2)
                    .map(|ends| distance_to_segment([x, y], ends[0], ends[1]))
                    .fold(f32::MAX, f32::min);
                let on_tray = f32::from(scene.distance_to_edge(x, y) < 0.0);
                (
                    [30.0, 22.0, 16.0],
                    0.92 * smooth_step(half_width + 1.0, half_width - 0.4, distance) * on_tray,
                )
            }
        }
    }
}

fn distance_to_segment(point: [f32; 2], from: [f32; 2], to: [f32; 2]) -> f32 {
    let (along, offset) = (
        [to[0] - from[0], to[1] - from[1]],
        [point[0] - from[0], point[1] - from[1]],
    );
    let length2 = (along[0] * along[0] + along[1] * along[1]).max(1e-6);
    let t = ((offset[0] * along[0] + offset[1] * along[1]) / length2).clamp(0.0, 1.0);
    (offset[0] - t * along[0]).hypot(offset[1] - t * along[1])
}
