//! Start and stop as a service: single instance, its place in `runtime_dir`, privileges.

pub mod instance;
pub mod place;
pub mod privileges;
