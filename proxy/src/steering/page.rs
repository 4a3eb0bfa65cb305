//! Maps BPF arrays into memory; the only file of the proxy with unsafe code.
#![expect(unsafe_code, reason = "mmap returns a raw pointer, and no safe crate wraps it for BPF arrays")]

use std::io;
use std::ops::Deref;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::ptr::{NonNull, null_mut};

use mvproxy_common::SharedCells;

/// A slice of cells that lives in a BPF array, or on the heap where there is no kernel side.
#[derive(Debug)]
pub(super) enum Page<T: SharedCells> {
    /// Memory of a `BPF_F_MMAPABLE` array.
    Mapped(Mapping<T>),
    /// Memory of this process alone.
    Heap(Box<[T]>),
}

impl<T: SharedCells> Page<T> {
    /// Maps the whole array behind `map`.
    ///
    /// # Errors
    ///
    /// What mmap returns, such as EPERM for an array without `BPF_F_MMAPABLE` and EINVAL for one that is
    /// shorter than `len` cells.
    pub(super) fn map(map: BorrowedFd<'_>, len: usize) -> io::Result<Self> {
        Mapping::new(map, len).map(Self::Mapped)
    }

    /// Zeroed cells without a kernel side.
    pub(super) fn heap(len: usize) -> Self
    where
        T: Default,
    {
        Self::Heap((0..len).map(|_| T::default()).collect())
    }
}

impl<T: SharedCells> Deref for Page<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match self {
            // SAFETY: `start` points to `len` cells until `self` is dropped; any bytes are valid cells, and
            // the kernel and other processes only access them the way atomics allow (see SharedCells).
            Self::Mapped(mapping) => unsafe {
                std::slice::from_raw_parts(mapping.start.as_ptr(), mapping.len)
            },
            Self::Heap(cells) => cells,
        }
    }
}

/// A shared mapping of `len` cells, unmapped on drop.
#[derive(Debug)]
pub(super) struct Mapping<T> {
    start: NonNull<T>,
    len: usize,
}

impl<T: SharedCells> Mapping<T> {
    fn new(map: BorrowedFd<'_>, len: usize) -> io::Result<Self> {
        const { assert!(size_of::<T>().is_multiple_of(8), "BPF arrays have a stride of 8") };
        // SAFETY: a new mapping at an address the kernel chooses touches no existing memory; the descriptor
        // is open for the duration of the call and the mapping outlives it by design.
        let start = unsafe {
            libc::mmap(
                null_mut(),
                len * size_of::<T>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                map.as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // A mapping starts at a page boundary, which aligns every cell type.
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::from_raw_os_error(libc::EFAULT))?;
        Ok(Self { start, len })
    }
}

impl<T> Drop for Mapping<T> {
    fn drop(&mut self) {
        // SAFETY: the very range that `new` mapped; references into it borrow from `self` and are gone.
        // Unmapping a valid range cannot fail, so the result says nothing.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len * size_of::<T>()) };
    }
}

// SAFETY: the mapping belongs to the process, not to a thread, and cells are atomics (SharedCells: Sync).
unsafe impl<T: SharedCells> Send for Mapping<T> {}
// SAFETY: as above.
unsafe impl<T: SharedCells> Sync for Mapping<T> {}
