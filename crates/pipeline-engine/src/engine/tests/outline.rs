//! What the tasks of a run are in its plan.

use super::*;
use crate::engine::TaskRow;
use crate::outline::TaskKind::{Condition, Container, Dag, Iteration, Loop, Root};
use crate::outline::outline;

/// A loop over two items beside a condition that waits for a command, and an importer.
fn mixed() -> TestRun {
    let body = json!({
        "dag": {"tasks": {"in.side": task(json!({"taskInfo": {"name": "inside"}}))}},
        "inputDefinitions": {"parameters": {"item": {"parameterType": "STRING"}}}
    });
    let branch = json!({"dag": {"tasks": {"then": task(json!({}))}}});
    let tasks = json!({
        "first": task(json!({})),
        "loop": {
            "componentRef": {"name": "body"},
            "parameterIterator": {"items": {"raw": "[\"a\", \"b\"]"}, "itemInput": "item"}
        },
        "when": {
            "componentRef": {"name": "branch"},
            "dependentTasks": ["first"],
            "triggerPolicy": {"condition": "'a' == 'a'"}
        },
        "plain": {"componentRef": {"name": "branch"}, "dependentTasks": ["when", "first"]}
    });
    let plan = pipeline(&tasks, &json!({"body": body, "branch": branch}));
    let mut test_run = TestRun::new(plan);
    test_run.drive(Event::Start, &|path, _| good(path));
    test_run
}

fn rows(test_run: &TestRun) -> Vec<TaskRow> {
    let tasks = test_run.run.tasks();
    tasks.map(|(ix, _)| test_run.run.row(ix)).collect()
}

#[test]
fn tasks_have_kinds_names_and_those_that_they_wait_for() {
    let test_run = mixed();
    let rows = rows(&test_run);
    let paths: BTreeMap<_, _> = rows.iter().map(|row| (row.id, row.path.as_str())).collect();

    let mut found: Vec<_> = outline(&test_run.run.plan, &rows)
        .into_iter()
        .map(|task| {
            let upstream: Vec<_> = task.upstream.iter().map(|id| paths[id]).collect();
            let names = format!("{}/{}", task.name, task.display_name);
            (
                task.row.path.as_str(),
                names,
                task.kind.unwrap(),
                upstream,
                task.iterations,
            )
        })
        .collect();
    found.sort_by_key(|task| task.0);

    let expected = [
        ("root", "root/root", Root, vec![], None),
        ("root.first", "first/first", Container, vec![], None),
        ("root.loop", "loop/loop", Loop, vec![], Some(2)),
        ("root.loop.0", "0/0", Iteration, vec![], None),
        (
            "root.loop.0.in%2Eside",
            "in.side/inside",
            Container,
            vec![],
            None,
        ),
        ("root.loop.1", "1/1", Iteration, vec![], None),
        (
            "root.loop.1.in%2Eside",
            "in.side/inside",
            Container,
            vec![],
            None,
        ),
        (
            "root.plain",
            "plain/plain",
            Dag,
            vec!["root.first", "root.when"],
            None,
        ),
        ("root.plain.then", "then/then", Container, vec![], None),
        (
            "root.when",
            "when/when",
            Condition,
            vec!["root.first"],
            None,
        ),
        ("root.when.then", "then/then", Container, vec![], None),
    ];
    let expected = expected.map(|(path, names, kind, upstream, count)| {
        (path, names.to_owned(), kind, upstream, count)
    });
    assert_eq!(found, expected);
}

#[test]
fn paths_of_earlier_releases_are_found_and_unknown_ones_keep_their_name() {
    let test_run = mixed();
    let mut rows = rows(&test_run);
    for row in &mut rows {
        row.path = row.path.replace("%2E", ".").replace("plain", "removed");
    }

    let outlined = outline(&test_run.run.plan, &rows);

    let find = |path: &str| outlined.iter().find(|task| task.row.path == path).unwrap();
    assert_eq!(find("root.loop.0.in.side").kind, Some(Container));
    assert_eq!(find("root.loop.0.in.side").display_name, "inside");
    for unknown in ["root.removed", "root.removed.then"] {
        assert_eq!(find(unknown).kind, None, "{unknown}");
        assert_eq!(find(unknown).upstream, []);
    }
    assert_eq!(find("root.removed").name, "removed");
}
