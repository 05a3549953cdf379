//! Which trays pass the camera of line 3, and how do its frames reach the agent?
//! Frames are drawn by `vision::synthetic`, written under a temporary name and renamed, so that a reader never
//! sees half a file; the directory is bounded when nobody reads it.

use std::{
    collections::VecDeque,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use vision::synthetic::{DefectKind, TraySpec, encode_jpeg, render};

use super::{SimulateError, fault::Fault, plant, state::PlantState};

const WIDTH_PX: u32 = 640;
const HEIGHT_PX: u32 = 480;
const JPEG_QUALITY: u8 = 85;
/// Frames left in the directory when no agent takes them away.
const FRAMES_KEPT: usize = 300;
const PREFIX: &str = "VS-306-";
/// F8: share of trays with a defect.
pub const BURST_RATE: f64 = 0.045;

/// One camera writing into one directory.
#[derive(Debug)]
pub struct Camera {
    /// The plant whose trays it sees.
    pub plant: PlantState,
    /// Where frames appear as `VS-306-<UTC microseconds>.jpg`.
    pub directory: PathBuf,
    /// Plant time from tray to tray.
    pub period: Duration,
    /// Share of trays, 0 to 1, that carry a defect without being asked to.
    pub defect_rate: f64,
}

/// The tray number `n` of a plant: the same for the same seed. A spoiled tray carries exactly one defect.
pub fn tray(seed: u64, n: u64, is_spoiled: bool) -> TraySpec {
    let kinds = DefectKind::ALL;
    let kind = kinds[(plant::draw(seed, "defect kind", n) % kinds.len() as u64) as usize];
    TraySpec {
        seed: plant::draw(seed, "tray", n),
        width_px: WIDTH_PX,
        height_px: HEIGHT_PX,
        defects: if is_spoiled { vec![kind] } else { Vec::new() },
    }
}

impl Camera {
    /// Makes the directory and clears it of frames that an earlier plant left.
    ///
    /// # Errors
    /// [`SimulateError::Write`] when it cannot be used.
    pub fn prepare(&self) -> Result<(), SimulateError> {
        let clear = || -> io::Result<()> {
            std::fs::create_dir_all(&self.directory)?;
            for entry in std::fs::read_dir(&self.directory)? {
                let entry = entry?;
                if entry.file_name().to_string_lossy().starts_with(PREFIX) {
                    std::fs::remove_file(entry.path())?;
                }
            }
            Ok(())
        };
        clear().map_err(|source| SimulateError::Write {
            path: self.directory.clone(),
            source,
        })
    }

    /// Writes a frame a period until `stop`. A frame that cannot be written is logged and lost, as a camera's
    /// would be.
    pub async fn serve(self, stop: CancellationToken) {
        let mut interval = tokio::time::interval(self.plant.clock.wall(self.period));
        interval.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut kept = VecDeque::new();
        for n in 0u64.. {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = interval.tick() => {}
            }
            match self.take(n).await {
                Ok(path) => kept.push_back(path),
                Err(error) => tracing::warn!(%error, directory = %self.directory.display(), "frame lost"),
            }
            if kept.len() > FRAMES_KEPT {
                forget(kept.pop_front()).await;
            }
        }
    }

    async fn take(&self, n: u64) -> io::Result<PathBuf> {
        let in_burst = self.plant.scenario().take_burst_tray();
        let is_burst = self.plant.now().since_us(Fault::F8).is_some();
        let rate = if is_burst { BURST_RATE } else { self.defect_rate };
        let by_chance = plant::uniform(self.plant.seed, "spoiled", n) < rate;
        let spec = tray(self.plant.seed, n, in_burst || by_chance);
        let class = spec.defects.first().map(|kind| kind.class());
        let jpeg = tokio::task::spawn_blocking(move || encode_jpeg(&render(&spec).rgb, JPEG_QUALITY)).await?;
        let at_us = self.plant.clock.plant_us();
        let name = format!("{PREFIX}{}.jpg", self.plant.clock.utc_us(at_us));
        let path = publish(&self.directory, &name, &jpeg).await?;
        if let Some(class) = class {
            self.plant
                .scenario()
                .note_defect(at_us, format!("{class} {name}"));
        }
        Ok(path)
    }
}

/// Writes `bytes` as `directory/name` so that the name appears only with the whole content behind it.
async fn publish(directory: &Path, name: &str, bytes: &[u8]) -> io::Result<PathBuf> {
    let path = directory.join(name);
    let partial = directory.join(format!("{name}.tmp"));
    tokio::fs::write(&partial, bytes).await?;
    tokio::fs::rename(&partial, &path).await?;
    Ok(path)
}

async fn forget(path: Option<PathBuf>) {
    let Some(path) = path else { return };
    match tokio::fs::remove_file(&path).await {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(%error, path = %path.display(), "old frame not removed");
        }
        // Gone already: the agent took it.
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulate::scenario::Command;

    fn camera(directory: &Path, defect_rate: f64) -> Camera {
        Camera {
            plant: PlantState::start(4, 1.0),
            directory: directory.to_owned(),
            period: Duration::from_millis(1),
            defect_rate,
        }
    }

    #[test]
    fn the_same_seed_sees_the_same_trays() {
        for n in 0..50 {
            assert_eq!(tray(1, n, true), tray(1, n, true));
            assert_ne!(tray(1, n, false).seed, tray(2, n, false).seed);
        }
        assert!(tray(1, 0, false).defects.is_empty());
    }

    #[test]
    fn every_kind_of_defect_comes_up() {
        let seen: std::collections::HashSet<_> = (0..64).map(|n| tray(9, n, true).defects[0]).collect();
        assert_eq!(seen.len(), DefectKind::ALL.len());
    }

    #[tokio::test]
    async fn frames_decode_and_nothing_else_is_left_in_the_directory() {
        let directory = tempfile::tempdir().unwrap();
        let camera = camera(directory.path(), 0.0);
        for n in 0..2 {
            let path = camera.take(n).await.unwrap();
            let frame = image::open(&path).unwrap();
            assert_eq!((frame.width(), frame.height()), (WIDTH_PX, HEIGHT_PX));
        }
        let names = std::fs::read_dir(directory.path()).unwrap();
        assert!(names.map(|entry| entry.unwrap().file_name()).all(|name| {
            let name = name.to_string_lossy();
            name.starts_with(PREFIX) && name.ends_with(".jpg")
        }));
        assert_eq!(camera.plant.scenario().journal().len(), 0);
    }

    #[tokio::test]
    async fn a_burst_spoils_the_next_trays_and_the_journal_names_their_files() {
        let directory = tempfile::tempdir().unwrap();
        let camera = camera(directory.path(), 0.0);
        camera
            .plant
            .scenario()
            .apply(Command::DefectBurst { count: 2 }, 0);
        let mut names = Vec::new();
        for n in 0..3 {
            let path = camera.take(n).await.unwrap();
            names.push(path.file_name().unwrap().to_string_lossy().into_owned());
        }
        let scenario = camera.plant.scenario();
        let details: Vec<_> = scenario
            .journal()
            .into_iter()
            .filter_map(|truth| truth.detail)
            .collect();
        assert_eq!(details.len(), 2);
        assert!(
            details[0].ends_with(&names[0]) && details[1].ends_with(&names[1]),
            "{details:?} {names:?}"
        );
    }

    #[tokio::test]
    async fn a_prepared_directory_holds_no_frames_of_an_earlier_plant_but_keeps_other_files() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("VS-306-1.jpg"), b"old").unwrap();
        std::fs::write(directory.path().join("notes.txt"), b"mine").unwrap();
        camera(directory.path(), 0.0).prepare().unwrap();
        let left: Vec<_> = std::fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(left, ["notes.txt"]);
    }

    #[tokio::test]
    async fn the_camera_stops_when_told() {
        let directory = tempfile::tempdir().unwrap();
        let stop = CancellationToken::new();
        let serving = tokio::spawn(camera(directory.path(), 1.0).serve(stop.clone()));
        stop.cancel();
        serving.await.unwrap();
    }
}
