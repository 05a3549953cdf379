//! Where may people of this tenant prove who they are? Identity providers as the tenant's administrators keep them.
//! Whoever may change one decides who everybody is: the permission is an administrator's.

use std::sync::Arc;

use axum::{Extension, extract::State, http::StatusCode};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::json;
use sqlx::{FromRow, types::Json as Jsonb};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    TAG,
    oidc::{ProviderError, Providers},
};
use crate::{
    app::App,
    error::{Error, Result},
    kernel::{
        audit::Deed, caller::Caller, event::NewEvent, permission::Permission, reply::Reply, secret::Secret,
        tenancy::TenantTx,
    },
    request::{IfMatch, Json, ListQuery, Page, Path, Query, Rows},
};

const TABLE: &str = "identity_provider";
const COLUMNS: &str = "id, version, name, display_name, issuer, client_id, client_secret, scopes, email_domains, \
                       role_claim, role_mapping, auto_provision, is_active, problem";
const SCOPES_MAX: usize = 20;
const DOMAINS_MAX: usize = 50;
const MAPPINGS_MAX: usize = 100;
const TEXT_CHARS_MAX: usize = 200;
const SECRET_CHARS_MAX: usize = 1000;

/// A role that follows from what the provider says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RoleMapping {
    /// A value of the claim.
    pub value: String,
    /// Name of the role that it gives, in the whole tenant.
    pub role: String,
}

/// A provider as it is stored.
#[derive(Clone, Debug, Default, FromRow)]
pub(super) struct Stored {
    pub(super) id: Uuid,
    pub(super) version: i32,
    pub(super) name: String,
    pub(super) display_name: String,
    pub(super) issuer: String,
    pub(super) client_id: String,
    /// Sealed.
    pub(super) client_secret: Option<Vec<u8>>,
    pub(super) scopes: Vec<String>,
    pub(super) email_domains: Vec<String>,
    pub(super) role_claim: Option<String>,
    #[sqlx(json)]
    pub(super) role_mapping: Vec<RoleMapping>,
    pub(super) auto_provision: bool,
    pub(super) is_active: bool,
    pub(super) problem: Option<String>,
}

/// An identity provider (OpenID Connect).
#[derive(Debug, Serialize, ToSchema)]
pub struct IdentityProvider {
    id: Uuid,
    /// Counts changes; send it back as `If-Match` to change the record.
    version: i32,
    /// Its name in addresses, unique in the tenant.
    name: String,
    /// Its name for people.
    display_name: String,
    /// As the provider calls itself.
    issuer: String,
    /// As which the hub is registered there.
    client_id: String,
    /// Whether a secret is kept; it is never shown.
    has_client_secret: bool,
    /// Asked for besides `openid`.
    scopes: Vec<String>,
    /// Verified addresses of these domains may be linked to accounts.
    email_domains: Vec<String>,
    /// Claim that the mapping reads.
    role_claim: Option<String>,
    role_mapping: Vec<RoleMapping>,
    /// Whether who has no account gets one.
    auto_provision: bool,
    is_active: bool,
    /// Why it could not be reached when it was saved; null when it answered.
    problem: Option<String>,
}

impl From<&Stored> for IdentityProvider {
    fn from(row: &Stored) -> Self {
        let row = row.clone();
        Self {
            id: row.id,
            version: row.version,
            name: row.name,
            display_name: row.display_name,
            issuer: row.issuer,
            client_id: row.client_id,
            has_client_secret: row.client_secret.is_some(),
            scopes: row.scopes,
            email_domains: row.email_domains,
            role_claim: row.role_claim,
            role_mapping: row.role_mapping,
            auto_provision: row.auto_provision,
            is_active: row.is_active,
            problem: row.problem,
        }
    }
}

/// What a client sends to register one.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewIdentityProvider {
    name: String,
    display_name: String,
    issuer: String,
    client_id: String,
    /// Absent for a public client.
    #[schema(value_type = Option<String>)]
    client_secret: Option<Secret>,
    /// `email` and `profile` when absent.
    scopes: Option<Vec<String>>,
    #[serde(default)]
    email_domains: Vec<String>,
    role_claim: Option<String>,
    #[serde(default)]
    role_mapping: Vec<RoleMapping>,
    #[serde(default)]
    auto_provision: bool,
    is_active: Option<bool>,
}

/// What a client sends to change one; absent fields stay, null clears where there may be nothing.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct IdentityProviderPatch {
    display_name: Option<String>,
    issuer: Option<String>,
    client_id: Option<String>,
    #[schema(value_type = Option<String>)]
    #[serde(default)]
    client_secret: Change<Secret>,
    scopes: Option<Vec<String>>,
    email_domains: Option<Vec<String>>,
    #[schema(value_type = Option<String>)]
    #[serde(default)]
    role_claim: Change<String>,
    role_mapping: Option<Vec<RoleMapping>>,
    auto_provision: Option<bool>,
    is_active: Option<bool>,
}

/// A field of a patch where null means something else than absence.
#[derive(Debug, Default)]
enum Change<T> {
    #[default]
    Keep,
    Set(Option<T>),
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Change<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Option::deserialize(from).map(Self::Set)
    }
}

/// What a secret is sealed for.
pub(super) fn purpose(id: Uuid) -> String {
    format!("identity_provider.client_secret {id}")
}

fn seal(app: &App, id: Uuid, secret: Option<Secret>) -> Result<Option<Vec<u8>>> {
    let Some(secret) = secret else {
        return Ok(None);
    };
    if !(1..=SECRET_CHARS_MAX).contains(&secret.expose().chars().count()) {
        return Err(Error::Invalid(format!(
            "a client secret has 1 to {SECRET_CHARS_MAX} characters"
        )));
    }
    Ok(Some(
        app.sealing_key.seal(&purpose(id), secret.expose().as_bytes()),
    ))
}

impl NewIdentityProvider {
    fn row(self, app: &App) -> Result<Stored> {
        let id = Uuid::now_v7();
        let scopes = self
            .scopes
            .unwrap_or_else(|| vec!["email".to_owned(), "profile".to_owned()]);
        Ok(Stored {
            id,
            version: 1,
            name: self.name,
            display_name: self.display_name,
            issuer: self.issuer,
            client_id: self.client_id,
            client_secret: seal(app, id, self.client_secret)?,
            scopes,
            email_domains: self.email_domains,
            role_claim: self.role_claim,
            role_mapping: self.role_mapping,
            auto_provision: self.auto_provision,
            is_active: self.is_active.unwrap_or(true),
            problem: None,
        })
    }
}

impl IdentityProviderPatch {
    fn apply(self, app: &App, to: &mut Stored) -> Result<()> {
        fn set<T>(field: &mut T, given: Option<T>) {
            if let Some(given) = given {
                *field = given;
            }
        }
        if let Change::Set(secret) = self.client_secret {
            to.client_secret = seal(app, to.id, secret)?;
        }
        set(&mut to.display_name, self.display_name);
        set(&mut to.issuer, self.issuer);
        set(&mut to.client_id, self.client_id);
        set(&mut to.scopes, self.scopes);
        set(&mut to.email_domains, self.email_domains);
        if let Change::Set(claim) = self.role_claim {
            to.role_claim = claim;
        }
        set(&mut to.role_mapping, self.role_mapping);
        set(&mut to.auto_provision, self.auto_provision);
        set(&mut to.is_active, self.is_active);
        Ok(())
    }
}

/// What the table cannot check.
fn check(row: &Stored) -> Result<()> {
    let refuse = |what: &str| Err(Error::Invalid(what.to_owned()));
    let is_scope = |text: &String| {
        (1..=100).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\')
    };
    if row.scopes.len() > SCOPES_MAX || !row.scopes.iter().all(is_scope) {
        return refuse("`scopes` are at most 20 words of visible ASCII");
    }
    let is_domain = |text: &String| {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
        (1..=253).contains(&text.len()) && text.chars().all(allowed) && !text.starts_with('.')
    };
    if row.email_domains.len() > DOMAINS_MAX || !row.email_domains.iter().all(is_domain) {
        return refuse("`email_domains` are at most 50 domains in lower case, like plant.example");
    }
    let is_text =
        |text: &str| (1..=TEXT_CHARS_MAX).contains(&text.chars().count()) && !text.contains(char::is_control);
    let is_mapping = |map: &RoleMapping| is_text(&map.value) && is_text(&map.role);
    if row.role_mapping.len() > MAPPINGS_MAX || !row.role_mapping.iter().all(is_mapping) {
        return refuse("`role_mapping` has at most 100 pairs of texts with 1 to 200 characters");
    }
    let plain = [
        Some(&row.display_name),
        Some(&row.client_id),
        row.role_claim.as_ref(),
    ];
    if plain
        .into_iter()
        .flatten()
        .any(|text| text.contains(char::is_control))
    {
        return refuse("a name holds no control characters");
    }
    Ok(())
}

/// Asks the provider before it is saved: one that can never work is refused, one that is away is not.
async fn probe(providers: &Providers, row: &mut Stored) -> Result<()> {
    row.problem = match providers.discover(&row.issuer).await {
        Ok(()) => None,
        Err(ProviderError::Impossible(why)) => return Err(Error::Invalid(why)),
        Err(other) => Some(other.to_string()),
    };
    Ok(())
}

async fn check_roles(tx: &mut TenantTx, row: &Stored) -> Result<()> {
    let roles: Vec<&str> = row.role_mapping.iter().map(|map| map.role.as_str()).collect();
    let unknown: Option<String> = sqlx::query_scalar(
        "SELECT name FROM unnest($1::text[]) AS name WHERE name NOT IN (SELECT r.name FROM role r) LIMIT 1",
    )
    .bind(roles)
    .fetch_optional(tx.conn())
    .await?;
    match unknown {
        Some(_) => Err(Error::Invalid(
            "`role_mapping` names a role that does not exist".to_owned(),
        )),
        None => Ok(()),
    }
}

async fn find(tx: &mut TenantTx, id: Uuid) -> Result<Stored> {
    let sql = select(" WHERE id = $1");
    let row = sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(id)
        .fetch_optional(tx.conn())
        .await?;
    row.ok_or(Error::NotFound { entity: TABLE })
}

/// The active provider of that name, for who signs in.
pub(super) async fn by_name(tx: &mut TenantTx, name: &str) -> Result<Option<Stored>> {
    let sql = select(" WHERE name = $1 AND is_active");
    Ok(sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(name)
        .fetch_optional(tx.conn())
        .await?)
}

/// The same by id.
pub(super) async fn by_id(tx: &mut TenantTx, id: Uuid) -> Result<Option<Stored>> {
    let sql = select(" WHERE id = $1 AND is_active");
    Ok(sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(id)
        .fetch_optional(tx.conn())
        .await?)
}

/// Every active provider, for the sign-in page.
pub(super) async fn active(tx: &mut TenantTx) -> Result<Vec<Stored>> {
    let sql = select(" WHERE is_active ORDER BY name LIMIT 200");
    Ok(sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .fetch_all(tx.conn())
        .await?)
}

fn select(rest: &'static str) -> String {
    format!("SELECT {COLUMNS} FROM identity_provider{rest}")
}

fn note(tx: &mut TenantTx, verb: &'static str, past: &str, before: Option<&Stored>, after: Option<&Stored>) {
    let Some(id) = after.or(before).map(|row| row.id) else {
        return;
    };
    let shown = |row: Option<&Stored>| row.map(|row| json!(IdentityProvider::from(row)));
    let payload = json!({ "id": id, "name": after.or(before).map(|row| &row.name) });
    tx.event(&NewEvent::new(
        format!("IdentityProvider{past}"),
        TABLE,
        id,
        payload,
    ));
    tx.audit(&Deed {
        action: verb,
        entity: TABLE,
        entity_id: Some(id.to_string()),
        before: shown(before),
        after: shown(after),
    });
}

/// Lists identity providers.
#[utoipa::path(get, path = "/identity-providers", operation_id = "list_identity_providers", tag = TAG,
    security(("bearer" = ["identity_provider.read"])), params(ListQuery),
    responses((status = 200, description = "One page", body = Page<IdentityProvider>)))]
pub async fn list(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<ListQuery>,
) -> Result<axum::Json<Page<IdentityProvider>>> {
    let rows = Rows::parse(query.limit)?;
    let mut tx = caller.begin(&app, Permission::ProviderRead).await?;
    let sql = select(" WHERE ($1::uuid IS NULL OR id > $1) ORDER BY id LIMIT $2");
    let found: Vec<Stored> = sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(query.cursor)
        .bind(rows.fetched())
        .fetch_all(tx.conn())
        .await?;
    let items = found.iter().map(IdentityProvider::from).collect();
    Ok(axum::Json(Page::of(items, rows, |row: &IdentityProvider| {
        row.id.to_string()
    })))
}

/// Reads one.
#[utoipa::path(get, path = "/identity-providers/{id}", operation_id = "read_identity_provider", tag = TAG,
    security(("bearer" = ["identity_provider.read"])), params(("id" = Uuid, Path)),
    responses((status = 200, description = "The provider", body = IdentityProvider)))]
pub async fn read(State(app): State<App>, caller: Caller, Path(id): Path<Uuid>) -> Result<Reply> {
    let mut tx = caller.begin(&app, Permission::ProviderRead).await?;
    let row = find(&mut tx, id).await?;
    Reply::json(StatusCode::OK, &IdentityProvider::from(&row))
}

/// Registers one. Its description is read first: another issuer than entered is refused; one that is away is saved
/// with its problem.
#[utoipa::path(post, path = "/identity-providers", operation_id = "create_identity_provider", tag = TAG,
    security(("bearer" = ["identity_provider.write"])), request_body = NewIdentityProvider,
    responses((status = 201, description = "Registered", body = IdentityProvider)))]
pub async fn create(
    State(app): State<App>,
    Extension(providers): Extension<Arc<Providers>>,
    caller: Caller,
    Json(new): Json<NewIdentityProvider>,
) -> Result<Reply> {
    caller.authorize(&app, Permission::ProviderWrite).await?;
    let mut row = new.row(&app)?;
    check(&row)?;
    probe(&providers, &mut row).await?;
    let mut tx = caller.begin(&app, Permission::ProviderWrite).await?;
    check_roles(&mut tx, &row).await?;
    sqlx::query(
        "INSERT INTO identity_provider (id, version, name, display_name, issuer, client_id, client_secret, scopes, \
           email_domains, role_claim, role_mapping, auto_provision, is_active, problem) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
    )
    .bind(row.id)
    .bind(row.version)
    .bind(&row.name)
    .bind(&row.display_name)
    .bind(&row.issuer)
    .bind(&row.client_id)
    .bind(&row.client_secret)
    .bind(&row.scopes)
    .bind(&row.email_domains)
    .bind(&row.role_claim)
    .bind(Jsonb(&row.role_mapping))
    .bind(row.auto_provision)
    .bind(row.is_active)
    .bind(&row.problem)
    .execute(tx.conn())
    .await?;
    note(&mut tx, "create", "Created", None, Some(&row));
    tx.finish(StatusCode::CREATED, &IdentityProvider::from(&row))
        .await
}

/// Changes one, reading its description anew.
#[utoipa::path(patch, path = "/identity-providers/{id}", operation_id = "update_identity_provider", tag = TAG,
    security(("bearer" = ["identity_provider.write"])),
    params(("id" = Uuid, Path), ("if-match" = String, Header, description = "The record's version, quoted")),
    request_body = IdentityProviderPatch,
    responses((status = 200, description = "Changed", body = IdentityProvider)))]
pub async fn update(
    State(app): State<App>,
    Extension(providers): Extension<Arc<Providers>>,
    caller: Caller,
    Path(id): Path<Uuid>,
    IfMatch(version): IfMatch,
    Json(patch): Json<IdentityProviderPatch>,
) -> Result<Reply> {
    let mut tx = caller.begin(&app, Permission::ProviderWrite).await?;
    let before = find(&mut tx, id).await?;
    // No connection is held while the provider is asked.
    drop(tx);
    if before.version != version {
        return Err(Error::Stale { entity: TABLE });
    }
    let mut after = before.clone();
    patch.apply(&app, &mut after)?;
    after.version = version.saturating_add(1);
    check(&after)?;
    probe(&providers, &mut after).await?;
    let mut tx = caller.begin(&app, Permission::ProviderWrite).await?;
    check_roles(&mut tx, &after).await?;
    store(&mut tx, &after, version).await?;
    note(&mut tx, "update", "Updated", Some(&before), Some(&after));
    tx.finish(StatusCode::OK, &IdentityProvider::from(&after)).await
}

async fn store(tx: &mut TenantTx, row: &Stored, version: i32) -> Result<()> {
    let changed = sqlx::query(
        "UPDATE identity_provider SET version = $3, display_name = $4, issuer = $5, client_id = $6, \
           client_secret = $7, scopes = $8, email_domains = $9, role_claim = $10, role_mapping = $11, \
           auto_provision = $12, is_active = $13, problem = $14 WHERE id = $1 AND version = $2",
    )
    .bind(row.id)
    .bind(version)
    .bind(row.version)
    .bind(&row.display_name)
    .bind(&row.issuer)
    .bind(&row.client_id)
    .bind(&row.client_secret)
    .bind(&row.scopes)
    .bind(&row.email_domains)
    .bind(&row.role_claim)
    .bind(Jsonb(&row.role_mapping))
    .bind(row.auto_provision)
    .bind(row.is_active)
    .bind(&row.problem)
    .execute(tx.conn())
    .await?;
    if changed.rows_affected() == 0 {
        return Err(Error::Stale { entity: TABLE });
    }
    Ok(())
}

/// Removes one with its links: who signed in there needs a password or another provider from now on.
#[utoipa::path(delete, path = "/identity-providers/{id}", operation_id = "delete_identity_provider", tag = TAG,
    security(("bearer" = ["identity_provider.write"])),
    params(("id" = Uuid, Path), ("if-match" = String, Header, description = "The record's version, quoted")),
    responses((status = 204, description = "Removed")))]
pub async fn delete(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<Uuid>,
    IfMatch(version): IfMatch,
) -> Result<Reply> {
    let mut tx = caller.begin(&app, Permission::ProviderWrite).await?;
    let before = find(&mut tx, id).await?;
    let removed = sqlx::query("DELETE FROM identity_provider WHERE id = $1 AND version = $2")
        .bind(id)
        .bind(version)
        .execute(tx.conn())
        .await?;
    if removed.rows_affected() == 0 {
        return Err(Error::Stale { entity: TABLE });
    }
    note(&mut tx, "delete", "Deleted", Some(&before), None);
    tx.finish_empty().await
}
