//! How a typed value is written as text.
//!
//! Text and bytes at the outermost are written with the escape alone. Numbers, `true`, `()` stand as they are; a
//! character in `'…'`; `none`, `some(…)`; lists and arrays `[…, …]`; tuples `(…, …)`; texts in them in `"…"`, and bytes
//! too. Bytes that are no value of their type are `\xHH` one by one, or `\x` alone if there are none.

use super::text::{escape, escaped, hexadecimal, shown, unescape};
use super::types::Type;
use super::values::Value;

/// Appends the bytes of a value as text.
pub fn write(of: &Type, bytes: &[u8], out: &mut Vec<u8>) {
    if of.is_bytes() && has_size(of, bytes) {
        return escape(bytes, out);
    }
    match Value::decode(of, bytes) {
        Some(value) => write_value(of, &value, out),
        None if bytes.is_empty() => out.extend_from_slice(b"\\x"),
        None => hexadecimal(bytes, out),
    }
}

/// Whether the bytes have the size of the type, if that is fixed.
pub fn has_size(of: &Type, bytes: &[u8]) -> bool {
    of.size().is_none_or(|size| size == bytes.len())
}

fn write_value(of: &Type, value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Bytes(bytes) => write_quoted(bytes, b'"', out),
        Value::Text(text) => write_quoted(text.as_bytes(), b'"', out),
        Value::Character(c) => write_quoted(c.encode_utf8(&mut [0; 4]).as_bytes(), b'\'', out),
        Value::Bool(value) => out.extend_from_slice(value.to_string().as_bytes()),
        Value::Unit => out.extend_from_slice(b"()"),
        Value::Unsigned(value) => out.extend_from_slice(value.to_string().as_bytes()),
        Value::Signed(value) => out.extend_from_slice(value.to_string().as_bytes()),
        Value::Single(value) => out.extend_from_slice(format!("{value:?}").as_bytes()),
        Value::Double(value) => out.extend_from_slice(format!("{value:?}").as_bytes()),
        Value::Option(None) => out.extend_from_slice(b"none"),
        Value::Option(Some(value)) => {
            out.extend_from_slice(b"some(");
            write_value(part(of, 0), value, out);
            out.push(b')');
        }
        Value::Many(values) => {
            let [open, close] = if matches!(of, Type::Tuple(_)) { *b"()" } else { *b"[]" };
            out.push(open);
            for (at, value) in values.iter().enumerate() {
                if at > 0 {
                    out.extend_from_slice(b", ");
                }
                write_value(part(of, at), value, out);
            }
            out.push(close);
        }
    }
}

/// The type of a part of a value.
pub fn part(of: &Type, at: usize) -> &Type {
    match of {
        Type::Option(of) | Type::List(of) | Type::Array(of, _) => of,
        Type::Tuple(parts) => parts.get(at).unwrap_or(&Type::Unknown),
        _ => &Type::Unknown,
    }
}

fn write_quoted(bytes: &[u8], quote: u8, out: &mut Vec<u8>) {
    out.push(quote);
    for (at, part) in bytes.split(|byte| *byte == quote).enumerate() {
        if at > 0 {
            out.extend_from_slice(&[b'\\', quote]);
        }
        escape(part, out);
    }
    out.push(quote);
}

/// The bytes of the value that a text stands for.
pub fn read(of: &Type, text: &[u8]) -> Result<Vec<u8>, String> {
    if text == b"\\x" && (!of.is_bytes() || of.size().is_some()) {
        return Ok(Vec::new());
    }
    if of.is_bytes() {
        let bytes = unescape(text)?;
        return match of.size() {
            // Unless all of them are escaped, which is how bytes are written that are no value.
            Some(size) if bytes.len() != size && text.len() != 4 * bytes.len() => {
                Err(format!("expected {size} bytes, found {}", bytes.len()))
            }
            _ => Ok(bytes),
        };
    }
    if text.starts_with(b"\\x") {
        return unescape(text);
    }
    let mut reader = Reader { rest: text };
    let value = reader.value(of)?;
    reader.space();
    if !reader.rest.is_empty() {
        return Err(format!("\"{}\" is too much", shown(reader.rest)));
    }
    value.encode(of)
}

struct Reader<'t> {
    rest: &'t [u8],
}

impl Reader<'_> {
    fn space(&mut self) {
        self.rest = self.rest.trim_ascii_start();
    }

    fn skip(&mut self, what: &[u8]) -> bool {
        self.space();
        let after = self.rest.strip_prefix(what);
        self.rest = after.unwrap_or(self.rest);
        after.is_some()
    }

    fn expect(&mut self, what: &str) -> Result<(), String> {
        if self.skip(what.as_bytes()) {
            Ok(())
        } else {
            Err(format!("expected {what}, found \"{}\"", shown(self.rest)))
        }
    }

    fn value(&mut self, of: &Type) -> Result<Value, String> {
        Ok(match of {
            Type::Bytes(_) | Type::Opaque(_) | Type::Unknown => Value::Bytes(self.quoted(b'"')?),
            Type::Text => Value::Text(utf8(self.quoted(b'"')?)?),
            Type::Character => Value::Character(self.character()?),
            Type::Unit => {
                self.expect("()")?;
                Value::Unit
            }
            Type::Bool => Value::Bool(self.word("true or false")?),
            Type::Unsigned(_) => Value::Unsigned(self.word("a number of 0 or more")?),
            Type::Signed(_) => Value::Signed(self.word("a whole number")?),
            Type::Float(4) => Value::Single(self.word("a number")?),
            Type::Float(_) => Value::Double(self.word("a number")?),
            Type::Option(of) => {
                if self.skip(b"none") {
                    return Ok(Value::Option(None));
                }
                if !self.skip(b"some(") {
                    return Err(format!("expected none or some(…), found \"{}\"", shown(self.rest)));
                }
                let value = self.value(of)?;
                self.expect(")")?;
                Value::Option(Some(Box::new(value)))
            }
            Type::List(of) => Value::Many(self.many(|_| Some(of))?),
            Type::Array(of, count) => Value::Many(self.many(|at| (at < *count).then_some(of))?),
            Type::Tuple(parts) => Value::Many(self.many(|at| parts.get(at))?),
        })
    }

    fn many<'o>(&mut self, of: impl Fn(usize) -> Option<&'o Type>) -> Result<Vec<Value>, String> {
        let end: &[u8] = if self.skip(b"(") {
            b")"
        } else {
            self.expect("[")?;
            b"]"
        };
        let mut values = Vec::new();
        while !self.skip(end) {
            if !values.is_empty() {
                self.expect(",")?;
                // A comma may be the last thing.
                if self.skip(end) {
                    break;
                }
            }
            let of = of(values.len()).ok_or_else(|| format!("expected {} values, found more", values.len()))?;
            values.push(self.value(of)?);
        }
        Ok(values)
    }

    fn quoted(&mut self, quote: u8) -> Result<Vec<u8>, String> {
        self.expect(if quote == b'"' { "\"" } else { "'" })?;
        let mut bytes = Vec::new();
        loop {
            match self.rest {
                [] => return Err("a closing quote is missing".to_owned()),
                [b'\\', ..] => {
                    let (byte, len) = escaped(self.rest)?;
                    bytes.push(byte);
                    self.rest = &self.rest[len..];
                }
                [byte, rest @ ..] => {
                    self.rest = rest;
                    if *byte == quote {
                        return Ok(bytes);
                    }
                    bytes.push(*byte);
                }
            }
        }
    }

    /// A character, also without quotes.
    fn character(&mut self) -> Result<char, String> {
        self.space();
        let text = if self.rest.starts_with(b"'") && self.rest.len() > 1 {
            utf8(self.quoted(b'\'')?)?
        } else {
            utf8(unescape(std::mem::take(&mut self.rest))?)?
        };
        let mut characters = text.chars();
        match (characters.next(), characters.next()) {
            (Some(character), None) => Ok(character),
            _ => Err(format!("expected one character, found \"{}\"", shown(text.as_bytes()))),
        }
    }

    fn word<T: std::str::FromStr>(&mut self, what: &str) -> Result<T, String> {
        self.space();
        let end = self.rest.iter().position(|byte| b",)] ".contains(byte)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        let parsed = std::str::from_utf8(word).ok().and_then(|word| word.parse().ok());
        parsed.ok_or_else(|| format!("expected {what}, found \"{}\"", shown(word)))
    }
}

fn utf8(bytes: Vec<u8>) -> Result<String, String> {
    String::from_utf8(bytes).map_err(|_| "expected UTF-8".to_owned())
}

#[cfg(test)]
mod tests {
    use slotlog::Codec;

    use super::*;

    fn written<T: Codec<Owned = T, Borrowed = T>>(value: &T) -> String {
        let (of, encoded) = (Type::named(&T::name()), T::encode(value).expect("it can be stored"));
        let mut text = Vec::new();
        write(&of, encoded.as_ref(), &mut text);
        assert_eq!(read(&of, &text).as_deref(), Ok(encoded.as_ref()), "{}", shown(&text));
        String::from_utf8(text).expect("text")
    }

    #[test]
    fn values_are_written_and_read() {
        assert_eq!(written(&42u64), "42");
        assert_eq!(written(&-1i128), "-1");
        assert_eq!(written(&0.1f32), "0.1");
        assert_eq!(written(&f64::NAN), "NaN");
        assert_eq!(written(&-0.0f64), "-0.0");
        assert_eq!(written(&1e300f64), "1e300");
        assert_eq!(written(&true), "true");
        assert_eq!(written(&()), "()");
        assert_eq!(written(&'\''), r"'\''");
        assert_eq!(written(&'\u{7}'), r"'\x07'");
        assert_eq!(written(&None::<u8>), "none");
        assert_eq!(written(&Some(())), "some(())");
        assert_eq!(written(&(7u16, "a \"b\"\n".to_owned())), r#"(7, "a \"b\"\n")"#);
        assert_eq!(written(&[vec![1u8, 255], vec![]]), r#"["\x01\xff", ""]"#);
        assert_eq!(written(&[0u32; 0]), "[]");
    }

    #[test]
    fn a_person_may_write_it_otherwise() {
        for (name, one, other) in [
            ("(u16, str)", r#"(7 ,"a",)"#, r#"[7, "a"]"#),
            ("char", "x", "'x'"),
            ("char", "'", r"'\''"),
            ("f64", "1", "1.0"),
            ("option(u8)", "some( 3 )", "some(3)"),
            ("[bool]", " [ true,false ] ", "[true, false]"),
        ] {
            let of = Type::named(name);
            assert_eq!(read(&of, one.as_bytes()), read(&of, other.as_bytes()), "{one}");
            assert!(read(&of, one.as_bytes()).is_ok(), "{one}");
        }
    }

    #[test]
    fn bytes_that_are_no_value_come_back_too() {
        for (name, bytes, expected) in [
            ("u32", &b"abc"[..], r"\x61\x62\x63"),
            ("u32", b"", r"\x"),
            ("str", b"\xff", r"\xff"),
            ("celsius", b"warm\n", r"warm\n"),
            ("[u8; 3]", b"ab\n", r"ab\n"),
            ("[u8; 3]", b"ab", r"\x61\x62"),
            ("pod(3 bytes)", b"", r"\x"),
            ("f32", &[1, 0, 0xc0, 0x7f], r"\x01\x00\xc0\x7f"),
        ] {
            let (of, mut text) = (Type::named(name), Vec::new());
            write(&of, bytes, &mut text);
            assert_eq!(String::from_utf8_lossy(&text), expected);
            assert_eq!(read(&of, &text).as_deref(), Ok(bytes));
        }
    }

    #[test]
    fn what_is_no_value_is_refused() {
        for (name, text) in [
            ("u8", "256"),
            ("u8", "-1"),
            ("u8", ""),
            ("u8", "1 2"),
            ("bool", "yes"),
            ("(u8, u8)", "[1]"),
            ("(u8, u8)", "[1, 2, 3]"),
            ("[str]", r#"["a"#),
            ("[str]", "[a]"),
            ("option(u8)", "3"),
            ("char", "ab"),
            ("[u8; 2]", "abc"),
            ("[u8]", r"\q"),
        ] {
            assert!(read(&Type::named(name), text.as_bytes()).is_err(), "{name}: {text}");
        }
    }
}
