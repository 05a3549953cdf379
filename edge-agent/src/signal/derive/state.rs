//! What is the equipment doing? Rules over tags name a state; the first whose conditions all hold is it. The state is a
//! tag of its own, so that control points, alarms and totals can be gated by it.

/// A condition on one tag.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Condition {
    /// Greater than this.
    Above(f64),
    /// Less than this.
    Below(f64),
    /// Exactly this.
    Equals(f64),
}

impl Condition {
    fn holds(self, value: f64) -> bool {
        match self {
            Self::Above(bound) => value > bound,
            Self::Below(bound) => value < bound,
            Self::Equals(wanted) => (value - wanted).abs() < f64::EPSILON,
        }
    }
}

/// One state of the equipment.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// `running`, `cip`, …
    pub name: String,
    /// Index of the input, and what must hold of it. All must hold.
    pub when: Vec<(usize, Condition)>,
}

/// The state's number: 1 for the first rule that holds, 0 for none of them. None where an input that could have made an
/// earlier rule hold is not known.
pub(super) fn number(rules: &[Rule], input: impl Fn(usize) -> Option<f64>) -> Option<f64> {
    for (rule, number) in rules.iter().zip(1u32..) {
        let mut is_known = true;
        let mut holds = true;
        for (index, condition) in &rule.when {
            match input(*index) {
                Some(value) => holds &= condition.holds(value),
                None => is_known = false,
            }
        }
        match (holds, is_known) {
            // A condition that is known not to hold settles the rule, whatever the others are.
            (false, _) => {}
            (true, true) => return Some(f64::from(number)),
            (true, false) => return None,
        }
    }
    Some(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Vec<Rule> {
        let rule = |name: &str, when: &[(usize, Condition)]| Rule {
            name: name.to_owned(),
            when: when.to_vec(),
        };
        vec![
            rule("cip", &[(0, Condition::Above(38.0))]),
            rule(
                "running",
                &[(1, Condition::Above(500.0)), (2, Condition::Equals(1.0))],
            ),
        ]
    }

    fn state(inputs: [Option<f64>; 3]) -> Option<f64> {
        number(&rules(), |index| inputs[index])
    }

    #[test]
    fn the_first_rule_that_holds_is_the_state() {
        assert_eq!(state([Some(45.0), Some(9_000.0), Some(1.0)]), Some(1.0));
        assert_eq!(state([Some(2.0), Some(9_000.0), Some(1.0)]), Some(2.0));
        assert_eq!(state([Some(2.0), Some(9_000.0), Some(0.0)]), Some(0.0));
    }

    #[test]
    fn what_is_not_known_is_not_guessed() {
        assert_eq!(state([None, Some(9_000.0), Some(1.0)]), None);
        assert_eq!(state([Some(2.0), None, Some(1.0)]), None);
        // The valve alone settles it.
        assert_eq!(state([Some(2.0), None, Some(0.0)]), Some(0.0));
    }
}
