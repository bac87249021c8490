//! Loops that accept or receive: which errors they pass over, and how long they rest after the others.

use std::{io, time::Duration};

/// How long to leave a socket alone when the system has no descriptor or memory to give: nothing tells when there is
/// some again.
pub(crate) const BACK_OFF: Duration = Duration::from_millis(100);

/// Rests before the socket is asked again, unless the error was one peer's. Ends with the loop that is dropped.
pub(crate) async fn after(error: &io::Error) {
    if !is_of_one_peer(error) {
        tokio::time::sleep(BACK_OFF).await;
    }
}

/// Errors that a socket passes on from one peer, and that say nothing of the next. accept(2), "Error handling".
pub(crate) fn is_of_one_peer(error: &io::Error) -> bool {
    use io::ErrorKind::*;
    matches!(
        error.kind(),
        ConnectionAborted
            | ConnectionReset
            | ConnectionRefused
            | NetworkDown
            | NetworkUnreachable
            | HostUnreachable
            | TimedOut
            | PermissionDenied
            | Interrupted
    )
}
