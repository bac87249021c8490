//! Whose a file is that stands in the way.

use std::{
    fs::{self, Metadata},
    io,
    os::unix::fs::MetadataExt,
    path::Path,
};

/// For the end of a message: owner and mode of what this user may not use, or of its folder where it is not there, and
/// who this user is. Empty where `error` has another cause.
pub(super) fn told(path: &Path, error: &io::Error) -> String {
    if !matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::AddrInUse) {
        return String::new();
    }
    let found = fs::symlink_metadata(path).map(|found| ("it", found));
    let folder = || path.parent().and_then(|folder| Some(("its folder", fs::metadata(folder).ok()?)));
    said(found.ok().or_else(folder), rustix::process::geteuid().as_raw())
}

fn said(found: Option<(&str, Metadata)>, uid: u32) -> String {
    // The proxy has dropped what lets root write everywhere.
    let user = if uid == 0 { "uid 0 without CAP_DAC_OVERRIDE".to_owned() } else { format!("uid {uid}") };
    match found {
        Some((what, found)) if found.uid() != uid => {
            let (owner, mode) = (found.uid(), found.mode() & 0o7777);
            format!(" ({what} belongs to uid {owner}, mode {mode:04o}, and the proxy runs as {user})")
        }
        _ => format!(" (the proxy runs as {user})"),
    }
}
