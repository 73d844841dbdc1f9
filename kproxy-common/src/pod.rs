//! How shared layouts and shared numbers are declared: checked at compile time, plain data for aya,
//! and described, so that a test sees every change (see [`crate::layouts`]).

/// Where each field of a shared type lies.
pub struct Layout {
    /// Name of the type.
    pub name: &'static str,
    /// Bytes of the type.
    pub size: usize,
    /// Its fields, in order.
    pub fields: &'static [Field],
}

/// One field of a [`Layout`].
pub struct Field {
    /// Name, or number in a tuple.
    pub name: &'static str,
    /// Bytes before it.
    pub offset: usize,
    /// Its own bytes.
    pub size: usize,
    /// What they hold.
    pub kind: Kind,
}

/// What a field holds: so many of one type, one after the other.
#[derive(Clone, Copy)]
pub struct Kind {
    /// Name of the type: another [`Layout`]'s, or that of an integer.
    pub name: &'static str,
    /// How many.
    pub count: usize,
}

/// What can be a field of a shared type.
pub(crate) trait Shared {
    /// What it is.
    const KIND: Kind;
}

impl<T: Shared, const N: usize> Shared for [T; N] {
    const KIND: Kind = Kind { name: T::KIND.name, count: N * T::KIND.count };
}

macro_rules! integers {
    ($($ty:ident),+) => {
        $(impl Shared for $ty {
            const KIND: Kind = Kind { name: stringify!($ty), count: 1 };
        })+
    };
}
integers!(u8, u16, u32, u64);

/// Numbers with a meaning that programs and user space agree on: flag bits, states, limits.
pub struct Numbers {
    /// Name of the module or type that they are in.
    pub name: &'static str,
    /// Name and value of each.
    pub values: &'static [(&'static str, u64)],
}

impl Layout {
    /// Of a type and all its fields.
    pub(crate) const fn new(name: &'static str, size: usize, fields: &'static [Field]) -> Self {
        let layout = Self { name, size, fields };
        assert!(layout.is_filled(), "a field is not listed, or out of order");
        layout
    }

    /// Whether the fields fill the type, each where the one before it ends: none is missing.
    const fn is_filled(&self) -> bool {
        let (mut i, mut end) = (0, 0);
        while i < self.fields.len() {
            if self.fields[i].offset != end {
                return false;
            }
            end += self.fields[i].size;
            i += 1;
        }
        end == self.size
    }
}

/// The field that `_get` leads to.
pub(crate) const fn field<T, F: Shared>(
    name: &'static str,
    offset: usize,
    _get: fn(&T) -> &F,
) -> Field {
    Field { name, offset, size: size_of::<F>(), kind: F::KIND }
}

/// Asserts the size of shared layouts and that all their fields are listed, describes them and, in
/// user space, marks them as plain data.
macro_rules! shared_layout {
    ($($ty:ident: $size:literal { $($field:tt),+ $(,)? })+) => {
        $(
            const _: () = assert!(size_of::<$ty>() == $size);
            // SAFETY: the zerocopy derives on the type prove that every bit pattern is valid and
            // that there is no padding; the types are `Copy` and hold no references.
            #[cfg(feature = "user")]
            unsafe impl aya::Pod for $ty {}

            impl crate::pod::Shared for $ty {
                const KIND: crate::pod::Kind =
                    crate::pod::Kind { name: stringify!($ty), count: 1 };
            }
        )+

        /// The layouts of this module.
        pub(crate) const LAYOUTS: &[crate::pod::Layout] = &[$(crate::pod::Layout::new(
            stringify!($ty),
            $size,
            &[$(crate::pod::field(
                stringify!($field),
                core::mem::offset_of!($ty, $field),
                |value: &$ty| &value.$field,
            )),+],
        )),+];
    };
}
pub(crate) use shared_layout;

/// Declares a module of shared numbers and describes them.
macro_rules! shared_numbers {
    (
        $(#[$about:meta])*
        pub mod $module:ident {
            $($(#[$doc:meta])* pub const $name:ident: $ty:ty = $value:expr;)+
        }
    ) => {
        $(#[$about])*
        pub mod $module {
            $($(#[$doc])* pub const $name: $ty = $value;)+

            /// All of them.
            pub(crate) const NUMBERS: crate::pod::Numbers = crate::pod::Numbers {
                name: stringify!($module),
                values: &[$((stringify!($name), $name as u64)),+],
            };
        }
    };
}
pub(crate) use shared_numbers;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_that_is_not_listed_is_found() {
        let kind = u8::KIND;
        let field = |offset, size| Field { name: "field", offset, size, kind };
        for (fields, want) in [
            (vec![field(0, 4), field(4, 2), field(6, 2)], true),
            (vec![field(0, 4), field(6, 2)], false),
            (vec![field(4, 2), field(6, 2)], false),
            (vec![field(0, 4), field(4, 2)], false),
            (vec![field(4, 4), field(0, 4)], false),
        ] {
            let layout = Layout { name: "type", size: 8, fields: fields.leak() };
            assert_eq!(layout.is_filled(), want);
        }
    }
}
