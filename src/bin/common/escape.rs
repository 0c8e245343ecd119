//! Bytes as text: the one escape that every byte survives.
//!
//! UTF-8 stays as it is, except control characters and the backslash: `\n`, `\r`, `\t`, `\\`, and `\xHH` for each byte
//! of the others. A byte that is not UTF-8 is `\xHH` too.

/// Whether all bytes stand for themselves.
#[inline]
fn are_plain(bytes: &[u8]) -> bool {
    // Without a branch, so that many bytes are looked at by one instruction.
    let odd = |byte: &u8| u8::from(byte.wrapping_sub(0x20) >= 0x5f) | u8::from(*byte == b'\\');
    let has_odd = |block: &[u8; 16]| block.iter().fold(0, |found, byte| found | odd(byte)) != 0;
    match bytes.last_chunk() {
        // The last block overlaps the one before it.
        Some(last) => !bytes.as_chunks().0.iter().any(has_odd) && !has_odd(last),
        None => bytes.iter().fold(0, |found, byte| found | odd(byte)) == 0,
    }
}

/// Appends bytes as text.
pub fn escape(bytes: &[u8], out: &mut Vec<u8>) {
    if are_plain(bytes) {
        out.extend_from_slice(bytes);
        return;
    }
    for chunk in bytes.utf8_chunks() {
        let valid = chunk.valid();
        let mut start = 0;
        // The bytes of a character that is no ASCII are all above that, and 0xc2 begins those of the other controls.
        let special = |byte: u8| byte < 0x20 || byte == b'\\' || byte == 0x7f || byte == 0xc2;
        for at in (0..valid.len()).filter(|at| special(valid.as_bytes()[*at])) {
            let found = valid[at..].chars().next().unwrap_or_default();
            if found.is_control() || found == '\\' {
                out.extend_from_slice(&valid.as_bytes()[start..at]);
                let end = at + found.len_utf8();
                escape_control(&valid[at..end], out);
                start = end;
            }
        }
        out.extend_from_slice(&valid.as_bytes()[start..]);
        hexadecimal(chunk.invalid(), out);
    }
}

/// Appends a control character, or a backslash.
pub fn escape_control(found: &str, out: &mut Vec<u8>) {
    match found {
        "\n" => out.extend_from_slice(b"\\n"),
        "\r" => out.extend_from_slice(b"\\r"),
        "\t" => out.extend_from_slice(b"\\t"),
        "\\" => out.extend_from_slice(b"\\\\"),
        other => hexadecimal(other.as_bytes(), out),
    }
}

/// Appends each byte as `\xHH`.
pub fn hexadecimal(bytes: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";

    for byte in bytes {
        out.extend_from_slice(&[b'\\', b'x', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
}
