//! The repository's text files, read once.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::lexer::{self, Layers};

/// Folders that hold nothing of ours.
const SKIPPED: &[&str] = &["target", "node_modules", "__pycache__", "corpus", "artifacts"];
/// Hidden folders that do.
const HIDDEN: &[&str] = &[".ci", ".github"];

/// One text file.
#[derive(Debug)]
pub struct File {
    /// Path below the repository's root, with `/`.
    pub path: String,
    /// The whole text.
    pub text: String,
    /// Rust sources only: code and comments apart.
    pub layers: Option<Layers>,
}

impl File {
    /// A file from its path and text.
    pub fn new(path: &str, text: &str) -> Self {
        let layers = path.ends_with(".rs").then(|| lexer::split(text));
        File { path: path.to_owned(), text: text.to_owned(), layers }
    }

    /// Whether the whole file is test code.
    pub fn is_test(&self) -> bool {
        self.path.starts_with("tests/") || self.path.contains("/tests/") || self.path.ends_with("/tests.rs")
    }

    /// The first line (0-based) that belongs to an inline test module at the file's end, or the number of lines.
    pub fn first_test_line(&self) -> usize {
        let lines: Vec<&str> = self.text.lines().collect();
        let found = lines.iter().enumerate().find(|&(i, line)| {
            *line == "#[cfg(test)]"
                && lines.get(i + 1).is_some_and(|next| next.starts_with("mod ") && next.ends_with('{'))
        });
        found.map_or(lines.len(), |(i, _)| i)
    }
}

/// Every text file of the repository.
#[derive(Debug, Default)]
pub struct Tree {
    /// In the order of their paths.
    pub files: Vec<File>,
}

impl Tree {
    /// A tree in memory, for the rules' own tests.
    pub fn of(files: &[(&str, &str)]) -> Self {
        Tree { files: files.iter().map(|(path, text)| File::new(path, text)).collect() }
    }

    /// Reads the repository below `root`.
    ///
    /// # Errors
    /// A folder or file can't be read.
    pub fn read(root: &Path) -> io::Result<Self> {
        let mut paths = Vec::new();
        walk(root, &mut paths)?;
        paths.sort();
        let mut files = Vec::new();
        for path in paths {
            // What is no UTF-8 is no text: images, seeds.
            let Ok(text) = String::from_utf8(fs::read(&path)?) else { continue };
            let below = path.strip_prefix(root).unwrap_or(&path);
            files.push(File::new(&below.to_string_lossy(), &text));
        }
        Ok(Tree { files })
    }

    /// The file at a path.
    pub fn file(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|file| file.path == path)
    }

    /// The Rust sources, each with its layers.
    pub fn rust(&self) -> impl Iterator<Item = (&File, &Layers)> {
        self.files.iter().filter_map(|file| Some((file, file.layers.as_ref()?)))
    }
}

fn walk(folder: &Path, into: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let kind = entry.file_type()?;
        if kind.is_dir() {
            let hidden = name.starts_with('.') && !HIDDEN.contains(&name.as_str());
            if !hidden && !SKIPPED.contains(&name.as_str()) {
                walk(&entry.path(), into)?;
            }
        } else if kind.is_file() {
            into.push(entry.path());
        }
    }
    Ok(())
}
