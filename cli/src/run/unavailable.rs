//! Why the command could not be set up, and the exact command that mends it.

use std::fs;

use rustix::io::Errno;

use super::{channel::Step, outside::Unprepared};

/// What this machine says of itself, as far as it bears on namespaces.
#[derive(Clone, Debug, Default)]
pub(super) struct Surroundings {
    /// `kernel.apparmor_restrict_unprivileged_userns` is 1 (Ubuntu 23.10 and later).
    apparmor_restricts: bool,
    /// `kernel.unprivileged_userns_clone` is 0 (Debian before 11, some hardened kernels).
    clone_forbidden: bool,
    /// `user.max_user_namespaces` is 0.
    none_left: bool,
    /// Inside a container.
    contained: bool,
    /// A seccomp filter is already active.
    filtered: bool,
    /// Root without the capability to map itself into another user namespace, as inside another `sidegate run`.
    powerless_root: bool,
}

/// CAP_SETFCAP. Who maps root must have it. user_namespaces(7), Linux 5.12.
const SETFCAP: u32 = 31;

impl Surroundings {
    /// Looks.
    pub(super) fn look() -> Self {
        let is = |path: &str, value: &str| fs::read_to_string(path).is_ok_and(|text| text.trim() == value);
        let exists = |path: &str| fs::exists(path).unwrap_or(false);
        let own = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let field = |name: &str| own.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let capabilities = field("CapEff:").and_then(|mask| u64::from_str_radix(mask, 16).ok());
        Surroundings {
            apparmor_restricts: is("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1"),
            clone_forbidden: is("/proc/sys/kernel/unprivileged_userns_clone", "0"),
            none_left: is("/proc/sys/user/max_user_namespaces", "0"),
            contained: exists("/.dockerenv") || exists("/run/.containerenv"),
            filtered: field("Seccomp:") == Some("2"),
            powerless_root: rustix::process::geteuid().is_root()
                && capabilities.is_some_and(|mask| mask & 1 << SETFCAP == 0),
        }
    }
}

/// Cause and remedy in a few lines.
pub(super) fn explain(failure: &Unprepared, around: &Surroundings) -> String {
    let what = match failure.step {
        Step::Unshare => "new user, network, mount and PID namespaces",
        Step::Network => "the network of the command",
        Step::Redirect => "the redirect rules",
        Step::Listeners => "the proxy's listeners",
        Step::Mounts | Step::Proc => "the command's view of files",
        Step::Confine => "giving up capabilities",
        Step::Start => "starting the command",
    };
    let (cause, remedy) = cause(failure, around);
    format!(
        "sidegate: not possible here: {what}: {}\n  cause:  {cause}\n  remedy: {remedy}\n",
        failure.message
    )
}

fn cause(failure: &Unprepared, around: &Surroundings) -> (&'static str, &'static str) {
    let refused = [Errno::PERM, Errno::ACCESS].iter().any(|errno| errno.raw_os_error() == failure.errno);
    let full = [Errno::NOSPC, Errno::USERS].iter().any(|errno| errno.raw_os_error() == failure.errno);
    if failure.step == Step::Redirect && !refused {
        return (
            "the kernel lacks nftables or one of its parts",
            "sudo modprobe -a nf_tables nft_redir nft_chain_nat nft_fib_inet nf_log_syslog",
        );
    }
    if full || around.none_left {
        return (
            "the limit of user namespaces is reached or 0",
            "sudo sysctl -w user.max_user_namespaces=15000",
        );
    }
    if around.clone_forbidden {
        return (
            "the kernel forbids user namespaces to ordinary users",
            "sudo sysctl -w kernel.unprivileged_userns_clone=1",
        );
    }
    if around.apparmor_restricts && refused {
        return (
            "AppArmor restricts user namespaces of ordinary users (Ubuntu 23.10 and later)",
            "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or install an AppArmor profile for sidegate with `userns,`",
        );
    }
    if refused && around.powerless_root {
        return (
            "root without CAP_SETFCAP may not map itself into a new user namespace, as inside another `sidegate run`",
            "run the outer one as an ordinary user, or the inner command without `sidegate run`: the outer policy holds for it",
        );
    }
    if refused && (around.contained || around.filtered) {
        return (
            "the container's seccomp profile forbids unshare(2)",
            "docker run --security-opt seccomp=unconfined --security-opt apparmor=unconfined ... (podman: the same), or run Sidegate as a sidecar",
        );
    }
    ("the kernel refused", "see docs/run.md, section \"Where it runs\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(step: Step, errno: Errno, around: &Surroundings) -> String {
        explain(&Unprepared { step, errno: errno.raw_os_error(), message: errno.to_string() }, around)
    }

    #[test]
    fn each_obstacle_is_told_with_its_own_remedy() {
        let none = Surroundings::default();
        let ubuntu = Surroundings { apparmor_restricts: true, ..none.clone() };
        let docker = Surroundings { contained: true, filtered: true, ..none.clone() };
        let debian = Surroundings { clone_forbidden: true, ..none.clone() };
        assert!(told(Step::Unshare, Errno::NOSPC, &none).contains("max_user_namespaces"));
        // Ubuntu lets the namespace be made and refuses what follows.
        assert!(
            told(Step::Network, Errno::PERM, &ubuntu).contains("apparmor_restrict_unprivileged_userns=0")
        );
        assert!(told(Step::Unshare, Errno::PERM, &docker).contains("seccomp=unconfined"));
        assert!(told(Step::Unshare, Errno::PERM, &debian).contains("unprivileged_userns_clone=1"));
        let nested = Surroundings { powerless_root: true, filtered: true, ..none.clone() };
        assert!(told(Step::Unshare, Errno::PERM, &nested).contains("the outer policy holds"));
        assert!(told(Step::Redirect, Errno::NOENT, &none).contains("modprobe"));
    }
}
