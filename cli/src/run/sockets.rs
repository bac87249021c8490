//! Unix sockets that others listen on: a way around a network namespace, since whoever listens may open connections for the
//! command (a container engine, the service manager's bus, a terminal multiplexer, an ssh master).

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
};

/// Directories where sockets of other network namespaces show up too (mounted into a container), and how deep to look.
const SEARCHED: [(&str, usize); 3] = [("/run", 5), ("/var/run", 5), ("/tmp", 2)];

/// Directory entries looked at in total; a full `/tmp` must not make the start slow.
const MOST_ENTRIES: usize = 20_000;

/// Every Unix socket in the file system that can be found now, less those that are to stay. Paths are canonical.
pub(super) fn reachable(allowed: &[PathBuf]) -> Vec<PathBuf> {
    let mut found = BTreeSet::new();
    if let Ok(table) = fs::read_to_string("/proc/net/unix") {
        found.extend(bound_paths(&table).filter_map(|path| canonical_socket(&path)));
    }
    let own = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let searched = SEARCHED.iter().map(|(path, depth)| (PathBuf::from(path), *depth));
    let mut budget = MOST_ENTRIES;
    for (directory, depth) in searched.chain(own.map(|path| (path, 4))) {
        walk(&directory, depth, &mut budget, &mut found);
    }
    for path in allowed {
        found.remove(&fs::canonicalize(path).unwrap_or_else(|_| path.clone()));
    }
    found.into_iter().collect()
}

/// The paths of `/proc/net/unix`: the eighth column, of sockets that are bound to the file system. proc_net(5).
fn bound_paths(table: &str) -> impl Iterator<Item = PathBuf> {
    table.lines().skip(1).filter_map(|line| {
        let mut rest = line;
        for _ in 0..7 {
            rest = rest.trim_start().split_once(' ')?.1;
        }
        rest.starts_with('/').then(|| PathBuf::from(rest))
    })
}

fn canonical_socket(path: &Path) -> Option<PathBuf> {
    let canonical = fs::canonicalize(path).ok()?;
    fs::symlink_metadata(&canonical).ok()?.file_type().is_socket().then_some(canonical)
}

fn walk(directory: &Path, depth: usize, budget: &mut usize, found: &mut BTreeSet<PathBuf>) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        if *budget == 0 {
            return;
        }
        *budget -= 1;
        match entry.file_type() {
            Ok(kind) if kind.is_socket() => found.extend(canonical_socket(&entry.path())),
            Ok(kind) if kind.is_dir() && depth > 1 => walk(&entry.path(), depth - 1, budget, found),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn the_table_of_sockets_is_read_by_column() {
        let table = "Num       RefCount Protocol Flags    Type St Inode Path\n\
                     0000000000000000: 00000002 00000000 00010000 0001 01 21403 /run/with space.sock\n\
                     0000000000000000: 00000002 00000000 00010000 0001 01 21404 @abstract\n\
                     0000000000000000: 00000003 00000000 00000000 0001 03 21405\n";
        assert_eq!(bound_paths(table).collect::<Vec<_>>(), [PathBuf::from("/run/with space.sock")]);
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
