//! One request as the policy sees it: exact method, canonical path, one canonical host. Judged and forwarded alike.

#[cfg(test)]
mod tests;

use std::net::IpAddr;

use hyper::{
    Method, Version,
    header::{CONTENT_LENGTH, EXPECT, HOST, HeaderValue, TRANSFER_ENCODING},
    http::{request, uri::PathAndQuery},
};
use sidegate_policy::{CanonicalPath, HostEvidence, Reason, Upgrade};

use super::{
    head::{Authority, Host},
    upgrade,
};
use crate::connection::decide::{Facts, Requested};

/// What a request asks for.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) path: CanonicalPath,
    /// The canonical path, with the query as it came.
    pub(crate) target: PathAndQuery,
    /// The protocol that it asks to go on with.
    pub(crate) upgrade: Option<Upgrade>,
    /// It carries the fields of an IMDSv2 session. Their values are passed on, and kept nowhere.
    pub(crate) session: bool,
    /// Its client sends the body only once it is told to.
    pub(crate) expects: bool,
    /// Whom it names, as it is forwarded.
    pub(crate) authority: HeaderValue,
    host: Host,
    port: Option<u16>,
}

impl Asked {
    /// Reads a head. `port` is where the connection was going.
    ///
    /// # Errors
    /// A form that readers could take differently, a method that is no request for a resource, or two hosts.
    pub(crate) fn read(head: &request::Parts) -> Result<Self, Reason> {
        let upgrade = upgrade::asked(head)?;
        // In HTTP/2 a WebSocket is a kind of CONNECT, which stands for a GET. RFC 8441 section 5.
        let method = if upgrade.is_some() { Method::GET } else { head.method.clone() };
        let expects = expects(head)?;
        let session = has_session(head);
        let authority = authority(head)?;
        let path = CanonicalPath::parse(head.uri.path()).map_err(|_| Reason::HttpMalformed)?;
        let mut target = path.as_str().to_owned();
        if let Some(query) = head.uri.query() {
            target.push('?');
            target.push_str(query);
        }
        let target = PathAndQuery::try_from(target).map_err(|_| Reason::HttpMalformed)?;
        let text = authority.to_string();
        let value = HeaderValue::from_str(&text).map_err(|_| Reason::HostInvalid)?;
        let Authority { host, port } = authority;
        Ok(Asked { method, path, upgrade, expects, session, target, authority: value, host, port })
    }

    /// The facts of this request on a connection with these.
    ///
    /// # Errors
    /// It names another host or port than the connection is for.
    pub(crate) fn facts(&self, connection: &Facts) -> Result<Facts, Reason> {
        let requested = Requested {
            method: self.method.as_str().into(),
            path: self.path.clone(),
            upgrade: self.upgrade,
            session: self.session,
            bare: false,
        };
        let mut facts = Facts { http: Some(requested), flaw: None, unseen: false, ..connection.clone() };
        // Towards the workload it is known by whatever name and port its clients use.
        if connection.client.is_some() {
            facts.host = match &self.host {
                Host::Name(named) => Some((HostEvidence::HttpAuthority, named.clone())),
                Host::Address(_) => None,
            };
            return Ok(facts);
        }
        let port = connection.original.port();
        if self.port.is_some_and(|named| named != port) {
            return Err(Reason::HostMismatch);
        }
        facts.host = match (&connection.host, &self.host) {
            // What the proxy itself vouches for is not for a header to change.
            (Some((evidence, known)), Host::Name(named)) if *evidence != HostEvidence::HttpAuthority => {
                if known != named {
                    return Err(Reason::HostMismatch);
                }
                Some((*evidence, known.clone()))
            }
            (Some((evidence, _)), Host::Address(_)) if *evidence != HostEvidence::HttpAuthority => {
                return Err(Reason::HostMismatch);
            }
            (_, Host::Name(named)) => Some((HostEvidence::HttpAuthority, named.clone())),
            (_, Host::Address(address)) if same(*address, connection) => None,
            (_, Host::Address(_)) => return Err(Reason::HostMismatch),
        };
        Ok(facts)
    }
}

/// `Expect: 100-continue`, of a request with a body; nothing else can be expected. RFC 9110 section 10.1.1.
fn expects(head: &request::Parts) -> Result<bool, Reason> {
    let mut values = head.headers.get_all(EXPECT).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(false),
        (Some(value), None) if value.as_bytes().eq_ignore_ascii_case(b"100-continue") => {
            let empty = head.headers.get(CONTENT_LENGTH).map(HeaderValue::as_bytes) == Some(b"0");
            let body = head.headers.contains_key(TRANSFER_ENCODING)
                || head.headers.contains_key(CONTENT_LENGTH) && !empty;
            Ok(head.version == Version::HTTP_11 && body)
        }
        _ => Err(Reason::HttpMalformed),
    }
}

/// The longest life of an IMDSv2 session, in seconds. Amazon EC2 user guide, "Use the Instance Metadata Service".
const SESSION_SECONDS: u32 = 21_600;

/// A token, or for a `PUT` how long one is wanted for: once, and in order.
fn has_session(head: &request::Parts) -> bool {
    let once = |name: &str| {
        let mut values = head.headers.get_all(name).iter();
        values.next().filter(|_| values.next().is_none()).map(HeaderValue::as_bytes)
    };
    if head.method != Method::PUT {
        return once("x-aws-ec2-metadata-token").is_some_and(|token| !token.is_empty());
    }
    let seconds =
        once("x-aws-ec2-metadata-token-ttl-seconds").and_then(|text| std::str::from_utf8(text).ok());
    let plain = seconds.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    plain.and_then(|text| text.parse().ok()).is_some_and(|seconds| (1..=SESSION_SECONDS).contains(&seconds))
}

fn same(named: IpAddr, connection: &Facts) -> bool {
    !connection.synthetic && named == connection.original.ip()
}

/// The one authority of a request: of its target, of `Host`, or of both if they agree. RFC 9112 section 3.2, RFC 9113
/// section 8.3.1.
fn authority(head: &request::Parts) -> Result<Authority, Reason> {
    let parse = |text: &str| Authority::parse(text).map_err(Reason::from);
    let named = head.uri.authority().map(|authority| parse(authority.as_str())).transpose()?;
    let mut fields = head.headers.get_all(HOST).iter();
    let host = match (fields.next(), fields.next()) {
        (None, _) => None,
        (Some(value), None) => Some(parse(value.to_str().map_err(|_| Reason::HostInvalid)?)?),
        (Some(_), Some(_)) => return Err(Reason::HttpMalformed),
    };
    match (named, host) {
        (Some(named), Some(host)) if !named.names_the_same(&host) => Err(Reason::HostMismatch),
        // `:authority` is what an HTTP/2 request is for; in HTTP/1.1 `Host` must be there too.
        (None, None) => Err(Reason::HostMissing),
        (Some(_), None) if head.version < Version::HTTP_2 => Err(Reason::HttpMalformed),
        (_, Some(host)) => Ok(host),
        (Some(named), None) => Ok(named),
    }
}
