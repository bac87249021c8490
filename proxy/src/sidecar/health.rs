//! `sidegate-proxy healthcheck`: asks `/ready` and says so with an exit status.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::redirect::PROXY_UID;

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
        Ok(Err(error)) => {
            Health::Unreachable(unreachable(address, &error, rustix::process::geteuid().as_raw()))
        }
        Err(_) => Health::Unreachable(format!("{address} did not answer within {patience:?}")),
    }
}

/// The system's words, and the likely cause where it is not that nothing listens.
fn unreachable(address: SocketAddr, error: &io::Error, uid: u32) -> String {
    if error.kind() != io::ErrorKind::ConnectionRefused || uid == PROXY_UID {
        return format!("{address}: {error}");
    }
    format!(
        "{address}: {error}: nothing listens there, or the redirect rules refuse it: in the workload's network the \
         proxy's ports are closed to every user but the proxy's own, uid {PROXY_UID} unless `redirect.uid` says \
         otherwise, and this is uid {uid}; run the check as that user"
    )
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
    fn a_refusal_to_another_user_names_the_rules() {
        let address = SocketAddr::from(([127, 0, 0, 1], 15021));
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        let told = unreachable(address, &refused, 1000);
        assert!(told.contains("uid 1337") && told.contains("this is uid 1000"), "{told}");
        for (error, uid) in [(refused, PROXY_UID), (io::ErrorKind::NetworkUnreachable.into(), 1000)] {
            assert!(!unreachable(address, &error, uid).contains("uid"), "another cause");
        }
    }

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
