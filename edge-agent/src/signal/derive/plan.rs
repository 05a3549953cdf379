//! What is a derived tag computed from, and how?

use protocol::{Micros, reading::Alias};

use super::{Integrand, Rule, Stretch};

/// One derived tag.
#[derive(Clone, Debug, PartialEq)]
pub struct DerivedPlan {
    /// Its own alias.
    pub alias: Alias,
    /// Its name.
    pub name: String,
    /// Code of its line.
    pub line: Option<String>,
    /// How it is computed.
    pub kind: Kind,
    /// What from; the first is the lead.
    pub inputs: Vec<Alias>,
    /// An input older than this is not known; a longer pause breaks an integral, microseconds.
    pub gap_us_max: Micros,
    /// Integrals grow and cooling is timed only while this tag has this value.
    pub gate: Option<(Alias, f64)>,
    /// What begins a new batch.
    pub reset: Option<Reset>,
}

/// Begins an integral or a cooling load anew.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reset {
    /// The tag that tells.
    pub tag: Alias,
    /// When it comes to have this value; at any change without one.
    pub value: Option<f64>,
}

/// How a derived tag is computed.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// The first less the second.
    Difference,
    /// The least.
    Min,
    /// The greatest.
    Max,
    /// All together.
    Sum,
    /// All together by their number.
    Mean,
    /// Change of the first over `window_us`, per `per_us`.
    Rate {
        /// Over how long, microseconds.
        window_us: Micros,
        /// The time in the result's unit, microseconds.
        per_us: Micros,
    },
    /// Lethality, pasteurisation units, totals.
    Integral(Integrand),
    /// A stretch of cooling. The air's temperature is the second input, or `air`.
    Cooling {
        /// What is timed.
        stretch: Stretch,
        /// The air's temperature where no tag has it.
        air: Option<f64>,
    },
    /// A state of the equipment, by rules over the inputs.
    State(Vec<Rule>),
}
