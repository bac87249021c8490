use sidegate_policy::{HostName, Observed};

use super::*;
use crate::addrs::OriginalDst;

fn head(method: &str, uri: &str, version: Version, hosts: &[&str]) -> request::Parts {
    let mut builder = hyper::Request::builder().method(method).uri(uri).version(version);
    for host in hosts {
        builder = builder.header(HOST, *host);
    }
    builder.body(()).unwrap().into_parts().0
}

fn connection(host: Option<(HostEvidence, &str)>, original: &str, synthetic: bool) -> Facts {
    Facts {
        client: None,
        peer: None,
        arrival: sidegate_policy::Arrival::Plain,
        host: host.map(|(evidence, host)| (evidence, HostName::parse(host).unwrap())),
        original: OriginalDst::new(original.parse().unwrap()),
        synthetic,
        observed: Observed::Http,
        flaw: None,
        http: None,
        certificate: None,
        unseen: false,
    }
}

fn read(method: &str, uri: &str, version: Version, hosts: &[&str]) -> Result<String, Reason> {
    Asked::read(&head(method, uri, version, hosts))
        .map(|asked| format!("{} {} {}", asked.method, asked.authority.to_str().unwrap(), asked.target))
}

#[test]
fn what_is_judged_is_what_is_forwarded() {
    let http1 = |uri: &str, host: &str| read("GET", uri, Version::HTTP_11, &[host]);
    assert_eq!(http1("/a/../b?x=/../y", "WWW.Ok.example.").unwrap(), "GET www.ok.example /b?x=/../y");
    assert_eq!(http1("http://ok.example/a", "ok.example:80").unwrap(), "GET ok.example:80 /a");
    assert_eq!(http1("/", "[2001:DB8::1]:8080").unwrap(), "GET [2001:db8::1]:8080 /");
    assert_eq!(read("GET", "http://ok.example/a", Version::HTTP_2, &[]).unwrap(), "GET ok.example /a");
}

#[test]
fn one_authority_or_none_at_all() {
    use Reason::*;
    for (method, uri, version, hosts, expected) in [
        ("GET", "/", Version::HTTP_11, &[][..], HostMissing),
        ("GET", "/", Version::HTTP_11, &["a.example", "a.example"], HttpMalformed),
        ("GET", "http://b.example/", Version::HTTP_11, &["a.example"], HostMismatch),
        ("GET", "http://a.example/", Version::HTTP_11, &[], HttpMalformed),
        ("GET", "http://b.example/", Version::HTTP_2, &["a.example"], HostMismatch),
        ("GET", "/", Version::HTTP_11, &["a_b!.example"], HostInvalid),
        ("GET", "/", Version::HTTP_11, &["user@a.example"], HttpMalformed),
        ("CONNECT", "a.example:443", Version::HTTP_11, &["a.example:443"], HttpMalformed),
        ("OPTIONS", "*", Version::HTTP_11, &["a.example"], HttpMalformed),
    ] {
        assert_eq!(read(method, uri, version, hosts), Err(expected), "{method} {uri} {hosts:?}");
    }
}

#[test]
fn a_request_is_for_its_connection() {
    let asked = |host: &str| Asked::read(&head("GET", "/", Version::HTTP_11, &[host])).unwrap();
    let by_header = connection(Some((HostEvidence::HttpAuthority, "a.example")), "192.0.2.1:80", false);
    let facts = asked("b.example").facts(&by_header).unwrap();
    assert_eq!(facts.host, Some((HostEvidence::HttpAuthority, HostName::parse("b.example").unwrap())));
    assert_eq!(asked("b.example:81").facts(&by_header), Err(Reason::HostMismatch));
    assert_eq!(asked("192.0.2.1").facts(&by_header).unwrap().host, None);
    assert_eq!(asked("192.0.2.2").facts(&by_header), Err(Reason::HostMismatch));

    let vouched = connection(Some((HostEvidence::Synthetic, "a.example")), "198.18.0.1:80", true);
    let facts = asked("a.example").facts(&vouched).unwrap();
    assert_eq!(facts.host, vouched.host);
    for other in ["b.example", "198.18.0.1"] {
        assert_eq!(asked(other).facts(&vouched), Err(Reason::HostMismatch), "{other}");
    }
}
