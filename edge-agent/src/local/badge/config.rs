//! What does `[[badge]]` say? One person who may sign on the line PC.

use argon2::password_hash::phc::PasswordHash;

use super::{Badge, Role};
use crate::config::{Names, Section};

/// Reads one `[[badge]]`.
pub fn read_badge(section: &Section<'_>, names: &mut Names) -> Option<Badge> {
    const ROLES: [(&str, Role); 2] = [("operator", Role::Operator), ("supervisor", Role::Supervisor)];
    let id = section.required_text("id");
    if let Some(id) = &id {
        names.claim(section, "badge", id);
        if id.value.len() > 64 || id.value.chars().any(char::is_control) {
            section.fault_at(
                &id.span,
                "`badge.id` must be 1 to 64 bytes, without control characters",
            );
        }
    }
    let name = section.required_text("name");
    let role = section.choice("role", &ROLES).unwrap_or(Role::Operator);
    let pin_hash = section.required_text("pin_hash");
    if let Some(hash) = &pin_hash
        && !is_argon2id(&hash.value)
    {
        // The text is not repeated: somebody may have put the PIN itself there.
        section.fault_at(
            &hash.span,
            "`badge.pin_hash` must be an Argon2id hash: make one with `foodflow-edge badge hash`",
        );
    }
    Some(Badge {
        id: id?.value,
        name: name?.value,
        role,
        pin_hash: pin_hash?.value,
    })
}

fn is_argon2id(text: &str) -> bool {
    text.starts_with("$argon2id$") && PasswordHash::new(text).is_ok_and(|hash| hash.hash.is_some())
}
