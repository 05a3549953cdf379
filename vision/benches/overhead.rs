//! What does the pipeline cost over the bare model? CPU time from JPEG to verdict against ONNX Runtime's own run of the
//! same model on a ready tensor, interleaved in one process; medians. Results go to `vision.json`.
#![expect(clippy::print_stdout, reason = "a benchmark prints its table")]

use std::error::Error;
use std::path::{Path, PathBuf};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use ort::session::Session;
use ort::session::builder::GraphOptimizationLevel;
use ort::value::TensorRef;
use serde_json::{Value, json};
use vision::decode::{check, decode};
use vision::engine::Engine;
use vision::head::Head;
use vision::manifest::{ColourOrder, InputSpec, Layout, ResizeFilter};
use vision::preprocess::Preprocessor;
use vision::synthetic::{DefectKind, TraySpec, encode_jpeg, render};
use vision::{Detector, Runtime};

/// Batches of each kind; the median batch counts.
const BATCHES: usize = 15;

fn main() -> Result<(), Box<dyn Error>> {
    let runtime = Runtime::load(&Runtime::find()?)?;
    let rows = vec![yolo_sized(&runtime)?, tray_model(&runtime)?];
    write(&rows)
}

/// The goal's case: a detector of YOLOv10n's size at 640, frames of 1280×960.
fn yolo_sized(runtime: &Runtime) -> Result<Value, Box<dyn Error>> {
    let onnx = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/yolo_sized.onnx"))?;
    let input = InputSpec {
        width: 640,
        height: 640,
        layout: Layout::Nchw,
        colour_order: ColourOrder::Rgb,
        scale: 1.0 / 255.0,
        resize_filter: ResizeFilter::Bilinear,
        letterbox: Some([114; 3]),
    };
    let mut preprocessor = Preprocessor::new(&input);
    let mut engine = Engine::load(runtime, &onnx, [1, 3, 640, 640])?;
    let head = Head::choose(None, &[1, 400, 6], vec![0.5; 4], 0.45)?;
    let frame = frame(1280, 960);
    let (mut rgb, mut output) = (Vec::new(), Vec::new());
    let pipeline = || -> Result<(), Box<dyn Error>> {
        let size = decode(&frame, &mut rgb)?;
        let placement = preprocessor.run(&rgb, size)?;
        engine.run(preprocessor.tensor(), &mut output)?;
        for candidate in head.read(&output)? {
            std::hint::black_box(placement.to_source(candidate.rect));
        }
        Ok(())
    };
    let (ours, bare) = compare(pipeline, bare_session(runtime, &onnx)?, [1, 3, 640, 640], 2)?;
    print_stages(&frame, &input)?;
    Ok(row(
        "vision/overhead",
        "1280×960 JPEG, YOLOv10n-sized at 640×640",
        ours,
        bare,
        0.08,
    ))
}

/// The committed model, whose small network leaves the decoder nowhere to hide; the goal is the same.
fn tray_model(runtime: &Runtime) -> Result<Value, Box<dyn Error>> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tray-defects/manifest.json");
    let mut detector = Detector::load(runtime, &manifest)?;
    let input = &detector.manifest().input;
    let shape = [1, 3, input.height as usize, input.width as usize];
    let onnx = std::fs::read(manifest.with_file_name(&detector.manifest().model))?;
    let frame = frame(640, 480);
    let pipeline = || -> Result<(), Box<dyn Error>> {
        std::hint::black_box(detector.inspect(&frame));
        Ok(())
    };
    let (ours, bare) = compare(pipeline, bare_session(runtime, &onnx)?, shape, 20)?;
    Ok(row(
        "vision/overhead_tray_model",
        "640×480 JPEG, tray-defects at 320×256",
        ours,
        bare,
        0.08,
    ))
}

/// Prints where the time beside inference goes.
fn print_stages(frame: &[u8], input: &InputSpec) -> Result<(), Box<dyn Error>> {
    let mut rgb = Vec::new();
    let size = decode(frame, &mut rgb)?;
    let mut preprocessor = Preprocessor::new(input);
    let checked = cpu_ms_each(&mut || Ok(check(frame).map(drop)?), 50)?;
    let placed = cpu_ms_each(&mut || Ok(preprocessor.run(&rgb, size).map(drop)?), 50)?;
    let decoded = cpu_ms_each(&mut || Ok(decode(frame, &mut rgb).map(drop)?), 50)?;
    let kilobytes = frame.len() / 1000;
    println!(
        "stages of a {kilobytes} kB frame: check {checked:.2}, decode with check {decoded:.2}, preprocess {placed:.2} CPU-ms"
    );
    Ok(())
}

fn frame(width_px: u32, height_px: u32) -> Vec<u8> {
    let spec = TraySpec {
        seed: 900_000,
        width_px,
        height_px,
        defects: vec![DefectKind::ForeignBody],
    };
    encode_jpeg(&render(&spec).rgb, 90)
}

/// A session as a plain program would build it, with the same threads and optimisations.
fn bare_session(runtime: &Runtime, onnx: &[u8]) -> Result<Session, Box<dyn Error>> {
    let builder = Session::builder(runtime.environment())?
        .with_optimization_level(GraphOptimizationLevel::Level3)?
        .with_intra_threads(1)?
        .with_inter_threads(1)?
        .with_intra_op_spinning(false)?;
    Ok({ builder }.commit_from_memory(onnx)?)
}

/// Runs batches of both in turn; returns the median CPU milliseconds of one frame for the pipeline and for the bare run.
fn compare(
    mut pipeline: impl FnMut() -> Result<(), Box<dyn Error>>,
    mut session: Session,
    shape: [usize; 4],
    frames_per_batch: usize,
) -> Result<(f64, f64), Box<dyn Error>> {
    let tensor = vec![0.4_f32; shape.iter().product()];
    let mut bare = || -> Result<(), Box<dyn Error>> {
        std::hint::black_box(session.run(ort::inputs![TensorRef::from_array_view((shape, &*tensor))?])?);
        Ok(())
    };
    let (mut ours_ms, mut bare_ms) = (Vec::new(), Vec::new());
    for batch in 0..=BATCHES {
        let ours = cpu_ms_each(&mut pipeline, frames_per_batch)?;
        let raw = cpu_ms_each(&mut bare, frames_per_batch)?;
        // The first batch only warms up.
        if batch > 0 {
            ours_ms.push(ours);
            bare_ms.push(raw);
        }
    }
    Ok((median(ours_ms), median(bare_ms)))
}

fn cpu_ms_each(
    run: &mut dyn FnMut() -> Result<(), Box<dyn Error>>,
    frames: usize,
) -> Result<f64, Box<dyn Error>> {
    let start = cpu_us()?;
    for _ in 0..frames {
        run()?;
    }
    Ok((cpu_us()? - start) as f64 / 1e3 / frames as f64)
}

fn cpu_us() -> nix::Result<i64> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    Ok(usage.user_time().num_microseconds() + usage.system_time().num_microseconds())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn row(name: &str, what: &str, ours_ms: f64, bare_ms: f64, goal: f64) -> Value {
    let overhead = ours_ms / bare_ms - 1.0;
    let pass = overhead <= goal;
    println!(
        "{name}: {what}: pipeline {ours_ms:.2} CPU-ms, bare ONNX Runtime {bare_ms:.2}, overhead {:+.1} % (goal ≤ {:.0} %): {}",
        100.0 * overhead,
        100.0 * goal,
        if pass { "pass" } else { "FAIL" }
    );
    json!({
        "name": name, "value": round(ours_ms), "unit": "CPU-ms/frame", "reference": round(bare_ms),
        "ratio": round(overhead), "goal": goal, "pass": pass
    })
}

fn round(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}

/// Writes `vision.json` into `$FOODFLOW_BENCH_DIR`, or `target/bench` of the repository.
fn write(rows: &[Value]) -> Result<(), Box<dyn Error>> {
    let given = std::env::var_os("FOODFLOW_BENCH_DIR").map(PathBuf::from);
    let directory = given.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bench"));
    std::fs::create_dir_all(&directory)?;
    let path = directory.join("vision.json");
    std::fs::write(&path, serde_json::to_vec_pretty(&rows)?)?;
    println!("written to {}", path.display());
    Ok(())
}
