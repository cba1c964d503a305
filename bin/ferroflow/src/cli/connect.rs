//! The way to the platform: which endpoint, with which key, over TLS or not.
//!
//! Flags win over variables, these over the client's file. A path in the endpoint is kept before
//! every call, as proxies that share a host want it.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use http::{HeaderValue, Request, Response, Uri, header};
use serde::Deserialize;
use tonic::body::Body;
use tonic::transport::{self, Certificate, ClientTlsConfig, Endpoint};
use tower::ServiceExt as _;
use tower::util::BoxCloneSyncService;

use super::Global;
use super::endpoint_errors::{self, CallError};
use super::output::note;

/// Where the platform is unless somebody says otherwise.
const DEFAULT_ENDPOINT: &str = "http://127.0.0.1:8080";

/// A connection to the platform; every call carries the key.
pub(super) type Channel = BoxCloneSyncService<Request<Body>, Response<Body>, CallError>;

/// The client's file.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ClientFile {
    endpoint: Option<String>,
    api_key: Option<String>,
    ca_file: Option<PathBuf>,
}

/// What all sources come to.
#[derive(Debug, PartialEq)]
pub(super) struct Target {
    /// Without a slash at its end.
    pub(super) endpoint: String,
    pub(super) api_key: Option<String>,
    ca_file: Option<PathBuf>,
}

/// Which platform a command talks to.
pub(super) fn target(global: &Global) -> anyhow::Result<Target> {
    let file = match &global.client_config {
        Some(path) => read(path)?,
        None => match default_file().filter(|path| path.exists()) {
            Some(path) => read(&path)?,
            None => ClientFile::default(),
        },
    };
    Ok(merge(global, file))
}

fn merge(global: &Global, file: ClientFile) -> Target {
    let trim = |endpoint: &str| endpoint.trim_end_matches('/').to_owned();
    let file_endpoint = trim(file.endpoint.as_deref().unwrap_or(DEFAULT_ENDPOINT));
    // A variable that is empty counts as one that is not set.
    let given = global.endpoint.as_deref().filter(|given| !given.is_empty());
    let endpoint = given.map_or(file_endpoint.clone(), trim);
    // The file's key is for the file's platform: another one must not learn it.
    let file_key = file.api_key.filter(|_| endpoint == file_endpoint);
    let file_ca = file.ca_file.filter(|_| endpoint == file_endpoint);
    let given_key = global.api_key.clone().filter(|key| !key.is_empty());
    let given_ca = global.ca_file.clone();
    let given_ca = given_ca.filter(|file| !file.as_os_str().is_empty());
    Target {
        api_key: given_key.or(file_key),
        ca_file: given_ca.or(file_ca),
        endpoint,
    }
}

fn default_file() -> Option<PathBuf> {
    let given = std::env::var_os("XDG_CONFIG_HOME").filter(|given| !given.is_empty());
    let folder = match given {
        Some(given) => PathBuf::from(given),
        None => std::env::home_dir()?.join(".config"),
    };
    Some(folder.join("ferroflow/client.toml"))
}

fn read(path: &Path) -> anyhow::Result<ClientFile> {
    use std::os::unix::fs::PermissionsExt as _;
    let shown = path.display();
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {shown}"))?;
    let file: ClientFile = toml::from_str(&text)
        .map_err(|error| anyhow::anyhow!("{shown}: {}", error.message()))
        .context("the client's file has endpoint, api_key and ca_file")?;
    let mode = path
        .metadata()
        .map_or(0, |found| found.permissions().mode());
    if file.api_key.is_some() && mode & 0o077 != 0 {
        note(&format!(
            "warning: others may read the key in {shown}: chmod 600 {shown}"
        ));
    }
    Ok(file)
}

/// Connects to the platform.
pub(super) async fn connect(global: &Global) -> anyhow::Result<Channel> {
    let target = target(global)?;
    let endpoint = &target.endpoint;
    let uri: Uri = endpoint
        .parse()
        .ok()
        .filter(|uri: &Uri| uri.host().is_some())
        .with_context(|| format!("{endpoint} is not a URL such as {DEFAULT_ENDPOINT}"))?;
    let prefix = uri.path().trim_end_matches('/').to_owned();
    let secure = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => bail!("{endpoint}: an endpoint begins with http:// or https://"),
    };
    let mut builder = Endpoint::from(uri);
    if secure {
        builder = builder.tls_config(tls(target.ca_file.as_deref())?)?;
    } else if target.ca_file.is_some() {
        bail!("--ca-file is for endpoints of https://, and {endpoint} is none");
    }
    let channel = builder
        .connect()
        .await
        .map_err(|error| unreachable(endpoint, secure, error))?;
    let key = target.api_key.as_deref().map(bearer).transpose()?;
    let calls = channel.map_request(move |mut request: Request<Body>| {
        if let Some(key) = &key {
            request
                .headers_mut()
                .insert(header::AUTHORIZATION, key.clone());
        }
        prepend_path(&prefix, &mut request);
        request
    });
    let (error_endpoint, response_endpoint) = (endpoint.clone(), endpoint.clone());
    let calls = calls
        .map_err(move |error| endpoint_errors::map_error(&error_endpoint, error))
        .map_result(move |result| {
            result
                .and_then(|response| endpoint_errors::check_response(&response_endpoint, response))
        });
    Ok(BoxCloneSyncService::new(calls))
}

/// Why there is no connection.
fn unreachable(endpoint: &str, secure: bool, error: transport::Error) -> anyhow::Error {
    // What rustls says of an answer that is no TLS, and of a connection that is closed instead of
    // one.
    let speaks_no_tls =
        endpoint_errors::chain_contains(&error, &["InvalidContentType", "tls handshake eof"]);
    let message = match endpoint.strip_prefix("https://") {
        Some(rest) if secure && speaks_no_tls => {
            return anyhow::anyhow!(
                "what answers at {endpoint} does not speak TLS: try http://{rest}"
            );
        }
        _ if secure => format!(
            "cannot reach {endpoint} (--ca-file names the authority of a private certificate)"
        ),
        _ => format!(
            "nobody answers at {endpoint}: start a platform (`ferroflow up`), or say where it is (--endpoint)"
        ),
    };
    anyhow::Error::new(error).context(message)
}

fn tls(ca_file: Option<&Path>) -> anyhow::Result<ClientTlsConfig> {
    let Some(path) = ca_file else {
        return Ok(ClientTlsConfig::new().with_native_roots());
    };
    let shown = path.display();
    let pem = std::fs::read(path).with_context(|| format!("--ca-file: cannot read {shown}"))?;
    if !pem.windows(15).any(|part| part == b"-----BEGIN CERT") {
        bail!("--ca-file: {shown} holds no certificate (PEM)");
    }
    Ok(ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)))
}

fn bearer(key: &str) -> anyhow::Result<HeaderValue> {
    let value = HeaderValue::try_from(format!("Bearer {key}"));
    let mut value = value.context("--api-key: it holds what no header may hold")?;
    // Hidden where requests are printed for debugging.
    value.set_sensitive(true);
    Ok(value)
}

/// Puts the endpoint's path before that of the call.
fn prepend_path(prefix: &str, request: &mut Request<Body>) {
    if prefix.is_empty() {
        return;
    }
    let mut parts = request.uri().clone().into_parts();
    let path = format!("{prefix}{}", request.uri().path());
    // Both halves were parts of a URI, so the whole is one.
    if let Ok(path) = path.parse() {
        parts.path_and_query = Some(path);
        if let Ok(uri) = Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Format;

    fn global(endpoint: Option<&str>, api_key: Option<&str>) -> Global {
        Global {
            endpoint: endpoint.map(str::to_owned),
            api_key: api_key.map(str::to_owned),
            ca_file: None,
            client_config: None,
            output: Format::Table,
        }
    }

    fn file() -> ClientFile {
        ClientFile {
            endpoint: Some("https://a.example/ml/".to_owned()),
            api_key: Some("secret".to_owned()),
            ca_file: Some("ca.pem".into()),
        }
    }

    #[test]
    fn flags_win_over_the_file_and_its_key_goes_to_its_own_platform_only() {
        let usual = merge(&global(None, None), file());
        assert_eq!(usual.endpoint, "https://a.example/ml");
        assert_eq!(usual.api_key.as_deref(), Some("secret"));

        let other = merge(&global(Some("http://b.example"), None), file());
        assert_eq!((other.api_key, other.ca_file), (None, None));

        let given = merge(&global(Some("https://a.example/ml"), Some("mine")), file());
        assert_eq!(given.api_key.as_deref(), Some("mine"));

        let nothing = merge(&global(None, None), ClientFile::default());
        assert_eq!(nothing.endpoint, DEFAULT_ENDPOINT);
    }

    #[test]
    fn the_path_of_the_endpoint_comes_before_every_call() {
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = Uri::from_static("/pkg.Service/Call");

        prepend_path("/ml", &mut request);

        assert_eq!(request.uri().path(), "/ml/pkg.Service/Call");
    }
}
