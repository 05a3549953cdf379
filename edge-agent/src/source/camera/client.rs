//! How is a directory watched? By looking: network shares and overlay file systems give no reliable notice.

use std::{
    collections::HashSet,
    io,
    path::Path,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use protocol::{
    Micros,
    event::{Alarm, Inspection},
};
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    config::Camera,
    plan::{self, Frozen, Picture, Silence},
};
use crate::{
    clock,
    health::SourceState,
    inspect::{self, Mailbox, Shot},
    source::{Closed, Outlet},
};

/// A larger file is no camera frame; it is put on record without being read.
const PICTURE_BYTES_MAX: u64 = 32 << 20;

/// Watches one camera's directory until `stop`. It ends between two looks, not in the middle of one: a picture
/// that was taken from the directory is on its way to a record.
pub async fn run(
    camera: Camera,
    mailbox: Mailbox,
    outlet: Outlet,
    stop: CancellationToken,
) -> Result<(), Closed> {
    let start = Instant::now();
    let mut silence = Silence::new(camera.silent_after);
    let mut alarm_id = Uuid::now_v7();
    let mut watch = FrozenWatch {
        frozen: Frozen::new(camera.frozen_after),
        alarm: None,
        start,
    };
    let mut seen = HashSet::new();
    if !camera.delete_after {
        // Pictures that lie there from before are not this start's to judge.
        seen.extend(list(&camera.directory).unwrap_or_default());
    }
    let mut look = tokio::time::interval(camera.poll);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = look.tick() => {}
            () = stop.cancelled() => return Ok(()),
        }
        let directory = camera.directory.clone();
        let listed = tokio::task::spawn_blocking(move || list(&directory)).await;
        let listed = match listed.unwrap_or_else(|panic| Err(io::Error::other(panic))) {
            Ok(listed) => {
                outlet.state(SourceState::Up).await?;
                listed
            }
            Err(error) => {
                let reason = format!("{}: {error}", camera.directory.display());
                outlet.state(SourceState::Down { reason }).await?;
                Vec::new()
            }
        };
        let choice = plan::choose(listed, &mut seen);
        if let Some(silent) = silence.observe(start.elapsed(), choice.take.is_some()) {
            if silent {
                alarm_id = Uuid::now_v7();
            }
            outlet.alarm(silence_alarm(&camera, alarm_id, silent)).await?;
        }
        // The newest first: the record of those it replaces may take a while after an outage.
        if let Some(picture) = choice.take {
            take(&camera, &picture, &mailbox, (&outlet, &mut watch)).await?;
        }
        for picture in choice.passed_over {
            let record = passed_over(&camera, &picture);
            remove(&camera, &picture).await;
            outlet.inspection(record).await?;
        }
    }
}

fn list(directory: &Path) -> io::Result<Vec<Picture>> {
    let mut pictures = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if !entry.file_name().to_str().is_some_and(plan::is_picture) {
            continue;
        }
        // A file that vanished since it was listed is no fault; a pipe or a directory is no picture.
        let metadata = std::fs::metadata(entry.path()).ok();
        let written = metadata
            .filter(std::fs::Metadata::is_file)
            .and_then(|metadata| metadata.modified().ok());
        if let Some(written) = written {
            pictures.push(Picture {
                written,
                path: entry.path(),
            });
        }
    }
    Ok(pictures)
}

/// Whether the camera shows the same picture again and again, and the open `camera.frozen` alarm.
struct FrozenWatch {
    frozen: Frozen,
    alarm: Option<Uuid>,
    start: Instant,
}

impl FrozenWatch {
    /// Takes a picture; whether it is one of a frozen camera. The alarm follows.
    async fn look(&mut self, camera: &Camera, jpeg: &[u8], outlet: &Outlet) -> Result<bool, Closed> {
        let is_frozen = self
            .frozen
            .observe(Sha256::digest(jpeg).into(), self.start.elapsed());
        if is_frozen != self.alarm.is_some() {
            let id = self.alarm.take().unwrap_or_else(Uuid::now_v7);
            self.alarm = is_frozen.then_some(id);
            let message = if is_frozen {
                "the same picture to the byte again and again: nothing is inspected"
            } else {
                "pictures change again"
            };
            let alarm = camera_alarm(camera, id, "camera.frozen", is_frozen, message.to_owned());
            outlet.alarm(alarm).await?;
        }
        Ok(is_frozen)
    }
}

async fn take(
    camera: &Camera,
    picture: &Picture,
    mailbox: &Mailbox,
    (outlet, watch): (&Outlet, &mut FrozenWatch),
) -> Result<(), Closed> {
    let read = read(picture).await;
    remove(camera, picture).await;
    let shot = |jpeg: Vec<u8>| Shot {
        camera: camera.name.clone(),
        line: camera.line.clone(),
        taken_us: micros(picture.written),
        arrived: Instant::now(),
        size_px: camera.size_px,
        jpeg,
    };
    match read {
        Ok(jpeg) if watch.look(camera, &jpeg, outlet).await? => {
            let record = inspect::not_performed(
                &shot(jpeg),
                "the camera is frozen: the same picture as before; not inspected",
            );
            outlet.inspection(record).await
        }
        Ok(jpeg) => {
            if let Some(superseded) = mailbox.put(shot(jpeg)) {
                let record =
                    inspect::not_performed(&superseded, "superseded by a newer frame before inspection");
                outlet.inspection(record).await?;
            }
            Ok(())
        }
        Err(error) => {
            let record =
                inspect::not_performed(&shot(Vec::new()), &format!("the file could not be read: {error}"));
            outlet.inspection(record).await
        }
    }
}

async fn read(picture: &Picture) -> io::Result<Vec<u8>> {
    let size = tokio::fs::metadata(&picture.path).await?.len();
    if size > PICTURE_BYTES_MAX {
        return Err(io::Error::other(format!(
            "{size} bytes are more than {PICTURE_BYTES_MAX}"
        )));
    }
    tokio::fs::read(&picture.path).await
}

async fn remove(camera: &Camera, picture: &Picture) {
    if camera.delete_after
        && let Err(error) = tokio::fs::remove_file(&picture.path).await
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(camera = %camera.name, path = %picture.path.display(), %error, "picture not deleted");
    }
}

fn passed_over(camera: &Camera, picture: &Picture) -> Inspection {
    let shot = Shot {
        camera: camera.name.clone(),
        line: camera.line.clone(),
        taken_us: micros(picture.written),
        arrived: Instant::now(),
        size_px: camera.size_px,
        jpeg: Vec::new(),
    };
    inspect::not_performed(&shot, "superseded by a newer frame before it was read")
}

fn silence_alarm(camera: &Camera, id: Uuid, active: bool) -> Alarm {
    let message = if active {
        format!("no picture for more than {} s", camera.silent_after.as_secs())
    } else {
        "pictures are coming again".to_owned()
    };
    camera_alarm(camera, id, "camera.silent", active, message)
}

fn camera_alarm(camera: &Camera, id: Uuid, code: &str, active: bool, message: String) -> Alarm {
    Alarm {
        id,
        at_us: clock::now_us(),
        code: code.to_owned(),
        subject: camera.name.clone(),
        line: camera.line.clone(),
        active,
        message,
    }
}

fn micros(time: SystemTime) -> Micros {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    Micros::try_from(since.as_micros()).unwrap_or(Micros::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_are_pictures() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("a.jpg"), b"x").unwrap();
        std::fs::create_dir(directory.path().join("b.jpg")).unwrap();
        let listed = list(directory.path()).unwrap();
        assert_eq!(listed.len(), 1);
        assert!(listed[0].path.ends_with("a.jpg"));
    }
}
