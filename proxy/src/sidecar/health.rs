//! `sidegate-proxy healthcheck`: asks `/ready` and says so with an exit status.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// Ready.
    Ready,
    /// It answers that it is not, in its own words.
    NotReady(String),
    /// Nobody answers sensibly, and why.
    Unreachable(String),
}

/// Longest answer that is read, in bytes.
const LONGEST: u64 = 64 * 1024;

/// Asks the proxy at `address`, for at most `patience`.
pub async fn ask(address: SocketAddr, patience: Duration) -> Health {
    match timeout(patience, answer(address)).await {
        Ok(Ok(text)) => judge(&text),
        Ok(Err(error)) => Health::Unreachable(format!("{address}: {error}")),
        Err(_) => Health::Unreachable(format!("{address} did not answer within {patience:?}")),
    }
}

async fn answer(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"GET /ready HTTP/1.1\r\nHost: sidegate\r\nConnection: close\r\n\r\n").await?;
    let mut text = String::new();
    stream.take(LONGEST).read_to_string(&mut text).await?;
    Ok(text)
}

fn judge(answer: &str) -> Health {
    let status = answer.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3));
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    match status {
        Some("200") => Health::Ready,
        Some("503") => {
            let parsed: Option<serde_json::Value> = serde_json::from_str(body).ok();
            let reasons = parsed.as_ref().and_then(|body| body.get("reasons")?.as_array());
            let reasons =
                reasons.map(|all| all.iter().filter_map(|reason| reason.as_str()).collect::<Vec<_>>());
            Health::NotReady(reasons.unwrap_or_default().join("; "))
        }
        _ => Health::Unreachable("what answers there is no sidegate-proxy".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_judged() {
        assert_eq!(judge("HTTP/1.1 200 OK\r\n\r\n{}"), Health::Ready);
        let body = r#"{"ready":false,"reasons":["no policy","draining"]}"#;
        let not = judge(&format!("HTTP/1.1 503 Service Unavailable\r\nx: y\r\n\r\n{body}"));
        assert_eq!(not, Health::NotReady("no policy; draining".to_owned()));
        for strange in ["", "SSH-2.0-x", "HTTP/1.1 404 Not Found\r\n\r\n"] {
            assert!(matches!(judge(strange), Health::Unreachable(_)), "{strange}");
        }
    }
}
