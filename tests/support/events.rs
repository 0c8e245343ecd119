//! A subscriber that keeps the events of a store.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, LazyLock, Mutex};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Dispatch, Event, Level, Metadata, Subscriber};

/// An event: its level, what it says, and its fields.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) level: Level,
    pub(crate) what: String,
    pub(crate) fields: BTreeMap<&'static str, String>,
}

impl Visit for Told {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let value = format!("{value:?}");
        match field.name() {
            "message" => self.what = value,
            name => drop(self.fields.insert(name, value)),
        }
    }
}

struct Collector(Arc<Mutex<Vec<Told>>>);

impl Subscriber for Collector {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "slotlog"
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut told = Told { level: *event.metadata().level(), what: String::new(), fields: BTreeMap::new() };
        event.record(&mut told);
        self.0.lock().unwrap().push(told);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// Runs `step`, and returns the events that its thread has told meanwhile.
pub(crate) fn told<R>(step: impl FnOnce() -> R) -> (R, Vec<Told>) {
    // As long as there is one subscriber only, an event that another thread is the first to come by, with none of its
    // own, is off for all threads: tracing asks that thread's subscriber alone.
    static ANOTHER: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(Collector(Arc::default())));
    LazyLock::force(&ANOTHER);
    let events = Arc::new(Mutex::new(Vec::new()));
    let result = tracing::subscriber::with_default(Collector(Arc::clone(&events)), step);
    let told = std::mem::take(&mut *events.lock().unwrap());
    (result, told)
}
