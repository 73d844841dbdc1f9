//! One place that tells aya which layouts are plain data.

/// Asserts size and alignment of shared layouts and, in user space, marks them as plain data.
macro_rules! shared_layout {
    ($($ty:ty: $size:literal),+ $(,)?) => { $(
        const _: () = assert!(core::mem::size_of::<$ty>() == $size);
        // SAFETY: the zerocopy derives on the type prove that every bit pattern is valid and that
        // there is no padding; the types are `Copy` and hold no references.
        #[cfg(feature = "user")]
        unsafe impl aya::Pod for $ty {}
    )+ };
}
pub(crate) use shared_layout;
