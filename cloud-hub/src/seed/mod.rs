//! What does the demonstration plant look like? Akron's lines, limits, people and running batches; and a second
//! tenant whose only purpose is that nothing of it may ever be seen from the first. May be repeated.

mod product;

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;

use crate::{
    kernel::{
        audit::{Actor, Deed},
        event::NewEvent,
        role::Role,
        tenancy::{Db, TenancyError, TenantSlug, TenantTx},
    },
    tenant::{provision::Tenant, user},
};

const AKRON: &str = include_str!("akron.json");

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Data {
    plant: Plant,
    lines: Vec<Line>,
    equipment: Vec<Equipment>,
    flow_links: Vec<FlowLink>,
    skus: Vec<Sku>,
    ccps: Vec<Ccp>,
    runs: Vec<product::Run>,
    users: Vec<User>,
}

#[derive(Debug, Deserialize)]
struct Plant {
    code: String,
    name: String,
    zone: String,
}

#[derive(Debug, Deserialize)]
struct Line {
    code: String,
    name: String,
    target_per_min: f64,
    rate_tag: String,
    key_tags: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Equipment {
    line: String,
    code: String,
    name: String,
}

#[derive(Debug, Deserialize)]
struct FlowLink {
    from: String,
    to: String,
    residence_s_min: i32,
    residence_s_max: i32,
}

#[derive(Debug, Deserialize)]
struct Sku {
    code: String,
    name: String,
    line: String,
    allergens: Vec<String>,
    #[serde(default)]
    is_ftl: bool,
    jurisdiction: String,
}

#[derive(Debug, Deserialize)]
struct Ccp {
    code: String,
    name: String,
    line: String,
    equipment: String,
    tag: String,
    unit: String,
    limit_low: Option<f64>,
    limit_high: Option<f64>,
    challenge_every_s: Option<i64>,
    challenge_grace_s: Option<i64>,
}

/// A demonstration user.
#[derive(Clone, Debug, Deserialize)]
pub struct User {
    /// Address to sign in with.
    pub email: String,
    /// Name for people.
    pub display_name: String,
    /// What to do.
    pub role: Role,
}

fn data() -> Data {
    serde_json::from_str(AKRON).expect("the embedded plant is checked by a test")
}

/// The demonstration tenants: Akron, and the canary.
///
/// # Panics
/// Never: the slugs are constants.
pub fn tenants() -> [Tenant; 2] {
    let tenant = |slug, name: &str| Tenant {
        slug: TenantSlug::parse(slug).expect("a constant slug"),
        name: name.to_owned(),
    };
    [
        tenant("akron", "Lakeshore Kitchens (Akron, OH)"),
        tenant("cuyahoga", "Cuyahoga Dairy Co-op"),
    ]
}

/// Akron's users, one a role.
pub fn users() -> Vec<User> {
    data().users
}

/// Fills both tenants, which must exist. Users get the password of `password_hash` anew each time; everything
/// else stays as it is when it is there.
///
/// # Errors
/// [`TenancyError`].
pub async fn akron(db: &Db, password_hash: &str, now: DateTime<Utc>) -> Result<(), TenancyError> {
    let [akron, canary] = tenants();
    let data = data();
    let seeding = || Actor::Operator {
        name: "seed".to_owned(),
    };
    let mut tx = db.begin_as(&akron.slug, seeding()).await?;
    for person in &data.users {
        user::put(
            &mut tx,
            &person.email,
            &person.display_name,
            person.role,
            password_hash,
        )
        .await?;
    }
    let ids = plant(&mut tx, &data).await?;
    product::runs(&mut tx, &data.runs, &ids, now).await?;
    tx.audit(&Deed::on("seed", "plant", &data.plant.code));
    tell(&mut tx).await?;
    tx.commit().await?;

    let mut tx = db.begin_as(&canary.slug, seeding()).await?;
    user::put(
        &mut tx,
        "admin@cuyahoga.example",
        "Casey Canary",
        Role::Admin,
        password_hash,
    )
    .await?;
    product::canary(&mut tx).await?;
    tell(&mut tx).await?;
    tx.commit().await
}

/// What was made is told once, so that it is found and followed like what people make.
async fn tell(tx: &mut TenantTx) -> Result<(), TenancyError> {
    for (table, kind, name) in [
        ("plant", "PlantCreated", "name"),
        ("line", "LineCreated", "name"),
        ("ccp", "CcpCreated", "name"),
        (
            "batch",
            "BatchCreated",
            "(SELECT s.name FROM sku s WHERE s.id = x.sku_id)",
        ),
        ("lot", "LotCreated", "item_name"),
    ] {
        let sql = format!(
            "SELECT id, code, {name} FROM {table} x WHERE NOT EXISTS (SELECT FROM domain_event e \
             WHERE e.aggregate = '{table}' AND e.aggregate_id = x.id) ORDER BY code"
        );
        let made: Vec<(Uuid, String, String)> = sqlx::query_as(sqlx::AssertSqlSafe(sql))
            .fetch_all(tx.conn())
            .await?;
        for (id, code, name) in made {
            let payload = json!({ "code": code, "name": name });
            tx.event(&NewEvent::new(kind, table, id, payload));
        }
    }
    Ok(())
}

/// Row ids by code.
#[derive(Debug, Default)]
struct Ids {
    lines: HashMap<String, Uuid>,
    equipment: HashMap<String, Uuid>,
    skus: HashMap<String, Uuid>,
}

impl Ids {
    /// The plant's file names only what it defines; a test checks that.
    fn of(map: &HashMap<String, Uuid>, code: &str) -> Uuid {
        map.get(code).copied().unwrap_or_default()
    }
}

async fn plant(tx: &mut TenantTx, data: &Data) -> Result<Ids, TenancyError> {
    let plant_id: Uuid = sqlx::query_scalar(
        "INSERT INTO plant (id, code, name, zone) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (code) DO UPDATE SET name = excluded.name, zone = excluded.zone RETURNING id",
    )
    .bind(Uuid::now_v7())
    .bind(&data.plant.code)
    .bind(&data.plant.name)
    .bind(&data.plant.zone)
    .fetch_one(tx.conn())
    .await?;
    let mut ids = Ids::default();
    for line in &data.lines {
        let id: Uuid = sqlx::query_scalar(
            "INSERT INTO line (id, plant_id, code, name, target_per_min, rate_tag, key_tags) \
             VALUES ($1, $2, $3, $4, $5, $6, $7) \
             ON CONFLICT (code) DO UPDATE SET name = excluded.name RETURNING id",
        )
        .bind(Uuid::now_v7())
        .bind(plant_id)
        .bind(&line.code)
        .bind(&line.name)
        .bind(line.target_per_min)
        .bind(&line.rate_tag)
        .bind(&line.key_tags)
        .fetch_one(tx.conn())
        .await?;
        ids.lines.insert(line.code.clone(), id);
    }
    equipment(tx, data, &mut ids).await?;
    for sku in &data.skus {
        let id: Uuid = sqlx::query_scalar(
            "INSERT INTO sku (id, code, name, line_id, allergens, is_ftl, jurisdiction) \
             VALUES ($1, $2, $3, $4, $5, $6, $7) \
             ON CONFLICT (code) DO UPDATE SET name = excluded.name RETURNING id",
        )
        .bind(Uuid::now_v7())
        .bind(&sku.code)
        .bind(&sku.name)
        .bind(Ids::of(&ids.lines, &sku.line))
        .bind(&sku.allergens)
        .bind(sku.is_ftl)
        .bind(&sku.jurisdiction)
        .fetch_one(tx.conn())
        .await?;
        ids.skus.insert(sku.code.clone(), id);
    }
    control_points(tx, data, &ids).await?;
    Ok(ids)
}

async fn equipment(tx: &mut TenantTx, data: &Data, ids: &mut Ids) -> Result<(), TenancyError> {
    for equipment in &data.equipment {
        let id: Uuid = sqlx::query_scalar(
            "INSERT INTO equipment (id, line_id, code, name) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (code) DO UPDATE SET name = excluded.name RETURNING id",
        )
        .bind(Uuid::now_v7())
        .bind(Ids::of(&ids.lines, &equipment.line))
        .bind(&equipment.code)
        .bind(&equipment.name)
        .fetch_one(tx.conn())
        .await?;
        ids.equipment.insert(equipment.code.clone(), id);
    }
    for link in &data.flow_links {
        sqlx::query(
            "INSERT INTO flow_link (from_equipment_id, to_equipment_id, residence_s_min, residence_s_max) \
             VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
        )
        .bind(Ids::of(&ids.equipment, &link.from))
        .bind(Ids::of(&ids.equipment, &link.to))
        .bind(link.residence_s_min)
        .bind(link.residence_s_max)
        .execute(tx.conn())
        .await?;
    }
    Ok(())
}

async fn control_points(tx: &mut TenantTx, data: &Data, ids: &Ids) -> Result<(), TenancyError> {
    for ccp in &data.ccps {
        sqlx::query(
            "INSERT INTO ccp (id, code, name, line_id, equipment_id, tag_name, unit, limit_low, limit_high, \
               challenge_every_us, challenge_grace_us) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10 * 1000000, $11 * 1000000) ON CONFLICT (code) DO NOTHING",
        )
        .bind(Uuid::now_v7())
        .bind(&ccp.code)
        .bind(&ccp.name)
        .bind(Ids::of(&ids.lines, &ccp.line))
        .bind(Ids::of(&ids.equipment, &ccp.equipment))
        .bind(&ccp.tag)
        .bind(&ccp.unit)
        .bind(ccp.limit_low)
        .bind(ccp.limit_high)
        .bind(ccp.challenge_every_s)
        .bind(ccp.challenge_grace_s)
        .execute(tx.conn())
        .await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plant_names_only_what_it_defines() {
        let data = data();
        let lines: Vec<_> = data.lines.iter().map(|line| &line.code).collect();
        let equipment: Vec<_> = data.equipment.iter().map(|equipment| &equipment.code).collect();
        let skus: Vec<_> = data.skus.iter().map(|sku| &sku.code).collect();
        assert!(
            data.equipment
                .iter()
                .all(|equipment| lines.contains(&&equipment.line))
        );
        assert!(data.skus.iter().all(|sku| lines.contains(&&sku.line)));
        assert!(
            data.ccps
                .iter()
                .all(|ccp| lines.contains(&&ccp.line) && equipment.contains(&&ccp.equipment))
        );
        for link in &data.flow_links {
            assert!(equipment.contains(&&link.from) && equipment.contains(&&link.to));
        }
        for run in &data.runs {
            assert!(
                run.names()
                    .iter()
                    .zip([&lines, &skus, &equipment])
                    .all(|(name, known)| known.contains(name))
            );
        }
        assert!(
            Role::ALL
                .iter()
                .all(|role| data.users.iter().any(|user| user.role == *role))
        );
    }
}
