//! HTTP: recognising it, and carrying it request by request.
//!
//! `preface` reads the first head as strictly as `framing` reads all that follow; `engine` serves a client, `exchange` is
//! the story of one request, told in order with `asked`, `upstream` and `body`.

mod admit;
mod asked;
mod body;
pub(crate) mod budgets;
pub mod denial;
pub(crate) mod engine;
mod exchange;
mod fields;
pub mod framing;
mod head;
pub mod preface;
mod reply;
mod stream;
mod tunnel;
mod upgrade;
pub(crate) mod upstream;

/// What a server answers to the key in these fields, for tests that play one.
#[cfg(test)]
pub(crate) fn websocket_proof(fields: &mut hyper::HeaderMap) -> String {
    upgrade::ask(fields).and_then(|proof| proof.to_str().map(str::to_owned).ok()).unwrap_or_default()
}
