//! What may each role do? One table, deny by default: a permission that a role does not list is refused.

use std::borrow::Cow;

use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ObjectBuilder, RefOr, schema::Schema},
};

use super::role::Role;

macro_rules! permissions {
    ($($(#[doc = $doc:literal])* $variant:ident = $name:literal;)*) => {
        /// A right to do something, named `resource.action`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Permission {
            $($(#[doc = $doc])* $variant,)*
        }

        impl Permission {
            /// Every permission.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The permission's name: `resource.action`.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// What it allows, in a sentence.
            pub fn description(self) -> &'static str {
                match self {
                    $(Self::$variant => concat!($($doc),*).trim(),)*
                }
            }

            /// Whether the name is a permission's.
            pub fn parse(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|it| it.as_str() == name)
            }

            /// What it is about: the part of its name before the dot.
            pub fn resource(self) -> &'static str {
                let name = self.as_str();
                name.split_once('.').map_or(name, |(resource, _)| resource)
            }
        }
    };
}

permissions! {
    /// Plants, lines, equipment and tags.
    PlantRead = "plant.read";
    /// Change plants, lines and equipment.
    PlantWrite = "plant.write";
    /// Readings.
    ReadingRead = "reading.read";
    /// Send readings over HTTP.
    ReadingWrite = "reading.write";
    /// See what integrators' devices send that is no tag yet, make tags of it and dismiss it.
    TagAdopt = "tag.adopt";
    /// Batches.
    BatchRead = "batch.read";
    /// Plan, start and complete batches.
    BatchWrite = "batch.write";
    /// Lots.
    LotRead = "lot.read";
    /// Critical control points and their checks.
    CcpRead = "ccp.read";
    /// Change critical limits.
    CcpConfigure = "ccp.configure";
    /// Alarms, their journal, their rules and how good they are.
    AlarmRead = "alarm.read";
    /// Acknowledge, shelve and reset alarms.
    AlarmAct = "alarm.act";
    /// Make, change and train rules for alarms.
    AlarmConfigure = "alarm.configure";
    /// Deviations.
    DeviationRead = "deviation.read";
    /// Take responsibility for a deviation.
    DeviationAcknowledge = "deviation.acknowledge";
    /// Holds and the lots on them.
    HoldRead = "hold.read";
    /// Vision results and their pictures.
    VisionRead = "vision.read";
    /// Edges and their health.
    EdgeRead = "edge.read";
    /// Enrol, rename and revoke edges.
    EdgeEnroll = "edge.enroll";
    /// Read and replace the configuration of edges, which may hold passwords of the plant's devices.
    EdgeConfigure = "edge.configure";
    /// Have edges send again, and act on their alarms.
    EdgeCommand = "edge.command";
    /// Give edges another version of their program.
    EdgeUpdate = "edge.update";
    /// The live stream.
    LiveRead = "live.read";
    /// Locations, contacts, addresses, notes, labels and attachments.
    CoreRead = "core.read";
    /// Change them.
    CoreWrite = "core.write";
    /// Suppliers.
    SupplierRead = "supplier.read";
    /// Approve and change suppliers.
    SupplierWrite = "supplier.write";
    /// Signatures on records.
    SignatureRead = "signature.read";
    /// Sign what one did.
    SignaturePerform = "signature.perform";
    /// Sign that one has reviewed a record.
    SignatureReview = "signature.review";
    /// Sign to approve or release.
    SignatureApprove = "signature.approve";
    /// The audit chain and its signed roots.
    AuditRead = "audit.read";
    /// Domain events and projections.
    EventRead = "event.read";
    /// Webhooks and their deliveries.
    WebhookRead = "webhook.read";
    /// Register, change and replay webhooks.
    WebhookWrite = "webhook.write";
    /// Accounts and their roles.
    UserRead = "user.read";
    /// Invite, change, suspend and reset accounts.
    UserWrite = "user.write";
    /// Roles and permissions.
    RoleRead = "role.read";
    /// Make and change the tenant's own roles.
    RoleWrite = "role.write";
    /// API keys, without their secrets.
    ApiKeyRead = "api_key.read";
    /// Make and revoke API keys.
    ApiKeyWrite = "api_key.write";
    /// Identity providers people may sign in with.
    ProviderRead = "identity_provider.read";
    /// Change them.
    ProviderWrite = "identity_provider.write";
    /// The tenant's own entry and settings.
    TenantRead = "tenant.read";
    /// Change the tenant's settings.
    TenantConfigure = "tenant.configure";
    /// Export all of the tenant's data.
    TenantExport = "tenant.export";
}

use Permission as P;

/// What can be held on some lines only. Everything else is about the whole tenant: held on a line, it is worth nothing.
const BY_LINE: &[Permission] = &[
    P::PlantRead,
    P::PlantWrite,
    P::ReadingRead,
    P::BatchRead,
    P::BatchWrite,
    P::LotRead,
    P::CcpRead,
    P::AlarmRead,
    P::AlarmAct,
    P::AlarmConfigure,
    P::DeviationRead,
    P::DeviationAcknowledge,
    P::HoldRead,
    P::VisionRead,
    P::EdgeRead,
    P::LiveRead,
    P::CoreRead,
    P::CoreWrite,
    P::SupplierRead,
    P::SignatureRead,
    P::SignaturePerform,
    P::SignatureReview,
    P::SignatureApprove,
];

impl Permission {
    /// Whether it can be held on some lines only.
    pub fn is_by_line(self) -> bool {
        BY_LINE.contains(&self)
    }
}

impl PartialSchema for Permission {
    fn schema() -> RefOr<Schema> {
        let names = Self::ALL.iter().map(|it| it.as_str());
        ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::String)
            .description(Some("A right to do something: `resource.action`"))
            .enum_values(Some(names))
            .into()
    }
}

impl ToSchema for Permission {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("Permission")
    }
}

/// What everybody who signs in may see.
const READ: &[Permission] = &[
    P::PlantRead,
    P::ReadingRead,
    P::BatchRead,
    P::LotRead,
    P::CcpRead,
    P::AlarmRead,
    P::DeviationRead,
    P::HoldRead,
    P::VisionRead,
    P::EdgeRead,
    P::LiveRead,
    P::CoreRead,
    P::SupplierRead,
    P::SignatureRead,
];

/// What an auditor sees beyond it: who may do what, and what was done.
const OVERSEE: &[Permission] = &[
    P::AuditRead,
    P::EventRead,
    P::WebhookRead,
    P::UserRead,
    P::RoleRead,
    P::ApiKeyRead,
    P::ProviderRead,
    P::TenantRead,
];

const SUPERVISE: &[Permission] = &[
    P::BatchWrite,
    P::AlarmAct,
    P::AlarmConfigure,
    P::DeviationAcknowledge,
    P::CoreWrite,
    P::SignaturePerform,
    P::SignatureReview,
    P::AuditRead,
    P::EdgeEnroll,
    P::EdgeCommand,
    P::TagAdopt,
    P::UserRead,
];

const ASSURE_SAFETY: &[Permission] = &[
    P::CcpConfigure,
    P::AlarmAct,
    P::AlarmConfigure,
    P::EdgeCommand,
    P::DeviationAcknowledge,
    P::CoreWrite,
    P::SupplierWrite,
    P::SignaturePerform,
    P::SignatureReview,
    P::SignatureApprove,
    P::AuditRead,
    P::UserRead,
];

/// A machine that exchanges production data has no business with food-safety decisions or pictures.
const EXCHANGE: &[Permission] = &[
    P::PlantRead,
    P::ReadingRead,
    P::ReadingWrite,
    P::BatchRead,
    P::BatchWrite,
    P::LotRead,
    P::EdgeRead,
    P::CoreRead,
    P::SupplierRead,
    P::EventRead,
];

/// Whether a built-in role may do this.
pub fn may(role: Role, permission: Permission) -> bool {
    let has = |list: &[Permission]| list.contains(&permission);
    match role {
        Role::Admin => true,
        Role::Supervisor => has(READ) || has(SUPERVISE),
        Role::FsqManager => has(READ) || has(ASSURE_SAFETY),
        Role::Operator => {
            has(READ) || matches!(permission, P::BatchWrite | P::AlarmAct | P::SignaturePerform)
        }
        Role::Auditor => has(READ) || has(OVERSEE),
        Role::Integrator => has(EXCHANGE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_auditor_changes_nothing_and_an_admin_lacks_nothing() {
        for permission in Permission::ALL {
            let reads = permission.as_str().split('.').next_back() == Some("read");
            assert!(reads || !may(Role::Auditor, *permission), "{permission:?}");
        }
        assert!(Permission::ALL.iter().all(|any| may(Role::Admin, *any)));
    }

    #[test]
    fn only_those_who_answer_for_safety_acknowledge_a_deviation() {
        let allowed = Role::ALL
            .into_iter()
            .filter(|role| may(*role, Permission::DeviationAcknowledge));
        assert_eq!(
            allowed.collect::<Vec<_>>(),
            [Role::Admin, Role::Supervisor, Role::FsqManager]
        );
    }

    #[test]
    fn who_administers_the_tenant_or_sees_all_that_was_done_does_so_everywhere() {
        for permission in OVERSEE
            .iter()
            .chain(&[P::UserWrite, P::RoleWrite, P::EdgeEnroll, P::SupplierWrite])
        {
            assert!(!permission.is_by_line(), "{permission:?}");
        }
        assert_eq!(P::BatchWrite.description(), "Plan, start and complete batches.");
    }

    #[test]
    fn permission_names_are_unique_and_have_a_resource_and_an_action() {
        let mut names: Vec<_> = Permission::ALL.iter().map(|it| it.as_str()).collect();
        assert!(names.iter().all(|name| name.split('.').count() == 2));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Permission::ALL.len());
    }
}
