//! The facts of one connection (or request) that a verdict rests on.

use std::net::IpAddr;

use crate::{CanonicalPath, Date, HostName, SpiffeId};

/// Which way the connection goes, seen from the workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the workload outwards.
    Egress,
    /// Towards the workload.
    Ingress,
}

/// How the host name was learnt: a claim, or something the proxy itself vouches for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HostEvidence {
    /// Server name indication of a ClientHello: a claim by the client.
    Sni,
    /// `Host` or `:authority` of an HTTP request: a claim by the client.
    HttpAuthority,
    /// The original destination is a synthetic address that the proxy gave out for exactly this name.
    Synthetic,
    /// The target of an explicit CONNECT or SOCKS5 request.
    Explicit,
}

/// What the proxy itself has ended of a connection's TLS before it looks at the bytes. Egress is always
/// [`Arrival::Plain`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Arrival {
    /// Nothing: it is as the client sent it.
    #[default]
    Plain,
    /// TLS 1.3, as the server that the client meant.
    Terminated,
    /// Mutual TLS 1.3 between workloads.
    Mesh,
}

/// What the first bytes showed the connection to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Observed {
    /// A well-formed TLS ClientHello.
    Tls {
        /// `supported_versions` offers TLS 1.3.
        offers_tls13: bool,
        /// An `encrypted_client_hello` extension is present (GREASE included).
        ech: bool,
    },
    /// A plaintext HTTP/1.x request or an HTTP/2 preface.
    Http,
    /// Neither, or not looked at (server-first, `protocol: tcp`).
    Opaque,
    /// A datagram.
    Udp,
}

/// A protocol that an HTTP request asks to go on with. Others are never switched to: whoever judges leaves the request's
/// `Upgrade` field out, as RFC 9110 section 7.8 lets a server, and judges what is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Upgrade {
    /// RFC 6455; over HTTP/2, RFC 8441.
    WebSocket,
}

impl Upgrade {
    /// The word that documents use.
    pub const fn word(self) -> &'static str {
        match self {
            Upgrade::WebSocket => "websocket",
        }
    }
}

/// One HTTP request: method, canonical path, and the upgrade it asks for.
#[derive(Clone, Copy, Debug)]
pub struct HttpFacts<'a> {
    /// Exact method token. An extended CONNECT (RFC 8441) is judged as the `GET` that it stands for.
    pub method: &'a str,
    /// Canonical path; judged and forwarded alike.
    pub path: &'a CanonicalPath,
    /// `Some`: the bytes after its head may be no HTTP any more.
    pub upgrade: Option<Upgrade>,
    /// It carries what a session of EC2 instance metadata (IMDSv2) asks of its method: `X-aws-ec2-metadata-token`, or with
    /// `PUT` a valid `X-aws-ec2-metadata-token-ttl-seconds`. Only grants look at it.
    pub session: bool,
}

/// Everything that [`crate::PolicySet::decide`] may look at. Nothing else influences a verdict.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// Egress or ingress.
    pub direction: Direction,
    /// The host name and how it was learnt.
    pub host: Option<(HostEvidence, &'a HostName)>,
    /// Egress: the original destination. Ingress: the peer's source address.
    /// IPv4-mapped IPv6 is already unwrapped. `None` in explicit mode by name and for synthetic addresses.
    pub address: Option<IpAddr>,
    /// Destination port, 1-65535.
    pub port: u16,
    /// What classify saw.
    pub observed: Observed,
    /// The proven identity of the far end, where there is one.
    pub peer: Option<&'a SpiffeId>,
    /// How it arrived; what was observed is what was inside.
    pub arrival: Arrival,
    /// Present when one HTTP request is judged rather than a whole connection.
    pub http: Option<HttpFacts<'a>>,
    /// The current day (UTC), which ends audit modes.
    pub today: Date,
}
