//! Key, tab, value on a line; and another tab and the deadline, if the entry has one.

use std::rc::Rc;

use super::super::notation;
use super::super::text::shown;
use super::super::types::Types;
use super::input::Input;
use super::{Entry, Failure, Incoming, Knows, Outgoing, Reads, deadline, read_deadline};

/// Appends the line of an entry.
pub fn write(types: &Types, entry: &Outgoing<'_>, out: &mut Vec<u8>) {
    notation::write(&types.key, entry.key, out);
    out.push(b'\t');
    notation::write(&types.value, entry.value, out);
    if let Some(at) = entry.expires {
        out.push(b'\t');
        out.extend_from_slice(deadline(at).as_bytes());
    }
    out.push(b'\n');
}

pub struct Reader {
    input: Input,
}

impl Reader {
    pub fn new(input: Input) -> Reader {
        Reader { input }
    }
}

impl Reads for Reader {
    fn next(&mut self, maps: &mut dyn Knows) -> Result<Option<Incoming>, Failure> {
        let types = maps.types_of(None)?;
        let Some(line) = self.input.line()? else { return Ok(None) };
        match parse(&types, line) {
            Ok(entry) => Ok(Some(Incoming::Entry(entry))),
            Err(what) => Err(Failure::new(what)),
        }
    }

    fn is_at_hand(&mut self) -> bool {
        self.input.has_line()
    }

    fn done(&self) -> u64 {
        self.input.done()
    }

    fn place(&self) -> String {
        self.input.place()
    }
}

fn parse(types: &Rc<Types>, line: &[u8]) -> Result<Entry, String> {
    let mut cells = line.splitn(4, |byte| *byte == b'\t');
    let (key, value, expires) = (cells.next().unwrap_or_default(), cells.next(), cells.next());
    let Some(value) = value else {
        return Err(format!("expected a key, a tab and a value, found \"{}\"", shown(line)));
    };
    if cells.next().is_some() {
        return Err("there are too many tabs; write a tab in a key or a value as \\t".to_owned());
    }
    let key = notation::read(&types.key, key).map_err(|what| format!("the key: {what}"))?;
    let value = notation::read(&types.value, value).map_err(|what| format!("the value: {what}"))?;
    let expires = expires.map(|text| read_deadline(&String::from_utf8_lossy(text))).transpose()?;
    Ok(Entry { map: None, key, value, expires })
}
