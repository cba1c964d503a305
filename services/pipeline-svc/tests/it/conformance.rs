//! The ecosystem's own compiled pipelines, each with the end that it must reach.
//!
//! Every row of class (a) is run and every row of class (e) is refused; the table is printed and
//! written to `target/conformance.md`. No row is known by its name here.

use std::path::Path;

use ferroflow_testkit::conformance::{Case, cases, count, run_all, table};
use ferroflow_testkit::{Platform, conformance_dir};

/// Rows that run at once.
const WORKERS: usize = 4;

#[test]
fn compiled_pipelines_of_the_ecosystem_end_as_they_must() {
    let folder = match conformance_dir() {
        Ok(folder) => folder,
        Err(reason) => return println!("skipped: {reason}"),
    };
    let wanted = |case: &Case| case.class == "a" || case.class == "e";
    let cases: Vec<_> = cases(&folder).into_iter().filter(wanted).collect();
    let data = tempfile::tempdir().unwrap();
    let more: &[&str] = &["--parallel-tasks", "8"];
    let platform = Platform::start(data.path(), more);

    let rows = run_all(&platform, &folder, &cases, WORKERS);

    let table = table(&rows);
    println!("{table}");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("conformance.md");
    std::fs::write(target, &table).unwrap();
    let ((good, all), (refused, wrong)) = (count(&rows, "a"), count(&rows, "e"));
    println!("class a: {good} of {all} as expected; class e: {refused} of {wrong}");
    assert!(
        good * 10 >= all * 9,
        "{good} of {all} class a rows end as expected"
    );
    assert_eq!(refused, wrong, "a row of class e was accepted");
}
