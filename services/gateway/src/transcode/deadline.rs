//! How long a call may take, as the client says (`grpc-timeout`).

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use futures::{Stream, StreamExt as _, stream};
use tokio::time::Instant;
use tonic::{Code, Status};

use crate::error::defect;

const TIMEOUT_HEADER: &str = "grpc-timeout";

/// No call is bound to end later than that: a longer time is taken for this one.
const TIMEOUT_MAX: Duration = Duration::from_hours(24);

/// When a call has to have ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline {
    end: Option<Instant>,
    timeout: Duration,
}

impl Deadline {
    /// The deadline of a request, from now on.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Status> {
        let Some(given) = headers.get(TIMEOUT_HEADER) else {
            return Ok(Self {
                end: None,
                timeout: TIMEOUT_MAX,
            });
        };
        let timeout = given.to_str().ok().and_then(parse_timeout).ok_or_else(|| {
            Status::invalid_argument(format!(
                "{TIMEOUT_HEADER}: {given:?} is not up to eight digits and a unit of H, M, S, m, u \
                 or n"
            ))
        })?;
        let timeout = timeout.min(TIMEOUT_MAX);
        Ok(Self {
            end: Some(Instant::now() + timeout),
            timeout,
        })
    }

    /// Adds it to the metadata of the call to the service, which then need not go on for nobody.
    pub(super) fn add_to_metadata(self, metadata: &mut HeaderMap) -> Result<(), Status> {
        if self.end.is_some() {
            // The milliseconds of `TIMEOUT_MAX` have eight digits, and gRPC allows no more.
            let text = format!("{}m", self.timeout.as_millis());
            let value = HeaderValue::from_str(&text);
            let value = value.map_err(|_| defect("a deadline is not a header"))?;
            metadata.insert(HeaderName::from_static(TIMEOUT_HEADER), value);
        }
        Ok(())
    }

    /// The end of `work`, or that it took too long.
    pub(super) async fn limit<T>(
        self,
        work: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, Status> {
        match self.end {
            None => work.await,
            Some(end) => match tokio::time::timeout_at(end, work).await {
                Err(_) => Err(exceeded()),
                // The service has the same deadline, and tonic calls its end a cancellation.
                Ok(Err(status)) if status.code() == Code::Cancelled => Err(exceeded()),
                Ok(ended) => ended,
            },
        }
    }

    /// A stream that ends at the deadline, with an error, whether a message comes then or not.
    pub(super) fn limit_stream<T: Send + 'static>(
        self,
        items: impl Stream<Item = Result<T, Status>> + Send + 'static,
    ) -> stream::BoxStream<'static, Result<T, Status>> {
        let Some(end) = self.end else {
            return items.boxed();
        };
        stream::unfold(Some(items.boxed()), move |items| async move {
            let mut items = items?;
            // `timeout_at` polls the stream first: one that always has a message ready would go on.
            if Instant::now() >= end {
                return Some((Err(exceeded()), None));
            }
            match tokio::time::timeout_at(end, items.next()).await {
                Err(_) => Some((Err(exceeded()), None)),
                Ok(None) => None,
                Ok(Some(Err(status))) => Some((Err(status), None)),
                Ok(Some(Ok(item))) => Some((Ok(item), Some(items))),
            }
        })
        .boxed()
    }
}

fn exceeded() -> Status {
    Status::deadline_exceeded("the call took longer than its grpc-timeout")
}

/// `TimeoutValue TimeoutUnit` of gRPC over HTTP/2.
fn parse_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    // `parse` alone would take a sign.
    let is_number = (1..=8).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    let number: u64 = digits.parse().ok().filter(|_| is_number)?;
    match unit {
        "H" => Some(Duration::from_secs(number * 3600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit() {
        for (text, expected) in [
            ("2H", Some(Duration::from_hours(2))),
            ("3M", Some(Duration::from_mins(3))),
            ("5S", Some(Duration::from_secs(5))),
            ("100m", Some(Duration::from_millis(100))),
            ("7u", Some(Duration::from_micros(7))),
            ("9n", Some(Duration::from_nanos(9))),
            ("99999999H", Some(Duration::from_hours(99_999_999))),
            ("", None),
            ("5", None),
            ("S", None),
            ("123456789S", None),
            ("-1S", None),
            ("+1S", None),
            ("1.5S", None),
            ("5s", None),
            ("5µ", None),
        ] {
            assert_eq!(parse_timeout(text), expected, "{text}");
        }
    }

    #[test]
    fn a_deadline_is_capped_and_passed_on() {
        for (given, expected) in [
            (None, None),
            (Some("1500m"), Some("1500m")),
            (Some("99999999H"), Some("86400000m")),
        ] {
            let header = given.map(|given| (HeaderName::from_static(TIMEOUT_HEADER), given));
            let headers = header.map(|(name, value)| (name, HeaderValue::from_static(value)));
            let mut metadata = HeaderMap::new();
            let deadline = Deadline::of(&headers.into_iter().collect()).unwrap();
            deadline.add_to_metadata(&mut metadata).unwrap();
            let value = metadata
                .get(TIMEOUT_HEADER)
                .map(|value| value.to_str().unwrap());
            assert_eq!(value, expected, "{given:?}");
        }
        let broken = [(
            HeaderName::from_static(TIMEOUT_HEADER),
            HeaderValue::from_static("soon"),
        )];
        let error = Deadline::of(&broken.into_iter().collect()).unwrap_err();
        assert!(error.message().starts_with("grpc-timeout: "), "{error}");
    }

    /// What comes of a stream that has 300 ms.
    async fn limited(
        items: impl Stream<Item = Result<u8, Status>> + Send + 'static,
    ) -> Vec<Result<u8, Code>> {
        let short = [(
            HeaderName::from_static(TIMEOUT_HEADER),
            HeaderValue::from_static("300m"),
        )];
        let deadline = Deadline::of(&short.into_iter().collect()).unwrap();
        let items = deadline.limit_stream(items);
        let all = items
            .map(|item| item.map_err(|status| status.code()))
            .collect();
        let limit = Duration::from_secs(10);
        tokio::time::timeout(limit, all).await.unwrap()
    }

    #[tokio::test]
    async fn a_stream_ends_at_its_deadline_whatever_comes() {
        let late = Err(Code::DeadlineExceeded);
        let silent = stream::iter([Ok(1)]).chain(stream::pending());
        assert_eq!(limited(silent).await, [Ok(1), late]);
        let busy = stream::repeat_with(|| {
            std::thread::sleep(Duration::from_millis(50));
            Ok(1)
        });
        let results = limited(busy).await;
        assert!(results.len() <= 7, "{results:?}");
        assert_eq!(results.last(), Some(&late));
    }

    #[tokio::test]
    async fn a_stream_that_ends_in_time_is_as_it_was() {
        let whole = stream::iter([Ok(1), Ok(2)]);
        assert_eq!(limited(whole).await, [Ok(1), Ok(2)]);
        let failed = stream::iter([Ok(1), Err(Status::not_found("gone"))]);
        let failed = failed.chain(stream::pending());
        assert_eq!(limited(failed).await, [Ok(1), Err(Code::NotFound)]);
    }
}
