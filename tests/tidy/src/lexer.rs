//! Divides Rust source into what is code and what is comment, so that rules don't trip over words in strings.

/// The same text twice, each blanked but for its part; lines and columns stay.
#[derive(Debug, PartialEq, Eq)]
pub struct Layers {
    /// Without comments and the insides of string and character literals.
    pub code: String,
    /// Only the comments.
    pub comments: String,
}

/// Divides a source. Total: whatever the input, both layers are as long as it in characters.
pub fn split(text: &str) -> Layers {
    let chars: Vec<char> = text.chars().collect();
    let mut layers = Layers { code: String::with_capacity(text.len()), comments: String::new() };
    let mut at = 0;
    while at < chars.len() {
        let (length, part) = token(&chars[at..], at.checked_sub(1).map(|i| chars[i]));
        for &c in &chars[at..at + length] {
            let blank = if c == '\n' { '\n' } else { ' ' };
            layers.code.push(if part == Part::Code { c } else { blank });
            layers.comments.push(if part == Part::Comment { c } else { blank });
        }
        at += length;
    }
    layers
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Code,
    Comment,
    Literal,
}

/// Length (at least 1) and kind of what stands at the start of `rest`.
fn token(rest: &[char], before: Option<char>) -> (usize, Part) {
    let second = rest.get(1).copied();
    let in_word = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    match rest[0] {
        '/' if second == Some('/') => {
            (rest.iter().position(|&c| c == '\n').unwrap_or(rest.len()), Part::Comment)
        }
        '/' if second == Some('*') => (block_comment(rest), Part::Comment),
        '"' => (1 + string_end(&rest[1..]), Part::Literal),
        'r' if !in_word || before == Some('b') => match raw_string(rest) {
            Some(length) => (length, Part::Literal),
            None => (1, Part::Code),
        },
        '\'' => match char_literal(rest) {
            Some(length) => (length, Part::Literal),
            None => (1, Part::Code),
        },
        _ => (1, Part::Code),
    }
}

fn block_comment(rest: &[char]) -> usize {
    let (mut depth, mut at) = (0usize, 0);
    while at < rest.len() {
        match (rest[at], rest.get(at + 1)) {
            ('/', Some('*')) => (depth, at) = (depth + 1, at + 2),
            ('*', Some('/')) => {
                (depth, at) = (depth - 1, at + 2);
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    rest.len()
}

fn string_end(rest: &[char]) -> usize {
    let mut at = 0;
    while at < rest.len() {
        match rest[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

fn raw_string(rest: &[char]) -> Option<usize> {
    let hashes = rest[1..].iter().take_while(|&&c| c == '#').count();
    let open = 1 + hashes;
    if rest.get(open) != Some(&'"') {
        return None;
    }
    let closes = |at: usize| {
        rest[at] == '"'
            && rest.get(at + 1..at + 1 + hashes).is_some_and(|tail| tail.iter().all(|&c| c == '#'))
    };
    Some((open + 1..rest.len()).find(|&at| closes(at)).map_or(rest.len(), |at| at + 1 + hashes))
}

/// `None`: a lifetime.
fn char_literal(rest: &[char]) -> Option<usize> {
    if rest.get(1) == Some(&'\\') {
        let close = rest.iter().skip(3).position(|&c| c == '\'')?;
        return Some(3 + close + 1);
    }
    (rest.get(2) == Some(&'\'')).then_some(3)
}

#[cfg(test)]
mod tests {
    use super::split;

    fn words(text: &str) -> Vec<&str> {
        text.split_whitespace().collect()
    }

    #[test]
    fn strings_and_comments_are_no_code() {
        let layers = split("let a = \"x // y\"; // note\nlet b = r#\"q\"w\"#; /* in /* out */ */ c");
        assert_eq!(words(&layers.code), ["let", "a", "=", ";", "let", "b", "=", ";", "c"]);
        assert_eq!(words(&layers.comments), ["//", "note", "/*", "in", "/*", "out", "*/", "*/"]);
    }

    #[test]
    fn lifetimes_are_code_and_characters_are_not() {
        let layers = split(r"fn f<'a>(c: &'a char) { c == '\'' || c == 'x' || c == '\u{1F}' }");
        assert_eq!(words(&layers.code).join(" "), "fn f<'a>(c: &'a char) { c == || c == || c == }");
    }

    #[test]
    fn an_open_end_is_no_panic() {
        for text in ["\"", "r#\"", "/*", "'\\", "'", "r", "b'\\''", "\"\\"] {
            assert_eq!(split(text).code.chars().count(), text.chars().count(), "{text}");
        }
    }
}
