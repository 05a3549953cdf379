//! Who am I, and what may I do? The caller's own account, tenant, plant and permissions.

use axum::{Json as Answer, extract::State};
use serde::Serialize;
use sqlx::FromRow;
use utoipa::ToSchema;
use uuid::Uuid;

use super::TAG;
use crate::{
    app::App,
    error::{Error, Result},
    kernel::{
        caller::{Caller, Principal},
        role::Role,
    },
};

/// The caller, their tenant and plant, and what they may do.
#[derive(Debug, Serialize, ToSchema)]
pub struct Me {
    user: MyUser,
    tenant: MyTenant,
    plant: MyPlant,
    /// Permissions, `resource.action`.
    can: Vec<&'static str>,
}

/// The caller's account.
#[derive(Debug, Serialize, ToSchema)]
pub struct MyUser {
    /// Nil for a token that the command line printed.
    id: Uuid,
    email: String,
    display_name: String,
    #[schema(value_type = String)]
    role: Role,
}

/// The caller's tenant.
#[derive(Debug, Serialize, ToSchema, FromRow)]
pub struct MyTenant {
    slug: String,
    name: String,
}

/// The caller's plant.
#[derive(Debug, Serialize, ToSchema, FromRow)]
pub struct MyPlant {
    code: String,
    name: String,
    /// IANA time zone in which people read times.
    zone: String,
}

/// Says who the caller is.
#[utoipa::path(get, path = "/auth/me", operation_id = "read_me", tag = TAG,
    responses((status = 200, description = "The caller", body = Me)))]
pub async fn me(State(app): State<App>, caller: Caller) -> Result<Answer<Me>> {
    let mut platform = app.db.platform().await?;
    let tenant: Option<MyTenant> = sqlx::query_as("SELECT slug, name FROM platform.tenant WHERE slug = $1")
        .bind(caller.tenant.as_str())
        .fetch_optional(platform.conn())
        .await?;
    drop(platform);
    let (mut tx, grants) = caller.begin_signed_in(&app).await?;
    let user_id = caller.user_id().unwrap_or_default();
    let email: Option<String> = sqlx::query_scalar("SELECT email FROM app_user WHERE id = $1")
        .bind(user_id)
        .fetch_optional(tx.conn())
        .await?;
    let plant: Option<MyPlant> = sqlx::query_as("SELECT code, name, zone FROM plant ORDER BY code LIMIT 1")
        .fetch_optional(tx.conn())
        .await?;
    let role = match caller.principal {
        Principal::Operator(role) => Some(role),
        _ => grants.grants.iter().find_map(|grant| grant.role.parse().ok()),
    };
    Ok(Answer(Me {
        user: MyUser {
            id: user_id,
            email: email.unwrap_or_default(),
            display_name: grants.name.clone(),
            role: role.unwrap_or(Role::Auditor),
        },
        tenant: tenant.ok_or(Error::NotFound { entity: "tenant" })?,
        plant: plant.ok_or(Error::NotFound { entity: "plant" })?,
        can: grants.permissions(),
    }))
}
