//! The system calls that lead around a network namespace, refused. seccomp(2).
//!
//! A network namespace covers the internet families. Not covered: other socket families (vsock reaches the hypervisor),
//! io_uring (whose requests no filter sees), pushing input into the terminal (the shell outside would execute it), and
//! the call numbers of other architectures, under which all of these return.

use std::io;

/// One rule: for a system call, the values of one argument that are let through or refused.
#[derive(Clone, Copy, Debug)]
enum Refusal {
    /// Refused whatever its arguments.
    Always { call: u32, errno: u16 },
    /// Refused unless the low 32 bits of the argument are in the list.
    Unless { call: u32, argument: u32, values: &'static [u32], errno: u16 },
    /// Refused when the low 32 bits of the argument are in the list. The kernel ignores the high bits; so must the filter.
    When { call: u32, argument: u32, values: &'static [u32], errno: u16 },
}

/// Socket families that stay: what a network namespace or the absence of capabilities already covers.
const FAMILIES: &[u32] = &[
    libc::AF_UNSPEC as u32,
    libc::AF_UNIX as u32,
    libc::AF_INET as u32,
    libc::AF_INET6 as u32,
    libc::AF_NETLINK as u32,
    libc::AF_PACKET as u32,
    libc::AF_ALG as u32,
];
/// Requests that put bytes into a terminal's input. ioctl_tty(2).
const TERMINAL_INPUT: &[u32] = &[libc::TIOCSTI as u32, libc::TIOCLINUX as u32];

const EPERM: u16 = libc::EPERM as u16;
const ENOSYS: u16 = libc::ENOSYS as u16;
const EAFNOSUPPORT: u16 = libc::EAFNOSUPPORT as u16;

const fn native_refusals() -> [Refusal; 3] {
    [
        Refusal::Unless { call: libc::SYS_socket as u32, argument: 0, values: FAMILIES, errno: EAFNOSUPPORT },
        Refusal::When { call: libc::SYS_ioctl as u32, argument: 1, values: TERMINAL_INPUT, errno: EPERM },
        Refusal::Always { call: libc::SYS_io_uring_setup as u32, errno: ENOSYS },
    ]
}

/// 32-bit x86 programs under a 64-bit kernel: the same, and `socketcall`, whose arguments a filter can't see.
#[cfg(target_arch = "x86_64")]
const FOREIGN: Option<(u32, [Refusal; 4])> = Some((
    0x4000_0003, // AUDIT_ARCH_I386
    [
        Refusal::Unless { call: 359, argument: 0, values: FAMILIES, errno: EAFNOSUPPORT },
        Refusal::When { call: 54, argument: 1, values: TERMINAL_INPUT, errno: EPERM },
        Refusal::Always { call: 425, errno: ENOSYS },
        Refusal::Always { call: 102, errno: ENOSYS },
    ],
));
#[cfg(not(target_arch = "x86_64"))]
const FOREIGN: Option<(u32, [Refusal; 4])> = None;

#[cfg(target_arch = "x86_64")]
const NATIVE: u32 = 0xc000_003e; // AUDIT_ARCH_X86_64
#[cfg(target_arch = "aarch64")]
const NATIVE: u32 = 0xc000_00b7; // AUDIT_ARCH_AARCH64

/// Installs the filter for this thread and everything it executes. `no_new_privs` must be set before.
///
/// # Errors
/// The kernel has no seccomp filters, or refuses this one; the process must not go on.
pub fn refuse_ways_around() -> io::Result<()> {
    let mut program = filter();
    let description = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: `description` points at `program`, which outlives the call; the kernel copies both.
    let failed =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const description) };
    if failed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Offsets in `struct seccomp_data`. linux/seccomp.h.
const CALL: u32 = 0;
const ARCHITECTURE: u32 = 4;
const fn low_half(argument: u32) -> u32 {
    16 + 8 * argument + if cfg!(target_endian = "big") { 4 } else { 0 }
}

fn filter() -> Vec<libc::sock_filter> {
    let mut native = Vec::new();
    if cfg!(target_arch = "x86_64") {
        // The x32 call numbers carry bit 30.
        native.push(jump(libc::BPF_JGE, 0x4000_0000, 0, 1));
        native.push(refuse(ENOSYS));
    }
    native_refusals().iter().for_each(|refusal| append(&mut native, refusal));
    native.push(allow());

    let mut program = vec![load(ARCHITECTURE)];
    section(&mut program, NATIVE, native);
    if let Some((architecture, refusals)) = FOREIGN {
        let mut foreign = Vec::new();
        refusals.iter().for_each(|refusal| append(&mut foreign, refusal));
        foreign.push(allow());
        section(&mut program, architecture, foreign);
    }
    program.push(refuse(ENOSYS));
    program
}

/// `body` runs when the architecture (already loaded) is this one; it ends in a return on every path.
fn section(program: &mut Vec<libc::sock_filter>, architecture: u32, mut body: Vec<libc::sock_filter>) {
    body.insert(0, load(CALL));
    let skip = u8::try_from(body.len()).unwrap_or(u8::MAX);
    program.push(jump(libc::BPF_JEQ, architecture, 0, skip));
    program.append(&mut body);
}

/// Appends the check of one call; falls through with the call number loaded when the call is another one.
fn append(body: &mut Vec<libc::sock_filter>, refusal: &Refusal) {
    match *refusal {
        Refusal::Always { call, errno } => {
            body.push(jump(libc::BPF_JEQ, call, 0, 1));
            body.push(refuse(errno));
        }
        Refusal::Unless { call, argument, values, errno } => {
            argument_check(body, call, (argument, values), (refuse(errno), allow()));
        }
        Refusal::When { call, argument, values, errno } => {
            argument_check(body, call, (argument, values), (allow(), refuse(errno)));
        }
    }
}

fn argument_check(
    body: &mut Vec<libc::sock_filter>,
    call: u32,
    (argument, values): (u32, &[u32]),
    (otherwise, listed): (libc::sock_filter, libc::sock_filter),
) {
    let count = u8::try_from(values.len()).unwrap_or(u8::MAX);
    body.push(jump(libc::BPF_JEQ, call, 0, count + 3));
    body.push(load(low_half(argument)));
    for (index, value) in (0u8..).zip(values) {
        body.push(jump(libc::BPF_JEQ, *value, count - index, 0));
    }
    body.push(otherwise);
    body.push(listed);
}

fn load(offset: u32) -> libc::sock_filter {
    statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset)
}

fn jump(test: u32, value: u32, when_true: u8, when_false: u8) -> libc::sock_filter {
    libc::sock_filter {
        jt: when_true,
        jf: when_false,
        ..statement(libc::BPF_JMP | test | libc::BPF_K, value)
    }
}

fn refuse(errno: u16) -> libc::sock_filter {
    statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | u32::from(errno))
}

fn allow() -> libc::sock_filter {
    statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW)
}

fn statement(code: u32, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

#[cfg(test)]
mod tests;
