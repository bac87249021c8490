//! Rules over Rust sources.

use crate::{File, Tree, lexer::Layers};

/// Most lines of a file, its tests not counted. Past 300 a file wants splitting.
const LONGEST: usize = 500;
/// Files that may be longer, each with its reason. Keep it empty.
const LONG: &[(&str, &str)] = &[];

/// Files are short enough to be read whole.
pub fn length(tree: &Tree) -> Vec<String> {
    let ours =
        tree.rust().filter(|(file, _)| !file.is_test() && !LONG.iter().any(|(path, _)| *path == file.path));
    let long = ours.map(|(file, _)| (file, file.first_test_line())).filter(|&(_, lines)| lines > LONGEST);
    long.map(|(file, lines)| format!("{}: {lines} lines without tests; the most is {LONGEST}", file.path))
        .collect()
}

/// `unsafe` stands only in proxy/src/sys.
pub fn unsafe_code(tree: &Tree) -> Vec<String> {
    let elsewhere = tree.rust().filter(|(file, _)| !file.path.starts_with("proxy/src/sys/"));
    elsewhere
        .flat_map(|(file, layers)| at_word(file, layers, "unsafe", "`unsafe` outside proxy/src/sys"))
        .collect()
}

/// Tests wait for conditions; nothing at all blocks a thread in its sleep. On paused time (`start_paused`) a sleep takes
/// none, and says when a simulated peer answers.
pub fn sleeping(tree: &Tree) -> Vec<String> {
    let mut wrong = Vec::new();
    for (file, layers) in tree.rust() {
        let paused = layers.code.contains("start_paused");
        let tests_from = if file.is_test() { 0 } else { file.first_test_line() };
        for (number, line) in layers.code.lines().enumerate() {
            let sleeps = words(line).any(|word| ["sleep", "sleep_until", "sleep_ms"].contains(&word));
            if line.contains("thread::sleep") || (sleeps && !paused && number >= tests_from) {
                wrong.push(format!("{}:{}: sleeps; wait for a condition", file.path, number + 1));
            }
        }
    }
    wrong
}

/// No test is ignored.
pub fn ignored(tree: &Tree) -> Vec<String> {
    let lines =
        tree.rust().flat_map(|(file, layers)| layers.code.lines().enumerate().map(move |line| (file, line)));
    let found = lines.filter(|(_, (_, line))| line.replace(' ', "").contains("#[ignore"));
    found.map(|(file, (number, _))| format!("{}:{}: an ignored test", file.path, number + 1)).collect()
}

/// No note of something left to do, in comments, docs or scripts.
pub fn notes(tree: &Tree) -> Vec<String> {
    let texts = tree
        .files
        .iter()
        .map(|file| (file, file.layers.as_ref().map_or(&file.text, |layers| &layers.comments)));
    let lines = texts.flat_map(|(file, text)| text.lines().enumerate().map(move |line| (file, line)));
    let found =
        lines.filter(|(_, (_, line))| words(line).any(|word| ["TODO", "FIXME", "XXX"].contains(&word)));
    found
        .map(|(file, (number, _))| format!("{}:{}: a note of something left to do", file.path, number + 1))
        .collect()
}

/// No code that is still to be written.
pub fn unfinished(tree: &Tree) -> Vec<String> {
    let lines =
        tree.rust().flat_map(|(file, layers)| layers.code.lines().enumerate().map(move |line| (file, line)));
    let found = lines.filter(|(_, (_, line))| line.contains("todo!(") || line.contains("unimplemented!("));
    found.map(|(file, (number, _))| format!("{}:{}: unfinished code", file.path, number + 1)).collect()
}

fn at_word(file: &File, layers: &Layers, word: &str, what: &str) -> Vec<String> {
    let lines = layers.code.lines().enumerate().filter(|(_, line)| words(line).any(|found| found == word));
    lines.map(|(number, _)| format!("{}:{}: {what}", file.path, number + 1)).collect()
}

/// The identifiers and keywords of a line.
pub(crate) fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(count: usize) -> String {
        "fn f() {}\n".repeat(count)
    }

    #[test]
    fn a_long_file_is_found_and_its_tests_do_not_count() {
        let tests = format!("{}#[cfg(test)]\nmod tests {{\n{}}}\n", lines(LONGEST), lines(100));
        let tree = Tree::of(&[
            ("proxy/src/long.rs", &lines(LONGEST + 1)),
            ("proxy/src/tested.rs", &tests),
            ("proxy/src/long/tests.rs", &lines(LONGEST + 1)),
        ]);
        assert_eq!(length(&tree), ["proxy/src/long.rs: 501 lines without tests; the most is 500"]);
    }

    #[test]
    fn unsafe_is_found_outside_its_place() {
        let text = "#![deny(unsafe_code)] // unsafe\nlet s = \"unsafe\";\nunsafe { f() }";
        let tree = Tree::of(&[("proxy/src/a.rs", text), ("proxy/src/sys/a.rs", text)]);
        assert_eq!(unsafe_code(&tree), ["proxy/src/a.rs:3: `unsafe` outside proxy/src/sys"]);
    }

    #[test]
    fn sleep_is_found_in_tests_and_blocking_sleep_everywhere() {
        let tree = Tree::of(&[
            (
                "proxy/src/a.rs",
                "tokio::time::sleep(d).await;\n#[cfg(test)]\nmod tests {\nuse tokio::time::{self, sleep};\n}",
            ),
            ("proxy/src/b.rs", "std::thread::sleep(d);"),
            ("proxy/tests/d.rs", "#[tokio::test(start_paused = true)]\nasync fn f() { sleep(d).await }"),
            ("proxy/tests/c.rs", "time::sleep(d).await; run(\"sleep 1\");"),
        ]);
        let places: Vec<String> =
            sleeping(&tree).iter().map(|w| w.split(": ").next().unwrap().to_owned()).collect();
        assert_eq!(places, ["proxy/src/a.rs:4", "proxy/src/b.rs:1", "proxy/tests/c.rs:1"]);
    }

    #[test]
    fn an_ignored_test_is_found() {
        let tree = Tree::of(&[("a.rs", "#[test]\n#[ignore = \"slow\"]\nfn f() {}\n// #[ignore]")]);
        assert_eq!(ignored(&tree), ["a.rs:2: an ignored test"]);
    }

    #[test]
    fn notes_are_found_in_comments_and_scripts_but_not_in_strings() {
        let note = ["// TO", "DO: later"].concat();
        let script = ["# FIX", "ME"].concat();
        let tree = Tree::of(&[("a.rs", &note), ("tests/run", &script), ("c.rs", "let s = \"FIXME\";")]);
        assert_eq!(notes(&tree).len(), 2);
    }

    #[test]
    fn unfinished_code_is_found() {
        let tree = Tree::of(&[("a.rs", "fn f() { todo!() }"), ("b.rs", "// todo!()")]);
        assert_eq!(unfinished(&tree), ["a.rs:1: unfinished code"]);
    }
}
