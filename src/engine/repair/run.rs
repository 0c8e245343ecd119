//! The repair of a store, from its file to a new one.

use std::path::Path;

use super::catalogue::Catalogue;
use super::report::{RepairOptions, RepairProgress, RepairReport};
use super::target::Target;
use crate::engine::lookup::keys::WAS_DAMAGED;
use crate::engine::open::place::Place;
use crate::engine::salvage::front::Front;
use crate::engine::salvage::judge::{Grade, Judge, Lost, Seen, Verdict};
use crate::engine::salvage::reader::{Reader, Window, header_in};
use crate::engine::salvage::slots::Slots;
use crate::engine::salvage::strands::{Hole, LeadsInto, Log, damaged_log, whole_log};
use crate::engine::salvage::survey::{Run, survey};
use crate::error::Error;
use crate::file::layout::{CATALOGUE, RECORD_HEADER, Seq};

/// Repairs a damaged store: copies everything that can be saved from the file at `from` to a new store at `to`, and
/// reports what was kept, lost and doubtful. The source is only read: whoever keeps it can try again.
///
/// It works whatever is damaged, also if the store cannot be opened: every record has a checksum of its own, and is
/// saved if that holds, and if it was a part of the log. Each key gets its newest version; what was removed, cleared,
/// dropped, renamed or replaced stays so; expiry times, and the names and types of maps, are kept. A key whose newest
/// record is lost is left out, [unless asked for](RepairOptions::older_versions), since that record may have removed
/// it. Neither what lies in space that was freed, nor a value that looks like a record, comes back, as long as the file
/// tells where its log is; where the front of the file is lost as well, such keys count as
/// [doubtful](RepairReport::doubtful_keys).
///
/// If the file is whole, the new store equals it, compacted. A copy of a store in use is repaired to the last commit
/// that it has as a whole, if it has one: [`RepairReport::commit`] tells.
///
/// A file is at `to` only once the new store is complete and flushed. Until then it is `<to>.unfinished`; if this fails
/// or is stopped, that is removed; if the process is killed, the next repair to the same path removes it. It has the
/// permissions of the source under the umask.
///
/// ```
/// use slotlog::Store;
///
/// # let folder = tempfile::tempdir()?;
/// # let (path, repaired) = (folder.path().join("app.slotlog"), folder.path().join("repaired.slotlog"));
/// let store = Store::open(&path)?;
/// store.insert("Ada", "36")?;
/// store.insert("Bob", "unlucky")?;
/// store.insert("Cleo", "69")?;
/// store.close()?;
///
/// let mut bytes = std::fs::read(&path)?;
/// let at = bytes.windows(7).position(|seven| seven == b"unlucky").ok_or("not found")?;
/// bytes[at] ^= 1;
/// bytes[..8192].fill(0); // both superblocks
/// std::fs::write(&path, bytes)?;
///
/// let report = slotlog::repair(&path, &repaired)?;
/// assert_eq!((report.keys(), report.lost_keys()), (2, 1));
/// let store = Store::open(&repaired)?;
/// assert_eq!(store.get("Ada")?.as_deref(), Some(&b"36"[..]));
/// assert_eq!(store.get("Bob")?, None);
/// assert_eq!(store.get("Cleo")?.as_deref(), Some(&b"69"[..]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Cost
/// The file is read once, and what was its log once more; each key is written once. It takes memory for the longest
/// record and about 20 to 40 bytes a key; if something is missing in the log, the index as well.
///
/// # Errors
/// For the source: [`NotFound`](Error::NotFound); [`NotAFile`](Error::NotAFile); [`NotAStore`](Error::NotAStore) if
/// it is empty, or has nothing of a store in it; [`Locked`](Error::Locked) if a process has it open for writing, at the
/// beginning or at the end of the repair; [`UnsupportedVersion`](Error::UnsupportedVersion) and
/// [`UnsupportedFeature`](Error::UnsupportedFeature).
///
/// For the target: [`AlreadyExists`](Error::AlreadyExists) unless it is to be [replaced](RepairOptions::overwrite);
/// [`OntoItself`](Error::OntoItself) if it is the source; [`NotFound`](Error::NotFound) if its folder does not exist;
/// [`Locked`](Error::Locked) if it is to be replaced while a process has it open, or another repair to it is in
/// progress; those of [`Store::open`](crate::Store::open) and [`insert`](crate::Store::insert), like
/// [`Full`](Error::Full).
pub fn repair(from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<RepairReport, Error> {
    repair_with(from, to, RepairOptions::new())
}

/// [Repairs](repair()) a damaged store, with options: progress, a way to stop, what to do with keys whose newest record
/// is lost, and whether to replace the target.
///
/// ```
/// use slotlog::{RepairOptions, Store};
///
/// # let folder = tempfile::tempdir()?;
/// # let (path, repaired) = (folder.path().join("app.slotlog"), folder.path().join("repaired.slotlog"));
/// let store = Store::open(&path)?;
/// store.insert("Ada", "36")?;
/// store.insert("Ada", "unlucky")?;
/// store.close()?;
///
/// let mut bytes = std::fs::read(&path)?;
/// let at = bytes.windows(7).position(|seven| seven == b"unlucky").ok_or("not found")?;
/// bytes[at] ^= 1;
/// std::fs::write(&path, bytes)?;
///
/// let report = slotlog::repair_with(&path, &repaired, RepairOptions::new().older_versions(true))?;
/// assert_eq!((report.keys(), report.older_keys()), (1, 1));
/// assert_eq!(Store::open(&repaired)?.get("Ada")?.as_deref(), Some(&b"36"[..]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// Those of [`repair`](repair()).
pub fn repair_with(
    from: impl AsRef<Path>,
    to: impl AsRef<Path>,
    options: RepairOptions<'_>,
) -> Result<RepairReport, Error> {
    let (from, to) = (from.as_ref(), to.as_ref());
    let reader = Reader::open_source(from)?;
    let place = Place::check(to, Some(reader.source()), options.existing)?;
    reader.refuse_in_use()?;
    let mut repair = Repair::begin(&reader, options);
    match repair.run(&place) {
        Ok(()) => repair.report.finished = true,
        Err(Halt::Stopped) => {}
        Err(Halt::Failed(error)) => return Err(error),
    }
    Ok(repair.report)
}

/// Why a repair did not come to its end.
enum Halt {
    /// Its caller wanted to stop.
    Stopped,
    Failed(Error),
}

impl From<Error> for Halt {
    fn from(error: Error) -> Halt {
        Halt::Failed(error)
    }
}

type Result<T, E = Halt> = std::result::Result<T, E>;

/// A repair that is going on.
struct Repair<'r, 'p> {
    reader: &'r Reader,
    options: RepairOptions<'p>,
    report: RepairReport,
    progress: RepairProgress,
}

impl<'r, 'p> Repair<'r, 'p> {
    fn begin(reader: &'r Reader, options: RepairOptions<'p>) -> Repair<'r, 'p> {
        let bytes = reader.source_len();
        let progress = RepairProgress { done: 0, total: 2 * bytes };
        let mut report = RepairReport::default();
        report.bytes = bytes;
        Repair { reader, options, report, progress }
    }

    /// Tells how far it is, after `bytes` more bytes.
    fn step(&mut self, bytes: u64) -> Result<()> {
        self.progress.done += bytes;
        if (self.options.on_progress)(self.progress).is_continue() { Ok(()) } else { Err(Halt::Stopped) }
    }

    fn run(&mut self, place: &Place) -> Result<()> {
        let path = self.reader.source_path();
        let not_a_store = |what| Error::NotAStore { path: path.to_owned(), what };
        if self.reader.source_len() == 0 {
            return Err(not_a_store("it is empty").into());
        }
        let front = Front::of_file(self.reader)?;
        let mut window = Window::over(self.reader);
        if let Some(last) = front.last {
            // Each recovery begins a new incarnation, and the front may be an older one.
            window.incarnations = last.incarnation() + 8;
        }
        let mut survey = survey(&mut window, &mut |bytes| self.step(bytes))?;
        if let Some(tail) = front.tail {
            survey.end_at(tail);
        }
        let runs = &survey.runs;
        if runs.is_empty() && !front.is_store {
            return Err(not_a_store("there is no record of one in it").into());
        }
        let whole = whole_log(runs, &front, &mut window);
        let mut slots = (whole.is_none() || survey.lacks_keys).then(|| Slots::read_from(self.reader, &front));
        let log = match (whole, &slots) {
            (Some(log), _) => log,
            (None, None) => Log::default(),
            (None, Some(slots)) => {
                let targets = slots.targets();
                let mut leads = |run: &Run| leads_into(run, &targets, &mut window);
                let leads: LeadsInto<'_> = if targets.is_empty() { None } else { Some(&mut leads) };
                damaged_log(runs, &front, self.reader, leads)
            }
        };
        if let Some(slots) = &mut slots {
            slots.is_current = front.closed_at.is_some() && log.last_number(runs) <= front.closed_at;
        }
        if survey.is_cut_short {
            self.report
                .note(0, "too much looks like records and is none: long records inside damage were not looked for");
        }
        self.describe(&front, &log, runs);
        let mut seed = [0; 8];
        getrandom::fill(&mut seed).map_err(|e| Error::io(path, "get random bytes", std::io::Error::other(e)))?;
        let mut judge = Judge::over(self.reader, runs, &log, slots.take(), u64::from_le_bytes(seed));
        judge.keeps_older = self.options.older_versions;
        self.name_incomplete(&judge);
        let mut target = Target::create(place, self.reader.source())?;
        self.copy(&mut judge, &mut target)?;
        self.reader.refuse_in_use()?;
        self.report.maps = target.named();
        self.report.unreadable = self.reader.unreadable_bytes();
        if self.report.unreadable > 0 {
            self.report.note(0, format!("{} bytes could not be read", self.report.unreadable));
        }
        Ok(target.complete()?)
    }

    /// Says what is damaged, apart from the records.
    fn describe(&mut self, front: &Front, log: &Log, runs: &[Run]) {
        let (report, len) = (&mut self.report, self.reader.source_len());
        if front.is_headless {
            report.note(0, "neither superblock holds");
        }
        match front.closed_len {
            Some(expected) if len < expected => {
                report.note(len, format!("the file ends here, and was closed with {expected} bytes"));
            }
            Some(expected) if len > expected && front.begin.is_some() => {
                report.note(expected, format!("the file was closed with this length, and has {len} bytes"));
            }
            _ => {}
        }
        let goes_beyond = front.closed_at.is_some_and(|closed_at| log.commit > Some(closed_at));
        if !front.knows_the_end() || goes_beyond && front.last == front.closed_at {
            let at = log.pieces.last().map_or(0, |last| runs[last.run].goes_on_at);
            report.note(at, "nothing tells whether the log went on from here");
        }
        if log.lacks_its_beginning {
            report.note(front.begin.map_or(0, |begin| begin.at), "the beginning of the log is lost");
        }
        if log.lacks_its_end {
            let at = log.pieces.last().map_or(0, |last| runs[last.run].goes_on_at);
            report.note(at, "the log ends here and should go on");
        }
        if log.later > 0 {
            let commit = log.commit.unwrap_or_default();
            let what = format!(
                "this looks like a copy of a store in use: commit {commit} is whole, and {} records of later ones, \
                 which lack others, were left out",
                log.later
            );
            report.note(0, what);
        } else if log.doubtful > 0 {
            let what = format!("{} records may never have been a part of the log, and were left out", log.doubtful);
            report.note(0, what);
        }
        report.doubtful_records = log.doubtful;
        report.commit = log.commit.map(|commit| commit.0);
    }

    /// Names the commits that lost records.
    fn name_incomplete(&mut self, judge: &Judge<'_>) {
        for hole in &judge.log.holes {
            let lost = judge.identify(hole);
            let (first, last) = numbers_in(hole);
            for lost in &lost {
                match lost {
                    Lost::Nothing => {}
                    Lost::Key { number, .. } => self.report.note_incomplete(*number, *number),
                    Lost::Unknown if first.incarnation() == last.incarnation() => {
                        self.report.note_incomplete(first, last);
                    }
                    Lost::Unknown => {
                        self.report.note_incomplete(first, first);
                        self.report.note_incomplete(last, last);
                    }
                }
            }
            let what = if lost.iter().all(|lost| *lost == Lost::Nothing) {
                "a damaged record that says where the log goes on; nothing is lost by it".to_owned()
            } else {
                match hole.damaged.len() {
                    0 => "a piece of the log is damaged".to_owned(),
                    1 => "a record is damaged".to_owned(),
                    count => format!("{count} records are damaged"),
                }
            };
            self.report.note(hole.at, what);
        }
    }

    /// Copies the newest record of each key.
    fn copy(&mut self, judge: &mut Judge<'_>, target: &mut Target) -> Result<()> {
        let mut catalogue = Catalogue::read_from(judge)?;
        catalogue.entries.values().try_for_each(|entry| target.add_map(entry))?;
        for grade in std::mem::take(&mut catalogue.grades) {
            let what = if grade == Grade::Older { "an older version" } else { "doubtful" };
            self.report.note(0, format!("the name of a map is {what}"));
        }
        let mut later = Vec::new();
        judge.start_over();
        for number in (0..judge.log.pieces.len()).rev() {
            for part in judge.parts_of(number) {
                let bytes = judge.reader.piece(part.start, part.end - part.start);
                for at in self.records_in(&bytes, part.start)?.into_iter().rev() {
                    let Some(record) = Seen::read_in(at, &bytes[(at - part.start) as usize..]) else { continue };
                    if record.header.map() == CATALOGUE {
                        continue;
                    }
                    match judge.judge(&record) {
                        Verdict::Keep(grade) => self.keep(&record, grade, (judge, &mut catalogue), target)?,
                        Verdict::Later => later.push(at),
                        Verdict::Lost if record.was_damaged() => self.report.note(at, WAS_DAMAGED),
                        Verdict::Gone | Verdict::Lost => {}
                    }
                }
                self.step(part.end - part.start)?;
            }
            for hole in judge.log.holes.iter().filter(|hole| hole.before == number) {
                judge.pass_hole(hole, |map| map != CATALOGUE);
            }
        }
        self.decide_later(&later, (judge, &mut catalogue), target)?;
        self.report.lost_keys += judge.lost;
        Ok(())
    }

    /// The records in a part of the log.
    fn records_in(&mut self, bytes: &[u8], start: u64) -> Result<Vec<u64>> {
        let (mut found, mut at) = (Vec::new(), 0);
        while at < bytes.len() as u64 {
            let header = header_in(&bytes[at as usize..]);
            found.push(start + at);
            self.report.records += 1;
            at += header.record_len().max(RECORD_HEADER);
        }
        if at == bytes.len() as u64 {
            return Ok(found);
        }
        let what = "the file was changed while it was read; close the store in every process, and repair a copy";
        Err(Error::corrupt(self.reader.source_path(), start, what).into())
    }

    /// Puts a record in the target.
    fn keep(
        &mut self,
        record: &Seen<'_>,
        grade: Grade,
        (judge, catalogue): (&Judge<'_>, &mut Catalogue),
        target: &mut Target,
    ) -> Result<()> {
        let map = record.header.map();
        if !target.has_map(map) {
            let Some(entry) = catalogue.find_lost(map, judge) else { return Ok(()) };
            target.add_map(entry)?;
            self.report.note(record.at, format!("the name of map {map} is lost; it is now called {:?}", entry.name));
        }
        target.take_over(record)?;
        self.report.keys += 1;
        match grade {
            Grade::Sure => {}
            Grade::Older => self.report.older_keys += 1,
            Grade::Doubtful => self.report.doubtful_keys += 1,
        }
        Ok(())
    }

    /// Decides about keys without a slot, and counts the keys that the index knows to be lost.
    fn decide_later(
        &mut self,
        later: &[u64],
        (judge, catalogue): (&Judge<'_>, &mut Catalogue),
        target: &mut Target,
    ) -> Result<()> {
        let of_maps = judge.sum_up();
        for &at in later {
            let len = judge.reader.raw_header(at).record_len().min(judge.reader.source_len());
            let bytes = judge.reader.piece(at, len);
            let Some(record) = Seen::read_in(at, &bytes) else { continue };
            let is_reliable = of_maps.get(&record.header.map()).is_some_and(|&(_, reliable)| reliable);
            match (is_reliable, judge.keeps_older) {
                (true, false) => self.report.lost_keys += 1,
                (true, true) => self.keep(&record, Grade::Older, (judge, catalogue), target)?,
                (false, _) => self.keep(&record, Grade::Doubtful, (judge, catalogue), target)?,
            }
        }
        let lost = of_maps.iter().filter(|(map, _)| target.has_map(**map)).map(|(_, &(lost, _))| lost);
        self.report.lost_keys += lost.sum::<u64>();
        Ok(())
    }
}

/// The first and the last number of the commits that may have had a record in a hole.
fn numbers_in(hole: &Hole) -> (Seq, Seq) {
    let first = if hole.is_open { hole.after_number } else { hole.after_number.next() };
    (first.min(hole.next_number), hole.next_number)
}

/// Whether one of these offsets is that of a record of a run.
fn leads_into(run: &Run, targets: &std::collections::BTreeSet<u64>, window: &mut Window<'_>) -> bool {
    let mut inside = targets.range(run.start..run.end);
    let Some(mut next) = inside.next().copied() else { return false };
    let mut at = run.start;
    while at < run.end {
        while next < at {
            let Some(&after) = inside.next() else { return false };
            next = after;
        }
        if next == at {
            return true;
        }
        let header = header_in(window.look(at, RECORD_HEADER));
        at += header.record_len();
    }
    false
}
