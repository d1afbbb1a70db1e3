//! Values that the CSMS gave the standard's keys in an earlier life of this charge point. Where they are kept meanwhile
//! is the embedder's matter: [`Event::ConfigurationChanged`](super::Event::ConfigurationChanged) tells of each.

use super::ChargePoint;
use crate::configuration::Change;

impl ChargePoint {
    /// Puts a value into effect that the CSMS gave a key of the standard earlier, judged as if it came now. No event
    /// comes of it. To be called before the first connection.
    ///
    /// # Errors
    /// Why the value isn't taken: the CSMS can't change the key, or not to this value.
    pub fn restore_value(&mut self, key: &str, value: &str) -> Result<(), &'static str> {
        match self.registry.change(key, value) {
            Change::Unknown => Err("there is no such key"),
            Change::Ask { .. } => Err("the key isn't one of the standard's"),
            Change::Refused(reason) => Err(reason),
            Change::Unchanged => Ok(()),
            Change::Changed { name, .. } => {
                self.apply(name);
                Ok(())
            }
        }
    }
}
