use std::{
    collections::HashMap,
    future::pending,
    sync::{Arc, Mutex},
};

use tokio::time::timeout;

use super::*;
use crate::settings::Settings;

/// A network of addresses that answer, refuse or stay silent, on paused time.
struct Net {
    start: Instant,
    /// Milliseconds until the outcome; absent: silent for ever.
    answers: HashMap<IpAddr, (u64, bool)>,
    tried: Arc<Mutex<Vec<(u64, IpAddr)>>>,
    limits: Option<Arc<Limits>>,
}

const PORT: u16 = 443;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

impl Net {
    fn new(answers: &[(&str, u64, bool)]) -> Self {
        let answers = answers.iter().map(|(address, after, ok)| (ip(address), (*after, *ok))).collect();
        Net { start: Instant::now(), answers, tried: Arc::default(), limits: None }
    }

    fn dial(&self, address: UpstreamAddr) -> Attempt<IpAddr> {
        let elapsed = self.start.elapsed().as_millis() as u64;
        self.tried.lock().unwrap().push((elapsed, address.ip()));
        let outcome = self.answers.get(&address.ip()).copied();
        Box::pin(async move {
            let Some((after, ok)) = outcome else { return pending().await };
            passed(after).await;
            if ok { Ok(address.ip()) } else { Err(io::ErrorKind::ConnectionRefused.into()) }
        })
    }

    async fn race(
        &self,
        v6: Lookup<'static>,
        v4: Lookup<'static>,
        refuse: &[&str],
    ) -> Result<IpAddr, Reason> {
        let dial = {
            let (answers, tried) = (self.answers.clone(), self.tried.clone());
            let net = Net { start: self.start, answers, tried, limits: None };
            move |address| net.dial(address)
        };
        let refuse: Vec<IpAddr> = refuse.iter().map(|text| ip(text)).collect();
        let judge = move |answer: IpAddr| match refuse.contains(&answer) {
            true => Err(Reason::AddressPrivate),
            false => Ok(()),
        };
        let deadline = self.start + Duration::from_secs(10);
        let racing = Race {
            what: "x.test",
            port: PORT,
            judge: &judge,
            dial: &dial,
            limits: self.limits.as_ref(),
            deadline,
        };
        match super::race(racing, v6, v4).await {
            Ok((stream, address)) => {
                assert_eq!(stream, address.ip());
                Ok(stream)
            }
            Err(error) => Err(error.reason),
        }
    }

    fn tried(&self) -> Vec<(u64, String)> {
        self.tried.lock().unwrap().iter().map(|(at, ip)| (*at, ip.to_string())).collect()
    }
}

fn answer(after: u64, addresses: &[&str]) -> Lookup<'static> {
    let addresses = addresses.iter().map(|text| ip(text)).collect();
    later(after, Ok(Resolved { addresses, ttl: 60 }))
}

fn failing(after: u64, error: ResolveError) -> Lookup<'static> {
    later(after, Err(error))
}

fn later(after: u64, outcome: Result<Resolved, ResolveError>) -> Lookup<'static> {
    Box::pin(async move {
        if after > 0 {
            passed(after).await;
        }
        outcome
    })
}

/// So many milliseconds of paused time.
async fn passed(milliseconds: u64) {
    let _ = timeout(Duration::from_millis(milliseconds), pending::<()>()).await;
}

fn times(tried: &[(u64, &str)]) -> Vec<(u64, String)> {
    tried.iter().map(|(at, ip)| (*at, (*ip).to_string())).collect()
}

#[tokio::test(start_paused = true)]
async fn families_take_turns_a_quarter_second_apart_and_the_first_answer_wins() {
    let net = Net::new(&[("2001:db8::2", 100, true)]);
    let won = net
        .race(answer(0, &["2001:db8::1", "2001:db8::2"]), answer(0, &["192.0.2.1", "192.0.2.2"]), &[])
        .await;
    assert_eq!(won, Ok(ip("2001:db8::2")));
    assert_eq!(net.tried(), times(&[(0, "2001:db8::1"), (250, "192.0.2.1"), (500, "2001:db8::2")]));
}

#[tokio::test(start_paused = true)]
async fn an_earlier_attempt_may_still_win() {
    let net = Net::new(&[("2001:db8::1", 400, true)]);
    let won = net.race(answer(0, &["2001:db8::1"]), answer(0, &["192.0.2.1"]), &[]).await;
    assert_eq!(won, Ok(ip("2001:db8::1")));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_starts_the_next_attempt_at_once() {
    let net = Net::new(&[("2001:db8::1", 1, false), ("192.0.2.1", 1, true)]);
    let won = net.race(answer(0, &["2001:db8::1"]), answer(0, &["192.0.2.1"]), &[]).await;
    assert_eq!(won, Ok(ip("192.0.2.1")));
    assert_eq!(net.tried(), times(&[(0, "2001:db8::1"), (1, "192.0.2.1")]));
}

#[tokio::test(start_paused = true)]
async fn ipv4_waits_a_moment_for_the_ipv6_answer() {
    let net = Net::new(&[("2001:db8::1", 1, true)]);
    let won = net.race(answer(30, &["2001:db8::1"]), answer(0, &["192.0.2.1"]), &[]).await;
    assert_eq!(won, Ok(ip("2001:db8::1")));
    assert_eq!(net.tried(), times(&[(30, "2001:db8::1")]));
}

#[tokio::test(start_paused = true)]
async fn ipv4_does_not_wait_longer_than_that() {
    let net = Net::new(&[("192.0.2.1", 1, true)]);
    let won = net.race(answer(5_000, &["2001:db8::1"]), answer(0, &["192.0.2.1"]), &[]).await;
    assert_eq!(won, Ok(ip("192.0.2.1")));
    assert_eq!(net.tried(), times(&[(50, "192.0.2.1")]));
}

#[tokio::test(start_paused = true)]
async fn a_refused_address_is_never_dialled() {
    let net = Net::new(&[("192.0.2.2", 1, true)]);
    let lookups = || (failing(0, ResolveError::NoAddress), answer(0, &["10.0.0.1", "192.0.2.2"]));
    let (v6, v4) = lookups();
    assert_eq!(net.race(v6, v4, &["10.0.0.1"]).await, Ok(ip("192.0.2.2")));
    assert_eq!(net.tried(), times(&[(0, "192.0.2.2")]));
    let net = Net::new(&[]);
    let (v6, v4) = lookups();
    assert_eq!(net.race(v6, v4, &["10.0.0.1", "192.0.2.2"]).await, Err(Reason::AddressPrivate));
    assert_eq!(net.tried(), []);
}

#[tokio::test(start_paused = true)]
async fn the_most_telling_failure_is_reported() {
    use ResolveError::*;
    for (v6, v4, reason) in [
        (NotFound, NotFound, Reason::ResolveNotFound),
        (NoAddress, Failed, Reason::ResolveFailed),
        (Timeout, NoAddress, Reason::ResolveTimeout),
    ] {
        let net = Net::new(&[]);
        assert_eq!(net.race(failing(0, v6), failing(0, v4), &[]).await, Err(reason));
    }
    let net = Net::new(&[("192.0.2.1", 1, false)]);
    let refused = net.race(failing(0, Failed), answer(0, &["192.0.2.1"]), &[]).await;
    assert_eq!(refused, Err(Reason::DialRefused));
}

#[tokio::test(start_paused = true)]
async fn the_deadline_holds_over_all() {
    let net = Net::new(&[]);
    let silent = net.race(answer(0, &["2001:db8::1"]), answer(0, &["192.0.2.1"]), &[]).await;
    assert_eq!(silent, Err(Reason::DialTimeout));
    assert_eq!(net.start.elapsed(), Duration::from_secs(10));
    let net = Net::new(&[]);
    let unresolved = net.race(answer(60_000, &[]), answer(60_000, &[]), &[]).await;
    assert_eq!(unresolved, Err(Reason::ResolveTimeout));
}

#[tokio::test(start_paused = true)]
async fn a_huge_answer_is_not_tried_to_its_end() {
    let all: Vec<String> = (0..200).map(|n| format!("192.0.2.{n}")).collect();
    let refusing: Vec<(&str, u64, bool)> = all.iter().map(|address| (address.as_str(), 1, false)).collect();
    let net = Net::new(&refusing);
    let addresses: Vec<&str> = all.iter().map(String::as_str).collect();
    let outcome = net.race(failing(0, ResolveError::NoAddress), answer(0, &addresses), &[]).await;
    assert_eq!(outcome, Err(Reason::DialRefused));
    assert_eq!(net.tried().len(), MOST_ADDRESSES);
}

#[tokio::test(start_paused = true)]
async fn attempts_beside_the_first_need_room() {
    let silent = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"];
    for (room, tried) in [(None, 4), (Some(1), 2), (Some(0), 1)] {
        let mut net = Net::new(&[]);
        let limits = |room| Arc::new(Limits::with_descriptors(&Settings::default(), room));
        net.limits = room.map(limits);
        let won = net.race(failing(0, ResolveError::NoAddress), answer(0, &silent), &[]).await;
        assert_eq!(won, Err(Reason::DialTimeout));
        assert_eq!(net.tried().len(), tried, "room for {room:?}");
        if let Some(limits) = &net.limits {
            assert_eq!(limits.attempt().is_some(), room == Some(1), "what was taken is given back");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn without_room_the_next_address_follows_the_failed_one() {
    let mut net = Net::new(&[("192.0.2.1", 900, false), ("192.0.2.2", 0, true)]);
    net.limits = Some(Arc::new(Limits::with_descriptors(&Settings::default(), 0)));
    let won =
        net.race(failing(0, ResolveError::NoAddress), answer(0, &["192.0.2.1", "192.0.2.2"]), &[]).await;
    assert_eq!(won, Ok(ip("192.0.2.2")));
    assert_eq!(net.tried(), times(&[(0, "192.0.2.1"), (900, "192.0.2.2")]));
}
