//! The word list: names that say nothing, or that say two things.

use crate::{Tree, sources::words as identifiers};

/// Never part of a name.
const EMPTY: &[&str] = &["manager", "helper", "helpers", "util", "utils", "common", "misc", "data", "info"];
/// Never part of a type's or file's name: as nouns they say nothing.
const NOUNS: &[&str] = &["process", "handle"];
/// Terms that we did not choose, each with who did. They may be part of a name.
const GIVEN: &[(&str, &str)] = &[
    ("early_data", "the extension's name, RFC 8446 section 4.2.10"),
    ("application_data", "the content type's name, RFC 8446 section 5.1"),
    ("NFTA_DATA", "linux/netfilter/nf_tables.h"),
    ("NFTA_EXPR_DATA", "linux/netfilter/nf_tables.h"),
    ("NFTA_CMP_DATA", "linux/netfilter/nf_tables.h"),
    ("NFTA_IMMEDIATE_DATA", "linux/netfilter/nf_tables.h"),
];

/// Associated types of others' traits, each with whose.
const OF_TRAITS: &[(&str, &str)] = &[("type Data =", "http_body::Body")];

/// What a keyword introduces.
const TYPES: &[&str] = &["struct", "enum", "union", "trait", "type"];
const OTHERS: &[&str] = &["fn", "mod", "const", "static", "let", "mut", "ref", "macro_rules"];

/// Declared identifiers and file names avoid the list, and no function is called `get_`.
pub fn names(tree: &Tree) -> Vec<String> {
    let mut wrong = Vec::new();
    for file in &tree.files {
        let stem = file.path.rsplit('/').next().unwrap_or_default().split('.').next().unwrap_or_default();
        if let Some(word) = parts(stem).into_iter().find(|word| is_listed(word, true)) {
            wrong.push(format!("{}: the file's name says `{word}`", file.path));
        }
    }
    for (file, layers) in tree.rust() {
        for (number, line) in layers.code.lines().enumerate() {
            if OF_TRAITS.iter().any(|(start, _)| line.trim_start().starts_with(start)) {
                continue;
            }
            for (name, kind) in declared(line) {
                let own = GIVEN.iter().fold(name.to_owned(), |name, (term, _)| name.replace(term, ""));
                let listed = parts(&own).into_iter().find(|word| is_listed(word, kind == Kind::Type));
                let got = kind == Kind::Function && name.starts_with("get_");
                if let Some(word) = listed.or_else(|| got.then(|| "get_".to_owned())) {
                    wrong.push(format!("{}:{}: `{name}` says `{word}`", file.path, number + 1));
                }
            }
        }
    }
    wrong
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Type,
    Function,
    Other,
}

/// The names that a line of code declares: after a keyword, and before a single colon (fields, arguments).
fn declared(line: &str) -> Vec<(&str, Kind)> {
    let mut found = Vec::new();
    let mut before = "";
    for word in identifiers(line) {
        if TYPES.contains(&before) {
            found.push((word, Kind::Type));
        } else if before == "fn" {
            found.push((word, Kind::Function));
        } else if OTHERS.contains(&before) || is_field(line, word) {
            found.push((word, Kind::Other));
        }
        before = word;
    }
    found
}

/// `word` is a slice of `line` and is followed by one colon, and follows none.
fn is_field(line: &str, word: &str) -> bool {
    let start = word.as_ptr() as usize - line.as_ptr() as usize;
    let after = line[start + word.len()..].trim_start();
    let colon = after.starts_with(':') && !after.starts_with("::");
    colon
        && !line[..start].trim_end().ends_with(':')
        && word.chars().all(|c| c.is_lowercase() || c == '_' || c.is_numeric())
}

fn is_listed(word: &str, noun: bool) -> bool {
    EMPTY.contains(&word) || (noun && NOUNS.contains(&word))
}

/// `HostName`, `host_name` and `host-name` alike are `host`, `name`.
fn parts(name: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut before = ' ';
    for c in name.chars() {
        if !c.is_alphanumeric() || (c.is_uppercase() && !before.is_uppercase()) {
            parts.push(String::new());
        }
        if let (true, Some(last)) = (c.is_alphanumeric(), parts.last_mut()) {
            last.extend(c.to_lowercase());
        }
        before = c;
    }
    parts.retain(|part| !part.is_empty());
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> usize {
        names(&Tree::of(&[("proxy/src/a.rs", text)])).len()
    }

    #[test]
    fn listed_words_are_found_where_they_are_declared() {
        for bad in [
            "struct PolicyManager;",
            "fn parse_helper() {}",
            "mod utils;",
            "let mut data = 1;",
            "    peer_info: Peer,",
            "fn f(data: &[u8]) {}",
            "const COMMON: u8 = 1;",
            "struct ChildProcess;",
            "type ConnectionHandle = u8;",
            "pub fn get_name(&self) {}",
        ] {
            assert_eq!(found(bad), 1, "{bad}");
        }
    }

    #[test]
    fn used_words_verbs_and_longer_words_are_not() {
        for good in [
            "tracing::info!(\"x\");",
            "let x = frame.data();",
            "fn handle_event() {}",
            "let early_data = true;",
            "let metadata = 1; // the data",
            "use libc::utsname; std::process::exit(1)",
            "let x = foo.get_ref();",
        ] {
            assert_eq!(found(good), 0, "{good}");
        }
    }

    #[test]
    fn a_listed_file_name_is_found() {
        let tree =
            Tree::of(&[("proxy/src/dns/utils.rs", ""), ("docs/process.md", ""), ("docs/metadata.md", "")]);
        assert_eq!(names(&tree).len(), 2);
    }
}
