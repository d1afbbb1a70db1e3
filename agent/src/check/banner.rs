//! What the server calls itself: that it is an SSH server, and which.

use reverse_tunnel::Server;
use reverse_tunnel::probe::Reached;

use super::server::problem;
use crate::control::protocol::Problem;

pub(super) async fn look(server: &Server, mut reached: Reached) -> Result<(Reached, String), Problem> {
    let banner = reached.banner().await.map_err(|failure| problem(&failure, server))?;
    Ok((reached, banner))
}
