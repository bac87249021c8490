//! Reading the request for a stream: CONNECT, to an address and port and nothing else. RFC 9113 section 8.5.

use std::net::SocketAddr;

use hyper::{
    Method, StatusCode,
    header::HOST,
    http::{request::Parts, uri::Authority},
};

use crate::addrs::OriginalDst;

/// Where a stream is to lead. Fields besides `host` say nothing that counts: `baggage`, `forwarded` and their like are
/// what a peer says of itself.
///
/// # Errors
/// 405: no CONNECT; 400: no destination, or no single one.
pub(super) fn destination(request: &Parts) -> Result<OriginalDst, StatusCode> {
    if request.method != Method::CONNECT {
        return Err(StatusCode::METHOD_NOT_ALLOWED);
    }
    let extended = request.extensions.get::<h2::ext::Protocol>().is_some();
    let authority = request.uri.authority().ok_or(StatusCode::BAD_REQUEST)?;
    let same = |host: &hyper::header::HeaderValue| host.as_bytes() == authority.as_str().as_bytes();
    if extended || request.uri.scheme().is_some() || !request.headers.get_all(HOST).iter().all(same) {
        return Err(StatusCode::BAD_REQUEST);
    }
    address(authority).ok_or(StatusCode::BAD_REQUEST)
}

/// An address and a port: no name, no user, no zone, no default port, no second spelling of the port.
fn address(authority: &Authority) -> Option<OriginalDst> {
    let text = authority.as_str();
    let address: SocketAddr = text.parse().ok()?;
    let zoned = matches!(address, SocketAddr::V6(v6) if v6.scope_id() != 0) || text.contains('%');
    let port = address.port();
    if zoned || port == 0 || !text.ends_with(&format!(":{port}")) {
        return None;
    }
    Some(OriginalDst::new(address))
}

#[cfg(test)]
mod tests {
    use hyper::Request;

    use super::*;

    fn read(request: hyper::http::request::Builder) -> Result<String, u16> {
        let (parts, ()) = request.body(()).unwrap().into_parts();
        destination(&parts).map(|to| to.to_string()).map_err(|status| status.as_u16())
    }

    #[test]
    fn an_address_and_a_port_are_read() {
        for (authority, expected) in [
            ("10.1.2.3:8080", "10.1.2.3:8080"),
            ("[2001:db8::7]:443", "[2001:db8::7]:443"),
            ("[::ffff:10.1.2.3]:80", "10.1.2.3:80"),
        ] {
            let request = Request::builder().method("CONNECT").uri(authority);
            assert_eq!(read(request), Ok(expected.to_owned()), "{authority}");
        }
    }

    #[test]
    fn anything_else_is_no_destination() {
        for authority in [
            "10.1.2.3",
            "10.1.2.3:0",
            "10.1.2.3:080",
            "010.1.2.3:80",
            "10.1.2:80",
            "167837955:80",
            "app.example:80",
            "user@10.1.2.3:80",
            "[::1]",
            "[fe80::1%25eth0]:80",
            "10.1.2.3:65536",
        ] {
            // What is no authority at all never comes this far.
            let Ok(uri) = authority.parse::<hyper::Uri>() else { continue };
            assert_eq!(read(Request::builder().method("CONNECT").uri(uri)), Err(400), "{authority}");
        }
    }

    #[test]
    fn the_form_of_the_request_counts() {
        let asks = |method: &str, uri: &str| read(Request::builder().method(method).uri(uri));
        assert_eq!(asks("GET", "https://10.1.2.3:80/"), Err(405));
        assert_eq!(asks("CONNECT", "https://10.1.2.3:80/"), Err(400));
        let extended = h2::ext::Protocol::from_static("websocket");
        let request = || Request::builder().method("CONNECT").uri("10.1.2.3:80");
        assert_eq!(read(request().extension(extended)), Err(400));
        assert_eq!(read(request().header("host", "10.1.2.4:80")), Err(400));
        assert!(read(request().header("host", "10.1.2.3:80")).is_ok());
        assert!(read(request().header("baggage", "k8s=%%,,=").header("forwarded", "for=;;\"")).is_ok());
    }
}
