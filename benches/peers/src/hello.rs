//! A TLS 1.3 ClientHello with a server name, and the ServerHello that answers it. Built by hand: what is compared is
//! the proxies' work on the connection, not the ends' cryptography.

/// A ClientHello record with this server name, about 1.5 KiB as one with ML-KEM is.
pub(crate) fn client_hello(host: &str) -> Vec<u8> {
    let mut extensions = Vec::new();
    let name = host.as_bytes();
    let mut server_name = u16_bytes(name.len() + 3).to_vec();
    server_name.push(0);
    server_name.extend(u16_bytes(name.len()));
    server_name.extend(name);
    extension(&mut extensions, 0, &server_name);
    extension(&mut extensions, 43, &[2, 0x03, 0x04]);
    extension(&mut extensions, 13, &[0, 4, 0x04, 0x03, 0x08, 0x04]);
    extension(&mut extensions, 10, &[0, 2, 0x11, 0xec]);
    let mut share = u16_bytes(4 + 1216).to_vec();
    share.extend([0x11, 0xec]);
    share.extend(u16_bytes(1216));
    share.extend([7; 1216]);
    extension(&mut extensions, 51, &share);

    let mut body = vec![0x03, 0x03];
    body.extend([1; 32]);
    body.push(32);
    body.extend([2; 32]);
    body.extend([0, 2, 0x13, 0x01, 1, 0]);
    body.extend(u16_bytes(extensions.len()));
    body.extend(extensions);
    record(1, &body)
}

/// A ServerHello record that selects TLS 1.3 and echoes the session id of [`client_hello`].
pub(crate) fn server_hello() -> Vec<u8> {
    let mut extensions = Vec::new();
    extension(&mut extensions, 43, &[0x03, 0x04]);
    let mut share = vec![0x11, 0xec];
    share.extend(u16_bytes(1120));
    share.extend([9; 1120]);
    extension(&mut extensions, 51, &share);
    let mut body = vec![0x03, 0x03];
    body.extend([5; 32]);
    body.push(32);
    body.extend([2; 32]);
    body.extend([0x13, 0x01, 0]);
    body.extend(u16_bytes(extensions.len()));
    body.extend(extensions);
    record(2, &body)
}

fn record(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut record = vec![0x16, 0x03, 0x01];
    record.extend(u16_bytes(body.len() + 4));
    record.push(kind);
    record.push(0);
    record.extend(u16_bytes(body.len()));
    record.extend(body);
    record
}

fn extension(out: &mut Vec<u8>, kind: u16, body: &[u8]) {
    out.extend(kind.to_be_bytes());
    out.extend(u16_bytes(body.len()));
    out.extend(body);
}

fn u16_bytes(length: usize) -> [u8; 2] {
    u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes()
}
