//! Builds hellos for tests: sound ones, and ones with a named fault.

/// A ClientHello under construction. The default is what a TLS 1.3 client sends.
#[derive(Clone)]
pub(crate) struct HelloBuilder {
    pub(crate) legacy_version: u16,
    pub(crate) session_id: Vec<u8>,
    pub(crate) cipher_suites: Vec<u8>,
    pub(crate) compression: Vec<u8>,
    /// `None`: the hello ends before the extensions.
    pub(crate) extensions: Option<Vec<(u16, Vec<u8>)>>,
    /// Bytes after the last field.
    pub(crate) trailing: Vec<u8>,
}

pub(crate) const SERVER_NAME: u16 = 0;
pub(crate) const ALPN: u16 = 16;
pub(crate) const PRE_SHARED_KEY: u16 = 41;
pub(crate) const ZERO_RTT: u16 = 42;
pub(crate) const SUPPORTED_VERSIONS: u16 = 43;

/// SHA-256 of "HelloRetryRequest", as RFC 8446 section 4.1.3 prints it.
pub(crate) const RETRY: [u8; 32] = [
    0xCF, 0x21, 0xAD, 0x74, 0xE5, 0x9A, 0x61, 0x11, 0xBE, 0x1D, 0x8C, 0x02, 0x1E, 0x65, 0xB8, 0x91, 0xC2,
    0xA2, 0x11, 0x16, 0x7A, 0xBB, 0x8C, 0x5E, 0x07, 0x9E, 0x09, 0xE2, 0xC8, 0xA8, 0x33, 0x9C,
];

impl HelloBuilder {
    pub(crate) fn new(host: &str) -> Self {
        HelloBuilder {
            legacy_version: 0x0303,
            session_id: vec![7; 32],
            cipher_suites: vec![0x13, 0x01, 0x13, 0x02],
            compression: vec![0],
            extensions: Some(vec![
                (SERVER_NAME, name_list(&[(0, host.as_bytes())])),
                (SUPPORTED_VERSIONS, vec![4, 3, 4, 3, 3]),
            ]),
            trailing: Vec::new(),
        }
    }

    pub(crate) fn with(mut self, kind: u16, body: &[u8]) -> Self {
        self.extensions.get_or_insert_default().push((kind, body.to_vec()));
        self
    }

    pub(crate) fn without(mut self, kind: u16) -> Self {
        self.extensions.get_or_insert_default().retain(|(other, _)| *other != kind);
        self
    }

    pub(crate) fn replace(self, kind: u16, body: &[u8]) -> Self {
        self.without(kind).with(kind, body)
    }

    /// The handshake message.
    pub(crate) fn message(&self) -> Vec<u8> {
        let mut body = self.legacy_version.to_be_bytes().to_vec();
        body.extend([0x55; 32]);
        body.extend(vector8(&self.session_id));
        body.extend(vector16(&self.cipher_suites));
        body.extend(vector8(&self.compression));
        if let Some(extensions) = &self.extensions {
            body.extend(vector16(&extension_list(extensions)));
        }
        body.extend(&self.trailing);
        message(1, &body)
    }

    /// In one record.
    pub(crate) fn record(&self) -> Vec<u8> {
        record(22, &self.message())
    }
}

/// A ServerHello in one record. `versions`: the legacy field and the extension.
pub(crate) fn server_hello(versions: (u16, Option<u16>), random: [u8; 32], session_id: &[u8]) -> Vec<u8> {
    let extensions: Vec<_> =
        versions.1.iter().map(|version| (SUPPORTED_VERSIONS, version.to_be_bytes().to_vec())).collect();
    record(22, &server_message(versions.0, random, session_id, 0x1301, &extensions))
}

pub(crate) fn server_message(
    legacy_version: u16,
    random: [u8; 32],
    session_id: &[u8],
    cipher_suite: u16,
    extensions: &[(u16, Vec<u8>)],
) -> Vec<u8> {
    let mut body = legacy_version.to_be_bytes().to_vec();
    body.extend(random);
    body.extend(vector8(session_id));
    body.extend(cipher_suite.to_be_bytes());
    body.push(0);
    body.extend(vector16(&extension_list(extensions)));
    message(2, &body)
}

pub(crate) fn name_list(entries: &[(u8, &[u8])]) -> Vec<u8> {
    let mut list = Vec::new();
    for (kind, name) in entries {
        list.push(*kind);
        list.extend(vector16(name));
    }
    vector16(&list)
}

pub(crate) fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut message = vec![kind];
    message.extend(&(body.len() as u32).to_be_bytes()[1..]);
    message.extend(body);
    message
}

pub(crate) fn record(content: u8, bytes: &[u8]) -> Vec<u8> {
    let mut record = vec![content, 3, 1];
    record.extend(vector16(bytes));
    record
}

/// The content of all handshake records of `stream`, again in records of `size` bytes each.
pub(crate) fn re_recorded(stream: &[u8], size: usize) -> Vec<u8> {
    let (mut content, mut rest) = (Vec::new(), stream);
    while let [22, _, _, high, low, after @ ..] = rest {
        let (this, next) = after.split_at(usize::from(*high) << 8 | usize::from(*low));
        content.extend(this);
        rest = next;
    }
    assert!(rest.is_empty(), "handshake records only");
    content.chunks(size).flat_map(|chunk| record(22, chunk)).collect()
}

fn extension_list(extensions: &[(u16, Vec<u8>)]) -> Vec<u8> {
    extensions
        .iter()
        .flat_map(|(kind, body)| [kind.to_be_bytes().to_vec(), vector16(body)].concat())
        .collect()
}

pub(crate) fn vector8(bytes: &[u8]) -> Vec<u8> {
    [&[u8::try_from(bytes.len()).unwrap()], bytes].concat()
}

pub(crate) fn vector16(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat()
}
