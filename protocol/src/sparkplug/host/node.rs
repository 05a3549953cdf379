//! Where does one edge node stand? Born or not, which message comes next, and what waits for a missing one.

use std::collections::{BTreeMap, BTreeSet};

use srad_types::payload::{Metric, Payload};

use super::{
    Effect, HELD_MAX, Kind, Patience, Place,
    birth::{Book, bd_seq, is_about_session},
    path, rebirth, refused, value,
};
use crate::{Micros, integrator::Code};

/// A message so many numbers behind is a late copy of one that was taken; one further off is ahead, after a long gap.
const BEHIND_MAX: u8 = 27;
/// A death is not believed to be further ahead than this.
const AHEAD_US_MAX: Micros = 86_400_000_000;

/// When a device died, as its node says it
/// (tck-id-operational-behavior-edge-node-termination-host-action-ddeath-devices-offline); as it was heard where that
/// cannot be.
fn died_us(heard: &Heard) -> Micros {
    let said = heard.payload.timestamp.and_then(value::micros);
    let latest = heard.received_us.saturating_add(AHEAD_US_MAX);
    said.filter(|at| (1..=latest).contains(at))
        .unwrap_or(heard.received_us)
}

/// A message as it was heard.
#[derive(Debug)]
pub(super) struct Heard {
    pub(super) place: Place,
    pub(super) payload: Payload,
    pub(super) received_us: Micros,
}

/// One edge node.
#[derive(Debug, Default)]
pub(super) struct Node {
    is_born: bool,
    bd_seq: Option<u64>,
    /// When its newest birth was sent, as it says.
    born_ms: Option<u64>,
    next_seq: u8,
    book: Book,
    devices: BTreeSet<String>,
    /// Messages after a gap, by how far ahead they are of `next_seq` when that was last moved.
    held: BTreeMap<u8, Heard>,
    waiting_since: Option<Micros>,
    asked_us: Option<Micros>,
}

impl Node {
    pub(super) fn waiting_since(&self) -> Option<Micros> {
        self.waiting_since
    }

    pub(super) fn is_online(&self, device: Option<&str>) -> Option<bool> {
        match device {
            None => Some(self.is_born),
            Some(device) => self
                .book
                .metrics
                .contains_key(&Some(device.to_owned()))
                .then(|| self.is_born && self.devices.contains(device)),
        }
    }

    pub(super) fn hear(&mut self, heard: Heard, patience: Patience, out: &mut Vec<Effect>) {
        match heard.place.kind {
            Kind::NodeBirth => self.birth(&heard, patience, out),
            Kind::NodeDeath => self.death(&heard, out),
            _ if !self.is_born => {
                let hint = "no birth of this edge node was heard; it was asked for one";
                out.push(refused(Code::NotBorn, hint, &heard.place.path()));
                self.ask(&heard.place, heard.received_us, patience, out);
            }
            _ => self.sequenced(heard, patience, out),
        }
    }

    /// Everything that is known begins anew (tck-id-operational-behavior-data-commands-rebirth-action-2).
    fn birth(&mut self, heard: &Heard, patience: Patience, out: &mut Vec<Effect>) {
        let Heard {
            place,
            payload,
            received_us,
        } = heard;
        let Some(seq) = payload.seq.and_then(|seq| u8::try_from(seq).ok()) else {
            let hint = "an NBIRTH has a sequence number from 0 to 255";
            out.push(refused(Code::MissingMember, hint, "seq"));
            return;
        };
        let mut book = Book::default();
        if let Err(refused) = book.enter(None, &payload.metrics) {
            out.push(Effect::Refused(refused));
            self.die((&place.group, &place.node), *received_us, out);
            return;
        }
        self.drop_held(out);
        // Devices are not born again by their node's birth: each says so itself.
        self.stale_devices((&place.group, &place.node), *received_us, out);
        *self = Self {
            is_born: true,
            bd_seq: bd_seq(&payload.metrics),
            born_ms: payload.timestamp,
            next_seq: seq.wrapping_add(1),
            book,
            asked_us: self.asked_us,
            ..Self::default()
        };
        out.push(Effect::Born { path: place.path() });
        self.values(heard, patience, out);
    }

    /// A death counts only for the connection that its `bdSeq` names.
    fn death(&mut self, heard: &Heard, out: &mut Vec<Effect>) {
        let said = bd_seq(&heard.payload.metrics);
        if !self.is_born {
            out.push(Effect::Ignored {
                why: "a death of a node that was not there",
            });
        } else if self.bd_seq.is_some() && said != self.bd_seq {
            out.push(Effect::Ignored {
                why: "a death of an earlier connection",
            });
        } else {
            self.die((&heard.place.group, &heard.place.node), heard.received_us, out);
        }
    }

    pub(super) fn die(&mut self, (group, node): (&str, &str), at_us: Micros, out: &mut Vec<Effect>) {
        if !self.is_born {
            return;
        }
        self.drop_held(out);
        self.is_born = false;
        self.waiting_since = None;
        let metrics = self.metrics_of(None);
        out.push(Effect::Stale {
            path: path(group, node, None),
            metrics,
            at_us,
        });
        self.stale_devices((group, node), at_us, out);
    }

    fn stale_devices(&mut self, (group, node): (&str, &str), at_us: Micros, out: &mut Vec<Effect>) {
        for device in std::mem::take(&mut self.devices) {
            let metrics = self.metrics_of(Some(&device));
            out.push(Effect::Stale {
                path: path(group, node, Some(&device)),
                metrics,
                at_us,
            });
        }
    }

    fn metrics_of(&self, device: Option<&str>) -> Vec<String> {
        let names = self.book.metrics.get(&device.map(str::to_owned));
        let names = names.into_iter().flat_map(BTreeMap::keys);
        names.filter(|name| !is_about_session(name)).cloned().collect()
    }

    /// In turn, ahead of its turn, or from before (tck-id-operational-behavior-host-reordering-start and -success).
    fn sequenced(&mut self, heard: Heard, patience: Patience, out: &mut Vec<Effect>) {
        let Some(seq) = heard.payload.seq.and_then(|seq| u8::try_from(seq).ok()) else {
            let hint = "every message but NDEATH has a sequence number from 0 to 255";
            out.push(refused(Code::MissingMember, hint, "seq"));
            return;
        };
        match seq.wrapping_sub(self.next_seq) {
            0 => {
                self.apply(&heard, patience, out);
                self.next_seq = seq.wrapping_add(1);
                while let Some(next) = self.held.remove(&self.next_seq) {
                    self.next_seq = self.next_seq.wrapping_add(1);
                    self.apply(&next, patience, out);
                }
                if self.held.is_empty() {
                    self.waiting_since = None;
                } else {
                    self.waiting_since = Some(heard.received_us);
                }
            }
            ahead if ahead >= u8::MAX - BEHIND_MAX => out.push(Effect::Ignored {
                why: "a message from before",
            }),
            _ if self.held.contains_key(&seq) => out.push(Effect::Ignored {
                why: "a message that waits already",
            }),
            // By another connection, too late: its aliases are those of the birth before.
            _ if heard.payload.timestamp < self.born_ms => {
                let hint = "sent before the newest birth of its node, and heard after it: it is not believed";
                out.push(refused(Code::SequenceGap, hint, &heard.place.path()));
            }
            _ => {
                let (place, now_us) = (heard.place.clone(), heard.received_us);
                self.waiting_since.get_or_insert(now_us);
                self.held.insert(seq, heard);
                if self.held.len() > HELD_MAX {
                    self.give_up((&place.group, &place.node), now_us, out);
                }
            }
        }
    }

    fn apply(&mut self, heard: &Heard, patience: Patience, out: &mut Vec<Effect>) {
        let place = &heard.place;
        match (place.kind, place.device.as_deref()) {
            (Kind::DeviceBirth, Some(device)) => {
                match self.book.enter(Some(device), &heard.payload.metrics) {
                    Ok(()) => {
                        self.devices.insert(device.to_owned());
                        out.push(Effect::Born { path: place.path() });
                        self.values(heard, patience, out);
                    }
                    Err(refused) => out.push(Effect::Refused(refused)),
                }
            }
            (Kind::DeviceDeath, Some(device)) => {
                if self.devices.remove(device) {
                    let metrics = self.metrics_of(Some(device));
                    out.push(Effect::Stale {
                        path: place.path(),
                        metrics,
                        at_us: died_us(heard),
                    });
                } else {
                    out.push(Effect::Ignored {
                        why: "a death of a device that was not there",
                    });
                }
            }
            (Kind::DeviceData, Some(device)) if !self.devices.contains(device) => {
                let hint = "no birth of this device was heard; its edge node was asked for one";
                out.push(refused(Code::NotBorn, hint, &place.path()));
                self.ask(place, heard.received_us, patience, out);
            }
            _ => self.values(heard, patience, out),
        }
    }

    /// The values of a birth or of data, as two runs: news, and history.
    fn values(&mut self, heard: &Heard, patience: Patience, out: &mut Vec<Effect>) {
        let Heard {
            place,
            payload,
            received_us,
        } = heard;
        let (mut news, mut history, mut is_unknown) = (Vec::new(), Vec::new(), false);
        for metric in &payload.metrics {
            match self.book.find(place.device.as_deref(), metric) {
                Ok(known) if is_about_session(&known.name) => {}
                Ok(known) => {
                    let why = value::unreadable(&known.name, metric, known.datatype);
                    out.extend(why.map(Effect::Refused));
                    let item = value::item(
                        &place.path(),
                        &known.name,
                        metric,
                        known.datatype,
                        payload.timestamp,
                    );
                    let run = if metric.is_historical == Some(true) {
                        &mut history
                    } else {
                        &mut news
                    };
                    run.push(item);
                }
                Err(refused) => {
                    is_unknown |= matches!(refused.code, Code::UnknownAlias | Code::UnknownMetric);
                    out.push(Effect::Refused(refused));
                }
            }
        }
        for (items, is_historical) in [(history, true), (news, false)] {
            if !items.is_empty() {
                out.push(Effect::Readings { items, is_historical });
            }
        }
        if is_unknown {
            self.ask(place, *received_us, patience, out);
        }
    }

    /// A gap that was waited for long enough: the node is asked for its birth
    /// (tck-id-operational-behavior-host-reordering-rebirth). Of what waits behind it, only what gives names is
    /// believed: the missing message may have been a birth that gave the aliases to other metrics.
    pub(super) fn tick(
        &mut self,
        (group, node): (&str, &str),
        now_us: Micros,
        patience: Patience,
        out: &mut Vec<Effect>,
    ) {
        if self
            .waiting_since
            .is_none_or(|since| now_us < since.saturating_add(patience.reorder_us))
        {
            return;
        }
        self.give_up((group, node), now_us, out);
    }

    fn give_up(&mut self, (group, node): (&str, &str), now_us: Micros, out: &mut Vec<Effect>) {
        self.waiting_since = None;
        self.drop_held(out);
        self.is_born = false;
        self.asked_us = Some(now_us);
        out.push(Effect::Ask(rebirth(group, node, now_us)));
    }

    /// Lets go of what waits behind a gap: values with a name are kept, those with an alias alone are refused.
    fn drop_held(&mut self, out: &mut Vec<Effect>) {
        let mut held: Vec<Heard> = std::mem::take(&mut self.held).into_values().collect();
        held.sort_by_key(|heard| {
            heard
                .payload
                .seq
                .map(|seq| (seq as u8).wrapping_sub(self.next_seq))
        });
        let mut lost = 0;
        for heard in &held {
            let Heard { place, payload, .. } = heard;
            let is_data = matches!(place.kind, Kind::NodeData | Kind::DeviceData);
            let (mut news, mut history) = (Vec::new(), Vec::new());
            for metric in payload.metrics.iter().filter(|_| is_data) {
                let Some(item) = self.by_name(place, metric, payload.timestamp) else {
                    lost += 1;
                    continue;
                };
                let run = if metric.is_historical == Some(true) {
                    &mut history
                } else {
                    &mut news
                };
                run.push(item);
            }
            for (items, is_historical) in [(history, true), (news, false)] {
                if !items.is_empty() {
                    out.push(Effect::Readings { items, is_historical });
                }
            }
        }
        if lost > 0 {
            let hint = format!(
                "a message is missing before these: {lost} values with an alias alone cannot be told; the node was asked for its birth"
            );
            out.push(refused(Code::SequenceGap, hint, ""));
        }
    }

    fn by_name(
        &self,
        place: &Place,
        metric: &Metric,
        sent_ms: Option<u64>,
    ) -> Option<crate::integrator::Item> {
        let name = metric.name.as_deref().filter(|_| metric.alias.is_none())?;
        let known = self.book.named(place.device.as_deref(), name).ok()?;
        let is_plant = !is_about_session(&known.name);
        is_plant.then(|| value::item(&place.path(), &known.name, metric, known.datatype, sent_ms))
    }

    fn ask(&mut self, place: &Place, now_us: Micros, patience: Patience, out: &mut Vec<Effect>) {
        if self
            .asked_us
            .is_none_or(|asked| now_us >= asked.saturating_add(patience.rebirth_us))
        {
            self.asked_us = Some(now_us);
            out.push(Effect::Ask(rebirth(&place.group, &place.node, now_us)));
        }
    }
}
