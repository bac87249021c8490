//! Notices that policy files changed: written in place, renamed over, or behind a symbolic link that was swapped
//! (as Kubernetes does with mounted ConfigMaps).

use std::{
    collections::BTreeSet,
    fs, io,
    mem::MaybeUninit,
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::fs::inotify;
use tokio::{
    io::unix::AsyncFd,
    time::{Instant, Interval, MissedTickBehavior, interval, timeout},
};

use crate::sys::async_fd;

/// Quiet time after the last event before the files are looked at: a change is often several events.
const QUIET: Duration = Duration::from_millis(50);
/// Longest wait for quiet.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often the files are looked at besides, for file systems that tell nothing (network mounts) and as the only
/// means where inotify is not to be had.
const POLL: Duration = Duration::from_secs(5);

/// Follows a list of files and folders.
pub(super) struct Watch {
    paths: Vec<PathBuf>,
    events: Option<AsyncFd<OwnedFd>>,
    poll: Interval,
    seen: Signature,
}

/// Identity, size and times of every file. Two changes of equal size within a clock tick look alike, which the quiet
/// time before a look excludes.
type Signature = Vec<(PathBuf, Option<(u64, u64, u64, i64, i64, i64, i64)>)>;

impl Watch {
    /// Starts to watch. What changes from now on is noticed.
    pub(super) fn new(paths: &[PathBuf]) -> Self {
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        let events = inotify::init(flags).map_err(io::Error::from).and_then(async_fd);
        if let Err(error) = &events {
            tracing::warn!(%error, "inotify is not available; policy files are looked at every {POLL:?} instead");
        }
        let mut poll = interval(POLL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut watch = Watch { paths: paths.to_vec(), events: events.ok(), poll, seen: Signature::new() };
        watch.follow();
        watch.seen = signature(&watch.paths);
        watch
    }

    /// Waits until something about the files is different from the last time.
    pub(super) async fn changed(&mut self) {
        loop {
            self.news().await;
            self.follow();
            let now = signature(&self.paths);
            if now != self.seen {
                self.seen = now;
                return;
            }
        }
    }

    /// Waits for an event and the quiet after it, or for the next look.
    async fn news(&mut self) {
        let Some(events) = &self.events else {
            self.poll.tick().await;
            return;
        };
        tokio::select! {
            _ = self.poll.tick() => {}
            () = drained(events) => {
                let latest = Instant::now() + PATIENCE;
                while Instant::now() < latest && timeout(QUIET, drained(events)).await.is_ok() {}
            }
        }
    }

    /// Watches every folder that an entry of the paths could change in. Folders that are watched already stay so.
    fn follow(&self) {
        use inotify::WatchFlags as On;
        let Some(events) = &self.events else { return };
        let changes = On::CREATE
            | On::CLOSE_WRITE
            | On::MOVE
            | On::DELETE
            | On::ATTRIB
            | On::DELETE_SELF
            | On::MOVE_SELF;
        for folder in folders(&self.paths) {
            // A folder that is absent now is seen by its parent, or by the next look.
            let _ = inotify::add_watch(events.get_ref(), &folder, changes | On::ONLYDIR);
        }
    }
}

/// Waits for at least one event and takes all that are there. Their content is of no interest: the files are.
async fn drained(events: &AsyncFd<OwnedFd>) {
    let Ok(mut ready) = events.readable().await else { return std::future::pending().await };
    let mut buffer = [MaybeUninit::<u8>::uninit(); 4096];
    let mut reader = inotify::Reader::new(events.get_ref(), &mut buffer);
    while reader.next().is_ok() {}
    ready.clear_ready();
}

fn folders(paths: &[PathBuf]) -> BTreeSet<PathBuf> {
    let mut folders = BTreeSet::new();
    for path in paths.iter().flat_map(|path| std::iter::once(path.clone()).chain(entries(path))) {
        let resolved = fs::canonicalize(&path);
        for path in std::iter::once(&path).chain(resolved.as_ref().ok()) {
            if path.is_dir() {
                folders.insert(path.clone());
            }
            folders.insert(parent(path));
        }
    }
    folders
}

fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// The entries of a folder; nothing for a file.
fn entries(path: &Path) -> Vec<PathBuf> {
    let found = fs::read_dir(path).map(|entries| entries.flatten().map(|entry| entry.path()).collect());
    let mut found: Vec<_> = found.unwrap_or_default();
    found.sort();
    found
}

fn signature(paths: &[PathBuf]) -> Signature {
    let all = paths.iter().flat_map(|path| std::iter::once(path.clone()).chain(entries(path)));
    let mark = |meta: fs::Metadata| {
        (
            meta.dev(),
            meta.ino(),
            meta.size(),
            meta.mtime(),
            meta.mtime_nsec(),
            meta.ctime(),
            meta.ctime_nsec(),
        )
    };
    // Follows links: what counts is what is read.
    all.map(|path| (fs::metadata(&path).ok().map(mark), path)).map(|(mark, path)| (path, mark)).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    async fn notices(paths: &[PathBuf], change: impl FnOnce()) {
        let mut watch = Watch::new(paths);
        change();
        timeout(Duration::from_secs(10), watch.changed()).await.expect("the change is noticed");
    }

    #[tokio::test]
    async fn writing_and_renaming_over_are_noticed() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("p.yaml");
        fs::write(&file, "one").unwrap();
        notices(std::slice::from_ref(&file), || fs::write(&file, "two!").unwrap()).await;
        let next = place.path().join(".p.yaml.next");
        notices(std::slice::from_ref(&file), || {
            fs::write(&next, "tri").unwrap();
            fs::rename(&next, &file).unwrap();
        })
        .await;
        notices(std::slice::from_ref(&file), || fs::remove_file(&file).unwrap()).await;
    }

    #[tokio::test]
    async fn a_swapped_link_below_a_folder_is_noticed() {
        let place = tempfile::tempdir().unwrap();
        let mount = place.path().join("mount");
        for version in ["..1", "..2"] {
            fs::create_dir_all(mount.join(version)).unwrap();
            fs::write(mount.join(version).join("p.yaml"), version).unwrap();
        }
        symlink("..1", mount.join("..data")).unwrap();
        symlink("..data/p.yaml", mount.join("p.yaml")).unwrap();
        notices(std::slice::from_ref(&mount), || {
            symlink("..2", mount.join("..data_tmp")).unwrap();
            fs::rename(mount.join("..data_tmp"), mount.join("..data")).unwrap();
        })
        .await;
    }
}
