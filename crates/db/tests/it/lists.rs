//! Lists: order, filters, pages, and what they refuse.

use std::collections::BTreeSet;

use ferroflow_db::list::{ColumnType, ScopeFilter, Table, TextIndex, list};
use ferroflow_db::row::Cells;
use ferroflow_db::testing::each_db;
use ferroflow_db::{Db, DbError, Migration, Read as _, Sql, page};
use ferroflow_types::listing::{
    Direction, Listing, Operand, Operation, Page, PageStart, Predicate,
};
use ferroflow_types::{Error, Namespace};
use sqlx::any::AnyRow;

const TABLES: &[Migration] = &[
    Migration {
        version: 1,
        name: "models",
        sql: Sql::Both(
            "CREATE TABLE models (id TEXT PRIMARY KEY, namespace TEXT NOT NULL, \
             name TEXT NOT NULL, created_at BIGINT NOT NULL, kind TEXT NOT NULL, parent TEXT);\n\
             CREATE TABLE tags (owner_id TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL);",
        ),
    },
    Migration {
        version: 2,
        name: "texts of models",
        sql: Sql::PerDatabase {
            sqlite: "CREATE TABLE models_texts_rows (number INTEGER PRIMARY KEY, id TEXT, name TEXT);\n\
                     CREATE VIRTUAL TABLE models_texts USING fts5(name, tokenize = 'trigram', \
                     content = 'models_texts_rows', content_rowid = 'number');\n\
                     CREATE TRIGGER models_texts_insert AFTER INSERT ON models BEGIN \
                     INSERT INTO models_texts_rows (id, name) VALUES (new.id, new.name); \
                     INSERT INTO models_texts (rowid, name) \
                     VALUES (last_insert_rowid(), new.name); END;",
            postgres: "CREATE INDEX models_by_name ON models (namespace, name);",
        },
    },
];

const MODELS: Table = Table {
    name: "models",
    columns: "id, name, created_at, kind, parent",
    keys: &[
        ("id", "id", ColumnType::Text),
        ("name", "name", ColumnType::Text),
        ("created_at", "created_at", ColumnType::Time),
        ("kind", "kind", ColumnType::Text),
        ("parent", "parent", ColumnType::Optional),
    ],
    tagged: true,
    text_index: Some(TextIndex {
        table: "models_texts",
        columns: &["name"],
    }),
};

type Model = (String, i64);

fn decode(row: &AnyRow) -> Result<Model, DbError> {
    let cells = Cells::of("models", row);
    Ok((cells.text("name")?, cells.int("created_at")?))
}

/// Name, seconds, kind; each has its number as its id, and the first the tag team=a.
const GIVEN: [(&str, i64, &str); 6] = [
    ("ant", 5, "x"),
    ("bee", 3, "y"),
    ("ant", 2, "x"),
    ("100%", 4, "x"),
    ("1000", 1, "y"),
    ("ant", 2, "y"),
];

async fn filled() -> Vec<(&'static str, Db, ferroflow_db::testing::TestDb)> {
    let mut found = Vec::new();
    for test in each_db(TABLES).await {
        let mut tx = test.db.begin_write().await.unwrap();
        for (number, (name, seconds, kind)) in GIVEN.into_iter().enumerate() {
            put(&mut tx, &format!("{number}"), "mine", name, seconds, kind).await;
        }
        put(&mut tx, "other", "others", "ant", 1, "x").await;
        put(&mut tx, "first", "another", "ant", 1, "x").await;
        sqlx::query("INSERT INTO tags (owner_id, key, value) VALUES ('0', 'team', 'a')")
            .execute(tx.conn())
            .await
            .unwrap();
        tx.commit().await.unwrap();
        found.push((test.kind, test.db.clone(), test));
    }
    found
}

async fn put(
    tx: &mut ferroflow_db::WriteTx,
    id: &str,
    namespace: &str,
    name: &str,
    seconds: i64,
    kind: &str,
) {
    let insert =
        "INSERT INTO models (id, namespace, name, created_at, kind) VALUES ($1, $2, $3, $4, $5)";
    sqlx::query(insert)
        .bind(id)
        .bind(namespace)
        .bind(name)
        .bind(seconds * 1000)
        .bind(kind)
        .execute(tx.conn())
        .await
        .unwrap();
}

fn by(key: &str, direction: Direction) -> Listing {
    Listing {
        predicates: Vec::new(),
        sort_key: key.to_owned(),
        direction,
        page_size: 100,
        start: None,
    }
}

fn only(key: &str, operation: Operation, values: Vec<Operand>) -> Listing {
    let predicate = Predicate {
        key: key.to_owned(),
        operation,
        values,
    };
    Listing {
        predicates: vec![predicate],
        ..by("created_at", Direction::Ascending)
    }
}

fn word(text: &str) -> Operand {
    Operand::Text(text.to_owned())
}

async fn read(db: &Db, listing: &Listing) -> Result<Page<Model>, Error> {
    let within = ScopeFilter::namespace(&"mine".parse::<Namespace>().unwrap());
    let mut tx = db.begin_read().await.unwrap();
    list(&mut tx, &MODELS, &within, listing, decode).await
}

fn start(page: &Page<Model>) -> Option<PageStart> {
    page.next
        .as_deref()
        .map(|token| page::decode(token).unwrap())
}

/// Names of a whole list, read one entry a page.
/// Page after page.
async fn pages(db: &Db, listing: &Listing) -> Vec<Page<Model>> {
    let mut listing = listing.clone();
    let mut found = Vec::new();
    loop {
        let page = read(db, &listing).await.unwrap();
        listing.start = start(&page);
        found.push(page);
        if listing.start.is_none() {
            return found;
        }
    }
}

async fn leafed(db: &Db, listing: &Listing) -> Vec<Model> {
    let listing = Listing {
        page_size: 1,
        ..listing.clone()
    };
    let pages = pages(db, &listing).await;
    let whole = i64::try_from(GIVEN.len()).unwrap();
    assert!(pages.iter().all(|page| page.total == whole));
    pages.into_iter().flat_map(|page| page.entries).collect()
}

#[tokio::test]
async fn pages_are_in_the_order_that_was_asked_for_and_miss_and_repeat_nothing() {
    for (kind, db, _test) in filled().await {
        for key in ["id", "name", "created_at", "kind"] {
            for direction in [Direction::Ascending, Direction::Descending] {
                let whole = read(&db, &by(key, direction)).await.unwrap().entries;
                let context = format!("{kind} by {key} {direction:?}");
                assert_eq!(leafed(&db, &by(key, direction)).await, whole, "{context}");
                assert_eq!(whole.len(), GIVEN.len(), "{context}");
                let others: BTreeSet<_> = whole.iter().collect();
                assert_eq!(others.len(), GIVEN.len() - 1, "{context}: two are alike");
            }
        }
    }
}

#[tokio::test]
async fn entries_that_share_a_text_are_in_the_order_of_their_creation() {
    for (kind, db, _test) in filled().await {
        let times = |models: Vec<Model>| -> Vec<i64> {
            let seconds = models.into_iter().map(|(_, at)| at / 1000);
            seconds.collect()
        };
        let up = leafed(&db, &by("kind", Direction::Ascending)).await;
        assert_eq!(times(up), [2, 4, 5, 1, 2, 3], "{kind}");
        let down = leafed(&db, &by("kind", Direction::Descending)).await;
        assert_eq!(times(down), [3, 2, 1, 5, 4, 2], "{kind}");
    }
}

#[tokio::test]
async fn a_token_without_a_time_is_refused_by_lists_that_need_it() {
    for (kind, db, _test) in filled().await {
        let mut listing = Listing {
            page_size: 1,
            ..by("name", Direction::Ascending)
        };
        let first = read(&db, &listing).await.unwrap();
        listing.start = start(&first).map(|start| PageStart {
            created_at: None,
            ..start
        });
        let error = read(&db, &listing).await.unwrap_err().to_string();
        assert_eq!(error, Error::from(DbError::PageToken).to_string(), "{kind}");
    }
}

#[tokio::test]
async fn a_token_is_of_one_scope() {
    for (kind, db, _test) in filled().await {
        let mut listing = Listing {
            page_size: 1,
            ..by("created_at", Direction::Ascending)
        };
        let first = read(&db, &listing).await.unwrap();
        listing.start = start(&first);
        let scope = listing.start.as_mut().unwrap().scope.as_mut().unwrap();
        scope[0].1 = "of somebody else".to_owned();
        let error = read(&db, &listing).await.unwrap_err();
        assert!(error.to_string().contains("page_token"), "{kind}: {error}");

        // The release before did not say which scope.
        listing.start.as_mut().unwrap().scope = None;
        read(&db, &listing).await.unwrap();
    }
}

#[tokio::test]
async fn only_the_first_page_counts() {
    for (kind, db, _test) in filled().await {
        let mut listing = Listing {
            page_size: 2,
            ..by("created_at", Direction::Ascending)
        };
        let first = read(&db, &listing).await.unwrap();
        let mut tx = db.begin_write().await.unwrap();
        put(&mut tx, "late", "mine", "wasp", 9, "x").await;
        tx.commit().await.unwrap();

        listing.start = start(&first);
        assert_eq!(read(&db, &listing).await.unwrap().total, 6, "{kind}");
        // A token of a release that counted on every page.
        listing.start = start(&first).map(|start| PageStart {
            total: None,
            ..start
        });
        assert_eq!(read(&db, &listing).await.unwrap().total, 7, "{kind}");
    }
}

#[tokio::test]
async fn every_operation_finds_what_it_means() {
    let number = Operand::Number;
    let cases = [
        (only("name", Operation::Equals, vec![word("bee")]), 1),
        (only("name", Operation::NotEquals, vec![word("ant")]), 3),
        (
            only("name", Operation::In, vec![word("bee"), word("ant")]),
            4,
        ),
        (only("name", Operation::IsSubstring, vec![word("0%")]), 1),
        (only("name", Operation::IsSubstring, vec![word("n_")]), 0),
        (only("created_at", Operation::Equals, vec![number(2)]), 2),
        (only("created_at", Operation::Greater, vec![number(2)]), 3),
        (
            only("created_at", Operation::GreaterEquals, vec![number(2)]),
            5,
        ),
        (only("created_at", Operation::Less, vec![number(2)]), 1),
        (
            only("created_at", Operation::LessEquals, vec![number(2)]),
            3,
        ),
        (only("tags.team", Operation::Equals, vec![word("a")]), 1),
        (only("tags.team", Operation::Equals, vec![word("b")]), 0),
        (only("parent", Operation::Equals, vec![word("x")]), 0),
    ];
    for (kind, db, _test) in filled().await {
        for (listing, expected) in &cases {
            let found = read(&db, listing).await.unwrap();
            let context = format!("{kind}: {:?}", listing.predicates);
            assert_eq!(found.total, *expected, "{context}");
            assert_eq!(
                found.entries.len(),
                usize::try_from(*expected).unwrap(),
                "{context}"
            );
        }
    }
}

/// Names of which a substring finds none, few, some and more than are looked up.
fn many_names() -> Vec<String> {
    let mut names: Vec<_> = (0..2_500).map(|number| format!("Train-{number}")).collect();
    names.extend((0..500).map(|number| format!("night{number}ly")));
    // FTS5 folds the Kelvin sign to a k, LIKE does not.
    names.extend((0..400).map(|number| format!("\u{212a}elvin {number}")));
    names.extend(["say \"night\"", "50% of_it", "50x of it", "a\\b", "Äpfel"].map(str::to_owned));
    names
}

#[tokio::test]
async fn a_substring_finds_the_same_whatever_index_is_used() {
    let names = many_names();
    for test in each_db(TABLES).await {
        let mut tx = test.db.begin_write().await.unwrap();
        for (number, name) in (0..).zip(&names) {
            put(&mut tx, &format!("{number:05}"), "mine", name, number, "x").await;
        }
        put(&mut tx, "other", "others", "Train-1", 1, "x").await;
        tx.commit().await.unwrap();
        for (part, found) in [
            ("train", 2_500),
            ("TRAIN-12", 111),
            ("night", 501),
            ("nowhere", 0),
            ("\"night\"", 1),
            ("50% of_it", 1),
            ("a\\b", 1),
            ("ly", 500),
            ("Äpf", 1),
            ("elvin", 400),
            ("Train-2499 and whatever else comes after it", 0),
        ] {
            let context = format!("{}: {part}", test.kind);
            let (lower, lowered) = (part.to_lowercase(), names.iter().map(|n| n.to_lowercase()));
            let mut expected: Vec<_> = (0_i64..)
                .zip(lowered)
                .filter(|(_, name)| name.contains(&lower))
                .map(|(number, _)| number * 1000)
                .collect();
            assert_eq!(expected.len(), found, "{context}");
            for direction in [Direction::Ascending, Direction::Descending] {
                let listing = Listing {
                    direction,
                    page_size: 400,
                    ..only("name", Operation::IsSubstring, vec![word(part)])
                };
                let pages = pages(&test.db, &listing).await;
                let total = i64::try_from(found).unwrap();
                assert!(pages.iter().all(|page| page.total == total), "{context}");
                let entries = pages.into_iter().flat_map(|page| page.entries);
                let times: Vec<_> = entries.map(|(_, at)| at).collect();
                assert_eq!(times, expected, "{context} {direction:?}");
                expected.reverse();
            }
        }
        // Databases disagree about the Kelvin sign, and each agrees with itself.
        let listing = only("name", Operation::IsSubstring, vec![word("kelvin")]);
        let pages = pages(&test.db, &listing).await;
        let shown: usize = pages.iter().map(|page| page.entries.len()).sum();
        assert_eq!(
            i64::try_from(shown).unwrap(),
            pages[0].total,
            "{}",
            test.kind
        );
    }
}

#[tokio::test]
async fn a_substring_and_other_filters_hold_at_once() {
    let part = |text: &str| only("name", Operation::IsSubstring, vec![word(text)]).predicates;
    let of_kind = |kind: &str| only("kind", Operation::Equals, vec![word(kind)]).predicates;
    for (kind, db, _test) in filled().await {
        for (predicates, found) in [
            (vec![part("100"), part("000")], 1),
            (vec![part("100"), part("0")], 2),
            (vec![part("100"), of_kind("x")], 1),
            (vec![of_kind("y"), part("ant")], 1),
            (vec![part("ant"), part("bee")], 0),
        ] {
            let predicates = predicates.concat();
            let context = format!("{kind}: {predicates:?}");
            let listing = Listing {
                predicates,
                ..by("name", Direction::Descending)
            };
            let page = read(&db, &listing).await.unwrap();
            assert_eq!(page.total, found, "{context}");
            assert_eq!(
                page.entries.len(),
                usize::try_from(found).unwrap(),
                "{context}"
            );
        }
    }
}

#[tokio::test]
async fn what_does_not_fit_is_refused_with_its_field() {
    let cases = [
        (
            by("size", Direction::Ascending),
            "sort_by",
            "known are id, name",
        ),
        (
            by("parent", Direction::Ascending),
            "sort_by",
            "known are id, name, created_at, kind",
        ),
        (
            only("size", Operation::Equals, vec![word("x")]),
            "filter.size",
            "unrecognized",
        ),
        (
            only("created_at", Operation::Equals, vec![word("x")]),
            "filter.created_at",
            "a time",
        ),
        (
            only("name", Operation::Equals, vec![Operand::Number(1)]),
            "filter.name",
            "a string",
        ),
        (
            only("name", Operation::In, Vec::new()),
            "filter.name",
            "do not fit",
        ),
        (
            only("tags.team", Operation::In, vec![word("a")]),
            "filter.tags.team",
            "EQUALS",
        ),
    ];
    for (kind, db, _test) in filled().await {
        for (listing, field, problem) in &cases {
            let error = read(&db, listing).await.unwrap_err();
            let violation = error.field_violations().first().unwrap();
            assert_eq!(violation.field, *field, "{kind}");
            assert!(
                violation.description.contains(problem),
                "{kind}: {violation:?}"
            );
        }
    }
}

#[tokio::test]
async fn what_belongs_to_something_may_be_listed_by_that() {
    for (kind, db, _test) in filled().await {
        let within = ScopeFilter::parent("namespace", "mine").and("kind", "y");
        let mut tx = db.begin_read().await.unwrap();
        let all = by("created_at", Direction::Ascending);
        let page = list(&mut tx, &MODELS, &within, &all, decode).await.unwrap();
        assert_eq!(page.total, 3, "{kind}");
    }
}
