//! The witness: a test's hook on everything that changes the file, and on every call that can fail.
//!
//! Other builds have none of this: [`call`] always agrees, and the compiler removes it.

use std::fs::File;
use std::io;

/// A call to the operating system that can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// Real space for a range of the file.
    Allocate,
    /// Another length of the file.
    Truncate,
    /// The length of the file asked for.
    Length,
    /// A mapping.
    Map,
    /// A range made durable.
    Flush,
    /// Writing back begun, or waited for.
    WriteBack,
    /// Bytes written without the mapping.
    Append,
    /// A lock taken, given back or asked for.
    Lock,
    /// A memory barrier in all threads.
    #[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "the call is that of Linux"))]
    Barrier,
    /// A file given its final name.
    Rename,
    /// The entries of a folder made durable.
    #[cfg_attr(not(unix), allow(dead_code, reason = "folders cannot be flushed there"))]
    Folder,
}

/// Asks whether to make this call. A test may make it fail.
#[cfg(not(test))]
#[inline(always)]
pub(crate) fn call(_call: Call) -> io::Result<()> {
    Ok(())
}

/// The same for real space for a range of this file that ends at `to`.
#[cfg(not(test))]
#[inline(always)]
pub(crate) fn allocate(_file: &File, _to: u64) -> io::Result<()> {
    call(Call::Allocate)
}

// The loom models do not use these.
#[cfg(all(test, not(loom)))]
pub(crate) use standing::{FullDisk, stand};
#[cfg(test)]
pub(crate) use standing::{Recorder, allocate, call, recorder};

#[cfg(test)]
mod standing {
    use std::cell::RefCell;
    use std::sync::Arc;

    use super::*;

    /// Sees every change of the file before it happens. A test uses it to know what a power cut could leave.
    pub(crate) trait Recorder: Send + Sync {
        fn write(&self, _offset: u64, _bytes: &[u8]) {}
        fn store(&self, _offset: u64, _value: u64) {}
        /// The range has to be durable when this returns. While there is a recorder, nothing else flushes.
        fn flush(&self, _offset: u64, _len: u64) -> io::Result<()> {
            Ok(())
        }
        fn set_len(&self, _len: u64) {}
        /// A call is about to be made.
        fn call(&self, _call: Call) -> io::Result<()> {
            Ok(())
        }
        /// Real space is about to be allocated for a range of this file that ends at `to`.
        fn allocate(&self, _file: &File, _to: u64) -> io::Result<()> {
            self.call(Call::Allocate)
        }
    }

    thread_local! {
        static STANDING: RefCell<Option<Arc<dyn Recorder>>> = const { RefCell::new(None) };
    }

    /// As long as this lives, the recorder is asked about all calls of this thread, and every mapping that the thread
    /// makes of a file to write to gets it.
    #[cfg(not(loom))]
    pub(crate) struct Standing(());

    #[cfg(not(loom))]
    impl Drop for Standing {
        fn drop(&mut self) {
            STANDING.set(None);
        }
    }

    /// Says that the disk is full, but lets a file without holes allocate again the space that it has.
    #[cfg(not(loom))]
    pub(crate) struct FullDisk;

    #[cfg(not(loom))]
    impl Recorder for FullDisk {
        fn allocate(&self, file: &File, to: u64) -> io::Result<()> {
            let found = file.metadata()?;
            let is_there = to <= found.len() && !may_have_holes(&found);
            if is_there { Ok(()) } else { Err(io::ErrorKind::StorageFull.into()) }
        }
    }

    #[cfg(all(unix, not(loom)))]
    fn may_have_holes(found: &std::fs::Metadata) -> bool {
        use std::os::unix::fs::MetadataExt;
        found.blocks() * 512 < found.len()
    }

    #[cfg(all(not(unix), not(loom)))]
    fn may_have_holes(_found: &std::fs::Metadata) -> bool {
        true
    }

    #[cfg(not(loom))]
    pub(crate) fn stand(recorder: Arc<dyn Recorder>) -> Standing {
        STANDING.set(Some(recorder));
        Standing(())
    }

    /// The recorder of this thread.
    pub(crate) fn recorder() -> Option<Arc<dyn Recorder>> {
        STANDING.with_borrow(Option::clone)
    }

    pub(crate) fn call(call: Call) -> io::Result<()> {
        recorder().map_or(Ok(()), |recorder| recorder.call(call))
    }

    pub(crate) fn allocate(file: &File, to: u64) -> io::Result<()> {
        recorder().map_or(Ok(()), |recorder| recorder.allocate(file, to))
    }
}
