//! How good are the alarms? The measures of ISA-18.2 / IEC 62682 over what was raised in a time. Pure.
//!
//! ```text
//! load       alarms per operator and 10 minutes
//! flood      begins with the 11th alarm within 10 minutes, ends when fewer than 5 came in the last 10
//! chatter    more than 3 of one alarm within a minute
//! stale      stands for more than 24 hours
//! bad actor  the alarms that were raised most often, and their share of all
//! ```

use std::collections::{BTreeMap, VecDeque};

use protocol::Micros;
use serde::Serialize;
use utoipa::ToSchema;

const SECOND_US: Micros = 1_000_000;
const SPAN_US: Micros = 600 * SECOND_US;
const FLOOD_MORE_THAN: usize = 10;
const FLOOD_OVER_BELOW: usize = 5;
const CHATTER_US: Micros = 60 * SECOND_US;
const CHATTER_MORE_THAN: usize = 3;
const STALE_US: Micros = 86_400 * SECOND_US;
const TOP: usize = 10;

/// An alarm that was raised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raised {
    /// Its code and what it is about: the alarm, of which this is one occurrence.
    pub alarm: (String, String),
    /// 1 to 4, where known.
    pub priority: Option<i16>,
    /// When it began.
    pub raised_us: Micros,
    /// When it ended.
    pub cleared_us: Option<Micros>,
}

/// A time in which alarms came faster than a person can act on them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct AlarmFlood {
    /// From the first alarm of the ten minutes.
    pub from_us: Micros,
    /// Until fewer than 5 came in ten minutes.
    pub to_us: Micros,
    /// Alarms in it.
    pub alarms: usize,
    /// The first of them: first-out.
    pub first_code: String,
    /// What that was about.
    pub first_subject: String,
}

/// An alarm with a count.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct AlarmActor {
    /// Its code.
    pub code: String,
    /// What it is about.
    pub subject: String,
    /// How often it was raised; for chatter, most often within a minute; for stale ones, seconds that it stands.
    pub count: u64,
    /// Share of all alarms in the range, 0 to 1.
    pub share: f64,
}

/// The measures.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct AlarmKpis {
    /// Start of the range.
    pub from_us: Micros,
    /// End of the range.
    pub to_us: Micros,
    /// Operators who share the alarms.
    pub operators: u32,
    /// Alarms raised in it.
    pub alarms: usize,
    /// Per operator and 10 minutes: about 1 is manageable.
    pub per_operator_10_min: f64,
    /// The most in any ten minutes, per operator.
    pub peak_10_min: f64,
    /// Floods, oldest first.
    pub floods: Vec<AlarmFlood>,
    /// Share of the range in flood, 0 to 1; less than 0.01 is aimed at.
    pub flood_share: f64,
    /// Chattering alarms, worst first.
    pub chattering: Vec<AlarmActor>,
    /// Alarms that stand for more than a day at the end of the range, oldest first.
    pub stale: Vec<AlarmActor>,
    /// Alarms that stand at the end of the range.
    pub standing: usize,
    /// The ten that were raised most often.
    pub top: Vec<AlarmActor>,
    /// Share of the priorities 1, 2 and 3 among alarms that have one; about 0.05, 0.15, 0.80 is aimed at.
    pub priority_mix: [f64; 3],
}

/// Measures what was raised or stood in a range. `all` is in order of `raised_us`.
pub fn kpis(all: &[Raised], (from_us, to_us): (Micros, Micros), operators: u32) -> AlarmKpis {
    let operators = operators.max(1);
    let inside: Vec<&Raised> = all
        .iter()
        .filter(|it| (from_us..to_us).contains(&it.raised_us))
        .collect();
    let spans = (to_us - from_us).max(1) as f64 / SPAN_US as f64;
    let times: Vec<Micros> = inside.iter().map(|it| it.raised_us).collect();
    let floods = floods(&inside, to_us);
    let flooded_us: Micros = floods.iter().map(|flood| flood.to_us - flood.from_us).sum();
    AlarmKpis {
        from_us,
        to_us,
        operators,
        alarms: inside.len(),
        per_operator_10_min: inside.len() as f64 / spans / f64::from(operators),
        peak_10_min: most_within(&times, SPAN_US) as f64 / f64::from(operators),
        flood_share: flooded_us as f64 / (to_us - from_us).max(1) as f64,
        floods,
        chattering: chattering(&inside),
        stale: stale(all, to_us),
        standing: all.iter().filter(|it| stands_at(it, to_us)).count(),
        top: top(&inside),
        priority_mix: mix(&inside),
    }
}

fn stands_at(raised: &Raised, at_us: Micros) -> bool {
    raised.raised_us < at_us && raised.cleared_us.is_none_or(|cleared_us| cleared_us >= at_us)
}

/// Most times within a span that begins with one of them; `times` in order.
fn most_within(times: &[Micros], span_us: Micros) -> usize {
    let (mut first, mut most) = (0, 0);
    for (place, time_us) in times.iter().enumerate() {
        while time_us - times[first] >= span_us {
            first += 1;
        }
        most = most.max(place - first + 1);
    }
    most
}

fn floods(inside: &[&Raised], to_us: Micros) -> Vec<AlarmFlood> {
    let mut floods: Vec<AlarmFlood> = Vec::new();
    let mut recent: VecDeque<&Raised> = VecDeque::new();
    let mut open: Option<(Micros, usize, &Raised)> = None;
    for raised in inside {
        // The flood is over when, before this alarm, fewer than five were left of the last ten minutes.
        while let Some(oldest) = recent
            .front()
            .filter(|it| raised.raised_us - it.raised_us >= SPAN_US)
        {
            let left_us = oldest.raised_us + SPAN_US;
            recent.pop_front();
            if recent.len() < FLOOD_OVER_BELOW
                && let Some((from_us, alarms, first)) = open.take()
            {
                floods.push(flood(from_us, left_us, alarms, first));
            }
        }
        recent.push_back(raised);
        match &mut open {
            Some((_, alarms, _)) => *alarms += 1,
            None if recent.len() > FLOOD_MORE_THAN => {
                let first = recent[0];
                open = Some((first.raised_us, recent.len(), first));
            }
            None => {}
        }
    }
    if let Some((from_us, alarms, first)) = open {
        let over_us = recent
            .len()
            .checked_sub(FLOOD_OVER_BELOW)
            .and_then(|place| recent.get(place));
        let end_us = over_us.map_or(to_us, |it| (it.raised_us + SPAN_US).min(to_us));
        floods.push(flood(from_us, end_us, alarms, first));
    }
    floods
}

fn flood(from_us: Micros, to_us: Micros, alarms: usize, first: &Raised) -> AlarmFlood {
    AlarmFlood {
        from_us,
        to_us,
        alarms,
        first_code: first.alarm.0.clone(),
        first_subject: first.alarm.1.clone(),
    }
}

fn by_alarm<'r>(inside: &[&'r Raised]) -> BTreeMap<&'r (String, String), Vec<Micros>> {
    let mut times: BTreeMap<_, Vec<Micros>> = BTreeMap::new();
    for raised in inside {
        times.entry(&raised.alarm).or_default().push(raised.raised_us);
    }
    times
}

fn actor((code, subject): &(String, String), count: u64, share: f64) -> AlarmActor {
    AlarmActor {
        code: code.clone(),
        subject: subject.clone(),
        count,
        share,
    }
}

fn chattering(inside: &[&Raised]) -> Vec<AlarmActor> {
    let all = inside.len().max(1) as f64;
    let mut found: Vec<AlarmActor> = by_alarm(inside)
        .into_iter()
        .filter_map(|(alarm, times)| {
            let most = most_within(&times, CHATTER_US);
            (most > CHATTER_MORE_THAN).then(|| actor(alarm, most as u64, times.len() as f64 / all))
        })
        .collect();
    found.sort_by_key(|it| std::cmp::Reverse(it.count));
    found
}

fn stale(all: &[Raised], to_us: Micros) -> Vec<AlarmActor> {
    let old = all
        .iter()
        .filter(|it| stands_at(it, to_us) && to_us - it.raised_us > STALE_US);
    let seconds = |it: &Raised| ((to_us - it.raised_us) / SECOND_US).unsigned_abs();
    old.map(|it| actor(&it.alarm, seconds(it), 0.0)).collect()
}

fn top(inside: &[&Raised]) -> Vec<AlarmActor> {
    let all = inside.len().max(1) as f64;
    let mut found: Vec<AlarmActor> = by_alarm(inside)
        .into_iter()
        .map(|(alarm, times)| actor(alarm, times.len() as u64, times.len() as f64 / all))
        .collect();
    found.sort_by_key(|it| std::cmp::Reverse(it.count));
    found.truncate(TOP);
    found
}

fn mix(inside: &[&Raised]) -> [f64; 3] {
    let mut counts = [0_u32; 3];
    for priority in inside.iter().filter_map(|it| it.priority) {
        if let Some(count) = usize::try_from(priority - 1)
            .ok()
            .and_then(|place| counts.get_mut(place))
        {
            *count += 1;
        }
    }
    let all = f64::from(counts.iter().sum::<u32>().max(1));
    counts.map(|count| f64::from(count) / all)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINUTE: Micros = 60 * SECOND_US;

    fn raised(code: &str, at_us: Micros, cleared_us: Option<Micros>) -> Raised {
        Raised {
            alarm: (code.to_owned(), "TT-1".to_owned()),
            priority: Some(3),
            raised_us: at_us,
            cleared_us,
        }
    }

    #[test]
    fn eleven_alarms_within_ten_minutes_are_a_flood_and_ten_are_none() {
        let all: Vec<Raised> = (0..10)
            .map(|n| raised("a", n * MINUTE, Some(n * MINUTE + 1)))
            .collect();
        assert!(kpis(&all, (0, 60 * MINUTE), 1).floods.is_empty());
        let all: Vec<Raised> = (0..11)
            .map(|n| raised("a", n * MINUTE / 2, Some(n * MINUTE)))
            .collect();
        let found = kpis(&all, (0, 60 * MINUTE), 1);
        let [flood] = &found.floods[..] else {
            panic!("{found:?}")
        };
        assert_eq!((flood.from_us, flood.alarms), (0, 11));
        // Five were left until the seventh alarm was ten minutes old.
        assert_eq!(flood.to_us, 3 * MINUTE + SPAN_US);
        assert!((found.flood_share - 13.0 / 60.0).abs() < 1e-9);
        assert!((found.peak_10_min - 11.0).abs() < 1e-9);
    }

    #[test]
    fn two_floods_with_quiet_between_are_two() {
        let burst = |from: i64| {
            (0..12).map(move |n| raised("a", from + n * SECOND_US, Some(from + n * SECOND_US + 1)))
        };
        let all: Vec<Raised> = burst(0).chain(burst(60 * MINUTE)).collect();
        let found = kpis(&all, (0, 120 * MINUTE), 1);
        assert_eq!(found.floods.len(), 2);
        assert!(found.floods.iter().all(|flood| flood.alarms == 12));
    }

    #[test]
    fn four_in_a_minute_chatter_and_three_do_not() {
        let of = |code: &'static str, count: i64| {
            (0..count).map(move |n| raised(code, n * 19 * SECOND_US, Some(n * 19 * SECOND_US + 1)))
        };
        let mut all: Vec<Raised> = of("calm", 3).chain(of("nervous", 4)).collect();
        all.sort_by_key(|it| it.raised_us);
        let found = kpis(&all, (0, 60 * MINUTE), 2);
        let codes: Vec<&str> = found.chattering.iter().map(|it| it.code.as_str()).collect();
        assert_eq!(codes, ["nervous"]);
        assert!((found.per_operator_10_min - 7.0 / 6.0 / 2.0).abs() < 1e-9);
        assert_eq!(found.top[0].code, "nervous");
    }

    #[test]
    fn what_stands_for_more_than_a_day_is_stale_even_if_it_began_before_the_range() {
        let day = 86_400 * SECOND_US;
        let all = [
            raised("old", 0, None),
            raised("new", 3 * day, None),
            raised("over", 0, Some(day)),
        ];
        let found = kpis(&all, (2 * day, 3 * day + 1), 1);
        assert_eq!((found.standing, found.alarms), (2, 1));
        assert_eq!(found.stale.len(), 1);
        assert_eq!(
            (found.stale[0].code.as_str(), found.stale[0].count),
            ("old", 259_200)
        );
    }

    proptest! {
        #[test]
        fn floods_never_overlap_and_cover_every_ten_minutes_with_more_than_ten(
            steps in prop::collection::vec(1..400_i64, 1..200),
        ) {
            let mut at_us = 0;
            let all: Vec<Raised> = steps.iter().map(|step| {
                at_us += step * SECOND_US;
                raised("a", at_us, Some(at_us + 1))
            }).collect();
            let found = kpis(&all, (0, at_us + 1), 1);
            for pair in found.floods.windows(2) {
                prop_assert!(pair[0].to_us <= pair[1].from_us + SPAN_US);
            }
            for (place, it) in all.iter().enumerate() {
                let within = all[..=place].iter().filter(|other| it.raised_us - other.raised_us < SPAN_US).count();
                if within > FLOOD_MORE_THAN {
                    let covered = found.floods.iter().any(|flood| (flood.from_us..=flood.to_us).contains(&it.raised_us));
                    prop_assert!(covered, "{} in {:?}", it.raised_us, found.floods);
                }
            }
        }
    }
}
