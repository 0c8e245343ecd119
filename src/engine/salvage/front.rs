//! What the front of a file says about its log: the superblocks, and the live area.
//!
//! A superblock has a CRC. The live area has none, so each thing that it says is compared with something else: the head
//! of the log with the record there, the commit point with the number that is visible.

use zerocopy::FromBytes;

use super::reader::{Looked, Reader, Window};
use crate::engine::state::superblocks::{fields_are_sane, generation, newest};
use crate::error::{Error, Result};
use crate::file::layout::{
    EXTENTS, KNOWN_INCOMPATIBLE, MAGIC, SUPERBLOCK_A, SUPERBLOCK_B, Seq, Superblock, VERSION, commit_end, head, live,
};

/// Where the log begins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Begin {
    /// Offset of its first record.
    pub(crate) at: u64,
    /// The smallest number that a record of the log has.
    pub(crate) least: Seq,
    /// The first record holds.
    pub(crate) is_there: bool,
}

/// What the front says, as far as it can be believed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Front {
    pub(crate) begin: Option<Begin>,
    /// Seed of the key hash.
    pub(crate) seed: Option<u64>,
    /// The number of the last commit, or of one before it.
    pub(crate) last: Option<Seq>,
    /// Where the last commit ended, if the front says so.
    pub(crate) tail: Option<u64>,
    /// The word of the map table.
    pub(crate) map_table: Option<u64>,
    /// At least one superblock holds, or the file begins like a store.
    pub(crate) is_store: bool,
    /// The last number when the store was closed, if the superblock in force says that it was.
    pub(crate) closed_at: Option<Seq>,
    /// The length that the file should have had when it was closed.
    pub(crate) closed_len: Option<u64>,
    /// Neither superblock holds.
    pub(crate) is_headless: bool,
}

impl Front {
    pub(crate) fn of_file(reader: &Reader) -> Result<Front> {
        let bytes = reader.piece(0, EXTENTS);
        let found = [SUPERBLOCK_A, SUPERBLOCK_B].map(|at| {
            let superblock = Superblock::read_from_prefix(bytes.get(at as usize..)?).ok()?.0;
            Some(superblock)
        });
        refuse_other_versions(reader, &found)?;
        let valid = found.map(|superblock| superblock.filter(Superblock::holds).filter(fields_are_sane));
        let superblock = valid[newest(&valid)];
        let word = |at: u64| {
            let eight = bytes.get(at as usize..).and_then(|rest| rest.first_chunk().copied());
            u64::from_le_bytes(eight.unwrap_or_default())
        };
        let is_live = word(live::VERSION_WORD) == live::VERSION;
        let mut front = Front {
            begin: None,
            seed: superblock.map(|superblock| superblock.hash_seed.get()),
            last: superblock.map(|superblock| superblock.last_seq()),
            tail: None,
            map_table: is_live.then(|| word(live::MAP_TABLE)),
            is_store: found.iter().flatten().any(|superblock| superblock.magic == MAGIC) || is_live,
            closed_at: None,
            closed_len: None,
            is_headless: superblock.is_none(),
        };
        let mut window = Window::over(reader);
        front.begin = match superblock {
            Some(superblock) => {
                let own = begin_of(&mut window, &superblock);
                // If the newer one is lost, the older one's log may begin where space has been reused since.
                let is_alone = valid.iter().flatten().count() == 1;
                let of_live = if is_alone && is_live { head_of_live(&mut window, &word) } else { None };
                Some(of_live.filter(|of_live| of_live.least > own.least).unwrap_or(own))
            }
            None => is_live.then(|| head_of_live(&mut window, &word)).flatten(),
        };
        if let Some(superblock) = superblock.filter(Superblock::is_clean) {
            front.tail = Some(superblock.log_end.get());
            front.map_table = Some(superblock.map_table.get());
            front.closed_at = Some(superblock.last_seq());
            front.closed_len = Some(superblock.file_len.get());
        }
        if let Some((last, end)) = is_live.then(|| last_of_live(&word)).flatten().filter(|of| Some(of.0) >= front.last)
        {
            (front.last, front.tail) = (Some(last), Some(end));
        } else if superblock.is_some_and(|superblock| !superblock.is_clean()) {
            // A superblock of a store in use names a commit that others may have followed.
            front.tail = None;
        }
        Ok(front)
    }

    /// Whether no commit can have followed the last one that the front knows. That of a store in use may be older than
    /// the log.
    pub(crate) fn is_of_the_end(&self) -> bool {
        self.knows_the_end() && (self.is_headless || self.closed_at.is_some() && self.closed_at >= self.last)
    }

    /// Whether the front says which commit was the last.
    pub(crate) fn knows_the_end(&self) -> bool {
        self.tail.is_some()
    }
}

/// Where the log begins by a superblock.
fn begin_of(window: &mut Window<'_>, superblock: &Superblock) -> Begin {
    let (at, least, chain) = (superblock.log_head.get(), superblock.head_seq(), superblock.head_chain.get());
    Begin { at, least, is_there: is_first(window, at, (chain, least)) }
}

/// Whether the record at `at` holds, follows one with this CRC, and has at least this number.
fn is_first(window: &mut Window<'_>, at: u64, (chain, least): (u32, Seq)) -> bool {
    if at < EXTENTS || !at.is_multiple_of(8) || at >= window.reader.source_len() {
        return false;
    }
    matches!(window.look_at_record(at), Looked::Record(first)
        if first.header.chain.get() == chain && first.number() >= least)
}

/// Where the log begins by the live area, if the record there confirms it.
fn head_of_live(window: &mut Window<'_>, word: &dyn Fn(u64) -> u64) -> Option<Begin> {
    let bank = |number: u64| {
        let at = live::HEAD + number * live::HEAD_WORDS * 8;
        std::array::from_fn::<u64, 8, _>(|place| word(at + 8 * place as u64))
    };
    let mut banks = [bank(0), bank(1)];
    banks.sort_unstable_by_key(|bank| std::cmp::Reverse(bank[head::NUMBER]));
    banks.into_iter().find_map(|bank| {
        let (at, least) = (bank[head::AT], Seq(bank[head::SEQ]));
        is_first(window, at, (bank[head::CHAIN] as u32, least)).then_some(Begin { at, least, is_there: true })
    })
}

/// The last commit by the live area and where it ended, if its two words agree.
fn last_of_live(word: &dyn Fn(u64) -> u64) -> Option<(Seq, u64)> {
    let (visible, point) = (Seq(word(live::VISIBLE)), word(live::COMMIT_POINT));
    let last = Seq::of_commit_word(point, visible);
    let agree = visible.incarnation() > 0 && last >= visible && last.0 - visible.0 <= 2;
    agree.then_some((last, commit_end(point)))
}

/// Refuses what only another version can read.
fn refuse_other_versions(reader: &Reader, found: &[Option<Superblock>; 2]) -> Result<()> {
    let path = || reader.source_path().to_owned();
    let versions: Vec<u32> = found.iter().flatten().filter(|s| s.magic == MAGIC).map(|s| s.version.get()).collect();
    // If only one of them says so, it is damaged.
    if let [one, other] = versions[..]
        && one == other
        && one != VERSION
    {
        return Err(Error::UnsupportedVersion { path: path(), found: one, supported: VERSION });
    }
    let holds = found.iter().flatten().filter(|superblock| superblock.holds());
    let newest = holds.max_by_key(|superblock| generation(&Some(**superblock)));
    match newest.map(|superblock| superblock.incompatible.get() & !KNOWN_INCOMPATIBLE) {
        Some(features) if features != 0 => Err(Error::UnsupportedFeature { path: path(), features }),
        _ => Ok(()),
    }
}
