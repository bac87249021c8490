//! The lines of an HTTP/1.x head, read so that no two readers could understand them differently.
//! RFC 9112 sections 3 and 5, RFC 9110 section 7.2.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use sidegate_policy::{HostName, HostNameError};

use super::{
    preface::{BodyLength, Preface, PrefaceError},
    upgrade::may_ask,
};

/// What a request line begins.
pub(super) enum RequestLine {
    Http1(Start),
    /// `PRI * HTTP/2.0`
    Http2,
}

/// A request line of HTTP/1.x.
#[derive(Debug)]
pub(super) struct Start {
    method: String,
    target: String,
    /// The authority of an absolute or CONNECT target.
    authority: Option<Authority>,
    minor: u8,
}

/// Host and port that a request names.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Authority {
    pub(super) host: Host,
    pub(super) port: Option<u16>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Host {
    Name(HostName),
    Address(IpAddr),
}

/// Methods by which HTTP is recognised before the version is seen (RFC 9110, RFC 5789).
const KNOWN_METHODS: [&[u8]; 9] =
    [b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH"];

/// `line` begins with a known method and a space.
pub(super) fn has_known_method(line: &[u8]) -> bool {
    KNOWN_METHODS.iter().any(|method| line.strip_prefix(*method).is_some_and(|rest| rest.starts_with(b" ")))
}

/// `line` ends in something that is meant as an HTTP version.
pub(super) fn ends_in_version(line: &[u8]) -> bool {
    line.rsplit(|byte| *byte == b' ').next().is_some_and(|last| last.starts_with(b"HTTP/"))
}

/// `tchar` of RFC 9110 section 5.6.2.
pub(super) fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

impl RequestLine {
    pub(super) fn parse(line: &[u8]) -> Result<RequestLine, PrefaceError> {
        let mut parts = line.split(|byte| *byte == b' ');
        let (Some(method), Some(target), Some(version), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(PrefaceError::Malformed);
        };
        let minor = match version {
            b"HTTP/1.0" => 0,
            b"HTTP/1.1" => 1,
            b"HTTP/2.0" if method == b"PRI" && target == b"*" => return Ok(RequestLine::Http2),
            _ => return Err(PrefaceError::Malformed),
        };
        let (target, authority) = split_target(method, text(target)?)?;
        let method = text(method)?.to_owned();
        Ok(RequestLine::Http1(Start { method, target, authority, minor }))
    }
}

/// Visible ASCII, at least one byte.
fn text(bytes: &[u8]) -> Result<&str, PrefaceError> {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(text),
        _ => Err(PrefaceError::Malformed),
    }
}

/// The path without its query, and the authority where the target has one. RFC 9112 section 3.2.
fn split_target(method: &[u8], target: &str) -> Result<(String, Option<Authority>), PrefaceError> {
    if target.contains('#') {
        return Err(PrefaceError::Malformed);
    }
    if method == b"CONNECT" {
        let authority = Authority::parse(target)?;
        return if authority.port.is_some() {
            Ok((target.to_owned(), Some(authority)))
        } else {
            Err(PrefaceError::Malformed)
        };
    }
    if target == "*" && method == b"OPTIONS" {
        return Ok((target.to_owned(), None));
    }
    let path_of = |target: &str| target.split('?').next().unwrap_or_default().to_owned();
    if target.starts_with('/') {
        return Ok((path_of(target), None));
    }
    let (scheme, rest) = target.split_once("://").ok_or(PrefaceError::Malformed)?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return Err(PrefaceError::Malformed);
    }
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let path = path_of(path);
    Ok((if path.is_empty() { "/".to_owned() } else { path }, Some(Authority::parse(authority)?)))
}

impl Authority {
    /// `host [":" port]`. User names are refused: `a@b` has misled many a reader.
    pub(super) fn parse(text: &str) -> Result<Authority, PrefaceError> {
        if text.contains('@') {
            return Err(PrefaceError::Malformed);
        }
        let (host, port) = match text.strip_prefix('[') {
            Some(literal) => {
                let (address, after) = literal.split_once(']').ok_or(PrefaceError::HostInvalid)?;
                let address: Ipv6Addr = address.parse().map_err(|_| PrefaceError::HostInvalid)?;
                (Host::Address(address.into()), after)
            }
            None => {
                let (host, port) = text.split_at(text.find(':').unwrap_or(text.len()));
                (Host::parse(host)?, port)
            }
        };
        let port = match port.strip_prefix(':') {
            Some(digits) => Some(parse_port(digits)?),
            None if port.is_empty() => None,
            None => return Err(PrefaceError::Malformed),
        };
        Ok(Authority { host, port })
    }

    /// The same host and port; plaintext HTTP's default port may be left out.
    pub(super) fn names_the_same(&self, other: &Authority) -> bool {
        self.host == other.host && self.port.unwrap_or(80) == other.port.unwrap_or(80)
    }
}

impl std::fmt::Display for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.host {
            Host::Name(name) => write!(f, "{name}")?,
            Host::Address(IpAddr::V6(address)) => write!(f, "[{address}]")?,
            Host::Address(address) => write!(f, "{address}")?,
        }
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

impl Host {
    fn parse(text: &str) -> Result<Host, PrefaceError> {
        match HostName::parse(text) {
            Ok(name) => Ok(Host::Name(name)),
            // Only the dotted quad; `0x7f.1` and the like are read differently by different readers.
            Err(HostNameError::Address) => match text.parse::<Ipv4Addr>() {
                Ok(address) => Ok(Host::Address(address.into())),
                Err(_) => Err(PrefaceError::HostInvalid),
            },
            Err(_) => Err(PrefaceError::HostInvalid),
        }
    }
}

fn parse_port(digits: &str) -> Result<u16, PrefaceError> {
    let plain = digits.len() <= 5 && digits.bytes().all(|byte| byte.is_ascii_digit());
    match digits.parse() {
        Ok(port @ 1..) if plain => Ok(port),
        _ => Err(PrefaceError::Malformed),
    }
}

/// A head whose header lines are still coming.
#[derive(Debug)]
pub(super) struct Head {
    start: Option<Start>,
    host: Option<Authority>,
    content_length: Option<u64>,
    transfer_encoding: bool,
    /// It may ask for another protocol.
    pub(super) upgrades: bool,
}

impl Head {
    pub(super) fn new(start: Start) -> Self {
        Head {
            start: Some(start),
            host: None,
            content_length: None,
            transfer_encoding: false,
            upgrades: false,
        }
    }

    /// Takes one header line, without its CRLF.
    pub(super) fn take_line(&mut self, line: &[u8]) -> Result<(), PrefaceError> {
        let (name, value) = line
            .iter()
            .position(|byte| *byte == b':')
            .and_then(|colon| line.split_at_checked(colon))
            .ok_or(PrefaceError::Malformed)?;
        // No token byte is a space: this refuses folded lines and a space before the colon too.
        if name.is_empty() || !name.iter().all(|byte| is_token_byte(*byte)) {
            return Err(PrefaceError::Malformed);
        }
        let value = value.strip_prefix(b":").unwrap_or_default();
        if value.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
            return Err(PrefaceError::Malformed);
        }
        let value = value.trim_ascii();
        if name.eq_ignore_ascii_case(b"host") {
            let authority = Authority::parse(text(value).map_err(|_| PrefaceError::HostInvalid)?)?;
            once(self.host.replace(authority).is_none())?;
        } else if name.eq_ignore_ascii_case(b"content-length") {
            once(self.content_length.replace(length(value)?).is_none())?;
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            once(!std::mem::replace(&mut self.transfer_encoding, true))?;
            once(value.eq_ignore_ascii_case(b"chunked"))?;
        } else if name.eq_ignore_ascii_case(b"upgrade") {
            self.upgrades |= may_ask(value);
        }
        Ok(())
    }

    /// The empty line came.
    pub(super) fn finish(&mut self) -> Result<Preface, PrefaceError> {
        let start = self.start.take().ok_or(PrefaceError::Malformed)?;
        let ambiguous_length = self.transfer_encoding && (self.content_length.is_some() || start.minor == 0);
        if ambiguous_length || (self.host.is_none() && start.minor == 1) {
            return Err(PrefaceError::Malformed);
        }
        let authority = match (self.host.take(), start.authority) {
            (Some(host), Some(target)) if !host.names_the_same(&target) => {
                return Err(PrefaceError::HostMismatch);
            }
            (host, target) => host.or(target),
        };
        let (host, host_address) = match authority.map(|authority| authority.host) {
            Some(Host::Name(name)) => (Some(name), None),
            Some(Host::Address(address)) => (None, Some(address)),
            None => (None, None),
        };
        let body = match self.content_length {
            _ if self.transfer_encoding => BodyLength::Chunked,
            length => BodyLength::Exactly(length.unwrap_or(0)),
        };
        Ok(Preface::Http1 { method: start.method, target: start.target, host, host_address, body })
    }
}

/// Decimal digits alone, in 64 bits.
fn length(digits: &[u8]) -> Result<u64, PrefaceError> {
    let plain = digits.iter().all(u8::is_ascii_digit);
    let length = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
    length.filter(|_| plain).ok_or(PrefaceError::Malformed)
}

/// What a head may hold once only, or in one form only.
fn once(holds: bool) -> Result<(), PrefaceError> {
    if holds { Ok(()) } else { Err(PrefaceError::Malformed) }
}
