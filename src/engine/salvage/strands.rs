//! Strands: which runs were the log.
//!
//! A strand is a chain of runs: a jump leads from one to the next, or the records between them are damaged and one
//! still has the CRC that the next run follows, stored or by its content. What belongs together by these links was
//! written one after the other by the store; what lies inside a value has no such links to what lies outside.
//!
//! If the log is whole, from where the front says that it begins to where it says that the last commit ended, it is
//! that and nothing else. Otherwise strands are believed in this order, as long as their numbers do not contradict
//! those believed before:
//!
//! 1. the one that contains the beginning of the log, or its end;
//! 2. those that a slot of the index leads into;
//! 3. the largest, if there is nothing else to begin with;
//! 4. those that fit into a hole: eight commits or more; eight records or more of the commit that the hole lies in; or,
//!    if there is no index, fewer, with at least one number left on either side for the damaged records that surround
//!    them. (Where there is an index, what no slot leads into has been replaced anyway.) One damaged record leaves no
//!    such room; so a value that looks like records needs three damaged commits and their numbers to get into the log,
//!    and the loss of the index. Records of a commit also have to lie beside its other records, with nothing but damage
//!    between: what a transaction rolled back has the number of the commit, but lies in space of its own.
//!
//! Records with numbers from before the beginning of the log are stale, and those from after its end were never
//! committed.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::front::Front;
use super::reader::{CHUNK, Looked, Reader, Window, plausible};
use super::survey::Run;
use crate::file::layout::{
    Kind, MAP_TABLE_MAGIC, RECORD_HEADER, REGION_MAGIC, RecordHeader, SPACE_TABLE_MAGIC, Seq, align_block,
};

/// A part of a run that was the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    pub(crate) run: usize,
    /// Offset of its first record.
    pub(crate) from: u64,
}

/// Something is missing between two pieces of the log.
#[derive(Clone, Debug)]
pub(crate) struct Hole {
    /// The number of the piece after it.
    pub(crate) before: usize,
    /// Where it begins, in the file.
    pub(crate) at: u64,
    /// The damaged records that it consists of, if these are known.
    pub(crate) damaged: Vec<u64>,
    /// The last number before it.
    pub(crate) after_number: Seq,
    /// The commit of that number is not complete.
    pub(crate) is_open: bool,
    /// The first number after it.
    pub(crate) next_number: Seq,
}

/// As many commits, or as many records of one commit, need no room beside them to fit into a hole: they prove that it
/// is large.
const MANY: u64 = 8;

/// What is believed to have been the log.
#[derive(Debug, Default)]
pub(crate) struct Log {
    pub(crate) pieces: Vec<Piece>,
    pub(crate) holes: Vec<Hole>,
    /// Records with smaller numbers are stale.
    pub(crate) least: Seq,
    /// Records with larger numbers were not committed.
    pub(crate) most: Seq,
    /// The commit that it shows, if it shows one.
    pub(crate) commit: Option<Seq>,
    /// Something is missing at its end.
    pub(crate) lacks_its_end: bool,
    /// Something is missing at its beginning, or nothing tells where it began.
    pub(crate) lacks_its_beginning: bool,
    /// Records that are not believed.
    pub(crate) doubtful: u64,
    /// Of these, those of later commits than the last one.
    pub(crate) later: u64,
}

/// Says whether a slot of the index leads to a record of this run. `None` if there is no index.
pub(crate) type LeadsInto<'a> = Option<&'a mut dyn FnMut(&Run) -> bool>;

/// How a run goes on.
#[derive(Clone, Debug)]
struct Link {
    to: usize,
    /// The damaged records between the two.
    damaged: Vec<u64>,
}

/// Runs that belong together.
#[derive(Clone, Debug)]
struct Strand {
    runs: Vec<usize>,
    first: Seq,
    last: Seq,
    records: u64,
    commits: u64,
    is_open: bool,
}

/// The log, if it is whole: see the module.
pub(crate) fn whole_log(runs: &[Run], front: &Front, window: &mut Window<'_>) -> Option<Log> {
    let begin = front.begin.filter(|_| front.knows_the_end())?;
    let last_known = front.last?;
    let mut log = Log { least: begin.least, ..Log::default() };
    let mut commit = begin.least.before();
    let mut commit_end = begin.at;
    if begin.is_there {
        let mut next = Some(Piece { run: run_at(runs, begin.at)?, from: begin.at });
        let mut seen = BTreeSet::new();
        while let Some(piece) = next.filter(|piece| seen.insert(piece.run)) {
            let run = &runs[piece.run];
            if let Some(last) = run.last_commit {
                (commit, commit_end) = (last, run.commit_end);
            }
            log.pieces.push(piece);
            next = jumped_to(runs, piece.run).map(|to| Piece { run: to, from: runs[to].start });
        }
    } else if !matches!(window.look_at_record(begin.at), Looked::Nothing) || front.tail != Some(begin.at) {
        return None;
    }
    // Numbers that were skipped after the last commit count as well.
    if commit < last_known && front.tail != Some(commit_end) {
        return None;
    }
    (log.commit, log.most) = (Some(commit), commit);
    let used: BTreeSet<usize> = log.pieces.iter().map(|piece| piece.run).collect();
    let later = (0..).zip(runs).filter(|(at, run)| !used.contains(at) && run.first > commit.next() && run.commits > 0);
    log.later = later.map(|(_, run)| run.records).sum();
    log.doubtful = log.later;
    Some(log)
}

/// The run that contains an offset.
pub(crate) fn run_at(runs: &[Run], at: u64) -> Option<usize> {
    let after = runs.partition_point(|run| run.start <= at);
    after.checked_sub(1).filter(|&found| at < runs[found].end)
}

/// The run that a jump at the end of this one leads to.
fn jumped_to(runs: &[Run], from: usize) -> Option<usize> {
    let run = &runs[from];
    let to = runs.binary_search_by_key(&run.goes_on_at, |next| next.start).ok().filter(|_| run.jumps)?;
    let next = &runs[to];
    (next.first_chain == run.last_crc && next.first >= run.last && to != from).then_some(to)
}

/// Finds out which run follows which.
fn links(runs: &[Run], head: Option<usize>, reader: &Reader) -> Vec<Option<Link>> {
    let mut links: Vec<Option<Link>> = vec![None; runs.len()];
    let mut taken = vec![false; runs.len()];
    let jumps: Vec<Option<usize>> = (0..runs.len()).map(|at| jumped_to(runs, at)).collect();
    let mut is_led_to = vec![false; runs.len()];
    jumps.iter().copied().flatten().chain(head).for_each(|to| is_led_to[to] = true);
    // A page that was written to another place as well leads on like the true one, but nothing leads to it.
    let (led_to, others): (Vec<usize>, Vec<usize>) = (0..runs.len()).partition(|&at| is_led_to[at]);
    for at in led_to.into_iter().chain(others) {
        if let Some(to) = jumps[at].filter(|&to| !taken[to]) {
            taken[to] = true;
            links[at] = Some(Link { to, damaged: Vec::new() });
        }
    }
    let mut free = Free::default();
    (0..runs.len()).filter(|&at| !taken[at]).for_each(|at| free.add(at, &runs[at]));
    let mut damage = Damage { reader, patience: reader.source_len().saturating_mul(4).saturating_add(64 << 20) };
    // What a stale jump leads to may be damaged as well: the run that the damaged record says it follows comes first.
    for is_confirmed in [true, false] {
        for at in 0..runs.len() {
            if links[at].is_some() {
                continue;
            }
            let found = damage.behind(&runs[at], is_confirmed, |crc| free.find(crc, at, &runs[at]));
            let found = found.filter(|link| is_confirmed || is_near(&runs[at], &runs[link.to], link));
            if let Some(link) = found {
                free.remove(&runs[link.to]);
                links[at] = Some(link);
            }
        }
    }
    links
}

/// Whether the numbers of two runs are as close as those on both sides of some damaged records are.
fn is_near(from: &Run, to: &Run, link: &Link) -> bool {
    to.first.0 - from.last.0 <= link.damaged.len() as u64 + 2
}

/// Runs that nothing leads to yet, by the CRC that they follow, their first number, and their offset.
#[derive(Default)]
struct Free(BTreeMap<(u32, Seq, u64), usize>);

impl Free {
    fn add(&mut self, at: usize, run: &Run) {
        self.0.insert((run.first_chain, run.first, run.start), at);
    }

    fn remove(&mut self, run: &Run) {
        self.0.remove(&(run.first_chain, run.first, run.start));
    }

    /// The run that follows one by this CRC: of those with the smallest number, the nearest one.
    fn find(&self, crc: u32, at: usize, run: &Run) -> Option<usize> {
        let mut numbers = self.0.range((crc, run.last, 0)..=(crc, Seq::MAX, u64::MAX));
        let (&(_, number, _), _) = numbers.find(|&(_, &to)| to != at)?;
        let place = (crc, number, run.goes_on_at);
        let behind = self.0.range(place..=(crc, number, u64::MAX)).find(|&(_, &to)| to != at);
        let before = self.0.range((crc, number, 0)..place).rfind(|&(_, &to)| to != at);
        let distance = |found: &(&(u32, Seq, u64), &usize)| found.0.2.abs_diff(run.goes_on_at);
        behind.into_iter().chain(before).min_by_key(distance).map(|(_, &to)| to)
    }
}

/// How many damaged records are passed at once.
const DAMAGED: usize = 256;

/// Finds the way past damaged records.
struct Damage<'r> {
    reader: &'r Reader,
    /// In a hostile file, many jumps may lead to what looks like a long damaged record.
    patience: u64,
}

impl Damage<'_> {
    /// Passes the damaged records after a run, as long as their headers follow each other, to a run that follows them.
    /// `is_confirmed`: the first one says that it follows the run.
    fn behind(&mut self, run: &Run, is_confirmed: bool, find: impl Fn(u32) -> Option<usize>) -> Option<Link> {
        let (mut at, mut chain, mut damaged) = (run.goes_on_at, run.last_crc, Vec::new());
        while damaged.len() < DAMAGED {
            let header = self.reader.raw_header(at);
            if is_confirmed && header.chain.get() != chain {
                return None;
            }
            damaged.push(at);
            let stored = header.crc.get();
            let of_content = self.crc_of_content(at, &header);
            if stored == of_content {
                // It is not damaged, and a part of something else.
                return None;
            }
            if let Some(to) = [stored, of_content].into_iter().filter(|&crc| crc != 0).find_map(&find) {
                return Some(Link { to, damaged });
            }
            let kind = plausible(&header, at, self.reader.source_len()).filter(|_| header.chain.get() == chain)?;
            at = if kind == Kind::Jump { self.reader.word(at + RECORD_HEADER) } else { at + header.record_len() };
            chain = stored;
        }
        None
    }

    /// The CRC of the content of the damaged record at `at`, which the one after it repeats if only the stored one is
    /// damaged. Zero if it has no content.
    fn crc_of_content(&mut self, at: u64, header: &RecordHeader) -> u32 {
        let len = header.record_len();
        if len > CHUNK || len > self.patience || plausible(header, at, self.reader.source_len()).is_none() {
            return 0;
        }
        self.patience -= len;
        crc32fast::hash(&self.reader.piece(at, len)[4..])
    }
}

/// Puts the runs together.
fn strands(runs: &[Run], links: &[Option<Link>]) -> Vec<Strand> {
    let mut is_led_to = vec![false; runs.len()];
    for link in links.iter().flatten() {
        is_led_to[link.to] = true;
    }
    let mut strands = Vec::new();
    let mut seen = vec![false; runs.len()];
    for first in (0..runs.len()).filter(|&at| !is_led_to[at]) {
        let (first_number, last) = (runs[first].first, Seq::ZERO);
        let mut strand = Strand { runs: Vec::new(), first: first_number, last, records: 0, commits: 0, is_open: false };
        let mut next = Some(first);
        while let Some(at) = next.filter(|&at| !std::mem::replace(&mut seen[at], true)) {
            let run = &runs[at];
            strand.runs.push(at);
            (strand.last, strand.is_open) = (run.last, run.is_open);
            strand.records += run.records;
            strand.commits += run.commits;
            next = links[at].as_ref().map(|link| link.to);
        }
        strands.push(strand);
    }
    strands
}

/// Where a strand stands in the log. Of those of one commit, the one that goes on after it is the last; of those that
/// lie in the middle of it, the offset has to tell.
type Standing = (Seq, Seq, bool, u64);

impl Strand {
    /// Where it begins, and where it goes on.
    fn bounds(&self, runs: &[Run]) -> (u64, u64) {
        let start = self.runs.first().map_or(0, |&first| runs[first].start);
        (start, self.runs.last().map_or(start, |&last| runs[last].goes_on_at))
    }

    fn standing(&self, runs: &[Run]) -> Standing {
        (self.first, self.last, !self.is_open, self.runs.first().map_or(0, |&first| runs[first].start))
    }
}

/// Whether all that begins in this space belongs to one commit, and to the middle of it.
fn is_one_commit(runs: &[Run], space: Range<u64>, commit: Seq) -> bool {
    let of = runs.partition_point(|run| run.start < space.start)..runs.partition_point(|run| run.start < space.end);
    let is_within = |run: &Run| (run.first, run.last, run.commits) == (commit, commit, 0);
    space.start <= space.end && runs[of].iter().all(is_within)
}

/// Strands that are believed, in the order of the log.
#[derive(Default)]
struct Believed {
    in_order: BTreeMap<Standing, Strand>,
}

impl Believed {
    /// Whether a strand lies between those that are believed, with `room` numbers to spare on either side; without any,
    /// it may begin or end within a commit.
    fn has_room_for(&self, strand: &Strand, at: Standing, room: u64, front: &Front) -> bool {
        let is_after = |before: &Strand, after: &Strand| match room {
            0 => before.last < after.first || before.is_open && before.last == after.first,
            room => before.last.0 + room <= after.first.0,
        };
        let (before, after) = self.around(at);
        let follows = match (before, front.begin) {
            (Some(before), _) => is_after(before, strand),
            (None, Some(begin)) => begin.least <= strand.first,
            // Nothing tells where the log began.
            (None, None) => true,
        };
        let is_known = front.last.is_some_and(|last| strand.last <= last);
        let is_followed = match after {
            Some(after) => is_after(strand, after),
            None => is_known || !front.is_of_the_end() && strand.commits > 1,
        };
        follows && is_followed
    }

    /// The strands before and after this place.
    fn around(&self, at: Standing) -> (Option<&Strand>, Option<&Strand>) {
        let before = self.in_order.range(..at).next_back().map(|(_, before)| before);
        (before, self.in_order.range(at..).next().map(|(_, after)| after))
    }

    /// Whether a strand that nothing leads to is large enough for the hole that it fits into. Without an index, a small
    /// one is.
    fn has_hole_for(&self, strand: &Strand, runs: &[Run], has_index: bool, front: &Front) -> bool {
        let at = strand.standing(runs);
        let is_large = || strand.records >= MANY && self.is_within_commit(strand, runs, front);
        let proves_room = strand.commits >= MANY || is_large();
        let room = if proves_room { 0 } else { 2 };
        let is_enough = proves_room || strand.commits > 0 && !has_index;
        is_enough && self.has_room_for(strand, at, room, front)
    }

    /// Whether a strand lies within a commit whose beginning, if it is known where the log began, and whose end are
    /// believed, and beside one of these.
    fn is_within_commit(&self, strand: &Strand, runs: &[Run], front: &Front) -> bool {
        let (before, after) = self.around(strand.standing(runs));
        let begins = before.map_or(front.begin.is_none(), |before| before.is_open && before.last == strand.first);
        let Some(after) = after.filter(|after| after.first == strand.last) else { return false };
        let (start, end) = strand.bounds(runs);
        let (next, _) = after.bounds(runs);
        let is_free =
            |space: Range<u64>, other: u64| !space.contains(&other) && is_one_commit(runs, space, strand.first);
        let is_beside = match before.map(|before| before.bounds(runs)) {
            Some((last, before)) => is_free(before..start, next) || is_free(end..next, last),
            None => is_free(end..next, start),
        };
        strand.first == strand.last && begins && is_beside
    }

    fn believe(&mut self, strand: Strand, at: Standing) {
        self.in_order.insert(at, strand);
    }
}

/// Takes away what precedes the beginning of the log: it is no part of it, even if it leads there.
fn cut_beginnings(strands: &mut Vec<Strand>, head: Option<usize>, least: Seq, runs: &[Run]) {
    strands.retain(|strand| strand.last >= least);
    for strand in strands {
        let from = strand.runs.iter().position(|&run| Some(run) == head);
        strand.runs.drain(..from.unwrap_or(0));
        // Where the beginning itself is damaged, the numbers tell.
        strand.runs.retain(|&run| runs[run].last >= least);
        strand.first = strand.runs.first().map_or(least, |&first| runs[first].first.max(least));
    }
}

/// The log of a file in which something is missing.
pub(crate) fn damaged_log(runs: &[Run], front: &Front, reader: &Reader, mut leads: LeadsInto<'_>) -> Log {
    let head = front.begin.filter(|begin| begin.is_there).and_then(|begin| run_at(runs, begin.at));
    let links = links(runs, head, reader);
    let mut rest = strands(runs, &links);
    let least = front.begin.map_or(Seq::ZERO, |begin| begin.least);
    cut_beginnings(&mut rest, head, least, runs);
    let mut log = Log { least, most: Seq::MAX, ..Log::default() };
    // What lies within a commit comes after what shows that there is one.
    rest.sort_by_key(|strand| (strand.commits == 0, std::cmp::Reverse(strand.records)));
    let is_end = |strand: &Strand| {
        let last = strand.runs.last().map(|&last| &runs[last]);
        last.is_some_and(|last| last.commits > 0 && Some(last.commit_end) == front.tail)
    };
    let mut believed = Believed::default();
    let (sure, rest): (Vec<Strand>, Vec<Strand>) =
        rest.into_iter().partition(|strand| head.is_some_and(|head| strand.runs.contains(&head)) || is_end(strand));
    // What was written since has no slots.
    let is_index_old = front.closed_at.is_none() && !front.is_headless;
    let mut unsure = Vec::new();
    let mut led_to = Vec::new();
    for strand in rest {
        if leads.as_mut().is_some_and(|leads| strand.runs.iter().any(|&run| leads(&runs[run]))) {
            led_to.push(strand)
        } else {
            unsure.push(strand)
        }
    }
    for strand in sure.into_iter().chain(led_to) {
        let at = strand.standing(runs);
        if believed.has_room_for(&strand, at, 0, front) {
            believed.believe(strand, at);
        } else {
            log.doubtful += strand.records;
        }
    }
    for strand in unsure {
        let at = strand.standing(runs);
        let is_first = believed.in_order.is_empty() && front.begin.is_none();
        let has_index = leads.is_some() && !is_index_old;
        let fits = || believed.has_hole_for(&strand, runs, has_index, front);
        let from_its_end = (strand.last, Seq::ZERO, false, 0);
        let is_older = front.begin.is_none() && believed.in_order.range(from_its_end..).next().is_some();
        let is_stale = || is_older && strand.runs.last().is_some_and(|&last| is_reused(reader, runs, last));
        if is_first || fits() && !is_stale() {
            believed.believe(strand, at);
        } else {
            log.doubtful += strand.records;
        }
    }
    log.put_together(&believed, &links, runs, front);
    log
}

/// Whether the space after a run is used for something else by now, so that the run lies in space that was freed: space
/// is freed in the order of the log.
fn is_reused(reader: &Reader, runs: &[Run], run: usize) -> bool {
    let at = align_block(runs[run].goes_on_at);
    let magic = reader.word(at).to_le_bytes();
    let is_other = [REGION_MAGIC, MAP_TABLE_MAGIC, SPACE_TABLE_MAGIC].contains(&magic);
    // A damaged record may lie that close to an extent of something else; then the log goes on before it.
    let next = runs.partition_point(|other| other.start < runs[run].goes_on_at);
    match runs.get(next).map(|next| next.start) {
        Some(next) if next < at => false,
        next => is_other || next == Some(at),
    }
}

impl Log {
    /// The number of its last record.
    pub(crate) fn last_number(&self, runs: &[Run]) -> Option<Seq> {
        self.pieces.last().map(|last| runs[last.run].last)
    }

    /// Puts the strands one after the other.
    fn put_together(&mut self, believed: &Believed, links: &[Option<Link>], runs: &[Run], front: &Front) {
        let begin = front.begin.filter(|begin| begin.is_there);
        let mut before: Option<usize> = None;
        for &at in believed.in_order.values().flat_map(|strand| &strand.runs) {
            let run = &runs[at];
            let link = before.and_then(|before| links[before].as_ref().filter(|link| link.to == at));
            let is_direct = link.is_some_and(|link| link.damaged.is_empty());
            if let Some(before) = before.map(|before| &runs[before]).filter(|_| !is_direct) {
                self.holes.push(Hole {
                    before: self.pieces.len(),
                    at: before.goes_on_at,
                    damaged: link.map_or_else(Vec::new, |link| link.damaged.clone()),
                    after_number: before.last,
                    is_open: before.is_open,
                    next_number: run.first,
                });
            }
            let from =
                begin.map(|begin| begin.at).filter(|at| self.pieces.is_empty() && (run.start..run.end).contains(at));
            self.pieces.push(Piece { run: at, from: from.unwrap_or(run.start) });
            before = Some(at);
        }
        self.lacks_its_beginning = match begin {
            Some(begin) => self.pieces.first().is_some_and(|first| first.from != begin.at),
            None => true,
        };
        if let Some(last) = before.map(|last| &runs[last]) {
            // A commit without its last record was not committed, unless the front says that it was.
            // A number that is never used again counts as the last one, too.
            let was_committed = !last.is_open || front.last > Some(last.last) || front.tail.is_some();
            self.most = if was_committed { last.last } else { last.last.before() };
            let reached = last.last_commit.unwrap_or_default();
            let is_at_end = front.last.is_none_or(|known| reached >= known) || Some(last.commit_end) == front.tail;
            self.lacks_its_end = !is_at_end || last.is_open && was_committed;
            let is_whole = self.holes.is_empty() && !self.lacks_its_end && !self.lacks_its_beginning;
            self.commit = Some(reached).filter(|_| is_whole);
        } else {
            self.lacks_its_end = front.last.is_none_or(|last| last >= self.least);
        }
    }
}
