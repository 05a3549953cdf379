//! People of a test: accounts with the roles it needs, on the lines it needs.

use cloud_hub::{
    kernel::{role::Role, tenancy::TenantSlug, token::Claims},
    tenant::user,
};
use uuid::Uuid;

use crate::{
    client::Caller,
    support::{TestHub, akron},
};

/// A role by name and, where it is not to hold everywhere, the code of a line.
pub(crate) type Grant<'a> = (&'a str, Option<&'a str>);

/// Makes an account of Akron that holds exactly `grants`, and gives its id and a caller with its token.
pub(crate) async fn person(hub: &TestHub, name: &str, grants: &[Grant<'_>]) -> (Uuid, Caller) {
    let id = person_of(hub, &akron(), name, grants).await;
    (id, signed_in(hub, id, None).await)
}

/// As [`person`], in another tenant, without a token.
pub(crate) async fn person_of(hub: &TestHub, tenant: &TenantSlug, name: &str, grants: &[Grant<'_>]) -> Uuid {
    let mut tx = hub.db.begin(tenant).await.unwrap();
    let email = format!("{name}@people.example");
    let id = user::put(&mut tx, &email, name, Role::Auditor, "no hash")
        .await
        .unwrap();
    sqlx::query("DELETE FROM user_role WHERE user_id = $1")
        .bind(id)
        .execute(tx.conn())
        .await
        .unwrap();
    for (role, line) in grants {
        let granted = sqlx::query(
            "INSERT INTO user_role (user_id, role_id, line_id) SELECT $1, r.id, l.id FROM role r \
             LEFT JOIN line l ON l.code = $3 WHERE r.name = $2",
        )
        .bind(id)
        .bind(role)
        .bind(line)
        .execute(tx.conn())
        .await
        .unwrap();
        assert_eq!(granted.rows_affected(), 1, "{role}");
    }
    tx.commit().await.unwrap();
    id
}

/// A caller with a token of that account, in a session or outside of any.
pub(crate) async fn signed_in(hub: &TestHub, id: Uuid, session: Option<Uuid>) -> Caller {
    let now_s = hub.hub.app.clock.now_us() / 1_000_000;
    let token = hub.hub.app.signing_key.issue(&Claims {
        sub: id,
        tenant: akron().as_str().to_owned(),
        role: Role::Auditor,
        sid: session,
        iat: now_s,
        exp: now_s + 900,
    });
    Caller::anonymous(hub).with_token(token)
}

/// Opens a session of that account as a sign-in would.
pub(crate) async fn session(hub: &TestHub, id: Uuid) -> Uuid {
    let mut tx = hub.db.begin(&akron()).await.unwrap();
    let session = Uuid::now_v7();
    sqlx::query(
        "INSERT INTO session (id, user_id, started_at, expires_at, auth_factor) \
         VALUES ($1, $2, now(), now() + interval '1 day', 'password')",
    )
    .bind(session)
    .bind(id)
    .execute(tx.conn())
    .await
    .unwrap();
    tx.commit_unaudited("a test's own session").await.unwrap();
    session
}

/// The id of a line of Akron.
pub(crate) async fn line(hub: &TestHub, code: &str) -> Uuid {
    let mut tx = hub.db.begin(&akron()).await.unwrap();
    sqlx::query_scalar("SELECT id FROM line WHERE code = $1")
        .bind(code)
        .fetch_one(tx.conn())
        .await
        .unwrap()
}

/// The id of a role of Akron.
pub(crate) async fn role_id(caller: &Caller, name: &str) -> String {
    let roles = caller.items("/roles").await;
    let role = roles.iter().find(|role| role["name"] == name).unwrap();
    role["id"].as_str().unwrap().to_owned()
}
