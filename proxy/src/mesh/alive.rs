//! Finding out that the other side of a connection is gone without a word.

use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::time::{sleep, timeout};

/// How often the other side is asked.
pub(super) const ASKED_EVERY: Duration = Duration::from_secs(10);
/// How long it may take to answer. A loaded machine may be slow; a dead one never answers.
const PATIENCE: Duration = Duration::from_secs(20);

/// Returns when the other side no longer answers. `before_asking` runs each time.
pub(super) async fn until_silent(mut pings: PingPong, mut before_asking: impl FnMut()) {
    loop {
        sleep(ASKED_EVERY).await;
        before_asking();
        if !matches!(timeout(PATIENCE, pings.ping(Ping::opaque())).await, Ok(Ok(_))) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tokio::{io::duplex, time::Instant};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_does_not_answer_is_silent_and_who_does_is_not() {
        let (near, far) = duplex(4096);
        let answering = tokio::spawn(async move {
            let mut connection = h2::server::handshake(far).await.unwrap();
            connection.accept().await.is_none()
        });
        let (_sender, mut connection) = h2::client::handshake(near).await.unwrap();
        let pings = connection.ping_pong().unwrap();
        tokio::spawn(connection);
        let mut asked = 0;
        let hour = Duration::from_secs(3_600);
        assert!(timeout(hour, until_silent(pings, || asked += 1)).await.is_err(), "it answers");
        assert_eq!(asked, 360);
        answering.abort();

        let (near, _far) = duplex(4096);
        let builder = h2::client::Builder::new();
        let (_sender, mut connection) = builder.handshake::<_, Bytes>(near).await.unwrap();
        let pings = connection.ping_pong().unwrap();
        tokio::spawn(connection);
        let begun = Instant::now();
        until_silent(pings, || ()).await;
        assert_eq!(begun.elapsed().as_secs(), (ASKED_EVERY + PATIENCE).as_secs());
    }
}
