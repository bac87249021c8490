//! One request as the policy sees it: exact method, canonical path, one canonical host. Judged and forwarded alike.

#[cfg(test)]
mod tests;

use std::net::IpAddr;

use hyper::{
    Method, Version,
    header::{HOST, HeaderValue},
    http::{request, uri::PathAndQuery},
};
use sidegate_policy::{CanonicalPath, HostEvidence, Reason};

use super::head::{Authority, Host};
use crate::connection::decide::{Facts, Requested};

/// What a request asks for.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) path: CanonicalPath,
    /// The canonical path, with the query as it came.
    pub(crate) target: PathAndQuery,
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
        // CONNECT would make a tunnel of what was judged as a request.
        if head.method == Method::CONNECT {
            return Err(Reason::HttpMalformed);
        }
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
        Ok(Asked { method: head.method.clone(), path, target, authority: value, host, port })
    }

    /// The facts of this request on a connection with these.
    ///
    /// # Errors
    /// It names another host or port than the connection is for.
    pub(crate) fn facts(&self, connection: &Facts) -> Result<Facts, Reason> {
        let requested = Requested { method: self.method.as_str().into(), path: self.path.clone() };
        let mut facts = Facts { http: Some(requested), flaw: None, unseen: false, ..connection.clone() };
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
