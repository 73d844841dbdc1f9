//! Mmapped array maps as shared memory: how endpoint changes reach the programs without a system
//! call.
//!
//! The kernel lays an mmapable array out as its elements, each rounded up to 8 bytes. Every layout
//! of such a map is a whole number of 64-bit words, so the memory is a slice of [`AtomicU64`]: no
//! data race is undefined here, and the order that matters is the one of [`Memory::publish`].

use std::{
    ffi::c_void,
    io,
    marker::PhantomData,
    mem::size_of,
    num::NonZeroUsize,
    ops::Deref,
    os::fd::AsFd,
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
};

#[cfg(test)]
use nix::sys::mman::mmap_anonymous;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Types that fill whole words of an mmapped array.
pub(crate) trait Element: FromBytes + IntoBytes + Immutable + Copy {
    /// Words of one element.
    const WORDS: usize = {
        assert!(size_of::<Self>() > 0 && size_of::<Self>().is_multiple_of(8));
        size_of::<Self>() / 8
    };
}

impl<T: FromBytes + IntoBytes + Immutable + Copy> Element for T {}

/// An array map seen for reading.
pub(crate) struct View<T> {
    start: NonNull<c_void>,
    bytes: NonZeroUsize,
    elements: u32,
    element: PhantomData<T>,
}

// SAFETY: the mapping is owned, lives until drop, and is only reached through atomic words.
unsafe impl<T> Send for View<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for View<T> {}

impl<T: Element> View<T> {
    /// Maps all `elements` of the array map `map` for reading.
    ///
    /// # Errors
    /// Those of mmap(2); `EINVAL` for an empty map.
    pub(crate) fn of_map(map: impl AsFd, elements: u32) -> io::Result<Self> {
        Self::map_file(map, elements, ProtFlags::PROT_READ)
    }

    fn map_file(map: impl AsFd, elements: u32, protection: ProtFlags) -> io::Result<Self> {
        let bytes = byte_len::<T>(elements)?;
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing of ours; the
        // kernel checks the length against the size of the map.
        let start = unsafe { mmap(None, bytes, protection, MapFlags::MAP_SHARED, map, 0)? };
        Ok(Self { start, bytes, elements, element: PhantomData })
    }

    /// Number of elements.
    pub(crate) const fn len(&self) -> u32 {
        self.elements
    }

    /// Reads an element; `None` beyond the end. What was written before a [`Memory::publish`] of
    /// the element's first word is seen with it.
    pub(crate) fn get(&self, index: u32) -> Option<T> {
        let (first, rest) = self.words(index)?.split_first()?;
        let mut value = T::new_zeroed();
        let (head, tail) = value.as_mut_bytes().split_at_mut(8);
        head.copy_from_slice(&first.load(Ordering::Acquire).to_ne_bytes());
        for (bytes, word) in tail.chunks_exact_mut(8).zip(rest) {
            bytes.copy_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes());
        }
        Some(value)
    }

    fn words(&self, index: u32) -> Option<&[AtomicU64]> {
        // SAFETY: the mapping holds `elements * WORDS` words for as long as `self` lives, is
        // aligned to a page, and any bits are a valid AtomicU64. Others, the kernel's programs
        // too, change it word by word only.
        let all = unsafe {
            std::slice::from_raw_parts(
                self.start.as_ptr().cast::<AtomicU64>(),
                self.elements as usize * T::WORDS,
            )
        };
        let first = index as usize * T::WORDS;
        all.get(first..first + T::WORDS)
    }
}

impl<T> Drop for View<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and nothing borrows from it any more.
        if let Err(error) = unsafe { munmap(self.start, self.bytes.get()) } {
            tracing::error!(%error, "could not unmap an array map; its memory stays mapped");
        }
    }
}

/// An array map seen for reading and writing.
pub(crate) struct Memory<T>(View<T>);

impl<T> Deref for Memory<T> {
    type Target = View<T>;

    fn deref(&self) -> &View<T> {
        &self.0
    }
}

impl<T: Element> Memory<T> {
    /// Maps all `elements` of the array map `map`.
    ///
    /// # Errors
    /// Those of mmap(2); `EINVAL` for an empty map.
    pub(crate) fn of_map(map: impl AsFd, elements: u32) -> io::Result<Self> {
        View::map_file(map, elements, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE).map(Self)
    }

    /// The same without a map behind it, all zero.
    ///
    /// # Errors
    /// Those of mmap(2); `EINVAL` for no elements.
    #[cfg(test)]
    pub(crate) fn anonymous(elements: u32) -> io::Result<Self> {
        let bytes = byte_len::<T>(elements)?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing of ours.
        let start = unsafe { mmap_anonymous(None, bytes, protection, MapFlags::MAP_SHARED)? };
        Ok(Self(View { start, bytes, elements, element: PhantomData }))
    }

    /// Writes an element that no reader looks at yet, or whose words may be seen one by one.
    /// Whether `index` exists.
    #[must_use]
    pub(crate) fn write(&self, index: u32, value: &T) -> bool {
        let Some(words) = self.words(index) else { return false };
        for (word, bytes) in words.iter().zip(value.as_bytes().chunks_exact(8)) {
            word.store(to_word(bytes), Ordering::Relaxed);
        }
        true
    }

    /// Writes an element whose first word is what readers go by: the other words first, then the
    /// first one in a single store with release order, so that whoever sees it sees everything
    /// written before. Whether `index` exists.
    #[must_use]
    pub(crate) fn publish(&self, index: u32, value: &T) -> bool {
        let Some((first, rest)) = self.words(index).and_then(<[_]>::split_first) else {
            return false;
        };
        let (head, tail) = value.as_bytes().split_at(8);
        for (word, bytes) in rest.iter().zip(tail.chunks_exact(8)) {
            word.store(to_word(bytes), Ordering::Relaxed);
        }
        first.store(to_word(head), Ordering::Release);
        true
    }

    /// Writes what another array holds into the first elements, as long as nobody reads them.
    pub(crate) fn copy_from(&self, other: &View<T>) {
        for index in 0..other.len().min(self.len()) {
            let _exists = other.get(index).is_some_and(|element| self.write(index, &element));
        }
    }
}

impl Memory<u64> {
    /// Sets and clears bits of a word: `(old & !clear) | set`, each in one step.
    pub(crate) fn change_bits(&self, index: u32, clear: u64, set: u64) {
        if let Some([word]) = self.words(index) {
            if clear != 0 {
                word.fetch_and(!clear, Ordering::Release);
            }
            if set != 0 {
                word.fetch_or(set, Ordering::Release);
            }
        }
    }

    /// Adds to a word in one step; what others add meanwhile is not lost.
    pub(crate) fn add(&self, index: u32, change: i64) {
        if let Some([word]) = self.words(index) {
            word.fetch_add(change as u64, Ordering::Relaxed);
        }
    }

    /// Replaces every byte of a word that is `from`, by compare and exchange: what others store into
    /// any byte meanwhile stays.
    pub(crate) fn exchange_bytes(&self, index: u32, from: u8, to: u8) {
        let Some([word]) = self.words(index) else { return };
        let exchanged = |old: u64| {
            let bytes = old.to_ne_bytes();
            let new = bytes.map(|byte| if byte == from { to } else { byte });
            (new != bytes).then(|| u64::from_ne_bytes(new))
        };
        let _nothing_to_do = word.fetch_update(Ordering::AcqRel, Ordering::Acquire, exchanged);
    }
}

fn to_word(bytes: &[u8]) -> u64 {
    bytes.try_into().map_or(0, u64::from_ne_bytes)
}

fn byte_len<T: Element>(elements: u32) -> io::Result<NonZeroUsize> {
    NonZeroUsize::new(elements as usize * T::WORDS * 8)
        .ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))
}

#[cfg(test)]
mod tests {
    use kproxy_common::service::{Service, Slot};

    use super::*;

    #[test]
    fn elements_are_read_back_and_the_end_is_kept() {
        let memory = Memory::<Slot>::anonymous(5).unwrap();
        let slot = Slot { flags: 1, ..Slot::default() };
        assert!(memory.write(4, &slot));
        assert!(!memory.write(5, &slot));
        assert_eq!(memory.get(4), Some(slot));
        assert_eq!(memory.get(3), Some(Slot::default()));
        assert_eq!(memory.get(5), None);

        let services = Memory::<Service>::anonymous(1).unwrap();
        let service = Service { word: u64::MAX, flags: 3, affinity_seconds: 7 };
        assert!(services.publish(0, &service));
        assert!(!services.publish(1, &service));
        assert_eq!(services.get(0), Some(service));
        assert!(Memory::<Slot>::anonymous(0).is_err());
    }

    #[test]
    fn bits_change_one_by_one() {
        let memory = Memory::<u64>::anonymous(2).unwrap();
        memory.change_bits(1, 0, 0b101);
        memory.change_bits(1, 0b001, 0b010);
        memory.change_bits(9, 0, 1);
        assert_eq!(memory.get(1), Some(0b110));
        assert_eq!(memory.get(0), Some(0));
        memory.add(0, 5);
        memory.add(0, -7);
        assert_eq!(memory.get(0), Some((-2i64) as u64));
        memory.exchange_bytes(1, 0b110, 9);
        memory.exchange_bytes(1, 0, 1);
        memory.exchange_bytes(1, 7, 8);
        assert_eq!(memory.get(1).map(u64::to_ne_bytes), Some([9, 1, 1, 1, 1, 1, 1, 1]));
    }
}
