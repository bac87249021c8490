use proptest::prelude::*;

use super::*;

fn id(text: &str) -> SpiffeId {
    SpiffeId::parse(text).unwrap()
}

fn pattern(text: &str) -> SpiffePattern {
    SpiffePattern::parse(text).unwrap()
}

#[test]
fn ids_have_a_trust_domain_and_a_path() {
    let web = id("spiffe://example.org/ns/web/sa/Front-1_a.b");
    assert_eq!(web.trust_domain().as_str(), "example.org");
    assert_eq!(web.path(), "/ns/web/sa/Front-1_a.b");
    assert_eq!(id("spiffe://example.org").path(), "");
}

#[test]
fn each_broken_rule_has_its_error() {
    use SpiffeError::*;
    let long_domain = format!("spiffe://{}/a", "a".repeat(256));
    let long_id = format!("spiffe://a/{}", "a".repeat(2048));
    for (text, error) in [
        ("", Scheme),
        ("SPIFFE://a/b", Scheme),
        ("https://a/b", Scheme),
        ("spiffe:/a/b", Scheme),
        ("spiffe://", TrustDomainEmpty),
        ("spiffe:///a", TrustDomainEmpty),
        (long_domain.as_str(), TrustDomainTooLong),
        (long_id.as_str(), TooLong),
        ("spiffe://Example.org/a", TrustDomainCharacter),
        ("spiffe://example.org:443/a", TrustDomainCharacter),
        ("spiffe://user@example.org/a", TrustDomainCharacter),
        ("spiffe://example.org?q", TrustDomainCharacter),
        ("spiffe://*.org/a", TrustDomainWildcard),
        ("spiffe://example.org/", TrailingSlash),
        ("spiffe://example.org/a/", TrailingSlash),
        ("spiffe://example.org//a", EmptySegment),
        ("spiffe://example.org/a/../b", DotSegment),
        ("spiffe://example.org/.", DotSegment),
        ("spiffe://example.org/a%2fb", PathCharacter),
        ("spiffe://example.org/a?b", PathCharacter),
        ("spiffe://example.org/a#b", PathCharacter),
        ("spiffe://example.org/é", PathCharacter),
        ("spiffe://example.org/a\0", PathCharacter),
    ] {
        assert_eq!(SpiffeId::parse(text), Err(error), "{text:?}");
        assert_eq!(SpiffePattern::parse(text), Err(error), "{text:?}");
    }
    assert_eq!(SpiffeId::parse("spiffe://example.org/*"), Err(PathCharacter));
    assert_eq!(SpiffePattern::parse("spiffe://example.org/a*"), Err(MidSegment));
    assert_eq!(SpiffePattern::parse("spiffe://example.org/**/a"), Err(NotLast));
}

#[test]
fn patterns_match_segment_by_segment_within_one_trust_domain() {
    for (text, other, expected) in [
        ("spiffe://example.org/ns/web/sa/*", "spiffe://example.org/ns/web/sa/front", true),
        ("spiffe://example.org/ns/web/sa/*", "spiffe://example.org/ns/web/sa/front/x", false),
        ("spiffe://example.org/ns/web/sa/*", "spiffe://example.org/ns/web/sa", false),
        ("spiffe://example.org/ns/web/sa/*", "spiffe://example.com/ns/web/sa/front", false),
        ("spiffe://example.org/ns/web/**", "spiffe://example.org/ns/web/sa/front", true),
        ("spiffe://example.org/ns/web/**", "spiffe://example.org/ns/web", false),
        ("spiffe://example.org/ns/web/**", "spiffe://example.org/ns/webx/sa", false),
        ("spiffe://example.org/**", "spiffe://example.org", false),
        ("spiffe://example.org/*/web/sa/*", "spiffe://example.org/ns/web/sa/a", true),
        ("spiffe://example.org/a", "spiffe://example.org/a", true),
        ("spiffe://example.org/a", "spiffe://example.org/A", false),
    ] {
        assert_eq!(pattern(text).matches(&id(other)), expected, "{text} against {other}");
    }
}

#[test]
fn specificity_counts_literal_segments() {
    let order = ["spiffe://t/**", "spiffe://t/*", "spiffe://t/a/**", "spiffe://t/a/*", "spiffe://t/a/b"];
    assert!(order.map(|text| pattern(text).specificity()).is_sorted_by(|a, b| a < b));
}

prop_compose! {
    fn any_pattern()(path in "(/[ab*]){1,4}(/\\*\\*)?") -> SpiffePattern {
        pattern(&format!("spiffe://t{path}"))
    }
}

proptest! {
    #[test]
    fn patterns_overlap_when_one_id_matches_both(one in any_pattern(), other in any_pattern(), path in "(/[abc]){1,6}") {
        let id = id(&format!("spiffe://t{path}"));
        if one.matches(&id) && other.matches(&id) {
            prop_assert!(one.overlaps(&other));
        }
        prop_assert_eq!(one.overlaps(&other), other.overlaps(&one));
    }

    #[test]
    fn what_overlaps_has_a_witness(one in any_pattern(), other in any_pattern()) {
        // Wildcards take the other side's segment, or `a`; `**` takes what the other side has left, at least one.
        let fill = |from: &SpiffePattern, with: &SpiffePattern| {
            let mut with = with.as_str().split('/').map(|s| if s.starts_with('*') { "a" } else { s });
            let mut path: Vec<&str> = Vec::new();
            for segment in from.as_str().split('/') {
                let theirs = with.next();
                match segment {
                    "**" => { path.push(theirs.unwrap_or("a")); path.extend(with.by_ref()); }
                    "*" => path.push(theirs.unwrap_or("a")),
                    _ => path.push(segment),
                }
            }
            id(&path.join("/"))
        };
        if one.overlaps(&other) {
            let matched = |id: &SpiffeId| one.matches(id) && other.matches(id);
            prop_assert!(matched(&fill(&one, &other)) || matched(&fill(&other, &one)), "{} and {}", one, other);
        }
    }

    #[test]
    fn any_text_is_parsed_without_panic(text in "(spiffe://)?.{0,60}") {
        let _ = (SpiffeId::parse(&text), SpiffePattern::parse(&text), TrustDomain::parse(&text));
    }
}
