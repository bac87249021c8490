//! Punycode (RFC 3492), as far as A-labels need it: is this label the encoding of something that needs encoding?
//!
//! Labels are at most 63 bytes, which bounds every loop here.

const BASE: u32 = 36;
const T_MIN: u32 = 1;
const T_MAX: u32 = 26;
const SKEW: u32 = 38;
const DAMP: u32 = 700;
const INITIAL_BIAS: u32 = 72;
const INITIAL_N: u32 = 128;

/// Whether the part after `xn--` decodes to a text with at least one non-ASCII letter, free of control
/// characters, separators and upper case, whose encoding is this very text (RUSTSEC-2024-0421: `xn--` forms of
/// plain ASCII names let one name pass for another).
pub(super) fn is_canonical(encoded: &str) -> bool {
    let Some(decoded) = decode(encoded) else { return false };
    let speakable = |c: char| match c {
        'a'..='z' | '0'..='9' | '-' => true,
        _ => !c.is_ascii() && !c.is_control() && !c.is_whitespace() && !is_dot(c) && lower(c) == Some(c),
    };
    let has_unicode = decoded.iter().any(|c| !c.is_ascii());
    has_unicode && decoded.iter().all(|&c| speakable(c)) && encode(&decoded).as_deref() == Some(encoded)
}

/// `xn--` and the encoding of a label with non-ASCII letters; an ASCII label as it is.
pub(super) fn to_a_label(label: &str) -> Option<String> {
    if label.is_ascii() {
        return Some(label.to_owned());
    }
    let points: Vec<char> = label.chars().take(64).collect();
    encode(&points).map(|encoded| format!("xn--{encoded}"))
}

/// Full stops of other scripts, which IDNA2003 software maps to `.`.
fn is_dot(c: char) -> bool {
    matches!(c, '\u{3002}' | '\u{FF0E}' | '\u{FF61}')
}

fn lower(c: char) -> Option<char> {
    let mut mapped = c.to_lowercase();
    let first = mapped.next();
    if mapped.next().is_some() { None } else { first }
}

/// RFC 3492 section 6.2. `None`: not Punycode, or a code point that is no Unicode scalar value.
fn decode(encoded: &str) -> Option<Vec<char>> {
    let (basic, extended) = encoded.rsplit_once('-').unwrap_or(("", encoded));
    let mut output: Vec<char> = basic.chars().collect();
    let (mut n, mut i, mut bias) = (INITIAL_N, 0_u32, INITIAL_BIAS);
    let mut digits = extended.bytes().map(digit_value);
    while digits.len() > 0 {
        let start = i;
        let (mut weight, mut k) = (1_u32, BASE);
        loop {
            let digit = digits.next()??;
            i = i.checked_add(digit.checked_mul(weight)?)?;
            let t = threshold(k, bias);
            if digit < t {
                break;
            }
            weight = weight.checked_mul(BASE - t)?;
            k += BASE;
        }
        let length = u32::try_from(output.len()).ok()? + 1;
        bias = adapt(i - start, length, start == 0);
        n = n.checked_add(i / length)?;
        i %= length;
        output.insert(usize::try_from(i).ok()?, char::from_u32(n)?);
        i += 1;
    }
    Some(output)
}

/// RFC 3492 section 6.3.
fn encode(points: &[char]) -> Option<String> {
    let mut output: String = points.iter().filter(|c| c.is_ascii()).collect();
    let basic = u32::try_from(output.len()).ok()?;
    let total = u32::try_from(points.len()).ok()?;
    if basic > 0 {
        output.push('-');
    }
    let (mut n, mut delta, mut bias, mut written) = (INITIAL_N, 0_u32, INITIAL_BIAS, basic);
    while written < total {
        let next = points.iter().map(|&c| u32::from(c)).filter(|&c| c >= n).min()?;
        delta = delta.checked_add((next - n).checked_mul(written + 1)?)?;
        n = next;
        for point in points.iter().map(|&c| u32::from(c)) {
            if point < n {
                delta = delta.checked_add(1)?;
            }
            if point == n {
                push_integer(&mut output, delta, bias)?;
                bias = adapt(delta, written + 1, written == basic);
                delta = 0;
                written += 1;
            }
        }
        delta = delta.checked_add(1)?;
        n += 1;
    }
    Some(output)
}

fn push_integer(output: &mut String, mut rest: u32, bias: u32) -> Option<()> {
    let mut k = BASE;
    loop {
        let t = threshold(k, bias);
        if rest < t {
            output.push(digit_letter(rest)?);
            return Some(());
        }
        output.push(digit_letter(t + (rest - t) % (BASE - t))?);
        rest = (rest - t) / (BASE - t);
        k += BASE;
    }
}

fn threshold(k: u32, bias: u32) -> u32 {
    k.saturating_sub(bias).clamp(T_MIN, T_MAX)
}

fn adapt(delta: u32, length: u32, first: bool) -> u32 {
    let mut delta = if first { delta / DAMP } else { delta / 2 };
    delta += delta / length;
    let mut k = 0;
    while delta > (BASE - T_MIN) * T_MAX / 2 {
        delta /= BASE - T_MIN;
        k += BASE;
    }
    k + (BASE - T_MIN + 1) * delta / (delta + SKEW)
}

fn digit_value(byte: u8) -> Option<u32> {
    match byte {
        b'a'..=b'z' => Some(u32::from(byte - b'a')),
        b'0'..=b'9' => Some(u32::from(byte - b'0') + 26),
        _ => None,
    }
}

fn digit_letter(value: u32) -> Option<char> {
    let value = u8::try_from(value).ok()?;
    match value {
        0..26 => Some(char::from(b'a' + value)),
        26..36 => Some(char::from(b'0' + value - 26)),
        _ => None,
    }
}
