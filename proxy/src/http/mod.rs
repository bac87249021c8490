//! HTTP: recognising it, and carrying it request by request.
//!
//! `preface` reads the first head as strictly as `framing` reads all that follow; `engine` serves a client, `exchange` is
//! the story of one request, told in order with `asked`, `upstream` and `body`.

mod asked;
mod body;
pub mod denial;
pub(crate) mod engine;
mod exchange;
mod fields;
pub mod framing;
mod head;
pub mod preface;
mod stream;
pub(crate) mod upstream;
