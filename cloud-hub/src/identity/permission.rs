//! What may each role do? One table, deny by default: a permission that a role does not list is refused.

use crate::kernel::role::Role;

macro_rules! permissions {
    ($($(#[$doc:meta])* $variant:ident = $name:literal;)*) => {
        /// A right to do something, named `resource.action`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Permission {
            $($(#[$doc])* $variant,)*
        }

        impl Permission {
            /// Every permission.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The permission's name in `me` and in refusals.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

permissions! {
    /// Plants, lines and tags.
    PlantRead = "plant.read";
    /// Readings.
    ReadingRead = "reading.read";
    /// Batches.
    BatchRead = "batch.read";
    /// Plan, start and complete batches.
    BatchWrite = "batch.write";
    /// Lots.
    LotRead = "lot.read";
    /// Critical control points and their checks.
    CcpRead = "ccp.read";
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
    /// The live stream.
    LiveRead = "live.read";
}

use Permission as P;

const READ_ALL: &[Permission] = &[
    P::PlantRead,
    P::ReadingRead,
    P::BatchRead,
    P::LotRead,
    P::CcpRead,
    P::DeviationRead,
    P::HoldRead,
    P::VisionRead,
    P::EdgeRead,
    P::LiveRead,
];

/// Whether `role` may do this.
pub fn may(role: Role, permission: Permission) -> bool {
    let beyond_reading: &[Permission] = match role {
        Role::Admin | Role::Supervisor => &[P::BatchWrite, P::DeviationAcknowledge],
        Role::FsqManager => &[P::DeviationAcknowledge],
        Role::Operator => &[P::BatchWrite],
        Role::Auditor => &[],
        // A machine that exchanges production data has no business with food-safety decisions or pictures.
        Role::Integrator => {
            return matches!(
                permission,
                P::PlantRead | P::ReadingRead | P::BatchRead | P::BatchWrite | P::LotRead | P::EdgeRead
            );
        }
    };
    READ_ALL.contains(&permission) || beyond_reading.contains(&permission)
}

/// Everything `role` may do, by name.
pub fn granted(role: Role) -> Vec<&'static str> {
    Permission::ALL
        .iter()
        .filter(|it| may(role, **it))
        .map(|it| it.as_str())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_auditor_changes_nothing_and_an_admin_lacks_nothing() {
        let writes = [Permission::BatchWrite, Permission::DeviationAcknowledge];
        assert!(writes.iter().all(|write| !may(Role::Auditor, *write)));
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
    fn permission_names_are_unique_and_have_a_resource_and_an_action() {
        let mut names: Vec<_> = Permission::ALL.iter().map(|it| it.as_str()).collect();
        assert!(names.iter().all(|name| name.split('.').count() == 2));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Permission::ALL.len());
    }
}
