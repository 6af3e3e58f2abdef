//! The migrations of both drivers, which lie in `migrations/`.
//!
//! They are named one by one, and not by `sqlx::migrate!`: sqlx's macros bring both drivers, and all that these need, a second time, for the
//! compiler's own use.

use std::sync::LazyLock;

use sqlx::SqlSafeStr as _;
use sqlx::migrate::{Migration, MigrationType, Migrator};

pub(super) static SQLITE: LazyLock<Migrator> = LazyLock::new(|| {
    migrator(&[
        (1, "jobs", include_str!("../../migrations/sqlite/0001_jobs.sql")),
        (2, "events", include_str!("../../migrations/sqlite/0002_events.sql")),
        (3, "functions", include_str!("../../migrations/sqlite/0003_functions.sql")),
        (4, "profiles", include_str!("../../migrations/sqlite/0004_profiles.sql")),
        (5, "comparisons", include_str!("../../migrations/sqlite/0005_comparisons.sql")),
        (6, "life", include_str!("../../migrations/sqlite/0006_life.sql")),
        (7, "graph", include_str!("../../migrations/sqlite/0007_graph.sql")),
        (8, "schedules", include_str!("../../migrations/sqlite/0008_schedules.sql")),
        (9, "webhooks", include_str!("../../migrations/sqlite/0009_webhooks.sql")),
        (10, "retention", include_str!("../../migrations/sqlite/0010_retention.sql")),
        (15, "keys", include_str!("../../migrations/sqlite/0015_keys.sql")),
        (16, "payloads", include_str!("../../migrations/sqlite/0016_payloads.sql")),
        (17, "owner", include_str!("../../migrations/sqlite/0017_owner.sql")),
        (18, "quotas", include_str!("../../migrations/sqlite/0018_quotas.sql")),
        (19, "identity", include_str!("../../migrations/sqlite/0019_identity.sql")),
        (20, "gates", include_str!("../../migrations/sqlite/0020_gates.sql")),
        (21, "deliveries", include_str!("../../migrations/sqlite/0021_deliveries.sql")),
        (22, "outcomes", include_str!("../../migrations/sqlite/0022_outcomes.sql")),
        (23, "due deliveries", include_str!("../../migrations/sqlite/0023_due_deliveries.sql")),
    ])
});

pub(super) static POSTGRES: LazyLock<Migrator> = LazyLock::new(|| {
    migrator(&[
        (1, "store", include_str!("../../migrations/postgres/0001_store.sql")),
        (2, "paces", include_str!("../../migrations/postgres/0002_paces.sql")),
        (3, "identity", include_str!("../../migrations/postgres/0003_identity.sql")),
        (4, "gates", include_str!("../../migrations/postgres/0004_gates.sql")),
        (5, "delivery owner", include_str!("../../migrations/postgres/0005_delivery_owner.sql")),
    ])
});

fn migrator(migrations: &[(i64, &'static str, &'static str)]) -> Migrator {
    let migration = |&(version, description, text): &(i64, &'static str, &'static str)| {
        Migration::new(version, description.into(), MigrationType::Simple, text.into_sql_str(), false)
    };
    Migrator::with_migrations(migrations.iter().map(migration).collect())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[tokio::test]
    async fn none_that_lies_in_the_folders_is_missing() {
        for (folder, named) in [("sqlite", &SQLITE), ("postgres", &POSTGRES)] {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations").join(folder);
            let lying = Migrator::new(folder.as_path()).await.unwrap();
            let all = |migrator: &Migrator| -> Vec<_> {
                let told = |migration: &Migration| {
                    (migration.version, migration.description.clone(), migration.checksum.clone(), migration.no_tx)
                };
                migrator.iter().map(told).collect()
            };
            assert_eq!(all(named), all(&lying), "{}", folder.display());
        }
    }
}
