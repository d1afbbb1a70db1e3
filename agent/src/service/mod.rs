//! Start and stop as a service: single instance, its place in `runtime_dir`, privileges, sandbox, what a service manager is told.

pub mod instance;
pub mod notify;
pub mod place;
pub mod privileges;
pub mod sandbox;
