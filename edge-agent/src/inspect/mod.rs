//! What does a camera frame show? A one-place mailbox in which the newest frame wins, threads that judge, and
//! records: every frame ends as Pass, Reject or Unknown, and Unknown is never Pass.

mod thumbnail;

use std::{
    collections::VecDeque,
    path::Path,
    sync::{Arc, Condvar, Mutex, PoisonError, atomic::Ordering::Relaxed},
    time::Instant,
};

use protocol::{
    Micros,
    event::{self, Inspection},
};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use uuid::Uuid;
use vision::{Detector, LoadError, Runtime};

use crate::{config, health::Health, source::Acquired};

/// Every this many Pass verdicts one keeps its picture, so that a person can see what Pass looks like.
const PASS_PICTURE_EVERY: u64 = 10;

/// A camera frame on its way to a verdict.
#[derive(Clone, Debug)]
pub struct Shot {
    /// Name of the camera.
    pub camera: String,
    /// Code of the line.
    pub line: Option<String>,
    /// When it was taken.
    pub taken_us: Micros,
    /// When the agent got it.
    pub arrived: Instant,
    /// The file.
    pub jpeg: Vec<u8>,
}

/// One place a camera: a newer frame replaces the one that waits.
#[derive(Clone, Debug, Default)]
pub struct Mailbox {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Shot>,
    is_closed: bool,
}

impl Mailbox {
    /// Puts a frame in; the frame of the same camera that waited is handed back, for the record.
    pub fn put(&self, shot: Shot) -> Option<Shot> {
        let mut state = self.inner.state.lock().unwrap_or_else(PoisonError::into_inner);
        let place = state
            .waiting
            .iter_mut()
            .find(|waiting| waiting.camera == shot.camera);
        let superseded = if let Some(place) = place {
            Some(std::mem::replace(place, shot))
        } else {
            state.waiting.push_back(shot);
            None
        };
        drop(state);
        self.inner.changed.notify_one();
        superseded
    }

    /// Waits for a frame; none once the mailbox is closed.
    pub fn take(&self) -> Option<Shot> {
        let mut state = self.inner.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if state.is_closed {
                return None;
            }
            if let Some(shot) = state.waiting.pop_front() {
                return Some(shot);
            }
            state = self
                .inner
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Lets every waiting thread go.
    pub fn close(&self) {
        self.inner
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_closed = true;
        self.inner.changed.notify_all();
    }
}

/// The record of a frame that nobody looked at.
pub fn not_performed(shot: &Shot, reason: &str) -> Inspection {
    Inspection {
        id: Uuid::now_v7(),
        camera: shot.camera.clone(),
        line: shot.line.clone(),
        taken_us: shot.taken_us,
        verdict: event::Verdict::Unknown,
        reason: Some(reason.to_owned()),
        defects: Vec::new(),
        size_px: [0, 0],
        frame_sha256: if shot.jpeg.is_empty() {
            String::new()
        } else {
            sha256(&shot.jpeg)
        },
        model: None,
        latency_us: latency_us(shot),
        thumbnail_jpeg: None,
    }
}

/// Starts the threads that judge. Each owns a detector; without one it records why nothing was inspected.
pub fn start(
    settings: &config::Vision,
    mailbox: &Mailbox,
    out: &mpsc::Sender<Acquired>,
    health: &Arc<Health>,
) -> std::io::Result<Vec<std::thread::JoinHandle<()>>> {
    (0..settings.inspectors)
        .map(|index| {
            let (settings, mailbox) = (settings.clone(), mailbox.clone());
            let (out, health) = (out.clone(), health.clone());
            std::thread::Builder::new()
                .name(format!("inspect-{index}"))
                .spawn(move || judge_all(&settings, &mailbox, &out, &health))
        })
        .collect()
}

fn judge_all(settings: &config::Vision, mailbox: &Mailbox, out: &mpsc::Sender<Acquired>, health: &Health) {
    let mut detector = load(settings.runtime.as_deref(), &settings.manifest);
    let off = detector
        .as_ref()
        .err()
        .map(|error| format!("vision is off: {error}"));
    if let Some(reason) = &off {
        tracing::warn!(%reason, "camera frames are recorded as Unknown");
    }
    health.vision.set_off(off.clone());
    let mut passes = 0;
    while let Some(shot) = mailbox.take() {
        let record = match &mut detector {
            Ok(detector) => judge(detector, &shot, &mut passes),
            Err(_) => Inspection {
                thumbnail_jpeg: thumbnail::make(&shot.jpeg),
                ..not_performed(&shot, off.as_deref().unwrap_or("vision is off"))
            },
        };
        if out.blocking_send(Acquired::Inspection(Box::new(record))).is_err() {
            return;
        }
    }
}

fn load(runtime: Option<&Path>, manifest: &Path) -> Result<Detector, LoadError> {
    let library = match runtime {
        Some(path) => path.to_owned(),
        None => Runtime::find()?,
    };
    Detector::load(&Runtime::load(&library)?, manifest)
}

fn judge(detector: &mut Detector, shot: &Shot, passes: &mut u64) -> Inspection {
    let found = detector.inspect(&shot.jpeg);
    let verdict = match found.verdict {
        vision::Verdict::Pass => event::Verdict::Pass,
        vision::Verdict::Reject => event::Verdict::Reject,
        vision::Verdict::Unknown => event::Verdict::Unknown,
    };
    let wants_picture = verdict != event::Verdict::Pass || {
        *passes += 1;
        *passes % PASS_PICTURE_EVERY == 1
    };
    let defects = found.defects.into_iter().map(|defect| event::Defect {
        class: defect.class,
        score: defect.score,
        corners_px: [defect.x0, defect.y0, defect.x1, defect.y1],
    });
    Inspection {
        verdict,
        reason: found.reason,
        defects: defects.collect(),
        size_px: [found.width_px, found.height_px],
        model: Some(event::ModelId {
            name: found.model.name,
            version: found.model.version,
            sha256: found.model.sha256,
        }),
        latency_us: latency_us(shot),
        thumbnail_jpeg: wants_picture.then(|| thumbnail::make(&shot.jpeg)).flatten(),
        ..not_performed(shot, "")
    }
}

/// Counts a verdict.
pub fn count(health: &Health, inspection: &Inspection) {
    let counter = match inspection.verdict {
        event::Verdict::Pass => &health.vision.pass,
        event::Verdict::Reject => &health.vision.reject,
        event::Verdict::Unknown => &health.vision.unknown,
    };
    counter.fetch_add(1, Relaxed);
}

fn latency_us(shot: &Shot) -> u32 {
    u32::try_from(shot.arrived.elapsed().as_micros()).unwrap_or(u32::MAX)
}

fn sha256(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut hex = String::with_capacity(64);
    for byte in Sha256::digest(bytes) {
        write!(hex, "{byte:02x}").expect("writing to a String cannot fail");
    }
    hex
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shot(camera: &str, taken_us: Micros) -> Shot {
        Shot {
            camera: camera.to_owned(),
            line: None,
            taken_us,
            arrived: Instant::now(),
            jpeg: vec![1],
        }
    }

    #[test]
    fn a_newer_frame_replaces_the_one_that_waits_and_the_old_one_is_handed_back() {
        let mailbox = Mailbox::default();
        assert!(mailbox.put(shot("a", 1)).is_none());
        assert_eq!(mailbox.put(shot("a", 2)).map(|shot| shot.taken_us), Some(1));
        assert!(
            mailbox.put(shot("b", 3)).is_none(),
            "another camera has its own place"
        );
        assert_eq!(mailbox.take().map(|shot| shot.taken_us), Some(2));
        assert_eq!(mailbox.take().map(|shot| shot.taken_us), Some(3));
    }

    #[test]
    fn closing_lets_a_waiting_inspector_go() {
        let mailbox = Mailbox::default();
        let waiting = std::thread::spawn({
            let mailbox = mailbox.clone();
            move || mailbox.take().is_none()
        });
        mailbox.close();
        assert!(waiting.join().unwrap());
    }

    #[test]
    fn a_frame_nobody_looked_at_is_unknown_and_says_why() {
        let record = not_performed(&shot("VS-306", 5), "vision is off");
        assert_eq!(record.verdict, event::Verdict::Unknown);
        assert_eq!(record.reason.as_deref(), Some("vision is off"));
        assert_eq!(record.frame_sha256.len(), 64);
    }
}
