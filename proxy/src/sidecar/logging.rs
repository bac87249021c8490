//! The program's own log, on standard error. Access records are a stream of their own.

use std::io::{self, IsTerminal};

use tracing::level_filters::LevelFilter;

use super::config::{Log, LogFormat, LogLevel};

/// Starts the log of this process. A second call changes nothing.
pub fn start(log: Log) {
    let level = match log.level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let builder = tracing_subscriber::fmt().with_writer(io::stderr).with_max_level(level);
    // A second subscriber is refused; the first goes on.
    let _ = match log.format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Text => builder.with_ansi(io::stderr().is_terminal()).with_target(false).try_init(),
    };
}
