//! Who has an account in a tenant, and which roles do they hold where? Accounts are made by invitation, suspended and
//! removed, never deleted: records refer to people. Nobody changes an account that may do more than they may
//! themselves, and nobody takes away the tenant's last administrator.

use std::collections::BTreeSet;

use axum::{
    extract::{RawQuery, State},
    http::StatusCode,
};
use chrono::{DateTime, Duration, Utc};
use protocol::Micros;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, FromRow, types};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::{
    TAG,
    role::{allowed_by, check_held},
};
use crate::{
    app::App,
    error::{Error, Result},
    kernel::{
        audit::Deed,
        caller::Caller,
        event::NewEvent,
        page::{Cursor, PageParams, Sort},
        permission::Permission,
        reply::Reply,
        resource::ListParams,
        scope::Grants,
        secret::{self, Secret},
        tenancy::TenantTx,
    },
    request::{IfMatch, Json, Page, Path, Rows},
    tenant::user::normalize_email,
};

const NAME_CHARS_MAX: usize = 200;
const ROLES_MAX: usize = 100;
const INVITATION_VALID_DAYS: i64 = 7;
const TOKEN_BYTES: usize = 32;

/// A role that somebody holds, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GrantedRole {
    /// The role.
    pub role_id: Uuid,
    /// Its name.
    pub role: String,
    /// The plant it holds on; null when that is not the limit.
    pub plant_id: Option<Uuid>,
    /// The line it holds on; null when that is not the limit. Without plant and line it holds in the whole tenant.
    pub line_id: Option<Uuid>,
}

/// An account.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct User {
    /// Stable id.
    pub id: Uuid,
    /// Counts changes; send it back as `If-Match` to change the account or its roles.
    pub version: i32,
    /// The address to sign in with.
    pub email: String,
    /// Name for people.
    pub display_name: String,
    /// Whether they may sign in.
    pub is_active: bool,
    /// Whether they have shown that the address is theirs; an invitation that was not accepted yet has not.
    pub has_confirmed: bool,
    /// When the account was made.
    pub created_us: Micros,
    /// Their roles.
    pub roles: Vec<GrantedRole>,
}

#[derive(FromRow)]
struct Row {
    id: Uuid,
    version: i32,
    email: String,
    display_name: String,
    is_active: bool,
    has_confirmed: bool,
    created_at: DateTime<Utc>,
    roles: types::Json<Vec<GrantedRole>>,
}

impl From<Row> for User {
    fn from(row: Row) -> Self {
        Self {
            id: row.id,
            version: row.version,
            email: row.email,
            display_name: row.display_name,
            is_active: row.is_active,
            has_confirmed: row.has_confirmed,
            created_us: row.created_at.timestamp_micros(),
            roles: row.roles.0,
        }
    }
}

const SELECT: &str = "
SELECT u.id, u.version, u.email, u.display_name, u.is_active, u.email_verified_at IS NOT NULL AS has_confirmed,
    u.created_at, coalesce((SELECT jsonb_agg(jsonb_build_object('role_id', r.id, 'role', r.name,
            'plant_id', g.plant_id, 'line_id', g.line_id) ORDER BY r.name, g.plant_id, g.line_id)
        FROM user_role g JOIN role r ON r.id = g.role_id WHERE g.user_id = u.id), '[]') AS roles
FROM app_user u";

async fn fetch(tx: &mut TenantTx, id: Uuid, suffix: &str) -> Result<User> {
    let row: Option<Row> = sqlx::query_as(AssertSqlSafe(format!("{SELECT} WHERE u.id = $1{suffix}")))
        .bind(id)
        .fetch_optional(tx.conn())
        .await?;
    row.map(User::from).ok_or(Error::NotFound { entity: "user" })
}

/// Reads an account that the caller may change, and keeps others from changing it.
async fn lock(tx: &mut TenantTx, grants: &Grants, id: Uuid, version: Option<i32>) -> Result<User> {
    let user = fetch(tx, id, " FOR UPDATE OF u").await?;
    if version.is_some_and(|version| version != user.version) {
        return Err(Error::Stale { entity: "user" });
    }
    let held = user.roles.iter().map(|granted| granted.role_id).collect();
    check_held(grants, allowed_by(tx, &held).await?)?;
    Ok(user)
}

// === reading ===

/// Narrows the list of accounts.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct UserFilter {
    /// Part of the address or the name.
    q: Option<String>,
    /// Only those who may, or may not, sign in.
    is_active: Option<bool>,
    /// Only those who hold the role of this name somewhere.
    role: Option<String>,
}

/// Lists the accounts.
#[utoipa::path(get, path = "/users", operation_id = "list_users", tag = TAG, security(("bearer" = ["user.read"])),
    params(UserFilter, PageParams), responses((status = 200, description = "Accounts", body = Page<User>)))]
pub async fn list_users(
    State(app): State<App>,
    caller: Caller,
    RawQuery(query): RawQuery,
) -> Result<axum::Json<Page<User>>> {
    let params = ListParams::<UserFilter>::parse(query.as_deref().unwrap_or_default())?;
    let rows = Rows::parse(params.page.limit)?;
    let asked = params.page.sort.as_deref().unwrap_or("id");
    let sort = Sort::parse(Some(asked), &["email", "display_name"])?;
    let cursor = params.page.cursor.as_deref();
    let cursor = cursor.map(|text| Cursor::decode(text, asked)).transpose()?;
    let (order, than) = sort.sql();
    let by = if sort.field == "id" {
        "id::text"
    } else {
        sort.field
    };
    let sql = format!(
        "{SELECT} WHERE ($1::text IS NULL OR strpos(lower(u.email || ' ' || u.display_name), lower($1)) > 0) \
           AND ($2::bool IS NULL OR u.is_active = $2) \
           AND ($3::text IS NULL OR EXISTS (SELECT FROM user_role g JOIN role r ON r.id = g.role_id \
             WHERE g.user_id = u.id AND r.name = $3)) \
           AND ($4::uuid IS NULL OR (u.{by}, u.id) {than} ($5::text, $4)) \
         ORDER BY u.{by} {order}, u.id {order} LIMIT $6"
    );
    let mut tx = caller.begin(&app, Permission::UserRead).await?;
    let found: Vec<Row> = sqlx::query_as(AssertSqlSafe(sql))
        .bind(params.filter.q)
        .bind(params.filter.is_active)
        .bind(params.filter.role)
        .bind(cursor.as_ref().map(|cursor| cursor.i))
        .bind(cursor.as_ref().and_then(|cursor| cursor.v.as_str()))
        .bind(rows.fetched())
        .fetch_all(tx.conn())
        .await?;
    let users = found.into_iter().map(User::from).collect();
    Ok(axum::Json(Page::of(users, rows, |user: &User| {
        Cursor {
            s: asked.to_owned(),
            v: place(user, sort.field),
            i: user.id,
        }
        .encode()
    })))
}

fn place(user: &User, field: &str) -> Value {
    Value::from(match field {
        "email" => user.email.clone(),
        "display_name" => user.display_name.clone(),
        _ => user.id.to_string(),
    })
}

/// Reads an account.
#[utoipa::path(get, path = "/users/{id}", operation_id = "read_user", tag = TAG, security(("bearer" = ["user.read"])),
    params(("id" = Uuid, Path, description = "Account")), responses((status = 200, description = "The account", body = User)))]
pub async fn read_user(State(app): State<App>, caller: Caller, Path(id): Path<Uuid>) -> Result<Reply> {
    let mut tx = caller.begin(&app, Permission::UserRead).await?;
    Reply::json(StatusCode::OK, &fetch(&mut tx, id, "").await?)
}

/// Somebody's roles, with the account's version.
#[derive(Debug, Serialize, ToSchema)]
pub struct UserRoles {
    /// The account's version.
    version: i32,
    /// What they hold.
    roles: Vec<GrantedRole>,
}

impl From<User> for UserRoles {
    fn from(user: User) -> Self {
        Self {
            version: user.version,
            roles: user.roles,
        }
    }
}

/// Lists somebody's roles.
#[utoipa::path(get, path = "/users/{id}/roles", operation_id = "list_user_roles", tag = TAG, security(("bearer" = ["user.read"])),
    params(("id" = Uuid, Path, description = "Account")), responses((status = 200, description = "Their roles", body = UserRoles)))]
pub async fn list_user_roles(State(app): State<App>, caller: Caller, Path(id): Path<Uuid>) -> Result<Reply> {
    let mut tx = caller.begin(&app, Permission::UserRead).await?;
    Reply::json(StatusCode::OK, &UserRoles::from(fetch(&mut tx, id, "").await?))
}

// === inviting ===

/// A role to be given, in the whole tenant or on one plant or line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(
    clippy::struct_field_names,
    reason = "they are ids of three different things, named as in the answer"
)]
pub struct RoleGrant {
    /// The role.
    role_id: Uuid,
    /// Only on this plant.
    plant_id: Option<Uuid>,
    /// Only on this line; not together with a plant.
    line_id: Option<Uuid>,
}

/// Somebody to be invited.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewUser {
    /// The address to sign in with, unique in the tenant.
    #[schema(format = "email", max_length = 254)]
    email: String,
    /// Name for people.
    #[schema(min_length = 1, max_length = 200)]
    display_name: String,
    /// What they shall hold: only roles that allow nothing that the caller lacks.
    #[serde(default)]
    #[schema(max_items = 100)]
    roles: Vec<RoleGrant>,
}

/// What to change of an account; absent fields stay.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UserPatch {
    /// Name for people.
    #[schema(min_length = 1, max_length = 200)]
    display_name: Option<String>,
    /// False suspends: every session ends, and the next request is refused.
    is_active: Option<bool>,
}

/// The roles that somebody shall hold from now on.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UserRolesPut {
    /// All of them.
    #[schema(max_items = 100)]
    roles: Vec<RoleGrant>,
}

fn checked_name(text: &str) -> Result<&str> {
    let name = text.trim();
    if (1..=NAME_CHARS_MAX).contains(&name.chars().count()) && !name.contains(char::is_control) {
        Ok(name)
    } else {
        Err(Error::Invalid(format!(
            "`display_name` must be text of 1 to {NAME_CHARS_MAX} characters"
        )))
    }
}

fn checked_roles(given: Vec<RoleGrant>) -> Result<BTreeSet<RoleGrant>> {
    if given.len() > ROLES_MAX {
        return Err(Error::Invalid(format!(
            "`roles` must have at most {ROLES_MAX} entries"
        )));
    }
    Ok(given.into_iter().collect())
}

/// Invites somebody: an account without a password, which the person sets with the token that is mailed to them.
#[utoipa::path(post, path = "/users", operation_id = "create_user", tag = TAG, security(("bearer" = ["user.write"])),
    request_body = NewUser, responses((status = 201, description = "Invited", body = User)))]
pub async fn create_user(State(app): State<App>, caller: Caller, Json(new): Json<NewUser>) -> Result<Reply> {
    let (mut tx, grants) = caller.begin_granted(&app, Permission::UserWrite).await?;
    let email = normalize_email(&new.email).map_err(|error| Error::Invalid(error.to_string()))?;
    let name = checked_name(&new.display_name)?;
    let roles = checked_roles(new.roles)?;
    check_held(
        &grants,
        allowed_by(&mut tx, &roles.iter().map(|it| it.role_id).collect()).await?,
    )?;
    let id = Uuid::now_v7();
    let made =
        sqlx::query("INSERT INTO app_user (id, email, display_name, created_at) VALUES ($1, $2, $3, $4)")
            .bind(id)
            .bind(&email)
            .bind(name)
            .bind(tx.at())
            .execute(tx.conn())
            .await;
    made.map_err(taken)?;
    put_roles(&mut tx, id, &roles).await?;
    invite(&app, &mut tx, id).await?;
    let user = fetch(&mut tx, id, "").await?;
    tx.audit(&Deed::on("create", "app_user", id).after(&user));
    tx.event(&told("UserInvited", &user));
    tx.finish(StatusCode::CREATED, &user).await
}

fn taken(source: sqlx::Error) -> Error {
    match &source {
        sqlx::Error::Database(refusal) if refusal.is_unique_violation() => {
            Error::Conflict("there is an account with this address already".to_owned())
        }
        _ => source.into(),
    }
}

/// Sends the invitation again; the one before is void. For somebody who has not accepted yet.
#[utoipa::path(post, path = "/users/{id}/invite", operation_id = "invite_user", tag = TAG, security(("bearer" = ["user.write"])),
    params(("id" = Uuid, Path, description = "Account")), responses((status = 204, description = "On its way")))]
pub async fn invite_user(State(app): State<App>, caller: Caller, Path(id): Path<Uuid>) -> Result<Reply> {
    let (mut tx, grants) = caller.begin_granted(&app, Permission::UserWrite).await?;
    let user = lock(&mut tx, &grants, id, None).await?;
    if user.has_confirmed || !user.is_active {
        return Err(Error::Conflict(
            "only somebody who may sign in and has not accepted yet is invited again".to_owned(),
        ));
    }
    invite(&app, &mut tx, id).await?;
    tx.audit(&Deed::on("invite", "app_user", id));
    tx.event(&told("UserInvited", &user));
    tx.finish_empty().await
}

/// Makes the one token with which the invitation is accepted, and sees to its mail.
async fn invite(app: &App, tx: &mut TenantTx, user_id: Uuid) -> Result<()> {
    void_tokens(tx, user_id).await?;
    let token = Secret::new(secret::random_text(TOKEN_BYTES));
    sqlx::query(
        "INSERT INTO one_time_token (token_sha256, user_id, purpose, expires_at) VALUES ($1, $2, 'invitation', $3)",
    )
    .bind(&secret::digest(token.expose())[..])
    .bind(user_id)
    .bind(app.clock.now() + Duration::days(INVITATION_VALID_DAYS))
    .execute(tx.conn())
    .await?;
    Ok(())
}

async fn void_tokens(tx: &mut TenantTx, user_id: Uuid) -> Result<()> {
    let now = tx.at();
    sqlx::query("UPDATE one_time_token SET used_at = $2 WHERE user_id = $1 AND used_at IS NULL")
        .bind(user_id)
        .bind(now)
        .execute(tx.conn())
        .await?;
    Ok(())
}

// === changing ===

/// Changes the name, or suspends or reactivates. Suspension ends every session at once.
#[utoipa::path(patch, path = "/users/{id}", operation_id = "update_user", tag = TAG, security(("bearer" = ["user.write"])),
    params(("id" = Uuid, Path, description = "Account"), ("if-match" = String, Header, description = "The account's version, quoted")),
    request_body = UserPatch, responses((status = 200, description = "Changed", body = User)))]
pub async fn update_user(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<Uuid>,
    IfMatch(version): IfMatch,
    Json(patch): Json<UserPatch>,
) -> Result<Reply> {
    let (mut tx, grants) = caller.begin_granted(&app, Permission::UserWrite).await?;
    let before = lock(&mut tx, &grants, id, Some(version)).await?;
    let name = patch.display_name.as_deref().map(checked_name).transpose()?;
    let admins = lock_admins(&mut tx).await?;
    sqlx::query(
        "UPDATE app_user SET display_name = coalesce($2, display_name), is_active = coalesce($3, is_active), \
           version = version + 1 WHERE id = $1",
    )
    .bind(id)
    .bind(name)
    .bind(patch.is_active)
    .execute(tx.conn())
    .await?;
    let user = fetch(&mut tx, id, "").await?;
    let (action, past) = match (before.is_active, user.is_active) {
        (true, false) => ("suspend", "UserSuspended"),
        (false, true) => ("reactivate", "UserReactivated"),
        _ => ("update", "UserUpdated"),
    };
    if !user.is_active {
        end_sessions(&mut tx, id).await?;
    }
    check_admins(&mut tx, admins).await?;
    tx.audit(&Deed::on(action, "app_user", id).before(&before).after(&user));
    tx.event(&told(past, &user));
    tx.finish(StatusCode::OK, &user).await
}

/// Removes somebody for good: suspended, without roles, password and open invitations. The account stays, because
/// records refer to it, and so does its address.
#[utoipa::path(delete, path = "/users/{id}", operation_id = "delete_user", tag = TAG, security(("bearer" = ["user.write"])),
    params(("id" = Uuid, Path, description = "Account"), ("if-match" = String, Header, description = "The account's version, quoted")),
    responses((status = 204, description = "Removed")))]
pub async fn delete_user(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<Uuid>,
    IfMatch(version): IfMatch,
) -> Result<Reply> {
    let (mut tx, grants) = caller.begin_granted(&app, Permission::UserWrite).await?;
    let before = lock(&mut tx, &grants, id, Some(version)).await?;
    let admins = lock_admins(&mut tx).await?;
    sqlx::query(
        "UPDATE app_user SET is_active = false, password_hash = NULL, version = version + 1 WHERE id = $1",
    )
    .bind(id)
    .execute(tx.conn())
    .await?;
    put_roles(&mut tx, id, &BTreeSet::new()).await?;
    void_tokens(&mut tx, id).await?;
    end_sessions(&mut tx, id).await?;
    check_admins(&mut tx, admins).await?;
    let user = fetch(&mut tx, id, "").await?;
    tx.audit(&Deed::on("remove", "app_user", id).before(&before).after(&user));
    tx.event(&told("UserRemoved", &user));
    tx.finish_empty().await
}

/// Gives somebody exactly these roles. A role is given or taken only by who holds all that it allows.
#[utoipa::path(put, path = "/users/{id}/roles", operation_id = "put_user_roles", tag = TAG, security(("bearer" = ["user.write"])),
    params(("id" = Uuid, Path, description = "Account"), ("if-match" = String, Header, description = "The account's version, quoted")),
    request_body = UserRolesPut, responses((status = 200, description = "Their roles", body = UserRoles)))]
pub async fn put_user_roles(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<Uuid>,
    IfMatch(version): IfMatch,
    Json(given): Json<UserRolesPut>,
) -> Result<Reply> {
    let (mut tx, grants) = caller.begin_granted(&app, Permission::UserWrite).await?;
    let before = lock(&mut tx, &grants, id, Some(version)).await?;
    let roles = checked_roles(given.roles)?;
    check_held(
        &grants,
        allowed_by(&mut tx, &roles.iter().map(|it| it.role_id).collect()).await?,
    )?;
    let admins = lock_admins(&mut tx).await?;
    put_roles(&mut tx, id, &roles).await?;
    sqlx::query("UPDATE app_user SET version = version + 1 WHERE id = $1")
        .bind(id)
        .execute(tx.conn())
        .await?;
    check_admins(&mut tx, admins).await?;
    let user = fetch(&mut tx, id, "").await?;
    tx.audit(&Deed::on("put_roles", "app_user", id).before(&before).after(&user));
    tx.event(&told("UserRolesChanged", &user));
    tx.finish(StatusCode::OK, &UserRoles::from(user)).await
}

/// Takes away what is not in `roles` and adds what is missing; what stays keeps its date.
async fn put_roles(tx: &mut TenantTx, user_id: Uuid, roles: &BTreeSet<RoleGrant>) -> Result<()> {
    let column = |part: fn(&RoleGrant) -> Option<Uuid>| roles.iter().map(part).collect::<Vec<_>>();
    let (ids, plants, lines) = (
        column(|it| Some(it.role_id)),
        column(|it| it.plant_id),
        column(|it| it.line_id),
    );
    for sql in [
        "DELETE FROM user_role g WHERE g.user_id = $1 AND NOT EXISTS (SELECT FROM \
           unnest($2::uuid[], $3::uuid[], $4::uuid[]) AS n (role_id, plant_id, line_id) WHERE n.role_id = g.role_id \
           AND n.plant_id IS NOT DISTINCT FROM g.plant_id AND n.line_id IS NOT DISTINCT FROM g.line_id)",
        "INSERT INTO user_role (user_id, role_id, plant_id, line_id) SELECT $1, n.role_id, n.plant_id, n.line_id \
         FROM unnest($2::uuid[], $3::uuid[], $4::uuid[]) AS n (role_id, plant_id, line_id) ON CONFLICT DO NOTHING",
    ] {
        sqlx::query(sql)
            .bind(user_id)
            .bind(&ids)
            .bind(&plants)
            .bind(&lines)
            .execute(tx.conn())
            .await?;
    }
    Ok(())
}

async fn end_sessions(tx: &mut TenantTx, user_id: Uuid) -> Result<()> {
    let now = tx.at();
    sqlx::query(
        "UPDATE session SET ended_at = $2, ended_because = 'suspended' WHERE user_id = $1 AND ended_at IS NULL",
    )
    .bind(user_id)
    .bind(now)
    .execute(tx.conn())
    .await?;
    Ok(())
}

// === the last administrator ===

/// Counts who administers the tenant and can sign in. Deeds that could take one away queue here, so that two
/// administrators who remove each other do not both succeed.
async fn lock_admins(tx: &mut TenantTx) -> Result<i64> {
    sqlx::query("SELECT FROM role WHERE name = 'admin' AND is_builtin FOR NO KEY UPDATE")
        .execute(tx.conn())
        .await?;
    count_admins(tx).await
}

async fn count_admins(tx: &mut TenantTx) -> Result<i64> {
    let count = sqlx::query_scalar(
        "SELECT count(DISTINCT u.id) FROM app_user u JOIN user_role g ON g.user_id = u.id \
         JOIN role r ON r.id = g.role_id WHERE r.name = 'admin' AND r.is_builtin AND g.plant_id IS NULL \
           AND g.line_id IS NULL AND u.is_active AND u.email_verified_at IS NOT NULL",
    );
    Ok(count.fetch_one(tx.conn()).await?)
}

async fn check_admins(tx: &mut TenantTx, before: i64) -> Result<()> {
    if before > 0 && count_admins(tx).await? == 0 {
        return Err(Error::Conflict(
            "this is the tenant's last administrator; make another one first".to_owned(),
        ));
    }
    Ok(())
}

/// What happened, without a name: events leave the hub.
fn told(past: &'static str, user: &User) -> NewEvent {
    let facts = json!({ "is_active": user.is_active, "roles": user.roles, "version": user.version });
    NewEvent::new(past, "app_user", user.id, facts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_text_that_can_be_printed_on_one_line() {
        assert_eq!(checked_name("  Zoë  ").unwrap(), "Zoë");
        for wrong in ["", "   ", "a\u{0}b", "a\nb", &"x".repeat(201)] {
            assert!(checked_name(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_role_given_twice_is_given_once() {
        let grant = RoleGrant {
            role_id: Uuid::nil(),
            plant_id: None,
            line_id: None,
        };
        assert_eq!(checked_roles(vec![grant, grant]).unwrap().len(), 1);
        assert!(checked_roles(vec![grant; 101]).is_err());
    }
}
