//! The demo's words on the terminal.

use std::{
    io::{self, Write},
    sync::atomic::{AtomicU64, Ordering},
};

use sidegate_api::AccessRecord;

use super::{
    app::Told,
    attempts::{Act, Attempt},
    place::Place,
    world::Seen,
};
use crate::run::wants_colour;

/// Columns left for what the application saw: a line has 99.
const MOST_SEEN: usize = 24;
/// Verdict and reason where the application can't even make the socket, so that there is nothing to record.
const NO_PACKET: (&str, &str) = ("denied", "no right to a socket");

/// What is about to happen.
pub(super) fn opening(policy: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "An application runs behind this policy:\n")?;
    for line in policy.lines() {
        writeln!(out, "    {line}")?;
    }
    writeln!(out, "\n      {:<36}  {:<7}  {:<20}  the application saw", "attempt", "verdict", "reason")?;
    out.flush()
}

/// One line of the table; true when it is as expected.
pub(super) fn row(
    number: usize,
    attempt: &Attempt,
    told: &Told,
    record: Option<&AccessRecord>,
) -> io::Result<bool> {
    let got = record.map(|record| (record.verdict.as_str(), record.reason.as_str()));
    let expected = got == attempt.expected && told.succeeded == attempt.succeeds;
    let (verdict, reason) = match (got, attempt.expected) {
        (Some(got), _) => got,
        (None, None) => NO_PACKET,
        (None, Some(_)) => ("?", "no record"),
    };
    line(number, attempt.title, (verdict, reason), &told.saw)?;
    let mut out = io::stdout().lock();
    if !expected {
        let wanted = attempt.expected.unwrap_or(NO_PACKET);
        writeln!(out, "      UNEXPECTED: should be {} ({})", wanted.0, wanted.1)?;
    }
    out.flush()?;
    Ok(expected)
}

/// Number, title, verdict, reason and what was seen.
fn line(number: usize, title: &str, (verdict, reason): (&str, &str), saw: &str) -> io::Result<()> {
    let (on, off) = match (wants_colour(&io::stdout()), verdict) {
        (false, _) => ("", ""),
        (true, "allowed") => ("\x1b[32m", "\x1b[0m"),
        (true, _) => ("\x1b[31m", "\x1b[0m"),
    };
    let saw: String = saw.chars().filter(|c| !c.is_control()).take(MOST_SEEN).collect();
    writeln!(io::stdout(), "  {:>2}  {title:<36}  {on}{verdict:<7}{off}  {reason:<20}  {saw}", number + 1)
}

/// Whether a record tells of this attempt: its name, its address, or both.
pub(super) fn belongs(record: &AccessRecord, attempt: &Attempt) -> bool {
    let to = |address| record.original_dst == Some(address);
    let named = |name: &str| record.host.as_deref() == Some(name);
    match attempt.act {
        Act::Tls(address, name) => record.dns.is_none() && to(address) && named(name),
        Act::Plain(address) | Act::Listen(address) => record.protocol != "udp" && to(address),
        Act::Datagram(address) => record.protocol == "udp" && to(address),
        Act::Ask(_, name) => record.dns.is_some() && named(name),
        Act::ByName(name, port) => {
            record.dns.is_none() && named(name) && record.original_dst.is_some_and(|to| to.port() == port)
        }
        Act::Request { method, host, .. } => {
            let asked = record.http.as_ref().map(|http| http.method.as_str());
            named(host) && asked == Some(method)
        }
        Act::Icmp => false,
    }
}

/// What the far ends counted; true when nothing arrived that should not.
pub(super) fn proof(seen: &Seen) -> io::Result<bool> {
    let read = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
    let counts = [
        ("TLS 1.3 origin: handshakes by its own names", read(&seen.api), 5),
        ("TLS 1.2 server: application bytes", read(&seen.old_bytes), 0),
        ("database: connections", read(&seen.database), 1),
        ("attacker: connections and datagrams", read(&seen.attacker), 0),
        ("metadata address: connections", read(&seen.metadata), 0),
        ("resolver: questions for forbidden names", read(&seen.forbidden_questions), 0),
    ];
    let mut out = io::stdout().lock();
    writeln!(out, "\nWhat reached the world, as the far ends counted it:\n")?;
    for (what, count, wanted) in counts {
        let mark = if count == wanted { "" } else { "   UNEXPECTED" };
        writeln!(out, "  {what:<46} {count}{mark}")?;
    }
    out.flush()?;
    Ok(counts.iter().all(|(_, count, wanted)| count == wanted))
}

/// What the second scene is about.
pub(super) fn second_opening(asking: &str, answering: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "\nTwo workloads speak plaintext to each other, each behind a proxy with a certificate of its own:\n"
    )?;
    for line in rules(asking).chain(rules(answering)) {
        writeln!(out, "    {line}")?;
    }
    writeln!(out, "\n      {:<36}  {:<7}  {:<20}  whoever asked saw", "attempt", "verdict", "reason")?;
    out.flush()
}

/// A policy without its first lines.
fn rules(policy: &str) -> impl Iterator<Item = &str> {
    policy.lines().skip_while(|line| !line.starts_with("metadata"))
}

/// A line of the second scene's table.
pub(super) struct Row {
    pub(super) number: usize,
    pub(super) title: &'static str,
    /// Verdict and reason of the record, and those that it should have.
    pub(super) got: Option<(String, String)>,
    pub(super) wanted: (&'static str, &'static str),
}

/// Prints it; true when it is as expected.
pub(super) fn second_row(row: &Row, expected: bool, saw: &str) -> io::Result<bool> {
    let got = row.got.as_ref().map(|(verdict, reason)| (verdict.as_str(), reason.as_str()));
    line(row.number, row.title, got.unwrap_or(("?", "no record")), saw)?;
    if !expected {
        writeln!(io::stdout(), "      UNEXPECTED: should be {} ({})", row.wanted.0, row.wanted.1)?;
    }
    Ok(expected)
}

/// What could be read on the wire between the two; true when it is as expected.
pub(super) fn wire(facts: &[(&str, bool, bool)], packets: usize) -> io::Result<bool> {
    let mut out = io::stdout().lock();
    writeln!(out, "\nWhat passed on the wire before `orders`, {packets} packets between the proxies:\n")?;
    for (what, is, wanted) in facts {
        let mark = if is == wanted { "" } else { "   UNEXPECTED" };
        writeln!(out, "  {what:<60} {}{mark}", if *is { "yes" } else { "no" })?;
    }
    out.flush()?;
    Ok(packets > 0 && facts.iter().all(|(_, is, wanted)| is == wanted))
}

/// Where to look while the world stays up.
pub(super) fn places(place: &Place) -> io::Result<()> {
    let path = |name| place.path(name).display().to_string();
    let mut out = io::stdout().lock();
    writeln!(out, "\nThe world stays up until Ctrl-C. To look around, from another terminal:\n")?;
    writeln!(out, "  policy          {}", path("policy.yaml"))?;
    writeln!(out, "  access records  {}", path("access.jsonl"))?;
    writeln!(out, "  try a command   {} curl https://api.demo.test/", path("try"))?;
    writeln!(out, "                  {} curl https://evil.demo.test/\n", path("try"))?;
    writeln!(out, "Change the policy, and try again.")?;
    out.flush()
}

/// Why it does not stay up.
pub(super) fn no_terminal() -> io::Result<()> {
    writeln!(io::stdout(), "\nStandard output is no terminal, so the demo ends here, as with --once.")
}

/// What to do next.
pub(super) fn next() -> io::Result<()> {
    writeln!(
        io::stdout(),
        "\nNext: sidegate run --policy FILE -- CMD   (for a first policy: sidegate run --mode audit -- CMD)"
    )
}
