//! Which picture is taken next, and which are passed over? Pure: a directory listing in, a decision out.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// A picture in the directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Picture {
    /// When it was written.
    pub written: SystemTime,
    /// Where.
    pub path: PathBuf,
}

/// What to do about a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// The newest new picture.
    pub take: Option<Picture>,
    /// New pictures that are older: superseded before they were looked at.
    pub passed_over: Vec<Picture>,
}

/// Chooses among `listed`, of which those in `seen` were handled before. Afterwards `seen` holds what is still
/// listed, so it cannot grow beyond the directory.
#[expect(
    clippy::implicit_hasher,
    reason = "there is one caller, with the standard hasher"
)]
pub fn choose(listed: Vec<Picture>, seen: &mut HashSet<Picture>) -> Choice {
    let mut new: Vec<Picture> = listed
        .iter()
        .filter(|picture| !seen.contains(*picture))
        .cloned()
        .collect();
    new.sort();
    *seen = listed.into_iter().collect();
    let take = new.pop();
    Choice {
        take,
        passed_over: new,
    }
}

/// Whether a directory entry is a complete picture: files under construction are called `.tmp` or start with a dot.
pub fn is_picture(name: &str) -> bool {
    let extension = Path::new(name)
        .extension()
        .and_then(|extension| extension.to_str());
    let is_jpeg = |extension: &str| {
        ["jpg", "jpeg"]
            .iter()
            .any(|known| extension.eq_ignore_ascii_case(known))
    };
    !name.starts_with('.') && extension.is_some_and(is_jpeg)
}

/// Notices when a camera shows the same picture again and again: its sensor's noise makes every true picture another
/// one, to the byte.
#[derive(Clone, Debug)]
pub struct Frozen {
    limit: Duration,
    last: Option<([u8; 32], Duration)>,
}

impl Frozen {
    /// Nothing seen yet; frozen after `limit`.
    pub fn new(limit: Duration) -> Self {
        Self { limit, last: None }
    }

    /// Takes a picture's hash and the time since any fixed moment; whether the camera is frozen.
    pub fn observe(&mut self, hash: [u8; 32], now: Duration) -> bool {
        match self.last {
            Some((known, since)) if known == hash => now.saturating_sub(since) >= self.limit,
            _ => {
                self.last = Some((hash, now));
                false
            }
        }
    }
}

/// Notices when a camera falls silent and when it is back.
#[derive(Clone, Debug)]
pub struct Silence {
    limit: Duration,
    quiet_since: Duration,
    is_silent: bool,
}

impl Silence {
    /// Heard just now.
    pub fn new(limit: Duration) -> Self {
        Self {
            limit,
            quiet_since: Duration::ZERO,
            is_silent: false,
        }
    }

    /// Takes what was seen `at` a time since the start; `Some` when silence begins (true) or ends (false).
    pub fn observe(&mut self, at: Duration, picture_came: bool) -> Option<bool> {
        if picture_came {
            self.quiet_since = at;
        }
        let is_silent = at.saturating_sub(self.quiet_since) > self.limit;
        let changed = is_silent != self.is_silent;
        self.is_silent = is_silent;
        changed.then_some(is_silent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(second: u64) -> Picture {
        Picture {
            written: SystemTime::UNIX_EPOCH + Duration::from_secs(second),
            path: PathBuf::from(format!("{second}.jpg")),
        }
    }

    #[test]
    fn t28_the_same_picture_for_too_long_is_a_frozen_camera_until_another_comes() {
        let mut frozen = Frozen::new(Duration::from_secs(2));
        let seconds = |hash: u8, second: u64, frozen: &mut Frozen| {
            frozen.observe([hash; 32], Duration::from_secs(second))
        };
        assert!(!seconds(1, 0, &mut frozen));
        assert!(!seconds(1, 1, &mut frozen));
        assert!(seconds(1, 2, &mut frozen));
        assert!(seconds(1, 9, &mut frozen));
        assert!(!seconds(2, 10, &mut frozen));
        assert!(!seconds(1, 11, &mut frozen));
    }

    #[test]
    fn the_newest_picture_wins_and_the_others_are_named() {
        let mut seen = HashSet::new();
        let choice = choose(vec![picture(2), picture(5), picture(1)], &mut seen);
        assert_eq!(choice.take, Some(picture(5)));
        assert_eq!(choice.passed_over, [picture(1), picture(2)]);
    }

    #[test]
    fn a_picture_is_taken_once_and_forgotten_when_it_is_gone() {
        let mut seen = HashSet::new();
        choose(vec![picture(1)], &mut seen);
        assert_eq!(choose(vec![picture(1)], &mut seen), Choice::default());
        choose(vec![], &mut seen);
        assert!(seen.is_empty());
    }

    #[test]
    fn a_file_under_construction_is_no_picture() {
        for name in ["a.jpg.tmp", ".a.jpg", "a.png", "a"] {
            assert!(!is_picture(name), "{name}");
        }
        assert!(is_picture("A.JPG") && is_picture("tray-1.jpeg"));
    }

    #[test]
    fn silence_is_reported_when_it_begins_and_when_it_ends() {
        let mut silence = Silence::new(Duration::from_secs(30));
        let said: Vec<(u64, bool)> = (0..100)
            .filter_map(|second| {
                silence
                    .observe(Duration::from_secs(second), second == 60)
                    .map(|silent| (second, silent))
            })
            .collect();
        assert_eq!(said, [(31, true), (60, false), (91, true)]);
    }
}
