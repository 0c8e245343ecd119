//! Arguments accepted for keys and values.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;

mod sealed {
    /// Only this crate implements it.
    pub trait Sealed<T: ?Sized> {}
}

/// An argument for a `T`: a `T`, a reference to one, or a container of one.
///
/// Like [`Borrow`](std::borrow::Borrow), and a little more: `&String` is accepted for `str`, and `b"bytes"` for `[u8]`.
/// It is implemented for what there is in the list below, and for nothing else, so that more can come.
///
/// ```
/// # let store = slotlog::Store::in_memory()?;
/// let map = store.map::<str, [u8]>("files")?;
/// let name = String::from("a");
/// map.insert(&name, b"bytes")?;
/// map.insert("b", vec![1, 2, 3])?;
/// assert_eq!(map.get(name)?.as_deref(), Some(&b"bytes"[..]));
/// # Ok::<(), slotlog::Error>(())
/// ```
pub trait Arg<T: ?Sized>: sealed::Sealed<T> {
    /// The `T` in it.
    fn arg(&self) -> &T;
}

impl<T> sealed::Sealed<T> for T {}

impl<T> Arg<T> for T {
    fn arg(&self) -> &T {
        self
    }
}

impl<T: ?Sized> sealed::Sealed<T> for &T {}

impl<T: ?Sized> Arg<T> for &T {
    fn arg(&self) -> &T {
        self
    }
}

impl<T: ?Sized> sealed::Sealed<T> for &mut T {}

impl<T: ?Sized> Arg<T> for &mut T {
    fn arg(&self) -> &T {
        self
    }
}

impl<T, const N: usize> sealed::Sealed<[T]> for [T; N] {}

impl<T, const N: usize> Arg<[T]> for [T; N] {
    fn arg(&self) -> &[T] {
        self
    }
}

impl<T, const N: usize> sealed::Sealed<[T]> for &[T; N] {}

impl<T, const N: usize> Arg<[T]> for &[T; N] {
    fn arg(&self) -> &[T] {
        *self
    }
}

macro_rules! held {
    ($([$($generics:tt)*] $target:ty: $holder:ty;)*) => {$(
        impl<$($generics)*> sealed::Sealed<$target> for $holder {}

        impl<$($generics)*> Arg<$target> for $holder {
            fn arg(&self) -> &$target {
                self
            }
        }
    )*};
}

held! {
    [] str: String;
    [] str: &String;
    [T] [T]: Vec<T>;
    [T] [T]: &Vec<T>;
    [T: ?Sized] T: Box<T>;
    [T: ?Sized] T: Rc<T>;
    [T: ?Sized] T: Arc<T>;
    [T: ToOwned + ?Sized] T: Cow<'_, T>;
}
