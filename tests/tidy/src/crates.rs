//! Rules over the crates' manifests and roots.

use crate::Tree;

/// All crates that others may build on.
const ALL: &[&str] =
    &["sidegate-policy", "sidegate-certs", "sidegate-api", "sidegate-proxy", "sidegate-control"];

/// Which of our packages each crate may depend on. A crate that is not listed breaks the rule.
const ARROWS: &[(&str, &[&str])] = &[
    ("policy", &[]),
    ("certs", &["sidegate-policy"]),
    ("api", &["sidegate-policy"]),
    ("proxy", &["sidegate-policy", "sidegate-certs", "sidegate-api"]),
    ("control", &["sidegate-policy", "sidegate-certs", "sidegate-api"]),
    ("cli", ALL),
    ("fuzz", ALL),
    ("benches", ALL),
    ("benches/peers", ALL),
    ("tests/harness", &["sidegate-policy", "sidegate-certs", "sidegate-api"]),
    ("tests/tidy", &[]),
];

/// Packages that any crate may have as a dev-dependency.
const FOR_TESTS: &[&str] = &["sidegate-harness"];

/// Crates in which no `unsafe` may ever stand.
const SAFE: &[&str] = &["policy", "certs", "api", "control", "cli"];

/// Our crates depend on each other only along the arrows of docs/ARCHITECTURE.md.
pub fn arrows(tree: &Tree) -> Vec<String> {
    let mut wrong = Vec::new();
    for (krate, manifest) in manifests(tree) {
        let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == krate) else {
            wrong.push(format!(
                "{krate}/Cargo.toml: this crate has no arrows; add it to ARROWS and docs/ARCHITECTURE.md"
            ));
            continue;
        };
        for (section, name) in dependencies(manifest) {
            let tests_only = section == "dev-dependencies" && FOR_TESTS.contains(&name);
            if name.starts_with("sidegate") && !allowed.contains(&name) && !tests_only {
                wrong.push(format!("{krate}/Cargo.toml: {krate} must not depend on {name}"));
            }
        }
    }
    wrong
}

/// Every manifest says `[lints] workspace = true` (the fuzz crate stands outside the workspace).
pub fn lints(tree: &Tree) -> Vec<String> {
    let missing = manifests(tree)
        .filter(|(krate, text)| *krate != "fuzz" && !text.contains("[lints]\nworkspace = true"));
    missing.map(|(krate, _)| format!("{krate}/Cargo.toml: lacks `[lints] workspace = true`")).collect()
}

/// The roots of crates without system calls say `#![forbid(unsafe_code)]`.
pub fn forbid_unsafe(tree: &Tree) -> Vec<String> {
    let roots = SAFE.iter().flat_map(|krate| ["lib.rs", "main.rs"].map(|root| format!("{krate}/src/{root}")));
    let without = roots.filter_map(|path| tree.file(&path)).filter(|file| {
        file.layers.as_ref().is_some_and(|layers| !layers.code.contains("#![forbid(unsafe_code)]"))
    });
    without.map(|file| format!("{}: lacks `#![forbid(unsafe_code)]`", file.path)).collect()
}

/// `cargo run` means the `sidegate` command.
pub fn default_member(tree: &Tree) -> Vec<String> {
    match tree.file("Cargo.toml") {
        Some(root) if root.text.contains("default-members = [\"cli\"]") => Vec::new(),
        _ => vec![
            "Cargo.toml: lacks `default-members = [\"cli\"]`, so `cargo run` can't choose a binary"
                .to_owned(),
        ],
    }
}

/// Folder and text of every package's manifest.
fn manifests(tree: &Tree) -> impl Iterator<Item = (&str, &str)> {
    tree.files.iter().filter_map(|file| Some((file.path.strip_suffix("/Cargo.toml")?, file.text.as_str())))
}

/// Section and name of each dependency, whichever way TOML writes it.
fn dependencies(manifest: &str) -> Vec<(&str, &str)> {
    let mut found = Vec::new();
    let mut section = "";
    for line in manifest.lines().map(str::trim) {
        if let Some(header) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = header.rsplit_once(".'").map_or(header, |_| header);
            if let Some((kind, name)) = header.rsplit_once("dependencies.") {
                let kind = if kind.ends_with("dev-") { "dev-dependencies" } else { "dependencies" };
                found.push((kind, name));
            }
        } else if section.ends_with("dependencies") && !line.starts_with('#') {
            let name = line.split(['=', '.', ' ']).next().unwrap_or_default().trim_matches('"');
            let kind =
                if section.ends_with("dev-dependencies") { "dev-dependencies" } else { "dependencies" };
            if !name.is_empty() {
                found.push((kind, name));
            }
            if let Some((_, renamed)) = line.split_once("package = \"") {
                found.push((kind, renamed.split('"').next().unwrap_or_default()));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arrow_backwards_is_found_however_it_is_written() {
        for text in [
            "[dependencies]\nsidegate-proxy.workspace = true",
            "[dependencies]\nsidegate-proxy = { path = \"../proxy\" }",
            "[dependencies]\np = { package = \"sidegate-proxy\", path = \"x\" }",
            "[dependencies.sidegate-proxy]\npath = \"../proxy\"",
            "[dev-dependencies]\nsidegate-proxy.workspace = true",
            "[target.'cfg(unix)'.dependencies]\nsidegate-proxy.workspace = true",
        ] {
            let wrong = arrows(&Tree::of(&[("control/Cargo.toml", text)]));
            assert_eq!(wrong, ["control/Cargo.toml: control must not depend on sidegate-proxy"], "{text}");
        }
        assert!(
            arrows(&Tree::of(&[("cli/Cargo.toml", "[dependencies]\nsidegate-proxy.workspace = true")]))
                .is_empty()
        );
    }

    #[test]
    fn an_unknown_crate_is_found() {
        assert_eq!(arrows(&Tree::of(&[("extra/Cargo.toml", "")])).len(), 1);
    }

    #[test]
    fn missing_lints_are_found() {
        assert_eq!(lints(&Tree::of(&[("api/Cargo.toml", "[package]\n")])).len(), 1);
        assert!(lints(&Tree::of(&[("api/Cargo.toml", "[lints]\nworkspace = true\n")])).is_empty());
    }

    #[test]
    fn a_missing_forbid_is_found_even_if_a_comment_names_it() {
        let tree = Tree::of(&[("policy/src/lib.rs", "// #![forbid(unsafe_code)]"), ("proxy/src/lib.rs", "")]);
        assert_eq!(forbid_unsafe(&tree), ["policy/src/lib.rs: lacks `#![forbid(unsafe_code)]`"]);
    }

    #[test]
    fn a_missing_default_member_is_found() {
        assert_eq!(default_member(&Tree::of(&[("Cargo.toml", "[workspace]")])).len(), 1);
    }
}
