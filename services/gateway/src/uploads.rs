//! KFP's multipart uploads: `/apis/v2beta1/pipelines/upload` and `/upload_version`.

use std::collections::HashMap;

use axum::body::Body;
use axum::extract::{DefaultBodyLimit, FromRequest as _, Multipart, Request};
use axum::http::{HeaderMap, Method, Response, StatusCode};
use ferroflow_proto::pipelines::v1 as pb;
use prost::Message as _;
use prost_reflect::MethodDescriptor;
use serde_json::json;
use tonic::{Code, Status};

use crate::authorize::AuthorizedCall;
use crate::contracts::Contracts;
use crate::dialect::Dialect;
use crate::upstream::Upstreams;
use crate::{call, error};

/// The largest file, as upstream has it.
const FILE_MAX: usize = 32 * 1024 * 1024;

/// What a form may have besides the file.
const FORM_MAX: usize = 1024 * 1024;

const SERVICE: &str = "ferroflow.pipelines.v1.UploadService";

/// Which upload a path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Upload {
    Pipeline,
    Version,
}

impl Upload {
    pub(crate) const ALL: [Self; 2] = [Self::Pipeline, Self::Version];

    pub(crate) fn of(method: &Method, path: &str) -> Option<Self> {
        let known = Self::ALL.into_iter().find(|upload| upload.path() == path);
        known.filter(|_| method == Method::POST)
    }

    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Pipeline => "/apis/v2beta1/pipelines/upload",
            Self::Version => "/apis/v2beta1/pipelines/upload_version",
        }
    }

    /// The full name of the RPC that takes the file.
    pub(crate) fn full_name(self) -> String {
        format!("{SERVICE}.{}", self.rpc())
    }

    /// The RPC that takes the file.
    pub(crate) fn rpc(self) -> &'static str {
        match self {
            Self::Pipeline => "UploadPipeline",
            Self::Version => "UploadPipelineVersion",
        }
    }

    pub(crate) fn method(self, contracts: &Contracts) -> Option<MethodDescriptor> {
        let service = contracts.pool().get_service_by_name(SERVICE)?;
        service.methods().find(|method| method.name() == self.rpc())
    }

    /// Query parameters and what they are.
    pub(crate) fn parameters(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Pipeline => &[
                ("name", "unique; the file's name when neither name is given"),
                ("display_name", "the name when not given"),
                ("description", "for people"),
                ("namespace", "an installation of one user has one"),
                ("tags", "a JSON object of texts: labels of the pipeline"),
                ("code_source_url", "where the first version's source is"),
            ],
            Self::Version => &[
                // Without an underscore, as upstream.
                ("pipelineid", "the pipeline"),
                (
                    "name",
                    "unique in the pipeline; the file's name when neither is given",
                ),
                ("display_name", "the name when not given"),
                ("description", "for people"),
                ("tags", "a JSON object of texts: labels of the version"),
                ("code_source_url", "where its source is"),
            ],
        }
    }
}

/// Answers an upload. Errors have the shape of KFP's plain HTTP endpoints.
pub(crate) async fn upload(
    kind: Upload,
    dialect: &dyn Dialect,
    upstreams: &Upstreams,
    allowed: &AuthorizedCall,
    request: Request,
) -> Response<Body> {
    match answer(kind, dialect, upstreams, allowed, request).await {
        Ok(response) => response,
        Err(status) => {
            let http = match status.code() {
                Code::OutOfRange => StatusCode::BAD_REQUEST,
                code => error::http_status(code),
            };
            let what = match kind {
                Upload::Pipeline => "Failed to create a pipeline and a pipeline version",
                Upload::Version => "Failed to create a pipeline version",
            };
            let details = status.message();
            let message = format!("{what}: {details}");
            error::json_response(
                http,
                &json!({"error_message": message, "error_details": message}),
            )
        }
    }
}

async fn answer(
    kind: Upload,
    dialect: &dyn Dialect,
    upstreams: &Upstreams,
    allowed: &AuthorizedCall,
    request: Request,
) -> Result<Response<Body>, Status> {
    let query = request.uri().query().unwrap_or_default().to_owned();
    let mut given: HashMap<String, String> = form_urlencoded::parse(query.as_bytes())
        .into_owned()
        .collect();
    // Clients send empty parameters for what they leave out.
    let tags = match given.remove("tags").filter(|tags| !tags.is_empty()) {
        None => HashMap::new(),
        Some(text) => serde_json::from_str(&text).map_err(|error| {
            Status::invalid_argument(format!("tags: not a JSON object of texts: {error}"))
        })?,
    };
    let mut take = |name: &str| given.remove(name).unwrap_or_default();
    let (filename, content) = file(request).await?;
    let request = match kind {
        Upload::Pipeline => {
            let message = pb::UploadPipelineRequest {
                filename,
                content,
                name: take("name"),
                display_name: take("display_name"),
                description: take("description"),
                namespace: take("namespace"),
                tags,
                code_source_url: take("code_source_url"),
            };
            message.encode_to_vec()
        }
        Upload::Version => {
            let message = pb::UploadPipelineVersionRequest {
                filename,
                content,
                name: take("name"),
                display_name: take("display_name"),
                description: take("description"),
                pipeline_id: take("pipelineid"),
                tags,
                code_source_url: take("code_source_url"),
            };
            message.encode_to_vec()
        }
    };
    let bytes = call::unary(upstreams, allowed, request.into(), HeaderMap::new()).await?;
    Ok(error::json_response(
        StatusCode::OK,
        &crate::transcode::to_json(dialect, &allowed.method, &bytes)?,
    ))
}

/// The form's file: its name and its bytes, read no further than the limit.
async fn file(mut request: Request) -> Result<(String, Vec<u8>), Status> {
    // axum would stop at 2 MB; the other parts of the form are short.
    DefaultBodyLimit::max(FILE_MAX + FORM_MAX).apply(&mut request);
    let broken = |error: &dyn std::fmt::Display| {
        Status::invalid_argument(format!("the multipart form cannot be read: {error}"))
    };
    let mut form = Multipart::from_request(request, &())
        .await
        .map_err(|error| broken(&error))?;
    while let Some(mut field) = form.next_field().await.map_err(|error| broken(&error))? {
        if field.name() != Some("uploadfile") {
            continue;
        }
        let filename = field.file_name().unwrap_or_default().to_owned();
        let mut content = Vec::new();
        while let Some(chunk) = field.chunk().await.map_err(|error| broken(&error))? {
            if content.len() + chunk.len() > FILE_MAX {
                let message = format!("uploadfile: the file is larger than {FILE_MAX} bytes");
                return Err(Status::out_of_range(message));
            }
            content.extend_from_slice(&chunk);
        }
        return Ok((filename, content));
    }
    Err(Status::invalid_argument(
        "the form has no part called uploadfile",
    ))
}
