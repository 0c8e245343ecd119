//! How reports are serialised where serde has no form of its own for a field, or none that suits.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serializer;

/// A time, as RFC 3339 in UTC. Only a damaged file has years beyond its range.
pub(crate) fn date<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    let mut text = String::new();
    match write!(text, "{}", humantime::format_rfc3339_millis(*time)) {
        Ok(()) => serializer.serialize_str(&text),
        Err(_) => {
            let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
            serializer.collect_str(&format_args!("{} ms after 1970-01-01T00:00:00Z", since.as_millis()))
        }
    }
}

/// The same for a time that there may not be.
pub(crate) fn maybe_date<S: Serializer>(time: &Option<SystemTime>, serializer: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => date(time, serializer),
        None => serializer.serialize_none(),
    }
}

/// A time span that there may not be, in seconds.
pub(crate) fn maybe_seconds<S: Serializer>(span: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    match span {
        Some(span) => serializer.serialize_some(&span.as_secs_f64()),
        None => serializer.serialize_none(),
    }
}

/// A path; what is not UTF-8 in it is replaced.
pub(crate) fn path<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&path.to_string_lossy())
}

/// A key, as text: what is not UTF-8 in it, control characters and the backslash are escaped as `\n`, `\r`, `\t`, `\\`
/// and `\xHH`.
pub(crate) fn bytes<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\n' => text.push_str("\\n"),
                '\r' => text.push_str("\\r"),
                '\t' => text.push_str("\\t"),
                '\\' => text.push_str("\\\\"),
                c if c.is_control() => {
                    let mut utf8 = [0; 4];
                    hex(&mut text, c.encode_utf8(&mut utf8).as_bytes());
                }
                c => text.push(c),
            }
        }
        hex(&mut text, chunk.invalid());
    }
    serializer.serialize_str(&text)
}

fn hex(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(text, "\\x{byte:02x}");
    }
}
