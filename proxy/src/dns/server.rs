//! Port 53 as the application sees it, over datagrams and streams.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use hickory_proto::op::ResponseCode;
use sidegate_policy::{HostName, Reason, Verdict};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::Semaphore,
    task::JoinSet,
    time::timeout,
};

use super::{
    message::{self, LONGEST_QUESTION, Question, Refusal},
    question::{self, Next, Told},
    record::QuestionRecord,
    resolver::Family,
};
use crate::{
    addrs::{ClientAddr, OriginalDst},
    back_off,
    limits::Limits,
    server::Gate,
};

/// Questions of one socket that may wait for upstream at once.
const WAITING: usize = 512;
/// Streams that one listener serves at once.
const STREAMS: usize = 256;
/// A stream on which nothing is asked for this long is closed.
const STREAM_IDLE: Duration = Duration::from_secs(10);
/// Questions of one stream before it is closed: a client with more to ask connects again.
const QUESTIONS_PER_STREAM: usize = 1000;

/// Answers datagrams until dropped.
///
/// The socket must be bound to one address, not to the unspecified one: answers must come from the address that the
/// redirect sent the question to, or connection tracking does not recognise them.
pub async fn serve_udp(gate: Arc<Gate>, socket: UdpSocket) {
    let socket = Arc::new(socket);
    let mut waiting = JoinSet::new();
    // One byte more than any question: what fills it is too long.
    let mut buffer = vec![0; LONGEST_QUESTION + 1];
    loop {
        while waiting.try_join_next().is_some() {}
        let (length, source) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                tracing::debug!(%error, "DNS socket");
                back_off::after(&error).await;
                continue;
            }
        };
        let bytes = buffer.get(..length).unwrap_or_default();
        let room = waiting.len() < WAITING;
        let arrival = Arrival { source: ClientAddr::new(source), original_dst: None, stream: false };
        match Asked::judge(&gate, bytes, &arrival, room) {
            Step::Done(response) => send(&socket, response.as_deref(), source).await,
            Step::Wait(asked) => {
                let socket = socket.clone();
                waiting.spawn(async move {
                    let response = asked.resolve().await;
                    send(&socket, Some(&response), source).await;
                });
            }
        }
    }
}

/// Answers streams (RFC 7766) until dropped. What the limits have no room for is closed at once.
pub(crate) async fn serve_tcp(gate: Arc<Gate>, limits: Arc<Limits>, listener: TcpListener) {
    let permits = Arc::new(Semaphore::new(STREAMS));
    let mut streams = JoinSet::new();
    loop {
        while streams.try_join_next().is_some() {}
        let Ok(permit) = permits.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, source)) => {
                let Some(slot) = limits.stream() else { continue };
                let gate = gate.clone();
                streams.spawn(async move {
                    let _room = (permit, slot);
                    let ended = serve_stream(&gate, stream, source).await;
                    tracing::trace!(?ended, "DNS stream");
                });
            }
            Err(error) => {
                tracing::warn!(%error, "accept on the DNS listener");
                back_off::after(&error).await;
            }
        }
    }
}

/// One question after the other: a client that sends several at once waits its turn, and can't make us hold many.
async fn serve_stream(gate: &Arc<Gate>, mut stream: TcpStream, source: SocketAddr) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let original_dst = (gate.original_dst)(&stream).ok();
    let arrival = Arrival { source: ClientAddr::new(source), original_dst, stream: true };
    let mut buffer = vec![0; LONGEST_QUESTION];
    for _ in 0..QUESTIONS_PER_STREAM {
        let Some(bytes) = read_question(&mut stream, &mut buffer).await? else { return Ok(()) };
        let response = match Asked::judge(gate, bytes, &arrival, true) {
            Step::Done(Some(response)) => response,
            Step::Done(None) => return Ok(()),
            Step::Wait(asked) => asked.resolve().await,
        };
        timeout(STREAM_IDLE, write_response(&mut stream, &response)).await??;
    }
    Ok(())
}

/// `None`: the client is done, too slow, or sends what is no question.
async fn read_question<'b>(stream: &mut TcpStream, buffer: &'b mut [u8]) -> io::Result<Option<&'b [u8]>> {
    let whole = async {
        let length = stream.read_u16().await?;
        let Some(bytes) = buffer.get_mut(..length.into()) else { return Ok::<_, io::Error>(None) };
        stream.read_exact(bytes).await?;
        Ok(Some(&*bytes))
    };
    match timeout(STREAM_IDLE, whole).await {
        Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Ok(result) => result,
        Err(_) => Ok(None),
    }
}

async fn write_response(stream: &mut TcpStream, response: &[u8]) -> io::Result<()> {
    let length = u16::try_from(response.len()).map_err(io::Error::other)?;
    let mut framed = length.to_be_bytes().to_vec();
    framed.extend_from_slice(response);
    stream.write_all(&framed).await
}

async fn send(socket: &UdpSocket, response: Option<&[u8]>, to: SocketAddr) {
    let Some(response) = response else { return };
    if let Err(error) = socket.send_to(response, to).await {
        tracing::debug!(%error, "DNS response not sent");
    }
}

/// How a message came.
pub(super) struct Arrival {
    /// Who asks.
    pub(super) source: ClientAddr,
    /// Whom it meant to ask, where that can be learnt.
    pub(super) original_dst: Option<OriginalDst>,
    /// Over TCP: answers of any size fit.
    stream: bool,
}

/// A question that waits for upstream.
struct Asked {
    gate: Arc<Gate>,
    question: Question,
    /// Most bytes that the response may have.
    limit: usize,
    record: QuestionRecord,
    host: HostName,
    family: Family,
}

/// What a message leads to.
enum Step {
    /// The response, or silence.
    Done(Option<Vec<u8>>),
    /// Only upstream knows.
    Wait(Box<Asked>),
}

impl Asked {
    /// `room`: whether another question may wait for upstream.
    fn judge(gate: &Arc<Gate>, bytes: &[u8], arrival: &Arrival, room: bool) -> Step {
        let mut record = QuestionRecord::open(gate, arrival);
        let question = match message::parse_question(bytes) {
            Ok(question) => question,
            Err(refusal) => return Step::Done(malformed(refusal, &mut record)),
        };
        record.asked(&question, bytes.len());
        let limit = if arrival.stream { usize::from(u16::MAX) } else { question.udp_limit() };
        let told = match question::judge(gate, &question, &mut record) {
            Next::Answer(told) => told,
            Next::Upstream(host, family) if room => {
                let gate = gate.clone();
                return Step::Wait(Box::new(Asked { gate, question, limit, record, host, family }));
            }
            Next::Upstream(..) => {
                record.conclude(Verdict::Denied, Reason::LimitQuestions);
                Told::Code(ResponseCode::ServFail)
            }
        };
        Step::Done(Some(finish(&question, &told, limit, &mut record)))
    }

    async fn resolve(mut self: Box<Self>) -> Vec<u8> {
        let told = question::ask(&self.gate, self.host, self.family, &mut self.record).await;
        finish(&self.question, &told, self.limit, &mut self.record)
    }
}

fn malformed(refusal: Refusal, record: &mut QuestionRecord) -> Option<Vec<u8>> {
    record.conclude(Verdict::Denied, Reason::DnsMalformed);
    record.note(format!("The DNS message is refused: {}.", refusal.fault));
    refusal.response
}

fn finish(question: &Question, told: &Told, limit: usize, record: &mut QuestionRecord) -> Vec<u8> {
    let response = question.response(told.reply(), limit);
    record.answered(told, response.len());
    response
}

#[cfg(test)]
mod tests;
