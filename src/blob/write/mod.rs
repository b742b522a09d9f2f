//! From bytes to what is held: room is reserved, bytes are programmed to their final place, and a record
//! that is durable says that they are a blob.
//!
//! | file | what it does |
//! |---|---|
//! | `reserve` | finds room, and makes some |
//! | `writer` | takes the bytes of one blob, with `program`; `follow` reads behind it |
//! | `small` | lays small blobs together |
//! | `finish` | keeps what is whole until its bytes are durable |
//! | `flush` | makes bytes and records durable |
//! | `change` | tags, types, pins, and what is given up; `notes` is for documents and the ledger |

pub(super) mod change;
pub(super) mod finish;
pub(super) mod flush;
pub(super) mod follow;
pub(super) mod notes;
pub(super) mod program;
pub(super) mod reserve;
pub(super) mod small;
pub(super) mod writer;
