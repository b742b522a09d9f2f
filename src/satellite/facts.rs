//! What the device knows of itself, for its enrolment.

use std::collections::BTreeMap;
use std::fs;

use crate::fleet::enrol::FACT_CHARS_MAX;
use crate::oci::Platform;

/// Its platform, the version of this program, and the board where its name is known.
pub fn facts() -> BTreeMap<String, String> {
    let mut facts = BTreeMap::new();
    facts.insert("arch".to_owned(), Platform::device().to_string());
    facts.insert("version".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    if let Ok(model) = fs::read_to_string("/sys/firmware/devicetree/base/model") {
        let model = model.trim_end_matches('\0').trim();
        facts.insert("board".to_owned(), model.chars().take(FACT_CHARS_MAX).collect());
    }
    facts
}
