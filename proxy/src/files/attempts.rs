//! When to read files, and when to tell that they are wrong.

use std::path::{Path, PathBuf};

use sidegate_certs::UnixTime;

use super::Mark;

/// Files that were told to be wrong and have not changed are tried again after so many looks: clocks move, and
/// folders become readable without a change of the files.
const PATIENCE: u32 = 20;

/// After so many looks in a row that found faults, another one each time, the next is told without being confirmed.
const RESTLESS: u32 = 4;

/// The attempts to load what several files make together. `F` is what may be wrong with them.
#[derive(Debug)]
pub(crate) struct Attempts<F> {
    paths: Vec<PathBuf>,
    /// The fault of a file that changes while it is read.
    moving: fn(&Path) -> F,
    rest: Option<Rest>,
    /// What the looks in a row found wrong, the last and how many they were.
    suspect: Option<(F, u32)>,
    told: Option<F>,
    begun: bool,
}

/// While the files look like this, they are not read.
#[derive(Debug)]
struct Rest {
    mark: Mark,
    /// Looks that are left; `None`: for good.
    looks: Option<u32>,
}

impl<F: Clone + PartialEq> Attempts<F> {
    pub(crate) fn new(paths: Vec<PathBuf>, moving: fn(&Path) -> F) -> Self {
        Attempts { paths, moving, rest: None, suspect: None, told: None, begun: false }
    }

    /// Loads if the files differ from what was loaded last. `None`: there is nothing new to take over or to tell.
    ///
    /// A fault is told when two looks in a row find it: files that are renewed one after the other don't fit
    /// together for a moment. At the first look of all it is told at once.
    pub(crate) fn look<T>(
        &mut self,
        now: UnixTime,
        load: impl FnOnce() -> Result<T, F>,
    ) -> Option<Result<T, F>> {
        let mark = Mark::of(&self.paths);
        if self.rests(&mark) {
            return None;
        }
        let loaded = load();
        let still = Mark::of(&self.paths) == mark;
        let first = !std::mem::replace(&mut self.begun, true);
        match (loaded, still) {
            (Ok(loaded), true) => {
                (self.suspect, self.told) = (None, None);
                self.rest = (!mark.is_young(now)).then_some(Rest { mark, looks: None });
                Some(Ok(loaded))
            }
            (Ok(_), false) => self.wrong((self.moving)(self.paths.first()?), mark, first),
            (Err(fault), _) => self.wrong(fault, mark, first),
        }
    }

    fn rests(&mut self, mark: &Mark) -> bool {
        let Some(rest) = &mut self.rest else { return false };
        let over = match &mut rest.looks {
            Some(0) => true,
            Some(looks) => {
                *looks -= 1;
                false
            }
            None => false,
        };
        if over || rest.mark != *mark {
            self.rest = None;
            return false;
        }
        true
    }

    fn wrong<T>(&mut self, fault: F, mark: Mark, first: bool) -> Option<Result<T, F>> {
        let before = self.suspect.take();
        let again = before.as_ref().is_some_and(|(before, looks)| *before == fault || *looks >= RESTLESS);
        self.suspect = Some((fault.clone(), before.map_or(1, |(_, looks)| looks.saturating_add(1))));
        if self.told.as_ref() == Some(&fault) {
            self.rest = Some(Rest { mark, looks: Some(PATIENCE) });
            return None;
        }
        if !again && !first {
            return None;
        }
        self.told = Some(fault.clone());
        Some(Err(fault))
    }
}
