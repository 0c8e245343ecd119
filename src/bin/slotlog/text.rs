//! Bytes as [escaped](super::common::escape) text, and back.

pub use super::common::escape::{escape, hexadecimal};

/// Bytes as text.
pub fn printable(bytes: &[u8]) -> String {
    let mut text = Vec::new();
    escape(bytes, &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

/// Bytes as text, for messages: a long one is cut.
pub fn shown(bytes: &[u8]) -> String {
    const MOST: usize = 60;

    let more = if bytes.len() > MOST { "…" } else { "" };
    format!("{}{more}", printable(&bytes[..bytes.len().min(MOST)]))
}

/// The bytes that a text stands for. Bytes that are not UTF-8 may stand for themselves.
pub fn unescape(text: &[u8]) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.iter().position(|byte| *byte == b'\\') {
        bytes.extend_from_slice(&rest[..at]);
        let (byte, len) = escaped(&rest[at..])?;
        bytes.push(byte);
        rest = &rest[at + len..];
    }
    bytes.extend_from_slice(rest);
    Ok(bytes)
}

/// The byte that an escape stands for, and the length of that escape.
pub fn escaped(text: &[u8]) -> Result<(u8, usize), String> {
    let digit = |at: usize| text.get(at).and_then(|digit| char::from(*digit).to_digit(16));
    match text.get(1) {
        Some(b'n') => Ok((b'\n', 2)),
        Some(b'r') => Ok((b'\r', 2)),
        Some(b't') => Ok((b'\t', 2)),
        Some(quoted @ (b'\\' | b'"' | b'\'')) => Ok((*quoted, 2)),
        Some(b'x') => match (digit(2), digit(3)) {
            (Some(high), Some(low)) => Ok(((high * 16 + low) as u8, 4)),
            _ => Err("two hexadecimal digits must follow \\x".to_owned()),
        },
        _ => {
            let found = String::from_utf8_lossy(&text[..text.len().min(2)]).into_owned();
            Err(format!("{found:?} is no escape: write a backslash as \\\\ (the others are \\n \\r \\t \\xHH)"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: &[u8]) -> String {
        let mut out = Vec::new();
        escape(bytes, &mut out);
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn text_shows_bytes_as_they_are_where_it_can() {
        for (bytes, expected) in [
            (&b""[..], ""),
            (b"plain text", "plain text"),
            ("gr\u{fc}n \u{4e2d}".as_bytes(), "gr\u{fc}n \u{4e2d}"),
            (b"a\tb\nc\rd\\e", r"a\tb\nc\rd\\e"),
            (b"\0\x1b[31m\x7f", r"\x00\x1b[31m\x7f"),
            (b"\xff\xc3a", r"\xff\xc3a"),
            ("\u{85}".as_bytes(), r"\xc2\x85"),
        ] {
            assert_eq!(text(bytes), expected);
            assert_eq!(unescape(expected.as_bytes()).as_deref(), Ok(bytes));
        }
        let long: Vec<u8> = (0..=255).cycle().take(10_000).collect();
        assert_eq!(unescape(text(&long).as_bytes()), Ok(long));
    }

    #[test]
    fn every_pair_of_bytes_comes_back() {
        for pair in 0..=u16::MAX {
            let bytes = pair.to_be_bytes();
            let text = text(&bytes);
            assert!(!text.contains(char::is_control), "{text:?}");
            assert_eq!(unescape(text.as_bytes()).as_deref(), Ok(&bytes[..]));
        }
    }

    #[test]
    fn what_is_no_escape_is_refused() {
        for text in [r"a\", r"\q", r"\x", r"\x1", r"\xg0", "\\\n"] {
            assert!(unescape(text.as_bytes()).is_err(), "{text}");
        }
    }
}
