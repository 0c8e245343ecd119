//! The types of a map, as the catalogue of a store names them.

/// A type of keys or values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Type {
    /// `[u8]`, or `[u8; N]`, whose size is fixed.
    Bytes(Option<usize>),
    Text,
    Bool,
    Character,
    Unit,
    /// A number of this many bytes, little-endian.
    Unsigned(usize),
    Signed(usize),
    Float(usize),
    Option(Box<Type>),
    List(Box<Type>),
    Array(Box<Type>, usize),
    Tuple(Vec<Type>),
    /// Bytes with a meaning that only the program knows, perhaps of a fixed size: plain old data, postcard.
    Opaque(Option<usize>),
    /// A codec of a program. Not even its size is known, so nothing that has it as a part can be taken apart.
    Unknown,
}

/// How deep types may be nested: a name in a damaged file may be anything.
const DEEPEST: usize = 20;

impl Type {
    /// The type of this name.
    pub fn named(name: &str) -> Type {
        let mut rest = name;
        match take(&mut rest, 0) {
            Some(found) if rest.is_empty() && found.is_known() => found,
            _ => Type::Unknown,
        }
    }

    /// The size of every value, if it is fixed.
    pub fn size(&self) -> Option<usize> {
        match self {
            Type::Bytes(size) | Type::Opaque(size) => *size,
            Type::Bool => Some(1),
            Type::Character => Some(4),
            Type::Unit => Some(0),
            Type::Unsigned(size) | Type::Signed(size) | Type::Float(size) => Some(*size),
            Type::Array(of, count) => of.size()?.checked_mul(*count),
            Type::Tuple(parts) => parts.iter().try_fold(0usize, |sum, part| sum.checked_add(part.size()?)),
            Type::Text | Type::Option(_) | Type::List(_) | Type::Unknown => None,
        }
    }

    /// Whether values are shown as the bytes they are, with the escape alone.
    pub fn is_bytes(&self) -> bool {
        matches!(self, Type::Bytes(_) | Type::Text | Type::Opaque(_) | Type::Unknown)
    }

    fn is_known(&self) -> bool {
        match self {
            Type::Unknown => false,
            Type::Option(of) | Type::List(of) | Type::Array(of, _) => of.is_known(),
            Type::Tuple(parts) => parts.iter().all(Type::is_known),
            _ => true,
        }
    }
}

/// The types of keys and values of a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Types {
    pub key: Type,
    pub value: Type,
}

impl Types {
    /// Those of the default map.
    pub const BYTES: Types = Types { key: Type::Bytes(None), value: Type::Bytes(None) };

    /// The types that are named like this: `str -> u64`.
    pub fn named(names: &str) -> Types {
        let arrows = names.match_indices(" -> ").filter(|(at, _)| depth(&names[..*at]) == 0);
        let mut arrows = arrows.map(|(at, arrow)| (&names[..at], &names[at + arrow.len()..]));
        match (arrows.next(), arrows.next()) {
            (Some((key, value)), None) => Types { key: Type::named(key), value: Type::named(value) },
            _ => Types { key: Type::Unknown, value: Type::Unknown },
        }
    }
}

/// How many brackets are open at the end.
fn depth(text: &str) -> isize {
    text.chars().map(|c| isize::from("([".contains(c)) - isize::from(")]".contains(c))).sum()
}

/// Takes a type off the beginning.
fn take(rest: &mut &str, deep: usize) -> Option<Type> {
    if deep > DEEPEST {
        return None;
    }
    if skip(rest, "option(") {
        let of = take(rest, deep + 1)?;
        return skip(rest, ")").then(|| Type::Option(Box::new(of)));
    }
    if skip(rest, "pod(") {
        let (inside, after) = rest.split_once(')')?;
        *rest = after;
        let (size, _) = inside.split_once(" bytes")?;
        return Some(Type::Opaque(Some(size.parse().ok()?)));
    }
    if skip(rest, "postcard(") {
        *rest = rest.split_once(')')?.1;
        return Some(Type::Opaque(None));
    }
    if skip(rest, "[") {
        return list(rest, deep);
    }
    if skip(rest, "(") {
        return tuple(rest, deep);
    }
    let end = rest.find([',', ')', ']', ';']).unwrap_or(rest.len());
    let (name, after) = rest.split_at(end);
    *rest = after;
    Some(simple(name))
}

fn skip(rest: &mut &str, what: &str) -> bool {
    let after = rest.strip_prefix(what);
    *rest = after.unwrap_or(rest);
    after.is_some()
}

fn list(rest: &mut &str, deep: usize) -> Option<Type> {
    let of = take(rest, deep + 1)?;
    if skip(rest, "; ") {
        let (count, after) = rest.split_once(']')?;
        *rest = after;
        let count = count.parse().ok()?;
        return Some(if of == Type::Unsigned(1) { Type::Bytes(Some(count)) } else { Type::Array(Box::new(of), count) });
    }
    let of = match of {
        Type::Unsigned(1) => Type::Bytes(None),
        // A slice of plain old data is stored as it is, whichever of the two codecs made it.
        Type::Opaque(Some(_)) => Type::Opaque(None),
        other => Type::List(Box::new(other)),
    };
    skip(rest, "]").then_some(of)
}

fn tuple(rest: &mut &str, deep: usize) -> Option<Type> {
    if skip(rest, ")") {
        return Some(Type::Unit);
    }
    let mut parts = Vec::new();
    loop {
        parts.push(take(rest, deep + 1)?);
        if skip(rest, ")") {
            return Some(Type::Tuple(parts));
        }
        if !skip(rest, ", ") {
            return None;
        }
    }
}

fn simple(name: &str) -> Type {
    match name {
        "str" => Type::Text,
        "bool" => Type::Bool,
        "char" => Type::Character,
        "u8" => Type::Unsigned(1),
        "u16" => Type::Unsigned(2),
        "u32" => Type::Unsigned(4),
        "u64" => Type::Unsigned(8),
        "u128" => Type::Unsigned(16),
        "i8" => Type::Signed(1),
        "i16" => Type::Signed(2),
        "i32" => Type::Signed(4),
        "i64" => Type::Signed(8),
        "i128" => Type::Signed(16),
        "f32" => Type::Float(4),
        "f64" => Type::Float(8),
        _ => Type::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use slotlog::{Codec, Pod};

    use super::*;

    /// The library's own codecs name their types.
    #[test]
    fn types_are_known_by_the_names_of_their_codecs() {
        let of = |name: String| Type::named(&name);
        assert_eq!(of(<[u8]>::name()), Type::Bytes(None));
        assert_eq!(of(<[u8; 3]>::name()), Type::Bytes(Some(3)));
        assert_eq!(of(String::name()), Type::Text);
        assert_eq!(of(<()>::name()), Type::Unit);
        assert_eq!(of(i128::name()), Type::Signed(16));
        assert_eq!(of(Pod::<u32>::name()), Type::Opaque(Some(4)));
        assert_eq!(of(Pod::<[u32]>::name()), Type::Opaque(None));
        let nested = <(Option<(bool, char)>, Vec<[f32; 2]>, u16)>::name();
        let pair = Type::Option(Box::new(Type::Tuple(vec![Type::Bool, Type::Character])));
        let floats = Type::List(Box::new(Type::Array(Box::new(Type::Float(4)), 2)));
        assert_eq!(of(nested), Type::Tuple(vec![pair, floats, Type::Unsigned(2)]));
        assert_eq!(of(<(u32, [u16; 4])>::name()).size(), <(u32, [u16; 4])>::SIZE);
        assert_eq!(of(<(u32, Option<u8>)>::name()).size(), None);
    }

    #[test]
    fn other_names_are_unknown() {
        for name in
            ["", "celsius", "(u8, celsius)", "[celsius]", "(u8", "u8)", "[u8; x]", "option(u8", "pod(x)", "(u8,)"]
        {
            assert_eq!(Type::named(name), Type::Unknown, "{name}");
        }
        assert_eq!(Type::named(&"[".repeat(100_000)), Type::Unknown);
        assert_eq!(Types::named("str -> u64"), Types { key: Type::Text, value: Type::Unsigned(8) });
        assert_eq!(Types::named("str"), Types { key: Type::Unknown, value: Type::Unknown });
        assert_eq!(Types::named("a -> b -> c").key, Type::Unknown);
    }
}
