//! On which lines does a caller hold a permission? What the database says of a caller, and what follows from it.

use std::collections::BTreeSet;

use serde::Deserialize;
use uuid::Uuid;

use super::{
    permission::{self, Permission},
    role::Role,
};

/// Where something may be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// In the whole tenant.
    Everywhere,
    /// On these lines and on what belongs to them.
    Lines(BTreeSet<Uuid>),
}

impl Scope {
    /// As the setting `foodflow.lines`, which the tables' policies read.
    pub fn setting(&self) -> String {
        match self {
            Self::Everywhere => "*".to_owned(),
            Self::Lines(lines) => {
                let ids: Vec<String> = lines.iter().map(Uuid::to_string).collect();
                format!("{{{}}}", ids.join(","))
            }
        }
    }

    /// Whether it covers a line.
    pub fn covers(&self, line: Uuid) -> bool {
        match self {
            Self::Everywhere => true,
            Self::Lines(lines) => lines.contains(&line),
        }
    }

    fn with(self, other: Self) -> Self {
        match (self, other) {
            (Self::Lines(mut lines), Self::Lines(more)) => {
                lines.extend(more);
                Self::Lines(lines)
            }
            _ => Self::Everywhere,
        }
    }
}

/// A role as it was granted.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Grant {
    /// Name of the role.
    pub role: String,
    /// Whether the program knows its permissions.
    pub is_builtin: bool,
    /// Permissions of a role that the tenant made.
    pub permissions: Vec<String>,
    /// The lines it holds on; everywhere when absent.
    pub lines: Option<BTreeSet<Uuid>>,
}

/// What a caller was granted.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Grants {
    /// Name of the person or key.
    pub name: String,
    /// Their roles.
    pub grants: Vec<Grant>,
}

impl Grant {
    fn includes(&self, permission: Permission) -> bool {
        if self.is_builtin {
            self.role
                .parse()
                .is_ok_and(|role: Role| permission::may(role, permission))
        } else {
            self.permissions.iter().any(|name| name == permission.as_str())
        }
    }
}

impl Grants {
    /// A built-in role, everywhere.
    pub fn of_role(role: Role) -> Self {
        let grant = Grant {
            role: role.as_str().to_owned(),
            is_builtin: true,
            permissions: Vec::new(),
            lines: None,
        };
        Self {
            name: format!("Token ({role})"),
            grants: vec![grant],
        }
    }

    /// Where the caller may do this; `None` for nowhere. Nothing is permitted that no grant lists, and what is
    /// about the whole tenant is not permitted to who holds it on some lines.
    pub fn scope(&self, permission: Permission) -> Option<Scope> {
        let granting = self.grants.iter().filter(|grant| grant.includes(permission));
        let scopes = granting.map(|grant| grant.lines.clone().map_or(Scope::Everywhere, Scope::Lines));
        let scope = scopes.reduce(Scope::with)?;
        (scope == Scope::Everywhere || permission.is_by_line()).then_some(scope)
    }

    /// The first of some permissions that the caller does not hold in the whole tenant: nobody hands out what they
    /// do not have.
    pub fn first_lacking(&self, permissions: impl IntoIterator<Item = Permission>) -> Option<Permission> {
        let mut wanted = permissions.into_iter();
        wanted.find(|it| self.scope(*it) != Some(Scope::Everywhere))
    }

    /// Every permission held anywhere, by name.
    pub fn permissions(&self) -> Vec<&'static str> {
        let held = Permission::ALL.iter().filter(|it| self.scope(**it).is_some());
        held.map(|it| it.as_str()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(role: &str, is_builtin: bool, permissions: &[&str], lines: Option<&[u128]>) -> Grant {
        Grant {
            role: role.to_owned(),
            is_builtin,
            permissions: permissions.iter().map(ToString::to_string).collect(),
            lines: lines.map(|lines| lines.iter().copied().map(Uuid::from_u128).collect()),
        }
    }

    fn grants(grants: Vec<Grant>) -> Grants {
        Grants {
            name: "x".to_owned(),
            grants,
        }
    }

    #[test]
    fn what_no_grant_lists_is_permitted_nowhere() {
        assert_eq!(grants(vec![]).scope(Permission::LotRead), None);
        let custom = grants(vec![grant("packer", false, &["batch.read"], None)]);
        assert_eq!(custom.scope(Permission::BatchRead), Some(Scope::Everywhere));
        assert_eq!(custom.scope(Permission::BatchWrite), None);
        assert_eq!(custom.permissions(), ["batch.read"]);
        let liar = grants(vec![grant("admin", false, &[], None)]);
        assert_eq!(
            liar.scope(Permission::LotRead),
            None,
            "a tenant's own role of that name is not the program's"
        );
    }

    #[test]
    fn scopes_of_several_grants_add_up_for_each_permission_by_itself() {
        let both = grants(vec![
            grant("auditor", true, &[], None),
            grant("operator", true, &[], Some(&[1])),
            grant("operator", true, &[], Some(&[2])),
        ]);
        assert_eq!(both.scope(Permission::BatchRead), Some(Scope::Everywhere));
        let lines = [1, 2].map(Uuid::from_u128).into_iter().collect();
        assert_eq!(both.scope(Permission::BatchWrite), Some(Scope::Lines(lines)));
        assert!(
            !both
                .scope(Permission::BatchWrite)
                .unwrap()
                .covers(Uuid::from_u128(3))
        );
    }

    #[test]
    fn what_is_about_the_whole_tenant_is_not_held_on_a_line() {
        let local = grants(vec![grant("admin", true, &[], Some(&[1]))]);
        assert_eq!(local.scope(Permission::UserWrite), None);
        assert!(local.scope(Permission::BatchWrite).is_some());
        assert!(!local.permissions().contains(&"user.write"));
    }

    #[test]
    fn nobody_hands_out_what_they_hold_on_a_line_only() {
        let mixed = grants(vec![
            grant("auditor", true, &[], None),
            grant("operator", true, &[], Some(&[1])),
        ]);
        assert_eq!(mixed.first_lacking([Permission::BatchRead]), None);
        let asked = [Permission::BatchRead, Permission::BatchWrite];
        assert_eq!(mixed.first_lacking(asked), Some(Permission::BatchWrite));
    }

    #[test]
    fn a_grant_on_a_plant_without_lines_reaches_no_line() {
        let none = grants(vec![grant("operator", true, &[], Some(&[]))]);
        assert_eq!(none.scope(Permission::BatchWrite).unwrap().setting(), "{}");
    }
}
