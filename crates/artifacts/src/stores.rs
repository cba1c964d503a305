//! Object stores by URI: which one, how it is reached, and what is where in it.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ferroflow_types::Secret;
use object_store::aws::{AmazonS3Builder, Checksum};
use object_store::local::LocalFileSystem;
use object_store::path::Path as StorePath;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};
use serde::{Deserialize, Serialize};

use crate::digest;

/// How S3, or what speaks like it, is reached.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct S3Config {
    /// `http://minio:9000`; Amazon's own unless given. Plain HTTP is allowed where it says so.
    #[serde(with = "ferroflow_types::unset::text")]
    pub endpoint: Option<String>,
    /// `us-east-1` unless given, which stores of one region take as well.
    #[serde(with = "ferroflow_types::unset::text")]
    pub region: Option<String>,
    /// The key's name; what the environment of Amazon's machines gives unless given.
    #[serde(with = "ferroflow_types::unset::text")]
    pub access_key_id: Option<Secret>,
    /// The key.
    #[serde(with = "ferroflow_types::unset::text")]
    pub secret_access_key: Option<Secret>,
}

/// Why a URI leads nowhere.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Its scheme is not one that this installation knows.
    #[error("{0} is in a store that this installation does not read: use s3:// or a local path")]
    Unknown(String),
    /// It cannot be read as a URI.
    #[error("{0} names no bucket")]
    NoBucket(String),
    /// The store's settings are wrong.
    #[error("the store of {uri} cannot be used")]
    Settings {
        /// What was opened.
        uri: String,
        /// Why not.
        #[source]
        source: object_store::Error,
    },
}

/// A place in a store.
#[derive(Debug, Clone)]
pub struct Place {
    /// The store.
    pub store: Arc<dyn ObjectStore>,
    /// Where in it.
    pub path: StorePath,
}

impl Place {
    /// The path of something below this place; names stay as they are, so that other clients of
    /// the store see the names that programs gave.
    ///
    /// # Errors
    /// When a name cannot be part of a key.
    pub fn below(&self, inner: &Path) -> Result<StorePath, StoreError> {
        let parts: Vec<_> = inner.iter().map(|part| part.to_string_lossy()).collect();
        let text = format!("{}/{}", self.path, parts.join("/"));
        StorePath::parse(&text).map_err(|error| StoreError::Settings {
            uri: text,
            source: error.into(),
        })
    }

    /// The parts of an object's path below this place; none for the place itself.
    pub(crate) fn inner(&self, object: &StorePath) -> Vec<String> {
        let inner = object.prefix_match(&self.path);
        let inner = inner.into_iter().flatten();
        inner.map(|part| part.as_ref().to_owned()).collect()
    }
}

/// Schemes that mean the configured S3. MinIO's is what upstream's clients write for it.
const S3_SCHEMES: [&str; 3] = ["s3://", "minio://", "s3a://"];

/// How long a request is repeated while its store is away; whoever waits is better told by then.
const RETRY_TIMEOUT: Duration = Duration::from_mins(1);

/// The longest wait between two tries.
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// Every store that the settings reach; clients are kept per bucket.
#[derive(Debug, Clone)]
pub struct Stores {
    s3: S3Config,
    retry_timeout: Duration,
    buckets: Arc<Mutex<HashMap<String, Arc<dyn ObjectStore>>>>,
}

impl Default for Stores {
    fn default() -> Self {
        Self::new(S3Config::default())
    }
}

/// Whether a store failed in a way that may pass: it is busy, or cannot be reached. What it refuses,
/// it would refuse again.
pub fn is_away(error: &object_store::Error) -> bool {
    matches!(error, object_store::Error::Generic { .. })
}

impl Stores {
    /// Stores under these settings.
    pub fn new(s3: S3Config) -> Self {
        Self {
            s3,
            retry_timeout: RETRY_TIMEOUT,
            buckets: Arc::default(),
        }
    }

    /// The same stores; a request is given up only after `retry_timeout`.
    #[must_use]
    pub fn with_retry_timeout(self, retry_timeout: Duration) -> Self {
        Self {
            retry_timeout,
            // Clients have their timeout built in, so these are not shared.
            buckets: Arc::default(),
            ..self
        }
    }

    /// How long a request is repeated while its store is away.
    pub fn retry_timeout(&self) -> Duration {
        self.retry_timeout
    }

    /// The place that a URI or an absolute path names.
    pub fn open(&self, uri: &str) -> Result<Place, StoreError> {
        let settings = |source: object_store::Error| StoreError::Settings {
            uri: uri.to_owned(),
            source,
        };
        if let Some(path) = digest::local_path(uri) {
            let path =
                StorePath::from_absolute_path(path).map_err(|error| settings(error.into()))?;
            let store = Arc::new(LocalFileSystem::new());
            return Ok(Place { store, path });
        }
        let rest = S3_SCHEMES
            .iter()
            .find_map(|scheme| uri.strip_prefix(scheme))
            .ok_or_else(|| StoreError::Unknown(uri.to_owned()))?;
        // Upstream's roots may carry settings behind a question mark; ours are configured.
        let rest = rest.split_once('?').map_or(rest, |(rest, _)| rest);
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() {
            return Err(StoreError::NoBucket(uri.to_owned()));
        }
        let store = self.bucket(bucket).map_err(settings)?;
        let path =
            StorePath::parse(key.trim_matches('/')).map_err(|error| settings(error.into()))?;
        Ok(Place { store, path })
    }

    fn bucket(&self, name: &str) -> Result<Arc<dyn ObjectStore>, object_store::Error> {
        // Held while the client is built, which only reads settings: a bucket has one client.
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(store) = buckets.get(name) {
            return Ok(Arc::clone(store));
        }
        let S3Config {
            endpoint,
            region,
            access_key_id,
            secret_access_key,
        } = &self.s3;
        let is_plain = endpoint
            .as_ref()
            .is_some_and(|endpoint| endpoint.starts_with("http://"));
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(name)
            .with_region(region.as_deref().unwrap_or("us-east-1"))
            .with_checksum_algorithm(Checksum::SHA256)
            .with_retry(RetryConfig {
                backoff: BackoffConfig {
                    max_backoff: BACKOFF_MAX,
                    ..BackoffConfig::default()
                },
                // Time ends the retries, not their number.
                max_retries: usize::MAX,
                retry_timeout: self.retry_timeout,
            })
            .with_client_options(ClientOptions::new().with_allow_http(is_plain));
        if let Some(endpoint) = endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        if let Some(id) = access_key_id {
            let key = secret_access_key.as_ref().map_or("", Secret::expose);
            builder = builder
                .with_access_key_id(id.expose())
                .with_secret_access_key(key);
        }
        let store: Arc<dyn ObjectStore> = Arc::new(builder.build()?);
        buckets.insert(name.to_owned(), Arc::clone(&store));
        Ok(store)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_names_a_bucket_and_a_place_in_it() {
        let stores = Stores::default();
        for (uri, path) in [
            ("s3://bucket/a/b", "a/b"),
            ("minio://bucket/a/b/", "a/b"),
            ("s3://bucket/a?endpoint=x", "a"),
            ("s3://bucket", ""),
            ("/tmp/a b", "tmp/a b"),
            ("file:///tmp/a", "tmp/a"),
        ] {
            assert_eq!(
                stores.open(uri).unwrap().path,
                StorePath::from(path),
                "{uri}"
            );
        }
    }

    #[test]
    fn what_is_unknown_says_so_and_secrets_do_not_show() {
        let stores = Stores::new(S3Config {
            secret_access_key: Some("very secret".to_owned().into()),
            ..S3Config::default()
        });

        for (uri, expected) in [("ftp://a/b", "does not read"), ("s3:///a", "no bucket")] {
            let error = stores.open(uri).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        assert!(!format!("{stores:?}").contains("very secret"));
    }
}
