//! The command's private view of files: a `resolv.conf` that fits its network, closed sockets and devices, its own `/proc`.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use rustix::{
    fs::StatVfsMountFlags,
    mount::{MountFlags, MountPropagationFlags, UnmountFlags},
};

/// Devices that reach other machines without the network namespace having a say.
const CLOSED_DEVICES: [&str; 2] = ["/dev/infiniband", "/dev/vhost-vsock"];

/// Empty directories where a scratch file system may stand for a moment.
const SCRATCH: [&str; 7] = ["/mnt", "/media", "/srv", "/opt", "/var/tmp", "/home", "/tmp"];

/// Makes the view: to be called in a mount namespace of one's own.
///
/// # Errors
/// The kernel refuses a mount.
pub(super) fn arrange(sockets: &[PathBuf]) -> io::Result<()> {
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    let devices = CLOSED_DEVICES.iter().map(PathBuf::from).filter(|path| path.exists());
    let closed: Vec<PathBuf> = sockets.iter().cloned().chain(devices).collect();
    let resolv_conf = fs::canonicalize("/etc/resolv.conf").ok();

    let scratch = Scratch::mount(closed.iter().chain(&resolv_conf))?;
    let void_file = scratch.file("void", 0o000, "")?;
    let void_directory = scratch.directory("void.d")?;
    for path in &closed {
        let void = if path.is_dir() { &void_directory } else { &void_file };
        match rustix::mount::mount_bind(void, path) {
            // A socket that is gone by now needs no closing.
            Err(rustix::io::Errno::NOENT) => {}
            other => other?,
        }
    }
    if let Some(target) = resolv_conf {
        let text = fs::read_to_string(&target).unwrap_or_default();
        let ours = scratch.file("resolv.conf", 0o644, &resolver_file(&text))?;
        rustix::mount::mount_bind(&ours, &target)?;
    }
    Ok(())
}

/// Mounts the `/proc` of the caller's PID namespace.
///
/// # Errors
/// `EPERM` where parts of the present `/proc` are masked, as in most containers.
pub(super) fn own_proc() -> io::Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    Ok(rustix::mount::mount("proc", "/proc", "proc", flags, None)?)
}

/// Makes one file read-only in this view: it can be neither written, shortened, renamed nor removed through its path, and
/// no second name of it can be made. Without capabilities the mount can't be undone.
///
/// # Errors
/// The kernel refuses a mount.
pub(super) fn protect(file: &Path) -> io::Result<()> {
    rustix::mount::mount_bind(file, file)?;
    // Flags that a remount must repeat: a less privileged namespace may not take them away.
    let has = rustix::fs::statvfs(file)?.f_flag;
    let flags = [
        (StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
        (StatVfsMountFlags::NODEV, MountFlags::NODEV),
        (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
        (StatVfsMountFlags::NOATIME, MountFlags::NOATIME),
        (StatVfsMountFlags::NODIRATIME, MountFlags::NODIRATIME),
        (StatVfsMountFlags::RELATIME, MountFlags::RELATIME),
    ];
    let kept = flags.into_iter().filter(|(there, _)| has.contains(*there)).map(|(_, flag)| flag);
    let flags = kept.collect::<MountFlags>() | MountFlags::BIND | MountFlags::RDONLY;
    Ok(rustix::mount::mount_remount(file, flags, "")?)
}

/// Kernel settings that are no part of any namespace the command has. Their files belong to root: a command that runs as
/// root could write them without any capability (proc(5), core(5)).
const KERNEL_SETTINGS: [&str; 4] = ["/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus"];

/// Makes kernel settings read-only, and everything mounted at or below `/sys`.
///
/// # Errors
/// The kernel refuses a mount.
pub(super) fn seal_kernel_settings() -> io::Result<()> {
    for path in KERNEL_SETTINGS.iter().map(Path::new).filter(|path| path.exists()) {
        rustix::mount::mount_bind_recursive(path, path)?;
    }
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    for mount in table.lines().filter_map(Mounted::parse) {
        let sealed =
            mount.at.starts_with("/sys") || KERNEL_SETTINGS.iter().any(|path| mount.at.starts_with(path));
        if sealed {
            let flags = mount.flags | MountFlags::BIND | MountFlags::RDONLY;
            match rustix::mount::mount_remount(&mount.at, flags, "") {
                // Hidden below a later mount, or out of this user's sight.
                Err(rustix::io::Errno::NOENT | rustix::io::Errno::INVAL | rustix::io::Errno::ACCESS) => {}
                other => other?,
            }
        }
    }
    Ok(())
}

/// One line of `/proc/self/mountinfo`: where, and the flags that a remount must repeat. proc_pid_mountinfo(5).
#[derive(Debug, PartialEq, Eq)]
struct Mounted {
    at: PathBuf,
    flags: MountFlags,
}

impl Mounted {
    fn parse(line: &str) -> Option<Mounted> {
        let mut fields = line.split(' ').skip(4);
        let at = fields.next()?.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\");
        let flags = fields.next()?.split(',').map(|option| match option {
            "nosuid" => MountFlags::NOSUID,
            "nodev" => MountFlags::NODEV,
            "noexec" => MountFlags::NOEXEC,
            "noatime" => MountFlags::NOATIME,
            "nodiratime" => MountFlags::NODIRATIME,
            "relatime" => MountFlags::RELATIME,
            _ => MountFlags::empty(),
        });
        Some(Mounted { at: at.into(), flags: flags.collect() })
    }
}

/// The system's file with the one nameserver that the command needs: every question on port 53 comes to the proxy.
fn resolver_file(system: &str) -> String {
    let mut text = String::from("nameserver 127.0.0.1\n");
    for line in system.lines() {
        if !line.trim_start().starts_with("nameserver") && !line.starts_with(['#', ';']) {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

/// A small file system in memory, unmounted when dropped; what was bound elsewhere from it stays.
struct Scratch {
    place: &'static Path,
}

impl Scratch {
    /// Mounts it on a directory that hides none of `targets`.
    fn mount<'a>(targets: impl Iterator<Item = &'a PathBuf>) -> io::Result<Scratch> {
        let targets: Vec<&PathBuf> = targets.collect();
        let place = SCRATCH
            .iter()
            .map(Path::new)
            .find(|place| place.is_dir() && !targets.iter().any(|target| target.starts_with(place)))
            .ok_or_else(|| {
                io::Error::new(io::ErrorKind::NotFound, "no directory for a scratch file system")
            })?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        rustix::mount::mount("sidegate", place, "tmpfs", flags, Some(c"mode=0755,size=64k"))?;
        Ok(Scratch { place })
    }

    fn file(&self, name: &str, mode: u32, text: &str) -> io::Result<PathBuf> {
        let path = self.place.join(name);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&path)?;
        file.write_all(text.as_bytes())?;
        Ok(path)
    }

    fn directory(&self, name: &str) -> io::Result<PathBuf> {
        use std::os::unix::fs::DirBuilderExt;
        let path = self.place.join(name);
        fs::DirBuilder::new().mode(0o000).create(&path)?;
        Ok(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Nothing depends on it: the namespace ends with the command.
        let _ = rustix::mount::unmount(self.place, UnmountFlags::DETACH);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_resolver_file_keeps_search_and_options() {
        let system =
            "# made by hand\nnameserver 10.0.0.2\nsearch corp.example\noptions ndots:2\n nameserver ::1\n";
        assert_eq!(resolver_file(system), "nameserver 127.0.0.1\nsearch corp.example\noptions ndots:2\n");
    }
}
