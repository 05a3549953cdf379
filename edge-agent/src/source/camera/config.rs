//! What does `[[camera]]` say? One directory that a camera writes pictures into.

use std::{path::PathBuf, time::Duration};

use crate::{
    config::{Names, Section},
    signal::burst::{BurstLimit, read_burst},
};

/// One camera.
#[derive(Clone, Debug, PartialEq)]
pub struct Camera {
    /// Name, unique among sources.
    pub name: String,
    /// Code of the line.
    pub line: Option<String>,
    /// Where its pictures appear, renamed into place when complete.
    pub directory: PathBuf,
    /// How often the directory is looked at.
    pub poll: Duration,
    /// Whether a picture is deleted once taken.
    pub delete_after: bool,
    /// No picture for longer than this raises an alarm.
    pub silent_after: Duration,
    /// The same picture to the byte for longer than this: the camera is frozen.
    pub frozen_after: Duration,
    /// Width and height of its pictures, when that was said.
    pub size_px: Option<[u32; 2]>,
    /// When defects come in a burst, where that is watched.
    pub burst: Option<BurstLimit>,
}

/// Reads one `[[camera]]`.
pub fn read_camera(section: &Section<'_>, names: &mut Names) -> Option<Camera> {
    const HOUR: Duration = Duration::from_hours(1);
    let name = section.required_text("name");
    if let Some(name) = &name {
        names.claim(section, "source", name);
    }
    let line = section.text("line").map(|at| at.value);
    let directory = section.required_text("directory");
    let poll = section
        .duration("poll", Duration::from_millis(10)..=HOUR)
        .unwrap_or(Duration::from_millis(100));
    let delete_after = section.flag("delete_after", true);
    let silent_after = section
        .duration("silent_after", Duration::from_secs(1)..=HOUR * 24)
        .unwrap_or(Duration::from_secs(30));
    let frozen_after = section
        .duration("frozen_after", Duration::ZERO..=HOUR)
        .unwrap_or(Duration::from_secs(2));
    let side = |key| section.integer(key, 1..=65_535).map(|px| px as u32);
    let (width_px, height_px) = (side("width_px"), side("height_px"));
    if width_px.is_some() != height_px.is_some() {
        section.fault("`width_px` and `height_px` go together: give both or neither");
    }
    let burst = read_burst(section);
    Some(Camera {
        burst,
        frozen_after,
        size_px: width_px.zip(height_px).map(|(width, height)| [width, height]),
        name: name?.value,
        line,
        directory: PathBuf::from(directory?.value),
        poll,
        delete_after,
        silent_after,
    })
}
