//! The admin socket: made for its owner alone, and removed with the proxy.

use std::{
    fs, io,
    os::unix::{
        fs::MetadataExt,
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
};

use rustix::fs::Mode;

use super::listen::ListenError;

/// Listens, and removes its file when dropped, unless another one has come in its place.
#[derive(Debug)]
pub(super) struct AdminSocket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the file.
    file: (u64, u64),
}

impl AdminSocket {
    /// Makes it with mode 0600. One that nobody answers on is replaced.
    ///
    /// # Errors
    /// Somebody answers there, or the system refuses. Call while the process has one thread: the file mode mask is the
    /// process's.
    pub(super) fn open(path: &Path) -> Result<AdminSocket, ListenError> {
        let failed = |source| ListenError::Admin { path: path.to_owned(), source };
        match UnixStream::connect(path) {
            Ok(_) => {
                let answered = io::Error::new(io::ErrorKind::AddrInUse, "another proxy answers there");
                return Err(failed(answered));
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                fs::remove_file(path).map_err(failed)?
            }
            Err(_) => {}
        }
        let before = rustix::process::umask(Mode::from_raw_mode(0o177));
        let bound = UnixListener::bind(path);
        rustix::process::umask(before);
        let listener = bound.map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let file = identity(path).map_err(failed)?;
        Ok(AdminSocket { listener, path: path.to_owned(), file })
    }

    /// What connections are accepted from; the file is this one's still.
    pub(super) fn listener(&self) -> io::Result<UnixListener> {
        self.listener.try_clone()
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        if !identity(&self.path).is_ok_and(|file| file == self.file) {
            return;
        }
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "the admin socket stays behind: remove it by hand");
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_admin_socket_is_private_and_a_dead_one_is_replaced() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("admin.sock");
        // As a proxy that was killed leaves it.
        drop(UnixListener::bind(&path).unwrap());
        let first = AdminSocket::open(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(AdminSocket::open(&path), Err(ListenError::Admin { .. })), "somebody answers");
        drop(first);
        assert!(!path.exists());
    }

    #[test]
    fn one_that_came_in_its_place_stays() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("admin.sock");
        let first = AdminSocket::open(&path).unwrap();
        fs::rename(&path, place.path().join("moved")).unwrap();
        let second = AdminSocket::open(&path).unwrap();
        drop(first);
        assert!(path.exists(), "it is the second one's");
        drop(second);
        assert!(!path.exists());
    }
}
