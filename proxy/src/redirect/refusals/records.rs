//! One access record per refused flow.

use std::{
    collections::HashMap,
    io,
    net::IpAddr,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime},
};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use sidegate_api::{
    AccessRecord,
    access_record::{CloseReason, SCHEMA},
};
use sidegate_policy::Reason;

use super::{Refusal, Refusals, RefusedProtocol};
use crate::{clock, server::Gate};

/// A flow that is refused again within this time is not recorded again.
const SAME_FLOW: Duration = Duration::from_secs(5);
/// Flows remembered; beyond it the oldest memory goes.
const REMEMBERED: usize = 4096;

/// Refusals of which there is a record.
const RECORDED: &str = "sidegate_refusals_recorded_total";

/// Batches of refusals of which there may be none.
const LOST: &str = "sidegate_refusals_lost_total";

/// Whether `udp` rules are carried out here, on which depends what to advise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Datagrams {
    /// By the kernel, in step with the policy.
    ByRule,
    /// Datagrams other than DNS never leave, whatever the policy says: `sidegate run`.
    Never,
}

impl Datagrams {
    /// What happened to a refused datagram, and what to do.
    pub const fn advice(self) -> [&'static str; 2] {
        match self {
            Datagrams::ByRule => [Reason::UdpRefused.meaning(), Reason::UdpRefused.fix()],
            Datagrams::Never => [
                "`sidegate run` relays no datagrams but DNS, whatever the policy says.",
                "Let the client use TCP (HTTP/3 clients fall back by themselves), or run it beside the sidecar, which \
                 carries out `udp` rules.",
            ],
        }
    }
}

/// Reads refusals and writes their records until dropped.
#[derive(Debug)]
pub struct RefusalRecords {
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<Reader>>,
}

/// What reads.
struct Reader {
    refusals: Refusals,
    gate: Arc<Gate>,
    datagrams: Datagrams,
    seen: Seen,
    /// Packets of which there is a record.
    recorded: u64,
}

impl RefusalRecords {
    /// Starts the thread that reads.
    ///
    /// # Errors
    /// The system has no descriptor or thread to give.
    pub fn start(refusals: Refusals, gate: Arc<Gate>, datagrams: Datagrams) -> io::Result<RefusalRecords> {
        // There from the start, so that the first count is seen to rise.
        for series in [RECORDED, LOST] {
            let _ = metrics::counter!(series);
        }
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?);
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name("refusals".to_owned()).spawn(move || {
            let mut reader = Reader { refusals, gate, datagrams, seen: Seen::default(), recorded: 0 };
            reader.read_until(&stopped);
            reader
        })?;
        Ok(RefusalRecords { stop, thread: Some(thread) })
    }

    /// Records what the kernel told until now, and ends. The packets that were refused since the rules were put in
    /// place, and of which there is no record of their own. The caller needs `CAP_NET_ADMIN` over their network
    /// namespace.
    ///
    /// # Errors
    /// The kernel doesn't tell its counters.
    pub fn finish(mut self) -> io::Result<u64> {
        let mut reader = self.stop().ok_or(io::ErrorKind::BrokenPipe)?;
        Ok(reader.refusals.counted()?.saturating_sub(reader.recorded))
    }

    fn stop(&mut self) -> Option<Reader> {
        rustix::io::write(&self.stop, &1u64.to_ne_bytes()).ok()?;
        self.thread.take()?.join().ok()
    }
}

impl Drop for RefusalRecords {
    /// What the kernel told until now is still recorded.
    fn drop(&mut self) {
        let _ = self.stop();
    }
}

impl Reader {
    fn read_until(&mut self, stop: &OwnedFd) {
        loop {
            let mut ready =
                [self.refusals.as_fd(), stop.as_fd()].map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
            if poll(&mut ready, None).is_err_and(|error| error != rustix::io::Errno::INTR) {
                return;
            }
            let stopping = !ready[1].revents().is_empty();
            if let Err(error) = self.read_waiting() {
                return tracing::error!(%error, "refusals are no longer recorded");
            }
            if stopping {
                return;
            }
        }
    }

    fn read_waiting(&mut self) -> io::Result<()> {
        loop {
            match self.refusals.take() {
                Ok(told) if told.is_empty() => return Ok(()),
                Ok(told) => told.iter().for_each(|refusal| self.record(refusal)),
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    metrics::counter!(LOST).increment(1);
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn record(&mut self, refusal: &Refusal) {
        if self.seen.is_new(*refusal, Instant::now()) {
            self.gate.access_log.write(record(refusal, &self.gate, self.datagrams));
            self.recorded += 1;
            metrics::counter!(RECORDED).increment(1);
        }
    }
}

/// Flows refused a short while ago.
#[derive(Debug, Default)]
struct Seen {
    until: HashMap<Refusal, Instant>,
}

impl Seen {
    fn is_new(&mut self, refusal: Refusal, now: Instant) -> bool {
        if self.until.len() >= REMEMBERED {
            self.until.retain(|_, until| *until > now);
        }
        if self.until.len() >= REMEMBERED {
            self.until.clear();
        }
        match self.until.insert(refusal, now + SAME_FLOW) {
            Some(until) => until <= now,
            None => true,
        }
    }
}

fn record(refusal: &Refusal, gate: &Gate, datagrams: Datagrams) -> AccessRecord {
    let reason = reason(refusal);
    AccessRecord {
        schema: SCHEMA.to_owned(),
        time: clock::rfc3339_millis(SystemTime::now()),
        direction: "egress".to_owned(),
        workload: gate.workload.clone(),
        source: Some(refusal.source),
        original_dst: Some(refusal.destination),
        upstream: None,
        host: None,
        protocol: word(refusal.protocol).to_owned(),
        tls: None,
        dns: None,
        http: None,
        verdict: "denied".to_owned(),
        policy: None,
        rule: None,
        reason: reason.word().to_owned(),
        explanation: Some(explain(refusal, reason, datagrams)),
        generation: gate.policies.current().generation().0,
        bytes_sent: 0,
        bytes_received: 0,
        duration_ms: 0.0,
        close_reason: CloseReason::Denied,
    }
}

fn word(protocol: RefusedProtocol) -> &'static str {
    match protocol {
        RefusedProtocol::Tcp => "tcp",
        RefusedProtocol::Udp => "udp",
        RefusedProtocol::Icmp => "icmp",
        RefusedProtocol::Other(_) => "other",
    }
}

fn reason(refusal: &Refusal) -> Reason {
    // A local destination is refused for nothing else. The kernel gives such a packet its destination as its source.
    let to_ourselves =
        refusal.destination.ip().is_loopback() || refusal.destination.ip() == refusal.source.ip();
    match refusal.protocol {
        RefusedProtocol::Tcp | RefusedProtocol::Udp if to_ourselves => Reason::AddressOwnListener,
        // Redirected otherwise.
        RefusedProtocol::Tcp if is_scoped(refusal.destination.ip()) => Reason::AddressLinkLocal,
        RefusedProtocol::Tcp => Reason::OlderThanRules,
        RefusedProtocol::Udp => Reason::UdpRefused,
        RefusedProtocol::Icmp | RefusedProtocol::Other(_) => Reason::ProtocolRefused,
    }
}

fn is_scoped(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

fn explain(refusal: &Refusal, reason: Reason, datagrams: Datagrams) -> String {
    let [what, fix] = match reason {
        Reason::UdpRefused => datagrams.advice(),
        reason => [reason.meaning(), reason.fix()],
    };
    let what = match refusal.protocol {
        RefusedProtocol::Other(number) => format!("{what} (IP protocol {number})"),
        _ => what.to_owned(),
    };
    match fix {
        "" => what,
        fix => format!("{what} {fix}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(protocol: RefusedProtocol, source: &str, destination: &str) -> Refusal {
        let address = |text: &str| text.parse().expect("an address");
        Refusal { protocol, source: address(source), destination: address(destination) }
    }

    #[test]
    fn a_flow_is_told_once_in_a_while() {
        let flow = refusal(RefusedProtocol::Udp, "192.0.0.8:40000", "192.0.2.1:443");
        let other = refusal(RefusedProtocol::Udp, "192.0.0.8:40001", "192.0.2.1:443");
        let (mut seen, start) = (Seen::default(), Instant::now());
        assert!(seen.is_new(flow, start));
        assert!(!seen.is_new(flow, start + SAME_FLOW / 2));
        assert!(seen.is_new(other, start + SAME_FLOW / 2));
        assert!(seen.is_new(flow, start + SAME_FLOW * 2));
    }

    #[test]
    fn memory_of_flows_is_bounded() {
        let (mut seen, now) = (Seen::default(), Instant::now());
        for port in 0..=u16::MAX {
            let mut flow = refusal(RefusedProtocol::Udp, "192.0.0.8:0", "192.0.2.1:443");
            flow.source.set_port(port);
            assert!(seen.is_new(flow, now));
            assert!(seen.until.len() <= REMEMBERED);
        }
    }

    #[test]
    fn a_rule_is_advised_only_where_it_would_be_carried_out() {
        let datagram = refusal(RefusedProtocol::Udp, "192.0.0.8:40000", "192.0.2.1:443");
        let told = |datagrams| explain(&datagram, Reason::UdpRefused, datagrams);
        assert!(told(Datagrams::ByRule).contains("Add a rule with `protocol: udp`"));
        assert!(!told(Datagrams::Never).contains("Add a rule"), "{}", told(Datagrams::Never));
    }

    #[test]
    fn each_kind_of_packet_has_its_reason() {
        let cases = [
            (RefusedProtocol::Tcp, "127.0.0.1:40000", "127.0.0.1:15001", Reason::AddressOwnListener),
            (RefusedProtocol::Tcp, "[fd00::1]:40000", "[fd00::1]:15053", Reason::AddressOwnListener),
            (RefusedProtocol::Tcp, "192.0.0.8:40000", "192.0.2.1:443", Reason::OlderThanRules),
            (RefusedProtocol::Tcp, "[fe80::1]:40000", "[fe80::2]:443", Reason::AddressLinkLocal),
            (RefusedProtocol::Tcp, "192.0.0.8:40000", "169.254.0.1:443", Reason::OlderThanRules),
            (RefusedProtocol::Udp, "192.0.0.8:40000", "192.0.2.1:443", Reason::UdpRefused),
            (RefusedProtocol::Icmp, "192.0.0.8:0", "192.0.2.1:0", Reason::ProtocolRefused),
            (RefusedProtocol::Other(136), "192.0.0.8:0", "192.0.2.1:0", Reason::ProtocolRefused),
        ];
        for (protocol, source, destination, expected) in cases {
            assert_eq!(reason(&refusal(protocol, source, destination)), expected);
        }
    }
}
