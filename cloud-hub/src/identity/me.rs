//! What does a caller see of themselves: who they are, in which tenant, what they may do and where, and until when?

use axum::{Json as Answer, extract::State};
use protocol::Micros;
use serde::Serialize;
use sqlx::{FromRow, types};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{TAG, user::GrantedRole};
use crate::{
    app::App,
    error::{Error, Result},
    kernel::{
        caller::{Caller, Principal},
        permission::Permission,
        role::Role,
        scope::{Grants, Scope},
        tenancy::TenantTx,
    },
};

/// The caller, their tenant and plant, and what they may do.
#[derive(Debug, Serialize, ToSchema)]
pub struct Me {
    user: MyUser,
    tenant: MyTenant,
    plant: MyPlant,
    /// The roles the caller was granted, and where; none for a key or a printed token.
    roles: Vec<GrantedRole>,
    /// Permissions, `resource.action`, held somewhere.
    can: Vec<&'static str>,
    /// The lines on which the caller may do less than everything; null when all that they may do holds everywhere.
    lines: Option<Vec<Uuid>>,
    /// Until when this token or key is good.
    expires_us: Option<Micros>,
    /// Until when the session can be continued; null for who has none.
    session_expires_us: Option<Micros>,
}

/// Whose credential it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum MyKind {
    /// A person.
    User,
    /// A machine.
    ApiKey,
    /// Whoever holds a token that the command line printed.
    Operator,
}

/// The caller's account.
#[derive(Debug, Serialize, ToSchema)]
pub struct MyUser {
    /// The account, or the key; nil for a token that the command line printed.
    id: Uuid,
    kind: MyKind,
    /// Empty for who has no account.
    email: String,
    display_name: String,
    /// The first of the caller's built-in roles; `auditor` for who has none.
    #[schema(value_type = String)]
    role: Role,
}

/// The caller's tenant.
#[derive(Debug, Serialize, ToSchema, FromRow)]
pub struct MyTenant {
    slug: String,
    name: String,
}

/// The caller's plant: the first that they see, or the tenant itself in UTC while it has none.
#[derive(Debug, Serialize, ToSchema, FromRow)]
pub struct MyPlant {
    code: String,
    name: String,
    /// IANA time zone in which people read times.
    zone: String,
}

/// What the tenant's schema knows of the caller.
#[derive(Debug, Default, FromRow)]
struct Account {
    email: String,
    roles: types::Json<Vec<GrantedRole>>,
    session_expires_us: Option<Micros>,
}

/// Says who the caller is.
#[utoipa::path(get, path = "/auth/me", operation_id = "read_me", tag = TAG,
    responses((status = 200, description = "The caller", body = Me)))]
pub async fn read_me(State(app): State<App>, caller: Caller) -> Result<Answer<Me>> {
    let (mut tx, grants) = caller.begin_signed_in(&app).await?;
    let account = account(&mut tx, &caller.principal).await?;
    let plant = plant(&mut tx, grants.scope(Permission::PlantRead)).await?;
    let expires_us = expiry(&mut tx, &caller).await?;
    tx.step_out().await?;
    let tenant: Option<MyTenant> = sqlx::query_as("SELECT slug, name FROM platform.tenant WHERE slug = $1")
        .bind(caller.tenant.as_str())
        .fetch_optional(tx.conn())
        .await?;
    drop(tx);
    let tenant = tenant.ok_or(Error::NotFound { entity: "tenant" })?;
    Ok(Answer(Me {
        user: identify(&caller.principal, &grants, account.email),
        plant: plant.unwrap_or_else(|| stand_in(&tenant)),
        tenant,
        roles: account.roles.0,
        can: grants.permissions(),
        lines: lines(&grants),
        expires_us,
        session_expires_us: account.session_expires_us,
    }))
}

async fn account(tx: &mut TenantTx, principal: &Principal) -> Result<Account> {
    let Principal::User { id, session } = principal else {
        return Ok(Account::default());
    };
    let found: Option<Account> = sqlx::query_as(
        "SELECT u.email, coalesce((SELECT jsonb_agg(jsonb_build_object('role_id', r.id, 'role', r.name, \
             'plant_id', g.plant_id, 'line_id', g.line_id) ORDER BY r.name, g.plant_id, g.line_id) \
           FROM user_role g JOIN role r ON r.id = g.role_id WHERE g.user_id = u.id), '[]') AS roles, \
           (SELECT (extract(epoch FROM s.expires_at) * 1000000)::bigint FROM session s WHERE s.id = $2) \
             AS session_expires_us \
         FROM app_user u WHERE u.id = $1",
    )
    .bind(id)
    .bind(session)
    .fetch_optional(tx.conn())
    .await?;
    Ok(found.unwrap_or_default())
}

async fn plant(tx: &mut TenantTx, seen: Option<Scope>) -> Result<Option<MyPlant>> {
    let lines = match seen {
        None => return Ok(None),
        Some(Scope::Everywhere) => None,
        Some(Scope::Lines(lines)) => Some(Vec::from_iter(lines)),
    };
    let plant = sqlx::query_as(
        "SELECT p.code, p.name, p.zone FROM plant p WHERE $1::uuid[] IS NULL \
           OR EXISTS (SELECT FROM line l WHERE l.plant_id = p.id AND l.id = ANY($1)) ORDER BY p.code LIMIT 1",
    )
    .bind(lines)
    .fetch_optional(tx.conn())
    .await?;
    Ok(plant)
}

async fn expiry(tx: &mut TenantTx, caller: &Caller) -> Result<Option<Micros>> {
    let Principal::ApiKey(key) = &caller.principal else {
        return Ok(Some(caller.expires_us));
    };
    let sql = "SELECT (extract(epoch FROM expires_at) * 1000000)::bigint FROM api_key WHERE id = $1";
    Ok(sqlx::query_scalar(sql)
        .bind(key.id())
        .fetch_optional(tx.conn())
        .await?)
}

fn identify(principal: &Principal, grants: &Grants, email: String) -> MyUser {
    let (id, kind, printed) = match principal {
        Principal::User { id, .. } => (*id, MyKind::User, None),
        Principal::ApiKey(key) => (key.id(), MyKind::ApiKey, None),
        Principal::Operator(role) => (Uuid::nil(), MyKind::Operator, Some(*role)),
    };
    let mut builtin = grants.grants.iter().filter(|grant| grant.is_builtin);
    let granted = builtin.find_map(|grant| grant.role.parse().ok());
    MyUser {
        id,
        kind,
        email,
        display_name: grants.name.clone(),
        role: printed.or(granted).unwrap_or(Role::Auditor),
    }
}

/// Every line on which something is held that is not held everywhere.
fn lines(grants: &Grants) -> Option<Vec<Uuid>> {
    let local = grants.grants.iter().filter_map(|grant| grant.lines.as_ref());
    let mut lines: Vec<Uuid> = local.clone().flatten().copied().collect();
    lines.sort_unstable();
    lines.dedup();
    local.clone().next().map(|_| lines)
}

fn stand_in(tenant: &MyTenant) -> MyPlant {
    MyPlant {
        code: tenant.slug.clone(),
        name: tenant.name.clone(),
        zone: "UTC".to_owned(),
    }
}
