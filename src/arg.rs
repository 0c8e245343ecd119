//! What can be passed for a key or a value.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;

/// What can be passed for a `T`: a `T`, a reference to one, or something that holds one.
///
/// It is [`Borrow`](std::borrow::Borrow), and a little more: `&String` is passed for `str`, and `b"bytes"` for `[u8]`.
/// A type of your own can implement it.
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
pub trait Arg<T: ?Sized> {
    /// The `T`.
    fn arg(&self) -> &T;
}

impl<T> Arg<T> for T {
    fn arg(&self) -> &T {
        self
    }
}

impl<T: ?Sized> Arg<T> for &T {
    fn arg(&self) -> &T {
        self
    }
}

impl<T: ?Sized> Arg<T> for &mut T {
    fn arg(&self) -> &T {
        self
    }
}

impl<T, const N: usize> Arg<[T]> for [T; N] {
    fn arg(&self) -> &[T] {
        self
    }
}

impl<T, const N: usize> Arg<[T]> for &[T; N] {
    fn arg(&self) -> &[T] {
        *self
    }
}

macro_rules! held {
    ($([$($generics:tt)*] $target:ty: $holder:ty;)*) => {$(
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
