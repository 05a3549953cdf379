//! The hub's own commands on tenants, as a script runs them: what they print and how they end.

use std::process::{Command, Output};

use cloud_hub::{
    embedded::OWNER_ROLE,
    kernel::tenancy::{LOGIN_ROLE, TenantSlug},
    tenant::{migrate::Files, provision},
};
use serde_json::Value;
use sqlx::AssertSqlSafe;

use crate::support::TestDatabase;

struct Shell {
    dir: tempfile::TempDir,
    login: String,
    owner: String,
}

impl Shell {
    async fn on(test: &TestDatabase) -> Self {
        let mut owner = test.owner().await;
        let (socket, name): (String, String) =
            sqlx::query_as("SELECT current_setting('unix_socket_directories'), current_database()::text")
                .fetch_one(&mut owner)
                .await
                .unwrap();
        let url = |role: &str| format!("postgres://{role}@{}:5432/{name}", socket.replace('/', "%2F"));
        Self {
            dir: tempfile::tempdir().unwrap(),
            login: url(LOGIN_ROLE),
            owner: url(OWNER_ROLE),
        }
    }

    async fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_foodflow-hub"));
        command
            .args(arguments)
            .arg("--data-dir")
            .arg(self.dir.path())
            .current_dir(self.dir.path())
            .env("FOODFLOW_HUB__DATABASE__URL", &self.login)
            .env("FOODFLOW_HUB__DATABASE__ADMIN_URL", &self.owner);
        tokio::task::spawn_blocking(move || command.output().unwrap())
            .await
            .unwrap()
    }

    async fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments).await;
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}");
        String::from_utf8(output.stdout).unwrap()
    }

    async fn fails(&self, arguments: &[&str], code: i32) -> String {
        let output = self.run(arguments).await;
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    }
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[tokio::test]
async fn a_tenants_life_runs_by_commands() {
    let test = TestDatabase::create().await;
    let shell = Shell::on(&test).await;
    let made = json(
        &shell
            .ok(&["tenant", "create", "erie", "--name", "Erie", "--json"])
            .await,
    );
    assert_eq!(made["slug"], "erie");
    let said = shell
        .fails(&["tenant", "create", "erie", "--name", "Erie"], 1)
        .await;
    assert!(said.contains("already"), "{said}");
    shell
        .fails(&["tenant", "create", "a\"; drop", "--name", "X"], 2)
        .await;
    shell
        .ok(&["tenant", "rename", "erie", "--name", "Erie Fine Foods"])
        .await;
    shell
        .ok(&["tenant", "suspend", "erie", "--reason", "unpaid"])
        .await;
    let list = shell.ok(&["tenant", "list"]).await;
    assert!(list.contains("erie\tErie Fine Foods\tsuspended\n"), "{list}");

    let file = shell.dir.path().join("erie.tar.zst");
    let path = file.to_str().unwrap();
    let exported = json(
        &shell
            .ok(&["tenant", "export", "erie", "--out", path, "--json"])
            .await,
    );
    assert_eq!(exported["manifest"]["tenant"], "erie");
    assert_eq!(exported["bytes"], std::fs::metadata(&file).unwrap().len());
    shell.fails(&["tenant", "export", "erie", "--out", path], 1).await;
    shell.ok(&["tenant", "import", path, "--slug", "erie-2"]).await;
    let said = shell
        .fails(&["tenant", "import", path, "--slug", "erie-2"], 1)
        .await;
    assert!(said.contains("already"), "{said}");

    let delete = |confirm| {
        [
            "tenant",
            "delete",
            "erie",
            "--confirm",
            confirm,
            "--reason",
            "moved",
        ]
    };
    shell.fails(&delete("akron"), 1).await;
    shell.ok(&delete("erie")).await;
    shell.ok(&["tenant", "suspend", "erie-2", "--reason", "x"]).await;
    shell
        .ok(&["tenant", "reactivate", "erie-2", "--reason", "paid"])
        .await;
    let list = json(&shell.ok(&["tenant", "list", "--json"]).await);
    let slugs: Vec<&str> = list
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["slug"].as_str().unwrap())
        .collect();
    assert_eq!(slugs, ["akron", "cuyahoga", "erie-2"]);

    let token = shell
        .ok(&["token", "--platform", "--name", "ops", "--ttl", "5m"])
        .await;
    assert_eq!(token.trim().split('.').count(), 3);
    shell
        .fails(
            &["token", "--platform", "--tenant", "akron", "--role", "admin"],
            2,
        )
        .await;
    shell.fails(&["token", "--tenant", "akron"], 2).await;
    shell.fails(&["token"], 2).await;
    shell.ok(&["token", "--tenant", "akron", "--role", "admin"]).await;
}

#[tokio::test]
async fn a_migration_that_fails_is_reported_and_the_command_with_it() {
    let test = TestDatabase::create().await;
    let shell = Shell::on(&test).await;
    let (mut owner, late) = (test.owner().await, TenantSlug::parse("late").unwrap());
    provision::provision_with(&mut owner, &late, "Late", &Files::tenant().until(9))
        .await
        .unwrap();
    let mut sql = async |sql: &str| {
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
            .execute(&mut owner)
            .await
            .unwrap();
    };
    sql("CREATE TABLE t_late.supplier (in_the_way int)").await;
    shell.ok(&["migrate", "--tenant", "akron"]).await;
    let said = shell.fails(&["migrate"], 1).await;
    assert!(
        said.contains("not served for lack of a migration: late"),
        "{said}"
    );
    let report = shell.run(&["migrate", "--report"]).await;
    assert_eq!(report.status.code(), Some(1));
    let report = String::from_utf8(report.stdout).unwrap();
    let line = report.lines().find(|line| line.starts_with("late\t")).unwrap();
    assert!(
        line.starts_with("late\tactive\t9/") && line.contains("\tfailed\t"),
        "{line}"
    );
    let list = shell.ok(&["tenant", "list"]).await;
    assert!(list.contains("late\t"), "other commands go on: {list}");
    sql("DROP TABLE t_late.supplier").await;
    let report = json(&shell.ok(&["migrate", "--tenant", "late", "--json"]).await);
    assert_eq!(report[0]["schema_version"], report[0]["expected_version"]);
    assert_eq!(report[0]["migration_error"], Value::Null);
    shell.ok(&["migrate", "--report"]).await;
    shell.fails(&["migrate", "--tenant", "nobody"], 1).await;
}
