//! Roots by label: the operator says which file a label stands for, and whoever renews the file need not restart anything.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwapOption;
use sidegate_certs::{UnixTime, tls::Origin};

use crate::{
    files::{Attempts, keep_looking, read},
    identity::{ERRORS, Fault, Ground},
};

/// The largest file of roots, in bytes.
const LARGEST: usize = 4 * 1024 * 1024;

/// What a label stands for at the moment.
#[derive(Clone, Debug)]
pub(crate) struct Labelled {
    pub(crate) origin: Origin,
    /// Rises with each change of the file.
    pub(crate) epoch: u64,
}

/// A label's roots; none before the first good file.
pub(crate) type RootsCell = ArcSwapOption<Labelled>;

/// Follows the files of labelled roots.
#[derive(Debug, Default)]
pub struct RootsFollower {
    files: Vec<Followed>,
}

#[derive(Debug)]
struct Followed {
    label: Box<str>,
    path: PathBuf,
    attempts: Attempts<Fault>,
    cell: Arc<RootsCell>,
    /// What was loaded last, and how many times something else was.
    content: Vec<u8>,
    epoch: u64,
}

impl RootsFollower {
    /// Follows these files by label; nothing was read yet.
    pub fn new(files: &BTreeMap<String, PathBuf>) -> Self {
        let followed = |(label, path): (&String, &PathBuf)| Followed {
            label: label.as_str().into(),
            path: path.clone(),
            attempts: Attempts::new(vec![path.clone()], Fault::moving),
            cell: Arc::default(),
            content: Vec::new(),
            epoch: 0,
        };
        RootsFollower { files: files.iter().map(followed).collect() }
    }

    /// The same, looked at once.
    pub fn begun(files: &BTreeMap<String, PathBuf>) -> Self {
        let mut follower = Self::new(files);
        follower.look(UnixTime::now());
        follower
    }

    pub(super) fn cells(&self) -> BTreeMap<Box<str>, Arc<RootsCell>> {
        self.files.iter().map(|file| (file.label.clone(), Arc::clone(&file.cell))).collect()
    }

    /// What is wrong with the files, all of it.
    pub fn check(files: &BTreeMap<String, PathBuf>) -> Vec<Fault> {
        files.values().filter_map(|path| load(path).err()).collect()
    }

    /// Looks at the files for as long as it is polled.
    pub async fn run(self) {
        if !self.files.is_empty() {
            keep_looking(self, Self::look, "files of roots are not followed").await;
        }
    }

    /// Looks once: takes over what changed, or tells what is wrong with it; then what was there before stays in force.
    pub fn look(&mut self, now: UnixTime) {
        for file in &mut self.files {
            match file.attempts.look(now, || load(&file.path)) {
                Some(Ok((origin, content))) => file.replace(origin, content),
                Some(Err(fault)) => file.refuse(&fault),
                None => {}
            }
        }
    }
}

impl Followed {
    fn replace(&mut self, origin: Origin, content: Vec<u8>) {
        if self.epoch > 0 && self.content == content {
            return;
        }
        self.epoch += 1;
        self.content = content;
        let epoch = self.epoch;
        self.cell.store(Some(Arc::new(Labelled { origin, epoch })));
        tracing::info!(label = &*self.label, epoch, "new roots count from now on");
    }

    fn refuse(&self, fault: &Fault) {
        metrics::counter!(ERRORS, "part" => "roots").increment(1);
        let then = match self.epoch {
            0 => "rules that name the label are denied until it is mended",
            _ => "what was there before stays in force",
        };
        let (label, file, message) = (&*self.label, fault.path.display(), &fault.ground);
        tracing::error!(label, %file, fix = fault.fix(), "refused: {message}; {then}");
    }
}

fn load(path: &Path) -> Result<(Origin, Vec<u8>), Fault> {
    let bytes = read(path, LARGEST).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Fault::new(path, Ground::Absent),
        _ => Fault::new(path, Ground::Unreadable(error.to_string())),
    })?;
    let origin = Origin::from_pem(&bytes).map_err(|error| Fault::new(path, error))?;
    Ok((origin, bytes.to_vec()))
}
