//! The file behind the mapping: a line per name, only ever appended to.

use std::{
    collections::HashSet,
    fs::{File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use sidegate_policy::HostName;

use super::{NAMES, SLOTS, Slot};

/// The first line; another version is another file.
const HEADER: &str = "sidegate-synthetic/1";
/// Larger than the largest honest file.
const MOST_BYTES: u64 = 8 * 1024 * 1024;

/// An open file; forgotten at the first failed write.
#[derive(Debug)]
pub(super) struct Ledger {
    path: PathBuf,
    file: Option<File>,
}

impl Ledger {
    /// Reads what is there and opens it for appending. `None`: the mapping can't be kept.
    pub(super) fn open(path: &Path) -> (Option<Ledger>, Vec<(Slot, HostName)>) {
        let kept = match read(path) {
            Ok(kept) => kept,
            Err(error) => {
                tracing::error!(path = %path.display(), %error,
                    "synthetic addresses can't be read back; starting anew: clients may hold addresses that lead nowhere now");
                Vec::new()
            }
        };
        // Written whole, so that a torn last line is gone before anything is appended to it.
        match rewrite(path, &kept) {
            Ok(file) => (Some(Ledger { path: path.to_owned(), file: Some(file) }), kept),
            Err(error) => {
                tracing::error!(path = %path.display(), %error,
                    "synthetic addresses can't be kept; they may differ after a restart");
                (None, kept)
            }
        }
    }

    /// Adds a name. The data path goes on without the file if it can't be written.
    pub(super) fn append(&mut self, slot: Slot, host: &HostName) {
        let Some(file) = &mut self.file else { return };
        if let Err(error) = file.write_all(line(slot, host).as_bytes()) {
            tracing::error!(path = %self.path.display(), %error,
                "synthetic addresses can't be kept any longer; they may differ after a restart");
            self.file = None;
        }
    }
}

fn line(slot: Slot, host: &HostName) -> String {
    format!("{} {host}\n", slot.0)
}

/// Everything or nothing, save a last line that was cut off.
fn read(path: &Path) -> io::Result<Vec<(Slot, HostName)>> {
    match path.metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
        Ok(facts) if facts.len() > MOST_BYTES => return Err(invalid("larger than any honest file")),
        Ok(_) => {}
    }
    let text = std::fs::read_to_string(path)?;
    let whole = text.rfind('\n').map_or("", |end| text.get(..end).unwrap_or_default());
    let mut lines = whole.split('\n');
    if lines.next() != Some(HEADER) {
        return Err(invalid("no header of this version"));
    }
    let kept: Vec<_> =
        lines.map(parse).collect::<Option<_>>().ok_or_else(|| invalid("a line makes no sense"))?;
    let slots: HashSet<_> = kept.iter().map(|(slot, _)| slot).collect();
    let names: HashSet<_> = kept.iter().map(|(_, name)| name).collect();
    if slots.len() != kept.len() || names.len() != kept.len() {
        return Err(invalid("an address or a name occurs twice"));
    }
    if kept.len() > NAMES {
        return Err(invalid("too many names"));
    }
    Ok(kept)
}

fn parse(line: &str) -> Option<(Slot, HostName)> {
    let (slot, name) = line.split_once(' ')?;
    let slot = slot.parse().ok().filter(|slot| *slot < SLOTS)?;
    let host = HostName::parse(name).ok().filter(|host| host.as_str() == name)?;
    Some((Slot(slot), host))
}

fn rewrite(path: &Path, kept: &[(Slot, HostName)]) -> io::Result<File> {
    let mut text = format!("{HEADER}\n");
    for (slot, host) in kept {
        text.push_str(&line(*slot, host));
    }
    let mut aside = path.as_os_str().to_owned();
    aside.push(".new");
    std::fs::write(&aside, text)?;
    std::fs::rename(&aside, path)?;
    OpenOptions::new().append(true).open(path)
}

fn invalid(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}
