//! What no log, message or dump may show.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

/// What stands in place of a secret.
pub(super) const HIDDEN: &str = "***";

/// A secret, or a URL with a password in it. Debug, Display and Serialize show a URL with `***` in place of its
/// password and of a `password=` parameter, and nothing of what is no URL.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Keeps a secret.
    pub fn new(content: impl Into<String>) -> Self {
        Self(content.into())
    }

    /// The secret itself: for the connection that needs it, never for text.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<String> for Secret {
    fn from(content: String) -> Self {
        Self(content)
    }
}

impl From<&str> for Secret {
    fn from(content: &str) -> Self {
        Self(content.to_owned())
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&redact(&self.0))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", redact(&self.0))
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&redact(&self.0))
    }
}

/// Works on text rather than on a parsed URL, since a mistyped URL holds a password just the same: whatever stands
/// between the first ':' after the scheme and the last '@' is hidden, a password with '/', '?' or '@' in it too.
/// Where that '@' may belong to a parameter that is a secret, nothing tells which part is one: all of it is hidden.
fn redact(content: &str) -> String {
    if content.is_empty() {
        return String::new();
    }
    let Some((scheme, rest)) = content.split_once("://") else {
        // A file's name, spelled as SQLite also takes it.
        let file = content.strip_prefix("sqlite:").filter(|file| !file.contains('@'));
        return file.map_or(HIDDEN.to_owned(), |file| format!("sqlite:{}", redact_parameters(file)));
    };
    let rest = match rest.rsplit_once('@') {
        Some((login, _)) if login.contains(':') && has_secret_parameter(login) => HIDDEN.to_owned(),
        Some((login, address)) if login.contains(':') => {
            let user = login.split(':').next().unwrap_or_default();
            format!("{}:{HIDDEN}@{}", redact_parameters(user), redact_parameters(address))
        }
        _ => redact_parameters(rest),
    };
    format!("{scheme}://{rest}")
}

fn has_secret_parameter(text: &str) -> bool {
    let parameters = text.split(['?', '&']).skip(1);
    parameters.filter_map(|parameter| parameter.split_once('=')).any(|(name, _)| is_secret_name(name))
}

fn redact_parameters(address: &str) -> String {
    let Some((place, query)) = address.split_once('?') else { return address.to_owned() };
    let shown: Vec<String> = query
        .split('&')
        .map(|parameter| match parameter.split_once('=') {
            Some((name, _)) if is_secret_name(name) => format!("{name}={HIDDEN}"),
            _ => parameter.to_owned(),
        })
        .collect();
    format!("{place}?{}", shown.join("&"))
}

/// Whether a setting of this name holds a secret.
pub(super) fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace('.', "_");
    ["password", "secret", "key_pem", "oauthbearer_config"].iter().any(|part| name.contains(part))
}

/// A message without the passwords of addresses in it: one may stand where no address belongs, and be quoted for that.
pub(super) fn redact_addresses(message: &str) -> String {
    let is_address = |text: &str| text.contains("://") && text.contains('@');
    let shown = |text: &str| if is_address(text) { redact(text) } else { text.to_owned() };
    let (mut told, mut rest) = (String::with_capacity(message.len()), message);
    loop {
        let (plain, quoted) = rest.split_once('"').unwrap_or((rest, ""));
        let words: Vec<String> = plain.split(' ').map(shown).collect();
        told.push_str(&words.join(" "));
        if plain.len() == rest.len() {
            return told;
        }
        let mut escaped = false;
        let end = quoted.find(|c| {
            let is_end = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            is_end
        });
        let (text, behind) = end.map_or((quoted, ""), |end| quoted.split_at(end));
        told.extend(["\"", &shown(text)]);
        let Some(behind) = behind.strip_prefix('"') else { return told };
        told.push('"');
        rest = behind;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_hides_the_passwords_of_addresses_in_it() {
        let shown =
            redact_addresses(r#"`kafka.brokers`: found "postgres://weir:a \"b@db/weir", expected "127.0.0.1:9092""#);
        assert_eq!(shown, r#"`kafka.brokers`: found "postgres://weir:***@db/weir", expected "127.0.0.1:9092""#);
        assert_eq!(redact_addresses("no mechanism redis://u:p@ here"), "no mechanism redis://u:***@ here");
        for kept in [r#"found "a@b", expected "redis://host""#, "an odd \" and redis://host/ a@b", "\"", ""] {
            assert_eq!(redact_addresses(kept), kept);
        }
    }

    #[track_caller]
    fn shows(content: &str, shown: &str) {
        let secret = Secret::new(content);
        assert_eq!(secret.to_string(), shown);
        assert_eq!(format!("{secret:?}"), format!("{shown:?}"));
        assert_eq!(serde_json::to_value(&secret).unwrap(), shown);
        assert_eq!(secret.expose(), content);
    }

    #[test]
    fn a_url_keeps_everything_but_its_password() {
        shows("postgres://weir:hunter2@db:5432/weir", "postgres://weir:***@db:5432/weir");
        shows("redis://:hunter2@cache:6379/1", "redis://:***@cache:6379/1");
        shows("postgres://weir@db/weir", "postgres://weir@db/weir");
        shows("redis://127.0.0.1:6379", "redis://127.0.0.1:6379");
    }

    #[test]
    fn a_file_of_sqlite_is_shown() {
        shows("sqlite:///data/weir.db", "sqlite:///data/weir.db");
        shows("sqlite:data/weir.db?mode=rwc", "sqlite:data/weir.db?mode=rwc");
        shows("sqlite:weir:hunter2@db", "***");
    }

    #[test]
    fn a_password_that_should_have_been_escaped_is_hidden_whole() {
        shows("postgres://weir:hun@ter/2?x@db/weir", "postgres://weir:***@db/weir");
        shows("postgres://weir:a:b@db/weir", "postgres://weir:***@db/weir");
    }

    #[test]
    fn a_password_in_the_query_is_hidden() {
        shows(
            "postgres://db/weir?user=weir&password=hunter2&sslmode=require",
            "postgres://db/weir?user=weir&password=***&sslmode=require",
        );
        shows("postgres://weir:one@db/weir?sslpassword=two", "postgres://weir:***@db/weir?sslpassword=***");
        shows("postgres://db/weir?PASSWORD=hunter2", "postgres://db/weir?PASSWORD=***");
        shows("postgres://db/weir?password=hun@ter2", "postgres://db/weir?password=***");
    }

    #[test]
    fn an_at_sign_in_a_parameter_lets_nothing_out() {
        shows("postgres://db:5432/weir?password=hun@ter2", "postgres://***");
        shows("postgres://weir@db:5432/weir?password=hun@ter2&x=1", "postgres://***");
        shows("postgres://weir:one@db/weir?sslpassword=t@wo", "postgres://***");
        shows("postgres://weir:one?password=t@wo@db/weir", "postgres://***");
        shows("postgres://weir:one@db/weir?application_name=a@b", "postgres://weir:***@b");
    }

    #[test]
    fn what_is_no_url_shows_nothing() {
        shows("hunter2", "***");
        shows("weir:hunter2@db/weir", "***");
        shows("", "");
    }

    #[test]
    fn names_of_secrets_are_known_with_dots_and_underscores() {
        for name in ["sasl_password", "ssl.key.password", "SASL_OAUTHBEARER_CLIENT_SECRET", "ssl.key.pem"] {
            assert!(is_secret_name(name), "{name}");
        }
        assert!(!is_secret_name("sasl_username"));
    }
}
