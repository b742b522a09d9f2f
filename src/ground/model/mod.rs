//! The words of the fleet: values that rows, rules, the API and the command line share. No I/O.
//!
//! | file | holds |
//! |---|---|
//! | `satellite` | what a satellite is judged on |
//! | `sample` | what a satellite was over some time |
//! | `tags` | how a group's tags are taken |
//! | `policy` | the rules of a rollout, as people write them |
//! | `rollout` | where a rollout is, and its satellites |

mod policy;
mod rollout;
mod sample;
mod satellite;
mod tags;

pub use policy::{Approval, Batch, Budget, Percent, Policy, Span};
pub use rollout::{Member, Outcome, Phase};
pub use sample::{
    DAY, HOUR, HOURLY_DAYS, KEPT_DAYS, MERGED, SAMPLES_MAX, Sample, merged_before, rank,
};
pub use satellite::{Connection, Health, Lifecycle, Updated};
pub use tags::Mode;
