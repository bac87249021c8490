//! Access records as JSON lines, in a file or on standard output.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use sidegate_api::AccessRecord;

use super::Sink;

/// Lines gathered before they are written without waiting for a flush.
const BUFFER: usize = 64 * 1024;

/// Shortest time between attempts to open the file again, between looks at whether it was rotated away, and
/// between complaints.
const PATIENCE: Duration = Duration::from_secs(1);

/// One JSON object a line.
///
/// A file is opened for appending and opened again when it was renamed or removed (log rotation) and after a
/// failure. Lines that can't be written (full disk, closed pipe) are counted as lost; the data path goes on.
pub struct JsonLines {
    target: Target,
    lines: Vec<u8>,
    /// The last write ended inside a line: begin the next with a newline, so that only one line is damaged.
    torn: bool,
    complained: Option<Instant>,
}

enum Target {
    Stdout,
    File {
        path: PathBuf,
        open: Option<File>,
        looked: Instant,
    },
    #[cfg(test)]
    Writer(Box<dyn Write + Send>),
}

impl JsonLines {
    /// Records on standard output.
    pub fn stdout() -> Self {
        Self::new(Target::Stdout)
    }

    /// Records appended to the file at `path`, which is made (mode 0640) when absent.
    ///
    /// # Errors
    /// The file can't be opened now. Later failures are reported and retried.
    pub fn file(path: &Path) -> io::Result<Self> {
        let open = Some(open(path)?);
        Ok(Self::new(Target::File { path: path.to_owned(), open, looked: Instant::now() }))
    }

    #[cfg(test)]
    pub(super) fn writer(writer: impl Write + Send + 'static) -> Self {
        Self::new(Target::Writer(Box::new(writer)))
    }

    /// Looks for rotation at the next write.
    #[cfg(test)]
    pub(super) fn forget_last_look(&mut self) {
        if let Target::File { looked, .. } = &mut self.target {
            *looked -= PATIENCE;
        }
    }

    fn new(target: Target) -> Self {
        JsonLines { target, lines: Vec::new(), torn: false, complained: None }
    }

    fn write_lines(&mut self) {
        if self.lines.is_empty() {
            return;
        }
        if self.torn {
            self.lines.insert(0, b'\n');
        }
        let mut written = 0;
        let outcome = self.target.write(&self.lines, &mut written);
        let lost = self.lines[written..].iter().filter(|byte| **byte == b'\n').count();
        if written > 0 {
            self.torn = self.lines[written - 1] != b'\n';
        }
        self.lines.clear();
        self.lines.shrink_to(BUFFER);
        if let Err(error) = outcome {
            metrics::counter!(crate::metrics::RECORDS_LOST).increment(lost as u64);
            self.complain(&error, lost);
        }
    }

    fn complain(&mut self, error: &io::Error, lost: usize) {
        if self.complained.is_none_or(|at| at.elapsed() >= PATIENCE) {
            self.complained = Some(Instant::now());
            tracing::error!(%error, lost, "access records can't be written; traffic goes on");
        }
    }
}

impl Sink for JsonLines {
    fn record(&mut self, record: &AccessRecord) {
        if serde_json::to_writer(&mut self.lines, record).is_ok() {
            self.lines.push(b'\n');
        }
        if self.lines.len() >= BUFFER {
            self.write_lines();
        }
    }

    fn flush(&mut self) {
        self.write_lines();
    }
}

impl Target {
    /// Writes all of `bytes`; `written` tells how far it came.
    fn write(&mut self, bytes: &[u8], written: &mut usize) -> io::Result<()> {
        match self {
            Target::Stdout => {
                let mut stdout = io::stdout().lock();
                write_counted(&mut stdout, bytes, written)?;
                stdout.flush()
            }
            Target::File { path, open, looked } => {
                let due = looked.elapsed() >= PATIENCE;
                if due && open.as_ref().is_some_and(|file| rotated(path, file)) {
                    *open = None;
                }
                if due {
                    *looked = Instant::now();
                }
                let file = match open {
                    Some(file) => file,
                    None => open.insert(self::open(path)?),
                };
                let outcome = write_counted(file, bytes, written);
                if outcome.is_err() {
                    *open = None;
                }
                outcome
            }
            #[cfg(test)]
            Target::Writer(writer) => write_counted(writer, bytes, written),
        }
    }
}

fn write_counted(writer: &mut impl Write, bytes: &[u8], written: &mut usize) -> io::Result<()> {
    while *written < bytes.len() {
        match writer.write(&bytes[*written..]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => *written += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn open(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

/// Whether the path leads to another file (or none) than the one that is open.
fn rotated(path: &Path, file: &File) -> bool {
    match (std::fs::metadata(path), file.metadata()) {
        (Ok(there), Ok(here)) => (there.dev(), there.ino()) != (here.dev(), here.ino()),
        _ => true,
    }
}
