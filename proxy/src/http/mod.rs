//! Recognising plaintext HTTP, and answering a denied client.

pub mod denial;
mod head;
pub mod preface;
