//! How a typed value is written as JSON.
//!
//! Numbers, booleans, texts and lists are what they are in JSON; a tuple is a list. Bytes are a string if they are
//! UTF-8. What has no place in JSON is `{"escaped": "…"}`, with bytes as the [escape](super::text) has them.

use serde_json::{Number, Value as Json, json};

use super::common::plain;
use super::notation::{has_size, part};
use super::text::{escape, hexadecimal, unescape};
use super::types::Type;
use super::values::Value;

/// Appends the bytes of a value as JSON.
pub fn write(of: &Type, bytes: &[u8], out: &mut Vec<u8>) {
    if of.is_bytes()
        && has_size(of, bytes)
        && let Ok(text) = std::str::from_utf8(bytes)
    {
        return write_string(text, out);
    }
    append(out, |out| serde_json::to_writer(out, &to_json(of, bytes)));
}

/// Appends a string.
pub fn write_string(text: &str, out: &mut Vec<u8>) {
    append(out, |out| serde_json::to_writer(out, text));
}

/// Appends JSON, with every control character escaped.
fn append(out: &mut Vec<u8>, json: impl FnOnce(&mut Vec<u8>) -> serde_json::Result<()>) {
    let start = out.len();
    // Writing to memory cannot fail.
    let _ = json(out);
    // What may have to be escaped is either the one byte, or begins with the other.
    if out[start..].iter().any(|byte| matches!(byte, 0x7f | 0xc2)) {
        let json = String::from_utf8_lossy(&out[start..]).into_owned();
        out.truncate(start);
        out.extend_from_slice(plain::json(json).as_bytes());
    }
}

fn to_json(of: &Type, bytes: &[u8]) -> Json {
    match Value::decode(of, bytes) {
        Some(value) => value_to_json(of, &value),
        None => {
            let mut text = Vec::new();
            hexadecimal(bytes, &mut text);
            json!({ "escaped": String::from_utf8_lossy(&text) })
        }
    }
}

fn value_to_json(of: &Type, value: &Value) -> Json {
    match value {
        Value::Bytes(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => text.into(),
            Err(_) => escaped_to_json(bytes),
        },
        Value::Text(text) => text.as_str().into(),
        Value::Bool(value) => (*value).into(),
        Value::Character(value) => value.to_string().into(),
        Value::Unit | Value::Option(None) => Json::Null,
        Value::Unsigned(value) => u64::try_from(*value).map_or_else(|_| value.to_string().into(), Json::from),
        Value::Signed(value) => i64::try_from(*value).map_or_else(|_| value.to_string().into(), Json::from),
        Value::Single(value) => single_to_json(*value),
        Value::Double(value) => Number::from_f64(*value).map_or_else(|| format!("{value:?}").into(), Json::Number),
        Value::Option(Some(value)) => {
            let inner = part(of, 0);
            let json = value_to_json(inner, value);
            // An object of its own would stand for all bytes, those of the option too.
            if can_be_null(inner) || json.is_object() { Json::Array(vec![json]) } else { json }
        }
        Value::Many(values) => {
            values.iter().enumerate().map(|(at, value)| value_to_json(part(of, at), value)).collect()
        }
    }
}

fn escaped_to_json(bytes: &[u8]) -> Json {
    let mut text = Vec::new();
    escape(bytes, &mut text);
    json!({ "escaped": String::from_utf8_lossy(&text) })
}

/// The short form, if it comes back as the same number: JSON's numbers are read as those of twice the size.
fn single_to_json(value: f32) -> Json {
    let short = format!("{value:?}").parse::<f64>().unwrap_or(f64::NAN);
    let number = if (short as f32).to_bits() == value.to_bits() { short } else { f64::from(value) };
    Number::from_f64(number).map_or_else(|| format!("{value:?}").into(), Json::Number)
}

/// Whether a value of this type may be `null`, so that an option of it needs something around it.
fn can_be_null(of: &Type) -> bool {
    matches!(of, Type::Unit | Type::Option(_))
}

/// The bytes of the value that JSON stands for.
pub fn read(of: &Type, json: &Json) -> Result<Vec<u8>, String> {
    if let Some(bytes) = escaped_of(json) {
        return bytes;
    }
    value_of(of, json)?.encode(of)
}

fn escaped_of(json: &Json) -> Option<Result<Vec<u8>, String>> {
    let object = json.as_object().filter(|object| object.len() == 1)?;
    object.get("escaped").and_then(Json::as_str).map(|text| unescape(text.as_bytes()))
}

fn value_of(of: &Type, json: &Json) -> Result<Value, String> {
    let unexpected = |what: &str| Err(format!("expected {what}, found {json}"));
    Ok(match (of, json) {
        (Type::Bytes(_) | Type::Opaque(_) | Type::Unknown, json) => match (escaped_of(json), json) {
            (Some(bytes), _) => Value::Bytes(bytes?),
            (None, Json::String(text)) => Value::Bytes(text.as_bytes().to_vec()),
            _ => return unexpected("a string, or {\"escaped\": \"…\"}"),
        },
        (Type::Text, Json::String(text)) => Value::Text(text.clone()),
        (Type::Text, _) => return unexpected("a string"),
        (Type::Bool, Json::Bool(value)) => Value::Bool(*value),
        (Type::Bool, _) => return unexpected("true or false"),
        (Type::Character, Json::String(text)) => {
            let mut characters = text.chars();
            match (characters.next(), characters.next()) {
                (Some(character), None) => Value::Character(character),
                _ => return unexpected("one character"),
            }
        }
        (Type::Character, _) => return unexpected("a string of one character"),
        (Type::Unit, Json::Null) => Value::Unit,
        (Type::Unit, _) => return unexpected("null"),
        (Type::Unsigned(_), json) => Value::Unsigned(whole(json)?),
        (Type::Signed(_), json) => Value::Signed(whole(json)?),
        (Type::Float(4), json) => Value::Single(float(json)? as f32),
        (Type::Float(_), json) => Value::Double(float(json)?),
        (Type::Option(_), Json::Null) => Value::Option(None),
        (Type::Option(of), json) if can_be_null(of) => match json.as_array().map(Vec::as_slice) {
            Some([json]) => Value::Option(Some(Box::new(value_of(of, json)?))),
            _ => return unexpected("null or a list of one value"),
        },
        (Type::Option(of), Json::Array(list)) if of.is_bytes() && list.len() == 1 => {
            Value::Option(Some(Box::new(value_of(of, &list[0])?)))
        }
        (Type::Option(of), json) => Value::Option(Some(Box::new(value_of(of, json)?))),
        (Type::List(_) | Type::Array(..) | Type::Tuple(_), Json::Array(list)) => {
            let values = list.iter().enumerate().map(|(at, json)| value_of(part(of, at), json));
            Value::Many(values.collect::<Result<_, _>>()?)
        }
        (Type::List(_) | Type::Array(..) | Type::Tuple(_), _) => return unexpected("a list"),
    })
}

/// A whole number; one of more than 64 bits is in a string.
fn whole<T: std::str::FromStr>(json: &Json) -> Result<T, String> {
    let text = match json {
        Json::Number(number) => number.to_string(),
        Json::String(text) => text.clone(),
        _ => String::new(),
    };
    text.parse().map_err(|_| format!("expected a whole number, found {json}"))
}

/// A number; what is none in JSON, like `inf`, is in a string.
fn float(json: &Json) -> Result<f64, String> {
    let number = match json {
        Json::Number(number) => number.as_f64(),
        Json::String(text) => text.parse().ok(),
        _ => None,
    };
    number.ok_or_else(|| format!("expected a number, found {json}"))
}

#[cfg(test)]
mod tests {
    use slotlog::Codec;

    use super::*;

    fn written<T: Codec<Owned = T, Borrowed = T>>(value: &T) -> String {
        let (of, encoded) = (Type::named(&T::name()), T::encode(value).expect("it can be stored"));
        come_back(&of, encoded.as_ref())
    }

    fn come_back(of: &Type, bytes: &[u8]) -> String {
        let mut text = Vec::new();
        write(of, bytes, &mut text);
        let json: Json = serde_json::from_slice(&text).expect("JSON");
        assert_eq!(read(of, &json).as_deref(), Ok(bytes), "{json}");
        String::from_utf8(text).expect("text")
    }

    #[test]
    fn values_are_written_and_read() {
        assert_eq!(written(&u64::MAX), "18446744073709551615");
        assert_eq!(written(&i64::MIN), "-9223372036854775808");
        assert_eq!(written(&u128::MAX), "\"340282366920938463463374607431768211455\"");
        assert_eq!(written(&0.1f32), "0.1");
        assert_eq!(written(&f32::MAX), "3.4028235e+38");
        assert_eq!(written(&f64::NAN), "\"NaN\"");
        assert_eq!(written(&f64::MIN_POSITIVE), "2.2250738585072014e-308");
        assert_eq!(written(&f32::NEG_INFINITY), "\"-inf\"");
        assert_eq!(written(&None::<u8>), "null");
        assert_eq!(written(&Some(7u8)), "7");
        assert_eq!(written(&Some(None::<u8>)), "[null]");
        assert_eq!(written(&Some(())), "[null]");
        assert_eq!(written(&Some(vec![1u8, 255])), r#"[{"escaped":"\\x01\\xff"}]"#);
        assert_eq!(written(&Some(b"text".to_vec())), "\"text\"");
        assert_eq!(written(&(Some(vec![255u8]), None::<Vec<u8>>)), r#"[[{"escaped":"\\xff"}],null]"#);
        assert_eq!(written(&(7u16, "a\n".to_owned(), [1u8, 255])), r#"[7,"a\n",{"escaped":"\\x01\\xff"}]"#);
    }

    #[test]
    fn every_number_of_a_kind_comes_back() {
        for bits in (0..=u32::MAX).step_by(65_521) {
            let value = f32::from_bits(bits);
            if !value.is_nan() {
                written(&value);
            }
        }
    }

    #[test]
    fn bytes_come_back() {
        assert_eq!(come_back(&Type::Bytes(None), b"a\\x\n"), r#""a\\x\n""#);
        assert_eq!(come_back(&Type::Bytes(None), b"\xff\\"), r#"{"escaped":"\\xff\\\\"}"#);
        assert_eq!(come_back(&Type::Text, b"\xff"), r#"{"escaped":"\\xff"}"#);
        assert_eq!(come_back(&Type::Unsigned(4), b"abc"), r#"{"escaped":"\\x61\\x62\\x63"}"#);
        assert_eq!(come_back(&Type::Unsigned(4), b""), r#"{"escaped":""}"#);
        assert_eq!(come_back(&Type::Unknown, b"warm"), "\"warm\"");
        assert_eq!(come_back(&Type::Bytes(Some(3)), b"ab"), r#"{"escaped":"\\x61\\x62"}"#);
        assert_eq!(come_back(&Type::Opaque(Some(3)), b""), r#"{"escaped":""}"#);
    }

    #[test]
    fn what_is_no_value_is_refused() {
        for (name, json) in [
            ("u8", "256"),
            ("u8", "1.5"),
            ("u8", "\"a\""),
            ("i8", "null"),
            ("str", "7"),
            ("bool", "1"),
            ("()", "0"),
            ("(u8, u8)", "[1]"),
            ("[u8]", "[1, 2]"),
            ("option(())", "[]"),
            ("char", "\"ab\""),
            ("[u8; 2]", "\"abc\""),
        ] {
            let json: Json = serde_json::from_str(json).expect("JSON");
            assert!(read(&Type::named(name), &json).is_err(), "{name}: {json}");
        }
    }
}
