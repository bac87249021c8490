//! What a rule demands beside its treatment. Few rules do; [`crate::Treatment::demands`] says which, and
//! [`crate::PolicySet::demands`] what.

/// Everything that a rule demands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Demands {
    /// `limits`; only of rules that are judged per request.
    pub limit: Option<RequestLimit>,
    /// What `tls` says beside its mode; only of `originate` and `inspect`.
    pub origin: OriginTls,
    /// `tls.certificate`, a label as roots have: what clients are shown whose TLS ends here; only of `terminate`. `None`: the
    /// workload's own.
    pub certificate: Option<Box<str>>,
    /// `proxyProtocol` or `forwarded`; only of ingress rules.
    pub client_address: Option<ClientAddress>,
}

/// How many requests a rule allows, all its connections taken together: a bucket of `burst` tokens that fills at
/// `per_second`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestLimit {
    /// `requestsPerSecond`, 1 to 1,000,000.
    pub per_second: u32,
    /// `burst`, 1 to 1,000,000; as many as `per_second` where nothing else is written.
    pub burst: u32,
}

/// How the server of an originated connection is verified, and what it is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct OriginTls {
    /// A label, `[a-z0-9-]{1,63}`, that the operator's configuration maps to roots. These alone are believed; `None`: the
    /// system's.
    pub roots: Option<Box<str>>,
    /// `sha256/` and 44 characters of Base64, the digest of a SubjectPublicKeyInfo (RFC 7469 section 2.4): one of them has
    /// to be in the verified chain. Empty: any chain will do.
    pub pins: Vec<String>,
    /// The workload's own certificate is shown to servers that ask for one.
    pub client_identity: bool,
}

/// How the application learns the address that a client connected from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClientAddress {
    /// A PROXY protocol header, version 2, before the first byte of each connection.
    ProxyProtocol,
    /// A `Forwarded` field (RFC 7239) in each request.
    Forwarded,
}

impl ClientAddress {
    /// The field that documents use.
    pub const fn word(self) -> &'static str {
        match self {
            ClientAddress::ProxyProtocol => "proxyProtocol",
            ClientAddress::Forwarded => "forwarded",
        }
    }
}

/// Nothing.
pub static NONE: Demands = Demands {
    limit: None,
    origin: OriginTls { roots: None, pins: Vec::new(), client_identity: false },
    certificate: None,
    client_address: None,
};

impl Demands {
    /// Nothing is demanded.
    pub fn is_empty(&self) -> bool {
        *self == Demands::default()
    }
}
