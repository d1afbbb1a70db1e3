//! The transparent proxy between a controller and its CSMS.

mod door;
mod filter;
mod get_configuration;
mod leg;
mod relay;
mod splice;
mod watch;

pub use filter::{Filter, Pass};
pub use leg::LegFigures;
