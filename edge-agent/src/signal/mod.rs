//! What does a signal mean before anybody judges it, and which of its readings travel? Units, counters, derived tags and
//! the checks of sensors come before the control points; report by exception comes after them. Pure: times and new
//! identities are arguments.

mod alarm;
pub(crate) mod burst;
pub mod config;
mod counter;
mod deadband;
mod derive;
mod drift;
mod manual;
pub mod mask;
mod watch;
mod watched;

use std::collections::BTreeSet;

use protocol::{
    Micros, Reading,
    event::{Event, Inspection, NotRead},
    reading::Alias,
};
use uuid::Uuid;

use self::{
    alarm::Alarms,
    burst::Burst,
    config::{Plan, Stillness},
    derive::Derived,
    manual::Check,
    watched::Watched,
};
pub use self::{
    derive::{Condition, DerivedPlan, Integrand, Kind, Reset, Rule, Stretch, Told},
    manual::ManualPlan,
};

/// States that are saved under this prefix are of signals.
pub const STATE_PREFIX: &str = "signal/";

/// The signals of one agent.
#[derive(Debug)]
pub struct Signals {
    new_id: fn() -> Uuid,
    tags: Table,
    watched: Vec<Watched>,
    derived: Vec<Derived>,
    manual: Vec<Check>,
    bursts: Vec<Burst>,
    suppressed: u64,
    computed: u64,
}

/// What readings are used for, by alias; aliases are dense.
#[derive(Debug, Default)]
struct Table(Vec<Option<Box<Uses>>>);

impl Table {
    fn get(&self, alias: Alias) -> Option<&Uses> {
        self.0.get(alias.0 as usize)?.as_deref()
    }

    fn of(&mut self, alias: Alias) -> &mut Uses {
        let index = alias.0 as usize;
        if self.0.len() <= index {
            self.0.resize_with(index + 1, || None);
        }
        self.0[index].get_or_insert_default()
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What a reading of one tag is used for, by index.
#[derive(Debug, Default)]
struct Uses {
    watched: Option<usize>,
    is_reference_of: Vec<usize>,
    derived: Vec<usize>,
    manual: Vec<usize>,
}

/// Nothing configured: readings pass as they are.
impl Default for Signals {
    fn default() -> Self {
        Self::new(&Plan::default(), Uuid::now_v7)
    }
}

impl Signals {
    /// Signals that have seen nothing.
    pub fn new(plan: &Plan, new_id: fn() -> Uuid) -> Self {
        let mut tags = Table::default();
        let watched: Vec<Watched> = plan.tags.iter().cloned().map(Watched::new).collect();
        for (index, tag) in plan.tags.iter().enumerate() {
            tags.of(tag.alias).watched = Some(index);
            let still = match tag.still {
                Some(Stillness::Beside { reference, .. }) => Some(reference),
                _ => None,
            };
            let drift = tag.drift.map(|(reference, _)| reference);
            let references: BTreeSet<Alias> = still.into_iter().chain(drift).collect();
            for reference in references {
                tags.of(reference).is_reference_of.push(index);
            }
        }
        let derived: Vec<Derived> = plan.derived.iter().cloned().map(Derived::new).collect();
        for (index, tag) in derived.iter().enumerate() {
            let wanted: BTreeSet<Alias> = tag.wants().collect();
            for alias in wanted {
                tags.of(alias).derived.push(index);
            }
        }
        let manual: Vec<Check> = plan.manual.iter().cloned().map(Check::new).collect();
        for (index, check) in manual.iter().enumerate() {
            let gate = check.plan().gate.map(|(tag, _)| tag);
            for alias in [Some(check.plan().alias), gate].into_iter().flatten() {
                tags.of(alias).manual.push(index);
            }
        }
        Self {
            new_id,
            tags,
            watched,
            derived,
            manual,
            bursts: plan.bursts.iter().cloned().map(Burst::new).collect(),
            suppressed: 0,
            computed: 0,
        }
    }

    /// Puts another configuration in force. What outlives a restart is kept for tags that keep their names. Returns what
    /// was held back: it must travel under the dictionary that was in force.
    pub fn reconfigure(&mut self, plan: &Plan) -> Vec<Reading> {
        let (held, states) = (self.drain(), self.snapshot());
        let mut next = Self::new(plan, self.new_id);
        for (key, state) in states {
            if let Err(reason) = next.restore(&key, &state) {
                tracing::info!(%reason, "state given up");
            }
        }
        (next.suppressed, next.computed) = (self.suppressed, self.computed);
        *self = next;
        held
    }

    /// Makes of readings that arrived together what they mean: converted to their tags' units, doubted where the sensor
    /// is to be doubted, and followed by the readings of counters and derived tags. Returns the alarms that began or
    /// ended with them.
    pub fn derive(&mut self, readings: &mut Vec<Reading>, received_us: Micros) -> Vec<Event> {
        let mut events = Vec::new();
        if self.tags.is_empty() {
            return events;
        }
        let mut alarms = Alarms {
            at_us: received_us,
            new_id: self.new_id,
            events: &mut events,
        };
        for reading in readings.iter_mut() {
            self.convert(reading);
        }
        // References first: a value is compared with its reference of the same poll.
        for reading in readings.iter() {
            self.refer(reading, received_us);
        }
        let (given, mut due, mut further) = (readings.len(), BTreeSet::new(), Vec::new());
        for reading in readings.iter_mut() {
            self.check(reading, received_us, &mut further, &mut alarms);
            self.put(reading, &mut due);
        }
        for mut reading in further.drain(..) {
            self.admit(&mut reading, received_us, &mut alarms);
            self.put(&reading, &mut due);
            readings.push(reading);
        }
        // In order of declaration: a derived tag is computed from those before it.
        while let Some(index) = due.pop_first() {
            self.derived[index].compute(received_us, &mut further, &mut alarms);
            for mut reading in further.drain(..) {
                self.admit(&mut reading, received_us, &mut alarms);
                self.put(&reading, &mut due);
                readings.push(reading);
            }
        }
        self.computed += (readings.len() - given) as u64;
        for reading in readings.iter() {
            let checks = self.tags.get(reading.tag).map_or(&[][..], |uses| &uses.manual);
            for index in checks {
                self.manual[*index].observe(reading, &mut alarms);
            }
        }
        events
    }

    /// Lets time pass: what people should have entered by now and did not.
    pub fn tick(&mut self, now_us: Micros) -> Vec<Event> {
        let mut events = Vec::new();
        let mut alarms = Alarms {
            at_us: now_us,
            new_id: self.new_id,
            events: &mut events,
        };
        for check in &mut self.manual {
            check.tick(now_us, &mut alarms);
        }
        events
    }

    /// Takes the record of a picture: whether its camera sees more defects than usual.
    pub fn inspected(&mut self, inspection: &Inspection, now_us: Micros) -> Vec<Event> {
        let mut events = Vec::new();
        let mut alarms = Alarms {
            at_us: now_us,
            new_id: self.new_id,
            events: &mut events,
        };
        let of_camera = |burst: &&mut Burst| burst.plan().camera == inspection.camera;
        if let Some(burst) = self.bursts.iter_mut().find(of_camera) {
            burst.take(inspection, &mut alarms);
        }
        events
    }

    fn uses(&self, alias: Alias) -> Option<&Uses> {
        self.tags.get(alias)
    }

    fn convert(&self, reading: &mut Reading) {
        if let Some(index) = self.uses(reading.tag).and_then(|uses| uses.watched) {
            self.watched[index].convert(reading);
        }
    }

    fn refer(&mut self, reading: &Reading, received_us: Micros) {
        if let Some(uses) = self.tags.get(reading.tag) {
            for index in &uses.is_reference_of {
                self.watched[*index].reference(reading, received_us);
            }
        }
    }

    fn check(
        &mut self,
        reading: &mut Reading,
        received_us: Micros,
        further: &mut Vec<Reading>,
        alarms: &mut Alarms<'_>,
    ) {
        if let Some(index) = self.uses(reading.tag).and_then(|uses| uses.watched) {
            self.watched[index].check(reading, received_us, alarms);
            self.watched[index].count(reading, further, alarms);
        }
    }

    /// What sources' readings go through, for a reading that was computed.
    fn admit(&mut self, reading: &mut Reading, received_us: Micros, alarms: &mut Alarms<'_>) {
        self.convert(reading);
        self.refer(reading, received_us);
        self.check(reading, received_us, &mut Vec::new(), alarms);
    }

    /// Hands a reading to the derived tags that want it.
    fn put(&mut self, reading: &Reading, due: &mut BTreeSet<usize>) {
        if let Some(uses) = self.tags.get(reading.tag) {
            for index in &uses.derived {
                if self.derived[*index].put(*reading) {
                    due.insert(*index);
                }
            }
        }
    }

    /// Takes out what need not travel: report by exception. What was held back and turns out to be the last value before
    /// a change is put in before it.
    pub fn report(&mut self, readings: &mut Vec<Reading>) {
        let is_concerned = |reading: &Reading| {
            let index = self.tags.get(reading.tag).and_then(|uses| uses.watched);
            index.is_some_and(|index| self.watched[index].plan().deadband.is_some())
        };
        if self.tags.is_empty() || !readings.iter().any(is_concerned) {
            return;
        }
        let mut travelling = Vec::with_capacity(readings.len());
        for reading in readings.drain(..) {
            let index = self.tags.get(reading.tag).and_then(|uses| uses.watched);
            let Some(exception) = index.and_then(|index| self.watched[index].exception()) else {
                travelling.push(reading);
                continue;
            };
            let verdict = exception.take(&reading);
            self.suppressed += u64::from(verdict.is_one_left_out);
            travelling.extend(verdict.before);
            travelling.extend(verdict.is_sent.then_some(reading));
        }
        *readings = travelling;
    }

    /// What is held back when nothing more will come: the last values travel.
    pub fn drain(&mut self) -> Vec<Reading> {
        let held = self.watched.iter_mut().filter_map(Watched::exception);
        held.filter_map(deadband::Exception::drain).collect()
    }

    /// Readings that were read and did not travel, since the start.
    pub fn suppressed(&self) -> u64 {
        self.suppressed
    }

    /// Readings that were computed from others, since the start.
    pub fn computed(&self) -> u64 {
        self.computed
    }

    /// Names, in the record of readings that were due and not taken, the derived tags that were due with them.
    pub fn not_read(&self, record: &mut NotRead) {
        let mut index = 0;
        while let Some(alias) = record.tags.get(index).copied() {
            let uses = self.uses(alias);
            let counter = uses.and_then(|uses| self.watched[uses.watched?].plan().counter);
            let follow = counter.map(|counter| [counter.total, counter.rate.map(|(alias, _)| alias)]);
            for alias in follow.into_iter().flatten().flatten() {
                let is_named = record.tags.contains(&alias);
                record.tags.extend((!is_named).then_some(alias));
            }
            for derived in uses.map_or(&[][..], |uses| &uses.derived) {
                let plan = self.derived[*derived].plan();
                let is_due = plan.inputs.first() == Some(&alias) && !record.tags.contains(&plan.alias);
                record.tags.extend(is_due.then_some(plan.alias));
            }
            index += 1;
        }
    }

    /// The clock that times come from was set back by `by_us`.
    pub fn set_back(&mut self, by_us: Micros) {
        self.watched
            .iter_mut()
            .for_each(|watched| watched.set_back(by_us));
        self.derived.iter_mut().for_each(Derived::set_back);
        self.manual.iter_mut().for_each(|check| check.set_back(by_us));
    }

    /// What outlives a restart, by key.
    pub fn snapshot(&self) -> Vec<(String, Vec<u8>)> {
        let key = |name: &str| format!("{STATE_PREFIX}{name}");
        let watched = self
            .watched
            .iter()
            .filter_map(|watched| Some((key(&watched.plan().name), watched.save()?)));
        let derived = self
            .derived
            .iter()
            .filter_map(|derived| Some((format!("{}/derived", key(&derived.plan().name)), derived.save()?)));
        let manual = self
            .manual
            .iter()
            .filter_map(|check| Some((format!("{}/manual", key(&check.plan().name)), check.save()?)));
        let bursts = self
            .bursts
            .iter()
            .filter_map(|burst| Some((format!("{}/burst", key(&burst.plan().camera)), burst.save()?)));
        watched.chain(derived).chain(manual).chain(bursts).collect()
    }

    /// Puts a state from [`snapshot`](Self::snapshot) back.
    ///
    /// # Errors
    /// For people: the key is of no tag that is configured so, or the state cannot be read.
    pub fn restore(&mut self, key: &str, state: &[u8]) -> Result<(), String> {
        let name = key.strip_prefix(STATE_PREFIX).unwrap_or(key);
        let unreadable = |error: postcard::Error| format!("state of {name} cannot be read: {error}");
        if let Some(name) = name.strip_suffix("/derived")
            && let Some(derived) = self
                .derived
                .iter_mut()
                .find(|derived| derived.plan().name == name)
        {
            return derived.restore(state).map_err(unreadable);
        }
        if let Some(name) = name.strip_suffix("/manual")
            && let Some(check) = self.manual.iter_mut().find(|check| check.plan().name == name)
        {
            return check.restore(state).map_err(unreadable);
        }
        if let Some(camera) = name.strip_suffix("/burst")
            && let Some(burst) = self.bursts.iter_mut().find(|burst| burst.plan().camera == camera)
        {
            return burst.restore(state).map_err(unreadable);
        }
        let watched = self
            .watched
            .iter_mut()
            .find(|watched| watched.plan().name == name);
        watched
            .ok_or_else(|| format!("nothing is configured any more about the signal of {name}"))?
            .restore(state)
            .map_err(unreadable)
    }
}

#[cfg(test)]
mod tests;
