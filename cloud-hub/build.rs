//! Which dashboard goes into the binary: the built one, else the page that says how to build it. And: a changed
//! migration rebuilds the hub.

use std::{env, path::PathBuf};

fn main() {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR"));
    let built = root.join("dashboard/dist");
    let placeholder = root.join("ui-placeholder");
    // Only directories that exist: a missing one would rebuild the hub every time.
    for watched in [&built, &placeholder] {
        if watched.is_dir() {
            println!("cargo:rerun-if-changed={}", watched.display());
        }
    }
    let (folder, kind) = if built.join("index.html").is_file() {
        (built, "dashboard")
    } else {
        println!("cargo:warning=the dashboard is not built; embedding the placeholder page");
        (placeholder, "placeholder")
    };
    // `sqlx::migrate!` embeds these, and nothing else tells cargo that it does.
    println!("cargo:rerun-if-changed=../migrations");
    println!("cargo:rustc-env=FF_UI_DIR={}", folder.display());
    println!("cargo:rustc-env=FF_UI_KIND={kind}");
}
