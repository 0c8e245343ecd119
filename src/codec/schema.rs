//! What serde tells of a type, as text, so that a map of one type is not read as one of another.
//!
//! A type that implements `Deserialize` asks a deserializer for what it is made of: a struct by its name and its
//! fields, an enum by its name and its variants, numbers and strings by their kinds. This one notes what it is asked
//! for, and answers with a small value of that kind, until the type is done or refuses a value. What was noted up to
//! then is the same each time. Each pass takes another variant of each enum, until all were seen.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fmt::Write as _;

use serde::de::value::U32Deserializer;
use serde::de::{self, DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess};
use serde::de::{VariantAccess, Visitor};

/// A type is looked at within itself this often; then it counts as recursive.
const WITHIN_ITSELF: usize = 3;
/// Bytes of a description, beyond which the rest of a type is not looked at.
const LONGEST: usize = 1 << 16;
/// Passes after which what is left of a type is not looked at.
const MOST_PASSES: usize = 1_000;
/// In place of a text.
const TEXT: &str = "a";

/// The name that a type has for serde, or its kind, and a description of all that it is made of.
pub(super) fn describe<T: DeserializeOwned>() -> (String, String) {
    let mut notes = Notes::default();
    for _ in 0..MOST_PASSES {
        notes.begin();
        // That a value was refused says nothing: some types take few.
        let _ = T::deserialize(Asked { notes: &mut notes });
        notes.text.push(';');
        if !notes.has_new || notes.text.len() > LONGEST {
            break;
        }
    }
    let name = notes.text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    (name, notes.text)
}

/// Where a type stands within the whole: of each type around it, which part of it it is.
type Path = Vec<u32>;

/// What was noted.
#[derive(Default)]
struct Notes {
    text: String,
    /// Where the pass has come to, from outside to inside: the name of each type, and how many parts of it were looked
    /// at.
    inside: Vec<(&'static str, u32)>,
    /// Places that may be left empty (options, sequences, maps), on the way to this one.
    leaves: Vec<Path>,
    /// Those among them that have to be, since a type would have no end otherwise.
    empty: BTreeSet<Path>,
    /// Variants of an enum at a place that were looked at with all that is in them; `false` for those without an end.
    variants: BTreeMap<(Path, u32), bool>,
    /// Something was not looked at in this pass.
    has_new: bool,
}

impl Notes {
    fn begin(&mut self) {
        self.has_new = false;
        self.inside.clear();
        self.leaves.clear();
    }

    fn note(&mut self, text: impl fmt::Display) {
        // Writing to a string does not fail.
        let _ = write!(self.text, "{text}");
    }

    fn path(&self) -> Path {
        self.inside.iter().map(|&(_, part)| part).collect()
    }

    /// Begins a type that contains others.
    fn enter(&mut self, name: &'static str) -> Result<(), Stop> {
        let within_itself = self.inside.iter().filter(|(around, _)| *around == name && !name.is_empty()).count();
        if within_itself >= WITHIN_ITSELF {
            // In the next pass it ends at the last place that may be empty.
            let may_be_empty = self.leaves.last().cloned();
            self.has_new |= may_be_empty.is_some_and(|leaf| self.empty.insert(leaf));
            return Err(Stop);
        }
        if self.text.len() > LONGEST {
            return Err(Stop);
        }
        self.inside.push((name, 0));
        Ok(())
    }

    /// Whether the option, sequence or map at this place has to be empty.
    fn is_empty(&self) -> bool {
        self.empty.contains(&self.path())
    }
}

/// The end of a pass: a value was refused, or there is no end otherwise.
#[derive(Debug)]
struct Stop;

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the description of the type ends here")
    }
}

impl std::error::Error for Stop {}

impl de::Error for Stop {
    fn custom<T: fmt::Display>(_: T) -> Stop {
        Stop
    }
}

/// The deserializer.
struct Asked<'n> {
    notes: &'n mut Notes,
}

impl Asked<'_> {
    /// Looks at the parts of a type.
    fn within<R>(self, name: &'static str, look: impl FnOnce(Parts<'_>) -> Result<R, Stop>) -> Result<R, Stop> {
        self.notes.enter(name)?;
        self.notes.note('(');
        let found = look(Parts { notes: self.notes, left: 1 });
        self.notes.note(')');
        self.notes.inside.pop();
        found
    }

    /// The same for what may be empty: an option, a sequence, a map.
    fn within_leaf<R>(self, look: impl FnOnce(Parts<'_>) -> Result<R, Stop>) -> Result<R, Stop> {
        let leaf = self.notes.path();
        self.notes.leaves.push(leaf);
        let notes = self.notes;
        let found = Asked { notes: &mut *notes }.within("", look);
        notes.leaves.pop();
        found
    }
}

macro_rules! plain {
    ($($method:ident: $visit:ident($($value:expr)?), $kind:expr;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
            self.notes.note($kind);
            visitor.$visit($($value)?)
        }
    )*};
}

impl<'de> Deserializer<'de> for Asked<'_> {
    type Error = Stop;

    plain! {
        deserialize_bool: visit_bool(true), "bool";
        deserialize_i8: visit_i8(1), "i8";
        deserialize_i16: visit_i16(1), "i16";
        deserialize_i32: visit_i32(1), "i32";
        deserialize_i64: visit_i64(1), "i64";
        deserialize_i128: visit_i128(1), "i128";
        deserialize_u8: visit_u8(1), "u8";
        deserialize_u16: visit_u16(1), "u16";
        deserialize_u32: visit_u32(1), "u32";
        deserialize_u64: visit_u64(1), "u64";
        deserialize_u128: visit_u128(1), "u128";
        deserialize_f32: visit_f32(1.0), "f32";
        deserialize_f64: visit_f64(1.0), "f64";
        deserialize_char: visit_char('a'), "char";
        deserialize_str: visit_borrowed_str(TEXT), "str";
        deserialize_string: visit_borrowed_str(TEXT), "str";
        deserialize_bytes: visit_borrowed_bytes(TEXT.as_bytes()), "bytes";
        deserialize_byte_buf: visit_borrowed_bytes(TEXT.as_bytes()), "bytes";
        deserialize_unit: visit_unit(), "unit";
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Stop> {
        self.notes.note("any");
        Err(Stop)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.deserialize_any(visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.deserialize_any(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.notes.note("option");
        if self.notes.is_empty() {
            return visitor.visit_none();
        }
        self.within_leaf(|parts| visitor.visit_some(Asked { notes: parts.notes }))
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, Stop> {
        self.notes.note(name);
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, Stop> {
        self.notes.note(name);
        self.within(name, |parts| visitor.visit_newtype_struct(Asked { notes: parts.notes }))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.notes.note("seq");
        let left = usize::from(!self.notes.is_empty());
        self.within_leaf(|parts| visitor.visit_seq(Parts { left, ..parts }))
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Stop> {
        self.notes.note(format_args!("tuple of {len}"));
        self.within("", |parts| visitor.visit_seq(Parts { left: len, ..parts }))
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Stop> {
        self.notes.note(name);
        self.within(name, |parts| visitor.visit_seq(Parts { left: len, ..parts }))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.notes.note("map");
        let left = usize::from(!self.notes.is_empty());
        self.within_leaf(|parts| visitor.visit_map(Parts { left, ..parts }))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        self.notes.note(format_args!("{name}{{{}}}", fields.join(",")));
        self.within(name, |parts| visitor.visit_seq(Parts { left: fields.len(), ..parts }))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        self.notes.note(format_args!("{name}[{}]", variants.join("|")));
        let (place, count) = (self.notes.path(), variants.len() as u32);
        let seen = |notes: &Notes, variant: u32| notes.variants.get(&(place.clone(), variant)).copied();
        let next = (0..count).find(|&variant| seen(self.notes, variant).is_none());
        // All were seen: one that has an end.
        let next = next.or_else(|| (0..count).find(|&variant| seen(self.notes, variant) == Some(true)));
        let number = next.unwrap_or(0);
        self.notes.note(number);
        let had_new = std::mem::take(&mut self.notes.has_new);
        let notes = self.notes;
        let found = Asked { notes: &mut *notes }.within(name, |parts| {
            // Different variants have different places in them.
            if let Some((_, part)) = parts.notes.inside.last_mut() {
                *part = number << 16;
            }
            visitor.visit_enum(Variant { parts, number })
        });
        if !notes.has_new {
            notes.variants.entry((place.clone(), number)).or_insert(found.is_ok());
        }
        notes.has_new |= had_new || (0..count).any(|variant| seen(notes, variant).is_none());
        found
    }

    fn is_human_readable(&self) -> bool {
        // As postcard says.
        false
    }
}

/// The parts of a sequence, a tuple, a struct or a map.
struct Parts<'n> {
    notes: &'n mut Notes,
    left: usize,
}

impl Parts<'_> {
    fn next<'de, S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Stop> {
        self.notes.note(' ');
        let found = seed.deserialize(Asked { notes: &mut *self.notes });
        if let Some((_, part)) = self.notes.inside.last_mut() {
            *part += 1;
        }
        found
    }
}

impl<'de> SeqAccess<'de> for Parts<'_> {
    type Error = Stop;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Stop> {
        let Some(left) = self.left.checked_sub(1) else { return Ok(None) };
        self.left = left;
        self.next(seed).map(Some)
    }
}

impl<'de> MapAccess<'de> for Parts<'_> {
    type Error = Stop;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Stop> {
        self.next_element_seed(seed)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Stop> {
        self.next(seed)
    }
}

/// The variant of an enum.
struct Variant<'n> {
    parts: Parts<'n>,
    number: u32,
}

impl<'de, 'n> EnumAccess<'de> for Variant<'n> {
    type Error = Stop;
    type Variant = Parts<'n>;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Parts<'n>), Stop> {
        let value = seed.deserialize(U32Deserializer::<Stop>::new(self.number))?;
        Ok((value, self.parts))
    }
}

impl<'de> VariantAccess<'de> for Parts<'_> {
    type Error = Stop;

    fn unit_variant(self) -> Result<(), Stop> {
        self.notes.note(" unit");
        Ok(())
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(mut self, seed: S) -> Result<S::Value, Stop> {
        self.next(seed)
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Stop> {
        visitor.visit_seq(Parts { left: len, ..self })
    }

    fn struct_variant<V: Visitor<'de>>(self, fields: &'static [&'static str], visitor: V) -> Result<V::Value, Stop> {
        self.notes.note(format_args!(" {{{}}}", fields.join(",")));
        visitor.visit_seq(Parts { left: fields.len(), ..self })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};
    use std::net::IpAddr;
    use std::num::NonZeroU8;

    use serde::{Deserialize, Serialize};

    use super::describe;

    #[derive(Serialize, Deserialize)]
    struct User {
        name: String,
        visits: u32,
    }

    #[derive(Serialize, Deserialize)]
    enum Shape {
        Point,
        Circle(f64),
        Named { name: String, of: Vec<User> },
    }

    #[derive(Serialize, Deserialize)]
    struct Tree {
        key: u64,
        below: Vec<Tree>,
    }

    #[test]
    fn types_that_differ_have_different_descriptions() {
        mod other {
            use super::*;

            #[derive(Serialize, Deserialize)]
            pub(super) struct User {
                name: String,
                visits: u64,
            }
            #[derive(Serialize, Deserialize)]
            pub(super) enum Shape {
                Point,
                Circle(f64),
                Named { name: String, of: Vec<User> },
            }
            #[derive(Serialize, Deserialize)]
            #[serde(rename = "User")]
            pub(super) struct OldUser {
                name: String,
                visits: u32,
            }
        }
        let all = [
            describe::<User>(),
            describe::<other::User>(),
            describe::<Shape>(),
            describe::<other::Shape>(),
            describe::<Tree>(),
            describe::<Vec<User>>(),
            describe::<Option<User>>(),
            describe::<HashMap<String, User>>(),
            describe::<BTreeMap<String, other::User>>(),
            describe::<(u8, User)>(),
            describe::<(User, u8)>(),
            describe::<[u8; 4]>(),
            describe::<Vec<u8>>(),
            // Zero would be refused.
            describe::<(NonZeroU8, bool)>(),
            describe::<(IpAddr, User)>(),
            describe::<String>(),
            describe::<u64>(),
            describe::<()>(),
        ];
        let mut texts: Vec<_> = all.iter().map(|(_, text)| text).collect();
        texts.sort();
        texts.dedup();
        assert_eq!(texts.len(), all.len(), "{all:#?}");
        assert_eq!(describe::<other::OldUser>(), describe::<User>(), "serde's name counts");
        assert_eq!(describe::<User>().0, "User");
    }

    #[test]
    fn a_description_says_what_serde_says() {
        assert_eq!(describe::<User>().1, "User{name,visits}( str u32);");
        let of_shape = "Shape[Point|Circle|Named]0( unit);Shape[Point|Circle|Named]1( f64);\
            Shape[Point|Circle|Named]2( {name,of} str seq( User{name,visits}( str u32)));";
        assert_eq!(describe::<Shape>(), ("Shape".to_owned(), of_shape.to_owned()));
        assert_eq!(describe::<Vec<Option<u8>>>().1, "seq( option(u8));");
    }

    /// What comes after a type within itself, and after an enum within an enum, is looked at.
    #[test]
    fn nothing_is_hidden_by_what_comes_before_it() {
        #[derive(Serialize, Deserialize)]
        struct Node<T> {
            left: Option<Box<Node<T>>>,
            right: Vec<Node<T>>,
            value: T,
        }
        #[derive(Serialize, Deserialize)]
        enum Inner<T> {
            One,
            Two(T),
        }
        #[derive(Serialize, Deserialize)]
        enum Outer<T> {
            A(Inner<T>),
            B,
        }
        #[derive(Serialize, Deserialize)]
        struct Wrapper<T>(T);
        #[derive(Serialize, Deserialize)]
        enum List<T> {
            Nil,
            Cons(T, Box<List<T>>),
        }
        fn differ<A: serde::de::DeserializeOwned, B: serde::de::DeserializeOwned>() {
            assert_ne!(describe::<A>(), describe::<B>());
            assert_eq!(describe::<A>(), describe::<A>());
        }
        differ::<Node<u32>, Node<i64>>();
        differ::<Outer<u32>, Outer<i64>>();
        differ::<(Outer<u8>, Outer<u32>), (Outer<u8>, Outer<i64>)>();
        differ::<(Result<u8, u8>, Result<u32, u8>), (Result<u8, u8>, Result<u32, bool>)>();
        differ::<Wrapper<Wrapper<u32>>, Wrapper<Wrapper<i64>>>();
        differ::<(List<u32>, u8), (List<u32>, i8)>();
        differ::<(List<u32>, u8), (List<i32>, u8)>();
        differ::<(Node<u8>, u8), (Node<u8>, bool)>();
    }

    /// A type of many layers has a description of bounded length, made in bounded time.
    #[test]
    fn a_description_is_bounded() {
        type Four<T> = (Vec<T>, Vec<T>, Vec<T>, Vec<T>);
        type Layers = Four<Four<Four<Four<Four<Four<Four<Four<Four<Four<u8>>>>>>>>>>;
        assert!(describe::<Layers>().1.len() < 4 * super::LONGEST);
    }
}
