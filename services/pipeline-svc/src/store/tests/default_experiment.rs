//! The default experiment: there is one, whoever asks first, and whatever was there before.

use super::*;
use crate::domain::id::ExperimentId;

fn default_experiment(name: &str) -> Experiment {
    Experiment {
        is_default: true,
        ..experiment(name)
    }
}

/// Adds an experiment as releases with that schema did.
async fn put_before(db: &Db, experiment: &Experiment) {
    let insert = "INSERT INTO experiments (id, namespace, display_name, description, storage_state, \
        is_default, created_at, last_run_created_at, event_sequence) \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
    let mut tx = db.begin_write().await.unwrap();
    sqlx::query(insert)
        .bind(experiment.id.to_string())
        .bind(experiment.namespace.as_str())
        .bind(&experiment.display_name)
        .bind(&experiment.description)
        .bind(experiment.storage.as_str())
        .bind(i64::from(experiment.is_default))
        .bind(experiment.created_at.millis())
        .bind(experiment.last_run_created_at.millis())
        .bind(experiment.event_sequence)
        .execute(ferroflow_db::Read::conn(&mut tx))
        .await
        .unwrap();
    tx.commit().await.unwrap();
}

async fn default_of(db: &Db) -> Option<ExperimentId> {
    let mut tx = db.begin_read().await.unwrap();
    let found = experiments::default_of(&mut tx, &Namespace::single_user()).await;
    found.unwrap().map(|found| found.id)
}

#[tokio::test]
async fn an_installation_whose_name_is_taken_is_mended() {
    for former in each_db(schema_before("default experiment")).await {
        println!("on {}", former.kind);
        let (taken, other) = (experiment("Default"), experiment("other"));
        put_before(&former.db, &taken).await;
        put_before(&former.db, &other).await;

        let db = Db::open(&former.url, MIGRATIONS).await.unwrap();

        assert_eq!(default_of(&db).await, Some(taken.id));
        let mut tx = db.begin_read().await.unwrap();
        let found = experiments::get(&mut tx, &Caller::local(), other.id)
            .await
            .unwrap();
        let expected = Experiment {
            created_by: String::new(),
            ..other
        };
        assert_eq!(found, Some(expected));
    }
}

#[tokio::test]
async fn an_installation_that_has_one_keeps_it() {
    for former in each_db(schema_before("default experiment")).await {
        println!("on {}", former.kind);
        let first = default_experiment("Default");
        put_before(&former.db, &first).await;

        let db = Db::open(&former.url, MIGRATIONS).await.unwrap();

        assert_eq!(default_of(&db).await, Some(first.id));
    }
}

#[tokio::test]
async fn one_that_a_client_made_is_taken() {
    for TestDb { kind: name, db, .. } in databases().await {
        println!("on {name}");
        let clients = experiment("Default");
        let mut tx = db.begin_write().await.unwrap();
        experiments::put(&mut tx, &clients).await.unwrap();
        let ours = default_experiment("Default");
        experiments::ensure_default(&mut tx, &ours).await.unwrap();
        tx.commit().await.unwrap();

        assert_eq!(default_of(&db).await, Some(clients.id));
    }
}

#[tokio::test]
async fn of_many_who_ask_first_all_get_the_same() {
    for TestDb { kind: name, db, .. } in databases().await {
        println!("on {name}");
        let ask = |db: Db| async move {
            let mut tx = db.begin_write().await.unwrap();
            let ours = default_experiment("Default");
            experiments::ensure_default(&mut tx, &ours).await.unwrap();
            let found = experiments::default_of(&mut tx, &Namespace::single_user()).await;
            let found = found.unwrap().unwrap().id;
            tx.commit().await.unwrap();
            found
        };
        let asking: Vec<_> = (0..8).map(|_| tokio::spawn(ask(db.clone()))).collect();
        let mut found = Vec::new();
        for one in asking {
            found.push(one.await.unwrap());
        }
        found.dedup();
        assert_eq!(found.len(), 1, "{found:?}");

        let mut tx = db.begin_write().await.unwrap();
        let second = experiments::put(&mut tx, &default_experiment("second")).await;
        assert!(
            matches!(second, Err(DbError::UniqueViolation { .. })),
            "{second:?}"
        );
    }
}
