use proptest::prelude::*;

use super::*;

fn name(text: &str) -> HostName {
    HostName::parse(text).unwrap()
}

#[test]
fn names_are_canonical() {
    for (written, canonical) in [
        ("API.Stripe.COM", "api.stripe.com"),
        ("a.b.", "a.b"),
        ("localhost", "localhost"),
        ("xn--mnchen-3ya.de", "xn--mnchen-3ya.de"),
        ("XN--MNCHEN-3YA.de", "xn--mnchen-3ya.de"),
        ("xn--80ak6aa92e.com", "xn--80ak6aa92e.com"),
        ("xn--fiqs8s", "xn--fiqs8s"),
        ("r3---sn-4g5e6nez.googlevideo.com", "r3---sn-4g5e6nez.googlevideo.com"),
        ("1.2.3.4.example", "1.2.3.4.example"),
        ("0xa.example", "0xa.example"),
    ] {
        assert_eq!(
            HostName::parse(written).map(|name| name.to_string()),
            Ok(canonical.to_owned()),
            "{written}"
        );
    }
}

#[test]
fn each_deviation_has_its_error() {
    use HostNameError::*;
    let long_label = format!("{}.test", "a".repeat(64));
    let long_name = format!("{}a", "abc.".repeat(64));
    for (text, error) in [
        ("", Empty),
        (".", Empty),
        ("a..b", EmptyLabel),
        (".a", EmptyLabel),
        ("a..", EmptyLabel),
        (long_label.as_str(), LabelTooLong),
        (long_name.as_str(), TooLong),
        ("a_b.test", Character),
        ("a b.test", Character),
        ("a\0.test", Character),
        ("a\r\n.test", Character),
        ("münchen.de", Character),
        ("a\u{3002}test", Character),
        ("*.test", Character),
        ("user@host.test", Character),
        ("-a.test", Hyphen),
        ("a-.test", Hyphen),
        ("xn--.test", Hyphen),
        ("xn--a.test", ALabel),
        ("xn--abc-.test", Hyphen),
        ("xn--example-.test", Hyphen),
        ("xn--99999999.test", ALabel),
        ("127.0.0.1", Address),
        ("127.1", Address),
        ("2130706433", Address),
        ("0x7f.1", Address),
        ("0x7f000001", Address),
        ("0x", Address),
        ("1.2.3.4.", Address),
        ("::1", Address),
        ("[::1]", Address),
        ("fe80::1%eth0", Address),
        ("::ffff:10.0.0.1", Address),
    ] {
        assert_eq!(HostName::parse(text), Err(error), "{text:?}");
    }
    assert_eq!(HostName::from_bytes(b"a\xff.test"), Err(Character));
}

#[test]
fn punycode_of_plain_ascii_or_capitals_is_refused() {
    // `wca` decodes to a capital `Ü`, which no IDNA encoder writes; `tda` is the small one.
    for text in ["xn--example.com", "xn--Example-.com", "xn--wca.com", "xn--WCA.com", "xn--tda-.com"] {
        assert!(HostName::parse(text).is_err(), "{text}");
    }
    assert!(HostName::parse("xn--tda.com").is_ok());
}

#[test]
fn the_a_label_form_is_suggested() {
    let suggest = |text| HostName::suggest_a_labels(text).map(|name| name.to_string());
    assert_eq!(suggest("München.de").as_deref(), Some("xn--mnchen-3ya.de"));
    assert_eq!(suggest("例え.テスト").as_deref(), Some("xn--r8jz45g.xn--zckzah"));
    assert_eq!(suggest("a_ü.de"), None);
}

#[test]
fn wildcards_match_whole_labels() {
    let one = HostPattern::parse("*.ok.test").unwrap();
    let deep = HostPattern::parse("**.ok.test").unwrap();
    let exact = HostPattern::parse("Ok.test.").unwrap();
    for (host, by_one, by_deep, by_exact) in [
        ("ok.test", false, false, true),
        ("a.ok.test", true, true, false),
        ("a.b.ok.test", false, true, false),
        ("evilok.test", false, false, false),
        ("ok.test.evil.example", false, false, false),
    ] {
        let matched = |pattern: &HostPattern| pattern.matches(&name(host));
        assert_eq!((matched(&one), matched(&deep), matched(&exact)), (by_one, by_deep, by_exact), "{host}");
    }
}

#[test]
fn specificity_orders_exact_then_suffix_length_then_one_label() {
    let order = ["**.c.test", "*.c.test", "**.b.c.test", "*.b.c.test", "a.test"];
    let specificities: Vec<_> =
        order.iter().map(|text| HostPattern::parse(text).unwrap().specificity()).collect();
    assert!(specificities.is_sorted_by(|a, b| a < b), "{specificities:?}");
}

#[test]
fn wildcards_that_let_strangers_in_are_refused_for_allows_only() {
    for text in [
        "*.com",
        "*.co.uk",
        "**.com",
        "*.CO.UK.",
        "**.github.io",
        "*.s3.amazonaws.com",
        "*.cloudfront.net",
        "*.blob.core.windows.net",
        "**.amazonaws.com",
        "**.eu-west-1.amazonaws.com",
        "*.corp",
        "*.nosuchtld",
    ] {
        assert!(HostPattern::parse(text).is_err(), "{text}");
        assert!(HostPattern::parse_for_deny(text).is_ok(), "{text}");
    }
    for text in [
        "*.example.com",
        "**.stripe.network",
        "*.internal",
        "**.cluster.local",
        "*.eu-west-1.amazonaws.com",
        "my.s3.amazonaws.com",
        "github.io",
        "**.my-bucket.s3.amazonaws.com",
    ] {
        assert!(HostPattern::parse(text).is_ok(), "{text}");
    }
}

#[test]
fn each_faulty_wildcard_has_its_own_message() {
    use HostPatternError::*;
    let error = |text| HostPattern::parse(text).unwrap_err();
    assert_eq!(error("*"), Bare("*"));
    assert_eq!(error("**"), Bare("**"));
    assert_eq!(error("api*.x.test"), MidLabel);
    assert_eq!(error("*api.x.test"), MidLabel);
    assert_eq!(error("a.*.x.test"), MidName);
    assert_eq!(error("*.*.x.test"), MidName);
    assert_eq!(error("***.x.test"), TooManyStars);
    assert!(matches!(error("https://x.test/a"), NotAHost(_)));
    assert!(matches!(error("x.test:443"), NotAHost(_)));
    assert!(matches!(error("x.test/a"), NotAHost(_)));
    assert_eq!(error("10.0.0.1").fix(), "write it as `cidrs: [ \"10.0.0.1/32\" ]`");
    assert_eq!(error("*.münchen.de").fix(), "write its A-label form: `xn--mnchen-3ya.de`");
}

proptest! {
    #[test]
    fn any_text_is_parsed_without_panic_and_canonical_names_are_fixed_points(text in ".{0,80}") {
        if let Ok(name) = HostName::parse(&text) {
            prop_assert_eq!(HostName::parse(name.as_str()), Ok(name.clone()));
        }
        let _ = HostPattern::parse(&text);
        let _ = HostName::suggest_a_labels(&text);
    }

    #[test]
    fn punycode_round_trips(label in "[a-zß-öø-ÿа-яα-ω一-十]{1,20}") {
        if let Some(name) = HostName::suggest_a_labels(&label) {
            prop_assert!(HostName::parse(name.as_str()).is_ok());
        }
    }

    #[test]
    fn any_a_label_text_is_judged(encoded in "[a-z0-9-]{0,59}") {
        let _ = HostName::parse(&format!("xn--{encoded}"));
    }

    #[test]
    fn a_pattern_displays_as_it_parses(stars in "(\\*\\.|\\*\\*\\.)?", host in "[a-z][a-z0-9]{0,8}(\\.[a-z][a-z0-9]{0,8}){1,3}\\.test") {
        let text = format!("{stars}{host}");
        let pattern = HostPattern::parse(&text).unwrap();
        prop_assert_eq!(pattern.to_string(), text);
    }
}
