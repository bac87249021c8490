//! Recognising plaintext HTTP, and answering a denied client.

mod head;
pub mod preface;
