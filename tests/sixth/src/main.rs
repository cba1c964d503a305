//! The smallest service that has everything: one RPC, one table, one event, one worker. It shows what a
//! service needs beside its own folder: a row in the table, at the end of this file.

use std::convert::Infallible;
use std::process::ExitCode;
use std::time::Duration;

use ferroflow::{ServiceDeps, ServiceEntry, Shared};
use ferroflow_db::lead::{Leadership, run_as_leader};
use ferroflow_db::row::Cells;
use ferroflow_db::signal::{Subscription, Topic};
use ferroflow_db::{Db, DbError, Migration, Read as _, Sql};
use ferroflow_service::grpc::caller;
use ferroflow_service::runner::Runner;
use ferroflow_service::service::{BasicSettings, CommonDeps, NoFlags, Service};
use ferroflow_service::status::to_status;
use ferroflow_service::worker::{NextTick, Worker, run_until_stopped};
use ferroflow_types::event::{Publisher, Subject};
use ferroflow_types::time::SystemClock;
use ferroflow_types::{Caller, Clock as _, Error};
use tonic::service::Routes;
use tonic::{Request, Response, Status};

#[allow(clippy::all, clippy::pedantic, unreachable_pub, reason = "generated")]
mod pb {
    tonic::include_proto!("ferroflow.notes.v1");
}

struct Notes;

impl Service for Notes {
    const NAME: &'static str = "notes-svc";
    const DOMAIN: &'static str = "notes";
    const ABOUT: &'static str = "Notes, each handled once.";
    const GRPC: &'static [&'static str] = &["ferroflow.notes.v1.NoteService"];
    const CONTRACTS: Option<&'static [u8]> =
        Some(include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin")));
    const MIGRATIONS: &'static [Migration] = &[Migration {
        version: 1,
        name: "notes",
        sql: Sql::Both(
            "CREATE TABLE notes (id TEXT PRIMARY KEY, namespace TEXT NOT NULL, \
              text TEXT NOT NULL, handled_by TEXT NOT NULL);",
        ),
    }];

    type Config = BasicSettings;
    type Flags = NoFlags;
    type Deps = ();
    type Error = Infallible;

    async fn start(
        _config: &BasicSettings,
        common: CommonDeps,
        (): (),
        runner: &mut Runner,
    ) -> Result<Routes, Infallible> {
        let (db, replica, stop) = (common.db.clone(), common.replica, runner.stop_token());
        runner.spawn_restarting("notes", move || {
            let (db, replica, stop) = (db.clone(), replica.clone(), stop.clone());
            async move {
                let handle = |lead: Leadership| handle(db.clone(), replica.clone(), lead);
                run_as_leader(db.clone(), "notes", &replica, stop, handle).await
            }
        });
        let api = Api { db: common.db };
        Ok(Routes::new(
            pb::note_service_server::NoteServiceServer::new(api),
        ))
    }
}

const ADDED: Topic = Topic::new("notes");

struct Api {
    db: Db,
}

#[tonic::async_trait]
impl pb::note_service_server::NoteService for Api {
    async fn add_note(
        &self,
        request: Request<pb::AddNoteRequest>,
    ) -> Result<Response<pb::Note>, Status> {
        let caller = caller(&request)?;
        let added = self.add_note(&caller, request.into_inner()).await;
        added.map(Response::new).map_err(|error| to_status(&error))
    }
}

impl Api {
    async fn add_note(&self, caller: &Caller, note: pb::AddNoteRequest) -> Result<pb::Note, Error> {
        let (id, namespace) = (uuid::Uuid::now_v7(), caller.namespace(&note.namespace)?);
        let insert = "INSERT INTO notes (id, namespace, text, handled_by) VALUES ($1, $2, $3, '')";
        let insert = sqlx::query(insert)
            .bind(id.to_string())
            .bind(namespace.as_str());
        let mut tx = self.db.begin_write().await?;
        let done = insert.bind(&note.text).execute(tx.conn()).await;
        done.map_err(DbError::from)?;
        tx.signal(ADDED);
        tx.commit().await?;
        let (id, text) = (id.to_string(), note.text);
        Ok(pb::Note { id, text })
    }
}

/// Handles notes for as long as this replica leads.
async fn handle(db: Db, replica: String, lead: Leadership) -> anyhow::Result<()> {
    let (added, stop) = (db.signals().subscribe(ADDED), lead.stop.clone());
    run_until_stopped(
        Handling {
            db,
            replica,
            lead,
            added,
        },
        &stop,
    )
    .await;
    Ok(())
}

struct Handling {
    db: Db,
    replica: String,
    lead: Leadership,
    added: Subscription,
}

const PUBLISHER: Publisher = Publisher {
    service: Notes::NAME,
    domain: Notes::DOMAIN,
};

impl Worker for Handling {
    type Error = DbError;

    fn name(&self) -> &str {
        Notes::DOMAIN
    }

    async fn tick(&mut self) -> Result<NextTick, DbError> {
        let mut tx = self.db.begin_write().await?;
        self.lead.guard(&mut tx).await?;
        let waiting =
            "SELECT id, namespace, text FROM notes WHERE handled_by = '' ORDER BY id LIMIT 100";
        let waiting = sqlx::query(waiting).fetch_all(tx.conn()).await?;
        for note in &waiting {
            let cells = Cells::of("notes", note);
            let (id, text) = (cells.text("id")?, cells.text("text")?);
            let namespace = cells.parsed("namespace")?;
            let handled = sqlx::query("UPDATE notes SET handled_by = $1 WHERE id = $2");
            handled
                .bind(&self.replica)
                .bind(&id)
                .execute(tx.conn())
                .await?;
            let (path, key) = (format!("notes/{id}"), id);
            let subject = Subject {
                namespace: &namespace,
                path,
                key,
                sequence: 1,
            };
            let data = serde_json::json!({"text": text, "by": self.replica});
            let event = PUBLISHER.event(subject, "note.handled", SystemClock.now(), data);
            tx.publish(&event).await?;
        }
        tx.commit().await?;
        let all = waiting.is_empty();
        Ok(if all {
            NextTick::After(Duration::from_secs(1))
        } else {
            NextTick::Now
        })
    }

    async fn wake(&mut self) {
        self.added.changed().await;
    }
}

impl ServiceDeps for Notes {
    async fn deps(_shared: &Shared, _config: &BasicSettings) -> anyhow::Result<()> {
        Ok(())
    }
}

fn main() -> ExitCode {
    let mut services = ferroflow::services();
    services.push(ServiceEntry::of::<Notes>());
    ferroflow::run(&services)
}
