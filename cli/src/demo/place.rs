//! A folder with what a visitor wants to look at while the demo stays up; gone when it ends.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use super::{attempts, world};

/// The folder.
#[derive(Debug)]
pub(super) struct Place {
    folder: PathBuf,
    access_log: File,
}

impl Place {
    /// Makes it, readable to its owner alone. `certificate`: the origin's, in PEM.
    pub(super) fn make(certificate: &str) -> io::Result<Place> {
        let pid = rustix::process::getpid();
        let folder = std::env::temp_dir().join(format!("sidegate-demo-{}", pid.as_raw_nonzero()));
        DirBuilder::new().mode(0o700).create(&folder)?;
        let log = folder.join("access.jsonl");
        let access_log = OpenOptions::new().append(true).create_new(true).open(log)?;
        let place = Place { folder, access_log };
        place.write("policy.yaml", 0o600, attempts::POLICY)?;
        place.write("origin.pem", 0o600, certificate)?;
        place.write("try", 0o700, &place.script(pid.as_raw_nonzero().get())?)?;
        Ok(place)
    }

    /// A file of the folder.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Keeps a record, as `run --access-log` would.
    pub(super) fn keep(&mut self, line: &str) -> io::Result<()> {
        writeln!(self.access_log, "{line}")
    }

    fn write(&self, name: &str, mode: u32, text: &str) -> io::Result<()> {
        let path = self.path(name);
        OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?.write_all(text.as_bytes())
    }

    /// Runs its arguments in the demo's world, behind the policy file.
    fn script(&self, pid: i32) -> io::Result<String> {
        let quoted = |path: &Path| format!("'{}'", path.display().to_string().replace('\'', r"'\''"));
        let file = |name| quoted(&self.path(name));
        let (certificate, own) = (file("origin.pem"), quoted(&std::env::current_exe()?));
        Ok(format!(
            "#!/bin/sh\n\
             export CURL_CA_BUNDLE={certificate} SSL_CERT_FILE={certificate}\n\
             exec nsenter --preserve-credentials -U -n -t {pid} {own} run --policy {} \\\n    \
             --roots demo={certificate} --access-log {} --resolver {} --summary always -- \"$@\"\n",
            file("policy.yaml"),
            file("access.jsonl"),
            world::RESOLVER,
        ))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // It lies in a folder for temporary files; whoever cleans there takes what can't be removed here.
        let _ = fs::remove_dir_all(&self.folder);
    }
}
