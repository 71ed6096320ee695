//! Where a server is, who we are, and how safe the way there must be.

use std::env;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use percent_encoding::percent_decode_str;

use crate::{Error, Result};

/// So long connecting may take where nothing is said.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// The port where none is said.
const PORT: u16 = 5432;

/// How safe the way to the server must be: libpq's `sslmode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SslMode {
    /// No TLS.
    Disable,
    /// TLS where the server has it, without asking who it is. The default, as libpq's.
    Prefer,
    /// TLS, without asking who it is, unless `sslrootcert` is given.
    Require,
    /// TLS with a certificate of a trusted authority, whatever name is in it.
    VerifyCa,
    /// TLS with a certificate of a trusted authority for this very host.
    VerifyFull,
}

impl FromStr for SslMode {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self> {
        Ok(match word {
            "disable" => Self::Disable,
            "prefer" | "allow" => Self::Prefer,
            "require" => Self::Require,
            "verify-ca" => Self::VerifyCa,
            "verify-full" => Self::VerifyFull,
            _ => {
                return Err(Error::refused(format!(
                    "url: sslmode={word} is unknown: write disable, prefer, require, verify-ca or \
                     verify-full"
                )));
            }
        })
    }
}

/// Where the server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// A name or an address.
    Tcp(String),
    /// The folder of its Unix socket.
    Unix(PathBuf),
}

/// What is needed to connect to a Postgres server.
#[derive(Clone, PartialEq, Eq)]
pub struct Config {
    /// Where it listens.
    pub host: Host,
    /// On which port.
    pub port: u16,
    /// Who we are.
    pub user: String,
    /// How we prove it, where we are asked to.
    pub password: Option<String>,
    /// To which database.
    pub database: String,
    /// How safe the way must be.
    pub ssl_mode: SslMode,
    /// Authorities to trust instead of the system's: a PEM file.
    pub ssl_roots: Option<PathBuf>,
    /// A certificate and its key to show, where the server asks: PEM files.
    pub ssl_identity: Option<(PathBuf, PathBuf)>,
    /// So long connecting may take, name, TLS and password included.
    pub connect_timeout: Duration,
    /// What the server calls us in its lists.
    pub application: String,
    /// Command-line options for the server's process, such as `-c work_mem=64MB`.
    pub options: Option<String>,
}

/// Without the password.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Config").field(&self.to_string()).finish()
    }
}

/// The place, for messages: `user@host:port/database`.
impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, user, database, .. } = self;
        match host {
            Host::Tcp(host) => write!(f, "{user}@{host}:{port}/{database}"),
            Host::Unix(folder) => {
                write!(f, "{user}@{}/.s.PGSQL.{port}/{database}", folder.display())
            }
        }
    }
}

/// What a URL's parts say, before what is missing is filled in.
#[derive(Default)]
struct Parts {
    host: Option<String>,
    port: Option<u16>,
    user: Option<String>,
    password: Option<String>,
    database: Option<String>,
    ssl_mode: Option<SslMode>,
    roots: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    timeout: Option<Duration>,
    application: Option<String>,
    options: Option<String>,
}

impl Config {
    /// Reads a URL as libpq does: `postgres://user:password@host:5432/database?sslmode=verify-full`.
    ///
    /// Parts that are special in a URL are percent-encoded. `host` in the query may be the folder of
    /// a Unix socket. What is left out is taken from `PGHOST`, `PGPORT`, `PGUSER`, `PGPASSWORD`,
    /// `PGDATABASE`, `PGSSLMODE` and `PGSSLROOTCERT`, and a password from the file that `PGPASSFILE`
    /// names, or `~/.pgpass`; else it is `localhost`, 5432, the user's own name, and the user's name
    /// as the database.
    ///
    /// # Errors
    ///
    /// [`Kind::Refused`](crate::Kind::Refused), with the part that is wrong.
    pub fn parse(url: &str) -> Result<Self> {
        Self::parse_with(url, &|name| env::var(name).ok().filter(|value| !value.is_empty()))
    }

    fn parse_with(url: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        let parts = Parts::parse(url)?;
        let host = parts.host.or_else(|| env("PGHOST")).unwrap_or_else(|| "localhost".into());
        let port = match (parts.port, env("PGPORT")) {
            (Some(port), _) => port,
            (None, Some(text)) => port_of(&text)?,
            (None, None) => PORT,
        };
        let user = parts.user.or_else(|| env("PGUSER")).or_else(|| env("USER"));
        let user = user.or_else(|| env("LOGNAME")).ok_or_else(|| {
            Error::refused("url: it names no user: write postgres://USER@host/database")
        })?;
        let database = parts.database.or_else(|| env("PGDATABASE")).unwrap_or_else(|| user.clone());
        let ssl_mode = match (parts.ssl_mode, env("PGSSLMODE")) {
            (Some(mode), _) => mode,
            (None, Some(word)) => word.parse()?,
            (None, None) => SslMode::Prefer,
        };
        let ssl_identity = match (parts.certificate, parts.key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => return Err(Error::refused("url: sslcert and sslkey go together: give both")),
        };
        let password = parts.password.or_else(|| env("PGPASSWORD")).or_else(|| {
            let home = || Some(Path::new(&env("HOME")?).join(".pgpass"));
            let file = env("PGPASSFILE").map(PathBuf::from).or_else(home)?;
            let text = std::fs::read_to_string(file).ok()?;
            let host = if host.starts_with('/') { "localhost" } else { &host };
            password_in(&text, [host, &port.to_string(), &database, &user])
        });
        Ok(Self {
            host: match host.starts_with('/') {
                true => Host::Unix(host.into()),
                false => Host::Tcp(host),
            },
            port,
            user,
            password,
            database,
            ssl_mode,
            ssl_roots: parts.roots.or_else(|| env("PGSSLROOTCERT").map(PathBuf::from)),
            ssl_identity,
            connect_timeout: parts.timeout.unwrap_or(CONNECT_TIMEOUT),
            application: parts.application.unwrap_or_else(|| "tidegate".into()),
            options: parts.options,
        })
    }
}

impl Parts {
    fn parse(url: &str) -> Result<Self> {
        let rest = ["postgres://", "postgresql://"].iter().find_map(|head| url.strip_prefix(head));
        let rest = rest.ok_or_else(|| {
            Error::refused("url: it should begin with postgres://: postgres://user@host/database")
        })?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (place, database) = rest.split_once('/').unwrap_or((rest, ""));
        let (who, host) = match place.rsplit_once('@') {
            Some((who, host)) => (who, host),
            None => ("", place),
        };
        let mut parts = Self::default();
        let (user, password) = match who.split_once(':') {
            Some((user, password)) => (user, Some(decoded(password)?)),
            None => (who, None),
        };
        parts.user = some(decoded(user)?);
        parts.password = password.and_then(some);
        parts.database = some(decoded(database)?);
        let (host, port) = match host.strip_prefix('[').and_then(|host| host.split_once(']')) {
            Some((address, port)) => (address, port.strip_prefix(':')),
            None => match host.rsplit_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (host, None),
            },
        };
        if host.contains(',') {
            return Err(Error::refused("url: it names several hosts: name one"));
        }
        parts.host = some(decoded(host)?);
        parts.port = port.filter(|port| !port.is_empty()).map(port_of).transpose()?;
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            parts.set(&decoded(name)?, decoded(value)?)?;
        }
        Ok(parts)
    }

    /// A parameter behind the `?`.
    fn set(&mut self, name: &str, value: String) -> Result<()> {
        match name {
            "host" => self.host = some(value),
            "port" => self.port = Some(port_of(&value)?),
            "user" => self.user = some(value),
            "password" => self.password = some(value),
            "dbname" => self.database = some(value),
            "sslmode" => self.ssl_mode = Some(value.parse()?),
            "sslrootcert" => self.roots = Some(value.into()),
            "sslcert" => self.certificate = Some(value.into()),
            "sslkey" => self.key = Some(value.into()),
            "application_name" => self.application = some(value),
            "options" => self.options = some(value),
            "connect_timeout" => {
                let seconds = value.parse().ok().filter(|seconds| *seconds > 0);
                let seconds = seconds.ok_or_else(|| {
                    Error::refused(format!(
                        "url: connect_timeout={value}: write a number of seconds"
                    ))
                })?;
                self.timeout = Some(Duration::from_secs(seconds));
            }
            _ => {
                return Err(Error::refused(format!(
                    "url: the parameter {name} is unknown: there are host, port, user, password, \
                     dbname, sslmode, sslrootcert, sslcert, sslkey, application_name, options and \
                     connect_timeout"
                )));
            }
        }
        Ok(())
    }
}

fn some(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

fn port_of(text: &str) -> Result<u16> {
    let port = text.parse().ok().filter(|port| *port > 0);
    port.ok_or_else(|| Error::refused(format!("url: {text:?} is no port: 1 to 65535")))
}

fn decoded(text: &str) -> Result<String> {
    let whole = percent_decode_str(text).decode_utf8();
    let whole = whole.map_err(|_| Error::refused("url: what is percent-encoded is no UTF-8"))?;
    if whole.contains('\0') {
        return Err(Error::refused("url: it has a NUL in it"));
    }
    Ok(whole.into_owned())
}

/// The password of the first line of a `.pgpass` that fits host, port, database and user.
fn password_in(text: &str, wanted: [&str; 4]) -> Option<String> {
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let mut fields = fields(line).into_iter();
        let fits = wanted
            .iter()
            .all(|wanted| fields.next().is_some_and(|field| field == "*" || field == **wanted));
        fields.next().filter(|_| fits)
    })
}

/// The fields of a line: `:` between them, `\` before one that is meant as such.
fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match (letter, fields.last_mut()) {
            (':', _) => fields.push(String::new()),
            ('\\', Some(field)) => field.extend(letters.next()),
            (letter, Some(field)) => field.push(letter),
            (_, None) => {}
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(url: &str) -> Result<Config> {
        Config::parse_with(url, &|name| match name {
            "USER" => Some("me".into()),
            "PGPASSWORD" => Some("from env".into()),
            _ => None,
        })
    }

    #[test]
    fn a_url_says_everything() {
        let config = parsed(
            "postgres://ann%40x:p%3Aw%2F@db.example:5433/sh%C3%B6p?sslmode=verify-full\
             &sslrootcert=/ca.pem&connect_timeout=3&application_name=a%20b",
        )
        .unwrap();
        let expected = Config {
            host: Host::Tcp("db.example".into()),
            port: 5433,
            user: "ann@x".into(),
            password: Some("p:w/".into()),
            database: "shöp".into(),
            ssl_mode: SslMode::VerifyFull,
            ssl_roots: Some("/ca.pem".into()),
            ssl_identity: None,
            connect_timeout: Duration::from_secs(3),
            application: "a b".into(),
            options: None,
        };
        assert_eq!(config, expected);
        assert!(!format!("{config:?}").contains("p:w"), "no password is shown");
    }

    #[test]
    fn what_is_left_out_is_filled_in() {
        let config = parsed("postgresql://").unwrap();
        assert_eq!(config.to_string(), "me@localhost:5432/me");
        assert_eq!(config.password.as_deref(), Some("from env"));
        let socket = parsed("postgres:///shop?host=/run/pg&port=1").unwrap();
        assert_eq!(socket.to_string(), "me@/run/pg/.s.PGSQL.1/shop");
        let address = parsed("postgres://[::1]:7/x").unwrap();
        assert_eq!(address.host, Host::Tcp("::1".into()));
        assert_eq!(address.port, 7);
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (url, said) in [
            ("mysql://x", "postgres://"),
            ("postgres://h:0/x", "is no port"),
            ("postgres://h:99999/x", "is no port"),
            ("postgres://h/x?sslmode=maybe", "sslmode=maybe"),
            ("postgres://h/x?shlmode=disable", "parameter shlmode"),
            ("postgres://h/x?sslcert=a", "sslkey"),
            ("postgres://a,b/x", "several hosts"),
            ("postgres://h/%FF", "UTF-8"),
            ("postgres://h/a%00b", "NUL"),
            ("postgres://h/x?connect_timeout=soon", "seconds"),
        ] {
            let error = parsed(url).unwrap_err().to_string();
            assert!(error.contains(said), "{url}: {error}");
        }
    }

    #[test]
    fn a_file_of_passwords_is_read_as_libpq_does() {
        let text = "# other:1:x:y:no\nhost:5432:shop:ann:one\n*:*:*:bob:t\\:w\\\\o\n*:*:*:*:last";
        let found = |user| password_in(text, ["host", "5432", "shop", user]);
        assert_eq!(found("ann").as_deref(), Some("one"));
        assert_eq!(found("bob").as_deref(), Some("t:w\\o"));
        assert_eq!(found("eve").as_deref(), Some("last"));
        assert_eq!(password_in("a:b", ["a", "b", "c", "d"]), None);
    }
}
