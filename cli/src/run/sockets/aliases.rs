//! Other paths of the same file: through bind mounts of its directory.

use std::path::{Path, PathBuf};

/// One line of `/proc/self/mountinfo`: which part of which file system is seen where. proc_pid_mountinfo(5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mounted {
    device: String,
    root: PathBuf,
    at: PathBuf,
}

impl Mounted {
    pub(super) fn all(table: &str) -> Vec<Mounted> {
        table.lines().filter_map(Mounted::parse).collect()
    }

    fn parse(line: &str) -> Option<Mounted> {
        let mut fields = line.split(' ').skip(2);
        let device = fields.next()?.to_owned();
        let mut path = || fields.next().map(unescaped).map(PathBuf::from);
        Some(Mounted { device, root: path()?, at: path()? })
    }
}

/// Every path that the mounts show this canonical path's file at, itself included.
pub(super) fn of(path: &Path, mounts: &[Mounted]) -> Vec<PathBuf> {
    // The longest mount point that contains it is the one it is seen through; of equals the last one lies on top.
    let through = mounts
        .iter()
        .filter(|mount| path.starts_with(&mount.at))
        .max_by_key(|mount| mount.at.as_os_str().len());
    let Some(through) = through else { return vec![path.to_owned()] };
    let Ok(below) = path.strip_prefix(&through.at) else { return vec![path.to_owned()] };
    let in_file_system = through.root.join(below);
    let mut paths: Vec<PathBuf> = mounts
        .iter()
        .filter(|mount| mount.device == through.device)
        .filter_map(|mount| Some(joined(&mount.at, in_file_system.strip_prefix(&mount.root).ok()?)))
        .collect();
    if !paths.iter().any(|found| found == path) {
        paths.push(path.to_owned());
    }
    paths
}

/// Without the slash that joining nothing leaves: a mount may be of the very file.
fn joined(at: &Path, below: &Path) -> PathBuf {
    if below.as_os_str().is_empty() { at.to_owned() } else { at.join(below) }
}

fn unescaped(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
                         30 22 0:25 / /run rw,nosuid - tmpfs tmpfs rw\n\
                         41 22 8:1 /srv/with\\040space /mnt/alias rw - ext4 /dev/sda1 rw\n\
                         42 22 8:1 /srv/one.sock /mnt/file.sock rw - ext4 /dev/sda1 rw\n";

    #[test]
    fn a_bind_mount_shows_the_file_elsewhere() {
        let mounts = Mounted::all(TABLE);
        let aliases = |path: &str| of(Path::new(path), &mounts);
        let paths = |names: &[&str]| names.iter().map(PathBuf::from).collect::<Vec<_>>();
        assert_eq!(
            aliases("/srv/with space/a.sock"),
            paths(&["/srv/with space/a.sock", "/mnt/alias/a.sock"])
        );
        assert_eq!(aliases("/mnt/alias/a.sock"), paths(&["/srv/with space/a.sock", "/mnt/alias/a.sock"]));
        assert_eq!(aliases("/srv/one.sock"), paths(&["/srv/one.sock", "/mnt/file.sock"]));
        assert_eq!(aliases("/run/b.sock"), paths(&["/run/b.sock"]));
    }
}
