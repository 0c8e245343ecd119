//! Text without characters that command a terminal.

/// On one line, with control characters as `\xHH`, as bytes are escaped.
pub fn one_line(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => plain.push_str("\\n"),
            '\r' => plain.push_str("\\r"),
            '\t' => plain.push_str("\\t"),
            c if c.is_control() => {
                let escaped =
                    c.encode_utf8(&mut [0; 4]).bytes().map(|byte| format!("\\x{byte:02x}")).collect::<String>();
                plain.push_str(&escaped);
            }
            c => plain.push(c),
        }
    }
    plain
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
