//! Compiled pipelines that are fetched from a URL that a client names.
//!
//! The service must not become a way into its own network: only public addresses are connected to,
//! and networks that the settings name. What is checked is the address that a name resolves to at
//! the moment of the connection, since a name may lead elsewhere a second later, and again at every
//! redirect. Proxies of the environment are not used: behind one, nobody here sees that address.

#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ferroflow_types::{Error, FieldViolation};
use ipnet::IpNet;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::LOCATION;
use reqwest::redirect::Policy;
use reqwest::{Client, Response, Url};

use super::spec_file::{self, SIZE_MAX, SpecFile};
use crate::domain::address::is_public;

/// The field that names the URL.
pub(crate) const FIELD: &str = "pipeline_version.package_url.pipeline_url";

/// The setting that names networks, other than public ones, from which may be fetched.
const SETTING: &str = "pipelines.package_networks";

/// How long fetching may take, redirects included; as long as upstream.
const FETCH_TIMEOUT: Duration = Duration::from_secs(30);

/// Redirects that are followed.
const REDIRECTS_MAX: usize = 10;

/// A package as it was fetched.
#[derive(Debug)]
pub(crate) struct Package {
    /// The last part of its URL's path.
    pub(crate) name: String,
    /// The pipeline in it.
    pub(crate) file: SpecFile,
}

/// What fetches packages.
pub(crate) struct PackageFetcher {
    allowed: AllowedAddresses,
    resolver: Arc<dyn Resolve>,
}

/// Which addresses may be connected to.
#[derive(Debug, Clone)]
struct AllowedAddresses {
    networks: Arc<[IpNet]>,
}

impl AllowedAddresses {
    fn allows(&self, address: IpAddr) -> bool {
        // `::ffff:10.0.0.1` is 10.0.0.1, also for an IPv4 network that the settings name.
        let address = address.to_canonical();
        is_public(address) || self.networks.iter().any(|net| net.contains(&address))
    }

    /// Refuses a host that is an address itself: such a one is never resolved.
    fn check(&self, url: &Url) -> Result<(), Error> {
        // `Url` has brought spellings such as `2130706433` and `0x7f.1` into dotted form; IPv6 hosts
        // keep their brackets.
        let literal = url.host_str().map(|host| host.trim_matches(['[', ']']));
        match literal.and_then(|host| host.parse::<IpAddr>().ok()) {
            Some(address) if !self.allows(address) => Err(not_public_error(url)),
            _ => Ok(()),
        }
    }
}

/// A name that leads to no address that may be connected to.
#[derive(Debug, thiserror::Error)]
#[error("the name leads to addresses that are not public")]
struct NotPublicError;

/// Names are resolved by the inner resolver; the connection is made to what is left of its answer.
struct FilteringResolver<R> {
    inner: Arc<R>,
    allowed: AllowedAddresses,
}

impl<R: Resolve + 'static> Resolve for FilteringResolver<R> {
    fn resolve(&self, name: Name) -> Resolving {
        let (inner, allowed) = (Arc::clone(&self.inner), self.allowed.clone());
        Box::pin(async move {
            let found = inner.resolve(name).await?;
            let addresses: Vec<SocketAddr> =
                found.filter(|addr| allowed.allows(addr.ip())).collect();
            if addresses.is_empty() {
                return Err(NotPublicError.into());
            }
            let addresses: Addrs = Box::new(addresses.into_iter());
            Ok(addresses)
        })
    }
}

/// The resolver of this machine.
struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let found: Vec<_> = found.collect();
            let found: Addrs = Box::new(found.into_iter());
            Ok(found)
        })
    }
}

/// The networks that a setting names.
///
/// # Errors
/// Names the one that is none.
pub(crate) fn parse_networks(texts: &[String]) -> Result<Vec<IpNet>, String> {
    let network = |text: &String| {
        let address = || text.parse::<IpAddr>().map(IpNet::from);
        text.parse::<IpNet>().or_else(|_| address()).map_err(|_| {
            format!("{text:?} is not a network: for example 10.1.0.0/16, fd00::/8 or 127.0.0.1")
        })
    };
    texts.iter().map(network).collect()
}

impl PackageFetcher {
    /// Fetches from public addresses and from these networks.
    pub(crate) fn new(networks: Vec<IpNet>) -> Self {
        Self::with_resolver(networks, SystemResolver)
    }

    fn with_resolver<R: Resolve + 'static>(networks: Vec<IpNet>, resolver: R) -> Self {
        let allowed = AllowedAddresses {
            networks: networks.into(),
        };
        let resolver = Arc::new(FilteringResolver {
            inner: Arc::new(resolver),
            allowed: allowed.clone(),
        });
        Self { allowed, resolver }
    }

    /// A client of one request: a connection that is kept would serve a later one without a look
    /// at its address. Certificates of authorities are read when there is something to fetch.
    fn client(&self) -> Result<Client, Error> {
        Client::builder()
            .user_agent(concat!("ferroflow/", env!("CARGO_PKG_VERSION")))
            .dns_resolver(Arc::clone(&self.resolver))
            .no_proxy()
            // `follow_redirects` does it by hand: each target is checked before it is asked.
            .redirect(Policy::none())
            .pool_max_idle_per_host(0)
            .build()
            .map_err(|error| Error::internal("a client for packages cannot be made", error))
    }

    /// Fetches a compiled pipeline.
    pub(crate) async fn fetch(&self, url: &str) -> Result<Package, Error> {
        let url = parse_url(url)?;
        let (url, bytes) = tokio::time::timeout(FETCH_TIMEOUT, self.follow_redirects(url.clone()))
            .await
            .map_err(|_| {
                let seconds = FETCH_TIMEOUT.as_secs();
                refused(format!("{} took more than {seconds} s", origin(&url)))
            })??;
        let name = url.path_segments().and_then(Iterator::last);
        Ok(Package {
            name: name.unwrap_or_default().to_owned(),
            file: spec_file::read_blocking(move || spec_file::read_fetched(&bytes)).await?,
        })
    }

    /// The content of a URL, and the URL that the last redirect led to.
    async fn follow_redirects(&self, mut url: Url) -> Result<(Url, Vec<u8>), Error> {
        let client = self.client()?;
        for _ in 0..=REDIRECTS_MAX {
            self.allowed.check(&url)?;
            let sent = client.get(url.clone()).send().await;
            let response = sent.map_err(|error| failed(&url, error))?;
            let status = response.status();
            if status.is_success() {
                let bytes = read_body(&url, response).await?;
                return Ok((url, bytes));
            }
            let location = response.headers().get(LOCATION);
            let location = location.and_then(|value| value.to_str().ok());
            let Some(location) = location.filter(|_| status.is_redirection()) else {
                return Err(refused(format!("{} answered {status}", origin(&url))));
            };
            url = redirect_target(&url, location)?;
        }
        let problem = format!(
            "more than {REDIRECTS_MAX} redirects, the last to {}",
            origin(&url)
        );
        Err(refused(problem))
    }
}

/// The URL where a redirect leads.
fn redirect_target(from: &Url, location: &str) -> Result<Url, Error> {
    let joined = from.join(location).ok();
    let to = joined.ok_or_else(|| refused(format!("{} redirects to no URL", origin(from))))?;
    let to = parse_url(to.as_str())?;
    // Whoever named an https URL counts on TLS; the redirect must not take it away.
    if from.scheme() == "https" && to.scheme() != "https" {
        let problem = format!("{} redirects from https to {}", origin(from), origin(&to));
        return Err(refused(problem));
    }
    Ok(to)
}

/// A URL that may be asked.
fn parse_url(text: &str) -> Result<Url, Error> {
    let url = Url::parse(text).map_err(|error| refused(format!("it is not a URL: {error}")))?;
    if !matches!(url.scheme(), "http" | "https") {
        let problem = format!(
            "{}: is not fetched: give an http or https URL",
            url.scheme()
        );
        return Err(refused(problem));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(refused(
            "a URL with a user or password is not taken, since it is stored and shown: upload the \
             file instead",
        ));
    }
    Ok(url)
}

/// The body, read no further than the limit.
async fn read_body(url: &Url, mut response: Response) -> Result<Vec<u8>, Error> {
    let too_large = || {
        refused(format!(
            "the file at {} is larger than {SIZE_MAX} bytes",
            origin(url)
        ))
    };
    let limit = u64::try_from(SIZE_MAX).unwrap_or(u64::MAX);
    // The header may be missing or wrong: it only saves reading what is too large, and what arrives
    // is counted below.
    if response.content_length().is_some_and(|size| size > limit) {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| failed(url, error))? {
        if bytes.len() + chunk.len() > SIZE_MAX {
            return Err(too_large());
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// Scheme, host and port: paths and queries may hold what is secret.
fn origin(url: &Url) -> String {
    url.origin().ascii_serialization()
}

fn failed(url: &Url, error: reqwest::Error) -> Error {
    // The path and query may hold what is secret, see `origin`.
    let error = error.without_url();
    // reqwest wraps what the resolver said, so a refused name is found among the causes.
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    let mut last = String::new();
    while let Some(current) = cause {
        if current.is::<NotPublicError>() {
            return not_public_error(url);
        }
        last = current.to_string();
        cause = current.source();
    }
    refused(format!(
        "{} cannot be read: {last} (proxies of the environment are not used)",
        origin(url)
    ))
}

fn not_public_error(url: &Url) -> Error {
    refused(format!(
        "{} is not a public address: upload the file, or let {SETTING} name its network",
        origin(url)
    ))
}

fn refused(problem: impl Into<String>) -> Error {
    let faults = vec![FieldViolation::new(FIELD, problem)];
    Error::violations(
        "PACKAGE_URL_INVALID",
        "Pipeline URL validation failed",
        faults,
    )
}
