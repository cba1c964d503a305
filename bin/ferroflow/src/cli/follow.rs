//! Events of the platform, through interruptions.

use std::time::{Duration, Instant};

use ferroflow_proto::events::v1::event_service_client::EventServiceClient;
use ferroflow_proto::events::v1::{Event, WatchRequest, WatchResponse};
use prost_types::value::Kind;
use tonic::{Code, Status, Streaming};

use super::output::{note, status_error};
use super::{Channel, clients};

/// How long a platform that is away is waited for.
const RECONNECT_TIMEOUT: Duration = Duration::from_mins(1);
/// Between two attempts to reach it.
const RECONNECT_DELAY: Duration = Duration::from_millis(500);

/// Events from a cursor on, or from the oldest that is kept.
pub(super) struct Events {
    client: EventServiceClient<Channel>,
    request: WatchRequest,
    stream: Option<Streaming<WatchResponse>>,
    /// Since when the platform is away.
    unavailable_since: Option<Instant>,
}

/// A text out of an event's data.
pub(super) fn text(event: &Event, key: &str) -> String {
    let value = event.data.as_ref().and_then(|data| data.fields.get(key));
    match value.and_then(|value| value.kind.as_ref()) {
        Some(Kind::StringValue(text)) => text.clone(),
        _ => String::new(),
    }
}

/// A whole number out of an event's data.
pub(super) fn number(event: &Event, key: &str) -> i32 {
    let value = event.data.as_ref().and_then(|data| data.fields.get(key));
    match value.and_then(|value| value.kind.as_ref()) {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "attempts are counted from 1"
        )]
        Some(Kind::NumberValue(number)) => *number as i32,
        _ => 0,
    }
}

/// The events of a run, from the oldest that is kept.
pub(super) struct RunEvents(Events);

impl RunEvents {
    pub(super) fn new(channel: &Channel, run_id: &str) -> Self {
        let request = WatchRequest {
            topics: vec!["ferroflow.pipelines.v1".to_owned()],
            // `-` stands for every namespace of the caller's: a client does not know which one the
            // run is in.
            subject_prefix: format!("namespaces/-/runs/{run_id}"),
            ..WatchRequest::default()
        };
        Self(Events::new(channel, request))
    }

    /// The next event.
    pub(super) async fn next(&mut self) -> anyhow::Result<Event> {
        let response = self.0.next().await?;
        Ok(response
            .and_then(|response| response.event)
            .unwrap_or_default())
    }
}

impl Events {
    pub(super) fn new(channel: &Channel, request: WatchRequest) -> Self {
        Self {
            client: clients::events(channel),
            request,
            stream: None,
            unavailable_since: None,
        }
    }

    /// The next event; none at the end of the log, unless the request follows it. A platform that is
    /// started again is waited for, and no event is missed.
    pub(super) async fn next(&mut self) -> anyhow::Result<Option<WatchResponse>> {
        loop {
            match self.receive().await {
                Ok(Some(response)) => {
                    self.unavailable_since = None;
                    // A stream that is opened again goes on behind this event.
                    self.request.cursor.clone_from(&response.cursor);
                    return Ok(Some(response));
                }
                Ok(None) if self.request.follow == Some(false) => return Ok(None),
                Ok(None) => {
                    let ended = Status::unavailable("it ended the stream");
                    self.wait_to_reconnect(ended).await?;
                }
                Err(status) => self.wait_to_reconnect(status).await?,
            }
        }
    }

    async fn receive(&mut self) -> Result<Option<WatchResponse>, Status> {
        if self.stream.is_none() {
            let opened = self.client.watch(self.request.clone()).await?;
            self.stream = Some(opened.into_inner());
        }
        match &mut self.stream {
            Some(stream) => stream.message().await,
            None => Ok(None),
        }
    }

    async fn wait_to_reconnect(&mut self, status: Status) -> anyhow::Result<()> {
        self.stream = None;
        // A connection that breaks ends its streams with one of these.
        let is_unavailable = matches!(
            status.code(),
            Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal
        );
        let since = *self.unavailable_since.get_or_insert_with(|| {
            if is_unavailable {
                note("the platform is away, waiting for it");
            }
            Instant::now()
        });
        if !is_unavailable || since.elapsed() > RECONNECT_TIMEOUT {
            return Err(status_error(status));
        }
        tokio::time::sleep(RECONNECT_DELAY).await;
        Ok(())
    }
}
