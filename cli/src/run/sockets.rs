//! Unix sockets that others listen on: a way around a network namespace, since whoever listens may open connections for the
//! command (a container engine, the service manager's bus, a terminal multiplexer, an ssh master).

mod aliases;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
};

use aliases::Mounted;

/// Directories where sockets of other network namespaces show up too (mounted into a container), and how deep to look.
const SEARCHED: [(&str, usize); 3] = [("/run", 5), ("/var/run", 5), ("/tmp", 2)];

/// Directory entries looked at below one place; a full `/tmp` must not make the start slow, nor keep `/run` from being searched.
const MOST_ENTRIES: usize = 20_000;

/// Every Unix socket in the file system that can be found now, less those that are to stay. Paths are canonical.
///
/// A bound path may be relative to its owner's working directory, and its file may have been linked or renamed since: so
/// the whole directory is looked through. A bind mount shows the file elsewhere too.
pub(super) fn reachable(allowed: &[PathBuf]) -> Vec<PathBuf> {
    let mut found = BTreeSet::new();
    if let Ok(table) = fs::read_to_string("/proc/net/unix") {
        let bound: Vec<Bound> = table.lines().skip(1).filter_map(Bound::parse).collect();
        let directories: BTreeSet<PathBuf> = absolute(&bound)
            .inspect(|path| found.extend(canonical_socket(path)))
            .filter_map(|path| path.parent().map(Path::to_owned))
            .collect();
        for directory in directories {
            walk(&directory, 1, MOST_ENTRIES, &mut found);
        }
    }
    let own = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let searched = SEARCHED.iter().map(|(path, depth)| (PathBuf::from(path), *depth));
    for (directory, depth) in searched.chain(own.map(|path| (path, 4))) {
        walk(&directory, depth, MOST_ENTRIES, &mut found);
    }
    let mounts = Mounted::all(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default());
    for path in allowed {
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.clone());
        for alias in aliases::of(&path, &mounts) {
            found.remove(&alias);
        }
    }
    let everywhere: BTreeSet<PathBuf> = found.iter().flat_map(|path| aliases::of(path, &mounts)).collect();
    everywhere.into_iter().filter(|path| canonical_socket(path).as_ref() == Some(path)).collect()
}

/// A socket that is bound to the file system, as `/proc/net/unix` tells it. proc_net(5).
#[derive(Debug, PartialEq, Eq)]
struct Bound {
    inode: u64,
    path: PathBuf,
}

impl Bound {
    /// The seventh column is the inode, the eighth the path; `@` begins an abstract name, which is no file.
    fn parse(line: &str) -> Option<Bound> {
        let mut rest = line;
        let mut inode = "";
        for _ in 0..7 {
            (inode, rest) = rest.trim_start().split_once(' ')?;
        }
        let path = (!rest.is_empty() && !rest.starts_with('@')).then(|| PathBuf::from(rest))?;
        Some(Bound { inode: inode.parse().ok()?, path })
    }
}

/// The paths; a relative one is tried from the working directory of each process that holds the socket.
fn absolute(bound: &[Bound]) -> impl Iterator<Item = PathBuf> {
    let relative: BTreeMap<u64, &Path> = bound
        .iter()
        .filter(|bound| bound.path.is_relative())
        .map(|bound| (bound.inode, bound.path.as_path()))
        .collect();
    let holders = if relative.is_empty() { Vec::new() } else { working_directories(&relative) };
    let whole = bound.iter().filter(|bound| bound.path.is_absolute()).map(|bound| bound.path.clone());
    whole.collect::<Vec<_>>().into_iter().chain(holders)
}

fn working_directories(relative: &BTreeMap<u64, &Path>) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(directory) = fs::read_link(process.path().join("cwd")) else { continue };
        for descriptor in fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten() {
            let Ok(target) = fs::read_link(descriptor.path()) else { continue };
            let inode = target
                .to_str()
                .and_then(|name| name.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
            if let Some(path) = inode.and_then(|inode: u64| relative.get(&inode)) {
                paths.push(directory.join(path));
            }
        }
    }
    paths
}

fn canonical_socket(path: &Path) -> Option<PathBuf> {
    let canonical = fs::canonicalize(path).ok()?;
    fs::symlink_metadata(&canonical).ok()?.file_type().is_socket().then_some(canonical)
}

/// Adds the sockets below a directory, of `most` entries in all.
fn walk(directory: &Path, depth: usize, most: usize, found: &mut BTreeSet<PathBuf>) {
    let mut budget = most;
    let mut waiting = vec![(directory.to_owned(), depth)];
    while let Some((directory, depth)) = waiting.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            if budget == 0 {
                return;
            }
            budget -= 1;
            match entry.file_type() {
                Ok(kind) if kind.is_socket() => found.extend(canonical_socket(&entry.path())),
                Ok(kind) if kind.is_dir() && depth > 1 => waiting.push((entry.path(), depth - 1)),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn the_table_of_sockets_is_read_by_column() {
        let read = |line: String| Bound::parse(&line).map(|bound| (bound.inode, bound.path));
        let line = |rest: &str| format!("0000000000000000: 00000002 00000000 00010000 0001 01 {rest}");
        assert_eq!(read(line("21403 /run/with space.sock")), Some((21403, "/run/with space.sock".into())));
        assert_eq!(read(line("21404 relative.sock")), Some((21404, "relative.sock".into())));
        assert_eq!(read(line("21405 @abstract")), None);
        assert_eq!(read(line("21406")), None);
    }

    /// Bound under one name, reachable by another, as an ssh master does it.
    #[test]
    fn a_socket_that_was_linked_or_renamed_since_is_found() {
        let place = tempfile::tempdir_in("/var/tmp").unwrap();
        let place = fs::canonicalize(place.path()).unwrap();
        let (first, second) = (place.join("first"), place.join("second"));
        let _one = UnixListener::bind(&first).unwrap();
        fs::hard_link(&first, place.join("linked")).unwrap();
        fs::remove_file(&first).unwrap();
        let _two = UnixListener::bind(&second).unwrap();
        fs::rename(&second, place.join("renamed")).unwrap();
        let found = reachable(&[]);
        assert!(found.contains(&place.join("linked")) && found.contains(&place.join("renamed")), "{found:?}");
    }

    /// A socket of another network namespace is in no table of ours: only the search finds it.
    #[test]
    fn a_full_directory_hides_no_socket_elsewhere() {
        let full = tempfile::tempdir_in("/var/tmp").unwrap();
        let _live = UnixListener::bind(full.path().join("live.sock")).unwrap();
        for number in 0..MOST_ENTRIES {
            fs::File::create(full.path().join(number.to_string())).unwrap();
        }
        let place = tempfile::tempdir_in("/tmp").unwrap();
        let path = fs::canonicalize(place.path()).unwrap().join("foreign.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(reachable(&[]).contains(&path));
    }

    #[test]
    fn a_socket_anywhere_is_found_and_an_allowed_one_left_out() {
        let place = tempfile::tempdir_in("/var/tmp").unwrap();
        let path = fs::canonicalize(place.path()).unwrap().join("engine.sock");
        let _listener = UnixListener::bind(&path).unwrap();
        assert!(reachable(&[]).contains(&path));
        assert!(!reachable(std::slice::from_ref(&path)).contains(&path));
    }
}
