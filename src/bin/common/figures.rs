//! How sizes, shares, times and names read.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytesize::ByteSize;

use super::escape::escape;

/// A size in readable units: `1.5 MiB`.
pub fn size(bytes: u64) -> String {
    ByteSize::b(bytes).display().iec().to_string()
}

pub fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// The share of a part in the whole; 0 if the whole is 0.
pub fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// A time as RFC 3339 in UTC. Only a damaged file has years beyond its range.
pub fn date(time: SystemTime) -> String {
    let mut text = String::new();
    match write!(text, "{}", humantime::format_rfc3339_millis(time)) {
        Ok(()) => text,
        Err(_) => {
            let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
            format!("{} ms after 1970-01-01T00:00:00Z", since.as_millis())
        }
    }
}

/// A path on one line, whatever characters its name has.
pub fn printable(path: &Path) -> String {
    path.to_string_lossy().replace(char::is_control, "\u{fffd}")
}

/// A number of things: `1 entry`, `2 entries`.
pub fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// A number with its thousands apart: `1,000,000`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.char_indices() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A time span in its two largest units: `2 h 5 min`.
pub fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0 => format!("{} ms", span.as_millis()),
        1..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// Bytes on one line, [escaped](super::escape) and in quotes. Of a long text, only the beginning.
pub fn escaped(bytes: &[u8], most: usize) -> String {
    let pieces = bytes.utf8_chunks().flat_map(|chunk| {
        let valid = chunk.valid();
        let characters = valid.char_indices().map(|(at, c)| &valid.as_bytes()[at..at + c.len_utf8()]);
        characters.chain(chunk.invalid().chunks(1))
    });
    let mut text = vec![b'"'];
    for (place, piece) in pieces.enumerate() {
        if place == most {
            text.extend_from_slice("…".as_bytes());
            break;
        }
        escape(piece, &mut text);
    }
    text.push(b'"');
    String::from_utf8_lossy(&text).into_owned()
}
