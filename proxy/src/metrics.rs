//! The names of our metrics, and their handles looked up once. Labels are bounded words, never names or addresses.

use std::sync::OnceLock;

use metrics::{
    Counter, Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram, gauge,
    histogram,
};
use sidegate_api::CloseReason;
use sidegate_policy::{Generation, Reason, Verdict};

/// Connections by `verdict` and `reason`.
pub const CONNECTIONS: &str = "sidegate_connections_total";
/// HTTP requests by `verdict` and `reason`.
pub const REQUESTS: &str = "sidegate_requests_total";
/// Connections by how they ended (`close_reason`).
pub const CLOSED: &str = "sidegate_connections_closed_total";
/// Connections that live now.
pub const ACTIVE: &str = "sidegate_connections_active";
/// Bytes by `direction`, `sent` or `received`, seen from the workload.
pub const BYTES: &str = "sidegate_bytes_total";
/// From accept to close, in seconds.
pub const DURATION: &str = "sidegate_connection_duration_seconds";
/// From the verdict to a connected socket, name resolution included, in seconds.
pub const CONNECT: &str = "sidegate_connect_duration_seconds";
/// TLS handshakes passed through, by the `version` that the server selected.
pub const HANDSHAKES: &str = "sidegate_tls_handshakes_total";
/// Accept calls that failed for want of descriptors or memory.
pub const ACCEPT_ERRORS: &str = "sidegate_accept_errors_total";
/// DNS questions by `verdict` and `reason`.
pub const QUESTIONS: &str = "sidegate_dns_questions_total";
/// The generation of the policy set that judges now.
pub const GENERATION: &str = "sidegate_policy_generation";
/// Access records dropped because the sinks were too slow.
pub const RECORDS_DROPPED: &str = "sidegate_access_records_dropped_total";
/// Access records that a sink could not write.
pub const RECORDS_LOST: &str = "sidegate_access_records_lost_total";

/// Handles of the per-connection metrics; a series appears when it is first counted.
pub(crate) struct Meters {
    connections: [[OnceLock<Counter>; Reason::ALL.len()]; 3],
    requests: [[OnceLock<Counter>; Reason::ALL.len()]; 3],
    closed: [OnceLock<Counter>; CLOSE_REASONS.len()],
    pub(crate) active: Gauge,
    pub(crate) sent: Counter,
    pub(crate) received: Counter,
    pub(crate) duration: Histogram,
    pub(crate) connect: Histogram,
    pub(crate) tls13: Counter,
    pub(crate) tls12: Counter,
    pub(crate) accept_errors: Counter,
}

impl Meters {
    /// Looks the handles up in the recorder that is installed now.
    pub(crate) fn new() -> Self {
        describe();
        Meters {
            connections: std::array::from_fn(|_| std::array::from_fn(|_| OnceLock::new())),
            requests: std::array::from_fn(|_| std::array::from_fn(|_| OnceLock::new())),
            closed: std::array::from_fn(|_| OnceLock::new()),
            active: gauge!(ACTIVE),
            sent: counter!(BYTES, "direction" => "sent"),
            received: counter!(BYTES, "direction" => "received"),
            duration: histogram!(DURATION),
            connect: histogram!(CONNECT),
            tls13: counter!(HANDSHAKES, "version" => "1.3"),
            tls12: counter!(HANDSHAKES, "version" => "1.2"),
            accept_errors: counter!(ACCEPT_ERRORS),
        }
    }

    /// Connections with this verdict and reason.
    pub(crate) fn connections(&self, verdict: Verdict, reason: Reason) -> &Counter {
        self.connections[verdict as usize][reason as usize].get_or_init(
            || counter!(CONNECTIONS, "verdict" => verdict_word(verdict), "reason" => reason.word()),
        )
    }

    /// HTTP requests with this verdict and reason.
    pub(crate) fn requests(&self, verdict: Verdict, reason: Reason) -> &Counter {
        self.requests[verdict as usize][reason as usize]
            .get_or_init(|| counter!(REQUESTS, "verdict" => verdict_word(verdict), "reason" => reason.word()))
    }

    /// Connections that ended so.
    pub(crate) fn closed(&self, close: CloseReason) -> &Counter {
        self.closed[close as usize]
            .get_or_init(|| counter!(CLOSED, "close_reason" => CLOSE_REASONS[close as usize].1))
    }
}

/// Counts one DNS question.
pub(crate) fn question(verdict: Verdict, reason: Reason) {
    counter!(QUESTIONS, "verdict" => verdict_word(verdict), "reason" => reason.word()).increment(1);
}

/// Tells the recorder which generation judges.
pub(crate) fn generation(now: Generation) {
    gauge!(GENERATION).set(now.0 as f64);
}

/// The word of records and labels.
pub(crate) const fn verdict_word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Allowed => "allowed",
        Verdict::Denied => "denied",
        Verdict::WouldDeny => "would-deny",
    }
}

/// In the order of the enum.
const CLOSE_REASONS: [(CloseReason, &str); 11] = [
    (CloseReason::Done, "done"),
    (CloseReason::ClientReset, "client-reset"),
    (CloseReason::UpstreamReset, "upstream-reset"),
    (CloseReason::Denied, "denied"),
    (CloseReason::PolicyChanged, "policy-changed"),
    (CloseReason::IdleTimeout, "idle-timeout"),
    (CloseReason::Drained, "drained"),
    (CloseReason::ConnectFailed, "connect-failed"),
    (CloseReason::TlsRefused, "tls-refused"),
    (CloseReason::PeerUntrusted, "peer-untrusted"),
    (CloseReason::Internal, "internal"),
];

fn describe() {
    describe_counter!(CONNECTIONS, "Connections by verdict and reason.");
    describe_counter!(REQUESTS, "HTTP requests by verdict and reason.");
    describe_counter!(CLOSED, "Connections by how they ended.");
    describe_gauge!(ACTIVE, "Connections that live now.");
    describe_counter!(BYTES, metrics::Unit::Bytes, "Bytes relayed, seen from the workload.");
    describe_histogram!(DURATION, metrics::Unit::Seconds, "From accept to close.");
    describe_histogram!(CONNECT, metrics::Unit::Seconds, "From the verdict to a connected socket.");
    describe_counter!(HANDSHAKES, "TLS handshakes passed through, by the version that the server selected.");
    describe_counter!(ACCEPT_ERRORS, "Accept calls that failed for want of descriptors or memory.");
    describe_counter!(QUESTIONS, "DNS questions by verdict and reason.");
    describe_gauge!(GENERATION, "The generation of the policy set that judges now.");
    describe_counter!(RECORDS_DROPPED, "Access records dropped because the sinks were too slow.");
    describe_counter!(RECORDS_LOST, "Access records that a sink could not write.");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn close_reason_words_are_those_of_the_record() {
        for (place, (close, word)) in CLOSE_REASONS.iter().enumerate() {
            assert_eq!(*close as usize, place);
            assert_eq!(serde_json::to_string(close).unwrap(), format!("\"{word}\""));
        }
    }

    #[test]
    fn reasons_are_numbered_in_order() {
        assert!(Reason::ALL.iter().enumerate().all(|(place, reason)| *reason as usize == place));
    }
}
