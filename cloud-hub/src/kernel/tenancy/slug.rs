//! What is a tenant called? One name serves topics, URLs, the schema and the role.

use std::fmt;

/// A tenant's name in URLs, topics and commands: 1 to 40 of `a-z 0-9 -`, starting with a letter.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TenantSlug(String);

/// The text is no tenant slug.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no tenant slug: 1 to 40 of a-z, 0-9 and `-`, starting with a letter")]
pub struct BadSlug(String);

impl TenantSlug {
    /// Checks a slug. Underscores are refused, so that no two slugs share a schema name.
    ///
    /// # Errors
    /// [`BadSlug`].
    pub fn parse(text: &str) -> Result<Self, BadSlug> {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if text.len() <= 40 && text.starts_with(|c: char| c.is_ascii_lowercase()) && text.chars().all(allowed)
        {
            Ok(Self(text.to_owned()))
        } else {
            Err(BadSlug(text.escape_default().take(60).collect()))
        }
    }

    /// The slug.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Name of the tenant's schema and of its role; safe in SQL without quotes.
    pub fn schema(&self) -> String {
        format!("t_{}", self.0.replace('-', "_"))
    }
}

impl fmt::Display for TenantSlug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slug_is_what_a_topic_and_a_schema_can_carry() {
        assert_eq!(
            TenantSlug::parse("lake-shore2").unwrap().schema(),
            "t_lake_shore2"
        );
        let long = "a".repeat(41);
        for wrong in [
            "",
            "-a",
            "9a",
            "A",
            "a_b",
            "a\"; drop",
            "a'; drop schema platform; --",
            "a\0",
            "a\n",
            "a b",
            "a.b",
            "../a",
            "pg_catalog",
            "information_schema",
            "á",
            "а",
            "ａ",
            &long,
        ] {
            assert!(TenantSlug::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn no_slug_names_a_schema_that_is_not_a_tenants() {
        for tempting in [
            "platform",
            "public",
            "postgres",
            "foodflow",
            "pg",
            "t",
            "pg-catalog",
        ] {
            let schema = TenantSlug::parse(tempting).unwrap().schema();
            assert!(schema.starts_with("t_") && schema.len() <= 42, "{schema}");
        }
    }
}
