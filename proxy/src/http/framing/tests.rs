use proptest::prelude::*;

use super::*;

const GET: &str = "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n";

fn post(more: &str, body: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: a.example\r\n{more}\r\n{body}")
}

/// How many bytes are in order, and why no more are.
fn read(text: &str) -> (usize, Option<PrefaceError>) {
    let mut framing = Framing::new(4096);
    (framing.push(text.as_bytes()), framing.refused())
}

fn in_order(text: &str) {
    let mut framing = Framing::new(4096);
    assert_eq!((framing.push(text.as_bytes()), framing.refused()), (text.len(), None), "{text:?}");
    assert!(framing.between_requests(), "{text:?}");
}

#[test]
fn requests_follow_each_other() {
    in_order(&[GET, GET, &post("Content-Length: 5\r\n", "hello"), GET].concat());
    in_order(&[&post("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n"), GET].concat());
    in_order(
        &[&post("Transfer-Encoding: chunked\r\n", "fF\r\n"), &"x".repeat(255), "\r\n0\r\nX-T: 1\r\n\r\n"]
            .concat(),
    );
    in_order(&post("Content-Length: 0\r\n", ""));
}

#[test]
fn a_body_that_holds_a_request_is_a_body() {
    let inner = post("Content-Length: 3\r\n", "abc");
    in_order(&[&post(&format!("Content-Length: {}\r\n", inner.len()), &inner), GET].concat());
}

#[test]
fn the_second_head_is_read_as_strictly_as_the_first() {
    for second in [
        "GET / HTTP/1.1\nHost: a.example\n\n",
        "GET / HTTP/1.1\r\nHost : a.example\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.example\r\nX: 1\r\n y\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.example\r\nContent-Length: +1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked, identity\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: x-chunked\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.example\r\nHost: b.example\r\n\r\n",
        "GET http://b.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "\r\nGET / HTTP/1.1\r\nHost: a.example\r\n\r\n",
        "hello\r\n",
        "\u{16}\u{3}\u{1}",
    ] {
        let (taken, refused) = read(&[GET, second].concat());
        assert!(refused.is_some() && taken >= GET.len(), "{second:?}");
    }
}

#[test]
fn chunks_have_one_form() {
    let chunked = |body: &str| read(&post("Transfer-Encoding: chunked\r\n", body)).1;
    for body in [
        "5;x=y\r\nhello\r\n0\r\n\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "\r\n",
        "1000000000000000\r\n",
        "0\r\nContent-Length: 5\r\n\r\n",
        "0\r\nX : 5\r\n\r\n",
        "0\r\nX: 5\n\r\n",
    ] {
        assert_eq!(chunked(body), Some(PrefaceError::Malformed), "{body:?}");
    }
    let long = format!("0\r\nX: {}\r\n\r\n", "x".repeat(TRAILERS));
    assert_eq!(chunked(&long), Some(PrefaceError::TooLarge));
}

#[test]
fn nothing_may_come_before_an_upgrade_is_answered() {
    const ASKS: &[u8] = b"GET / HTTP/1.1\r\nHost: a.example\r\nUpgrade: h2c, WebSocket\r\n\r\n";
    let asked = || {
        let mut framing = Framing::new(4096);
        assert_eq!(framing.push(ASKS), ASKS.len());
        framing
    };
    let mut early = asked();
    assert_eq!((early.push(GET.as_bytes()), early.refused()), (0, Some(PrefaceError::Malformed)));
    assert!(!early.upgraded(), "too late");
    let mut agreed = asked();
    assert!(agreed.upgraded());
    assert_eq!((agreed.push(b"\x81\x05hello"), agreed.refused()), (7, None));
    let mut answered = asked();
    answered.answered(0);
    assert!(matches!(answered.state, State::Asked), "an earlier one was");
    answered.answered(1);
    assert_eq!((answered.push(GET.as_bytes()), answered.between_requests()), (GET.len(), true));
    assert!(!answered.upgraded(), "the last head asked for nothing");
}

#[test]
fn nothing_is_taken_after_a_refusal() {
    let mut framing = Framing::new(4096);
    assert!(framing.push(b"GET / HTTP/1.1\nHost") < 19);
    assert_eq!(framing.push(GET.as_bytes()), 0);
}

proptest! {
    #[test]
    fn splits_change_nothing(
        texts in prop::collection::vec(
            prop::sample::select(vec![
                GET.to_owned(), post("Content-Length: 5\r\n", "hello"), post("Transfer-Encoding: chunked\r\n", "2\r\nhi\r\n0\r\n\r\n"),
                "5;x\r\n".to_owned(), "GET / HTTP/1.1\n\n".to_owned(), "0\r\n\r\n".to_owned(),
            ]), 1..6),
        cuts in prop::collection::vec(1usize..9, 1..8),
    ) {
        let text = texts.concat();
        let whole = read(&text);
        let mut framing = Framing::new(4096);
        let (mut taken, mut rest, mut cut) = (0, text.as_bytes(), cuts.iter().cycle());
        while !rest.is_empty() && framing.refused().is_none() {
            let (piece, more) = rest.split_at((*cut.next().unwrap()).min(rest.len()));
            taken += framing.push(piece);
            rest = more;
        }
        prop_assert_eq!(framing.refused(), whole.1);
        // Of a head that is refused more may have been taken before it was seen to be bad, never all of it.
        let more = text.get(whole.0..taken);
        prop_assert!(more.is_some_and(|more| !more.contains("\r\n\r\n")), "{taken} {whole:?}");
    }
}
