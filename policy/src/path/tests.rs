use proptest::prelude::*;

use super::*;

fn canonical(text: &str) -> Result<String, PathError> {
    CanonicalPath::parse(text).map(|path| path.to_string())
}

#[test]
fn paths_are_canonical() {
    for (written, expected) in [
        ("/", "/"),
        ("/v1/charges", "/v1/charges"),
        ("/v1//charges///", "/v1/charges/"),
        ("//evil.test/x", "/evil.test/x"),
        ("/a/./b", "/a/b"),
        ("/a/../b", "/b"),
        ("/a/%2e%2e/b", "/b"),
        ("/a/%2E./b", "/b"),
        ("/a/b/..", "/a/"),
        ("/a/.", "/a/"),
        ("/../../x", "/x"),
        ("/..", "/"),
        ("/a//../b", "/b"),
        ("/%61%7Eb", "/a~b"),
        ("/a%3bb", "/a%3Bb"),
        ("/a;b=c,d", "/a;b=c,d"),
        ("/caf%c3%a9", "/caf%C3%A9"),
        ("/a%20b", "/a%20b"),
        ("/a%3Fb%23", "/a%3Fb%23"),
        ("/100%25", "/100%25"),
        ("/100%25/x", "/100%25/x"),
        ("/a[1]|{b}", "/a%5B1%5D%7C%7Bb%7D"),
        ("/...", "/..."),
    ] {
        assert_eq!(canonical(written), Ok(expected.to_owned()), "{written}");
    }
}

#[test]
fn ambiguous_paths_are_refused() {
    use PathError::*;
    let long = format!("/{}", "a".repeat(MAX_PATH));
    let grows = format!("/{}", "\"".repeat(MAX_PATH / 2));
    for (text, error) in [
        ("", NotAbsolute),
        ("*", NotAbsolute),
        ("http://x.test/", NotAbsolute),
        (long.as_str(), TooLong),
        (grows.as_str(), TooLong),
        ("/a?b", Query),
        ("/a#b", Query),
        ("/a%", Percent),
        ("/a%2", Percent),
        ("/a%zz", Percent),
        ("/a%+1", Percent),
        ("/a%2Fb", Separator),
        ("/a%2fb", Separator),
        ("/a%5Cb", Separator),
        ("/a\\b", Separator),
        ("/a/..%2f..%2fb", Separator),
        ("/a%00", Control),
        ("/a\0", Control),
        ("/a%0d%0aX:1", Control),
        ("/a%7f", Control),
        ("/a%C2%85", Control),
        ("/a%252Fb", DoubleEncoding),
        ("/a%252e%252e/b", DoubleEncoding),
        ("/a%25%32%66", DoubleEncoding),
        ("/a%25%32f", DoubleEncoding),
        ("/a%ff", Utf8),
        ("/a%c0%af", Utf8),
        ("/a%ed%a0%80", Utf8),
        ("/a b", Character),
        ("/é", Character),
        ("/a/..;/admin", DotParameter),
        ("/a/.;x/admin", DotParameter),
        ("/a/%2e%2e%3bx/admin", DotParameter),
    ] {
        assert_eq!(canonical(text), Err(error), "{text:?}");
    }
}

#[test]
fn patterns_match_whole_segments() {
    for (pattern, path, expected) in [
        ("/v1/charges/**", "/v1/charges", true),
        ("/v1/charges/**", "/v1/charges/", true),
        ("/v1/charges/**", "/v1/charges/a/b", true),
        ("/v1/charges/**", "/v1/chargesx", false),
        ("/v1/charges/**", "/v1/charges/../admin", false),
        ("/v1/*", "/v1/a", true),
        ("/v1/*", "/v1/", false),
        ("/v1/*", "/v1/a/", false),
        ("/v1/*", "/v1/a/b", false),
        ("/v1/*/items", "/v1/a/items", true),
        ("/v1/*/items", "/v1/items", false),
        ("/a", "/a/", false),
        ("/a/", "/a", false),
        ("/**", "/", true),
        ("/**", "/a/b", true),
        ("/", "/", true),
        ("/", "/a", false),
        ("/a/*/**", "/a", false),
    ] {
        let path = CanonicalPath::parse(path).unwrap();
        assert_eq!(PathPattern::parse(pattern).unwrap().matches(&path), expected, "{pattern} against {path}");
    }
}

#[test]
fn faulty_patterns_are_refused() {
    use PathPatternError::*;
    for (text, error) in [
        ("v1", Path(PathError::NotAbsolute)),
        ("/a*", MidSegment),
        ("/***", MidSegment),
        ("/**/a", NotLast),
        ("/**/", NotLast),
        ("/a//b", NotCanonical("/a/b".to_owned())),
        ("/a/../b", NotCanonical("/b".to_owned())),
        ("/%61", NotCanonical("/a".to_owned())),
        ("/a%3bb", NotCanonical("/a%3Bb".to_owned())),
        ("/a?b", Path(PathError::Query)),
    ] {
        assert_eq!(PathPattern::parse(text), Err(error), "{text}");
    }
}

/// Decodes repeatedly and resolves as a lax server might.
fn lax_reading(path: &str) -> String {
    let mut text = path.to_owned();
    for _ in 0..3 {
        text = text
            .replace("%2F", "/")
            .replace("%2f", "/")
            .replace("%2e", ".")
            .replace("%2E", ".")
            .replace("%25", "%");
    }
    let mut kept: Vec<String> = Vec::new();
    for segment in
        text.replace('\\', "/").split('/').map(|segment| segment.split(';').next().unwrap_or("").to_owned())
    {
        match segment.as_str() {
            "" | "." => {}
            ".." => drop(kept.pop()),
            _ => kept.push(segment),
        }
    }
    kept.join("/")
}

proptest! {
    #[test]
    fn canonicalising_twice_changes_nothing(text in "/([a-c./;%*~]|%2[0-9a-fA-F]|%[0-9a-f]{2}|\\PC){0,40}") {
        if let Ok(path) = CanonicalPath::parse(&text) {
            prop_assert_eq!(CanonicalPath::parse(path.as_str()), Ok(path.clone()));
            prop_assert!(!path.as_str().contains("//"));
            prop_assert!(!path.as_str().split('/').any(|segment| segment == "." || segment == ".."));
        }
    }

    #[test]
    fn no_lax_server_leaves_the_directory_that_was_judged(text in "/pub/([a./;\\\\]|%2[ef5EF]|%5[cC]|%25){0,12}") {
        if let Ok(path) = CanonicalPath::parse(&text) && PathPattern::parse("/pub/**").unwrap().matches(&path) {
            let read = lax_reading(path.as_str());
            prop_assert!(read == "pub" || read.starts_with("pub/"), "{path} is read as {read}");
        }
    }

    #[test]
    fn any_text_is_parsed_without_panic(text in ".{0,60}") {
        let _ = (CanonicalPath::parse(&text), PathPattern::parse(&text));
    }
}
