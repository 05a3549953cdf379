//! Who works for a tenant? Making users from the command line; signing in is `identity`'s.

use uuid::Uuid;

use crate::kernel::{
    role::Role,
    tenancy::{TenancyError, TenantTx},
};

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
    Ok(sqlx::query_scalar(
        "INSERT INTO app_user AS u (id, email, display_name, role, password_hash) \
         VALUES ($1, lower($2), $3, $4, $5) \
         ON CONFLICT (email) DO UPDATE SET version = u.version + 1, display_name = excluded.display_name, \
           role = excluded.role, password_hash = excluded.password_hash, is_active = true RETURNING id",
    )
    .bind(Uuid::now_v7())
    .bind(email)
    .bind(name)
    .bind(role.as_str())
    .bind(password_hash)
    .fetch_one(tx.conn())
    .await?)
}

/// The user of that role who was made first.
///
/// # Errors
/// [`TenancyError`].
pub async fn first_with(tx: &mut TenantTx, role: Role) -> Result<Option<Uuid>, TenancyError> {
    Ok(
        sqlx::query_scalar("SELECT id FROM app_user WHERE role = $1 AND is_active ORDER BY id LIMIT 1")
            .bind(role.as_str())
            .fetch_optional(tx.conn())
            .await?,
    )
}
