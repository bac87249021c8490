//! The filter, run by a small interpreter over made-up calls.

use super::*;

/// Runs the filter over `struct seccomp_data`; `None`: allowed, `Some(errno)`: refused.
fn judge(architecture: u32, call: u32, arguments: [u64; 6]) -> Option<u32> {
    let program = filter();
    let word = |offset: u32| match offset {
        CALL => call,
        ARCHITECTURE => architecture,
        offset => (arguments[(offset as usize - 16) / 8] >> if offset % 8 == 4 { 32 } else { 0 }) as u32,
    };
    let (mut at, mut loaded) = (0usize, 0u32);
    loop {
        let step = program[at];
        at += 1;
        let code = u32::from(step.code);
        match code & 0x07 {
            libc::BPF_LD => loaded = word(step.k),
            libc::BPF_JMP => {
                let holds = if code & 0xf0 == libc::BPF_JGE { loaded >= step.k } else { loaded == step.k };
                at += usize::from(if holds { step.jt } else { step.jf });
            }
            libc::BPF_RET if step.k == libc::SECCOMP_RET_ALLOW => return None,
            libc::BPF_RET => return Some(step.k & 0xffff),
            other => panic!("class {other}"),
        }
    }
}

fn native(call: libc::c_long, first: u64, second: u64) -> Option<u32> {
    judge(NATIVE, call as u32, [first, second, 0, 0, 0, 0])
}

#[test]
fn families_that_a_network_namespace_covers_stay() {
    for family in [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK] {
        assert_eq!(native(libc::SYS_socket, family as u64, 1), None, "family {family}");
    }
}

#[test]
fn every_other_family_is_refused() {
    for family in (0..64).filter(|family| !FAMILIES.contains(family)) {
        assert_eq!(
            native(libc::SYS_socket, family.into(), 1),
            Some(libc::EAFNOSUPPORT as u32),
            "family {family}"
        );
    }
    assert_eq!(native(libc::SYS_socket, libc::AF_VSOCK as u64 | 1 << 32, 1), Some(libc::EAFNOSUPPORT as u32));
}

#[test]
fn terminal_input_is_refused_also_with_high_bits_set() {
    for request in [libc::TIOCSTI, libc::TIOCSTI | 1 << 32, libc::TIOCLINUX] {
        assert_eq!(native(libc::SYS_ioctl, 0, request), Some(libc::EPERM as u32), "request {request:#x}");
    }
    assert_eq!(native(libc::SYS_ioctl, 0, libc::TIOCGWINSZ), None);
}

#[test]
fn io_uring_is_absent_and_other_calls_pass() {
    assert_eq!(native(libc::SYS_io_uring_setup, 8, 0), Some(libc::ENOSYS as u32));
    for call in [libc::SYS_read, libc::SYS_connect, libc::SYS_execve, libc::SYS_unshare, libc::SYS_ptrace] {
        assert_eq!(native(call, 0, 0), None, "call {call}");
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn foreign_call_numbers_open_nothing() {
    let x32 = 0x4000_0000 | libc::SYS_socket as u32;
    assert_eq!(judge(NATIVE, x32, [40, 1, 0, 0, 0, 0]), Some(libc::ENOSYS as u32));
    let i386 = 0x4000_0003;
    assert_eq!(judge(i386, 359, [40, 1, 0, 0, 0, 0]), Some(libc::EAFNOSUPPORT as u32));
    assert_eq!(judge(i386, 359, [2, 1, 0, 0, 0, 0]), None);
    assert_eq!(judge(i386, 102, [1, 0, 0, 0, 0, 0]), Some(libc::ENOSYS as u32));
    assert_eq!(
        judge(0x4000_0028, 281, [2, 1, 0, 0, 0, 0]),
        Some(libc::ENOSYS as u32),
        "an unknown architecture"
    );
}
