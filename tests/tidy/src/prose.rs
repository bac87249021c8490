//! Rules over the README and the docs.

use crate::Tree;

/// What the README shows first, and the file that makes each true.
const COMMANDS: &[(&str, &str)] =
    &[("cargo run --release -- demo", "cli/src/main.rs"), ("tests/run", "tests/run")];

/// The README shows its two commands, and they exist.
pub fn commands(tree: &Tree) -> Vec<String> {
    let readme = tree.file("README.md").map_or("", |file| file.text.as_str());
    let mut wrong = Vec::new();
    for (command, file) in COMMANDS {
        if !readme.lines().any(|line| line.trim().starts_with(command)) {
            wrong.push(format!("README.md: lacks a line with `{command}`"));
        }
        if tree.file(file).is_none() {
            wrong.push(format!("README.md: `{command}` needs {file}, which is absent"));
        }
    }
    wrong
}

/// Relative links of Markdown files lead to files (and headings) that exist.
pub fn links(tree: &Tree) -> Vec<String> {
    let mut wrong = Vec::new();
    for file in tree.files.iter().filter(|file| file.path.ends_with(".md")) {
        for (number, line) in prose_lines(&file.text) {
            for target in
                targets(line).filter(|target| !target.contains("://") && !target.starts_with("mailto:"))
            {
                if !leads_somewhere(tree, &file.path, target) {
                    wrong.push(format!("{}:{}: the link to `{target}` leads nowhere", file.path, number + 1));
                }
            }
        }
    }
    wrong
}

const THREATS: &str = "docs/THREATS.md";
const SHOWN: &str = "## What shows it";

/// Every class of threats names the tests that show its defence, and each of them stands in the file it is said to.
pub fn shown(tree: &Tree) -> Vec<String> {
    let Some(threats) = tree.file(THREATS) else { return vec![format!("{THREATS}: is absent")] };
    let (defences, rest) = threats.text.split_once(SHOWN).unwrap_or((&threats.text, ""));
    let section = rest.split("\n## ").next().unwrap_or_default();
    let mut wrong = Vec::new();
    for class in classes(defences) {
        let tests = section
            .split("\n### ")
            .find(|part| part.lines().next().map(str::to_lowercase) == Some(class.clone()));
        if !tests.is_some_and(|part| part.contains("- [") && part.contains('`')) {
            wrong.push(format!("{THREATS}: no test shows the defence of `{class}`"));
        }
    }
    for item in section.split("\n- [").skip(1) {
        let (path, names) = item.split_once("](").unwrap_or((item, ""));
        let text = tree.file(path).map_or("", |file| file.text.as_str());
        // Words between backticks: every second part.
        for name in names.split('`').skip(1).step_by(2) {
            if !["fn", "def"].iter().any(|word| text.contains(&format!("{word} {name}("))) {
                wrong.push(format!("{THREATS}: {path} has no test `{name}`"));
            }
        }
    }
    wrong
}

/// First cells of the table's rows, in small letters.
fn classes(text: &str) -> impl Iterator<Item = String> {
    let rows = text.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    rows.filter(|class| *class != "class").map(str::to_lowercase)
}

const MAP: &str = "docs/ARCHITECTURE.md";

/// The code map names every folder that stands directly below a crate's `src`.
pub fn map(tree: &Tree) -> Vec<String> {
    let text = tree.file(MAP).map_or("", |file| file.text.as_str());
    let mut folders = std::collections::BTreeSet::new();
    for file in &tree.files {
        let Some((before, below)) = file.path.split_once("/src/") else { continue };
        if let Some((folder, _)) = below.split_once('/') {
            folders.insert(format!("{before}/src/{folder}/"));
        }
    }
    let unnamed = folders.into_iter().filter(|folder| !text.contains(folder.as_str()));
    unnamed.map(|folder| format!("{MAP}: the code map lacks {folder}")).collect()
}

/// Numbered lines outside fenced code.
fn prose_lines(text: &str) -> Vec<(usize, &str)> {
    let mut fenced = false;
    let mut lines = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            lines.push((number, line));
        }
    }
    lines
}

/// Targets of `[text](target)`.
fn targets(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|rest| rest.split(')').next())
}

fn leads_somewhere(tree: &Tree, from: &str, target: &str) -> bool {
    let (path, heading) =
        target.split_once('#').map_or((target, None), |(path, heading)| (path, Some(heading)));
    let path = if path.is_empty() { from.to_owned() } else { resolve(from, path) };
    let folder = format!("{}/", path.trim_end_matches('/'));
    let Some(file) = tree.file(&path) else {
        return heading.is_none() && tree.files.iter().any(|file| file.path.starts_with(&folder));
    };
    heading.is_none_or(|heading| {
        let headings = prose_lines(&file.text).into_iter().filter(|(_, line)| line.starts_with('#'));
        headings.map(|(_, line)| slug(line)).any(|slug| slug == heading)
    })
}

/// The path of `target`, which is relative to the folder of `from`.
fn resolve(from: &str, target: &str) -> String {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "." | "" => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// A heading's anchor as forges make it.
fn slug(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_command_is_found() {
        let tree = Tree::of(&[("README.md", "    tests/run"), ("tests/run", "")]);
        assert_eq!(commands(&tree).len(), 2);
    }

    #[test]
    fn a_class_without_tests_and_a_test_that_is_gone_are_found() {
        let text = "| class | where |\n|---|---|\n| one | x |\n| two | x |\n## What shows it\n\n### One\n\n\
                    - [a.rs](../a.rs):\n  `here`, `gone`\n- [b.py](../b.py):\n  `test_b`\n\n## After\n`no_test`\n";
        let tree =
            Tree::of(&[("docs/THREATS.md", text), ("a.rs", "fn here() {}"), ("b.py", "def test_b():")]);
        assert_eq!(
            shown(&tree),
            [
                "docs/THREATS.md: no test shows the defence of `two`",
                "docs/THREATS.md: a.rs has no test `gone`",
            ]
        );
    }

    #[test]
    fn a_folder_that_the_map_lacks_is_found() {
        let files = [
            ("docs/ARCHITECTURE.md", "x/src/a/"),
            ("x/src/a/b/c.rs", ""),
            ("x/src/d/e.rs", ""),
            ("x/src/f.rs", ""),
        ];
        assert_eq!(map(&Tree::of(&files)), ["docs/ARCHITECTURE.md: the code map lacks x/src/d/"]);
    }

    #[test]
    fn dead_links_are_found() {
        let text = "[a](docs/b.md) [c](docs/b.md#two-words) [d](gone.md)\n[e](docs/b.md#gone) [f](docs) [g](https://x.test/y)\n\
                    ```\n[h](gone.md)\n```";
        let tree = Tree::of(&[("README.md", text), ("docs/b.md", "# Two words\n[up](../README.md)")]);
        assert_eq!(
            links(&tree),
            [
                "README.md:1: the link to `gone.md` leads nowhere",
                "README.md:2: the link to `docs/b.md#gone` leads nowhere",
            ]
        );
    }
}
