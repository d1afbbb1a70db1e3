//! A plain TCP relay, in a process of its own as the others are: this program again, under another name.

use std::net::Ipv4Addr;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

/// Passes what comes to a free port on to `port`, for ever; the first line that it prints is its own.
pub(crate) async fn run(port: u16) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port is free");
    let own = listener.local_addr().expect("it is bound").port();
    println!("{{\"port\":{own}}}");
    while let Ok((mut client, _)) = listener.accept().await {
        tokio::spawn(async move {
            let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
            client.set_nodelay(true)?;
            server.set_nodelay(true)?;
            copy_bidirectional(&mut client, &mut server).await
        });
    }
}
