//! By which indexes databases find what lists ask for.

use ferroflow_db::list::{ColumnType, ScopeFilter, plans};
use ferroflow_types::Namespace;
use ferroflow_types::listing::{Direction, Listing, Operand, Operation, PageStart, Predicate};

use crate::store::tests::databases;
use crate::store::{experiments, pipelines, recurring_runs, runs, versions};

const BOTH: [Direction; 2] = [Direction::Ascending, Direction::Descending];

/// The later page of a list, as that has the most conditions.
fn later(key: &str, kind: ColumnType, direction: Direction, predicates: Vec<Predicate>) -> Listing {
    let start = PageStart {
        sort_key: key.to_owned(),
        direction,
        predicates: predicates.clone(),
        value: match kind {
            ColumnType::Text | ColumnType::Optional => Operand::Text("m".to_owned()),
            ColumnType::Time => Operand::Number(1),
        },
        created_at: Some(1),
        id: "m".to_owned(),
        total: None,
        scope: None,
    };
    Listing {
        predicates,
        sort_key: key.to_owned(),
        direction,
        page_size: 2,
        start: Some(start),
    }
}

#[tokio::test]
async fn sorted_pages_are_read_in_the_order_of_an_index_that_begins_with_the_namespace() {
    let databases = databases().await;
    let db = &databases[0].db;
    let within = ScopeFilter::namespace(&Namespace::single_user());
    let of_pipeline = ScopeFilter::parent("pipeline_id", "p");
    for (table, within, begins) in [
        (&runs::TABLE, &within, "(namespace=?"),
        (&recurring_runs::TABLE, &within, "(namespace=?"),
        (&experiments::TABLE, &within, "(namespace=?"),
        (&pipelines::TABLE, &within, "(namespace=?"),
        (&versions::TABLE, &of_pipeline, "(pipeline_id=?"),
    ] {
        for (key, _, kind) in table.keys {
            if *kind == ColumnType::Optional {
                continue;
            }
            for direction in BOTH {
                let listing = later(key, *kind, direction, Vec::new());
                let [_, page] = plans(db, table, within, &listing).await.unwrap();
                let context = format!("{} by {key} {direction:?}: {page}", table.name);
                assert!(!page.contains("TEMP B-TREE"), "{context}");
                assert!(page.contains(begins), "{context}");
            }
        }
    }
}

#[tokio::test]
async fn filtered_lists_are_counted_and_read_by_an_index_alone() {
    let databases = databases().await;
    let db = &databases[0].db;
    let of = ScopeFilter::namespace(&Namespace::single_user());
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
            ColumnType::Time,
            Direction::Descending,
            vec![equals],
        );
        let [counting, page] = plans(db, &runs::TABLE, &of, &listing).await.unwrap();
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

#[tokio::test]
async fn all_runs_are_counted_in_the_narrowest_index() {
    let databases = databases().await;
    let db = &databases[0].db;
    let of = ScopeFilter::namespace(&Namespace::single_user());
    let listing = later(
        "created_at",
        ColumnType::Time,
        Direction::Descending,
        Vec::new(),
    );
    let [counting, _] = plans(db, &runs::TABLE, &of, &listing).await.unwrap();
    assert!(
        counting.contains("COVERING INDEX runs_by_namespace"),
        "{counting}"
    );
}

#[tokio::test]
async fn what_a_substring_finds_is_looked_up() {
    let databases = databases().await;
    let db = &databases[0].db;
    let of = ScopeFilter::namespace(&Namespace::single_user());
    for key in ["name", "description", "pipeline_name"] {
        let part = Predicate {
            key: key.to_owned(),
            operation: Operation::IsSubstring,
            values: vec![Operand::Text("night".to_owned())],
        };
        let listing = later(
            "created_at",
            ColumnType::Time,
            Direction::Descending,
            vec![part],
        );
        let [counting, page] = plans(db, &runs::TABLE, &of, &listing).await.unwrap();
        assert!(
            counting.contains("COVERING INDEX runs_by_id (namespace=? AND id=?)"),
            "{key}: {counting}"
        );
        assert!(page.contains("(namespace=? AND id=?"), "{key}: {page}");
    }
}
