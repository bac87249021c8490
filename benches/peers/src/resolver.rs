//! A resolver with one answer: A for every name, nothing for every other type.

use std::{
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
};

/// Serves until killed.
pub(crate) fn serve(listen: SocketAddr, answer: IpAddr) -> io::Result<()> {
    let socket = UdpSocket::bind(listen)?;
    println!("ready");
    let mut buffer = [0; 1500];
    loop {
        let (length, from) = socket.recv_from(&mut buffer)?;
        if let Some(reply) = buffer.get(..length).and_then(|question| reply(question, answer)) {
            socket.send_to(&reply, from)?;
        }
    }
}

fn reply(message: &[u8], answer: IpAddr) -> Option<Vec<u8>> {
    let name = message.get(12..)?;
    let end = 12 + name.iter().position(|&byte| byte == 0)? + 5;
    let is_a = message.get(end - 4..end - 2)? == [0, 1];
    let mut reply = message.get(..2)?.to_vec();
    reply.extend([0x81, 0x80, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0]);
    reply.extend(message.get(12..end)?);
    if let (true, IpAddr::V4(address)) = (is_a, answer) {
        reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0x0e, 0x10, 0, 4]);
        reply.extend(address.octets());
    }
    Some(reply)
}
