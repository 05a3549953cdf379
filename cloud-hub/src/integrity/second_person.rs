//! Who may put which signature on a record? Nobody judges their own work: whoever performed it, or changed the
//! record last, neither reviews nor approves it; where a rule asks for two persons, two different ones sign. Pure.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::kernel::permission::Permission;

/// What a signature stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Meaning {
    /// I did it.
    Performed,
    /// I looked at it and found it in order.
    Reviewed,
    /// I answer for it.
    Approved,
    /// It may go on from here.
    Released,
}

impl Meaning {
    /// Every meaning.
    pub(super) const ALL: [Self; 4] = [Self::Performed, Self::Reviewed, Self::Approved, Self::Released];

    /// Its name in SQL and in the audit chain.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Performed => "performed",
            Self::Reviewed => "reviewed",
            Self::Approved => "approved",
            Self::Released => "released",
        }
    }

    /// Reads the name.
    pub(super) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|meaning| meaning.as_str() == name)
    }

    /// What one must be allowed to give it.
    pub(super) const fn permission(self) -> Permission {
        match self {
            Self::Performed => Permission::SignaturePerform,
            Self::Reviewed => Permission::SignatureReview,
            Self::Approved | Self::Released => Permission::SignatureApprove,
        }
    }

    const fn is_judgement(self) -> bool {
        !matches!(self, Self::Performed)
    }
}

/// A rule of a kind of record: `second` needs `first` of the same version before it, by somebody else.
struct TwoPersons {
    record_type: &'static str,
    first: Meaning,
    second: Meaning,
}

/// Releasing product from a hold and closing a deviation are decisions of two persons.
const TWO_PERSONS: &[TwoPersons] = &[
    TwoPersons {
        record_type: "hold",
        first: Meaning::Approved,
        second: Meaning::Released,
    },
    TwoPersons {
        record_type: "deviation",
        first: Meaning::Approved,
        second: Meaning::Released,
    },
];

/// What is known of a record when somebody wants to sign it.
#[derive(Clone, Debug, Default)]
pub(super) struct Situation {
    /// Kind of record.
    pub(super) record_type: String,
    /// Signatures on this very version: what each stands for and whose it is.
    pub(super) signed: Vec<(Meaning, Uuid)>,
    /// Who made this version, when it was a person.
    pub(super) changed_by: Option<Uuid>,
}

/// Why somebody may not sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("you signed this version with the same meaning before")]
    Again,
    #[error("whoever performed the work does not review, approve or release it")]
    OwnWork,
    #[error("whoever changed the record last does not review, approve or release it")]
    OwnChange,
    #[error("you reviewed, approved or released this version: it cannot be your own work")]
    Judged,
    #[error("this needs the signature `approved` of another person first")]
    First,
    #[error("the same person does not approve and release this kind of record")]
    SamePerson,
}

/// Whether `signer` may sign.
pub(super) fn may_sign(situation: &Situation, meaning: Meaning, signer: Uuid) -> Result<(), Refusal> {
    let own = |wanted: &dyn Fn(Meaning) -> bool| {
        let mut signed = situation.signed.iter();
        signed.any(|(given, by)| *by == signer && wanted(*given))
    };
    if own(&|given| given == meaning) {
        return Err(Refusal::Again);
    }
    if !meaning.is_judgement() {
        return if own(&Meaning::is_judgement) {
            Err(Refusal::Judged)
        } else {
            Ok(())
        };
    }
    if own(&|given| given == Meaning::Performed) {
        return Err(Refusal::OwnWork);
    }
    if situation.changed_by == Some(signer) {
        return Err(Refusal::OwnChange);
    }
    let mut rules = TWO_PERSONS
        .iter()
        .filter(|rule| rule.record_type == situation.record_type);
    rules.try_for_each(|rule| {
        let has_first = situation.signed.iter().any(|(given, _)| *given == rule.first);
        if meaning == rule.second && !has_first {
            Err(Refusal::First)
        } else if (meaning == rule.second && own(&|given| given == rule.first))
            || (meaning == rule.first && own(&|given| given == rule.second))
        {
            Err(Refusal::SamePerson)
        } else {
            Ok(())
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANN: Uuid = Uuid::from_u128(1);
    const BOB: Uuid = Uuid::from_u128(2);

    fn situation(record_type: &str, signed: &[(Meaning, Uuid)], changed_by: Option<Uuid>) -> Situation {
        Situation {
            record_type: record_type.to_owned(),
            signed: signed.to_vec(),
            changed_by,
        }
    }

    /// Every set of at most three signatures of Ann and Bob.
    fn all_signed() -> Vec<Vec<(Meaning, Uuid)>> {
        let one: Vec<_> = Meaning::ALL
            .iter()
            .flat_map(|meaning| [(*meaning, ANN), (*meaning, BOB)])
            .collect();
        let mut all = vec![vec![]];
        for first in 0..one.len() {
            all.push(vec![one[first]]);
            for second in first + 1..one.len() {
                all.push(vec![one[first], one[second]]);
                for third in second + 1..one.len() {
                    all.push(vec![one[first], one[second], one[third]]);
                }
            }
        }
        all
    }

    #[test]
    fn nobody_judges_what_they_did_and_two_persons_are_two_whatever_was_signed_before() {
        for record_type in ["batch", "supplier", "hold", "deviation"] {
            for signed in all_signed() {
                for changed_by in [None, Some(ANN), Some(BOB)] {
                    for meaning in Meaning::ALL {
                        let now = situation(record_type, &signed, changed_by);
                        let had = |wanted| signed.contains(&(wanted, ANN));
                        let may = may_sign(&now, meaning, ANN).is_ok();
                        let judges = meaning != Meaning::Performed;
                        let has_judged =
                            had(Meaning::Reviewed) || had(Meaning::Approved) || had(Meaning::Released);
                        let is_approved = signed.iter().any(|(given, _)| *given == Meaning::Approved);
                        let two = record_type == "hold" || record_type == "deviation";
                        let forbidden = had(meaning)
                            || (judges && (had(Meaning::Performed) || changed_by == Some(ANN)))
                            || (!judges && has_judged)
                            || (two
                                && meaning == Meaning::Released
                                && (!is_approved || had(Meaning::Approved)))
                            || (two && meaning == Meaning::Approved && had(Meaning::Released));
                        assert_eq!(may, !forbidden, "{now:?} {meaning:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_refusal_says_what_is_lacking() {
        let check = |now: &Situation, meaning| may_sign(now, meaning, ANN).unwrap_err();
        assert_eq!(
            check(&situation("hold", &[], None), Meaning::Released),
            Refusal::First
        );
        let own = situation("hold", &[(Meaning::Approved, ANN)], None);
        assert_eq!(check(&own, Meaning::Released), Refusal::SamePerson);
        assert!(may_sign(&own, Meaning::Released, BOB).is_ok());
        let changed = situation("lot", &[], Some(ANN));
        assert_eq!(check(&changed, Meaning::Reviewed), Refusal::OwnChange);
        let performed = situation("lot", &[(Meaning::Performed, ANN)], None);
        assert_eq!(check(&performed, Meaning::Performed), Refusal::Again);
        assert_eq!(check(&performed, Meaning::Approved), Refusal::OwnWork);
        let reviewed = situation("lot", &[(Meaning::Reviewed, ANN)], None);
        assert_eq!(check(&reviewed, Meaning::Performed), Refusal::Judged);
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        for meaning in Meaning::ALL {
            assert_eq!(Meaning::parse(meaning.as_str()), Some(meaning));
        }
        assert_eq!(Meaning::parse("seen"), None);
    }
}
