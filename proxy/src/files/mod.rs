//! Files that somebody else keeps up to date: reading them within bounds, and noticing that they changed.
//!
//! By looking alone, since file systems that secrets and configuration are mounted by need not tell of changes.

mod attempts;

use std::{
    fs::{self, OpenOptions},
    io::{self, Read},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use sidegate_certs::UnixTime;
use tokio::time::{MissedTickBehavior, interval};
use zeroize::Zeroizing;

pub(crate) use attempts::Attempts;

/// How often files are looked at: a change is taken over within a second, also if it is not whole at once.
pub(crate) const LOOK: Duration = Duration::from_millis(500);

/// Looks again and again for as long as it is polled, on a thread where a file system that hangs keeps no event loop.
/// `what`: what no longer happens if a look panics.
pub(crate) async fn keep_looking<T: Send + 'static>(mut at: T, look: fn(&mut T, UnixTime), what: &str) {
    let mut again = interval(LOOK);
    again.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        again.tick().await;
        let looked = tokio::task::spawn_blocking(move || {
            look(&mut at, UnixTime::now());
            at
        });
        match looked.await {
            Ok(back) => at = back,
            Err(error) => return tracing::error!(%error, "{what} any more; restart the proxy"),
        }
    }
}

/// Reads a regular file of at most `largest` bytes, wiped when dropped: it may hold a key. Anything but a regular file
/// might have no end, or never begin (a pipe that nobody writes to).
pub(crate) fn read(path: &Path, largest: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    // Without waiting: for a regular file it makes no difference.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    let expected = usize::try_from(meta.len()).unwrap_or(usize::MAX).min(largest);
    // A buffer that grows would leave copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(expected.saturating_add(32)));
    let limit = u64::try_from(largest).unwrap_or(u64::MAX).saturating_add(1);
    if file.take(limit).read_to_end(&mut bytes)? > largest {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("it is larger than {largest} bytes"),
        ));
    }
    Ok(bytes)
}

/// Identity, size and times of the files that paths lead to, links followed: what counts is what is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mark(Vec<Option<FileMark>>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct FileMark {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// Files that changed within so many seconds are read again at the next look: a second change of equal size within a
/// tick of the file system's clock would leave the mark as it is.
const YOUNG: i64 = 2;

impl Mark {
    /// As the files are now.
    pub(crate) fn of(paths: &[PathBuf]) -> Mark {
        let mark = |meta: fs::Metadata| FileMark {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        };
        Mark(paths.iter().map(|path| fs::metadata(path).ok().map(mark)).collect())
    }

    /// Whether one of them changed so short a time before `now` that a later change may look the same.
    pub(crate) fn is_young(&self, now: UnixTime) -> bool {
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        self.0.iter().flatten().any(|file| now <= file.changed.0.saturating_add(YOUNG))
    }
}
