//! A cursor over untrusted bytes and the extension list that both hellos share.

use super::records::Malformed;

/// Reads big-endian fields and length-prefixed vectors (RFC 8446 section 3); never past the end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Cursor { rest: bytes }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Malformed)?;
        self.rest = rest;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(Malformed)?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8, Malformed> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    pub(super) fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    /// A vector with a one-byte length.
    pub(super) fn vector8(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.u8()?;
        self.take(length.into())
    }

    /// A vector with a two-byte length.
    pub(super) fn vector16(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.u16()?;
        self.take(length.into())
    }

    /// Nothing may follow.
    pub(super) fn end(self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed) }
    }
}

/// One extension. RFC 8446 section 4.2.
pub(super) struct Extension<'a> {
    pub(super) kind: u16,
    pub(super) body: &'a [u8],
    /// Nothing follows it.
    pub(super) last: bool,
}

/// Calls `visit` for each extension of `list`. A type that occurs twice is refused: two readers could
/// each believe another one of them.
pub(super) fn each_extension<'a>(
    list: &'a [u8],
    mut visit: impl FnMut(Extension<'a>) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    let mut cursor = Cursor::new(list);
    let mut seen = KindSet::new();
    while !cursor.is_empty() {
        let kind = cursor.u16()?;
        let body = cursor.vector16()?;
        if !seen.insert(kind) {
            return Err(Malformed);
        }
        visit(Extension { kind, body, last: cursor.is_empty() })?;
    }
    Ok(())
}

/// A set of extension types: one bit each, so that the check stays linear for lists of thousands.
struct KindSet([u64; 1024]);

impl KindSet {
    fn new() -> Self {
        KindSet([0; 1024])
    }

    /// False when it was there already.
    fn insert(&mut self, kind: u16) -> bool {
        let bit = 1u64 << (kind % 64);
        // A u16 divided by 64 is below 1024.
        let Some(word) = self.0.get_mut(usize::from(kind / 64)) else { return false };
        let fresh = *word & bit == 0;
        *word |= bit;
        fresh
    }
}
