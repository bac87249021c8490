//! The stub against honest, broken, silent and hostile resolvers.

use std::{collections::HashSet, sync::mpsc, thread};

use hickory_proto::op::{Query, ResponseCode};
use tokio::net::UdpSocket;

use super::*;
use crate::dns::upstreams::{Seen, Upstream};

const GOOD: &str = "203.0.113.1";
const BAD: &str = "203.0.113.66";

fn host() -> HostName {
    HostName::parse("api.shop.test").unwrap()
}

/// Short waits, so that a test of real sockets is over soon; long enough for a loaded machine.
fn hasty(servers: Vec<SocketAddr>) -> Resolver {
    let patience = Patience { per_try: Duration::from_millis(300), total: Duration::from_secs(5) };
    Resolver::with_patience(servers, patience)
}

async fn ask(resolver: &Resolver) -> Result<Vec<String>, ResolveError> {
    let resolved = resolver.resolve(&host(), Family::V4).await?;
    Ok(resolved.addresses.iter().map(ToString::to_string).collect())
}

fn good() -> Result<Vec<String>, ResolveError> {
    Ok(vec![GOOD.to_owned()])
}

#[tokio::test]
async fn a_name_is_asked_once_and_then_known() {
    let upstream = Upstream::start(|seen| vec![seen.addresses(300, &[GOOD])]).await;
    let resolver = Resolver::new(vec![upstream.addr]);
    let first = resolver.resolve(&host(), Family::V4).await.unwrap();
    assert_eq!(first, Resolved { addresses: vec![GOOD.parse().unwrap()], ttl: 300 });
    assert_eq!(ask(&resolver).await, good());
    let [seen] = &upstream.seen()[..] else { panic!("asked more than once") };
    assert_eq!((seen.name(), seen.tcp), ("api.shop.test".to_owned(), false));
    let edns = seen.message.edns.as_ref().unwrap();
    assert_eq!((edns.max_payload(), edns.options().as_ref().len()), (1232, 0));
}

#[tokio::test]
async fn ipv6_resolvers_and_addresses_work() {
    let upstream = Upstream::start_at("[::1]:0", |seen| vec![seen.addresses(300, &["2001:db8::1"])]).await;
    let resolved = Resolver::new(vec![upstream.addr]).resolve(&host(), Family::V6).await.unwrap();
    assert_eq!(resolved.addresses, ["2001:db8::1".parse::<IpAddr>().unwrap()]);
}

#[tokio::test]
async fn ttls_are_kept_within_bounds() {
    for (given, used) in [(0, 5), (4, 5), (60, 60), (604_800, 3600), (1 << 31, 5)] {
        let upstream = Upstream::start(move |seen| vec![seen.addresses(given, &[GOOD])]).await;
        let resolved = Resolver::new(vec![upstream.addr]).resolve(&host(), Family::V4).await.unwrap();
        assert_eq!(resolved.ttl, used, "given {given}");
    }
}

#[tokio::test]
async fn absence_is_remembered() {
    let upstream = Upstream::start(|seen| vec![seen.code(ResponseCode::NXDomain)]).await;
    let resolver = Resolver::new(vec![upstream.addr]);
    for _ in 0..3 {
        assert_eq!(ask(&resolver).await, Err(ResolveError::NotFound));
    }
    let empty = Upstream::start(|seen| vec![seen.code(ResponseCode::NoError)]).await;
    assert_eq!(ask(&Resolver::new(vec![empty.addr])).await, Err(ResolveError::NoAddress));
    assert_eq!(upstream.seen().len(), 1);
}

#[tokio::test]
async fn every_question_has_its_own_port_and_id() {
    let upstream = Upstream::start(|seen| vec![seen.code(ResponseCode::NXDomain)]).await;
    let resolver = Resolver::new(vec![upstream.addr]);
    for n in 0..100 {
        let host = HostName::parse(&format!("n{n}.shop.test")).unwrap();
        assert_eq!(resolver.resolve(&host, Family::V4).await, Err(ResolveError::NotFound));
    }
    let seen = upstream.seen();
    let ports: HashSet<_> = seen.iter().map(|seen| seen.from.port()).collect();
    let ids: HashSet<_> = seen.iter().map(|seen| seen.message.metadata.id).collect();
    assert!(ports.len() > 95 && ids.len() > 95, "{} ports, {} ids", ports.len(), ids.len());
    let in_order = seen.windows(2).filter(|pair| pair[0].from.port() < pair[1].from.port()).count();
    assert!((20..80).contains(&in_order), "ports that rise can be guessed: {in_order} of 99");
}

#[tokio::test]
async fn concurrent_questions_are_asked_once() {
    let upstream = Upstream::start(|seen| vec![seen.addresses(300, &[GOOD])]).await;
    let resolver = Resolver::new(vec![upstream.addr]);
    let asking: Vec<_> = (0..50)
        .map(|_| {
            let resolver = resolver.clone();
            tokio::spawn(async move { ask(&resolver).await })
        })
        .collect();
    for task in asking {
        assert_eq!(task.await.unwrap(), good());
    }
    assert_eq!(upstream.seen().len(), 1);
}

/// Waits until `count` others wait for the question under way.
async fn waiting(resolver: &Resolver, count: usize) {
    while resolver.shared.flights.passengers(&(host(), Family::V4)) < count {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn when_the_one_who_asks_is_cancelled_another_asks() {
    let upstream = Upstream::start(|seen| match seen.number {
        0 => Vec::new(),
        _ => vec![seen.addresses(300, &[GOOD])],
    })
    .await;
    let resolver = Resolver::new(vec![upstream.addr]);
    let start = |resolver: &Resolver| {
        let resolver = resolver.clone();
        tokio::spawn(async move { ask(&resolver).await })
    };
    let first = start(&resolver);
    while upstream.seen().is_empty() {
        tokio::task::yield_now().await;
    }
    let others = [start(&resolver), start(&resolver)];
    waiting(&resolver, 2).await;
    first.abort();
    for task in others {
        assert_eq!(task.await.unwrap(), good());
    }
    assert_eq!(upstream.seen().len(), 2);
    assert!(resolver.shared.flights.is_empty());
}

#[tokio::test]
async fn runtimes_share_a_question() {
    let (release, held) = mpsc::channel::<()>();
    let held = Mutex::new(held);
    // The resolver answers from a thread of its own, when told to.
    let (place, started) = mpsc::channel();
    let serving = thread::spawn(move || {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        place.send(socket.local_addr().unwrap()).unwrap();
        let mut buffer = [0; 512];
        let (length, from) = socket.recv_from(&mut buffer).unwrap();
        held.lock().unwrap().recv().unwrap();
        let message = hickory_proto::op::Message::from_vec(&buffer[..length]).unwrap();
        let seen = Seen { message, from, tcp: false, number: 0 };
        socket.send_to(&seen.addresses(300, &[GOOD]).to_vec().unwrap(), from).unwrap();
    });
    let resolver = Resolver::new(vec![started.recv().unwrap()]);
    let workers: Vec<_> = (0..3)
        .map(|_| {
            let resolver = resolver.clone();
            thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(ask(&resolver))
            })
        })
        .collect();
    waiting(&resolver, 2).await;
    release.send(()).unwrap();
    for worker in workers {
        assert_eq!(worker.join().unwrap(), good());
    }
    serving.join().unwrap();
}

#[tokio::test(start_paused = true)]
async fn silence_ends_in_time_and_is_remembered_shortly() {
    let upstream = Upstream::start(|_| Vec::new()).await;
    let resolver = Resolver::new(vec![upstream.addr]);
    let start = Instant::now();
    assert_eq!(ask(&resolver).await, Err(ResolveError::Timeout));
    assert_eq!(start.elapsed().as_secs(), 5);
    let again = Instant::now();
    assert_eq!(ask(&resolver).await, Err(ResolveError::Timeout));
    assert!(again.elapsed().is_zero(), "a failure is remembered");
    tokio::time::advance(Duration::from_secs(FAILURE_TTL.into())).await;
    let later = Instant::now();
    assert_eq!(ask(&resolver).await, Err(ResolveError::Timeout));
    assert_eq!(later.elapsed().as_secs(), 5, "but not for long");
}

/// Each question holds a descriptor: those beyond the share wait their turn, here in vain.
#[tokio::test(start_paused = true)]
async fn no_more_questions_wait_than_have_descriptors() {
    for (room, asked) in [(2, 2), (10, 6)] {
        let upstream = Upstream::start(|_| Vec::new()).await;
        let resolver = Resolver::new(vec![upstream.addr]);
        resolver.narrow_to(room);
        let questions = (0..6).map(|number| {
            let (host, resolver) =
                (HostName::parse(&format!("h{number}.shop.test")).unwrap(), resolver.clone());
            tokio::spawn(async move { resolver.resolve(&host, Family::V4).await })
        });
        for question in questions.collect::<Vec<_>>() {
            assert_eq!(question.await.unwrap(), Err(ResolveError::Timeout));
        }
        let names: HashSet<String> = upstream.seen().iter().map(Seen::name).collect();
        assert_eq!(names.len(), asked);
    }
}

#[tokio::test]
async fn a_silent_resolver_is_passed_over_and_asked_again() {
    let silent = Upstream::start(|_| Vec::new()).await;
    let sound = Upstream::start(|seen| vec![seen.addresses(300, &[GOOD])]).await;
    assert_eq!(ask(&hasty(vec![silent.addr, sound.addr])).await, good());

    let lossy = Upstream::start(|seen| match seen.number {
        0 => Vec::new(),
        _ => vec![seen.addresses(300, &[GOOD])],
    })
    .await;
    assert_eq!(ask(&hasty(vec![lossy.addr])).await, good());
    assert_eq!(lossy.seen().len(), 2);
}

#[tokio::test]
async fn a_failing_resolver_is_passed_over_at_once() {
    let sound = Upstream::start(|seen| vec![seen.addresses(300, &[GOOD])]).await;
    for code in [ResponseCode::ServFail, ResponseCode::Refused, ResponseCode::NotImp] {
        let failing = Upstream::start(move |seen| vec![seen.code(code)]).await;
        assert_eq!(ask(&Resolver::new(vec![failing.addr, sound.addr])).await, good(), "{code}");
        assert_eq!(ask(&Resolver::new(vec![failing.addr])).await, Err(ResolveError::Failed), "{code}");
    }
    let closed = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    assert_eq!(ask(&Resolver::new(vec![closed, sound.addr])).await, good());
    assert_eq!(ask(&Resolver::new(Vec::new())).await, Err(ResolveError::Failed));
}

#[tokio::test]
async fn a_truncated_answer_is_asked_for_over_tcp() {
    let upstream = Upstream::start(|seen| {
        let mut answer = seen.addresses(300, &[if seen.tcp { GOOD } else { BAD }]);
        answer.metadata.truncation = !seen.tcp;
        vec![answer]
    })
    .await;
    assert_eq!(ask(&Resolver::new(vec![upstream.addr])).await, good());
    assert_eq!(upstream.seen().iter().map(|seen| seen.tcp).collect::<Vec<_>>(), [false, true]);
}

#[tokio::test]
async fn forged_answers_before_the_real_one_are_ignored() {
    let upstream = Upstream::start(|seen| {
        let mut wrong_id = seen.addresses(300, &[BAD]);
        wrong_id.metadata.id ^= 1;
        let mut wrong_name = seen.addresses(300, &[BAD]);
        wrong_name.queries =
            vec![Query::query("evil.test.".parse().unwrap(), hickory_proto::rr::RecordType::A)];
        let mut no_question = seen.addresses(300, &[BAD]);
        no_question.queries.clear();
        vec![wrong_id, wrong_name, no_question, seen.addresses(300, &[GOOD])]
    })
    .await;
    assert_eq!(ask(&Resolver::new(vec![upstream.addr])).await, good());
    assert_eq!(upstream.seen().len(), 1);
}

#[tokio::test]
async fn a_flood_of_guesses_moves_the_question_to_tcp() {
    let upstream = Upstream::start(|seen| {
        if seen.tcp {
            return vec![seen.addresses(300, &[GOOD])];
        }
        (1..=64)
            .map(|guess| {
                let mut answer = seen.addresses(300, &[BAD]);
                answer.metadata.id ^= guess;
                answer
            })
            .collect()
    })
    .await;
    assert_eq!(ask(&Resolver::new(vec![upstream.addr])).await, good());
}

/// What a stub with an unconnected socket does: it takes the first datagram that carries its id.
async fn naive(server: SocketAddr) -> Vec<u8> {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let question = super::super::answer::Asked::new(&host(), Family::V4).unwrap().to_bytes().unwrap();
    socket.send_to(&question, server).await.unwrap();
    let mut buffer = vec![0; 512];
    let length = socket.recv(&mut buffer).await.unwrap();
    buffer.truncate(length);
    buffer
}

#[tokio::test]
async fn an_answer_from_another_address_is_ignored_even_with_the_right_id() {
    let attacker = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let upstream = Upstream::start(move |seen| {
        attacker.send_to(&seen.addresses(300, &[BAD]).to_vec().unwrap(), seen.from).unwrap();
        vec![seen.addresses(300, &[GOOD])]
    })
    .await;
    let forged = naive(upstream.addr).await;
    assert!(
        forged.ends_with(&BAD.parse::<std::net::Ipv4Addr>().unwrap().octets()),
        "the control is taken in"
    );
    assert_eq!(ask(&Resolver::new(vec![upstream.addr])).await, good());
}
