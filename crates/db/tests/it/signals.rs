//! Signals reach whoever waits: in this process at once, in others through PostgreSQL.

use std::time::Duration;

use ferroflow_db::Db;
use ferroflow_db::signal::Topic;
use ferroflow_db::testing::each_db;

use crate::MIGRATIONS;

const TOPIC: Topic = Topic::new("tested");
const LIMIT: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_signal_is_heard_after_the_commit_only() {
    for test in each_db(MIGRATIONS).await {
        let mut subscription = test.db.signals().subscribe(TOPIC);
        let mut tx = test.db.begin_write().await.unwrap();
        tx.signal(TOPIC);
        drop(tx);
        let received =
            tokio::time::timeout(Duration::from_millis(50), subscription.changed()).await;
        // Whoever begins to listen to other processes looks once, whatever was said.
        assert!(received.is_err() || test.db.is_postgres());

        let mut tx = test.db.begin_write().await.unwrap();
        tx.signal(TOPIC);
        tx.commit().await.unwrap();
        tokio::time::timeout(LIMIT, subscription.changed())
            .await
            .unwrap();
    }
}

/// Two handles of one database are as two processes: they share nothing but the database.
#[tokio::test]
async fn on_postgresql_other_processes_hear_it_too() {
    for test in each_db(MIGRATIONS).await {
        if !test.db.is_postgres() {
            continue;
        }
        let other = Db::open(&test.url, MIGRATIONS).await.unwrap();
        let mut subscription = other.signals().subscribe(TOPIC);
        // It listens from some moment on; what was said before is not heard.
        let raising = async {
            loop {
                test.db.signals().raise(TOPIC);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            () = raising => {}
            received = tokio::time::timeout(LIMIT, subscription.changed()) => received.unwrap(),
        }
    }
}
