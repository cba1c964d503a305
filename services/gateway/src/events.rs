//! `EventService` over the bus.
//!
//! A watcher is told of what is in the namespaces of the caller, whatever its filter says.
//!
//! A cursor is a position, bound to the filter that it was given for: with another filter it would
//! skip events in silence, so it is refused.

use ferroflow_bus::{Bus, EventFilter};
use ferroflow_proto::events::v1 as pb;
use ferroflow_proto::events::v1::event_service_server::EventService;
use ferroflow_proto::json::{map_to_struct, timestamp};
use ferroflow_service::grpc::caller;
use ferroflow_service::status::to_status;
use ferroflow_types::{Access, Caller, CloudEvent, Error, ErrorKind, Scope as _};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};
use tonic::{Request, Response, Status};

/// Events read from the log at once.
const BATCH_SIZE: i64 = 256;

/// The gateway's event service.
#[derive(Clone)]
pub(crate) struct Events {
    bus: Bus,
}

impl Events {
    pub(crate) fn new(bus: Bus) -> Self {
        Self { bus }
    }
}

/// What a cursor says: a position, and which filter it belongs to.
#[derive(Serialize, Deserialize)]
struct Cursor(i64, u64);

/// A number for a filter (FNV-1a over its JSON); a guard against mistakes, not a secret.
fn filter_hash(filter: &EventFilter) -> u64 {
    let text = serde_json::to_vec(filter).unwrap_or_default();
    text.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn encode(position: i64, filter_hash: u64) -> Result<String, Status> {
    ferroflow_db::page::encode(&Cursor(position, filter_hash))
        .map_err(|error| to_status(&Error::internal("a cursor cannot be written", error)))
}

/// The status of a log that does not answer now; its database is away, or busy.
fn log_unavailable(
    sentence: &str,
    cause: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> Status {
    let error = Error::new(ErrorKind::Unavailable, "LOG_UNAVAILABLE", sentence);
    to_status(&error.caused_by(cause))
}

/// A watcher of the log.
struct Watch {
    bus: Bus,
    caller: Caller,
    filter: EventFilter,
    filter_hash: u64,
    position: i64,
    follow: bool,
    buffered: std::collections::VecDeque<(i64, CloudEvent)>,
}

impl Watch {
    async fn next(&mut self) -> Result<Option<pb::WatchResponse>, Status> {
        let failed = |error| {
            log_unavailable(
                "the event log cannot be read, try again from the last cursor",
                error,
            )
        };
        loop {
            if let Some((position, event)) = self.buffered.pop_front() {
                let cursor = encode(position, self.filter_hash)?;
                return Ok(Some(pb::WatchResponse {
                    cursor,
                    event: Some(to_proto(event)),
                }));
            }
            let batch = self
                .bus
                .read_after(self.position, &self.filter, BATCH_SIZE)
                .await
                .map_err(failed)?;
            // The position passes events that the filter leaves out, so that they are not read
            // again.
            let advanced = batch.scanned > self.position;
            self.position = batch.scanned;
            // A filter that names no namespace matches events of all of them.
            let visible = batch.events.into_iter().filter(|(_, event)| {
                let namespace = event.namespace.parse();
                namespace.is_ok_and(|namespace| self.caller.covers(&namespace))
            });
            self.buffered = visible.collect();
            match (advanced, self.follow) {
                (true, _) => {}
                (false, true) => self.bus.wait_after(self.position).await,
                (false, false) => return Ok(None),
            }
        }
    }
}

fn to_proto(event: CloudEvent) -> pb::Event {
    let data = match &event.data {
        serde_json::Value::Object(fields) => Some(map_to_struct(fields)),
        _ => None,
    };
    pb::Event {
        id: event.id.to_string(),
        r#type: event.event_type,
        source: event.source,
        subject: event.subject,
        time: Some(timestamp(event.time.millis())),
        topic: event.topic,
        key: event.key,
        sequence: event.sequence,
        namespace: event.namespace,
        traceparent: event.traceparent.unwrap_or_default(),
        authtype: event.authtype.unwrap_or_default(),
        authid: event.authid.unwrap_or_default(),
        data,
    }
}

/// Refuses a filter that names what the caller may not watch.
fn check_namespaces(caller: &Caller, filter: &mut EventFilter) -> Result<(), Status> {
    if caller.access == Access::SingleUser {
        // Everything is in one namespace, whatever the client calls it.
        filter.namespaces.clear();
        return Ok(());
    }
    let subject_namespace = filter.subject_prefix.strip_prefix("namespaces/");
    let subject_namespace = subject_namespace.and_then(|rest| rest.split('/').next());
    // `-` is any of the caller's.
    let subject_namespace = subject_namespace.filter(|namespace| *namespace != "-");
    for named in filter
        .namespaces
        .iter()
        .map(String::as_str)
        .chain(subject_namespace)
    {
        caller.namespace(named).map_err(|error| to_status(&error))?;
    }
    Ok(())
}

#[tonic::async_trait]
impl EventService for Events {
    type WatchStream = BoxStream<'static, Result<pb::WatchResponse, Status>>;

    async fn watch(
        &self,
        request: Request<pb::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let mut filter = EventFilter {
            topics: request.topics,
            types: request.types,
            namespaces: request.namespaces,
            subject_prefix: request.subject_prefix,
        };
        // Before `check_namespaces` changes the filter: a cursor is bound to what the client gave.
        let filter_hash = filter_hash(&filter);
        check_namespaces(&caller, &mut filter)?;
        let oldest = self.bus.oldest().await;
        let oldest =
            oldest.map_err(|error| log_unavailable("the event log cannot be read", error))?;
        let position = match request.cursor.as_str() {
            "" => 0,
            text => {
                let Cursor(position, hash) = ferroflow_db::page::decode(text)
                    .map_err(|_| Status::invalid_argument("cursor: not one of ours"))?;
                if hash != filter_hash {
                    return Err(Status::invalid_argument(
                        "cursor: it belongs to another filter; watch without one, or with its own",
                    ));
                }
                // Retention has deleted events after the cursor, and going on would skip them in
                // silence.
                if position + 1 < oldest {
                    let first = encode(oldest - 1, filter_hash)?;
                    return Err(Status::out_of_range(format!(
                        "cursor: events after it are no longer kept; the oldest cursor is {first}"
                    )));
                }
                position
            }
        };
        let follow = request.follow.unwrap_or(true);
        let buffered = std::collections::VecDeque::new();
        let watch = Watch {
            bus: self.bus.clone(),
            caller,
            filter,
            filter_hash,
            position,
            follow,
            buffered,
        };
        // An error ends the stream; the client goes on from its last cursor.
        let events = futures::stream::try_unfold(watch, |mut watch| async move {
            Ok(watch.next().await?.map(|event| (event, watch)))
        });
        Ok(Response::new(events.boxed()))
    }
}
