//! The same statements on every database: SQLite always, PostgreSQL when `DATABASE_URL` names one.

mod default_experiment;
pub(crate) mod outbox;
mod ownership;
mod recurring;
mod texts;

use std::collections::BTreeMap;
use std::sync::Arc;

use ferroflow_db::list::{self, ScopeFilter};
use ferroflow_db::testing::{TestDb, each_db};
use ferroflow_db::{Db, DbError, Migration};
use ferroflow_pipeline_engine::artifact::Artifact;
use ferroflow_pipeline_engine::engine::TaskRow;
use ferroflow_pipeline_engine::engine::task::{Change, TaskState, Values};
use ferroflow_service::listing::{ListRequest, listing};
use ferroflow_types::{Caller, Namespace, RunId, TaskId, Timestamp};
use serde_json::{Map, json};
use uuid::Uuid;

use super::{MIGRATIONS, artifacts, experiments, pipelines, runs, specs, tasks, versions};
use crate::domain::artifact::{ArtifactFilter, StoredArtifact};
use crate::domain::definition::{Experiment, Pipeline, Version};
use crate::domain::id::{ExperimentId, PipelineId, PipelineVersionId};
use crate::domain::run::{Run, RunStatus, Source, StatusChange, StorageState};
use crate::domain::spec::SpecText;
use crate::store::ownership::Claim;

const NOW: Timestamp = Timestamp::from_millis(1_769_860_800_250);

/// The namespace that everything in these tests is in.
fn here() -> ScopeFilter {
    ScopeFilter::namespace(&Namespace::single_user())
}

/// Every database at hand, each empty.
pub(crate) async fn databases() -> Vec<TestDb> {
    each_db(MIGRATIONS).await
}

/// The schema before a migration.
fn schema_before(name: &str) -> &'static [Migration] {
    let steps = MIGRATIONS.iter();
    &MIGRATIONS[..steps.take_while(|step| step.name != name).count()]
}

pub(crate) fn experiment(name: &str) -> Experiment {
    Experiment {
        id: ExperimentId::new(Uuid::new_v4()),
        namespace: Namespace::single_user(),
        display_name: name.to_owned(),
        description: String::new(),
        storage: StorageState::Available,
        is_default: false,
        created_at: NOW,
        last_run_created_at: Timestamp::EPOCH,
        event_sequence: 1,
        created_by: "kim".to_owned(),
    }
}

pub(crate) fn run(experiment: &Experiment, number: u32) -> Run {
    Run {
        id: RunId::new(Uuid::new_v4()),
        namespace: Namespace::single_user(),
        experiment: experiment.id,
        display_name: format!("run {number:03}"),
        description: "50% of_it".to_owned(),
        storage: StorageState::Available,
        status: RunStatus::Pending,
        source: Source::Inline,
        recurring_run: None,
        spec_digest: "sha256:0".to_owned(),
        pipeline_name: "p".to_owned(),
        parameters_given: Map::new(),
        parameters: BTreeMap::from([("n".to_owned(), json!(3))]),
        root_given: String::new(),
        root: "/r".to_owned(),
        service_account: "pipeline-runner".to_owned(),
        caching: true,
        created_at: Timestamp::from_millis(NOW.millis() + i64::from(number / 3) * 1000),
        scheduled_at: NOW,
        started_at: None,
        finished_at: None,
        error: None,
        history: vec![StatusChange {
            at: NOW,
            status: RunStatus::Pending,
        }],
        traceparent: String::new(),
        event_sequence: 1,
        created_by: "kim".to_owned(),
    }
}

/// The claim of the replica that created the run.
fn held(run: &Run) -> Claim {
    Claim::first(run.id)
}

#[tokio::test]
async fn what_is_stored_reads_back_the_same() {
    for TestDb { kind: name, db, .. } in databases().await {
        println!("on {name}");
        let experiment = experiment("e");
        let mut run = run(&experiment, 1);
        let mut tx = db.begin_write().await.unwrap();
        experiments::put(&mut tx, &experiment).await.unwrap();
        runs::insert(&mut tx, &run, "me").await.unwrap();
        run.set_status(RunStatus::Running, None, NOW);
        let claim = held(&run);
        assert!(runs::set_progress(&mut tx, &run, claim).await.unwrap());
        let spec = SpecText {
            digest: "d".to_owned(),
            pipeline: "{}".to_owned(),
            platform: None,
        };
        specs::put(&mut tx, &spec).await.unwrap();
        specs::put(&mut tx, &spec).await.unwrap();
        tx.commit().await.unwrap();

        let mut tx = db.begin_read().await.unwrap();
        assert_eq!(
            runs::get(&mut tx, &Caller::local(), run.id).await.unwrap(),
            Some(run.clone())
        );
        assert_eq!(specs::get(&mut tx, "d").await.unwrap(), spec);
        let found = experiments::get(&mut tx, &Caller::local(), experiment.id)
            .await
            .unwrap();
        assert_eq!(found, Some(experiment));
    }
}

#[tokio::test]
async fn a_duplicate_name_is_reported_as_such() {
    for TestDb { kind: name, db, .. } in databases().await {
        let mut tx = db.begin_write().await.unwrap();
        experiments::put(&mut tx, &experiment("same"))
            .await
            .unwrap();
        let error = experiments::put(&mut tx, &experiment("same"))
            .await
            .unwrap_err();
        assert!(
            matches!(error, DbError::UniqueViolation { .. }),
            "{name}: {error}"
        );
    }
}

#[tokio::test]
async fn pages_show_every_entry_once_in_order() {
    for TestDb { kind: name, db, .. } in databases().await {
        let experiment = experiment("e");
        let mut tx = db.begin_write().await.unwrap();
        for number in 0..25 {
            runs::insert(&mut tx, &run(&experiment, number), "me")
                .await
                .unwrap();
        }
        tx.commit().await.unwrap();
        for sort_by in [
            "created_at desc",
            "display_name",
            "finished_at asc",
            "state desc",
        ] {
            let mut request = ListRequest {
                page_size: 4,
                sort_by: sort_by.to_owned(),
                ..Default::default()
            };
            let mut names = Vec::new();
            loop {
                let wanted = listing(&request).unwrap();
                let mut tx = db.begin_read().await.unwrap();
                let page = list::list(&mut tx, &runs::TABLE, &here(), &wanted, runs::decode).await;
                let page = page.unwrap();
                assert_eq!(page.total, 25);
                names.extend(page.entries.into_iter().map(|run| run.display_name));
                match page.next {
                    Some(next) => request.page_token = next,
                    None => break,
                }
            }
            let mut sorted = names.clone();
            sorted.sort();
            sorted.dedup();
            assert_eq!((names.len(), sorted.len()), (25, 25), "{name}, {sort_by}");
            if sort_by == "display_name" {
                assert_eq!(names, sorted);
            }
        }
    }
}

#[tokio::test]
async fn filters_take_texts_as_they_are() {
    for TestDb { kind: name, db, .. } in databases().await {
        let experiment = experiment("e");
        let mut tx = db.begin_write().await.unwrap();
        runs::insert(&mut tx, &run(&experiment, 1), "me")
            .await
            .unwrap();
        tx.commit().await.unwrap();
        for (filter, count) in [
            (
                json!({"operation": "IS_SUBSTRING", "key": "description", "string_value": "50% of_"}),
                1,
            ),
            (
                json!({"operation": "IS_SUBSTRING", "key": "description", "string_value": "5_%"}),
                0,
            ),
            (
                json!({"operation": "EQUALS", "key": "name", "string_value": "' OR 1=1 --"}),
                0,
            ),
            (
                json!({"operation": "IN", "key": "state", "string_values": {"values": ["PENDING", "X"]}}),
                1,
            ),
            (
                json!({"operation": "EQUALS", "key": "created_at", "timestamp_value": "2026-01-31T12:00:00Z"}),
                1,
            ),
            (
                json!({"operation": "GREATER_THAN", "key": "created_at", "timestamp_value": "2027-01-01T00:00:00Z"}),
                0,
            ),
        ] {
            let request = ListRequest {
                filter: json!({"predicates": [filter]}).to_string(),
                ..Default::default()
            };
            let wanted = listing(&request).unwrap();
            let mut tx = db.begin_read().await.unwrap();
            let page = list::list(&mut tx, &runs::TABLE, &here(), &wanted, runs::decode)
                .await
                .unwrap();
            assert_eq!(page.total, count, "{name}: {filter}");
        }
    }
}

#[tokio::test]
async fn pipelines_are_found_by_tag_and_go_with_their_versions() {
    for TestDb { kind: name, db, .. } in databases().await {
        let pipeline = Pipeline {
            id: PipelineId::new(Uuid::new_v4()),
            namespace: Namespace::single_user(),
            name: "p".to_owned(),
            display_name: "p".to_owned(),
            description: String::new(),
            tags: BTreeMap::from([("team".to_owned(), "a".to_owned())]),
            created_at: NOW,
            event_sequence: 1,
            created_by: "kim".to_owned(),
        };
        let version = Version {
            id: PipelineVersionId::new(Uuid::new_v4()),
            pipeline: pipeline.id,
            name: "v".to_owned(),
            display_name: "v".to_owned(),
            description: String::new(),
            code_source_url: String::new(),
            package_url: "https://example.com/p.yaml".to_owned(),
            tags: BTreeMap::new(),
            spec_digest: "d".to_owned(),
            created_at: NOW,
            event_sequence: 1,
            created_by: "kim".to_owned(),
        };
        let mut tx = db.begin_write().await.unwrap();
        pipelines::put(&mut tx, &pipeline).await.unwrap();
        versions::put(&mut tx, &version).await.unwrap();
        tx.commit().await.unwrap();
        for (value, count) in [("a", 1), ("b", 0)] {
            let filter = json!({"predicates": [
                {"operation": "EQUALS", "key": "tags.team", "string_value": value}]});
            let request = ListRequest {
                filter: filter.to_string(),
                ..Default::default()
            };
            let mut tx = db.begin_read().await.unwrap();
            let wanted = listing(&request).unwrap();
            let page = list::list(
                &mut tx,
                &pipelines::TABLE,
                &here(),
                &wanted,
                pipelines::decode,
            )
            .await;
            assert_eq!(page.unwrap().total, count, "{name}");
        }
        let mut tx = db.begin_write().await.unwrap();
        let latest = versions::latest(&mut tx, &pipeline).await.unwrap();
        assert_eq!(latest, Some(version.clone()));
        assert!(pipelines::delete(&mut tx, pipeline.id).await.unwrap());
        assert_eq!(
            versions::get(&mut tx, &Caller::local(), version.id)
                .await
                .unwrap(),
            None,
            "{name}"
        );
    }
}

fn model() -> Arc<Artifact> {
    Arc::new(Artifact {
        id: 0,
        name: "model".to_owned(),
        schema_title: "system.Model".to_owned(),
        schema_version: "0.0.1".to_owned(),
        uri: "/r/model".to_owned(),
        metadata: json!({"k": 1.5}).as_object().unwrap().clone(),
        digest: None,
        stamp: None,
        size_bytes: Some(7),
        custom_path: None,
    })
}

fn running(run: &Run) -> TaskRow {
    TaskRow {
        id: TaskId::derive(run.id, "root.a"),
        path: "root.a".to_owned(),
        parent: None,
        iteration: None,
        state: TaskState::Running,
        attempt: 1,
        failures: 0,
        lost: 0,
        inputs: Values::default(),
        outputs: Values::default(),
        error: None,
        cache: None,
        note: "no node takes its pod".to_owned(),
        remarks: vec!["it runs on another Python".to_owned()],
        created_at: NOW,
        started_at: Some(NOW),
        finished_at: None,
        retry_at: None,
        history: vec![Change {
            at: NOW,
            state: TaskState::Pending,
        }],
    }
}

#[tokio::test]
async fn tasks_artifacts_and_results_are_kept() {
    for TestDb { kind: name, db, .. } in databases().await {
        let run = run(&experiment("e"), 1);
        let artifact = model();
        let mut task = running(&run);
        let mut tx = db.begin_write().await.unwrap();
        runs::insert(&mut tx, &run, "me").await.unwrap();
        tasks::upsert(&mut tx, run.id, &task).await.unwrap();
        task.state = TaskState::Succeeded;
        task.finished_at = Some(NOW);
        task.outputs
            .artifacts
            .insert("model".to_owned(), vec![Arc::clone(&artifact)]);
        tasks::upsert(&mut tx, run.id, &task).await.unwrap();
        tasks::put_cached_result(&mut tx, &run, &task, "f", NOW)
            .await
            .unwrap();
        tasks::put_cached_result(&mut tx, &run, &task, "f", NOW)
            .await
            .unwrap();
        let first = artifacts::allocate_ids(&mut tx, 10).await.unwrap();
        assert_eq!(
            artifacts::allocate_ids(&mut tx, 10).await.unwrap(),
            first + 10,
            "{name}"
        );
        let stored = StoredArtifact {
            artifact,
            run: run.id,
            task: task.id,
            created_at: NOW,
        };
        artifacts::insert(&mut tx, &run, &stored).await.unwrap();
        tx.commit().await.unwrap();

        let mut tx = db.begin_read().await.unwrap();
        assert_eq!(tasks::of_run(&mut tx, &run).await.unwrap(), [task.clone()]);
        let cached = tasks::get_cached_result(&mut tx, &run.namespace, &run.pipeline_name, "f")
            .await
            .unwrap()
            .unwrap();
        assert_eq!(
            (cached.source.task, cached.outputs),
            (task.id, task.outputs)
        );
        assert!(
            tasks::get_cached_result(&mut tx, &run.namespace, &run.pipeline_name, "other")
                .await
                .unwrap()
                .is_none()
        );
        let metadata = stored.artifact.metadata.clone();
        let imported =
            artifacts::find_imported(&mut tx, &run, "/r/model", "system.Model", &metadata).await;
        assert_eq!(imported.unwrap(), Some(stored.clone()));
        let filter = ArtifactFilter::Run(run.id);
        let listed = artifacts::list(&mut tx, &Caller::local(), &filter, -1, 10)
            .await
            .unwrap();
        assert_eq!(listed, [stored]);
        drop(tx);

        let mut tx = db.begin_write().await.unwrap();
        assert!(runs::delete(&mut tx, held(&run)).await.unwrap());
        assert!(
            tasks::of_run(&mut tx, &run).await.unwrap().is_empty(),
            "{name}"
        );
    }
}

/// Plans of the default lists on SQLite: an index, never the whole table.
#[tokio::test]
async fn default_lists_use_an_index() {
    use ferroflow_db::Read as _;
    use sqlx::Row as _;
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("test.db").display());
    let db = Db::open(&url, MIGRATIONS).await.unwrap();
    for (table, scope) in [
        ("runs", "namespace = 'default'"),
        ("runs", "namespace = 'default' AND experiment_id = 'x'"),
        ("pipelines", "namespace = 'default'"),
        ("experiments", "namespace = 'default'"),
        ("recurring_runs", "namespace = 'default'"),
        (
            "recurring_runs",
            "namespace = 'default' AND experiment_id = 'x'",
        ),
        ("pipeline_versions", "pipeline_id = 'x'"),
    ] {
        let query = format!(
            "EXPLAIN QUERY PLAN SELECT * FROM {table} WHERE {scope} AND \
             (created_at, id) <= (1, 'x') ORDER BY created_at DESC, id DESC LIMIT 21"
        );
        let mut tx = db.begin_read().await.unwrap();
        let rows = sqlx::query(sqlx::AssertSqlSafe(query))
            .fetch_all(tx.conn())
            .await
            .unwrap();
        let plan: Vec<String> = rows.iter().map(|row| row.get("detail")).collect();
        let plan = plan.join("; ");
        assert!(
            plan.contains("USING INDEX") && !plan.contains("TEMP B-TREE"),
            "{table}: {plan}"
        );
    }
}
