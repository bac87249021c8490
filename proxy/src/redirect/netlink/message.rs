//! Netlink messages as bytes: writing with nested attributes, and reading without trust in any length.

/// Length of `struct nlmsghdr`.
const HEADER: usize = 16;
const NESTED: u16 = 1 << 15;
/// Nested and byte-order flags of an attribute's type.
const TYPE_MASK: u16 = 0x3fff;

/// One message under construction. Attributes longer than 65,531 bytes are not representable and never built here.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    bytes: Vec<u8>,
    /// What the message does, for errors: "adding chain `leave`".
    pub(crate) purpose: String,
}

impl Message {
    /// A message of `kind` (`nlmsg_type`) with `flags` and the protocol's own fixed header.
    pub(crate) fn new(kind: u16, flags: u16, fixed: &[u8], purpose: impl Into<String>) -> Self {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        bytes.extend_from_slice(fixed);
        pad(&mut bytes);
        Message { bytes, purpose: purpose.into() }
    }

    /// Adds flags to the message header.
    pub(crate) fn flag(&mut self, flags: u16) {
        let now = u16::from_ne_bytes([self.bytes[6], self.bytes[7]]) | flags;
        self.bytes[6..8].copy_from_slice(&now.to_ne_bytes());
    }

    /// Adds an attribute.
    pub(crate) fn attr(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        pad(&mut self.bytes);
        self
    }

    /// Adds a structure that is no attribute, as some nests begin with one.
    pub(crate) fn fixed(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        pad(&mut self.bytes);
        self
    }

    /// Adds a NUL-terminated string attribute.
    pub(crate) fn text(&mut self, kind: u16, value: &str) -> &mut Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attr(kind, &bytes)
    }

    /// Adds a 32-bit attribute in network byte order.
    pub(crate) fn be32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.attr(kind, &value.to_be_bytes())
    }

    /// Adds an attribute that holds the attributes which `fill` adds.
    pub(crate) fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Message)) -> &mut Self {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        fill(self);
        let length = u16::try_from(self.bytes.len() - start).unwrap_or(u16::MAX);
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.bytes[start + 2..start + 4].copy_from_slice(&(kind | NESTED).to_ne_bytes());
        self
    }

    /// The finished bytes, with length and sequence number filled in.
    pub(crate) fn finish(&self, sequence: u32) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        bytes[0..4].copy_from_slice(&length.to_ne_bytes());
        bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        bytes
    }

    /// Length so far, in bytes.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// One received message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Received<'a> {
    /// `nlmsg_type`.
    pub(crate) kind: u16,
    /// `nlmsg_seq`: of the request that it answers.
    pub(crate) sequence: u32,
    /// What follows the header.
    pub(crate) payload: &'a [u8],
}

/// The messages of one datagram; ends at the first malformed one.
pub(crate) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Received<'_>> {
    std::iter::from_fn(move || {
        let length = u32_at(bytes, 0)? as usize;
        let payload = bytes.get(HEADER..length)?;
        let message = Received { kind: u16_at(bytes, 4)?, sequence: u32_at(bytes, 8)?, payload };
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// The attributes in `bytes` as (type, value); ends at the first malformed one.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?);
        let value = bytes.get(4..length)?;
        let kind = u16_at(bytes, 2)? & TYPE_MASK;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The value of the first attribute of a type.
pub(crate) fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find_map(|(found, value)| (found == kind).then_some(value))
}

/// A NUL-terminated string value.
pub(crate) fn string(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value.split(|byte| *byte == 0).next()?).ok()
}

/// A big-endian number of up to 4 bytes at the start of a value.
pub(crate) fn be32(value: &[u8]) -> Option<u32> {
    value.get(..4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes)
}

/// A big-endian number.
pub(crate) fn be64(value: &[u8]) -> Option<u64> {
    value.get(..8).and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes)
}

/// A host-order number at an offset.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_ne_bytes)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_laid_out_as_the_kernel_reads_it() {
        let mut message = Message::new(0x0a00, 0x0401, &[1, 0, 0, 0], "test");
        message.text(1, "ab").nested(4, |inner| {
            inner.be32(2, 0x0102_0304);
        });
        let mut expected = Vec::new();
        expected.extend_from_slice(&40u32.to_ne_bytes());
        expected.extend_from_slice(&0x0a00u16.to_ne_bytes());
        expected.extend_from_slice(&0x0401u16.to_ne_bytes());
        expected.extend_from_slice(&7u32.to_ne_bytes());
        expected.extend_from_slice(&[0, 0, 0, 0, 1, 0, 0, 0]);
        expected.extend_from_slice(&[7, 0, 1, 0, b'a', b'b', 0, 0]);
        expected.extend_from_slice(&[12, 0, 4, 0x80, 8, 0, 2, 0, 1, 2, 3, 4]);
        assert_eq!(message.finish(7)[..16], expected[..16]);
        assert_eq!(message.finish(7)[16..], expected[16..]);
    }

    #[test]
    fn what_is_written_is_read_back() {
        let mut message = Message::new(9, 0, &[], "test");
        message.text(1, "name").be32(2, 5);
        let bytes = [message.finish(3), message.finish(4)].concat();
        let read: Vec<_> = messages(&bytes).collect();
        assert_eq!(read.iter().map(|m| (m.kind, m.sequence)).collect::<Vec<_>>(), [(9, 3), (9, 4)]);
        assert_eq!(attribute(read[0].payload, 1).and_then(string), Some("name"));
        assert_eq!(attribute(read[1].payload, 2).and_then(be32), Some(5));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_the_reader_fail(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            for message in messages(&bytes) {
                let _ = attributes(message.payload).count();
            }
            let _ = attributes(&bytes).count();
        }
    }
}
