//! The wire between two workloads, as somebody sees it who can read it.

use std::{
    io,
    net::Ipv4Addr,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, eth};

/// TCP payloads, by the port at one end: each direction is one stream of bytes.
#[derive(Clone, Default)]
pub(super) struct Wire(Arc<Mutex<Vec<Segment>>>);

/// The payload of one packet.
struct Segment {
    from: u16,
    to: u16,
    bytes: Vec<u8>,
}

/// What went over one port.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Overheard {
    /// Packets with a payload.
    pub(super) packets: usize,
    /// Bytes of payload.
    pub(super) bytes: usize,
    /// How often the words were read.
    pub(super) words: usize,
    /// Every stream begins with a TLS handshake.
    pub(super) tls: bool,
}

impl Wire {
    /// Listens to what comes to and from `workload`, on every device of this network namespace.
    pub(super) fn tap(workload: Ipv4Addr) -> io::Result<Wire> {
        let flags = SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(AddressFamily::PACKET, SocketType::RAW, flags, Some(eth::ALL))?;
        let wire = Wire::default();
        let tapped = wire.clone();
        thread::Builder::new().name("wire".to_owned()).spawn(move || tapped.listen(&socket, workload))?;
        Ok(wire)
    }

    fn listen(&self, socket: &OwnedFd, workload: Ipv4Addr) {
        let mut frame = vec![0; 64 * 1024];
        while let Ok((_, length)) = rustix::net::recv(socket, &mut frame[..], RecvFlags::empty()) {
            let segment = frame.get(..length).and_then(|frame| Segment::read(frame, workload));
            self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(segment);
        }
    }

    /// What went over a port of the workload, and how often `words` were in it.
    pub(super) fn overheard(&self, port: u16, words: &[u8]) -> Overheard {
        let segments = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut heard = Overheard { tls: true, ..Overheard::default() };
        let mut streams: Vec<(u16, bool)> = Vec::new();
        for segment in segments.iter().filter(|segment| segment.from == port || segment.to == port) {
            heard.packets += 1;
            heard.bytes += segment.bytes.len();
            heard.words += segment.bytes.windows(words.len()).filter(|seen| *seen == words).count();
            let stream = (segment.from ^ segment.to ^ port, segment.to == port);
            if !streams.contains(&stream) {
                streams.push(stream);
                // RFC 8446 section 5.1: a handshake record of the legacy versions 3.1 or 3.3.
                heard.tls &= matches!(segment.bytes.as_slice(), [22, 3, 1 | 3, ..]);
            }
        }
        heard.tls &= heard.packets > 0;
        heard
    }
}

impl Segment {
    /// The TCP payload of an Ethernet frame to or from `workload`. RFC 791 section 3.1, RFC 9293 section 3.1.
    fn read(frame: &[u8], workload: Ipv4Addr) -> Option<Segment> {
        let packet = frame.get(14..).filter(|_| frame.get(12..14) == Some(&[0x08, 0x00]))?;
        let header = usize::from(packet.first()? & 0x0f) * 4;
        let length = usize::from(u16::from_be_bytes([*packet.get(2)?, *packet.get(3)?]));
        let ends = [packet.get(12..16)?, packet.get(16..20)?];
        if packet.get(9) != Some(&6) || !ends.contains(&workload.octets().as_slice()) {
            return None;
        }
        let segment = packet.get(header..length.min(packet.len()))?;
        let port = |at: usize| Some(u16::from_be_bytes([*segment.get(at)?, *segment.get(at + 1)?]));
        let payload = segment.get(usize::from(segment.get(12)? >> 4) * 4..)?;
        (!payload.is_empty()).then_some(Segment { from: port(0)?, to: port(2)?, bytes: payload.to_vec() })
    }
}
