//! The audit records: who asked for what, what became of it, and what went through.

mod read;

pub use read::{Part, directory, next_line, parts, read_all};
