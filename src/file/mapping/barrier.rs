//! A memory barrier in other threads.

#[cfg(target_os = "linux")]
use crate::file::witness::{self, Call};

/// Registers this process: its running threads execute a barrier when any process asks for one. `false` if the system
/// does not offer that.
#[cfg(target_os = "linux")]
pub(crate) fn register() -> bool {
    /// From `linux/membarrier.h`; Linux 4.16.
    const REGISTER_GLOBAL_EXPEDITED: libc::c_int = 1 << 2;
    membarrier(REGISTER_GLOBAL_EXPEDITED)
}

/// Makes every running thread of every registered process execute a full memory barrier before this returns. A thread
/// that is not running executes one when it is switched to.
#[cfg(target_os = "linux")]
pub(crate) fn everywhere() -> bool {
    /// From `linux/membarrier.h`.
    const GLOBAL_EXPEDITED: libc::c_int = 1 << 1;
    witness::call(Call::Barrier).is_ok() && membarrier(GLOBAL_EXPEDITED)
}

#[cfg(target_os = "linux")]
fn membarrier(command: libc::c_int) -> bool {
    // SAFETY: the call takes integers only.
    unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) == 0 }
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn register() -> bool {
    false
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn everywhere() -> bool {
    false
}
