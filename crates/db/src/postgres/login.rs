//! Who we are, in the way that the server asks for it.

use std::io;

use fallible_iterator::FallibleIterator;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::backend::Message;
use postgres_protocol::message::frontend;

use super::connection::Connection;
use super::fault::Fault;
use crate::{Error, Result};

/// Logs in on a connection that was just made.
pub(super) async fn log_in(connection: &mut Connection) -> Result<()> {
    let config = connection.config().clone();
    let options = config.options.as_deref().map(|options| ("options", options));
    let parameters = [
        ("user", config.user.as_str()),
        ("database", config.database.as_str()),
        ("application_name", config.application.as_str()),
        ("client_encoding", "UTF8"),
    ];
    let parameters = parameters.into_iter().chain(options);
    connection.put(|output| frontend::startup_message(parameters, output))?;
    connection.send().await?;
    loop {
        match connection.message().await? {
            Message::AuthenticationOk => {}
            Message::AuthenticationCleartextPassword => {
                let password = password(connection)?;
                answer(connection, password.as_bytes()).await?;
            }
            Message::AuthenticationMd5Password(body) => {
                let password = password(connection)?;
                let hash = md5_hash(config.user.as_bytes(), password.as_bytes(), body.salt());
                answer(connection, hash.as_bytes()).await?;
            }
            Message::AuthenticationSasl(body) => {
                let known = body.mechanisms().any(|name| Ok(name == SCRAM_SHA_256));
                if !known.map_err(|error| connection.odd(error))? {
                    return Err(Error::refused(format!(
                        "{config}: the server offers no SCRAM-SHA-256 to log in by"
                    )));
                }
                scram(connection).await?;
            }
            Message::ErrorResponse(body) => {
                return Err(connection.said(Fault::read(body.fields())));
            }
            Message::ReadyForQuery(body) => {
                connection.ready(body.status());
                return Ok(());
            }
            Message::AuthenticationGss
            | Message::AuthenticationKerberosV5
            | Message::AuthenticationScmCredential
            | Message::AuthenticationSspi => {
                return Err(Error::refused(format!(
                    "{config}: the server wants GSSAPI, Kerberos or SSPI, which are not known here: \
                     let it take scram-sha-256 for this user (pg_hba.conf)"
                )));
            }
            _ => {} // the key to cancel with
        }
    }
}

/// SCRAM-SHA-256 ([RFC 7677](https://www.rfc-editor.org/rfc/rfc7677)), without channel binding.
async fn scram(connection: &mut Connection) -> Result<()> {
    let password = password(connection)?;
    let mut scram = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
    connection
        .put(|output| frontend::sasl_initial_response(SCRAM_SHA_256, scram.message(), output))?;
    connection.send().await?;
    match connection.message().await? {
        Message::AuthenticationSaslContinue(body) => {
            scram.update(body.data()).map_err(|error| connection.odd(error))?;
        }
        other => return Err(unexpected(connection, other)),
    }
    connection.put(|output| frontend::sasl_response(scram.message(), output))?;
    connection.send().await?;
    match connection.message().await? {
        Message::AuthenticationSaslFinal(body) => scram.finish(body.data()).map_err(|error| {
            let config = connection.config();
            Error::refused(format!("{config}: the server does not know the password itself"))
                .because(error)
        }),
        other => Err(unexpected(connection, other)),
    }
}

fn unexpected(connection: &Connection, message: Message) -> Error {
    match message {
        Message::ErrorResponse(body) => connection.said(Fault::read(body.fields())),
        _ => connection.odd(io::Error::other("not what belongs to logging in")),
    }
}

async fn answer(connection: &mut Connection, password: &[u8]) -> Result<()> {
    connection.put(|output| frontend::password_message(password, output))?;
    connection.send().await
}

fn password(connection: &Connection) -> Result<String> {
    let config = connection.config();
    config.password.clone().ok_or_else(|| {
        Error::refused(format!(
            "{config}: the server wants a password, and there is none: put it into PGPASSWORD, \
             ~/.pgpass or the URL"
        ))
    })
}
