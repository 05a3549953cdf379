//! Forgetting the tenant fails closed; naming another one is not found.

use crate::support::{TestDatabase, akron, cuyahoga};
use cloud_hub::{
    kernel::{
        bulk::{BulkConnection, BulkError},
        clock::Clock,
        tenancy::{TenancyError, TenantSlug},
    },
    tenant::{enrolment, provision},
};
use sqlx::ConnectOptions;

/// SQLSTATE; 42501 is "insufficient privilege".
fn code(error: &sqlx::Error) -> Option<String> {
    Some(error.as_database_error()?.code()?.into_owned())
}

#[tokio::test]
async fn the_login_role_alone_reads_no_tenant() {
    let test = TestDatabase::create().await;
    let mut tx = test.db.platform().await.unwrap();
    let error = sqlx::query("SELECT code FROM t_akron.lot")
        .fetch_all(tx.conn())
        .await
        .unwrap_err();
    assert_eq!(code(&error).as_deref(), Some("42501"));
}

#[tokio::test]
async fn a_tenants_transaction_reads_its_own_lots_and_no_others() {
    let test = TestDatabase::create().await;
    let own = test
        .count(
            &cuyahoga(),
            "SELECT quantity::bigint FROM lot WHERE code = 'OWM32-6286-1A'",
        )
        .await;
    assert_eq!(own, 999);
    assert_eq!(
        test.count(&akron(), "SELECT count(*) FROM lot WHERE code = 'OWM32-6286-1A'")
            .await,
        0
    );
    let mut tx = test.db.begin(&akron()).await.unwrap();
    let foreign = sqlx::query("SELECT code FROM t_cuyahoga.lot")
        .fetch_all(tx.conn())
        .await
        .unwrap_err();
    assert_eq!(code(&foreign).as_deref(), Some("42501"));
}

#[tokio::test]
async fn the_role_ends_with_its_transaction() {
    let test = TestDatabase::create().await;
    for _ in 0..20 {
        drop(test.db.begin(&akron()).await.unwrap());
        let mut tx = test.db.platform().await.unwrap();
        let role: String = sqlx::query_scalar("SELECT current_user::text")
            .fetch_one(tx.conn())
            .await
            .unwrap();
        assert_eq!(role, "foodflow_app");
    }
}

#[tokio::test]
async fn an_unknown_tenant_is_not_found_on_either_driver() {
    let test = TestDatabase::create().await;
    let nobody = TenantSlug::parse("nobody").unwrap();
    assert!(matches!(
        test.db.begin(&nobody).await,
        Err(TenancyError::UnknownTenant)
    ));
    let mut bulk = BulkConnection::connect(&test.databases.login.bulk).await.unwrap();
    assert!(matches!(bulk.begin(&nobody).await, Err(BulkError::UnknownTenant)));
}

#[tokio::test]
async fn a_tenant_may_add_to_its_records_but_not_change_them() {
    let test = TestDatabase::create().await;
    for forbidden in [
        "UPDATE reading SET value = 0",
        "DELETE FROM reading",
        "DELETE FROM ccp_check",
        "DELETE FROM deviation",
        "DELETE FROM hold_lot",
        "CREATE TABLE x (y int)",
        "DROP TABLE lot",
    ] {
        let mut tx = test.db.begin(&akron()).await.unwrap();
        let error = sqlx::query(forbidden).execute(tx.conn()).await.unwrap_err();
        assert_eq!(code(&error).as_deref(), Some("42501"), "{forbidden}");
    }
}

#[tokio::test]
async fn an_enrolment_code_works_once_and_its_secret_only_for_its_edge() {
    let test = TestDatabase::create().await;
    let now = Clock::system().now();
    let code = enrolment::create_code(&test.db, &akron(), "e1", now)
        .await
        .unwrap();
    let late = now + chrono::Duration::hours(25);
    assert!(enrolment::redeem(&test.db, &code, late).await.is_err(), "too old");
    let identity = enrolment::redeem(&test.db, &code, now).await.unwrap();
    assert!(enrolment::redeem(&test.db, &code, now).await.is_err(), "used");

    let secret = identity.mqtt_password.expose();
    let authenticate =
        async |user: &str, secret: &str| enrolment::authenticate(&test.db, user, secret).await.unwrap();
    assert_eq!(
        authenticate("akron/e1", secret).await,
        Some(("akron".to_owned(), "e1".to_owned()))
    );
    for (user, secret) in [
        ("akron/e2", secret),
        ("cuyahoga/e1", secret),
        ("akron/e1", "guess"),
        ("akron", secret),
    ] {
        assert_eq!(authenticate(user, secret).await, None, "{user}");
    }
    assert!(
        enrolment::create_code(&test.db, &akron(), "No/Such", now)
            .await
            .is_err()
    );
}

#[tokio::test]
async fn migrating_again_changes_nothing() {
    let test = TestDatabase::create().await;
    assert_eq!(test.databases.migrate().await.unwrap().applied, 0);
}

#[tokio::test]
async fn two_hubs_may_migrate_at_once() {
    let test = TestDatabase::create_empty().await;
    let (first, second) = tokio::join!(test.databases.migrate(), test.databases.migrate());
    assert_eq!(
        first.unwrap().applied.min(second.unwrap().applied),
        0,
        "one of them found everything done"
    );
    let tenant = TenantSlug::parse("both").unwrap();
    let make = async || {
        let mut owner = test
            .databases
            .owner
            .as_ref()
            .unwrap()
            .requests
            .connect()
            .await
            .unwrap();
        provision::provision(&mut owner, &tenant, "Both").await.unwrap()
    };
    let (first, second) = tokio::join!(make(), make());
    assert_eq!(first.min(second), 0);
    assert_eq!(test.count(&tenant, "SELECT count(*) FROM lot").await, 0);
}
