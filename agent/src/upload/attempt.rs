//! One try to upload a file: name, address, TCP, TLS, HTTP, each with its own timeout.

use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ocpp_bridge::TlsSettings;
use reverse_tunnel::{Host, open_file};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use super::allowed::Reach;
use super::content::File;
use super::failure::Failure;
use super::http::{Method, send};
use super::location::{Location, Scheme};
use crate::clock;
use crate::limits::{SECRET_BYTES, UPLOAD_ADDRESSES, UPLOAD_ATTEMPT, UPLOAD_CONNECT, UPLOAD_DNS, UPLOAD_TLS};

/// Where a file goes, as far as the policy lets it.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) location: Location,
    pub(super) reach: Reach,
    /// `ocpp.ca_file`: whom to trust in TLS.
    pub(super) ca_file: Option<PathBuf>,
}

/// Uploads once: by PUT, and where the server has no PUT for that place, by POST.
pub(super) async fn attempt(place: &Place, file: &File) -> Result<(), Failure> {
    let by_any_method = async {
        match request(place, Method::Put, file).await {
            Err(Failure::Refused(405 | 501)) => request(place, Method::Post, file).await,
            result => result,
        }
    };
    let too_long = |_| Failure::Timeout { step: "the upload", after: UPLOAD_ATTEMPT };
    timeout(UPLOAD_ATTEMPT, by_any_method).await.map_err(too_long)?
}

async fn request(place: &Place, method: Method, file: &File) -> Result<(), Failure> {
    let tcp = connect(place).await?;
    if place.location.scheme() == Scheme::Http {
        return send(tcp, method, &place.location, file).await;
    }
    let name = match place.location.host() {
        Host::Name(name) => {
            ServerName::try_from(name.to_string()).map_err(|error| Failure::Tls(io::Error::other(error)))?
        }
        Host::V4(address) => ServerName::from(IpAddr::V4(*address)),
        Host::V6(address) => ServerName::from(IpAddr::V6(*address)),
    };
    let settings = tls_settings(place.ca_file.clone()).await?;
    let connector = TlsConnector::from(settings.for_others());
    let stream = within(UPLOAD_TLS, "TLS", connector.connect(name, tcp)).await?.map_err(Failure::Tls)?;
    send(stream, method, &place.location, file).await
}

/// Made for each connection: uploads are rare, and a store of public roots is a large thing to keep. Reading it takes a slow
/// controller a moment, so another thread does. There is no client certificate in it: only the CSMS gets to see that.
async fn tls_settings(ca_file: Option<PathBuf>) -> Result<TlsSettings, Failure> {
    let make = move || {
        let ca = ca_file.map(|path| read(&path)).transpose()?;
        TlsSettings::new(ca.as_deref(), clock::EARLIEST).map_err(|error| error.to_string())
    };
    let made = tokio::task::spawn_blocking(make).await;
    made.map_err(|error| error.to_string()).flatten().map_err(Failure::TlsSettings)
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let read = open_file(path).and_then(|file| file.take(SECRET_BYTES).read_to_end(&mut bytes));
    match read {
        Ok(_) => Ok(bytes),
        Err(error) => Err(format!("ocpp.ca_file {} can't be read: {error}", path.display())),
    }
}

/// Connects to the first address that answers, of those that may be connected to. What was judged is what is connected to: no
/// second resolution comes in between.
async fn connect(place: &Place) -> Result<TcpStream, Failure> {
    let addresses = resolve(place).await?;
    let all = addresses.len();
    let allowed: Vec<SocketAddr> =
        addresses.into_iter().filter(|address| place.reach.admits(address.ip())).collect();
    let mut last = Failure::NoAddress { forbidden: all - allowed.len() };
    for address in allowed {
        match within(UPLOAD_CONNECT, "TCP", TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // Only speed is at stake.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(error)) => last = Failure::Tcp(address, error),
            Err(failure) => last = failure,
        }
    }
    Err(last)
}

async fn resolve(place: &Place) -> Result<Vec<SocketAddr>, Failure> {
    let port = place.location.port();
    let name = match place.location.host() {
        Host::V4(address) => return Ok(vec![SocketAddr::new(IpAddr::V4(*address), port)]),
        Host::V6(address) => return Ok(vec![SocketAddr::new(IpAddr::V6(*address), port)]),
        Host::Name(name) => name,
    };
    let found = within(UPLOAD_DNS, "DNS", lookup_host((&**name, port))).await?.map_err(Failure::Dns)?;
    Ok(found.take(UPLOAD_ADDRESSES).collect())
}

async fn within<T>(limit: Duration, step: &'static str, work: impl Future<Output = T>) -> Result<T, Failure> {
    timeout(limit, work).await.map_err(|_| Failure::Timeout { step, after: limit })
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_name_that_leads_into_the_sites_network_is_connected_to_only_if_it_is_listed_itself() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://localhost:{}/", listener.local_addr().unwrap().port());
        let place = |reach| Place { location: Location::parse(&url).unwrap(), reach, ca_file: None };
        let refused = connect(&place(Reach::Public)).await;
        assert!(matches!(refused, Err(Failure::NoAddress { forbidden: 1.. })), "{refused:?}");
        assert!(connect(&place(Reach::Anywhere)).await.is_ok());
    }
}
