//! Where do a benchmark's results go? Into a file of `$FOODFLOW_BENCH_DIR` (default `target/bench` of the repository).

use std::path::{Path, PathBuf};

use serde_json::Value;

/// Writes all results of a benchmark.
pub(crate) fn write(file: &str, results: &[Value]) {
    let directory = std::env::var_os("FOODFLOW_BENCH_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bench"),
        PathBuf::from,
    );
    std::fs::create_dir_all(&directory).expect("the bench directory can be made");
    let text = serde_json::to_string_pretty(results).expect("plain data serialises");
    std::fs::write(directory.join(file), text).expect("the bench directory can be written");
}
