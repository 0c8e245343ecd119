//! Typed values, taken apart from the bytes of a store and put together again.

use std::cmp::Ordering;

use super::types::Type;

/// A value of a type. Text that is not UTF-8 cannot be one.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Bytes(Vec<u8>),
    Text(String),
    Bool(bool),
    Character(char),
    Unit,
    Unsigned(u128),
    Signed(i128),
    Single(f32),
    Double(f64),
    Option(Option<Box<Value>>),
    /// A list, an array or a tuple.
    Many(Vec<Value>),
}

impl Value {
    /// The value in these bytes; `None` if they are not exactly what this type makes of one.
    pub fn decode(of: &Type, bytes: &[u8]) -> Option<Value> {
        Some(match of {
            Type::Bytes(Some(size)) | Type::Opaque(Some(size)) if bytes.len() != *size => return None,
            Type::Bytes(_) | Type::Opaque(_) | Type::Unknown => Value::Bytes(bytes.to_vec()),
            Type::Text => Value::Text(std::str::from_utf8(bytes).ok()?.to_owned()),
            Type::Bool => Value::Bool(match bytes {
                [0] => false,
                [1] => true,
                _ => return None,
            }),
            Type::Character => Value::Character(char::from_u32(u32::from_le_bytes(bytes.try_into().ok()?))?),
            Type::Unit => return bytes.is_empty().then_some(Value::Unit),
            Type::Unsigned(size) => Value::Unsigned(unsigned(bytes, *size)?),
            Type::Signed(size) => Value::Signed(signed(bytes, *size)?),
            Type::Float(4) => Value::Single(single(bytes)?),
            Type::Float(_) => Value::Double(double(bytes)?),
            Type::Option(of) => Value::Option(match bytes {
                [0] => None,
                [1, value @ ..] => Some(Box::new(Value::decode(of, value)?)),
                _ => return None,
            }),
            Type::List(of) => Value::Many(list(of, bytes)?),
            Type::Array(of, count) => Value::Many(array(of, *count, bytes)?),
            Type::Tuple(parts) => Value::Many(tuple(parts, bytes)?),
        })
    }

    /// The bytes of this value, which must be of this type.
    pub fn encode(&self, of: &Type) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        self.encode_to(of, &mut bytes)?;
        Ok(bytes)
    }

    fn encode_to(&self, of: &Type, out: &mut Vec<u8>) -> Result<(), String> {
        match (self, of) {
            (Value::Bytes(bytes), Type::Bytes(size) | Type::Opaque(size)) => match size {
                Some(size) if bytes.len() != *size => {
                    return Err(format!("expected {size} bytes, found {}", bytes.len()));
                }
                _ => out.extend_from_slice(bytes),
            },
            (Value::Bytes(bytes), Type::Unknown) => out.extend_from_slice(bytes),
            (Value::Text(text), Type::Text) => out.extend_from_slice(text.as_bytes()),
            (Value::Bool(value), Type::Bool) => out.push(u8::from(*value)),
            (Value::Character(value), Type::Character) => out.extend_from_slice(&u32::from(*value).to_le_bytes()),
            (Value::Unit, Type::Unit) => {}
            (Value::Unsigned(value), Type::Unsigned(size)) => {
                let fits = *size == 16 || *value < 1 << (8 * size);
                let max = if *size == 16 { u128::MAX } else { (1 << (8 * size)) - 1 };
                fits.then(|| out.extend_from_slice(&value.to_le_bytes()[..*size])).ok_or(format!("at most {max}"))?;
            }
            (Value::Signed(value), Type::Signed(size)) => {
                let most = i128::MAX >> (8 * (16 - size));
                let fits = (!most..=most).contains(value);
                let range = || format!("it must be from {} to {most}", !most);
                fits.then(|| out.extend_from_slice(&value.to_le_bytes()[..*size])).ok_or_else(range)?;
            }
            (Value::Single(value), Type::Float(4)) => out.extend_from_slice(&value.to_le_bytes()),
            (Value::Double(value), Type::Float(8)) => out.extend_from_slice(&value.to_le_bytes()),
            (Value::Option(None), Type::Option(_)) => out.push(0),
            (Value::Option(Some(value)), Type::Option(of)) => {
                out.push(1);
                value.encode_to(of, out)?;
            }
            (Value::Many(values), Type::List(of)) => values.iter().try_for_each(|value| value.put(of, out))?,
            (Value::Many(values), Type::Array(of, count)) => {
                expect_count(*count, values)?;
                values.iter().try_for_each(|value| value.put(of, out))?;
            }
            (Value::Many(values), Type::Tuple(parts)) => {
                expect_count(parts.len(), values)?;
                for (at, (value, of)) in values.iter().zip(parts).enumerate() {
                    if at + 1 < parts.len() { value.put(of, out)? } else { value.encode_to(of, out)? }
                }
            }
            _ => return Err("the value is of another type".to_owned()),
        }
        Ok(())
    }

    /// Appends a value that is not the last one: after its length, unless its size is fixed.
    fn put(&self, of: &Type, out: &mut Vec<u8>) -> Result<(), String> {
        if of.size().is_some() {
            return self.encode_to(of, out);
        }
        let bytes = self.encode(of)?;
        let len = u32::try_from(bytes.len()).map_err(|_| "a part is longer than 4 GiB".to_owned())?;
        out.extend_from_slice(&len.to_le_bytes());
        out.extend_from_slice(&bytes);
        Ok(())
    }

    /// The order in which values of one type are sorted: numbers by size, texts and bytes byte by byte.
    pub fn order(&self, other: &Value) -> Ordering {
        match (self, other) {
            (Value::Bytes(one), Value::Bytes(other)) => one.cmp(other),
            (Value::Text(one), Value::Text(other)) => one.cmp(other),
            (Value::Bool(one), Value::Bool(other)) => one.cmp(other),
            (Value::Character(one), Value::Character(other)) => one.cmp(other),
            (Value::Unsigned(one), Value::Unsigned(other)) => one.cmp(other),
            (Value::Signed(one), Value::Signed(other)) => one.cmp(other),
            (Value::Single(one), Value::Single(other)) => one.total_cmp(other),
            (Value::Double(one), Value::Double(other)) => one.total_cmp(other),
            (Value::Option(one), Value::Option(other)) => match (one, other) {
                (Some(one), Some(other)) => one.order(other),
                _ => one.is_some().cmp(&other.is_some()),
            },
            (Value::Many(one), Value::Many(other)) => {
                let pairs = one.iter().zip(other).map(|(one, other)| one.order(other));
                pairs.fold(Ordering::Equal, Ordering::then).then(one.len().cmp(&other.len()))
            }
            _ => Ordering::Equal,
        }
    }
}

fn expect_count(count: usize, values: &[Value]) -> Result<(), String> {
    if count == values.len() { Ok(()) } else { Err(format!("expected {count} values, found {}", values.len())) }
}

fn unsigned(bytes: &[u8], size: usize) -> Option<u128> {
    let mut all = [0; 16];
    (bytes.len() == size).then(|| all[..size].copy_from_slice(bytes))?;
    Some(u128::from_le_bytes(all))
}

fn signed(bytes: &[u8], size: usize) -> Option<i128> {
    let unused = 8 * (16 - size);
    Some((unsigned(bytes, size)? as i128) << unused >> unused)
}

/// Of the many bit patterns that are no numbers, text knows only one.
fn single(bytes: &[u8]) -> Option<f32> {
    let value = f32::from_le_bytes(bytes.try_into().ok()?);
    (!value.is_nan() || value.to_bits() == f32::NAN.to_bits()).then_some(value)
}

fn double(bytes: &[u8]) -> Option<f64> {
    let value = f64::from_le_bytes(bytes.try_into().ok()?);
    (!value.is_nan() || value.to_bits() == f64::NAN.to_bits()).then_some(value)
}

fn list(of: &Type, mut bytes: &[u8]) -> Option<Vec<Value>> {
    let mut values = Vec::new();
    while !bytes.is_empty() {
        let left = bytes.len();
        values.push(take(of, &mut bytes)?);
        // Values of no bytes would go on for ever.
        (bytes.len() < left).then_some(())?;
    }
    Some(values)
}

/// Values of no bytes that arrays may have, all counted.
const MOST_EMPTY: usize = 1 << 16;

/// How many values there are in one of this type, all of which have no bytes. `None` if there are too many to count.
fn empty(of: &Type) -> Option<usize> {
    match of {
        Type::Array(of, count) => count.checked_mul(empty(of)?)?.checked_add(1),
        Type::Tuple(parts) => parts.iter().try_fold(1usize, |sum, part| sum.checked_add(empty(part)?)),
        _ => Some(1),
    }
}

fn array(of: &Type, count: usize, mut bytes: &[u8]) -> Option<Vec<Value>> {
    // A value takes some bytes, or its length does; and where it takes none, damaged counts must not take memory.
    (count <= bytes.len() || of.size() == Some(0) && count.checked_mul(empty(of)?)? <= MOST_EMPTY).then_some(())?;
    let values = (0..count).map(|_| take(of, &mut bytes)).collect::<Option<Vec<Value>>>()?;
    bytes.is_empty().then_some(values)
}

fn tuple(parts: &[Type], mut bytes: &[u8]) -> Option<Vec<Value>> {
    let (last, others) = parts.split_last()?;
    let mut values = others.iter().map(|of| take(of, &mut bytes)).collect::<Option<Vec<Value>>>()?;
    values.push(Value::decode(last, bytes)?);
    Some(values)
}

/// Takes a value off the beginning: after its length, unless its size is fixed.
fn take(of: &Type, bytes: &mut &[u8]) -> Option<Value> {
    let len = match of.size() {
        Some(size) => size,
        None => usize::try_from(u32::from_le_bytes(bytes.split_off(..4)?.try_into().ok()?)).ok()?,
    };
    Value::decode(of, bytes.split_off(..len)?)
}

#[cfg(test)]
mod tests {
    use slotlog::Codec;

    use super::*;

    /// What the library's codecs encode is decoded, and encoded again in the same way.
    fn round_trip<T: Codec<Owned = T, Borrowed = T>>(value: &T) -> Value {
        let (of, encoded) = (Type::named(&T::name()), T::encode(value).expect("it can be stored"));
        let decoded = Value::decode(&of, encoded.as_ref()).expect("a value");
        assert_eq!(decoded.encode(&of).as_deref(), Ok(encoded.as_ref()), "{decoded:?}");
        decoded
    }

    #[test]
    fn values_of_the_library_come_back() {
        assert_eq!(round_trip(&u8::MAX), Value::Unsigned(255));
        assert_eq!(round_trip(&u128::MAX), Value::Unsigned(u128::MAX));
        assert_eq!(round_trip(&i8::MIN), Value::Signed(-128));
        assert_eq!(round_trip(&i64::MIN), Value::Signed(i64::MIN.into()));
        assert_eq!(round_trip(&i128::MIN), Value::Signed(i128::MIN));
        assert_eq!(round_trip(&1.5f32), Value::Single(1.5));
        assert_eq!(round_trip(&f64::NEG_INFINITY), Value::Double(f64::NEG_INFINITY));
        assert_eq!(round_trip(&'\u{4e2d}'), Value::Character('\u{4e2d}'));
        assert_eq!(round_trip(&()), Value::Unit);
        assert_eq!(round_trip(&Some(None::<u8>)), Value::Option(Some(Box::new(Value::Option(None)))));
        let text = |text: &str| Value::Text(text.to_owned());
        let mixed = round_trip(&(7u16, "seven".to_owned(), vec!["a".to_owned(), String::new()], [1u8, 2]));
        let many = Value::Many(vec![text("a"), text("")]);
        let expected = vec![Value::Unsigned(7), text("seven"), many, Value::Bytes(vec![1, 2])];
        assert_eq!(mixed, Value::Many(expected));
        round_trip(&[vec![1u32], vec![], vec![2, 3]]);
        round_trip(&(vec![7u8; 300], true));
        round_trip(&[(); 9]);
    }

    #[test]
    fn bytes_of_another_type_are_no_value() {
        for (name, bytes) in [
            ("u32", &[1, 2, 3][..]),
            ("bool", &[2]),
            ("char", &[0, 0, 0x11, 0]),
            ("str", &[0xff]),
            ("()", &[0]),
            ("[u8; 3]", &[0; 2]),
            ("option(u8)", &[2]),
            ("(str, u8)", &[9, 0, 0, 0, 1]),
            ("[()]", &[1]),
            ("[(); 99999999999]", &[]),
            ("[u64; 9999999999999999]", &[1]),
            ("[[[(); 65536]; 65536]; 65536]", &[]),
            ("([(); 65536], [[(); 65536]; 65536])", &[]),
            ("[([u8; 18446744073709551615], [u8; 2])]", &[1]),
            ("f64", &[1, 0, 0, 0, 0, 0, 0xf8, 0x7f]),
        ] {
            assert_eq!(Value::decode(&Type::named(name), bytes), None, "{name}");
        }
    }

    #[test]
    fn values_that_do_not_fit_are_refused() {
        for (name, value) in [
            ("u8", Value::Unsigned(256)),
            ("i8", Value::Signed(128)),
            ("i8", Value::Signed(-129)),
            ("[u8; 2]", Value::Bytes(vec![0])),
            ("(u8, u8)", Value::Many(vec![Value::Unsigned(1)])),
            ("u8", Value::Bool(true)),
        ] {
            assert!(value.encode(&Type::named(name)).is_err(), "{name}");
        }
    }
}
