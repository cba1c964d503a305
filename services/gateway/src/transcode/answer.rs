//! One transcoded call: bind, call, answer.

use axum::body::Body;
use axum::http::{Request, Response, StatusCode};
use prost::Message as _;
use tonic::Status;

use super::bind::{bind, is_http_body};
use super::body::Content;
use super::json::to_json;
use super::stream;
use crate::authorize::Allowed;
use crate::contracts::Contracts;
use crate::dialect::Dialect;
use crate::route::Found;
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
        found: &Found<'_>,
        allowed: &Allowed,
        request: Request<Body>,
    ) -> Response<Body> {
        match self.call(found, allowed, request).await {
            Ok(response) => response,
            Err(status) => self.dialect.error(&status, self.contracts),
        }
    }

    async fn call(
        &self,
        found: &Found<'_>,
        allowed: &Allowed,
        request: Request<Body>,
    ) -> Result<Response<Body>, Status> {
        let (parts, body) = request.into_parts();
        let content = Content::read(&parts.headers, body, self.body_max).await?;
        let query = parts.uri.query().unwrap_or_default();
        let mut message = bind(found, query, &content, self.dialect)?;
        let metadata = self.dialect.metadata(&parts.method, &content.bytes);
        let raw = is_http_body(&allowed.method.output());
        if raw || allowed.method.is_server_streaming() {
            stream::take_cursor(&mut message, &parts.headers);
            let request = message.encode_to_vec().into();
            let call = call::stream(self.upstreams, allowed, request, metadata).await?;
            return stream::respond(self, &allowed.method, call, &parts.headers).await;
        }
        let request = message.encode_to_vec().into();
        let bytes = call::unary(self.upstreams, allowed, request, metadata).await?;
        let json = to_json(self.dialect, &allowed.method, &bytes)?;
        Ok(error::json_response(StatusCode::OK, &json))
    }
}
