//! Is a value unlike what is normal? What is normal is learnt from history: a centre and a spread, by hour of the week
//! where that matters (`baseline`), or how easily a point is told from others (`forest`).

pub mod baseline;
pub mod forest;
