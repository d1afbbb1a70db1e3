//! Waiting for something that happens in another process.

use std::time::{Duration, Instant};

/// How long anything may take that works; generous, since the machine may be busy, and no test waits it out.
pub const LONG: Duration = Duration::from_secs(30);

/// How long a test watches that something does **not** happen.
pub const SHORT: Duration = Duration::from_millis(700);

/// Between two looks: files, ports and other processes' states raise no events that could be awaited.
const POLL: Duration = Duration::from_millis(20);

/// Asks `probe` until it has an answer, and returns it.
///
/// # Panics
/// After `limit`, with `what` was waited for.
pub async fn wait_until<T>(what: &str, limit: Duration, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + limit;
    loop {
        if let Some(answer) = probe().await {
            return answer;
        }
        assert!(Instant::now() < end, "waited {limit:?} in vain: {what}");
        tokio::time::sleep(POLL).await;
    }
}
