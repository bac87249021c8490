//! The access log's file: which one it is, and whether it is still the one that it was.
//!
//! The command has its user's rights over files. In its view the file is read-only (see [`super::mounts::protect`]), but it
//! may move the folder that the file is in; the proxy, which looks for rotated logs, then follows the path.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// A file at a moment.
#[derive(Clone, Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
    length: u64,
}

impl LogFile {
    /// `None`: it is no regular file, which nobody can shorten or replace unseen.
    ///
    /// # Errors
    /// The file can't be looked at.
    pub(super) fn look(path: &Path) -> io::Result<Option<LogFile>> {
        if path == Path::new("-") {
            return Ok(None);
        }
        let found = fs::metadata(path)?;
        let path = fs::canonicalize(path)?;
        Ok(found.is_file().then(|| LogFile {
            path,
            identity: (found.dev(), found.ino()),
            length: found.len(),
        }))
    }

    /// Where it is, without symbolic links.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What became of it since, if that may have cost records.
    pub(super) fn harm(&self) -> Option<String> {
        let what = match fs::metadata(&self.path) {
            Ok(now) if (now.dev(), now.ino()) != self.identity => "was replaced by another file",
            Ok(now) if now.len() < self.length => "was shortened",
            Ok(_) => return None,
            Err(_) => "was moved or removed",
        };
        let path = self.path.display();
        Some(format!("WARNING: the access log {path} {what} while the command ran: records may be missing"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_cost_records_is_told() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("log");
        fs::write(&path, "one\n").unwrap();
        let log = LogFile::look(&path).unwrap().unwrap();
        fs::write(&path, "one\ntwo\n").unwrap();
        assert_eq!(log.harm(), None);
        fs::write(&path, "").unwrap();
        assert!(log.harm().unwrap().contains("shortened"));
        fs::rename(&path, place.path().join("old")).unwrap();
        assert!(log.harm().unwrap().contains("moved or removed"));
        fs::write(&path, "one\ntwo\n").unwrap();
        assert!(log.harm().unwrap().contains("replaced"));
    }

    #[test]
    fn only_files_are_watched() {
        for path in ["-", "/dev/null"] {
            assert!(LogFile::look(Path::new(path)).unwrap().is_none());
        }
    }
}
