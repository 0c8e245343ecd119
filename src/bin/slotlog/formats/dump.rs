//! The binary dump, which is described in `docs/tools.md`: blocks with checksums, and an end that tells a whole one.

use std::rc::Rc;

use super::input::Input;
use super::{Entry, Failure, Head, Incoming, Knows, Outgoing, Reads, milliseconds, time};

/// What a dump begins with.
pub const MAGIC: &[u8] = b"slotlog dump 1\n";

/// A block that is as long as this is written.
const BLOCK: usize = 1 << 18;

// What a record of a block is.
const MAP: u8 = 1;
const ENTRY: u8 = 2;
const EXPIRING: u8 = 3;
const END: u8 = 4;

/// Makes the bytes of a dump.
pub struct Writer {
    block: Vec<u8>,
    entries: u64,
}

impl Writer {
    pub fn new() -> Writer {
        Writer { block: Vec::new(), entries: 0 }
    }

    /// What follows belongs to this map.
    pub fn map(&mut self, map: &Head) {
        self.block.push(MAP);
        self.block.extend_from_slice(&map.version.to_le_bytes());
        for text in [&map.name, &map.types] {
            self.block.extend_from_slice(&(text.len() as u32).to_le_bytes());
            self.block.extend_from_slice(text.as_bytes());
        }
    }

    pub fn entry(&mut self, entry: &Outgoing<'_>) {
        self.block.push(if entry.expires.is_some() { EXPIRING } else { ENTRY });
        self.block.extend_from_slice(&(entry.key.len() as u32).to_le_bytes());
        self.block.extend_from_slice(&(entry.value.len() as u32).to_le_bytes());
        if let Some(at) = entry.expires {
            self.block.extend_from_slice(&milliseconds(at).to_le_bytes());
        }
        self.block.extend_from_slice(entry.key);
        self.block.extend_from_slice(entry.value);
        self.entries += 1;
    }

    /// Appends the block to the output, once it is long enough.
    pub fn write(&mut self, out: &mut Vec<u8>) {
        if self.block.len() >= BLOCK {
            self.write_block(out);
        }
    }

    /// Appends what is left, and the end.
    pub fn end(&mut self, out: &mut Vec<u8>) {
        self.block.push(END);
        self.block.extend_from_slice(&self.entries.to_le_bytes());
        self.write_block(out);
    }

    fn write_block(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(&(self.block.len() as u64).to_le_bytes());
        out.extend_from_slice(&crc32fast::hash(&self.block).to_le_bytes());
        out.append(&mut self.block);
    }
}

pub struct Reader {
    input: Input,
    block: Vec<u8>,
    /// What is left of the block begins here.
    at: usize,
    /// The map that entries belong to.
    map: Option<Rc<str>>,
    entries: u64,
    has_begun: bool,
    has_ended: bool,
}

impl Reader {
    pub fn new(input: Input) -> Reader {
        Reader { input, block: Vec::new(), at: 0, map: None, entries: 0, has_begun: false, has_ended: false }
    }

    /// Reads the next block, which is checked before anything of it is believed.
    fn read_block(&mut self) -> Result<(), Failure> {
        if !self.has_begun && self.input.bytes(MAGIC.len())? != MAGIC {
            return Err(Failure::new("this is no dump of slotlog; see --format"));
        }
        self.has_begun = true;
        let cut_off = || Failure::new("the dump is cut off; make it anew");
        let head: [u8; 12] = self.input.bytes(12)?.try_into().map_err(|_| cut_off())?;
        let (len, crc) = head.split_at(8);
        let len = u64::from_le_bytes(len.try_into().unwrap_or_default());
        let len = usize::try_from(len).map_err(|_| cut_off())?;
        let block = self.input.bytes(len)?;
        if block.len() < len {
            return Err(cut_off());
        }
        if crc32fast::hash(block).to_le_bytes() != crc {
            return Err(Failure::new("the dump is damaged; fetch it again, or make it anew"));
        }
        self.block.clear();
        self.block.extend_from_slice(block);
        self.at = 0;
        Ok(())
    }

    fn record(&mut self) -> Option<Incoming> {
        let rest = &mut &self.block[self.at..];
        let before = rest.len();
        let number = |rest: &mut &[u8]| Some(u32::from_le_bytes(rest.split_off(..4)?.try_into().ok()?));
        let long = |rest: &mut &[u8]| Some(u64::from_le_bytes(rest.split_off(..8)?.try_into().ok()?));
        let incoming = match *rest.split_off_first()? {
            MAP => {
                let version = number(rest)?;
                let mut text = || {
                    let len = number(rest)? as usize;
                    Some(std::str::from_utf8(rest.split_off(..len)?).ok()?.to_owned())
                };
                let (name, types) = (text()?, text()?);
                self.map = Some(name.as_str().into());
                Incoming::Map(Head { name, types, version })
            }
            kind @ (ENTRY | EXPIRING) => {
                let (key, value) = (number(rest)? as usize, number(rest)? as usize);
                let expires = if kind == EXPIRING { Some(time(long(rest)?)?) } else { None };
                let (key, value) = (rest.split_off(..key)?.to_vec(), rest.split_off(..value)?.to_vec());
                self.entries += 1;
                Incoming::Entry(Entry { map: self.map.clone(), key, value, expires })
            }
            END => {
                self.has_ended = long(rest)? == self.entries && rest.is_empty();
                return None;
            }
            _ => return None,
        };
        self.at += before - rest.len();
        Some(incoming)
    }
}

/// Another dump, perhaps, which must not be overlooked.
fn more() -> Failure {
    Failure::new("there is more after the end of the dump; import each dump by itself")
}

impl Reads for Reader {
    fn next(&mut self, _: &mut dyn Knows) -> Result<Option<Incoming>, Failure> {
        loop {
            if self.has_ended {
                return if self.input.bytes(1)?.is_empty() { Ok(None) } else { Err(more()) };
            }
            if self.at == self.block.len() {
                self.read_block()?;
            }
            match self.record() {
                // The default map needs no creation.
                Some(Incoming::Map(head)) if head.name.is_empty() => {}
                Some(incoming) => return Ok(Some(incoming)),
                None if self.has_ended => {}
                None => return Err(Failure::new("the dump has a record that this version does not know")),
            }
        }
    }

    fn is_at_hand(&mut self) -> bool {
        self.at < self.block.len()
    }

    fn done(&self) -> u64 {
        self.input.done()
    }

    fn place(&self) -> String {
        format!("{}: byte {}", self.input.name(), self.input.done())
    }
}
