//! What did a judge say? Its verdicts and its deviations, for the tests of all judges.

use super::{CheckVerdict, Deviation, Judgement};

/// The verdicts of the windows that ended.
pub(super) fn verdicts(said: &[Judgement]) -> Vec<CheckVerdict> {
    let verdicts = said.iter().filter_map(|judgement| match judgement {
        Judgement::Check(check) => Some(check.verdict),
        _ => None,
    });
    verdicts.collect()
}

/// Every word on a deviation.
pub(super) fn deviations(said: &[Judgement]) -> Vec<Deviation> {
    let deviations = said.iter().filter_map(|judgement| match judgement {
        Judgement::Deviation(deviation) => Some(deviation.clone()),
        _ => None,
    });
    deviations.collect()
}
