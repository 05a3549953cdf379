//! Who stands at the line PC? A badge says who, a PIN proves it. PINs are kept as Argon2id hashes, checked one at a time,
//! and a badge is locked after wrong ones in a row.

mod attempts;
pub mod config;

use argon2::{
    Argon2,
    password_hash::{PasswordHasher as _, PasswordVerifier as _, phc::PasswordHash},
};
use protocol::Micros;
use serde::Serialize;
use tokio::sync::Mutex;

use self::attempts::Attempts;

/// Fewest digits or letters of a PIN.
pub const PIN_CHARS_MIN: usize = 4;
/// Most bytes of a PIN.
pub const PIN_BYTES_MAX: usize = 64;

/// What a person may do on the line PC, in rising order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Enter values, acknowledge alarms.
    Operator,
    /// Shelve and reset alarms and take them out of service; be the second person.
    Supervisor,
}

/// One person's badge.
#[derive(Clone, PartialEq, Eq)]
pub struct Badge {
    /// What is typed or scanned.
    pub id: String,
    /// The person.
    pub name: String,
    /// What they may do.
    pub role: Role,
    /// The PIN's hash, in PHC form.
    pin_hash: String,
}

impl std::fmt::Debug for Badge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let badge = &mut f.debug_struct("Badge");
        badge.field("id", &self.id).field("role", &self.role);
        badge.finish_non_exhaustive()
    }
}

/// A PIN as it was typed. Never shown.
#[derive(Clone)]
pub struct Pin(String);

impl std::fmt::Debug for Pin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pin(…)")
    }
}

/// A PIN that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PinError {
    /// Too short, or longer than anybody types.
    #[error("a PIN has {PIN_CHARS_MIN} characters or more, and at most {PIN_BYTES_MAX} bytes")]
    Length,
    /// Argon2 refused it, or there was no randomness for the salt.
    #[error("the PIN cannot be hashed")]
    Unusable,
}

impl Pin {
    /// A PIN of a bearable length.
    ///
    /// # Errors
    /// [`PinError::Length`].
    pub fn new(text: &str) -> Result<Self, PinError> {
        let is_bearable = text.chars().count() >= PIN_CHARS_MIN && text.len() <= PIN_BYTES_MAX;
        is_bearable.then(|| Self(text.to_owned())).ok_or(PinError::Length)
    }

    /// Its hash with a fresh salt, in PHC form. Burns tens of milliseconds of CPU on purpose.
    ///
    /// # Errors
    /// [`PinError::Unusable`].
    pub fn hash(&self) -> Result<String, PinError> {
        let hashed = Argon2::default()
            .hash_password(self.0.as_bytes())
            .map_err(|_| PinError::Unusable)?;
        Ok(hashed.to_string())
    }

    /// Whether it belongs to a hash; in a time that says nothing about how near it is.
    fn matches(&self, stored: &str) -> bool {
        PasswordHash::new(stored).is_ok_and(|hash| {
            Argon2::default()
                .verify_password(self.0.as_bytes(), &hash)
                .is_ok()
        })
    }
}

/// Why somebody is not let.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// Not said which of the two.
    #[error(
        "badge or PIN is wrong; after {left} more wrong tries the badge is locked for a quarter of an hour"
    )]
    Wrong {
        /// Tries that are left.
        left: u32,
    },
    /// Too many wrong ones.
    #[error("the badge is locked after too many wrong PINs; try again in {minutes} min")]
    Locked {
        /// Until then, rounded up.
        minutes: i64,
    },
    /// The person is known and may not.
    #[error("this needs a supervisor's badge")]
    NotAllowed,
    /// Both signatures are of one person.
    #[error("the second badge must be of another person")]
    SamePerson,
}

/// All badges, and how often each was tried in vain.
#[derive(Debug)]
pub struct Badges {
    list: Vec<Badge>,
    /// What unknown badges are compared with, so that the time taken does not tell them apart.
    decoy: String,
    /// Held while a PIN is checked: tries are counted one after the other, and cost one core at most.
    attempts: Mutex<Attempts>,
}

impl Badges {
    /// The configured badges.
    pub fn new(list: Vec<Badge>) -> Self {
        // With the first badge's own parameters: as slow as a real one.
        let decoy = list
            .first()
            .map_or_else(String::new, |badge| badge.pin_hash.clone());
        Self {
            list,
            decoy,
            attempts: Mutex::default(),
        }
    }

    /// Whether there is none: nothing can be entered.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The person behind a badge and its PIN, when they may do what needs `role`.
    ///
    /// # Errors
    /// [`Denied`].
    pub async fn check(&self, id: &str, pin: Pin, role: Role, now_us: Micros) -> Result<Badge, Denied> {
        let known = self.list.iter().find(|badge| badge.id == id);
        // All unknown badges are counted as one: a guesser cannot fill the memory.
        let counted = known.map_or("", |badge| badge.id.as_str());
        let mut attempts = self.attempts.lock().await;
        if let Some(minutes) = attempts.locked(counted, now_us) {
            return Err(Denied::Locked { minutes });
        }
        let stored = known.map_or(&self.decoy, |badge| &badge.pin_hash).clone();
        let matches = tokio::task::spawn_blocking(move || pin.matches(&stored)).await;
        let badge = known.filter(|_| matches.unwrap_or(false));
        let Some(badge) = badge else {
            let left = attempts.wrong(counted, now_us);
            tracing::warn!(badge = %counted, left, "wrong badge or PIN on the local page");
            return Err(match attempts.locked(counted, now_us) {
                Some(minutes) => Denied::Locked { minutes },
                None => Denied::Wrong { left },
            });
        };
        attempts.right(counted);
        if badge.role < role {
            return Err(Denied::NotAllowed);
        }
        Ok(badge.clone())
    }
}

#[cfg(test)]
pub(in crate::local) mod tests {
    use super::*;

    /// A hash that is quick to check, for tests.
    pub(in crate::local) fn quick(pin: &str) -> String {
        let params = argon2::Params::new(8, 1, 1, None).unwrap();
        let argon2 = Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
        argon2.hash_password(pin.as_bytes()).unwrap().to_string()
    }

    pub(in crate::local) fn badge(id: &str, role: Role, pin: &str) -> Badge {
        Badge {
            id: id.to_owned(),
            name: format!("Person {id}"),
            role,
            pin_hash: quick(pin),
        }
    }

    fn badges() -> Badges {
        Badges::new(vec![
            badge("b1", Role::Operator, "1234"),
            badge("b2", Role::Supervisor, "5678"),
        ])
    }

    async fn check(
        badges: &Badges,
        id: &str,
        pin: &str,
        role: Role,
        now_us: Micros,
    ) -> Result<String, Denied> {
        let badge = badges.check(id, Pin::new(pin).unwrap(), role, now_us).await;
        badge.map(|badge| badge.name)
    }

    #[tokio::test]
    async fn the_right_pin_opens_and_the_role_decides() {
        let badges = badges();
        assert_eq!(
            check(&badges, "b1", "1234", Role::Operator, 0).await,
            Ok("Person b1".to_owned())
        );
        assert_eq!(
            check(&badges, "b1", "1234", Role::Supervisor, 0).await,
            Err(Denied::NotAllowed)
        );
        assert!(check(&badges, "b2", "5678", Role::Operator, 0).await.is_ok());
    }

    #[tokio::test]
    async fn five_wrong_pins_lock_a_badge_for_a_quarter_of_an_hour_and_no_other() {
        let badges = badges();
        for left in (1..5).rev() {
            assert_eq!(
                check(&badges, "b1", "0000", Role::Operator, 0).await,
                Err(Denied::Wrong { left })
            );
        }
        let locked = Err(Denied::Locked { minutes: 15 });
        assert_eq!(check(&badges, "b1", "0000", Role::Operator, 0).await, locked);
        // The right one is no help, and says nothing.
        assert_eq!(check(&badges, "b1", "1234", Role::Operator, 0).await, locked);
        assert!(check(&badges, "b2", "5678", Role::Operator, 0).await.is_ok());
        let later_us = 15 * 60_000_000;
        assert!(
            check(&badges, "b1", "1234", Role::Operator, later_us)
                .await
                .is_ok()
        );
    }

    #[tokio::test]
    async fn a_right_pin_forgets_wrong_ones() {
        let badges = badges();
        for _ in 0..10 {
            for _ in 0..4 {
                assert!(check(&badges, "b1", "0000", Role::Operator, 0).await.is_err());
            }
            assert!(check(&badges, "b1", "1234", Role::Operator, 0).await.is_ok());
        }
    }

    #[tokio::test]
    async fn an_unknown_badge_is_refused_like_a_wrong_pin() {
        let badges = badges();
        assert_eq!(
            check(&badges, "b9", "1234", Role::Operator, 0).await,
            Err(Denied::Wrong { left: 4 })
        );
        let none = Badges::new(Vec::new());
        assert!(check(&none, "b1", "1234", Role::Operator, 0).await.is_err());
    }

    #[test]
    fn a_pins_hash_is_its_own_and_neither_is_ever_shown() {
        let pin = Pin::new("2468").unwrap();
        let hash = pin.hash().unwrap();
        assert!(hash.starts_with("$argon2id$") && pin.matches(&hash));
        assert!(!Pin::new("2469").unwrap().matches(&hash));
        assert!(!format!("{pin:?}").contains("2468"));
        let badge = badge("b1", Role::Operator, "2468");
        assert!(!format!("{badge:?}").contains("argon2"));
        assert_eq!(Pin::new("123").err(), Some(PinError::Length));
        assert_eq!(Pin::new(&"1".repeat(65)).err(), Some(PinError::Length));
    }
}
