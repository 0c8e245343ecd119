//! Tests of permissions.
#![allow(unsafe_code, reason = "calls of the system that take and return integers")]

pub(crate) fn is_root() -> bool {
    // SAFETY: `geteuid` takes nothing and always succeeds.
    unsafe { libc::geteuid() == 0 }
}

/// Root may do everything; a child that is "nobody" may do less.
pub(crate) fn give_up_rights() {
    if is_root() {
        // SAFETY: both take an integer; "nobody" has this number everywhere that matters.
        assert_eq!(unsafe { (libc::setgid(65534), libc::setuid(65534)) }, (0, 0));
    }
}
