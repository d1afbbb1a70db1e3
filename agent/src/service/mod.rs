//! Start and stop as a service: single instance, directories, privileges.

pub mod instance;
pub mod privileges;
