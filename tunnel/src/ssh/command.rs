//! A command on the server, with its input and what it says. Tunnels run none; it is there to install our key.

use russh::{Channel, ChannelMsg, client};

use super::Session;
use crate::failure::Failure;
use crate::limits::COMMAND_OUTPUT_BYTES;

/// What came of a command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandOutput {
    /// The exit status; none if the server ran nothing, or a signal ended it.
    pub status: Option<u32>,
    /// Its standard output, cut after [`COMMAND_OUTPUT_BYTES`].
    pub stdout: Vec<u8>,
    /// Its standard error, cut likewise.
    pub stderr: Vec<u8>,
}

/// `SSH_EXTENDED_DATA_STDERR` (RFC 4254, 5.2).
const STDERR: u32 = 1;

impl Session {
    /// Runs a command, which the account's shell interprets: so nothing of it may come from outside. `input` is its
    /// standard input.
    pub(crate) async fn run(
        &mut self,
        command: &'static str,
        input: &[u8],
    ) -> Result<CommandOutput, Failure> {
        let mut channel = match self.handle.channel_open_session().await {
            Ok(channel) => channel,
            // It lets this account open none.
            Err(russh::Error::ChannelOpenFailure(_)) => return Ok(CommandOutput::default()),
            Err(error) => return Err(self.lost_or(&error)),
        };
        match converse(&mut channel, command, input).await {
            Ok(output) => Ok(output),
            Err(error) => Err(self.lost_or(&error)),
        }
    }
}

async fn converse(
    channel: &mut Channel<client::Msg>,
    command: &'static str,
    input: &[u8],
) -> Result<CommandOutput, russh::Error> {
    let mut output = CommandOutput::default();
    channel.exec(true, command).await?;
    channel.data(input).await?;
    channel.eof().await?;
    while let Some(message) = channel.wait().await {
        match message {
            ChannelMsg::Data { data } => keep(&mut output.stdout, &data),
            ChannelMsg::ExtendedData { data, ext: STDERR } => keep(&mut output.stderr, &data),
            ChannelMsg::ExitStatus { exit_status } => output.status = Some(exit_status),
            ChannelMsg::Failure => {
                channel.close().await?;
                return Ok(output);
            }
            _ => {}
        }
    }
    Ok(output)
}

fn keep(kept: &mut Vec<u8>, data: &[u8]) {
    let room = COMMAND_OUTPUT_BYTES.saturating_sub(kept.len());
    kept.extend(data.iter().take(room));
}
