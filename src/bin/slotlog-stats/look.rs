//! Everything that is read from a store, and the JSON of it.

use std::time::SystemTime;

use serde::Serialize;
use slotlog::{Access, Census, CensusOptions, Error, ExtentCensus, MapCensus, MapStats, Stats, Store, VerifyReport};

use super::arguments::Arguments;
use super::common::figures::{date, printable};
use super::common::plain::json;
use super::common::progress::Progress;
use super::verdict::Verdict;

/// Entries that are looked at if not all of them are asked for: a matter of milliseconds.
const SAMPLE: u64 = 150_000;

/// The version of the JSON object. It changes when a field goes or gets another meaning, not when one is added.
pub const SCHEMA: u32 = 1;

/// Everything that was read.
#[derive(Serialize)]
pub struct Looked {
    pub schema: u32,
    /// The program and its version.
    pub program: &'static str,
    /// When the store was looked at.
    #[serde(serialize_with = "as_date")]
    pub at: SystemTime,
    pub verdict: Verdict,
    /// Missing if damage in the report prevents reading them.
    pub stats: Option<Stats>,
    /// Missing if damage prevents it.
    pub census: Option<Census>,
    /// Only with `--verify`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verify: Option<VerifyReport>,
}

fn as_date<S: serde::Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&date(*time))
}

/// A map, as the counters and the census see it.
#[derive(Clone, Copy)]
pub struct OneMap<'a> {
    pub stats: &'a MapStats,
    pub census: Option<&'a MapCensus>,
}

impl Looked {
    pub fn is_clean(&self) -> bool {
        self.verify.as_ref().is_none_or(VerifyReport::is_clean)
    }

    pub fn to_json(&self) -> Result<String, String> {
        serde_json::to_string_pretty(self).map(|text| json(text) + "\n").map_err(|error| error.to_string())
    }

    /// The maps in the order of their numbers.
    pub fn maps(&self) -> Vec<OneMap<'_>> {
        let census = |id| self.census.as_ref()?.maps.iter().find(|map| map.id == id);
        let stats = self.stats.iter().flat_map(|stats| &stats.maps);
        stats.map(|stats| OneMap { stats, census: census(stats.id) }).collect()
    }

    pub fn extents(&self) -> &[ExtentCensus] {
        self.census.as_ref().map_or(&[], |census| &census.extents)
    }
}

/// Opens the store and reads everything that is to be shown.
pub fn look(arguments: &Arguments) -> Result<Looked, String> {
    let report = |error: Error| error.report();
    let store = Store::options().access(Access::ReadOnly).create(false).open(&arguments.file).map_err(report)?;
    let verify = if arguments.verify { Some(verify(&store).map_err(report)?) } else { None };
    let mut damage = None;
    // The cause of such a failure is among the findings, which are worth more than one error.
    let mut or_damage = |error: Error, is_known: bool| match error {
        Error::Corrupt { .. } if is_known => {
            damage.get_or_insert(error.report());
            Ok(())
        }
        error => Err(error.report()),
    };
    let has_findings = verify.as_ref().is_some_and(|report| !report.is_clean());
    let mut stats = match store.stats() {
        Ok(stats) => Some(stats),
        Err(error) => or_damage(error, has_findings).map(|()| None)?,
    };
    let mut census = match census(&store, arguments.exact || arguments.html.is_some()) {
        Ok(census) => Some(census),
        Err(error) => or_damage(error, stats.is_some() || has_findings).map(|()| None)?,
    };
    let verdict = Verdict::of(stats.as_ref(), census.as_ref(), verify.as_ref(), damage);
    if let Some(name) = &arguments.map {
        only(name, stats.as_mut(), census.as_mut())?;
    }
    let (at, program) = (SystemTime::now(), concat!("slotlog-stats ", env!("CARGO_PKG_VERSION")));
    Ok(Looked { schema: SCHEMA, program, at, verdict, stats, census, verify })
}

fn verify(store: &Store) -> slotlog::Result<VerifyReport> {
    let bar = Progress::of_bytes("checking", 1);
    store.verify_with(|progress| bar.report(progress.done, progress.total))
}

fn census(store: &Store, exact: bool) -> slotlog::Result<Census> {
    let options = CensusOptions::new();
    if !exact {
        return store.census_with(options.at_most(SAMPLE));
    }
    let bar = Progress::of_entries("looking", 1);
    store.census_with(options.on_progress(|progress| bar.report(progress.done, progress.total)))
}

/// Leaves one map.
fn only(name: &str, stats: Option<&mut Stats>, census: Option<&mut Census>) -> Result<(), String> {
    let Some(stats) = stats else { return Ok(()) };
    let path = printable(&stats.path);
    if !stats.maps.iter().any(|map| map.name == name) {
        let names: Vec<String> = stats.maps.iter().map(|map| format!("{:?}", map.name)).collect();
        return Err(format!("{path}: there is no map {name:?}; the maps are {}", names.join(", ")));
    }
    stats.maps.retain(|map| map.name == name);
    if let Some(census) = census {
        census.maps.retain(|map| map.name == name);
    }
    Ok(())
}
