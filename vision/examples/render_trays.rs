//! Renders trays for the trainer: `render_trays OUT_DIR COUNT FIRST_SEED CLEAN_PERCENT` writes OUT_DIR/NNNNNN.jpg and
//! OUT_DIR/labels.jsonl, one line a frame with its file name, size and true defects. Used by `vision/training/`.

use std::error::Error;
use std::io::Write;
use std::path::PathBuf;

use vision::synthetic::{DefectKind, TraySpec, encode_jpeg, render};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [out, count, first_seed, clean_percent] = arguments.as_slice() else {
        return Err("usage: render_trays OUT_DIR COUNT FIRST_SEED CLEAN_PERCENT".into());
    };
    let (out, count) = (PathBuf::from(out), count.parse::<u64>()?);
    let (first_seed, clean_percent) = (first_seed.parse::<u64>()?, clean_percent.parse::<u64>()?);
    std::fs::create_dir_all(&out)?;
    let mut labels = std::io::BufWriter::new(std::fs::File::create(out.join("labels.jsonl"))?);
    for seed in first_seed..first_seed + count {
        let spec = TraySpec {
            seed,
            width_px: 640,
            height_px: 480,
            defects: defects_of(seed, clean_percent),
        };
        let tray = render(&spec);
        let file = format!("{seed:06}.jpg");
        let quality = 75 + (mixed(seed, 3) % 21) as u8;
        std::fs::write(out.join(&file), encode_jpeg(&tray.rgb, quality))?;
        let line = serde_json::json!({"file": file, "width": 640, "height": 480, "defects": tray.truth});
        writeln!(labels, "{line}")?;
    }
    labels.flush()?;
    Ok(())
}

/// Clean trays at the wanted share; the others carry one to three defects.
fn defects_of(seed: u64, clean_percent: u64) -> Vec<DefectKind> {
    if mixed(seed, 1) % 100 < clean_percent {
        return Vec::new();
    }
    let count = [1, 1, 1, 2, 2, 3][(mixed(seed, 2) % 6) as usize];
    (0..count)
        .map(|index| DefectKind::ALL[(mixed(seed, 10 + index) % 4) as usize])
        .collect()
}

/// A number that depends on seed and purpose alone (FNV-1a over both).
fn mixed(seed: u64, purpose: u64) -> u64 {
    let bytes = seed.to_le_bytes().into_iter().chain(purpose.to_le_bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash >> 20
}
