//! How both ends speak HTTP/2.
//!
//! What may be held: of one stream its window of what the other side sent and [`QUEUE`] of what waits for the socket, 1.25 MiB,
//! and a chunk each way in its relay; nothing while its reader keeps up. A stream of ours belongs to one client, so all of
//! them together hold at most that times `limits.connections`, if every client stalls while its peer sends. There is no
//! smaller bound of the whole process yet: lower that limit where memory is short.

use std::time::Duration;

/// Streams of one connection at a time. More open another connection.
pub(super) const STREAMS: usize = 256;
/// What one stream may send ahead of its reader, in bytes.
pub(super) const STREAM_WINDOW: u32 = 1 << 20;
/// What a connection may: the windows of all its streams together, so that readers who stall never stop another.
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * STREAMS as u32;
/// Bytes of one DATA frame: four TLS records, written with one system call, and little for another stream to wait for.
const FRAME: u32 = 64 * 1024;
/// What a stream may queue ahead of the socket, in bytes; its writer waits for more room.
const QUEUE: usize = 256 * 1024;
/// Bytes of fields of one request. Ours have one; those of others carry `baggage` and traces.
const FIELDS: u32 = 16 * 1024;
/// What unread tiny frames may cost beyond their payload, in bytes (h2 counts 256 each, less the payload): a quarter of
/// a million on one connection. Honest streams whose reader stalls stay far below.
const TINY_FRAMES: usize = 64 << 20;
/// Streams that the peer reset before they were taken. More end the connection (CVE-2023-44487).
const RESETS_AHEAD: usize = 32;
/// Streams that we reset for errors of the peer. More end the connection (CVE-2025-8671).
const RESETS_OF_OURS: usize = 256;
/// How many streams that we reset are remembered, and how long: their frames may be under way still.
const REMEMBERED: usize = 64;
const MEMORY: Duration = Duration::from_secs(10);

pub(super) fn client() -> h2::client::Builder {
    let mut builder = h2::client::Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .max_send_buffer_size(QUEUE)
        .max_header_list_size(FIELDS)
        .data_frame_budget(TINY_FRAMES)
        .max_concurrent_reset_streams(REMEMBERED)
        .reset_stream_duration(MEMORY);
    builder
}

pub(super) fn server() -> h2::server::Builder {
    let mut builder = h2::server::Builder::new();
    builder
        .max_concurrent_streams(STREAMS as u32)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .max_send_buffer_size(QUEUE)
        .max_header_list_size(FIELDS)
        .data_frame_budget(TINY_FRAMES)
        .max_pending_accept_reset_streams(RESETS_AHEAD)
        .max_local_error_reset_streams(Some(RESETS_OF_OURS))
        .max_concurrent_reset_streams(REMEMBERED)
        .reset_stream_duration(MEMORY);
    builder
}
