//! How databases find what lists ask for, and what tokens carry.

use ferroflow_db::Db;
use ferroflow_types::Timestamp;

use super::*;
use crate::domain::run::Run;
use crate::store::tests::{databases, experiment, run};
use crate::store::{experiments, pipelines, recurring_runs, runs, versions};

const BOTH: [Direction; 2] = [Direction::Ascending, Direction::Descending];

/// The later page of a list, as that has the most conditions.
fn later(key: &str, kind: Type, direction: Direction, predicates: Vec<Predicate>) -> Listing {
    let start = Start {
        sort_key: key.to_owned(),
        direction,
        predicates: predicates.clone(),
        value: match kind {
            Type::Text => Operand::Text("m".to_owned()),
            Type::Time => Operand::Number(1),
        },
        created_at: Some(1),
        id: "m".to_owned(),
        total: None,
    };
    Listing {
        predicates,
        sort_key: key.to_owned(),
        direction,
        page_size: 2,
        start: Some(start),
    }
}

/// How SQLite would count what a list matches, and read a page of it.
async fn plans(db: &Db, table: &Table, within: &Within, listing: &Listing) -> [String; 2] {
    let statement = matching(table, within, listing).unwrap();
    let counting = format!(
        "SELECT COUNT(*) FROM {} WHERE {}",
        table.name,
        statement.condition()
    );
    let counted = statement.values.clone();
    let (column, kind) = sort_column(table, &listing.sort_key).unwrap();
    let (page, values) = page_query(table, listing, Order::of(column, kind), statement).unwrap();
    let mut found = [String::new(), String::new()];
    let mut tx = db.begin_read().await.unwrap();
    for (place, (query, values)) in found.iter_mut().zip([(counting, counted), (page, values)]) {
        let query = format!("EXPLAIN QUERY PLAN {query}");
        let rows = bound(&query, &values).fetch_all(tx.conn()).await.unwrap();
        let steps: Vec<String> = rows.iter().map(|row| row.get("detail")).collect();
        *place = steps.join("; ");
    }
    found
}

#[tokio::test]
async fn sorted_pages_are_read_in_the_order_of_an_index_that_begins_with_the_namespace() {
    let (_folder, databases) = databases().await;
    let (_, db) = &databases[0];
    let within = Within::namespace(&Namespace::single_user());
    let of_pipeline = Within(vec![("pipeline_id", "p".to_owned())]);
    for (table, within, begins) in [
        (&runs::TABLE, &within, "(namespace=?"),
        (&recurring_runs::TABLE, &within, "(namespace=?"),
        (&experiments::TABLE, &within, "(namespace=?"),
        (&pipelines::TABLE, &within, "(namespace=?"),
        (&versions::TABLE, &of_pipeline, "(pipeline_id=?"),
    ] {
        for (key, _, kind) in table.keys {
            for direction in BOTH {
                let listing = later(key, *kind, direction, Vec::new());
                let [_, page] = plans(db, table, within, &listing).await;
                let told = format!("{} by {key} {direction:?}: {page}", table.name);
                assert!(!page.contains("TEMP B-TREE"), "{told}");
                assert!(page.contains(begins), "{told}");
            }
        }
    }
}

#[tokio::test]
async fn filtered_lists_are_counted_and_read_by_an_index_alone() {
    let (_folder, databases) = databases().await;
    let (_, db) = &databases[0];
    let of = Within::namespace(&Namespace::single_user());
    for key in [
        "display_name",
        "description",
        "state",
        "storage_state",
        "experiment_id",
        "recurring_run_id",
        "pipeline_name",
        "pipeline_id",
    ] {
        let equals = Predicate {
            key: key.to_owned(),
            operation: Operation::Equals,
            values: vec![Operand::Text("x".to_owned())],
        };
        let listing = later(
            "created_at",
            Type::Time,
            Direction::Descending,
            vec![equals],
        );
        let [counting, page] = plans(db, &runs::TABLE, &of, &listing).await;
        let begins = format!("(namespace=? AND {key}=?");
        assert!(
            counting.contains("COVERING INDEX") && counting.contains(&begins),
            "{key}: {counting}"
        );
        assert!(
            page.contains(&begins) && !page.contains("TEMP B-TREE"),
            "{key}: {page}"
        );
    }
}

/// A page of two runs, by the time of their creation.
async fn read(db: &Db, start: Option<Start>) -> Page<Run> {
    let within = Within::namespace(&Namespace::single_user());
    let listing = Listing {
        start,
        ..later("created_at", Type::Time, Direction::Ascending, Vec::new())
    };
    let mut tx = db.begin_read().await.unwrap();
    let found = list(&mut tx, &runs::TABLE, &within, &listing, runs::decode).await;
    found.unwrap()
}

fn next(page: &Page<Run>) -> Option<Start> {
    page.next
        .as_deref()
        .map(|token| page::decode(token).unwrap())
}

#[tokio::test]
async fn a_token_carries_the_total_of_the_first_page() {
    let (_folder, databases) = databases().await;
    for (name, db) in databases {
        let experiment = experiment("e");
        let mut tx = db.begin_write().await.unwrap();
        experiments::put(&mut tx, &experiment).await.unwrap();
        for number in 0..5 {
            let made = run(&experiment, number);
            runs::insert(&mut tx, &made, "me").await.unwrap();
        }
        tx.commit().await.unwrap();
        let first = read(&db, None).await;
        assert_eq!(first.total, 5, "{name}");

        let mut tx = db.begin_write().await.unwrap();
        let late = run(&experiment, 9);
        runs::insert(&mut tx, &late, "me").await.unwrap();
        tx.commit().await.unwrap();
        let second = read(&db, next(&first)).await;
        assert_eq!(second.total, 5, "{name}: a later page counted again");
        let third = read(&db, next(&second)).await;
        assert_eq!((third.total, third.entries.len()), (5, 2), "{name}");

        let former = next(&first).map(|start| Start {
            total: None,
            ..start
        });
        assert_eq!(read(&db, former).await.total, 6, "{name}");
    }
}

#[tokio::test]
async fn entries_that_share_a_text_are_read_in_the_order_of_their_creation() {
    let (_folder, databases) = databases().await;
    for (name, db) in databases {
        let experiment = experiment("e");
        let mut tx = db.begin_write().await.unwrap();
        experiments::put(&mut tx, &experiment).await.unwrap();
        for (number, created_at) in [(0, 3), (1, 1), (2, 2), (3, 2)] {
            let mut made = run(&experiment, number);
            made.created_at = Timestamp::from_millis(created_at);
            runs::insert(&mut tx, &made, "me").await.unwrap();
        }
        tx.commit().await.unwrap();
        for (direction, expected) in BOTH.into_iter().zip([[1, 2, 2, 3], [3, 2, 2, 1]]) {
            let within = Within::namespace(&Namespace::single_user());
            let mut listing = later("state", Type::Text, direction, Vec::new());
            (listing.page_size, listing.start) = (1, None);
            let (mut times, mut ids) = (Vec::new(), std::collections::BTreeSet::new());
            loop {
                let mut tx = db.begin_read().await.unwrap();
                let page = list(&mut tx, &runs::TABLE, &within, &listing, runs::decode).await;
                let page = page.unwrap();
                times.extend(page.entries.iter().map(|run| run.created_at.millis()));
                ids.extend(page.entries.iter().map(|run| run.id));
                listing.start = next(&page);
                if listing.start.is_none() {
                    break;
                }
            }
            assert_eq!(times, expected, "{name} {direction:?}");
            assert_eq!(ids.len(), 4, "{name} {direction:?}");
        }
        let mut former = later("state", Type::Text, Direction::Ascending, Vec::new());
        former.start = former.start.map(|start| Start {
            created_at: None,
            ..start
        });
        let within = Within::namespace(&Namespace::single_user());
        let mut tx = db.begin_read().await.unwrap();
        let refused = list(&mut tx, &runs::TABLE, &within, &former, runs::decode).await;
        assert_eq!(
            refused.unwrap_err().to_string(),
            Error::from(DbError::PageToken).to_string()
        );
    }
}
