//! Deterministic mutations: the same seed number gives the same inputs everywhere.

/// xorshift64*: small, and good enough to choose mutations.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// Dice whose throws depend on `seed` alone.
    pub fn new(seed: u64) -> Self {
        Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn throw(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `bound`; 0 when `bound` is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        match u64::try_from(bound) {
            Ok(bound @ 1..) => usize::try_from(self.throw() % bound).unwrap_or_default(),
            _ => 0,
        }
    }

    fn pick<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        of.get(self.below(of.len()))
    }
}

/// Bytes that parsers trip over.
const TELLING: &[u8] = &[
    0, 1, 2, 0x7f, 0x80, 0xc0, 0xff, b'\r', b'\n', b' ', b'\t', b':', b'/', b'.', b'%', b'*', b'@', b'-',
    b'"', b'{', b'[', b'#', b'&', 20, 21, 22, 23,
];
/// Words that lead deeper.
const WORDS: &[&[u8]] = &[
    b"\r\n",
    b"\r\n\r\n",
    b"HTTP/1.1",
    b"Host: ",
    b"GET ",
    b"://",
    b"%2e%2e",
    b"%2F",
    b"..",
    b"//",
    b"*.",
    b"**.",
    b"**",
    b"xn--",
    b"spiffe://",
    b"\x16\x03\x01",
    b"\x14\x03\x03\x00\x01\x01",
    b"\x15\x03\x03\x00\x02\x02",
    b"\x00\x2b",
    b"\x03\x04",
    b"\xc0\x0c",
    b"\n  - ",
    b": ",
    b"apiVersion: sidegate.dev/v1\n",
    b"null",
    b"0x",
    b"::",
    b"169.254.169.254",
    b"nameserver ",
    b"<<: *a",
    b"&a ",
    b"!!str ",
    b"---\n",
];
/// Longest input.
const LONGEST: usize = 80 * 1024;

/// An input made from one of `seeds` by a few changes.
pub fn mutate(seeds: &[Vec<u8>], dice: &mut Dice) -> Vec<u8> {
    let mut bytes = dice.pick(seeds).cloned().unwrap_or_default();
    for _ in 0..=dice.below(5) {
        change(&mut bytes, seeds, dice);
    }
    bytes.truncate(LONGEST);
    bytes
}

fn change(bytes: &mut Vec<u8>, seeds: &[Vec<u8>], dice: &mut Dice) {
    let length = bytes.len();
    let at = dice.below(length + 1);
    let end = at + dice.below((length - at).min(64) + 1);
    match dice.below(10) {
        0 if at < length => bytes[at] ^= 1 << dice.below(8),
        1 if at < length => bytes[at] = dice.pick(TELLING).copied().unwrap_or_default(),
        2 if at < length => bytes[at] = bytes[at].wrapping_add([1, 255, 16, 240][dice.below(4)]),
        3 => bytes.insert(at, dice.pick(TELLING).copied().unwrap_or_default()),
        4 => drop(bytes.drain(at..end)),
        5 => {
            let again = bytes[at..end].to_vec();
            bytes.splice(at..at, again);
        }
        6 => drop(bytes.splice(at..at, dice.pick(WORDS).copied().unwrap_or_default().iter().copied())),
        7 => bytes.truncate(at),
        8 => {
            let other = dice.pick(seeds).cloned().unwrap_or_default();
            let from = dice.below(other.len() + 1);
            bytes.splice(at..end, other[from..].iter().copied());
        }
        _ => {
            // Many times over: what is linear stays fast.
            let again = bytes[at..end].repeat(1 + dice.below(400));
            bytes.splice(at..at, again);
        }
    }
}
