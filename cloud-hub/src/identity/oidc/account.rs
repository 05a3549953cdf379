//! Which account is it whom a provider vouches for? The one linked to the provider's subject; at the first time the
//! one with the same verified address, in a domain that the tenant lists; else a new one, where the tenant wants that.
//! What the provider says of roles is applied with every sign-in.

use std::collections::BTreeSet;

use serde_json::json;
use sqlx::FromRow;
use uuid::Uuid;

use super::client::Person;
use crate::{
    error::{Error, Result},
    identity::{address::Address, provider::Stored},
    kernel::{audit::Deed, event::NewEvent, tenancy::TenantTx},
};

const NAME_CHARS_MAX: usize = 100;

/// An account that a provider may vouch for.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub(super) struct Account {
    pub(super) id: Uuid,
    pub(super) display_name: String,
    pub(super) is_active: bool,
}

/// What becomes of somebody who is not linked yet.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// Link the account that has this address.
    Link,
    /// Make an account with this address.
    Make,
    /// Not let in, and why.
    Refuse(&'static str),
}

fn judge(provider: &Stored, email: Option<&Address>, is_known: bool) -> Verdict {
    let Some(email) = email else {
        return Verdict::Refuse("the identity provider vouches for no e-mail address");
    };
    if !provider
        .email_domains
        .iter()
        .any(|domain| domain == email.domain())
    {
        return Verdict::Refuse("addresses of this domain are not let in");
    }
    if is_known {
        Verdict::Link
    } else if provider.auto_provision {
        Verdict::Make
    } else {
        Verdict::Refuse("there is no account with this address; ask an administrator for one")
    }
}

/// Finds, links or makes the account and applies its roles. A refusal is on record when the transaction commits.
///
/// # Errors
/// What the database says; the inner error is a refusal.
pub(super) async fn settle(
    tx: &mut TenantTx,
    provider: &Stored,
    person: &Person,
) -> Result<std::result::Result<Account, Error>> {
    let account = match linked(tx, provider, person).await? {
        Some(account) => account,
        None => match introduce(tx, provider, person).await? {
            Ok(account) => account,
            Err(because) => return Ok(Err(refuse(tx, provider, person, because))),
        },
    };
    if !account.is_active {
        return Ok(Err(refuse(tx, provider, person, "the account is suspended")));
    }
    apply_roles(tx, provider, &account, &person.values).await?;
    Ok(Ok(account))
}

fn refuse(tx: &mut TenantTx, provider: &Stored, person: &Person, because: &'static str) -> Error {
    let email = person.verified_email.as_ref().map(Address::as_str);
    let facts = json!({ "provider": provider.name, "email": email, "because": because });
    tx.audit(&Deed {
        action: "denied",
        entity: "session",
        after: Some(facts),
        ..Deed::default()
    });
    Error::Unauthenticated(because)
}

async fn linked(tx: &mut TenantTx, provider: &Stored, person: &Person) -> Result<Option<Account>> {
    Ok(sqlx::query_as(
        "SELECT u.id, u.display_name, u.is_active FROM identity_link l JOIN app_user u ON u.id = l.user_id \
         WHERE l.provider_id = $1 AND l.subject = $2",
    )
    .bind(provider.id)
    .bind(&person.subject)
    .fetch_optional(tx.conn())
    .await?)
}

async fn introduce(
    tx: &mut TenantTx,
    provider: &Stored,
    person: &Person,
) -> Result<std::result::Result<Account, &'static str>> {
    let email = person.verified_email.as_ref();
    let known: Option<Account> =
        sqlx::query_as("SELECT id, display_name, is_active FROM app_user WHERE email = $1 FOR UPDATE")
            .bind(email.map(Address::as_str))
            .fetch_optional(tx.conn())
            .await?;
    let account = match (judge(provider, email, known.is_some()), known, email) {
        (Verdict::Refuse(because), ..) => return Ok(Err(because)),
        (Verdict::Link, Some(account), _) => account,
        (_, _, Some(email)) => make(tx, provider, person, email).await?,
        _ => return Ok(Err("the identity provider vouches for no e-mail address")),
    };
    // The provider verified what a mail would have; who was only invited needs no password now.
    sqlx::query("UPDATE app_user SET email_verified_at = coalesce(email_verified_at, $2) WHERE id = $1")
        .bind(account.id)
        .bind(tx.at())
        .execute(tx.conn())
        .await?;
    let linked = sqlx::query(
        "INSERT INTO identity_link (provider_id, subject, user_id, linked_at) VALUES ($1, $2, $3, $4) \
         ON CONFLICT DO NOTHING",
    )
    .bind(provider.id)
    .bind(&person.subject)
    .bind(account.id)
    .bind(tx.at())
    .execute(tx.conn())
    .await?;
    if linked.rows_affected() == 0 {
        return Ok(Err(
            "the account belongs to somebody else at this identity provider",
        ));
    }
    let facts = json!({ "user_id": account.id, "provider": provider.name, "subject": person.subject });
    tx.audit(&Deed::on("link", "identity_link", account.id).after(facts));
    Ok(Ok(account))
}

async fn make(tx: &mut TenantTx, provider: &Stored, person: &Person, email: &Address) -> Result<Account> {
    let is_name = |name: &&String| !name.trim().is_empty() && !name.contains(char::is_control);
    let name = person.name.as_ref().filter(is_name);
    let name: String = name
        .map_or(email.as_str(), |name| name.trim())
        .chars()
        .take(NAME_CHARS_MAX)
        .collect();
    let account: Account = sqlx::query_as(
        "INSERT INTO app_user (id, email, display_name, email_verified_at) VALUES ($1, $2, $3, $4) \
         RETURNING id, display_name, is_active",
    )
    .bind(Uuid::now_v7())
    .bind(email.as_str())
    .bind(name)
    .bind(tx.at())
    .fetch_one(tx.conn())
    .await?;
    let facts =
        json!({ "email": email.as_str(), "display_name": account.display_name, "provider": provider.name });
    tx.audit(&Deed::on("create", "app_user", account.id).after(facts));
    let payload = json!({ "id": account.id });
    tx.event(&NewEvent::new("UserCreated", "app_user", account.id, payload));
    Ok(account)
}

/// Roles of the mapping that the person has now, and those they have not.
fn mapped(provider: &Stored, values: &BTreeSet<String>) -> (Vec<String>, Vec<String>) {
    let held: BTreeSet<&String> = provider
        .role_mapping
        .iter()
        .filter(|map| values.contains(&map.value))
        .map(|map| &map.role)
        .collect();
    let all: BTreeSet<&String> = provider.role_mapping.iter().map(|map| &map.role).collect();
    let lost = all.difference(&held).map(|role| (*role).clone()).collect();
    (held.into_iter().cloned().collect(), lost)
}

/// Roles that the mapping does not name, and those on a plant or line, stay as they are; so does the last
/// administrator, or a mistake at the provider would lock everybody out.
async fn apply_roles(
    tx: &mut TenantTx,
    provider: &Stored,
    account: &Account,
    values: &BTreeSet<String>,
) -> Result<()> {
    if provider.role_mapping.is_empty() {
        return Ok(());
    }
    let (held, lost) = mapped(provider, values);
    let granted: Vec<String> = sqlx::query_scalar(
        "WITH granted AS (INSERT INTO user_role (user_id, role_id) SELECT $1, id FROM role WHERE name = ANY ($2) \
           ON CONFLICT DO NOTHING RETURNING role_id) \
         SELECT r.name FROM granted g JOIN role r ON r.id = g.role_id ORDER BY r.name",
    )
    .bind(account.id)
    .bind(&held)
    .fetch_all(tx.conn())
    .await?;
    let revoked: Vec<String> = sqlx::query_scalar(
        "WITH revoked AS (DELETE FROM user_role g USING role r \
           WHERE g.user_id = $1 AND g.role_id = r.id AND r.name = ANY ($2) \
             AND g.plant_id IS NULL AND g.line_id IS NULL \
             AND NOT (r.is_builtin AND r.name = 'admin' AND NOT EXISTS (SELECT FROM user_role o \
               JOIN app_user u ON u.id = o.user_id WHERE o.role_id = r.id AND o.user_id <> $1 AND u.is_active \
                 AND o.plant_id IS NULL AND o.line_id IS NULL)) \
           RETURNING r.name) \
         SELECT name FROM revoked ORDER BY name",
    )
    .bind(account.id)
    .bind(&lost)
    .fetch_all(tx.conn())
    .await?;
    if !granted.is_empty() || !revoked.is_empty() {
        let facts = json!({ "granted": granted, "revoked": revoked, "provider": provider.name });
        tx.audit(&Deed::on("grant", "user_role", account.id).after(facts));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::provider::RoleMapping;

    fn provider(auto_provision: bool) -> Stored {
        let map = |value: &str, role: &str| RoleMapping {
            value: value.to_owned(),
            role: role.to_owned(),
        };
        Stored {
            email_domains: vec!["plant.example".to_owned()],
            role_mapping: vec![
                map("qa", "fsq_manager"),
                map("lead", "supervisor"),
                map("boss", "supervisor"),
            ],
            auto_provision,
            ..Stored::default()
        }
    }

    #[test]
    fn only_a_verified_address_of_a_listed_domain_is_anybody_here() {
        let address = |text| Address::parse(text).unwrap();
        let ours = address("jo@plant.example");
        assert_eq!(judge(&provider(false), Some(&ours), true), Verdict::Link);
        assert!(matches!(
            judge(&provider(false), Some(&ours), false),
            Verdict::Refuse(_)
        ));
        assert_eq!(judge(&provider(true), Some(&ours), false), Verdict::Make);
        for foreign in ["jo@evil.example", "jo@sub.plant.example", "jo@plant.example.evil"] {
            let foreign = address(foreign);
            assert!(matches!(
                judge(&provider(true), Some(&foreign), true),
                Verdict::Refuse(_)
            ));
        }
        assert!(matches!(judge(&provider(true), None, false), Verdict::Refuse(_)));
    }

    #[test]
    fn a_mapped_role_is_held_while_any_of_its_values_is_and_lost_otherwise() {
        let values = |list: &[&str]| list.iter().map(ToString::to_string).collect();
        let (held, lost) = mapped(&provider(false), &values(&["boss", "other"]));
        assert_eq!(
            (held, lost),
            (vec!["supervisor".to_owned()], vec!["fsq_manager".to_owned()])
        );
        let (held, lost) = mapped(&provider(false), &values(&[]));
        assert!(held.is_empty() && lost.len() == 2);
    }
}
