//! How does a plain Mosquitto learn the rules? As its access control file: each device that is let in, with the topics
//! of its own. Who a client is, Mosquitto tells by its certificate, whose common name is `TENANT/EDGE`.

use std::fmt::Write as _;

use crate::kernel::tenancy::{Db, TenancyError};

/// The access control file for all devices that are let in now. `hub_user` is the hub's own name on that broker.
///
/// # Errors
/// [`TenancyError`].
pub async fn mosquitto_acl(db: &Db, hub_user: &str) -> Result<String, TenancyError> {
    let mut tx = db.platform().await?;
    let devices: Vec<(String, String)> = sqlx::query_as(
        "SELECT t.slug, e.name FROM platform.edge_registry e JOIN platform.tenant t ON t.id = e.tenant_id \
         WHERE e.revoked_at IS NULL AND t.status = 'active' ORDER BY t.slug, e.name",
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(acl(hub_user, &devices))
}

fn acl(hub_user: &str, devices: &[(String, String)]) -> String {
    let mut file = String::from(
        "# Written by `foodflow-hub mqtt export-acl`; a device that is enrolled or revoked later is not in it.\n",
    );
    let mut line = |text: &str| writeln!(file, "{text}").expect("a text takes every line");
    line(&format!("\nuser {hub_user}\ntopic readwrite #"));
    for (tenant, name) in devices {
        line(&format!("\nuser {tenant}/{name}"));
        for part in ["up/+", "dict", "status"] {
            line(&format!("topic write ff/v1/{tenant}/{name}/{part}"));
        }
        for part in ["ack", "cmd", "config"] {
            line(&format!("topic read ff/v1/{tenant}/{name}/{part}"));
        }
        line(&format!("topic write {tenant}/#"));
        for part in ["err", "echo"] {
            line(&format!("topic read {tenant}/v1/{part}/{name}"));
        }
    }
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_device_has_its_own_topics_and_no_other() {
        let file = acl(
            "hub",
            &[
                ("akron".to_owned(), "e1".to_owned()),
                ("cuyahoga".to_owned(), "e1".to_owned()),
            ],
        );
        let part = file
            .split("user ")
            .find(|part| part.starts_with("akron/e1"))
            .unwrap();
        assert!(
            part.contains("topic write ff/v1/akron/e1/up/+\n")
                && part.contains("topic read akron/v1/err/e1\n")
        );
        assert!(!part.contains("cuyahoga") && !part.contains("topic read akron/#"));
    }
}
