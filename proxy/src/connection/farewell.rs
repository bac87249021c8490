//! Closing so that the client understands: an alert, an answer, or a reset.

use std::time::Duration;

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// How long the other side may take to read the last words.
const PATIENCE: Duration = Duration::from_secs(1);
/// Most bytes read and thrown away meanwhile.
const IGNORED: usize = 64 * 1024;

/// Makes the close a reset: the application fails at once instead of waiting.
pub(crate) fn reset(stream: &TcpStream) {
    // A socket that is gone already needs no reset.
    let _ = stream.set_zero_linger();
}

/// Says the last words and closes. Input that is still arriving is read away for a moment: closing over unread
/// bytes would send a reset, which may destroy the words before they are read (RFC 9112 section 9.6).
pub(crate) async fn say(mut stream: TcpStream, words: &[u8]) {
    if !said(&mut stream, words).await {
        reset(&stream);
    }
}

/// The same on any stream; false: nobody listened.
pub(crate) async fn said(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), words: &[u8]) -> bool {
    let parting = async {
        stream.write_all(words).await?;
        stream.shutdown().await?;
        let mut ignored = [0; 1024];
        let mut count = 0;
        while count < IGNORED {
            match stream.read(&mut ignored).await? {
                0 => break,
                read => count += read,
            }
        }
        Ok::<(), std::io::Error>(())
    };
    matches!(timeout(PATIENCE, parting).await, Ok(Ok(())))
}
