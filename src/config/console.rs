//! The console: where it listens, and by which names it may be asked for.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// Where the console listens that is not told.
const USUAL: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9465);
/// The forms of [`ConsoleListen`], for messages.
pub(super) const FORMS: &str = "an address such as \"127.0.0.1:9465\", or \"off\"";

/// The console.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Console {
    /// Where it listens.
    pub listen: ConsoleListen,
    /// The names, beside those of this machine, by which it may be asked for.
    pub hosts: Vec<String>,
}

/// Where the console listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ConsoleListen {
    /// Nothing was said: at 127.0.0.1:9465, or where another process has that, at a free port of 127.0.0.1.
    #[default]
    Usual,
    /// There and nowhere else.
    At(SocketAddr),
    /// Nowhere.
    Off,
}

impl ConsoleListen {
    /// The address to ask first; none where there is no console.
    #[must_use]
    pub fn address(self) -> Option<SocketAddr> {
        match self {
            Self::Usual => Some(USUAL),
            Self::At(address) => Some(address),
            Self::Off => None,
        }
    }
}

impl FromStr for ConsoleListen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self::Off),
            _ => text.parse().map(Self::At).map_err(|_| format!("found {text:?}, expected {FORMS}")),
        }
    }
}

impl fmt::Display for ConsoleListen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address() {
            Some(address) => address.fmt(f),
            None => f.write_str("off"),
        }
    }
}

impl<'de> Deserialize<'de> for ConsoleListen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl Serialize for ConsoleListen {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What is wrong with it, a line each.
pub(super) fn problems(console: &Console) -> Vec<String> {
    let mut problems = Vec::new();
    if let ConsoleListen::At(address) = console.listen
        && !address.ip().is_loopback()
        && console.hosts.is_empty()
    {
        problems.push(format!(
            "`console.listen` is {address}, where other machines reach it, and the console has no login: it shows payloads of \
             dead rows to everybody who asks. Leave it at 127.0.0.1, where `kubectl port-forward` and `ssh -L` reach it, or \
             say by `console.hosts` under which names it may be asked for"
        ));
    }
    for host in &console.hosts {
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
        if host.is_empty()
            || !host.chars().all(is_name)
            || (host.contains(':') && host.parse::<std::net::Ipv6Addr>().is_err())
        {
            problems.push(format!(
                "`console.hosts` has {host:?}: give names or addresses, without scheme and port, such as \"weir.example.org\""
            ));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems_of(listen: &str, hosts: &[&str]) -> Vec<String> {
        let hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
        problems(&Console { listen: listen.parse().unwrap(), hosts })
    }

    #[test]
    fn each_form_is_read_and_shown_alike() {
        for text in ["off", "127.0.0.1:9465", "[::1]:0"] {
            assert_eq!(text.parse::<ConsoleListen>().unwrap().to_string(), text);
        }
        assert_eq!(ConsoleListen::Usual.to_string(), "127.0.0.1:9465");
        for wrong in ["", "on", "localhost:1", "9465"] {
            assert!(wrong.parse::<ConsoleListen>().unwrap_err().contains("\"off\""), "{wrong}");
        }
    }

    #[test]
    fn an_address_that_others_reach_needs_the_names_it_is_asked_for_by() {
        assert!(problems_of("127.0.0.1:1", &[]).is_empty() && problems_of("[::1]:1", &[]).is_empty());
        assert!(problems_of("0.0.0.0:1", &[])[0].contains("console.hosts"));
        assert!(problems_of("0.0.0.0:1", &["weir.example.org", "10.0.0.7", "fd00::7"]).is_empty());
        for wrong in ["", "http://weir", "weir:9465", "a b"] {
            assert_eq!(problems_of("127.0.0.1:1", &[wrong]).len(), 1, "{wrong}");
        }
    }
}
