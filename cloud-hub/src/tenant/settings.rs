//! What can a tenant decide for itself? Its settings, each with a default; stored as JSON in the platform's entry of
//! the tenant. What a newer program has added there is kept by this one.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::{
    error::{Error, Result},
    kernel::tenancy::{Db, TenancyError, TenantSlug, TenantTx},
};

const SESSION_HOURS_MAX: u32 = 720;
const DOMAINS_MAX: usize = 100;
const DOMAIN_BYTES_MAX: usize = 253;
const MAIL_NAME_CHARS_MAX: usize = 100;
const KEPT_DAYS_MIN: u32 = 7;
const KEPT_DAYS_MAX: u32 = 36_500;

/// Who may register without an invitation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RegistrationMode {
    /// Nobody.
    #[default]
    Closed,
    /// Whoever has an address in one of the domains.
    Domains,
}

/// How accounts come to be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RegistrationSettings {
    /// Who may register.
    pub mode: RegistrationMode,
    /// Domains of e-mail addresses, in lower case.
    #[serde(default)]
    #[schema(max_items = 100)]
    pub domains: Vec<String>,
}

/// How long measurements are kept. Records (checks, deviations, holds, alarms) are never dropped, nor are rollups of
/// hours and days.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StorageSettings {
    /// Readings, in days; for ever when null.
    #[schema(minimum = 7, maximum = 36500)]
    pub reading_days: Option<u32>,
    /// Rollups of minutes, in days, at least as long as readings; for ever when null.
    #[schema(minimum = 7, maximum = 36500)]
    pub minute_days: Option<u32>,
}

impl StorageSettings {
    fn is_possible(self) -> bool {
        let fits =
            |days: Option<u32>| days.is_none_or(|days| (KEPT_DAYS_MIN..=KEPT_DAYS_MAX).contains(&days));
        let follows = match (self.reading_days, self.minute_days) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(readings), Some(minutes)) => minutes >= readings,
        };
        fits(self.reading_days) && fits(self.minute_days) && follows
    }
}

/// A tenant's settings, with the defaults where it has decided nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct TenantSettings {
    /// How accounts come to be.
    pub registration: RegistrationSettings,
    /// Longest that somebody stays signed in, in hours; as the hub is configured when null, and never longer.
    #[schema(minimum = 1, maximum = 720)]
    pub session_hours: Option<u32>,
    /// Name that the tenant's e-mails come from; the hub's when null.
    pub mail_from_name: Option<String>,
    /// How long measurements are kept.
    pub storage: StorageSettings,
}

/// A change of settings: what is absent stays, what is null has its default again.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TenantSettingsPatch {
    /// How accounts come to be.
    #[serde(skip_serializing_if = "Option::is_none")]
    registration: Option<RegistrationSettings>,
    /// Longest that somebody stays signed in, in hours.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 720)]
    session_hours: Option<u32>,
    /// Name that the tenant's e-mails come from, 1 to 100 characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    mail_from_name: Option<String>,
    /// How long measurements are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    storage: Option<StorageSettings>,
}

impl TenantSettings {
    /// Reads what is stored. An entry that cannot be read has its default: a program before this one wrote it.
    pub fn read(stored: &Value) -> Self {
        serde_json::from_value(stored.clone()).unwrap_or_else(|error| {
            tracing::warn!(%error, "a tenant's settings cannot be read; the defaults hold");
            Self::default()
        })
    }

    fn check(&self) -> Result<()> {
        let refuse = |what: &str| Err(Error::Invalid(what.to_owned()));
        let is_possible = |hours| (1..=SESSION_HOURS_MAX).contains(&hours);
        if !self.session_hours.is_none_or(is_possible) {
            return refuse("`session_hours` must be 1 to 720");
        }
        let is_odd = |c: char| c.is_control() || "<>\"@".contains(c);
        let is_name = |name: &String| {
            (1..=MAIL_NAME_CHARS_MAX).contains(&name.chars().count()) && !name.contains(is_odd)
        };
        if !self.mail_from_name.as_ref().is_none_or(is_name) {
            return refuse("`mail_from_name` must be 1 to 100 printable characters without < > \" @");
        }
        if !self.storage.is_possible() {
            return refuse("`storage` must keep 7 to 36500 days, and minutes at least as long as readings");
        }
        let RegistrationSettings { mode, domains } = &self.registration;
        if domains.len() > DOMAINS_MAX || !domains.iter().all(|domain| is_domain(domain)) {
            return refuse("`registration.domains` must be at most 100 domains in lower case");
        }
        if *mode == RegistrationMode::Domains && domains.is_empty() {
            return refuse("`registration.domains` must name a domain");
        }
        Ok(())
    }
}

fn is_domain(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
    };
    text.len() <= DOMAIN_BYTES_MAX && text.contains('.') && text.split('.').all(is_label)
}

/// The settings after a change. `given` is the patch as the client sent it: it tells null from absent.
pub(super) fn change(
    stored: &Value,
    patch: &TenantSettingsPatch,
    given: &Map<String, Value>,
) -> Result<Value> {
    let mut settings = stored.as_object().cloned().unwrap_or_default();
    for (field, value) in given {
        if value.is_null() {
            settings.remove(field);
        }
    }
    if let Ok(Value::Object(set)) = serde_json::to_value(patch) {
        settings.extend(set);
    }
    let settings = Value::Object(settings);
    TenantSettings::read(&settings).check()?;
    Ok(settings)
}

/// The settings of the tenant whose transaction it is.
///
/// # Errors
/// [`TenancyError`].
pub async fn of(tx: &mut TenantTx) -> Result<TenantSettings, TenancyError> {
    Ok(TenantSettings::read(&tx.settings().await?))
}

/// A tenant's settings as they are now. Not for whoever holds a transaction: it takes a connection of its own.
///
/// # Errors
/// [`TenancyError`].
pub async fn load(db: &Db, tenant: &TenantSlug) -> Result<TenantSettings, TenancyError> {
    let mut tx = db.platform().await?;
    let stored: Option<Value> = sqlx::query_scalar("SELECT settings FROM platform.tenant WHERE slug = $1")
        .bind(tenant.as_str())
        .fetch_optional(tx.conn())
        .await?;
    stored
        .map(|stored| TenantSettings::read(&stored))
        .ok_or(TenancyError::UnknownTenant)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn changed(stored: &Value, given: &Value) -> Result<Value> {
        let patch = serde_json::from_value(given.clone()).unwrap();
        change(stored, &patch, given.as_object().unwrap())
    }

    #[test]
    fn what_is_absent_stays_and_what_is_null_has_its_default_again() {
        let stored = json!({ "session_hours": 8, "mail_from_name": "Old", "of_a_newer_program": [1] });
        let wish = json!({ "session_hours": null, "mail_from_name": "Lakeshore" });
        let after = changed(&stored, &wish).unwrap();
        assert_eq!(
            after,
            json!({ "of_a_newer_program": [1], "mail_from_name": "Lakeshore" })
        );
        let read = TenantSettings::read(&after);
        assert_eq!(
            (read.session_hours, read.mail_from_name.as_deref()),
            (None, Some("Lakeshore"))
        );
    }

    #[test]
    fn what_nobody_could_use_is_refused() {
        for wrong in [
            json!({ "session_hours": 0 }),
            json!({ "session_hours": 721 }),
            json!({ "mail_from_name": "" }),
            json!({ "mail_from_name": "a\r\nBcc: x" }),
            json!({ "mail_from_name": "x <a@b.c>" }),
            json!({ "registration": { "mode": "domains", "domains": [] } }),
            json!({ "registration": { "mode": "domains", "domains": ["Example.com"] } }),
            json!({ "registration": { "mode": "domains", "domains": ["com"] } }),
            json!({ "registration": { "mode": "domains", "domains": ["a.b\u{0}"] } }),
            json!({ "storage": { "reading_days": 1 } }),
            json!({ "storage": { "reading_days": 400, "minute_days": 300 } }),
            json!({ "storage": { "minute_days": 300 } }),
        ] {
            assert!(changed(&json!({}), &wrong).is_err(), "{wrong}");
        }
        let kept = json!({ "storage": { "reading_days": 400, "minute_days": 800 } });
        assert!(changed(&json!({}), &kept).is_ok());
        let good = json!({ "registration": { "mode": "domains", "domains": ["lakeshore.example"] } });
        assert!(changed(&json!({}), &good).is_ok());
    }

    #[test]
    fn settings_that_cannot_be_read_are_the_defaults() {
        assert_eq!(
            TenantSettings::read(&json!({ "session_hours": "x" })),
            TenantSettings::default()
        );
        assert_eq!(TenantSettings::read(&Value::Null), TenantSettings::default());
    }
}
