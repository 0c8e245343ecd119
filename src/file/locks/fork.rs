//! What a fork must not inherit: locks.
//!
//! A forked child shares the open files of its parent, and with them their locks, which would outlive the parent in the
//! child. So the child replaces the descriptor that holds the locks by a duplicate of the data's descriptor, which
//! holds none. The store must not be used in the child: half of its state (threads, lock owners) stayed in the parent.
//! A *generation* that the child raises tells.

#[cfg(unix)]
pub(crate) use unix::{generation, guarded};
#[cfg(not(unix))]
pub(crate) use without::{generation, guarded};

#[cfg(unix)]
#[allow(unsafe_code)]
mod unix {
    use std::cell::UnsafeCell;
    use std::fs::File;
    use std::os::fd::{AsRawFd, RawFd};
    use std::sync::Once;
    use std::sync::atomic::{AtomicU64, Ordering};

    static GENERATION: AtomicU64 = AtomicU64::new(0);

    /// How often this process and its ancestors were forked since the first store was opened.
    #[inline(always)]
    pub(crate) fn generation() -> u64 {
        GENERATION.load(Ordering::Relaxed)
    }

    /// The descriptors of all openings: of the locks, and of the data.
    #[derive(Default)]
    pub(crate) struct Openings(Vec<(RawFd, RawFd)>);

    impl Openings {
        pub(crate) fn add(&mut self, locks: &File, data: &File) {
            self.0.push((locks.as_raw_fd(), data.as_raw_fd()));
        }

        pub(crate) fn remove(&mut self, locks: &File) {
            self.0.retain(|&(fd, _)| fd != locks.as_raw_fd());
        }
    }

    /// A list with a lock that is taken before a fork and given back after it, in the child too. Only the system's own
    /// mutex allows that.
    struct Guarded {
        mutex: UnsafeCell<libc::pthread_mutex_t>,
        openings: UnsafeCell<Openings>,
    }

    // SAFETY: any thread may use the mutex, and only its holder touches the list.
    unsafe impl Sync for Guarded {}

    static GUARDED: Guarded = Guarded {
        mutex: UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER),
        openings: UnsafeCell::new(Openings(Vec::new())),
    };

    extern "C" fn lock() {
        // SAFETY: the mutex is static and initialised, and no thread takes it twice: `guarded` calls nothing that
        // forks.
        unsafe { libc::pthread_mutex_lock(GUARDED.mutex.get()) };
    }

    extern "C" fn unlock() {
        // SAFETY: only called by the thread that has called `lock`, or its copy in the child.
        unsafe { libc::pthread_mutex_unlock(GUARDED.mutex.get()) };
    }

    /// The child has one thread, and may do only what a signal handler may: no memory is allocated.
    extern "C" fn in_child() {
        // SAFETY: this thread, when it was the parent's, has taken the mutex before the fork.
        for &(locks, data) in unsafe { &(*GUARDED.openings.get()).0 } {
            // SAFETY: both are descriptors that are open, since an opening is removed from the list before it closes
            // them.
            unsafe {
                libc::dup2(data, locks);
                libc::fcntl(locks, libc::F_SETFD, libc::FD_CLOEXEC);
            }
        }
        GENERATION.fetch_add(1, Ordering::Relaxed);
        unlock();
    }

    /// Works on the list while no other thread forks.
    pub(crate) fn guarded<R>(work: impl FnOnce(&mut Openings) -> R) -> R {
        static HANDLERS: Once = Once::new();
        // SAFETY: the functions are static and do only what is allowed around a fork.
        HANDLERS.call_once(|| unsafe {
            libc::pthread_atfork(Some(lock), Some(unlock), Some(in_child));
        });

        struct Unlock;
        impl Drop for Unlock {
            fn drop(&mut self) {
                unlock();
            }
        }
        lock();
        let _unlock = Unlock;
        // SAFETY: this thread holds the mutex, so there is no other reference into the list.
        work(unsafe { &mut *GUARDED.openings.get() })
    }
}

/// Where there is no fork.
#[cfg(not(unix))]
mod without {
    use std::fs::File;

    #[inline(always)]
    pub(crate) fn generation() -> u64 {
        0
    }

    pub(crate) struct Openings;

    impl Openings {
        pub(crate) fn add(&mut self, _locks: &File, _data: &File) {}

        pub(crate) fn remove(&mut self, _locks: &File) {}
    }

    pub(crate) fn guarded<R>(work: impl FnOnce(&mut Openings) -> R) -> R {
        work(&mut Openings)
    }
}
