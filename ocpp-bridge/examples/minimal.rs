//! A charge point that offers a CSMS one configuration key, `Greeting`, and prints what it is set to:
//!
//! ```sh
//! cargo run -p ocpp-bridge --example minimal ws://localhost:9000/ocpp CP001
//! ```
#![allow(clippy::print_stdout, reason = "an example's output is what it is for")]

use ocpp_bridge::{
    Access, BootInfo, ChargePoint, Command, ConfigurationStatus, Event, LinkSettings, Registry, Settings,
    Url, link,
};
use tokio::sync::{mpsc, watch};

const KEY: &str = "Greeting";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(url), Some(identity)) = (arguments.next(), arguments.next()) else {
        return Err("usage: minimal URL IDENTITY".into());
    };

    let mut registry = Registry::new(0);
    registry.register(KEY, Access::ReadWrite)?;
    let boot = BootInfo {
        vendor: "ACME".into(),
        model: "Minimal".into(),
        serial_number: None,
        firmware_version: None,
    };
    let charge_point = ChargePoint::new(Settings::new(boot), registry, fastrand::Rng::new());

    // The link reconnects by itself. It ends once `commands` is dropped.
    let settings = LinkSettings::new(vec![Url::parse(&url)?], identity);
    let (events, mut news) = mpsc::channel(16);
    let (commands, orders) = mpsc::channel(16);
    let (status, _) = watch::channel(link::LinkStatus::default());
    tokio::spawn(link::run(settings, charge_point, events, orders, status));

    while let Some(event) = news.recv().await {
        match event {
            Event::BootStatus { status, .. } => println!("BootNotification: {status:?}"),
            Event::ChangeConfiguration { request, key, value, .. } => {
                println!("{key} = {value:?}");
                commands.send(Command::SetValue { key, value: Some(value) }).await?;
                commands
                    .send(Command::AnswerChange { request, status: ConfigurationStatus::Accepted })
                    .await?;
            }
            _ => {}
        }
    }
    Ok(())
}
