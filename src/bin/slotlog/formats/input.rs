//! The bytes of an input: a file, or standard input.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::Failure;

/// What is read at once.
const PIECE: usize = 1 << 17;

/// Bytes as they come, in lines or in blocks.
pub struct Input {
    name: String,
    from: Box<dyn Read>,
    buffer: Vec<u8>,
    /// What is left in the buffer begins here.
    start: usize,
    /// Up to here there is no end of a line.
    searched: usize,
    is_at_end: bool,
    done: u64,
    /// Lines that were taken.
    lines: u64,
}

impl Input {
    /// Opens a file, or, for `-`, standard input; and the length of it, if it is known.
    pub fn open(path: &Path) -> Result<(Input, u64), Failure> {
        let is_standard = path.as_os_str() == "-";
        let name = if is_standard { "standard input".to_owned() } else { path.display().to_string() };
        if is_standard {
            return Ok((Input::new(name, Box::new(io::stdin().lock())), 0));
        }
        let failed = |error: io::Error| Failure::new(format!("{name}: could not be opened: {error}"));
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        let len = if metadata.is_file() { metadata.len() } else { 0 };
        Ok((Input::new(name, Box::new(file)), len))
    }

    pub fn new(name: String, from: Box<dyn Read>) -> Input {
        Input { name, from, buffer: Vec::new(), start: 0, searched: 0, is_at_end: false, done: 0, lines: 0 }
    }

    /// Bytes that were taken.
    pub fn done(&self) -> u64 {
        self.done
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where the last line was.
    pub fn place(&self) -> String {
        format!("{}: line {}", self.name, self.lines)
    }

    /// Reads another piece. `false` at the end.
    fn fill(&mut self) -> Result<bool, Failure> {
        self.buffer.drain(..self.start);
        self.searched -= self.start;
        self.start = 0;
        let before = self.buffer.len();
        self.buffer.resize(before + PIECE, 0);
        let read = loop {
            match self.from.read(&mut self.buffer[before..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        self.buffer.truncate(before + *read.as_ref().unwrap_or(&0));
        let read = read.map_err(|error| Failure::new(format!("{}: could not be read: {error}", self.name)))?;
        self.is_at_end = read == 0;
        Ok(read > 0)
    }

    /// The end of the next line, if all of it is in the buffer.
    fn end_of_line(&mut self) -> Option<usize> {
        let end = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n');
        self.searched = end.map_or(self.buffer.len(), |end| self.searched + end);
        end.map(|_| self.searched)
    }

    /// Whether a whole line is in the buffer.
    pub fn has_line(&mut self) -> bool {
        self.end_of_line().is_some()
    }

    /// The next line, without its end. The last one needs none.
    pub fn line(&mut self) -> Result<Option<&[u8]>, Failure> {
        let end = loop {
            if let Some(end) = self.end_of_line() {
                break end;
            }
            if self.is_at_end || !self.fill()? {
                break self.buffer.len();
            }
        };
        if end == self.start && end == self.buffer.len() {
            return Ok(None);
        }
        let start = self.start;
        self.start = (end + 1).min(self.buffer.len());
        self.searched = self.start;
        self.done += (self.start - start) as u64;
        self.lines += 1;
        let line = &self.buffer[start..end];
        // Other systems end their lines with two characters.
        Ok(Some(line.strip_suffix(b"\r").unwrap_or(line)))
    }

    /// The next bytes: fewer at the end.
    pub fn bytes(&mut self, count: usize) -> Result<&[u8], Failure> {
        while self.buffer.len() - self.start < count && self.fill()? {}
        let start = self.start;
        self.start = self.buffer.len().min(start.saturating_add(count));
        self.searched = self.start;
        self.done += (self.start - start) as u64;
        Ok(&self.buffer[start..self.start])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hands out a few bytes at a time, as a pipe does.
    struct Dripping(&'static [u8]);

    impl Read for Dripping {
        fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
            let count = to.len().min(3).min(self.0.len());
            to[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }

    fn lines(text: &'static [u8]) -> Vec<Vec<u8>> {
        let mut input = Input::new("test".to_owned(), Box::new(Dripping(text)));
        let mut lines = Vec::new();
        while let Some(line) = input.line().expect("it can be read") {
            lines.push(line.to_vec());
        }
        assert_eq!(input.done(), text.len() as u64);
        lines
    }

    #[test]
    fn lines_end_where_they_end() {
        assert_eq!(lines(b""), Vec::<Vec<u8>>::new());
        assert_eq!(lines(b"one"), [b"one"]);
        assert_eq!(lines(b"one\n\n\r\nfour\r\nfive"), [&b"one"[..], b"", b"", b"four", b"five"]);
        assert_eq!(lines(b"\n"), [b""]);
    }

    #[test]
    fn what_is_at_hand_needs_no_waiting() {
        let mut input = Input::new("test".to_owned(), Box::new(Dripping(b"a\nb\ncc")));
        assert!(!input.has_line());
        assert_eq!(input.line().expect("it can be read"), Some(&b"a"[..]));
        assert!(!input.has_line(), "only one more byte is there");
        assert_eq!(input.line().expect("it can be read"), Some(&b"b"[..]));
    }

    #[test]
    fn bytes_come_as_many_as_there_are() {
        let mut input = Input::new("test".to_owned(), Box::new(Dripping(b"0123456789")));
        assert_eq!(input.bytes(7).expect("it can be read"), b"0123456");
        assert_eq!(input.bytes(7).expect("it can be read"), b"789");
        assert_eq!(input.bytes(1).expect("it can be read"), b"");
    }
}
