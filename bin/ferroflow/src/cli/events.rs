//! `ferroflow events`.

use std::process::ExitCode;

use ferroflow_proto::events::v1::WatchRequest;

use crate::service::ServiceEntry;

use super::consume::{self, Consume, Redrive};
use super::follow::Events;
use super::output::{json_of, line, note, time};
use super::{Format, Global, connect};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Print events as they happen, oldest first.
    Watch {
        /// Only this type, for example ai.ferroflow.run.succeeded; repeat for several.
        #[arg(long = "type")]
        types: Vec<String>,
        /// Only this subject and what is below it, for example namespaces/default/runs/<id>.
        #[arg(long, default_value = "")]
        subject: String,
        /// Go on after this cursor.
        #[arg(long, default_value = "")]
        cursor: String,
        /// Stop at the end of the log.
        #[arg(long)]
        no_follow: bool,
    },
    Consume(Box<Consume>),
    Redrive(Box<Redrive>),
}

pub(super) async fn run(
    command: Command,
    global: &Global,
    services: &[ServiceEntry],
) -> anyhow::Result<ExitCode> {
    let (types, subject, cursor, no_follow) = match command {
        Command::Consume(consume) => return consume::run(*consume, services).await,
        Command::Redrive(redrive) => return consume::run_redrive(*redrive, services).await,
        Command::Watch {
            types,
            subject,
            cursor,
            no_follow,
        } => (types, subject, cursor, no_follow),
    };
    let request = WatchRequest {
        types,
        subject_prefix: subject,
        cursor,
        follow: Some(!no_follow),
        ..WatchRequest::default()
    };
    let mut events = Events::new(&connect(global).await?, request);
    let mut last = String::new();
    while let Some(response) = events.next().await? {
        match global.output {
            Format::Json => {
                let name = "ferroflow.events.v1.WatchResponse";
                line(&json_of(name, &response)?.to_string());
            }
            Format::Table | Format::Wide => {
                let event = response.event.unwrap_or_default();
                let at = time(event.time.as_ref());
                line(&format!("{at}  {:32}  {}", event.r#type, event.subject));
            }
        }
        last = response.cursor;
    }
    if !last.is_empty() && global.output != Format::Json {
        note(&format!("go on with --cursor {last}"));
    }
    Ok(ExitCode::SUCCESS)
}
