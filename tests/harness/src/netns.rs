//! One network namespace.

use std::{
    fs::File,
    io,
    os::fd::AsFd,
    panic::resume_unwind,
    process::{Command, Stdio},
    thread,
};

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

/// A network namespace with `lo` up, alive as long as this value or a socket in it.
#[derive(Debug)]
pub struct Netns {
    file: File,
}

impl Netns {
    /// A fresh one.
    ///
    /// # Panics
    /// The caller is not root in its user namespace; see [`crate::main`].
    pub fn new() -> Netns {
        let made = thread::spawn(|| {
            unshare(UnshareFlags::NEWNET).expect("a network namespace");
            ip("link set lo up");
            File::open("/proc/thread-self/ns/net").expect("the namespace's file")
        });
        Netns { file: made.join().unwrap_or_else(|panic| resume_unwind(panic)) }
    }

    /// Calls `work` on a thread inside. Sockets that it makes belong to the namespace for good.
    pub fn run<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network))
                    .expect("to enter");
                work()
            });
            inside.join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    /// The namespace of the calling thread.
    pub fn current() -> Netns {
        Netns { file: File::open("/proc/thread-self/ns/net").expect("the namespace's file") }
    }
}

impl Default for Netns {
    fn default() -> Self {
        Netns::new()
    }
}

/// Runs `ip` (iproute2) with these words in the caller's namespace.
///
/// # Panics
/// It fails, or is not installed.
pub fn ip(words: &str) {
    let status = Command::new("ip")
        .args(words.split(' '))
        .stdin(Stdio::null())
        .status()
        .expect("iproute2 is installed");
    assert!(status.success(), "ip {words}: {status}");
}

/// Feeds `rules` to `nft -f -` in the caller's namespace, one transaction.
///
/// # Panics
/// It fails, or is not installed.
pub fn nft(rules: &str) -> String {
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("nftables is installed");
    io::Write::write_all(&mut child.stdin.take().expect("piped"), rules.as_bytes()).expect("nft reads");
    let output = child.wait_with_output().expect("nft ends");
    assert!(output.status.success(), "nft: {rules}");
    String::from_utf8(output.stdout).expect("nft prints UTF-8")
}

/// Runs a Python program in the caller's namespace and yields what it printed.
///
/// # Panics
/// It fails, or Python is not installed.
pub fn python(program: &str) -> String {
    let output = Command::new("python3")
        .args(["-c", program])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .expect("Python is installed");
    assert!(output.status.success(), "python: {program}");
    String::from_utf8(output.stdout).expect("it prints UTF-8")
}

pub(crate) fn unshare(flags: UnshareFlags) -> io::Result<()> {
    // The descriptor table, which is what the deprecation is about, is never unshared here.
    #[allow(deprecated, reason = "its replacement is unsafe only for UnshareFlags::FILES")]
    Ok(rustix::thread::unshare(flags)?)
}
