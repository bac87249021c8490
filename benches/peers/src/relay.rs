//! The bare relays that proxies are compared with: accept, connect, move bytes. One thread, one epoll set, no policy.

use std::{
    collections::HashMap,
    io,
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::{AsFd, AsRawFd, OwnedFd, RawFd},
};

use rustix::{
    event::epoll::{self, EventData, EventFlags},
    io::Errno,
    pipe::{PipeFlags, SpliceFlags},
};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

const BUFFER: usize = 64 * 1024;

/// A listener with a deep backlog.
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    Ok(socket.into())
}

/// Relays until killed. Port 0 in `to` stands for the original destination's port.
pub(crate) fn serve(address: SocketAddr, to: SocketAddr, copy: Option<usize>) -> io::Result<()> {
    let listener = listen(address)?;
    listener.set_nonblocking(true)?;
    let set = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&set, &listener, token(listener.as_raw_fd()), EventFlags::IN)?;
    let mut relay = Relay { set, ends: HashMap::new(), copy, buffer: vec![0; copy.unwrap_or(0)] };
    println!("ready");
    let mut events = Vec::with_capacity(256);
    loop {
        events.clear();
        epoll::wait(&relay.set, rustix::buffer::spare_capacity(&mut events), None)?;
        for event in &events {
            let fd = RawFd::try_from(event.data.u64()).unwrap_or(-1);
            if fd == listener.as_raw_fd() {
                while let Ok((stream, _)) = listener.accept() {
                    if let Err(error) = relay.open(stream, to) {
                        eprintln!("open: {error}");
                    }
                }
            } else {
                let flags = event.flags;
                relay.ready(fd, flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR));
            }
        }
    }
}

fn token(fd: RawFd) -> EventData {
    EventData::new_u64(u64::try_from(fd).unwrap_or(u64::MAX))
}

/// One end of a pair; moves bytes from itself to `peer`.
struct End {
    stream: TcpStream,
    peer: RawFd,
    pipe: Option<(OwnedFd, OwnedFd)>,
    held: usize,
    left: Vec<u8>,
    /// The far side said that it is about to end: read to the end, a short read proves nothing any more.
    closing: bool,
    ended: bool,
}

struct Relay {
    set: OwnedFd,
    ends: HashMap<RawFd, End>,
    copy: Option<usize>,
    buffer: Vec<u8>,
}

impl Relay {
    fn open(&mut self, near: TcpStream, to: SocketAddr) -> io::Result<()> {
        let port = match to.port() {
            0 => SockRef::from(&near).original_dst_v4()?.as_socket().map_or(0, |address| address.port()),
            port => port,
        };
        let far = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        match far.connect(&SocketAddr::new(to.ip(), port).into()) {
            Err(error) if error.raw_os_error() != Some(Errno::INPROGRESS.raw_os_error()) => {
                return Err(error);
            }
            _ => {}
        }
        let far: TcpStream = far.into();
        near.set_nonblocking(true)?;
        near.set_nodelay(true)?;
        far.set_nodelay(true)?;
        let (near_fd, far_fd) = (near.as_raw_fd(), far.as_raw_fd());
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(&self.set, &near, token(near_fd), flags)?;
        epoll::add(&self.set, &far, token(far_fd), flags)?;
        for (stream, fd, peer) in [(near, near_fd, far_fd), (far, far_fd, near_fd)] {
            let pipe = if self.copy.is_some() { None } else { Some(pipe()?) };
            self.ends.insert(
                fd,
                End { stream, peer, pipe, held: 0, left: Vec::new(), closing: false, ended: false },
            );
        }
        Ok(())
    }

    fn ready(&mut self, fd: RawFd, closing: bool) {
        let Some(end) = self.ends.get_mut(&fd) else { return };
        end.closing |= closing;
        let peer = end.peer;
        let failed = self.pump(fd).and_then(|()| self.pump(peer)).is_err();
        let both_ended = [fd, peer].iter().all(|fd| self.ends.get(fd).is_none_or(|end| end.ended));
        if failed || both_ended {
            self.ends.remove(&fd);
            self.ends.remove(&peer);
        }
    }

    fn pump(&mut self, from: RawFd) -> io::Result<()> {
        let Some(mut end) = self.ends.remove(&from) else { return Ok(()) };
        let result = match self.ends.get(&end.peer) {
            Some(peer) if !end.ended => match &end.pipe {
                Some(_) => end.splice(&peer.stream),
                None => end.copy(&peer.stream, &mut self.buffer),
            },
            _ => Ok(()),
        };
        self.ends.insert(from, end);
        result
    }
}

impl End {
    fn splice(&mut self, peer: &TcpStream) -> io::Result<()> {
        let Some((read_end, write_end)) = &self.pipe else { return Ok(()) };
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        loop {
            while self.held > 0 {
                match rustix::pipe::splice(read_end.as_fd(), None, peer, None, self.held, flags) {
                    Ok(moved) => self.held -= moved,
                    Err(Errno::AGAIN) => return Ok(()),
                    Err(error) => return Err(error.into()),
                }
            }
            match rustix::pipe::splice(&self.stream, None, write_end.as_fd(), None, 1 << 20, flags) {
                Ok(0) => {
                    self.ended = true;
                    return peer.shutdown(std::net::Shutdown::Write);
                }
                Ok(moved) => self.held = moved,
                Err(Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn copy(&mut self, peer: &TcpStream, buffer: &mut [u8]) -> io::Result<()> {
        loop {
            while !self.left.is_empty() {
                match rustix::io::write(peer, &self.left) {
                    Ok(written) => drop(self.left.drain(..written)),
                    Err(Errno::AGAIN) => return Ok(()),
                    Err(error) => return Err(error.into()),
                }
            }
            let size = buffer.len();
            let read = match rustix::io::read(&self.stream, &mut *buffer) {
                Ok(0) => {
                    self.ended = true;
                    return peer.shutdown(std::net::Shutdown::Write);
                }
                Ok(read) => read,
                Err(Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            let bytes = buffer.get(..read).unwrap_or(&[]);
            let written = match rustix::io::write(peer, bytes) {
                Ok(written) => written,
                Err(Errno::AGAIN) => 0,
                Err(error) => return Err(error.into()),
            };
            self.left.extend_from_slice(bytes.get(written..).unwrap_or(&[]));
            if read < size && self.left.is_empty() && !self.closing {
                return Ok(());
            }
        }
    }
}

fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read_end, write_end) = rustix::pipe::pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC)?;
    match rustix::pipe::fcntl_setpipe_size(&write_end, 16 * BUFFER) {
        Ok(_) | Err(Errno::PERM) => Ok((read_end, write_end)),
        Err(error) => Err(error.into()),
    }
}
