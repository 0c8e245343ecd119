//! What serde tells of a type, as text, so that a map of one type is not read as one of another.
//!
//! A type that implements `Deserialize` asks a deserializer for what it is made of: a struct by its name and its
//! fields, an enum by its name and its variants, numbers and strings by their kinds. This one notes what it is asked
//! for, and answers with a small value of that kind, until the type is done or refuses a value. What was noted up to
//! then is the same each time. Each pass takes another variant of each enum, until all were seen.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::value::U32Deserializer;
use serde::de::{self, DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess};
use serde::de::{VariantAccess, Visitor};

/// Types within types beyond this are not looked at.
const DEEPEST: usize = 64;
/// Variants of all enums in a type beyond this are not looked at.
const MOST_PASSES: usize = 1_000;
/// In place of a text.
const TEXT: &str = "a";

/// The name that a type has for serde, or its kind, and a description of all that it is made of.
pub(super) fn describe<T: DeserializeOwned>() -> (String, String) {
    let mut notes = Notes::default();
    for _ in 0..MOST_PASSES {
        notes.has_new = false;
        // That a value was refused says nothing: a name or an address is no valid one, for example.
        let _ = T::deserialize(Asked { notes: &mut notes });
        notes.inside.clear();
        notes.text.push(';');
        if !notes.has_new {
            break;
        }
    }
    let name = notes.text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    (name, notes.text)
}

/// What was noted.
#[derive(Default)]
struct Notes {
    text: String,
    /// The structs and enums that are being looked at, from outside to inside.
    inside: Vec<&'static str>,
    /// The variant of each enum to look at next.
    variants: BTreeMap<&'static str, usize>,
    /// An enum has variants that were not looked at.
    has_new: bool,
}

impl Notes {
    fn note(&mut self, text: impl fmt::Display) {
        use fmt::Write;
        // Writing to a string does not fail.
        let _ = write!(self.text, "{text}");
    }

    /// Begins a type that contains others.
    fn enter(&mut self, name: &'static str) -> Result<(), Stop> {
        if self.inside.len() >= DEEPEST || !name.is_empty() && self.inside.contains(&name) {
            return Err(Stop);
        }
        self.inside.push(name);
        Ok(())
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
        self.within("", |parts| visitor.visit_some(Asked { notes: parts.notes }))
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
        self.within("", |parts| visitor.visit_seq(parts))
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
        self.within("", |parts| visitor.visit_map(parts))
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
        self.within(name, |parts| {
            let next = parts.notes.variants.entry(name).or_insert(0);
            let variant = *next % variants.len().max(1);
            *next += 1;
            parts.notes.has_new |= *next < variants.len();
            parts.notes.note(variant);
            visitor.visit_enum(Variant { parts, number: variant as u32 })
        })
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
        seed.deserialize(Asked { notes: self.notes })
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
        let of_shape = "Shape[Point|Circle|Named](0 unit);Shape[Point|Circle|Named](1 f64);\
            Shape[Point|Circle|Named](2 {name,of} str seq( User{name,visits}( str u32)));";
        assert_eq!(describe::<Shape>(), ("Shape".to_owned(), of_shape.to_owned()));
        assert_eq!(describe::<Tree>().1, "Tree{key,below}( u64 seq( Tree{key,below}));");
        assert_eq!(describe::<Vec<Option<u8>>>().1, "seq( option(u8));");
    }
}
