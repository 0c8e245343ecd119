//! Text without characters that command a terminal.

use super::escape::escape_control;

/// On one line, with control characters [escaped](super::escape). A backslash stays, since what is shown here may have
/// been escaped before.
pub fn one_line(text: &str) -> String {
    let mut plain = Vec::with_capacity(text.len());
    for c in text.chars() {
        let mut bytes = [0; 4];
        let found = c.encode_utf8(&mut bytes);
        if c.is_control() {
            escape_control(found, &mut plain);
        } else {
            plain.extend_from_slice(found.as_bytes());
        }
    }
    String::from_utf8_lossy(&plain).into_owned()
}

/// Whether there is a control character that JSON does not demand an escape for.
fn is_free(c: char) -> bool {
    matches!(c, '\u{7f}'..='\u{9f}')
}

/// JSON with every control character escaped. Those that may stand as they are can only be in strings.
pub fn json(text: String) -> String {
    if !text.contains(is_free) {
        return text;
    }
    let escaped = |c: char| if is_free(c) { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() };
    text.chars().map(escaped).collect()
}
