//! Which roles does a tenant have? The program's own, which follow the program, and those that the tenant makes.
//! Nobody puts into a role, or takes out of one, what they do not hold in the whole tenant themselves.

use std::collections::BTreeSet;

use axum::{
    extract::{RawQuery, State},
    http::StatusCode,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::{AssertSqlSafe, FromRow};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::TAG;
use crate::{
    app::App,
    error::{Error, Result},
    kernel::{
        audit::{Deed, value},
        caller::Caller,
        event::NewEvent,
        page::{Cursor, PageParams, Sort},
        permission::{Permission, may},
        reply::Reply,
        resource::ListParams,
        role,
        scope::Grants,
        tenancy::TenantTx,
    },
    request::{IfMatch, Json, Page, Path, Query, Rows},
};

const DESCRIPTION_CHARS_MAX: usize = 500;

/// A role.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Role {
    /// Stable id.
    pub id: Uuid,
    /// Counts changes; send it back as `If-Match` to change the role.
    pub version: i32,
    /// Its name, unique in the tenant.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// Whether it is the program's: it cannot be changed, and its permissions follow the program.
    pub is_builtin: bool,
    /// What it allows, sorted.
    #[schema(value_type = Vec<Permission>)]
    pub permissions: Vec<&'static str>,
    /// How many people hold it somewhere.
    pub holders: i64,
}

#[derive(FromRow)]
struct Row {
    id: Uuid,
    version: i32,
    name: String,
    description: String,
    is_builtin: bool,
    permissions: Vec<String>,
    holders: i64,
}

/// What a role allows. A permission that this program does not know allows nothing.
pub(super) fn allowed(name: &str, is_builtin: bool, listed: &[String]) -> BTreeSet<Permission> {
    let builtin: Option<role::Role> = name.parse().ok().filter(|_| is_builtin);
    let includes = |it: &Permission| match builtin {
        Some(role) => may(role, *it),
        None => listed.iter().any(|name| name == it.as_str()),
    };
    Permission::ALL.iter().copied().filter(includes).collect()
}

fn names(permissions: impl IntoIterator<Item = Permission>) -> Vec<&'static str> {
    let mut names: Vec<_> = permissions.into_iter().map(Permission::as_str).collect();
    names.sort_unstable();
    names
}

impl From<Row> for Role {
    fn from(row: Row) -> Self {
        Self {
            permissions: names(allowed(&row.name, row.is_builtin, &row.permissions)),
            id: row.id,
            version: row.version,
            name: row.name,
            description: row.description,
            is_builtin: row.is_builtin,
            holders: row.holders,
        }
    }
}

const SELECT: &str = "
SELECT r.id, r.version, r.name, r.description, r.is_builtin,
    ARRAY(SELECT p.permission FROM role_permission p WHERE p.role_id = r.id) AS permissions,
    (SELECT count(DISTINCT g.user_id) FROM user_role g WHERE g.role_id = r.id) AS holders
FROM role r";

async fn find(tx: &mut TenantTx, id: Uuid) -> Result<Role> {
    fetch(tx, id, "").await
}

async fn fetch(tx: &mut TenantTx, id: Uuid, suffix: &str) -> Result<Role> {
    let row: Option<Row> = sqlx::query_as(AssertSqlSafe(format!("{SELECT} WHERE r.id = $1{suffix}")))
        .bind(id)
        .fetch_optional(tx.conn())
        .await?;
    row.map(Role::from).ok_or(Error::NotFound { entity: "role" })
}

/// Reads a role of the tenant's own that the caller may change, and keeps others from changing it.
async fn lock_own(tx: &mut TenantTx, id: Uuid, version: Option<i32>) -> Result<Role> {
    let role = fetch(tx, id, " FOR UPDATE OF r").await?;
    if role.is_builtin {
        return Err(Error::Conflict(format!(
            "`{}` is the program's own role; make another one",
            role.name
        )));
    }
    if version.is_some_and(|version| version != role.version) {
        return Err(Error::Stale { entity: "role" });
    }
    Ok(role)
}

/// What some roles allow together.
///
/// # Errors
/// [`Error::Invalid`] when one of them does not exist.
pub(super) async fn allowed_by(tx: &mut TenantTx, roles: &BTreeSet<Uuid>) -> Result<BTreeSet<Permission>> {
    let ids: Vec<Uuid> = roles.iter().copied().collect();
    let found: Vec<(String, bool, Vec<String>)> = sqlx::query_as(
        "SELECT r.name, r.is_builtin, ARRAY(SELECT p.permission FROM role_permission p WHERE p.role_id = r.id) \
         FROM role r WHERE r.id = ANY($1)",
    )
    .bind(&ids)
    .fetch_all(tx.conn())
    .await?;
    if found.len() < ids.len() {
        return Err(Error::Invalid("there is no such role".to_owned()));
    }
    let each = found
        .iter()
        .flat_map(|(name, is_builtin, listed)| allowed(name, *is_builtin, listed));
    Ok(each.collect())
}

/// Refuses a caller who lacks one of these permissions in the whole tenant.
///
/// # Errors
/// [`Error::Forbidden`] names the first one lacking.
pub(super) fn check_held(grants: &Grants, permissions: impl IntoIterator<Item = Permission>) -> Result<()> {
    match grants.first_lacking(permissions) {
        None => Ok(()),
        Some(lacking) => Err(Error::Forbidden {
            permission: lacking.as_str(),
        }),
    }
}

/// Permissions by name.
///
/// # Errors
/// [`Error::Invalid`] names one that does not exist.
pub(super) fn parse(given: &[String]) -> Result<BTreeSet<Permission>> {
    let each = given.iter().map(|name| {
        Permission::parse(name).ok_or_else(|| {
            let shown: String = name.escape_default().take(60).collect();
            Error::Invalid(format!("`{shown}` is no permission"))
        })
    });
    each.collect()
}

// === reading ===

/// Narrows the list of roles.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct RoleFilter {
    /// Part of the name or the description.
    q: Option<String>,
    /// Only the program's roles, or only the tenant's own.
    is_builtin: Option<bool>,
}

/// Lists the roles.
#[utoipa::path(get, path = "/roles", operation_id = "list_roles", tag = TAG, security(("bearer" = ["role.read"])),
    params(RoleFilter, PageParams), responses((status = 200, description = "Roles", body = Page<Role>)))]
pub async fn list_roles(
    State(app): State<App>,
    caller: Caller,
    RawQuery(query): RawQuery,
) -> Result<axum::Json<Page<Role>>> {
    let params = ListParams::<RoleFilter>::parse(query.as_deref().unwrap_or_default())?;
    let rows = Rows::parse(params.page.limit)?;
    let asked = params.page.sort.as_deref().unwrap_or("id");
    let sort = Sort::parse(Some(asked), &["name"])?;
    let cursor = params.page.cursor.as_deref();
    let cursor = cursor.map(|text| Cursor::decode(text, asked)).transpose()?;
    let (order, than) = sort.sql();
    let by = if sort.field == "id" {
        "r.id::text"
    } else {
        "r.name"
    };
    let sql = format!(
        "{SELECT} WHERE ($1::text IS NULL OR strpos(lower(r.name || ' ' || r.description), lower($1)) > 0) \
           AND ($2::bool IS NULL OR r.is_builtin = $2) \
           AND ($3::uuid IS NULL OR ({by}, r.id) {than} ($4::text, $3)) \
         ORDER BY {by} {order}, r.id {order} LIMIT $5"
    );
    let mut tx = caller.begin(&app, Permission::RoleRead).await?;
    let found: Vec<Row> = sqlx::query_as(AssertSqlSafe(sql))
        .bind(params.filter.q)
        .bind(params.filter.is_builtin)
        .bind(cursor.as_ref().map(|cursor| cursor.i))
        .bind(cursor.as_ref().and_then(|cursor| cursor.v.as_str()))
        .bind(rows.fetched())
        .fetch_all(tx.conn())
        .await?;
    let roles = found.into_iter().map(Role::from).collect();
    Ok(axum::Json(Page::of(roles, rows, |role: &Role| {
        let place = if sort.field == "id" {
            role.id.to_string()
        } else {
            role.name.clone()
        };
        Cursor {
            s: asked.to_owned(),
            v: place.into(),
            i: role.id,
        }
        .encode()
    })))
}

/// Reads a role.
#[utoipa::path(get, path = "/roles/{id}", operation_id = "read_role", tag = TAG, security(("bearer" = ["role.read"])),
    params(("id" = Uuid, Path, description = "Role")), responses((status = 200, description = "The role", body = Role)))]
pub async fn read_role(State(app): State<App>, caller: Caller, Path(id): Path<Uuid>) -> Result<Reply> {
    let mut tx = caller.begin(&app, Permission::RoleRead).await?;
    Reply::json(StatusCode::OK, &find(&mut tx, id).await?)
}

/// A permission and the program's roles that have it.
#[derive(Debug, Serialize, ToSchema)]
pub struct PermissionEntry {
    /// `resource.action`.
    #[schema(value_type = Permission)]
    name: &'static str,
    /// What it allows.
    description: &'static str,
    /// Whether it can be held on a plant or line only; the others are about the whole tenant.
    is_by_line: bool,
    /// The program's roles that include it.
    roles: Vec<&'static str>,
}

/// No parameter at all.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoQuery {}

/// Lists every permission there is; one page.
#[utoipa::path(get, path = "/permissions", operation_id = "list_permissions", tag = TAG, security(("bearer" = ["role.read"])),
    responses((status = 200, description = "Permissions", body = Page<PermissionEntry>)))]
pub async fn list_permissions(
    State(app): State<App>,
    caller: Caller,
    Query(NoQuery {}): Query<NoQuery>,
) -> Result<axum::Json<Page<PermissionEntry>>> {
    caller.authorize(&app, Permission::RoleRead).await?;
    let entry = |it: &Permission| PermissionEntry {
        name: it.as_str(),
        description: it.description(),
        is_by_line: it.is_by_line(),
        roles: role::Role::ALL
            .into_iter()
            .filter(|role| may(*role, *it))
            .map(role::Role::as_str)
            .collect(),
    };
    Ok(axum::Json(Page {
        items: Permission::ALL.iter().map(entry).collect(),
        next: None,
    }))
}

// === changing ===

/// A role to make.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewRole {
    /// 1 to 40 of a-z, 0-9 and `_`, starting with a letter.
    #[schema(pattern = "^[a-z][a-z0-9_]{0,39}$")]
    name: String,
    /// What it is for, at most 500 characters.
    #[serde(default)]
    #[schema(max_length = 500)]
    description: String,
    /// What it allows: only what its maker holds in the whole tenant.
    #[serde(default)]
    #[schema(value_type = Vec<Permission>)]
    permissions: Vec<String>,
}

/// What to change of a role; absent fields stay.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RolePatch {
    /// As in a new role.
    #[schema(pattern = "^[a-z][a-z0-9_]{0,39}$")]
    name: Option<String>,
    /// As in a new role.
    #[schema(max_length = 500)]
    description: Option<String>,
}

/// Permissions to be added to a role.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RolePermissions {
    /// What the role shall allow besides: only what the caller holds in the whole tenant.
    #[schema(value_type = Vec<Permission>, min_items = 1)]
    permissions: Vec<String>,
}

fn check_description(text: &str) -> Result<()> {
    if text.chars().count() > DESCRIPTION_CHARS_MAX {
        return Err(Error::Invalid(format!(
            "`description` must have at most {DESCRIPTION_CHARS_MAX} characters"
        )));
    }
    Ok(())
}

fn taken(source: sqlx::Error) -> Error {
    match &source {
        sqlx::Error::Database(refusal) if refusal.is_unique_violation() => {
            Error::Conflict("there is a role of this name already".to_owned())
        }
        _ => source.into(),
    }
}

/// Makes a role.
#[utoipa::path(post, path = "/roles", operation_id = "create_role", tag = TAG, security(("bearer" = ["role.write"])),
    request_body = NewRole, responses((status = 201, description = "Made", body = Role)))]
pub async fn create_role(State(app): State<App>, caller: Caller, Json(new): Json<NewRole>) -> Result<Reply> {
    let (mut tx, grants) = caller.begin_granted(&app, Permission::RoleWrite).await?;
    check_description(&new.description)?;
    let permissions = parse(&new.permissions)?;
    check_held(&grants, permissions.iter().copied())?;
    let id = Uuid::now_v7();
    sqlx::query("INSERT INTO role (id, name, description) VALUES ($1, $2, $3)")
        .bind(id)
        .bind(&new.name)
        .bind(&new.description)
        .execute(tx.conn())
        .await
        .map_err(taken)?;
    add(&mut tx, id, &permissions).await?;
    let role = find(&mut tx, id).await?;
    note(&mut tx, "create", "RoleCreated", (None, Some(&role)));
    tx.finish(StatusCode::CREATED, &role).await
}

/// Changes the name or description of one of the tenant's own roles.
#[utoipa::path(patch, path = "/roles/{id}", operation_id = "update_role", tag = TAG, security(("bearer" = ["role.write"])),
    params(("id" = Uuid, Path, description = "Role"), ("if-match" = String, Header, description = "The role's version, quoted")),
    request_body = RolePatch, responses((status = 200, description = "Changed", body = Role)))]
pub async fn update_role(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<Uuid>,
    IfMatch(version): IfMatch,
    Json(patch): Json<RolePatch>,
) -> Result<Reply> {
    let mut tx = caller.begin(&app, Permission::RoleWrite).await?;
    let before = lock_own(&mut tx, id, Some(version)).await?;
    check_description(patch.description.as_deref().unwrap_or_default())?;
    sqlx::query(
        "UPDATE role SET name = coalesce($2, name), description = coalesce($3, description), \
           version = version + 1 WHERE id = $1",
    )
    .bind(id)
    .bind(&patch.name)
    .bind(&patch.description)
    .execute(tx.conn())
    .await
    .map_err(taken)?;
    let role = find(&mut tx, id).await?;
    note(&mut tx, "update", "RoleUpdated", (Some(&before), Some(&role)));
    tx.finish(StatusCode::OK, &role).await
}

/// Removes one of the tenant's own roles that nobody holds.
#[utoipa::path(delete, path = "/roles/{id}", operation_id = "delete_role", tag = TAG, security(("bearer" = ["role.write"])),
    params(("id" = Uuid, Path, description = "Role"), ("if-match" = String, Header, description = "The role's version, quoted")),
    responses((status = 204, description = "Removed")))]
pub async fn delete_role(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<Uuid>,
    IfMatch(version): IfMatch,
) -> Result<Reply> {
    let mut tx = caller.begin(&app, Permission::RoleWrite).await?;
    let before = lock_own(&mut tx, id, Some(version)).await?;
    if before.holders > 0 {
        let count = before.holders;
        return Err(Error::Conflict(format!(
            "{count} people hold this role; take it from them first"
        )));
    }
    sqlx::query("DELETE FROM role WHERE id = $1")
        .bind(id)
        .execute(tx.conn())
        .await?;
    note(&mut tx, "delete", "RoleDeleted", (Some(&before), None));
    tx.finish_empty().await
}

/// Adds permissions to one of the tenant's own roles. Adding one twice changes nothing.
#[utoipa::path(post, path = "/roles/{id}/permissions", operation_id = "add_role_permissions", tag = TAG, security(("bearer" = ["role.write"])),
    params(("id" = Uuid, Path, description = "Role")), request_body = RolePermissions,
    responses((status = 200, description = "As it is now", body = Role)))]
pub async fn add_role_permissions(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<Uuid>,
    Json(given): Json<RolePermissions>,
) -> Result<Reply> {
    let (mut tx, grants) = caller.begin_granted(&app, Permission::RoleWrite).await?;
    let before = lock_own(&mut tx, id, None).await?;
    let permissions = parse(&given.permissions)?;
    if permissions.is_empty() {
        return Err(Error::Invalid("`permissions` must have at least one".to_owned()));
    }
    check_held(&grants, permissions.iter().copied())?;
    add(&mut tx, id, &permissions).await?;
    conclude(tx, before).await
}

/// Takes a permission out of one of the tenant's own roles.
#[utoipa::path(delete, path = "/roles/{id}/permissions/{permission}", operation_id = "remove_role_permission", tag = TAG, security(("bearer" = ["role.write"])),
    params(("id" = Uuid, Path, description = "Role"), ("permission" = Permission, Path, description = "What it shall no longer allow")),
    responses((status = 200, description = "As it is now", body = Role)))]
pub async fn remove_role_permission(
    State(app): State<App>,
    caller: Caller,
    Path((id, permission)): Path<(Uuid, String)>,
) -> Result<Reply> {
    let (mut tx, grants) = caller.begin_granted(&app, Permission::RoleWrite).await?;
    let before = lock_own(&mut tx, id, None).await?;
    let permissions = parse(std::slice::from_ref(&permission))?;
    check_held(&grants, permissions)?;
    let removed = sqlx::query("DELETE FROM role_permission WHERE role_id = $1 AND permission = $2")
        .bind(id)
        .bind(&permission)
        .execute(tx.conn())
        .await?;
    if removed.rows_affected() == 0 {
        return Err(Error::NotFound { entity: "permission" });
    }
    conclude(tx, before).await
}

async fn add(tx: &mut TenantTx, id: Uuid, permissions: &BTreeSet<Permission>) -> Result<()> {
    sqlx::query(
        "INSERT INTO role_permission (role_id, permission) SELECT $1, unnest($2::text[]) ON CONFLICT DO NOTHING",
    )
    .bind(id)
    .bind(names(permissions.iter().copied()))
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Ends a change of permissions: the role has a new version.
async fn conclude(mut tx: TenantTx, before: Role) -> Result<Reply> {
    sqlx::query("UPDATE role SET version = version + 1 WHERE id = $1")
        .bind(before.id)
        .execute(tx.conn())
        .await?;
    let role = find(&mut tx, before.id).await?;
    note(&mut tx, "update", "RoleUpdated", (Some(&before), Some(&role)));
    tx.finish(StatusCode::OK, &role).await
}

fn note(
    tx: &mut TenantTx,
    action: &'static str,
    past: &'static str,
    (before, after): (Option<&Role>, Option<&Role>),
) {
    let Some(role) = after.or(before) else { return };
    let payload = json!({ "name": role.name, "permissions": role.permissions, "version": role.version });
    tx.event(&NewEvent::new(past, "role", role.id, payload));
    tx.audit(&Deed {
        before: before.map(value),
        after: after.map(value),
        ..Deed::on(action, "role", role.id)
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_of_the_tenant_allows_what_is_listed_and_known_and_nothing_by_its_name() {
        let listed = ["batch.read".to_owned(), "batch.fly".to_owned()];
        assert_eq!(names(allowed("admin", false, &listed)), ["batch.read"]);
        assert_eq!(
            allowed("admin", true, &[]).len(),
            Permission::ALL.len(),
            "the program's own admin allows everything"
        );
        assert!(allowed("unheard_of", true, &[]).is_empty());
    }

    #[test]
    fn a_name_that_is_no_permission_is_refused_by_name() {
        let said = parse(&["batch.read".to_owned(), "x\u{1}y".to_owned()]).unwrap_err();
        assert_eq!(said.to_string(), "`x\\u{1}y` is no permission");
    }
}
