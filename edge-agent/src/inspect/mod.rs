//! What does a camera frame show? A one-place mailbox in which the newest frame wins, threads that judge, and
//! records: every frame ends as Pass, Reject or Unknown, and Unknown is never Pass.

mod thumbnail;

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
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

use crate::{clock, config, health::Health, pipeline, source::Acquired};

/// Every this many Pass verdicts one keeps its picture, so that a person can see what Pass looks like.
const PASS_PICTURE_EVERY: u64 = 10;
/// A detector that panics on this many frames in a row is not started again.
const PANICS_MAX: u32 = 3;

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
    /// Width and height that the camera is set to, when that was said.
    pub size_px: Option<[u32; 2]>,
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

    /// Lets every waiting thread go; the frames that waited are handed back, for the record.
    pub fn close(&self) -> Vec<Shot> {
        let mut state = self.inner.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.is_closed = true;
        let waiting = std::mem::take(&mut state.waiting).into();
        drop(state);
        self.inner.changed.notify_all();
        waiting
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
    let ready = || {
        let mut detector = load(settings.runtime.as_deref(), &settings.manifest)
            .map_err(|error| format!("vision is off: {error}"))?;
        let mut passes = 0;
        Ok(move |shot: &Shot| of_expected_size(shot, judge(&mut detector, shot, &mut passes)))
    };
    serve(mailbox, out, health, ready);
}

/// Judges what comes until the mailbox is closed. A panic costs the frame its verdict, not the thread its life: the
/// frame is recorded as Unknown, it is alarmed, and judging starts afresh.
fn serve<J: FnMut(&Shot) -> Inspection>(
    mailbox: &Mailbox,
    out: &mpsc::Sender<Acquired>,
    health: &Health,
    ready: impl Fn() -> Result<J, String>,
) {
    let begin = || guarded(&ready).unwrap_or_else(|said| Err(format!("vision is off: it panicked: {said}")));
    let mut judging = begin();
    note_off(health, judging.as_ref().err());
    let (mut panics, mut alarm) = (0, None);
    while let Some(shot) = mailbox.take() {
        let record = match &mut judging {
            Ok(judge) => guarded(|| judge(&shot)),
            Err(off) => Ok(not_judged(&shot, off)),
        };
        let is_judged = judging.is_ok() && record.is_ok();
        let record = record.unwrap_or_else(|said| {
            panics += 1;
            tracing::error!(camera = %shot.camera, %said, "the inspection panicked");
            judging = if panics < PANICS_MAX {
                begin()
            } else {
                Err(format!("vision is off: it panicked {panics} times: {said}"))
            };
            note_off(health, judging.as_ref().err());
            not_judged(&shot, &format!("the inspection panicked: {said}"))
        });
        panics = if is_judged { 0 } else { panics };
        let changed = alarm_of(&mut alarm, panics > 0, &record);
        let messages = [
            Some(Acquired::Inspection(Box::new(record))),
            changed.map(Acquired::Alarm),
        ];
        for message in messages.into_iter().flatten() {
            if out.blocking_send(message).is_err() {
                return;
            }
        }
    }
}

fn note_off(health: &Health, off: Option<&String>) {
    if let Some(reason) = off {
        tracing::warn!(%reason, "camera frames are recorded as Unknown");
    }
    health.vision.set_off(off.cloned());
}

fn not_judged(shot: &Shot, reason: &str) -> Inspection {
    Inspection {
        // A picture that cannot be made small is no reason to lose the record.
        thumbnail_jpeg: guarded(|| thumbnail::make(&shot.jpeg)).unwrap_or_default(),
        ..not_performed(shot, reason)
    }
}

/// The alarm to raise or clear, if that changed.
fn alarm_of(held: &mut Option<event::Alarm>, is_failed: bool, record: &Inspection) -> Option<event::Alarm> {
    let now_us = clock::now_us();
    if is_failed && held.is_none() {
        let reason = record.reason.as_deref().unwrap_or("the inspection failed");
        *held = Some(pipeline::alarm("vision.failed", &record.camera, reason, now_us));
        return held.clone();
    }
    if is_failed {
        return None;
    }
    held.take().map(|raised| event::Alarm {
        at_us: now_us,
        active: false,
        message: "frames are inspected again".to_owned(),
        ..raised
    })
}

/// Runs foreign code; its panic becomes an error.
fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let said = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied());
        said.unwrap_or("no message").to_owned()
    })
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

/// A picture of another size than the camera is set to shows something else than the model was taught: not inspected.
fn of_expected_size(shot: &Shot, found: Inspection) -> Inspection {
    let Some([width, height]) = shot.size_px.filter(|size_px| *size_px != found.size_px) else {
        return found;
    };
    if found.size_px == [0, 0] {
        return found;
    }
    let [found_width, found_height] = found.size_px;
    Inspection {
        verdict: event::Verdict::Unknown,
        reason: Some(format!(
            "the picture has {found_width} × {found_height} pixels, the camera is set to {width} × {height}; not inspected"
        )),
        defects: Vec::new(),
        ..found
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
            size_px: None,
            jpeg: vec![1],
        }
    }

    #[test]
    fn t28_a_picture_of_another_size_is_not_inspected() {
        let mut shot = shot("a", 1);
        let found = Inspection {
            size_px: [640, 480],
            ..inspected(&shot)
        };
        assert_eq!(of_expected_size(&shot, found.clone()), found);
        shot.size_px = Some([640, 480]);
        assert_eq!(of_expected_size(&shot, found.clone()), found);
        shot.size_px = Some([1280, 960]);
        let doubted = of_expected_size(&shot, found);
        assert_eq!(doubted.verdict, event::Verdict::Unknown);
        assert!(doubted.reason.unwrap().contains("1280 × 960"));
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

    fn inspected(shot: &Shot) -> Inspection {
        Inspection {
            verdict: event::Verdict::Pass,
            reason: None,
            ..not_performed(shot, "")
        }
    }

    /// What `serve` makes of frames taken at these times.
    fn served<J: FnMut(&Shot) -> Inspection>(
        times: std::ops::Range<Micros>,
        ready: impl Fn() -> Result<J, String> + Send + 'static,
    ) -> (Vec<Acquired>, Arc<Health>) {
        let health = Arc::new(Health::new("akron-1", Uuid::nil(), 0));
        let mailbox = Mailbox::default();
        let (tx, mut rx) = mpsc::channel(64);
        let mut made = Vec::new();
        let serving = std::thread::spawn({
            let (mailbox, health) = (mailbox.clone(), health.clone());
            move || serve(&mailbox, &tx, &health, ready)
        });
        for taken_us in times {
            mailbox.put(shot("VS-306", taken_us));
            loop {
                let message = rx.blocking_recv().unwrap();
                let is_record = matches!(message, Acquired::Inspection(_));
                made.push(message);
                if is_record {
                    break;
                }
            }
        }
        mailbox.close();
        serving.join().unwrap();
        made.extend(std::iter::from_fn(|| rx.blocking_recv()));
        (made, health)
    }

    fn verdicts(made: &[Acquired]) -> Vec<(event::Verdict, String)> {
        let records = made.iter().filter_map(|message| match message {
            Acquired::Inspection(record) => Some((record.verdict, record.reason.clone().unwrap_or_default())),
            _ => None,
        });
        records.collect()
    }

    fn alarms(made: &[Acquired]) -> Vec<bool> {
        let alarms = made.iter().filter_map(|message| match message {
            Acquired::Alarm(alarm) if alarm.code == "vision.failed" => Some(alarm.active),
            _ => None,
        });
        alarms.collect()
    }

    #[test]
    fn t28_a_panic_costs_the_frame_its_verdict_and_is_alarmed_and_the_next_frame_is_judged() {
        let ready = || {
            Ok(|shot: &Shot| {
                assert!(shot.taken_us != 1, "a broken model");
                inspected(shot)
            })
        };
        let (made, health) = served(0..3, ready);
        let said = "the inspection panicked: a broken model".to_owned();
        assert_eq!(
            verdicts(&made),
            [
                (event::Verdict::Pass, String::new()),
                (event::Verdict::Unknown, said),
                (event::Verdict::Pass, String::new())
            ]
        );
        assert_eq!(alarms(&made), [true, false]);
        assert_eq!(health.vision.off(), None);
    }

    #[test]
    fn t28_a_detector_that_panics_again_and_again_is_off_and_every_frame_is_unknown() {
        let (made, health) = served(0..6, || Ok(|_: &Shot| -> Inspection { panic!("a broken model") }));
        let found = verdicts(&made);
        assert_eq!(found.len(), 6);
        assert!(
            found
                .iter()
                .all(|(verdict, _)| *verdict == event::Verdict::Unknown)
        );
        assert_eq!(alarms(&made), [true]);
        assert!(
            health
                .vision
                .off()
                .unwrap()
                .starts_with("vision is off: it panicked 3 times")
        );
    }

    #[test]
    fn a_frame_that_waits_when_the_mailbox_closes_is_handed_back() {
        let mailbox = Mailbox::default();
        mailbox.put(shot("a", 1));
        assert_eq!(mailbox.close().len(), 1);
        assert!(mailbox.take().is_none());
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
