//! The policy's texts and types.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use sidegate_api::access_record::AccessRecord;
use sidegate_policy::{
    Arrival, CanonicalPath, CompileOptions, Date, Direction, HostEvidence, HostName, HostPattern, Observed,
    PathPattern, PolicySet, Request, Source, SpiffeId, SpiffePattern, Verdict,
    deny_table::{denied_answer, denied_destination},
    document,
};

use super::text;

/// Diagnostics point into the text; documents survive being written and read; sets judge without panicking, and
/// what is denied has no treatment.
pub fn policy_document(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    let source = Source::new("fuzz.yaml", text);
    let documents = match document::parse(&source) {
        Ok(documents) => documents,
        Err(diagnostics) => {
            assert!(!diagnostics.is_empty(), "a refusal says why");
            for diagnostic in diagnostics {
                assert!(text.get(diagnostic.span.clone()).is_some(), "{diagnostic}");
                assert_eq!((diagnostic.line, diagnostic.column), source.place(diagnostic.span.start));
            }
            return;
        }
    };
    for document in &documents {
        let yaml = document.to_yaml();
        let again = document::parse(&Source::new("again.yaml", &*yaml)).expect("what we wrote");
        assert_eq!(again.len(), 1);
        assert_eq!(again[0].to_yaml(), yaml);
    }
    let Ok(set) = PolicySet::compile(&documents, &CompileOptions::default()) else { return };
    let host = HostName::parse("api.stripe.com").expect("a name");
    for port in [22, 53, 80, 443, 8080] {
        for observed in [
            Observed::Tls { offers_tls13: true, ech: false },
            Observed::Http,
            Observed::Opaque,
            Observed::Udp,
        ] {
            for address in [None, Some(IpAddr::from([10, 2, 0, 1])), Some(IpAddr::from([169, 254, 169, 254]))]
            {
                let request = Request {
                    direction: Direction::Egress,
                    arrival: Arrival::Plain,
                    host: Some((HostEvidence::Sni, &host)),
                    address,
                    port,
                    observed,
                    peer: None,
                    http: None,
                    today: Date::from_days(20_000),
                };
                let decision = set.decide(&request);
                assert_eq!(decision.treatment.is_none(), decision.verdict == Verdict::Denied);
            }
        }
    }
}

/// Cases are read or refused with a reason.
pub fn policy_cases(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    let source = Source::new("cases.yaml", text);
    match document::cases::parse_cases(&source) {
        Ok(cases) => {
            let set = PolicySet::empty(sidegate_policy::Generation::default());
            cases.iter().for_each(|case| drop(case.judge(&set, Date::from_days(20_000), |_, _| true)));
        }
        Err(diagnostics) => assert!(!diagnostics.is_empty(), "a refusal says why"),
    }
}

/// A name is canonical: parsing it again changes nothing, and it is safe in any text.
pub fn host_name(bytes: &[u8]) {
    let Ok(host) = HostName::from_bytes(bytes) else { return };
    assert_eq!(HostName::parse(host.as_str()).as_ref(), Ok(&host));
    assert!((1..=253).contains(&host.as_str().len()));
    assert!(host.as_str().bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.')));
    assert!(host.as_str().parse::<IpAddr>().is_err());
    assert!(host.as_str().split('.').all(|label| (1..=63).contains(&label.len())));
}

/// A pattern survives being written, and never reaches beyond its suffix.
pub fn host_pattern(bytes: &[u8]) {
    let Some((pattern, host)) = text(bytes).and_then(|text| text.split_once('\n')) else { return };
    let Ok(pattern) = HostPattern::parse(pattern) else { return };
    assert_eq!(HostPattern::parse(&pattern.to_string()).as_ref(), Ok(&pattern));
    let Ok(host) = HostName::parse(host) else { return };
    if pattern.matches(&host) {
        match &pattern {
            HostPattern::Exact(name) => assert_eq!(*name, host),
            HostPattern::OneLabel(suffix) | HostPattern::AnyDepth(suffix) => {
                let before =
                    host.as_str().strip_suffix(suffix.as_str()).and_then(|rest| rest.strip_suffix('.'));
                let before = before.expect("a label boundary");
                assert!(
                    !before.is_empty()
                        && (matches!(pattern, HostPattern::AnyDepth(_)) || !before.contains('.'))
                );
            }
        }
    }
}

/// A path is canonical: parsing it again changes nothing, and no reader can go up in it.
pub fn url_path(bytes: &[u8]) {
    let Some(Ok(path)) = text(bytes).map(CanonicalPath::parse) else { return };
    assert_eq!(CanonicalPath::parse(path.as_str()).as_ref(), Ok(&path));
    assert!(path.as_str().starts_with('/') && path.as_str().is_ascii());
    assert!(path.as_str().split('/').all(|segment| segment != "." && segment != ".."));
    assert!(!path.as_str().contains("//") && !path.as_str().contains('\\'));
    let lower = path.as_str().to_ascii_lowercase();
    for hidden in ["%2f", "%5c", "%2e", "%00", "%25"] {
        assert!(!lower.contains(hidden) || hidden == "%25", "{path}");
    }
}

/// A pattern without stars matches exactly itself.
pub fn path_pattern(bytes: &[u8]) {
    let Some((pattern, path)) = text(bytes).and_then(|text| text.split_once('\n')) else { return };
    let Ok(pattern) = PathPattern::parse(pattern) else { return };
    assert_eq!(PathPattern::parse(pattern.as_str()).as_ref(), Ok(&pattern));
    let Ok(path) = CanonicalPath::parse(path) else { return };
    if !pattern.as_str().contains('*') {
        assert_eq!(pattern.matches(&path), pattern.as_str() == path.as_str());
    }
    if let (true, Some(stem)) = (pattern.matches(&path), pattern.as_str().strip_suffix("/**"))
        && !stem.contains('*')
    {
        assert!(path.as_str().starts_with(stem));
    }
}

/// Nothing in an ID is normalised, and its parts make up the whole.
pub fn spiffe_id(bytes: &[u8]) {
    let Some((text, id)) = text(bytes).and_then(|text| Some((text, SpiffeId::parse(text).ok()?))) else {
        return;
    };
    assert_eq!(id.as_str(), text);
    assert_eq!(format!("spiffe://{}{}", id.trust_domain().as_str(), id.path()), text);
}

/// A pattern never leaves its trust domain, and overlaps with what both match.
pub fn spiffe_pattern(bytes: &[u8]) {
    let mut lines = text(bytes).unwrap_or_default().split('\n');
    let (Some(one), Some(other), Some(id)) = (lines.next(), lines.next(), lines.next()) else { return };
    let (Ok(one), Ok(other), Ok(id)) =
        (SpiffePattern::parse(one), SpiffePattern::parse(other), SpiffeId::parse(id))
    else {
        return;
    };
    assert_eq!(one.overlaps(&other), other.overlaps(&one));
    if one.matches(&id) {
        let within = one.to_string().split('/').nth(2).map(str::to_owned);
        assert_eq!(within.as_deref(), Some(id.trust_domain().as_str()));
        assert!(!other.matches(&id) || one.overlaps(&other));
    }
}

/// What is denied as a destination is denied as an answer too; a mapped address is its IPv4 address; `private`
/// only ever opens.
pub fn deny_table(bytes: &[u8]) {
    let Some(v6) = bytes.first_chunk::<16>() else { return };
    let Some(v4) = bytes.first_chunk::<4>() else { return };
    let (v6, v4) = (Ipv6Addr::from(*v6), Ipv4Addr::from(*v4));
    for address in [IpAddr::V6(v6), v4.into(), v4.to_ipv6_mapped().into()] {
        if denied_destination(address).is_some() {
            assert!(denied_answer(address, false).is_some(), "{address}");
            assert!(denied_answer(address, true).is_some(), "{address}");
        }
        if denied_answer(address, true).is_some() {
            assert!(denied_answer(address, false).is_some(), "{address}");
        }
    }
    assert_eq!(denied_destination(v4.to_ipv6_mapped().into()), denied_destination(v4.into()));
    assert!(denied_answer(v4.to_ipv6_mapped().into(), true).is_some(), "embedded forms are never an answer");
}

/// A date is written as it was read.
pub fn date(bytes: &[u8]) {
    let Some((text, date)) = text(bytes).and_then(|text| Some((text, Date::parse(text).ok()?))) else {
        return;
    };
    assert_eq!(date.to_string(), text);
    assert_eq!(Date::from_days(date.days()), date);
}

/// A record survives being written.
pub fn access_record(bytes: &[u8]) {
    let Ok(mut record) = serde_json::from_slice::<AccessRecord>(bytes) else { return };
    // serde_json reads long decimals to within the last bit only, which no duration cares about.
    record.duration_ms = record.duration_ms.round().clamp(0.0, 1e9);
    let written = serde_json::to_string(&record).expect("a record can be written");
    assert!(!written.contains('\n'), "one line");
    let again: AccessRecord = serde_json::from_str(&written).expect("what we wrote");
    assert_eq!(serde_json::to_string(&again).expect("again"), written);
}
