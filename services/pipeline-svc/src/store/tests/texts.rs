//! Runs that are found by a part of a text.

use ferroflow_db::Read as _;

use super::*;

/// The names of the runs whose `key` contains `part`, by their names.
async fn found(db: &Db, key: &str, part: &str) -> Vec<String> {
    let predicate = json!({"operation": "IS_SUBSTRING", "key": key, "string_value": part});
    let request = ListRequest {
        filter: json!({"predicates": [predicate]}).to_string(),
        sort_by: "name".to_owned(),
        ..Default::default()
    };
    let wanted = listing(&request).unwrap();
    let mut tx = db.begin_read().await.unwrap();
    let page = list::list(&mut tx, &runs::TABLE, &here(), &wanted, runs::decode).await;
    let page = page.unwrap();
    assert_eq!(usize::try_from(page.total).unwrap(), page.entries.len());
    page.entries
        .into_iter()
        .map(|run| run.display_name)
        .collect()
}

async fn add(db: &Db, runs: &[Run]) {
    let mut tx = db.begin_write().await.unwrap();
    for run in runs {
        runs::insert(&mut tx, run, "me").await.unwrap();
    }
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn runs_of_former_releases_and_new_ones_are_found_until_they_are_deleted() {
    let experiment = experiment("e");
    let named = |name: &str| Run {
        display_name: name.to_owned(),
        ..run(&experiment, 1)
    };
    for former in each_db(schema_before("texts of runs")).await {
        let kind = former.kind;
        let (old, gone) = (named("nightly 1"), named("nightly 2"));
        add(&former.db, &[old, gone.clone(), named("other")]).await;
        let db = Db::open(&former.url, MIGRATIONS).await.unwrap();
        add(&db, &[named("nightly 3"), named("Daily, not NIGHTly")]).await;
        let all = found(&db, "name", "night").await;
        assert_eq!(all.len(), 4, "{kind}: {all:?}");

        let mut tx = db.begin_write().await.unwrap();
        assert!(runs::delete(&mut tx, held(&gone)).await.unwrap(), "{kind}");
        sqlx::query("UPDATE runs SET display_name = 'weekly' WHERE display_name = 'nightly 1'")
            .execute(tx.conn())
            .await
            .unwrap();
        tx.commit().await.unwrap();

        let night = found(&db, "name", "night").await;
        assert_eq!(night, ["Daily, not NIGHTly", "nightly 3"], "{kind}");
        assert_eq!(found(&db, "name", "week").await, ["weekly"], "{kind}");
        assert_eq!(found(&db, "description", "% of_").await.len(), 4, "{kind}");
        assert_eq!(found(&db, "pipeline_name", "p").await.len(), 4, "{kind}");
    }
}
