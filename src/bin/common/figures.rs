//! How sizes, shares, times and names read.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytesize::ByteSize;

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

/// Bytes on one line, in quotes: text as it is, and everything else as `\n`, `\r`, `\t`, `\\` or `\xHH`. Of a long
/// text, only the beginning.
pub fn escaped(bytes: &[u8], most: usize) -> String {
    let mut text = String::from("\"");
    let shown = bytes.utf8_chunks().flat_map(|chunk| {
        let valid = chunk.valid().chars().map(|c| match c {
            '\n' => "\\n".to_owned(),
            '\r' => "\\r".to_owned(),
            '\t' => "\\t".to_owned(),
            '\\' => "\\\\".to_owned(),
            c if c.is_control() => hex(c.encode_utf8(&mut [0; 4]).as_bytes()),
            c => c.to_string(),
        });
        valid.chain(chunk.invalid().iter().map(|byte| hex(&[*byte])))
    });
    for (place, piece) in shown.enumerate() {
        if place == most {
            text.push('…');
            break;
        }
        text.push_str(&piece);
    }
    text.push('"');
    text
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect()
}
