//! The access record: one JSON line per connection (per request in HTTP, per question in DNS).

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// The `schema` of this version.
pub const SCHEMA: &str = "sidegate.access/1";

/// One connection, request or question, and what became of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AccessRecord {
    /// [`SCHEMA`].
    pub schema: String,
    /// Start, RFC 3339 in UTC with milliseconds.
    pub time: String,
    /// `egress` or `ingress`.
    pub direction: String,
    /// The workload's SPIFFE ID, where it has one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub workload: Option<String>,
    /// The client's address.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub source: Option<SocketAddr>,
    /// Where the client meant to go.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub original_dst: Option<SocketAddr>,
    /// Where the proxy went.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub upstream: Option<SocketAddr>,
    /// The canonical host name.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub host: Option<String>,
    /// `tls`, `http`, `tcp`, `udp`, `dns`, `icmp`, `other`.
    pub protocol: String,
    /// TLS facts, where there is TLS.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tls: Option<TlsFacts>,
    /// DNS facts, for questions.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub dns: Option<DnsFacts>,
    /// HTTP facts, for requests.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub http: Option<HttpFacts>,
    /// `allowed`, `denied` or `would-deny`.
    pub verdict: String,
    /// The deciding policy.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub policy: Option<String>,
    /// The deciding rule.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rule: Option<String>,
    /// The stable word; see `sidegate_policy::Reason`.
    pub reason: String,
    /// For denials: the nearest rule and what it lacked, and the fix, in words.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub explanation: Option<String>,
    /// Generation of the policy set that decided last.
    pub generation: u64,
    /// Bytes from the client to the far end.
    pub bytes_sent: u64,
    /// Bytes from the far end to the client.
    pub bytes_received: u64,
    /// From accept to close.
    pub duration_ms: f64,
    /// How it ended.
    pub close_reason: CloseReason,
}

/// TLS facts of a record.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TlsFacts {
    /// Selected version, `1.3` or `1.2`; absent when the server never chose.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub version: Option<String>,
    /// The proven peer.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub peer: Option<String>,
}

/// DNS facts of a record.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DnsFacts {
    /// Record type asked for, such as `A`.
    pub question: String,
    /// Response code, such as `NOERROR` or `REFUSED`.
    pub response: String,
    /// Number of addresses in the answer.
    pub answers: usize,
}

/// HTTP facts of a record. Query strings are never kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpFacts {
    /// Method token.
    pub method: String,
    /// Canonical path.
    pub path: String,
    /// Status sent to the client.
    pub status: u16,
}

/// How a connection ended. Stable words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CloseReason {
    /// Both sides finished.
    Done,
    /// The client reset or vanished.
    ClientReset,
    /// The far end reset or vanished.
    UpstreamReset,
    /// Refused before anything was forwarded.
    Denied,
    /// A new policy no longer allows it.
    PolicyChanged,
    /// Nothing moved for the idle timeout.
    IdleTimeout,
    /// The proxy was draining and the deadline passed.
    Drained,
    /// Name resolution or dialling failed.
    ConnectFailed,
    /// The server's TLS is not what the rule demands.
    TlsRefused,
    /// The peer's certificate no longer holds (revoked, expired, its root retired), or our own has expired.
    PeerUntrusted,
    /// The proxy failed.
    Internal,
}
