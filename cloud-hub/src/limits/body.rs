//! How long may a body take? Ten seconds and one more for every 64 KiB that arrived: a plant behind a slow line
//! gets through, whoever sends a byte now and then does not hold the request open.

use std::time::Duration;

use axum::body::{Body, BodyDataStream, Bytes, HttpBody as _};
use futures_util::{StreamExt as _, stream};
use tokio::time::{Instant, timeout_at};

/// What a sender must manage at least, once its first seconds are over.
const BYTES_PER_S: u64 = 64 * 1024;

/// The body took longer than it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the body arrived too slowly")]
pub struct TooSlow;

impl TooSlow {
    /// Whether this is why a body could not be read.
    pub fn is_cause_of(error: &(dyn std::error::Error + 'static)) -> bool {
        let mut cause = Some(error);
        while let Some(error) = cause {
            if error.is::<Self>() {
                return true;
            }
            cause = error.source();
        }
        false
    }
}

/// When a body of which `bytes` arrived is too late.
fn allowed(patience: Duration, bytes: u64) -> Duration {
    patience.saturating_add(Duration::from_millis(bytes.saturating_mul(1000) / BYTES_PER_S))
}

struct Arriving {
    data: BodyDataStream,
    since: Instant,
    bytes: u64,
    is_over: bool,
}

/// The same body, which fails with [`TooSlow`].
pub fn patient(body: Body, patience: Duration) -> Body {
    if body.is_end_stream() {
        return body;
    }
    let arriving = Arriving {
        data: body.into_data_stream(),
        since: Instant::now(),
        bytes: 0,
        is_over: false,
    };
    Body::from_stream(stream::unfold(arriving, move |arriving| next(arriving, patience)))
}

async fn next(mut body: Arriving, patience: Duration) -> Option<(Result<Bytes, axum::BoxError>, Arriving)> {
    if body.is_over {
        return None;
    }
    let late = body.since + allowed(patience, body.bytes);
    let part = match timeout_at(late, body.data.next()).await {
        Ok(part) => part?.map_err(Into::into),
        Err(_) => Err(TooSlow.into()),
    };
    match &part {
        Ok(bytes) => body.bytes += bytes.len() as u64,
        Err(_) => body.is_over = true,
    }
    Some((part, body))
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;

    use super::*;

    #[tokio::test]
    async fn a_body_that_stops_is_cut_off_and_says_why() {
        let patience = Duration::from_millis(20);
        let parts = || stream::iter(["a", "b"]).map(|part| Ok::<_, std::io::Error>(Bytes::from(part)));
        let whole = patient(Body::from_stream(parts()), patience);
        assert_eq!(to_bytes(whole, 100).await.unwrap(), "ab");
        let stuck = Body::from_stream(parts().chain(stream::pending()));
        let error = to_bytes(patient(stuck, patience), 100).await.unwrap_err();
        assert!(TooSlow::is_cause_of(&error), "{error:?}");
        let large = to_bytes(patient(Body::from_stream(parts()), patience), 1)
            .await
            .unwrap_err();
        assert!(!TooSlow::is_cause_of(&large), "{large:?}");
    }

    #[test]
    fn more_bytes_may_take_more_time() {
        let patience = Duration::from_secs(10);
        assert_eq!(allowed(patience, 0), patience);
        assert_eq!(allowed(patience, 1024 * 1024), Duration::from_secs(26));
        assert!(allowed(Duration::MAX, u64::MAX) >= Duration::from_secs(1));
    }
}
