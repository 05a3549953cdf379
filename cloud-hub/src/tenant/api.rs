//! How are tenants worked on over HTTP? Operators of the platform make, rename, suspend and delete them; people of a
//! tenant see and configure their own.

use axum::{extract::State, http::StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sqlx::{ConnectOptions, Connection, PgConnection};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::{
    TAG,
    migrate::{Files, MigrateError},
    operator::{PlatformOperator, Visitor},
    provision::{self, By, ProvisionError, Tenant},
    registry::{self, TenantRecord, TenantStatus},
    settings::TenantSettingsPatch,
    user::normalize_email,
};
use crate::{
    app::App,
    error::{Error, Result},
    identity::{mail::Recipient, registration},
    kernel::{
        audit::Deed,
        context,
        database::Target,
        idempotency,
        permission::Permission,
        reply::Reply,
        role::Role,
        tenancy::{self, TenantSlug, TenantTx},
    },
    request::{IfMatch, Json, Page, Path, Query, Rows},
};

const NAME_CHARS_MAX: usize = 200;
const REASON_CHARS_MAX: usize = 500;

/// A tenant to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewTenant {
    /// Its name in URLs, topics and tokens, for ever.
    #[schema(pattern = "^[a-z][a-z0-9-]{0,39}$", max_length = 40)]
    slug: String,
    /// Its name for people.
    #[schema(min_length = 1, max_length = 200)]
    name: String,
    /// Who administers it first: invited by mail, with the making.
    admin: Option<FirstAdmin>,
}

/// The first administrator of a tenant.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FirstAdmin {
    /// Address to sign in with.
    #[schema(format = "email", max_length = 254)]
    email: String,
    /// Name for people.
    #[schema(min_length = 1, max_length = 200)]
    display_name: String,
}

/// What may be changed of a tenant's entry.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TenantPatch {
    /// Its name for people.
    #[schema(min_length = 1, max_length = 200)]
    name: String,
}

/// Why a tenant is suspended or taken up again.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StatusChange {
    /// In words; goes into the audit chains.
    #[schema(min_length = 1, max_length = 500)]
    reason: String,
}

/// A tenant to be deleted, named once more.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TenantRemoval {
    /// The slug of the path again: what is deleted does not come back.
    slug: String,
    /// In words; stays on the tombstone.
    #[schema(min_length = 1, max_length = 500)]
    reason: String,
}

/// Which tenants to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct TenantQuery {
    /// `next` of the page before.
    cursor: Option<String>,
    /// Rows per page, 1 to 200; 100 when absent.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<i64>,
    /// Only those.
    #[param(inline)]
    status: Option<TenantStatus>,
}

impl From<ProvisionError> for Error {
    fn from(error: ProvisionError) -> Self {
        match error {
            ProvisionError::Exists(_) | ProvisionError::Retired(_) | ProvisionError::Active => {
                Self::Conflict(error.to_string())
            }
            ProvisionError::Unknown => Self::NotFound { entity: "tenant" },
            ProvisionError::Stale => Self::Stale { entity: "tenant" },
            ProvisionError::Migrate(source) if source.is_lock_timeout() => Self::Unavailable(source.into()),
            ProvisionError::Migrate(MigrateError::Database(source)) => source.into(),
            ProvisionError::Migrate(source) => Self::Internal(source.into()),
        }
    }
}

/// Makes a tenant: schema, role, tables and built-in roles, or nothing.
#[utoipa::path(post, path = "/tenants", operation_id = "create_tenant", tag = TAG,
    security(("platform" = [])), request_body = NewTenant,
    responses((status = 201, description = "Made", body = TenantRecord)))]
pub async fn create_tenant(
    State(app): State<App>,
    operator: PlatformOperator,
    Json(new): Json<NewTenant>,
) -> Result<Reply> {
    let slug = TenantSlug::parse(&new.slug).map_err(|wrong| Error::Invalid(wrong.to_string()))?;
    let name = text("name", &new.name, NAME_CHARS_MAX)?;
    let admin = new.admin.as_ref().map(checked).transpose()?;
    let tenant = Tenant {
        slug: slug.clone(),
        name,
    };
    let by = by(&app, &operator, None);
    idempotency::replay_in(&app.db, &slug, operator.actor()).await?;
    let started = tokio::time::Instant::now();
    let mut making = tenancy::begin_as_owner(owner(&app)?).await?;
    provision::establish(&mut making, &tenant, &Files::tenant()).await?;
    let deed = provision::making(&tenant);
    provision::record(&mut making, &by.entry(&deed)).await?;
    let made = registry::read(&mut making, &slug).await?;
    let mut tx = TenantTx::of_making(making, &slug, operator.actor(), by.at).await?;
    tx.audit(&deed);
    if let Some((email, name)) = &admin {
        invite_admin(&mut tx, &app, email, name).await?;
    }
    let reply = tx.finish(StatusCode::CREATED, &made).await?;
    metrics::histogram!("foodflow_tenant_provision_seconds").record(started.elapsed().as_secs_f64());
    if admin.is_some() {
        app.mail.ring(&slug);
    }
    Ok(reply)
}

/// An account with every permission and without a password, which its owner sets with the token in the mail.
async fn invite_admin(tx: &mut TenantTx, app: &App, email: &str, name: &str) -> Result<()> {
    let user_id = Uuid::now_v7();
    sqlx::query("INSERT INTO app_user (id, email, display_name, created_at) VALUES ($1, $2, $3, $4)")
        .bind(user_id)
        .bind(email)
        .bind(name)
        .bind(tx.at())
        .execute(tx.conn())
        .await?;
    sqlx::query(
        "INSERT INTO user_role (user_id, role_id) SELECT $1, id FROM role WHERE name = $2 AND is_builtin",
    )
    .bind(user_id)
    .bind(Role::Admin.as_str())
    .execute(tx.conn())
    .await?;
    registration::invite(tx, app, Recipient { user_id, email }).await?;
    let now = json!({ "email": email, "display_name": name, "role": Role::Admin });
    tx.audit(&Deed::on("create", "app_user", user_id).after(now));
    Ok(())
}

/// Lists tenants by slug.
#[utoipa::path(get, path = "/tenants", operation_id = "list_tenants", tag = TAG, security(("platform" = [])),
    params(TenantQuery), responses((status = 200, description = "A page of tenants", body = Page<TenantRecord>)))]
pub async fn list_tenants(
    State(app): State<App>,
    _operator: PlatformOperator,
    Query(query): Query<TenantQuery>,
) -> Result<axum::Json<Page<TenantRecord>>> {
    let rows = Rows::parse(query.limit)?;
    let after = query.cursor.as_deref().map(TenantSlug::parse).transpose();
    let after = after.map_err(|_| Error::Invalid("`cursor` is not the `next` of a page".to_owned()))?;
    let mut tx = app.db.platform().await?;
    let after = after.as_ref().map(TenantSlug::as_str);
    let tenants = registry::list(&mut tx, after, query.status, rows.fetched()).await?;
    Ok(axum::Json(Page::of(tenants, rows, |tenant| tenant.slug.clone())))
}

/// Shows a tenant's entry.
#[utoipa::path(get, path = "/tenants/{slug}", operation_id = "read_tenant", tag = TAG,
    security(("bearer" = ["tenant.read"]), ("platform" = [])), params(("slug" = String, Path, description = "Slug")),
    responses((status = 200, description = "The tenant", body = TenantRecord)))]
pub async fn read_tenant(
    State(app): State<App>,
    visitor: Visitor,
    Path(slug): Path<String>,
) -> Result<Reply> {
    let (_, slug) = visitor.on(&app, &slug, Permission::TenantRead).await?;
    let mut tx = app.db.platform().await?;
    let found = registry::read(tx.conn(), &slug).await?;
    Reply::json(StatusCode::OK, &shown(&visitor, found))
}

/// Gives a tenant another name for people. Its slug stays.
#[utoipa::path(patch, path = "/tenants/{slug}", operation_id = "rename_tenant", tag = TAG,
    security(("platform" = [])), params(("slug" = String, Path, description = "Slug"), ("if-match" = String, Header, description = "The tenant's version, quoted")),
    request_body = TenantPatch, responses((status = 200, description = "Renamed", body = TenantRecord)))]
pub async fn rename_tenant(
    State(app): State<App>,
    operator: PlatformOperator,
    Path(slug): Path<String>,
    IfMatch(version): IfMatch,
    Json(patch): Json<TenantPatch>,
) -> Result<Reply> {
    let slug = parse(&slug)?;
    let name = text("name", &patch.name, NAME_CHARS_MAX)?;
    let mut tx = app.db.platform_as(operator.actor()).await?;
    let renamed = registry::rename(&mut tx, &slug, Some(version), &name).await?;
    tx.finish_in(&slug, StatusCode::OK, &renamed).await
}

/// Takes a suspended tenant up again.
#[utoipa::path(post, path = "/tenants/{slug}/activate", operation_id = "activate_tenant", tag = TAG,
    security(("platform" = [])), params(("slug" = String, Path, description = "Slug")),
    request_body = StatusChange, responses((status = 200, description = "Active", body = TenantRecord)))]
pub async fn activate_tenant(
    State(app): State<App>,
    operator: PlatformOperator,
    Path(slug): Path<String>,
    Json(change): Json<StatusChange>,
) -> Result<Reply> {
    set_status(&app, &operator, &slug, TenantStatus::Active, &change).await
}

/// Suspends a tenant: its people, keys and edges are refused from now on; edges keep what they measure.
#[utoipa::path(post, path = "/tenants/{slug}/deactivate", operation_id = "deactivate_tenant", tag = TAG,
    security(("platform" = [])), params(("slug" = String, Path, description = "Slug")),
    request_body = StatusChange, responses((status = 200, description = "Suspended", body = TenantRecord)))]
pub async fn deactivate_tenant(
    State(app): State<App>,
    operator: PlatformOperator,
    Path(slug): Path<String>,
    Json(change): Json<StatusChange>,
) -> Result<Reply> {
    set_status(&app, &operator, &slug, TenantStatus::Suspended, &change).await
}

async fn set_status(
    app: &App,
    operator: &PlatformOperator,
    slug: &str,
    status: TenantStatus,
    change: &StatusChange,
) -> Result<Reply> {
    let slug = parse(slug)?;
    let reason = text("reason", &change.reason, REASON_CHARS_MAX)?;
    idempotency::replay_in(&app.db, &slug, operator.actor()).await?;
    let mut tx = app.db.platform_as(operator.actor()).await?;
    let now = registry::set_status(&mut tx, &slug, status, &reason).await?;
    tx.finish_in(&slug, StatusCode::OK, &now).await
}

/// Changes what a tenant has decided for itself.
#[utoipa::path(patch, path = "/tenants/{slug}/configure", operation_id = "configure_tenant", tag = TAG,
    security(("bearer" = ["tenant.configure"]), ("platform" = [])),
    params(("slug" = String, Path, description = "Slug"), ("if-match" = String, Header, description = "The tenant's version, quoted")), request_body = TenantSettingsPatch,
    responses((status = 200, description = "Configured", body = TenantRecord)))]
pub async fn configure_tenant(
    State(app): State<App>,
    visitor: Visitor,
    Path(slug): Path<String>,
    IfMatch(version): IfMatch,
    Json(given): Json<Map<String, Value>>,
) -> Result<Reply> {
    let patch: TenantSettingsPatch =
        serde_json::from_value(Value::Object(given.clone())).map_err(|error| Error::Unreadable {
            status: StatusCode::UNPROCESSABLE_ENTITY,
            detail: error.to_string(),
        })?;
    let (actor, slug) = visitor.on(&app, &slug, Permission::TenantConfigure).await?;
    let mut tx = app.db.platform_as(actor).await?;
    let configured = registry::configure(&mut tx, &slug, version, &patch, &given).await?;
    tx.finish_in(&slug, StatusCode::OK, &shown(&visitor, configured))
        .await
}

/// Deletes a suspended tenant with everything in it. Export it before: what stays is a tombstone with the end of its
/// audit chain, and its slug is not used again.
#[utoipa::path(delete, path = "/tenants/{slug}", operation_id = "delete_tenant", tag = TAG,
    security(("platform" = [])), params(("slug" = String, Path, description = "Slug"), ("if-match" = String, Header, description = "The tenant's version, quoted")),
    request_body = TenantRemoval, responses((status = 204, description = "Gone")))]
pub async fn delete_tenant(
    State(app): State<App>,
    operator: PlatformOperator,
    Path(slug): Path<String>,
    IfMatch(version): IfMatch,
    Json(removal): Json<TenantRemoval>,
) -> Result<Reply> {
    let slug = parse(&slug)?;
    if removal.slug != slug.as_str() {
        return Err(Error::Invalid("`slug` must be the slug of the path".to_owned()));
    }
    let reason = text("reason", &removal.reason, REASON_CHARS_MAX)?;
    let mut owner = connect(&app).await?;
    provision::remove(&mut owner, &slug, version, &by(&app, &operator, Some(reason))).await?;
    // A connection that does not close in order closes itself.
    drop(owner.close().await);
    Ok(Reply::empty())
}

/// A slug of the path; what cannot be one is no tenant's.
fn parse(slug: &str) -> Result<TenantSlug> {
    TenantSlug::parse(slug).map_err(|_| Error::NotFound { entity: "tenant" })
}

fn checked(admin: &FirstAdmin) -> Result<(String, String)> {
    let email = normalize_email(&admin.email).map_err(|error| Error::Invalid(error.to_string()))?;
    Ok((email, text("display_name", &admin.display_name, NAME_CHARS_MAX)?))
}

fn text(field: &str, given: &str, chars_max: usize) -> Result<String> {
    let text = given.trim();
    if (1..=chars_max).contains(&text.chars().count()) && !text.contains(char::is_control) {
        return Ok(text.to_owned());
    }
    Err(Error::Invalid(format!(
        "`{field}` must be 1 to {chars_max} printable characters"
    )))
}

/// The database's owner: only it makes and drops schemas.
fn owner(app: &App) -> Result<&Target> {
    app.owner.as_ref().ok_or_else(|| {
        Error::Unavailable(anyhow::anyhow!(
            "the owner of the database is not known (database.admin_url)"
        ))
    })
}

async fn connect(app: &App) -> Result<PgConnection> {
    Ok(owner(app)?.requests.connect().await?)
}

fn by(app: &App, operator: &PlatformOperator, why: Option<String>) -> By {
    By {
        actor: operator.actor(),
        at: app.clock.now(),
        why: why.or_else(|| context::current().why),
    }
}

/// What PostgreSQL said to a migration is the platform's business.
fn shown(visitor: &Visitor, mut tenant: TenantRecord) -> TenantRecord {
    if !visitor.is_operator() {
        tenant.migration_error = None;
    }
    tenant
}
