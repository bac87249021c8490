//! The summary in words: by reason, then by destination; at last what to write into the policy.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use sidegate_policy::Reason;

use super::{Advice, Closing, Counts, Group, Groups, Key};
use crate::run::{policy_files::DEFAULT_FILE, suggestion, wording};

/// Destinations that are printed of each kind.
const MOST_PRINTED: usize = 20;

pub(super) fn of(counts: &Counts, closing: &Closing<'_>) -> String {
    let mut text = headline(counts);
    allowed(&mut text, &counts.allowed);
    refused(&mut text, &counts.refused);
    if closing.unrecorded > 0 {
        let (number, noun) =
            (grouped(closing.unrecorded), if closing.unrecorded == 1 { "packet" } else { "packets" });
        let _ = writeln!(text, "\n  and {number} more refused {noun}, counted, not recorded one by one");
    }
    if closing.dropped > 0 {
        // Writing to a string can't fail.
        let _ =
            writeln!(text, "\n  {} records were dropped: more traffic than could be told", closing.dropped);
    }
    text + &advice(counts, closing).unwrap_or_default()
}

/// `sidegate: 2 connections allowed; 1 connection and 4 questions denied`
fn headline(counts: &Counts) -> String {
    let mut text = format!("\nsidegate: {} allowed", count(counts.allowed.connections, "connection"));
    let refused = &counts.refused;
    let word = if refused.by_key.keys().all(|key| key.verdict == "would-deny") {
        "would be denied"
    } else {
        "denied"
    };
    let parts: Vec<String> = [(refused.connections, "connection"), (refused.questions, "DNS question")]
        .into_iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, noun)| count(number, noun))
        .collect();
    if !parts.is_empty() {
        let _ = write!(text, "; {} {word}", parts.join(" and "));
    }
    text.push('\n');
    text
}

fn allowed(text: &mut String, groups: &Groups) {
    let mut ordered: Vec<(&Key, &Group)> = groups.by_key.iter().collect();
    ordered.sort_by_key(|(_, group)| std::cmp::Reverse(group.count));
    for (key, group) in ordered.iter().take(MOST_PRINTED) {
        line(text, key, group);
    }
    elsewhere(
        text,
        ordered.iter().skip(MOST_PRINTED).map(|(_, group)| group.count).sum::<u64>() + groups.beyond,
    );
}

/// What a reason means is told once, above its destinations.
fn refused(text: &mut String, groups: &Groups) {
    let connected: BTreeSet<&str> = groups.by_key.values().filter_map(connected_by_audit).collect();
    let mut by_reason: BTreeMap<&str, Vec<(&Key, &Group)>> = BTreeMap::new();
    for (key, group) in &groups.by_key {
        // In audit mode the connection follows its question, and says more.
        let told = group.first.dns.is_some()
            && group.first.host.as_deref().is_some_and(|host| connected.contains(host));
        if !told {
            by_reason.entry(&key.reason).or_default().push((key, group));
        }
    }
    let (mut room, mut unprinted) = (MOST_PRINTED, groups.beyond);
    for (reason, mut destinations) in by_reason {
        destinations.sort_by_key(|(_, group)| std::cmp::Reverse(group.count));
        let printed = destinations.len().min(room);
        room -= printed;
        unprinted += destinations.iter().skip(printed).map(|(_, group)| group.count).sum::<u64>();
        if printed > 0 {
            let _ = writeln!(text, "\n  {reason}: {}", sentence(reason));
        }
        for (key, group) in destinations.into_iter().take(printed) {
            line(text, key, group);
            if let Some(particulars) = wording::particulars(&group.first) {
                let _ = writeln!(text, "  {:<10} {particulars}", "");
            }
        }
    }
    elsewhere(text, unprinted);
}

fn connected_by_audit(group: &Group) -> Option<&str> {
    let record = &group.first;
    record.host.as_deref().filter(|_| record.dns.is_none() && record.verdict == "would-deny")
}

/// `denied  pypi.org (A, AAAA, asked 4 times)`, `allowed  api.example:443 (tls, once)`
fn line(text: &mut String, key: &Key, group: &Group) {
    let times = if group.count == 1 { "once".to_owned() } else { format!("{} times", group.count) };
    let how = if group.first.dns.is_some() {
        let types: Vec<&str> = group.types.iter().map(String::as_str).collect();
        format!("{}, asked {times}", wording::plain(&types.join(", ")))
    } else {
        format!("{}, {times}", wording::plain(&key.protocol))
    };
    let _ = writeln!(text, "  {:<10} {} ({how})", key.verdict, key.place);
}

fn elsewhere(text: &mut String, count: u64) {
    if count > 0 {
        let _ = writeln!(text, "  and {count} times elsewhere; --access-log keeps them all");
    }
}

fn sentence(reason: &str) -> String {
    let known = Reason::from_word(reason).map(|reason| wording::told(reason).join(" "));
    known.unwrap_or_else(|| wording::plain(reason)).trim_end().to_owned()
}

fn advice(counts: &Counts, closing: &Closing<'_>) -> Option<String> {
    let refused = || counts.refused.by_key.values();
    let seen = || counts.allowed.by_key.values().chain(refused());
    match closing.advice {
        Advice::Rules => {
            let offer = suggestion::offer(refused(), closing.known)?;
            let rules = offer.rules().map(|rules| {
                format!("\n  to allow what is intended, add to the policy under `spec.egress`:\n\n{rules}")
            });
            Some(offer.edits() + &rules.unwrap_or_default())
        }
        Advice::FirstPolicy(command) => {
            let policy = suggestion::offer(refused(), closing.known)?.policy(command);
            Some(format!(
                "\n  to allow what is intended, keep what is right of this in {DEFAULT_FILE}:\n\n{policy}"
            ))
        }
        Advice::Audit(command) => {
            let mut policy = suggestion::document(seen(), command, closing.known)?;
            if counts.allowed.beyond + counts.refused.beyond + closing.dropped > 0 {
                policy.push_str("# incomplete: there were more destinations than are kept\n");
            }
            Some(format!("\n  the least that allows what was seen, as a policy:\n\n{policy}"))
        }
    }
}

/// `4,210`
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let group = |(place, digit): (usize, char)| {
        let comma = place > 0 && (digits.len() - place).is_multiple_of(3);
        comma.then_some(',').into_iter().chain([digit])
    };
    digits.chars().enumerate().flat_map(group).collect()
}

fn count(number: u64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}
