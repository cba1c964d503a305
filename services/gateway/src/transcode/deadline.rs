//! How long a call may take, as the client says (`grpc-timeout`).

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use futures::{Stream, StreamExt as _, future, stream};
use tokio::time::Instant;
use tonic::{Code, Status};

const TIMEOUT: &str = "grpc-timeout";

/// No call is bound to end later than that: a longer time is taken for this one.
const MAX: Duration = Duration::from_hours(24);

/// When a call has to have ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline {
    end: Option<Instant>,
    timeout: Duration,
}

impl Deadline {
    /// The deadline of a request, from now on.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Status> {
        let Some(given) = headers.get(TIMEOUT) else {
            return Ok(Self {
                end: None,
                timeout: MAX,
            });
        };
        let timeout = given.to_str().ok().and_then(timeout).ok_or_else(|| {
            Status::invalid_argument(format!(
                "{TIMEOUT}: {given:?} is not up to eight digits and a unit of H, M, S, m, u or n"
            ))
        })?;
        let timeout = timeout.min(MAX);
        Ok(Self {
            end: Some(Instant::now() + timeout),
            timeout,
        })
    }

    /// Tells the service, which then need not go on for nobody.
    pub(super) fn tell(self, metadata: &mut HeaderMap) -> Result<(), Status> {
        if self.end.is_some() {
            let text = format!("{}m", self.timeout.as_millis());
            let value = HeaderValue::from_str(&text);
            let value = value.map_err(|_| Status::internal("a deadline is not a header"))?;
            metadata.insert(HeaderName::from_static(TIMEOUT), value);
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

    /// A stream that ends with an error when it took too long.
    pub(super) fn limit_stream<T: Send + 'static>(
        self,
        items: impl Stream<Item = Result<T, Status>> + Send + 'static,
    ) -> stream::BoxStream<'static, Result<T, Status>> {
        let Some(end) = self.end else {
            return items.boxed();
        };
        let late = stream::once(tokio::time::sleep_until(end)).map(|()| Err(exceeded()));
        let items = items.map(Some).chain(stream::once(future::ready(None)));
        let both = stream::select(items, late.map(Some));
        let mut over = false;
        both.take_while(move |item| {
            let more = !over && item.is_some();
            over |= matches!(item, Some(Err(_)));
            future::ready(more)
        })
        .filter_map(future::ready)
        .boxed()
    }
}

fn exceeded() -> Status {
    Status::deadline_exceeded("the call took longer than its grpc-timeout")
}

/// `TimeoutValue TimeoutUnit` of gRPC over HTTP/2.
fn timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
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
            assert_eq!(timeout(text), expected, "{text}");
        }
    }

    #[test]
    fn a_deadline_is_capped_and_told_on() {
        for (given, told) in [
            (None, None),
            (Some("1500m"), Some("1500m")),
            (Some("99999999H"), Some("86400000m")),
        ] {
            let header = given.map(|given| (HeaderName::from_static(TIMEOUT), given));
            let headers = header.map(|(name, value)| (name, HeaderValue::from_static(value)));
            let mut metadata = HeaderMap::new();
            let deadline = Deadline::of(&headers.into_iter().collect()).unwrap();
            deadline.tell(&mut metadata).unwrap();
            let value = metadata.get(TIMEOUT).map(|value| value.to_str().unwrap());
            assert_eq!(value, told, "{given:?}");
        }
        let broken = [(
            HeaderName::from_static(TIMEOUT),
            HeaderValue::from_static("soon"),
        )];
        let error = Deadline::of(&broken.into_iter().collect()).unwrap_err();
        assert!(error.message().starts_with("grpc-timeout: "), "{error}");
    }
}
