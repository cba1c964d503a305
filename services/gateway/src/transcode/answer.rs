//! One transcoded call: bind, call, answer.

use axum::body::Body;
use axum::http::{Request, Response, StatusCode};
use prost::Message as _;
use tonic::{Code, Status};

use super::bind::{bind, is_http_body};
use super::body::RequestBody;
use super::deadline::Deadline;
use super::json::answer_json;
use super::stream;
use crate::authorize::AuthorizedCall;
use crate::contracts::Contracts;
use crate::dialect::Dialect;
use crate::route::RouteMatch;
use crate::upstream::Upstreams;
use crate::{call, error};

/// What transcoding takes beside a request.
pub(crate) struct Transcoder<'g> {
    pub(crate) contracts: &'g Contracts,
    pub(crate) upstreams: &'g Upstreams,
    pub(crate) dialect: &'static dyn Dialect,
    /// The largest body that is read.
    pub(crate) body_max: usize,
}

impl Transcoder<'_> {
    /// Answers a REST request.
    pub(crate) async fn answer(
        &self,
        found: &RouteMatch<'_>,
        allowed: &AuthorizedCall,
        request: Request<Body>,
    ) -> Response<Body> {
        match self.call(found, allowed, request).await {
            Ok(response) => response,
            Err(status) => self.dialect.error(&status, self.contracts),
        }
    }

    async fn call(
        &self,
        found: &RouteMatch<'_>,
        allowed: &AuthorizedCall,
        request: Request<Body>,
    ) -> Result<Response<Body>, Status> {
        let (parts, body) = request.into_parts();
        // The time begins here, so that it includes the arrival of the body.
        let deadline = Deadline::of(&parts.headers)?;
        let content = RequestBody::read(&parts.headers, body, self.body_max).await?;
        if expects_json(found) && !self.accepts_content_type(&content) {
            let message = format!(
                "content-type {:?} is not taken: send application/json",
                content.kind
            );
            let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            return Ok(self
                .dialect
                .unroutable(status, Code::InvalidArgument, &message));
        }
        let query = parts.uri.query().unwrap_or_default();
        let mut message = bind(found, query, &content, self.dialect)?;
        let mut metadata = self.dialect.metadata(&parts.method, &content.bytes);
        deadline.add_to_metadata(&mut metadata)?;
        // A single HttpBody goes the way of a stream of them, which passes bytes on.
        let raw = is_http_body(&allowed.method.output());
        if raw || allowed.method.is_server_streaming() {
            stream::apply_last_event_id(&mut message, &parts.headers);
            let request = message.encode_to_vec().into();
            let call = call::stream(self.upstreams, allowed, request, metadata);
            let call = deadline.limit(call).await?;
            return stream::respond(self, found, call, deadline, &parts.headers).await;
        }
        let request = message.encode_to_vec().into();
        let call = call::unary(self.upstreams, allowed, request, metadata);
        let bytes = deadline.limit(call).await?;
        let response = found.binding.response.as_ref();
        let json = answer_json(self.dialect, &allowed.method, response, &bytes)?;
        Ok(error::json_response(StatusCode::OK, &json))
    }

    fn accepts_content_type(&self, content: &RequestBody) -> bool {
        let essence = content.kind.split(';').next().unwrap_or_default().trim();
        content.bytes.is_empty()
            || essence.is_empty()
            || essence.eq_ignore_ascii_case("application/json")
            || self.dialect.takes_any_content_type()
    }
}

/// Whether the body of a request is JSON, and not bytes or none.
fn expects_json(found: &RouteMatch<'_>) -> bool {
    let input = found.binding.method.input();
    match found.binding.body.as_str() {
        "" => false,
        "*" => !is_http_body(&input),
        name => {
            let field = input.get_field_by_name(name);
            let kind = field.map(|field| field.kind());
            !kind.is_some_and(|kind| kind.as_message().is_some_and(is_http_body))
        }
    }
}
