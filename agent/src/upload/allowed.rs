//! Where uploads may go: `policy.allow_uploads`.
//!
//! A CSMS names the place, so a hostile one would use us to reach into the site's network. The list is matched against the
//! parsed URL, and what a name resolves to is judged as well.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use reverse_tunnel::Host;
use reverse_tunnel::destination::{DestinationError, parse_port, split_host};

use super::location::{Location, Scheme};
use crate::policy::HostPattern;

/// One entry of `policy.allow_uploads`: `https://host[:port]`, with wildcards in the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadPattern {
    scheme: Scheme,
    host: HostPattern,
    /// `None`: any.
    port: Option<u16>,
}

/// Why a text is no [`UploadPattern`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UploadPatternError {
    /// It begins with neither `https://` nor `http://`.
    Scheme,
    /// The host.
    Host(DestinationError),
    /// The port is neither `*` nor 1 to 65535.
    Port,
    /// There is something behind the port.
    Path,
}

/// Which addresses an upload may connect to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Any: the list names this very host.
    Anywhere,
    /// Those of the public internet: a wildcard matches the host, and whoever keeps that domain's names could have one point
    /// into the site's network.
    Public,
}

/// What the entries of the list together say of a place; `None`: nothing is sent there.
#[must_use]
pub fn reach(list: &[UploadPattern], location: &Location) -> Option<Reach> {
    let matching = list.iter().filter(|pattern| pattern.matches(location));
    let reach = matching.map(UploadPattern::reach).reduce(|one, other| match one {
        Reach::Anywhere => one,
        Reach::Public => other,
    })?;
    let literal = match location.host() {
        Host::Name(_) => return Some(reach),
        Host::V4(address) => IpAddr::V4(*address),
        Host::V6(address) => IpAddr::V6(*address),
    };
    reach.admits(literal).then_some(reach)
}

// === impl UploadPattern ===

impl UploadPattern {
    /// The entry for one host, over TLS.
    #[must_use]
    pub fn https(host: Host, port: u16) -> Self {
        Self { scheme: Scheme::Https, host: HostPattern::Is(host), port: Some(port) }
    }

    /// How the server is spoken to.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    fn matches(&self, location: &Location) -> bool {
        self.scheme == location.scheme()
            && self.port.is_none_or(|port| port == location.port())
            && self.host.matches(location.host())
    }

    fn reach(&self) -> Reach {
        match self.host {
            HostPattern::Is(_) => Reach::Anywhere,
            HostPattern::Any | HostPattern::Below(_) => Reach::Public,
        }
    }
}

impl FromStr for UploadPattern {
    type Err = UploadPatternError;

    fn from_str(text: &str) -> Result<Self, UploadPatternError> {
        let (scheme, rest) = text.split_once("://").ok_or(UploadPatternError::Scheme)?;
        let scheme = Scheme::parse(scheme).ok_or(UploadPatternError::Scheme)?;
        if rest.contains(['/', '?', '#']) {
            return Err(UploadPatternError::Path);
        }
        let (host, port) = split_host(rest);
        let port = match port {
            "" => Some(scheme.default_port()),
            ":*" => None,
            port => Some(port.strip_prefix(':').and_then(parse_port).ok_or(UploadPatternError::Port)?),
        };
        let position = scheme.to_string().len() + 4;
        let host = HostPattern::parse(host, position).map_err(UploadPatternError::Host)?;
        Ok(Self { scheme, host, port })
    }
}

impl fmt::Display for UploadPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", self.scheme)?;
        match &self.host {
            HostPattern::Any => f.write_str("*")?,
            HostPattern::Below(suffix) => write!(f, "*{suffix}")?,
            HostPattern::Is(host) => host.fmt(f)?,
        }
        match self.port {
            None => f.write_str(":*"),
            Some(port) if port == self.scheme.default_port() => Ok(()),
            Some(port) => write!(f, ":{port}"),
        }
    }
}

impl fmt::Display for UploadPatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scheme => f.write_str("it begins with neither https:// nor http://"),
            Self::Host(error) => error.fmt(f),
            Self::Port => f.write_str("its port is neither * nor 1 to 65535"),
            Self::Path => f.write_str("it holds a path, but only scheme, host and port are matched"),
        }
    }
}

impl std::error::Error for UploadPatternError {}

// === impl Reach ===

impl Reach {
    /// May this address be connected to?
    #[must_use]
    pub fn admits(self, address: IpAddr) -> bool {
        self == Self::Anywhere || is_public(address)
    }
}

/// Is this an address of the public internet (RFC 6890 and IANA's special-purpose registries)? Loopback, private, link-local,
/// multicast and reserved ones aren't, nor are IPv6 addresses that carry such an IPv4 address.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = a == 0
        || address.is_loopback()
        || address.is_private()
        || address.is_link_local()
        || (a == 100 && b & 0xc0 == 64) // carrier NAT, RFC 6598
        || (a == 192 && b == 0 && c == 0) // IETF protocol assignments
        || (a == 198 && b & 0xfe == 18) // benchmarks, RFC 2544
        || address.is_documentation()
        || a >= 224; // multicast, reserved, broadcast
    !special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, c, d, e, f, g, h] = address.segments();
    let embedded = |high: u16, low: u16| {
        let ([one, two], [three, four]) = (high.to_be_bytes(), low.to_be_bytes());
        is_public_v4(Ipv4Addr::new(one, two, three, four))
    };
    match [a, b, c, d, e, f] {
        [0, 0, 0, 0, 0, 0xffff] => embedded(g, h),      // mapped
        [0x64, 0xff9b, 0, 0, 0, 0] => embedded(g, h),   // NAT64, RFC 6052
        [0x2002, high, low, ..] => embedded(high, low), // 6to4, RFC 3056
        // Of the rest only 2000::/3 is given out; 2001::/23 is the protocols', 2001:db8::/32 the documentation's.
        _ => a & 0xe000 == 0x2000 && !(a == 0x2001 && (b < 0x200 || b == 0xdb8)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn list(patterns: &[&str]) -> Vec<UploadPattern> {
        patterns.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn judge(patterns: &[&str], url: &str) -> Option<Reach> {
        reach(&list(patterns), &Location::parse(url).unwrap())
    }

    #[test]
    fn patterns_match_the_parsed_parts() {
        for (pattern, yes, no) in [
            (
                "https://logs.example.com",
                &[
                    "https://logs.example.com/x",
                    "HTTPS://Logs.Example.com:443",
                    "https://u:p@logs.example.com/",
                ][..],
                &[
                    "http://logs.example.com/x",
                    "https://logs.example.com:8443/",
                    "https://example.com/",
                    "https://logs.example.com.evil.org/",
                    "https://evil.org/logs.example.com",
                    "https://logs.example.com:x@evil.org/",
                    "https://evil.org?https://logs.example.com",
                ][..],
            ),
            (
                "https://*.example.com:8443",
                &["https://a.example.com:8443/", "https://a.b.example.com:8443"],
                &["https://example.com:8443/", "https://a.example.com/", "https://axexample.com:8443/"],
            ),
            ("http://logs:*", &["http://logs/", "http://logs:8080/"], &["https://logs/"]),
            ("https://*", &["https://anything.example/"], &["https://anything.example:1/"]),
            ("https://[2001:db8::1]", &["https://[2001:DB8:0::1]/"], &["https://[2001:db8::2]/"]),
        ] {
            for url in yes {
                assert!(judge(&[pattern], url).is_some(), "{pattern} should match {url}");
            }
            for url in no {
                assert_eq!(judge(&[pattern], url), None, "{pattern} should not match {url}");
            }
            assert_eq!(list(&[pattern])[0].to_string().parse(), Ok(list(&[pattern])[0].clone()), "{pattern}");
        }
    }

    #[test]
    fn an_empty_list_allows_nothing() {
        assert_eq!(judge(&[], "https://logs.example.com/"), None);
    }

    #[test]
    fn wildcards_never_reach_into_the_sites_network() {
        for url in [
            "https://127.0.0.1/",
            "https://10.0.0.1/",
            "https://169.254.169.254/latest/meta-data",
            "https://100.64.0.1/",
            "https://[::1]/",
            "https://[::ffff:192.168.0.1]/",
            "https://[fd00::1]/",
            "https://[fe80::1]/",
            "https://[64:ff9b::a00:1]/",
            "https://[2002:7f00:1::]/",
            "https://0.0.0.0/",
            "https://[::]/",
        ] {
            assert_eq!(judge(&["https://*"], url), None, "{url}");
        }
        assert_eq!(judge(&["https://*"], "https://93.184.216.34/"), Some(Reach::Public));
        assert_eq!(judge(&["https://*"], "https://[2606:4700::1]/"), Some(Reach::Public));
        assert!(!Reach::Public.admits("192.168.1.1".parse().unwrap()));
        assert!(Reach::Anywhere.admits("192.168.1.1".parse().unwrap()));
    }

    #[test]
    fn an_address_that_is_listed_itself_may_be_a_private_one() {
        assert_eq!(judge(&["https://*", "https://10.0.0.1"], "https://10.0.0.1/"), Some(Reach::Anywhere));
        assert_eq!(judge(&["https://10.0.0.1", "https://*"], "https://10.0.0.1/"), Some(Reach::Anywhere));
        assert_eq!(judge(&["https://10.0.0.1"], "https://[::ffff:10.0.0.1]/"), None);
        // A name that is listed may resolve to anything.
        assert_eq!(judge(&["https://logs.local"], "https://logs.local/"), Some(Reach::Anywhere));
        assert_eq!(judge(&["https://*.local"], "https://logs.local/"), Some(Reach::Public));
    }

    #[test]
    fn mistakes_in_a_pattern_are_told_apart() {
        let error = |text: &str| text.parse::<UploadPattern>().unwrap_err();
        for text in ["", "logs.example.com", "ftp://h", "*://h"] {
            assert_eq!(error(text), UploadPatternError::Scheme, "{text}");
        }
        for text in ["https://h/", "https://h/logs", "https://h?x"] {
            assert_eq!(error(text), UploadPatternError::Path, "{text}");
        }
        for text in ["https://", "https://u@h", "https://*.1.2.3.4", "https://a*"] {
            assert!(matches!(error(text), UploadPatternError::Host(_)), "{text}: {:?}", error(text));
        }
        assert_eq!(error("https://h:0"), UploadPatternError::Port);
    }

    proptest! {
        /// Whatever a URL says, what matches has the scheme, host and port of the list.
        #[test]
        fn nothing_outside_the_list_ever_matches(
            scheme in "https?|HTTPS|ftp",
            user in "([a-z.:%0-9]{0,12}@)?",
            host in "([a-z]{1,3}\\.)?(logs\\.example\\.com|example\\.com|logs|evil\\.org|10\\.0\\.0\\.1|\\[::1\\])\\.?",
            port in "(:[0-9]{0,5})?",
            rest in "([/?#\\\\@:a-z.]{0,20})(logs\\.example\\.com)?",
        ) {
            let url = format!("{scheme}://{user}{host}{port}{rest}");
            let list = list(&["https://logs.example.com", "https://*.logs.example.com:8443"]);
            if let Ok(location) = Location::parse(&url)
                && reach(&list, &location).is_some()
            {
                let name = location.host().to_string();
                prop_assert_eq!(location.scheme(), Scheme::Https);
                match location.port() {
                    443 => prop_assert_eq!(name, "logs.example.com"),
                    8443 => prop_assert!(name.ends_with(".logs.example.com"), "{}", url),
                    port => prop_assert!(false, "{} at port {}", url, port),
                }
            }
        }

        #[test]
        fn patterns_are_parsed_without_panic(text in ".*", rest in "[a-z*.:\\[\\]0-9]{0,20}") {
            let _ = text.parse::<UploadPattern>();
            let _ = format!("https://{rest}").parse::<UploadPattern>();
        }
    }
}
