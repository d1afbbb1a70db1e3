//! The local services that the scripts publish: does anybody listen?

use reverse_tunnel::probe;

use super::report::{Report, Step};
use crate::config::Config;
use crate::control::protocol::Problem;
use crate::exit::Exit;

pub(super) async fn look(report: &mut Report<'_>, config: &Config) {
    for slot in &config.slots {
        let target = &slot.forward.local;
        let asked = async {
            match probe::local_service(target).await {
                Ok(()) => Ok(((), format!("{target} answers, for script {}", slot.number))),
                Err(error) => Err(Problem::new(
                    Exit::Error,
                    format!("{target}, which script {} publishes, doesn't answer: {error}", slot.number),
                    format!("start the service, or change `local` of {} in the configuration", slot.key),
                )),
            }
        };
        report.step(Step::Local, asked).await;
    }
    if config.slots.is_empty() {
        report.skip(Step::Local, "no script is configured");
    }
}
