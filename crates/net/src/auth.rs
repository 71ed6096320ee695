//! Who may come in: bearer tokens and names with passwords, compared in constant time.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use subtle::{Choice, ConstantTimeEq};

/// Secrets of which a caller must show one, in the header `Authorization` ([RFC 6750], [RFC 7617]).
///
/// How long a comparison takes does not depend on where a wrong secret differs, nor on which of the
/// right ones it is; only on how long they are. They are never printed.
///
/// [RFC 6750]: https://www.rfc-editor.org/rfc/rfc6750
/// [RFC 7617]: https://www.rfc-editor.org/rfc/rfc7617
#[derive(Clone, Default)]
pub struct Secrets {
    // The bytes after the scheme.
    bearer: Vec<Box<[u8]>>,
    // `name:password`.
    basic: Vec<Box<[u8]>>,
}

impl Secrets {
    /// None: everybody may come in, until one is added.
    pub fn none() -> Self {
        Self::default()
    }

    /// A token that lets its bearer in.
    #[must_use]
    pub fn bearer(mut self, token: &str) -> Self {
        self.bearer.push(token.as_bytes().into());
        self
    }

    /// A name and a password that let in. A name can't have a colon.
    #[must_use]
    pub fn basic(mut self, name: &str, password: &str) -> Self {
        self.basic.push(format!("{name}:{password}").into_bytes().into());
        self
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.bearer.is_empty() && self.basic.is_empty()
    }

    /// Whether one who shows this may come in.
    pub fn admit(&self, shown: Option<&HeaderValue>) -> bool {
        if self.is_empty() {
            return true;
        }
        let Some((scheme, shown)) = shown.map(HeaderValue::as_bytes).and_then(split) else {
            return false;
        };
        if scheme.eq_ignore_ascii_case(b"bearer") {
            return any(&self.bearer, shown);
        }
        let shown = if scheme.eq_ignore_ascii_case(b"basic") {
            STANDARD.decode(shown)
        } else {
            return false;
        };
        shown.is_ok_and(|shown| any(&self.basic, &shown))
    }

    /// What to answer one who may not, as the header `WWW-Authenticate`.
    pub fn challenge(&self) -> HeaderValue {
        HeaderValue::from_static(match self.basic.is_empty() {
            true => "Bearer",
            false => "Basic realm=\"tidegate\", charset=\"UTF-8\"",
        })
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (bearer, basic) = (self.bearer.len(), self.basic.len());
        f.debug_struct("Secrets").field("bearer", &bearer).field("basic", &basic).finish()
    }
}

/// The header that shows a token.
///
/// # Errors
///
/// Where the token has what no header can have, such as a line's end.
pub fn bearer_header(token: &str) -> Result<HeaderValue, http::header::InvalidHeaderValue> {
    sensitive(&format!("Bearer {token}"))
}

/// The header that shows a name and a password.
///
/// # Errors
///
/// As [`bearer_header`].
pub fn basic_header(
    name: &str,
    password: &str,
) -> Result<HeaderValue, http::header::InvalidHeaderValue> {
    sensitive(&format!("Basic {}", STANDARD.encode(format!("{name}:{password}"))))
}

fn sensitive(text: &str) -> Result<HeaderValue, http::header::InvalidHeaderValue> {
    let mut value = HeaderValue::from_str(text)?;
    value.set_sensitive(true);
    Ok(value)
}

fn split(value: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr::memchr(b' ', value)?;
    Some((&value[..end], value[end..].trim_ascii()))
}

/// All are compared, whichever fits.
fn any(secrets: &[Box<[u8]>], shown: &[u8]) -> bool {
    let none = Choice::from(0);
    secrets.iter().fold(none, |found, secret| found | secret.ct_eq(shown)).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_shows_a_secret_comes_in() {
        let secrets = Secrets::none().bearer("t0ken").bearer("other").basic("ann", "pa:ss");
        for (shown, admitted) in [
            (bearer_header("t0ken").unwrap(), true),
            (bearer_header("other").unwrap(), true),
            (basic_header("ann", "pa:ss").unwrap(), true),
            ("bEaReR   t0ken ".parse().unwrap(), true),
            (bearer_header("t0ke").unwrap(), false),
            (bearer_header("t0ken1").unwrap(), false),
            (bearer_header("").unwrap(), false),
            (bearer_header("ann:pa:ss").unwrap(), false),
            (basic_header("ann", "pa").unwrap(), false),
            (basic_header("t0ken", "").unwrap(), false),
            ("Basic %%%".parse().unwrap(), false),
            ("Digest t0ken".parse().unwrap(), false),
            ("t0ken".parse().unwrap(), false),
            (HeaderValue::from_bytes(b"Bearer \xff").unwrap(), false),
        ] {
            assert_eq!(secrets.admit(Some(&shown)), admitted, "{shown:?}");
        }
        assert!(!secrets.admit(None));
        assert!(Secrets::none().admit(None));
        assert!(!format!("{secrets:?}").contains("t0ken"));
        assert!(!format!("{:?}", bearer_header("t0ken").unwrap()).contains("t0ken"));
    }
}
