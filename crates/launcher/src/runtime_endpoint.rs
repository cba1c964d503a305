//! Calls from a pod to the runtime that made it: one asks for the pod's attempt, one reports its
//! end.
//!
//! Nothing here decides anything. A runtime that cannot be reached learns of an end by the pod's; a
//! warm pod that gets no answer for long ends by itself.

use std::time::Duration;

use ferroflow_proto::attempts::v1::attempt_service_client::AttemptServiceClient;
use ferroflow_proto::attempts::v1::{Attempt, ReportRequest, TakeRequest};
use ferroflow_types::Namespace;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use uuid::Uuid;

use crate::{AttemptKey, Domain, OwnerKey};

/// How long a call may take; one that asks for an attempt is answered within [`TAKE_WAIT`].
const CALL_TIMEOUT: Duration = Duration::from_secs(3);
/// How long the runtime keeps a launcher waiting for an attempt before it must ask again.
pub const TAKE_WAIT: Duration = Duration::from_secs(20);
/// How long a warm pod goes on without an answer of the runtime that made it. Longer than one call
/// may take, so that a call whose answer is lost is made again.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// The wait between tries.
const RETRY: Duration = Duration::from_millis(500);

/// Where the runtime is, and by what it knows this pod.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuntimeEndpoint {
    /// For example `http://10.0.0.7:9001`.
    pub url: String,
    /// The pod's name.
    pub pod: String,
    /// A secret of this pod's; the runtime can compute it.
    pub token: String,
}

impl std::fmt::Debug for RuntimeEndpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { url, pod, .. } = self;
        write!(
            f,
            "RuntimeEndpoint {{ url: {url:?}, pod: {pod:?}, token: *** }}"
        )
    }
}

/// Why the runtime gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeCallError {
    /// The address, the token or the attempt that this pod was given is invalid.
    #[error("{0} of the runtime cannot be used")]
    Invalid(&'static str),
    /// It cannot be reached, or refuses.
    #[error("the runtime at {url}")]
    Call {
        /// Where it should be.
        url: String,
        /// What was said.
        #[source]
        source: Box<Status>,
    },
}

impl RuntimeEndpoint {
    /// Says that the outcome is in the store.
    ///
    /// # Errors
    /// When the runtime does not answer; nothing is lost by that.
    pub async fn report(&self) -> Result<(), RuntimeCallError> {
        let (mut client, bearer) = self.client()?;
        let pod = self.pod.clone();
        let mut request = request(ReportRequest { pod }, bearer);
        request.set_timeout(CALL_TIMEOUT);
        client.report(request).await.map_err(self.failed())?;
        Ok(())
    }

    /// Waits for this pod's attempt; `None` when there will be none.
    ///
    /// # Errors
    /// When the runtime has not been heard of for [`SILENCE_MAX`], or refuses.
    pub async fn take(&self) -> Result<Option<AttemptKey>, RuntimeCallError> {
        let (mut client, bearer) = self.client()?;
        let mut last_answer_at = Instant::now();
        loop {
            let pod = self.pod.clone();
            let mut request = request(TakeRequest { pod }, bearer.clone());
            request.set_timeout(TAKE_WAIT + CALL_TIMEOUT);
            match client.take(request).await {
                Ok(answer) => {
                    last_answer_at = Instant::now();
                    if let Some(attempt) = answer.into_inner().attempt {
                        return Ok(Some(key_of(&attempt)?));
                    }
                }
                // It is not one of the pods that the runtime waits for.
                Err(status) if status.code() == Code::NotFound => return Ok(None),
                Err(status) if is_final(&status) || last_answer_at.elapsed() > SILENCE_MAX => {
                    return Err(self.failed()(status));
                }
                Err(_) => tokio::time::sleep(RETRY).await,
            }
        }
    }

    fn client(
        &self,
    ) -> Result<(AttemptServiceClient<Channel>, MetadataValue<Ascii>), RuntimeCallError> {
        let endpoint = Endpoint::from_shared(self.url.clone())
            .map_err(|_| RuntimeCallError::Invalid("the address"))?
            .connect_timeout(CALL_TIMEOUT)
            .tcp_nodelay(true);
        let bearer = format!("Bearer {}", self.token)
            .parse()
            .map_err(|_| RuntimeCallError::Invalid("the token"))?;
        // Connects at each call that finds no connection, so a runtime that comes back is found.
        Ok((AttemptServiceClient::new(endpoint.connect_lazy()), bearer))
    }

    fn failed(&self) -> impl FnOnce(Status) -> RuntimeCallError {
        let url = self.url.clone();
        move |status| RuntimeCallError::Call {
            url,
            source: Box::new(status),
        }
    }
}

fn request<T>(message: T, bearer: MetadataValue<Ascii>) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", bearer);
    request
}

fn is_final(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unauthenticated | Code::PermissionDenied | Code::Unimplemented
    )
}

fn key_of(attempt: &Attempt) -> Result<AttemptKey, RuntimeCallError> {
    let invalid = |_| RuntimeCallError::Invalid("the attempt");
    let id = |text: &str| text.parse::<Uuid>().map_err(invalid);
    let domain = match attempt.domain.as_str() {
        "" => Domain::PIPELINES,
        other => other
            .parse()
            .map_err(|_| RuntimeCallError::Invalid("the domain"))?,
    };
    let namespace = match attempt.namespace.as_str() {
        // A runtime up to 0.1 knows no other one.
        "" => Namespace::single_user(),
        other => other
            .parse()
            .map_err(|_| RuntimeCallError::Invalid("the namespace"))?,
    };
    let (owner, item) = if domain == Domain::PIPELINES {
        (id(&attempt.run_id)?, id(&attempt.task_id)?)
    } else {
        (id(&attempt.owner_id)?, id(&attempt.item_id)?)
    };
    let owner = OwnerKey {
        domain,
        namespace,
        id: owner,
    };
    Ok(AttemptKey {
        owner,
        item,
        attempt: attempt.attempt,
    })
}

/// The key as a message to a launcher; one up to 0.1 reads what is of pipelines.
pub fn attempt_message(key: AttemptKey) -> Attempt {
    let AttemptKey {
        owner,
        item,
        attempt,
    } = key;
    let known = Attempt {
        attempt,
        namespace: owner.namespace.to_string(),
        ..Attempt::default()
    };
    let (owner_id, item_id) = (owner.id.to_string(), item.to_string());
    if owner.domain == Domain::PIPELINES {
        Attempt {
            run_id: owner_id,
            task_id: item_id,
            ..known
        }
    } else {
        Attempt {
            domain: owner.domain.into(),
            owner_id,
            item_id,
            ..known
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(domain: Domain, namespace: &str) -> AttemptKey {
        AttemptKey {
            owner: OwnerKey {
                domain,
                namespace: namespace.parse().unwrap(),
                id: Uuid::from_u128(7),
            },
            item: Uuid::from_u128(8),
            attempt: 3,
        }
    }

    #[test]
    fn a_launcher_reads_the_key_that_was_sent() {
        for key in [
            key(Domain::PIPELINES, "default"),
            key(Domain::PIPELINES, "team-a"),
            key("tuning".parse().unwrap(), "team-a"),
        ] {
            assert_eq!(key_of(&attempt_message(key.clone())).unwrap(), key);
        }
    }

    #[test]
    fn either_release_understands_the_other_one() {
        let key = key(Domain::PIPELINES, "default");
        let former = Attempt {
            run_id: Uuid::from_u128(7).to_string(),
            task_id: Uuid::from_u128(8).to_string(),
            attempt: 3,
            ..Attempt::default()
        };

        assert_eq!(key_of(&former).unwrap(), key);
        let ours = attempt_message(key);
        let of_former = |one: &Attempt| (one.run_id.clone(), one.task_id.clone(), one.attempt);
        assert_eq!(of_former(&ours), of_former(&former));
        assert_eq!(ours.domain, "");
    }

    #[test]
    fn a_former_launcher_does_not_take_another_domain_for_a_run() {
        let attempt = attempt_message(key("tuning".parse().unwrap(), "default"));
        assert_eq!(
            (attempt.run_id.as_str(), attempt.task_id.as_str()),
            ("", "")
        );
    }

    #[test]
    fn what_is_no_key_is_refused_by_its_part() {
        let good = attempt_message(key("tuning".parse().unwrap(), "team-a"));
        for (bad, named) in [
            (
                Attempt {
                    domain: "../x".to_owned(),
                    ..good.clone()
                },
                "the domain",
            ),
            (
                Attempt {
                    namespace: "A".to_owned(),
                    ..good.clone()
                },
                "the namespace",
            ),
            (
                Attempt {
                    item_id: "x".to_owned(),
                    ..good
                },
                "the attempt",
            ),
        ] {
            let refused = key_of(&bad).unwrap_err().to_string();
            assert!(refused.starts_with(named), "{refused}");
        }
    }
}
