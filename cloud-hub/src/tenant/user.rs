//! Who works for a tenant? Making users from the command line; signing in is `identity`'s.

use serde_json::json;
use uuid::Uuid;

use crate::kernel::{
    audit::Deed,
    role::Role,
    tenancy::{TenancyError, TenantTx},
};

const EMAIL_CHARS_MAX: usize = 254;

/// The text is no e-mail address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no e-mail address: a name, an @ and a domain, without spaces, at most {EMAIL_CHARS_MAX} characters"
)]
pub struct BadEmail(String);

/// An address as it is stored: trimmed and in lower case.
///
/// # Errors
/// [`BadEmail`].
pub fn normalize_email(text: &str) -> Result<String, BadEmail> {
    let email = text.trim().to_lowercase();
    let parts: Vec<&str> = email.split('@').collect();
    let is_printable = !email.contains(|c: char| c.is_whitespace() || c.is_control());
    match parts[..] {
        [name, domain]
            if !name.is_empty()
                && !domain.is_empty()
                && is_printable
                && email.chars().count() <= EMAIL_CHARS_MAX =>
        {
            Ok(email)
        }
        _ => Err(BadEmail(text.escape_default().take(80).collect())),
    }
}

/// Makes a user, or gives one a new name, role and password.
///
/// # Errors
/// [`TenancyError`].
pub async fn put(
    tx: &mut TenantTx,
    email: &str,
    name: &str,
    role: Role,
    password_hash: &str,
) -> Result<Uuid, TenancyError> {
    let id: Uuid = sqlx::query_scalar(
        "INSERT INTO app_user AS u (id, email, display_name, password_hash, email_verified_at) \
         VALUES ($1, lower($2), $3, $4, $5) \
         ON CONFLICT (email) DO UPDATE SET version = u.version + 1, display_name = excluded.display_name, \
           password_hash = excluded.password_hash, is_active = true RETURNING id",
    )
    .bind(Uuid::now_v7())
    .bind(email.trim())
    .bind(name)
    .bind(password_hash)
    .bind(tx.at())
    .fetch_one(tx.conn())
    .await?;
    sqlx::query("DELETE FROM user_role WHERE user_id = $1")
        .bind(id)
        .execute(tx.conn())
        .await?;
    sqlx::query(
        "INSERT INTO user_role (user_id, role_id) SELECT $1, id FROM role WHERE name = $2 AND is_builtin",
    )
    .bind(id)
    .bind(role.as_str())
    .execute(tx.conn())
    .await?;
    let now = json!({ "email": email.trim(), "display_name": name, "role": role });
    tx.audit(&Deed::on("put", "app_user", id).after(now));
    Ok(id)
}

/// The user of that role who was made first.
///
/// # Errors
/// [`TenancyError`].
pub async fn first_with(tx: &mut TenantTx, role: Role) -> Result<Option<Uuid>, TenancyError> {
    Ok(sqlx::query_scalar(
        "SELECT u.id FROM app_user u JOIN user_role g ON g.user_id = u.id JOIN role r ON r.id = g.role_id \
             WHERE r.name = $1 AND r.is_builtin AND g.plant_id IS NULL AND g.line_id IS NULL AND u.is_active \
             ORDER BY u.id LIMIT 1",
    )
    .bind(role.as_str())
    .fetch_optional(tx.conn())
    .await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_stored_in_lower_case_and_an_impossible_one_is_named() {
        assert_eq!(
            normalize_email(" Ann@Akron.Example ").unwrap(),
            "ann@akron.example"
        );
        let long = format!("{}@x.example", "a".repeat(250));
        for wrong in ["", "ann", "@x", "ann@", "a@b@c", "a b@c", "a\u{0}@b", &long] {
            assert!(normalize_email(wrong).is_err(), "{wrong:?}");
        }
        let said = normalize_email("a\nb").unwrap_err().to_string();
        assert!(said.starts_with("`a\\nb` is no e-mail address"), "{said}");
    }
}
