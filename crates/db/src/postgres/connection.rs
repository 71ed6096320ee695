//! One connection: made, asked, and never asked again once it was left in the middle of an answer.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, BytesMut};
use fallible_iterator::FallibleIterator;
use postgres_protocol::IsNull;
use postgres_protocol::message::backend::{DataRowBody, Header, Message, RowDescriptionBody};
use postgres_protocol::message::frontend;
use tidegate_net::wake::wake_at;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::config::Config;
use super::fault::Fault;
use super::socket::{self, Socket};
use super::{login, tls};
use crate::{Error, Result};

/// So much is read at once, at most.
pub(super) const READ_BYTES: usize = 256 << 10;

/// What is waited for is taken as it is once it took so long.
const LATE: Duration = Duration::from_millis(5);

/// A message that is no data is never longer than that: 16 MiB.
const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// An error may name a value of any length; so much of one is read.
const ERROR_BYTES_MAX: usize = 64 << 10;

/// How a session must write what it gives as text: as `psql` does by default, in UTC. Notices, which
/// nobody reads, are not sent: a server whose notices about a `COPY` are not taken reads no more of
/// it. The last line has the server look, during a long query, whether we are still there; not all
/// have that.
const SESSION: &str = "\
SET client_encoding = 'UTF8'; SET DateStyle = 'ISO, MDY'; SET IntervalStyle = 'postgres'; \
SET TimeZone = 'UTC'; SET extra_float_digits = 1; SET bytea_output = 'hex'; \
SET standard_conforming_strings = on; SET client_min_messages = error; \
SELECT set_config(name, '10s', false) FROM pg_catalog.pg_settings \
WHERE name = 'client_connection_check_interval'";

/// The tag of an error.
const ERROR: u8 = b'E';

/// A row of an answer, as text.
pub type TextRow = Vec<Option<String>>;

/// The first value of an answer, where there is one.
pub fn first_value(rows: Vec<TextRow>) -> Option<String> {
    rows.into_iter().next()?.into_iter().next()?
}

/// A column of a statement's result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// The table it is taken from as it is; 0 where it is computed.
    pub table: u32,
    /// Its number in that table.
    pub number: i16,
    /// The type's object id.
    pub type_id: u32,
    /// The type's modifier, such as precision and scale; -1 where it has none.
    pub modifier: i32,
}

/// A connection to a server.
///
/// # Cancellation
///
/// A future of it that is dropped leaves it in the middle of an answer: it is then
/// [broken](Self::is_usable), and the server notices once it is dropped too.
#[derive(Debug)]
pub struct Connection {
    config: Arc<Config>,
    pub(super) socket: Socket,
    // What was received and is not understood yet.
    pub(super) input: BytesMut,
    output: BytesMut,
    // Whether an answer is still to come.
    busy: bool,
    // What the server is in: `I` nothing, `T` a transaction, `E` one that failed.
    status: u8,
    // So many bytes have to come before the socket wakes us; none where it always does.
    woken_at: Option<usize>,
    // What the server had against the last request, while its answer is not over.
    complaint: Option<String>,
}

impl Connection {
    /// Connects, and has the session write as this crate reads.
    ///
    /// # Errors
    ///
    /// [`Kind::Connection`](crate::Kind::Connection) where it may work later,
    /// [`Kind::Refused`](crate::Kind::Refused) where a person has to do something; with the place,
    /// the cause and what to do.
    pub async fn connect(config: &Arc<Config>) -> Result<Self> {
        let limit = config.connect_timeout;
        let connected = timeout(limit, async {
            let tls = tls::client(config).await?;
            let socket = socket::connect(config, tls).await?;
            let (input, output) = (BytesMut::new(), BytesMut::new());
            let config = Arc::clone(config);
            let (busy, status, woken_at, complaint) = (true, b'I', Some(1), None);
            let mut made =
                Self { config, socket, input, output, busy, status, woken_at, complaint };
            login::log_in(&mut made).await?;
            made.simple(SESSION).await?;
            Ok(made)
        });
        connected.await.map_err(|_| {
            Error::connection(format!("{config}: the server did not answer within {limit:?}"))
        })?
    }

    /// What it was made with.
    pub fn config(&self) -> &Arc<Config> {
        &self.config
    }

    /// Whether it can be asked something.
    pub fn is_usable(&self) -> bool {
        !self.busy
    }

    /// Whether it is in a transaction, be it one that has failed.
    pub fn is_in_transaction(&self) -> bool {
        self.status != b'I'
    }

    /// Runs statements without parameters, and gives the rows of all of them as text.
    ///
    /// # Errors
    ///
    /// What the server says, or that the connection broke.
    pub async fn simple(&mut self, sql: &str) -> Result<Vec<TextRow>> {
        self.begin()?;
        self.put(|output| frontend::query(sql, output))?;
        self.send().await?;
        self.rows().await
    }

    /// Runs one statement with parameters, and gives its rows as text.
    ///
    /// # Errors
    ///
    /// As [`simple`](Self::simple).
    pub async fn query(&mut self, sql: &str, parameters: &[&str]) -> Result<Vec<TextRow>> {
        self.begin()?;
        self.put_statement(sql, parameters, 0)?;
        self.send().await?;
        self.rows().await
    }

    /// The columns of a statement's result, which is not run; none where it has no result.
    ///
    /// # Errors
    ///
    /// As [`simple`](Self::simple); and where it has parameters.
    pub async fn describe(&mut self, sql: &str) -> Result<Option<Vec<Field>>> {
        self.begin()?;
        self.put(|output| {
            frontend::parse("", sql, [], output)?;
            frontend::describe(b'S', "", output)
        })?;
        frontend::sync(&mut self.output);
        self.send().await?;
        let (mut fields, mut parameters) = (None, 0);
        let read = self.read_answer(|message| {
            match message {
                Message::ParameterDescription(body) => parameters = body.parameters().count()?,
                Message::RowDescription(body) => fields = Some(read_fields(&body)?),
                _ => {}
            }
            Ok(())
        });
        read.await?;
        if parameters > 0 {
            let config = &self.config;
            return Err(Error::refused(format!(
                "{config}: the query has a parameter ($1): write its value instead"
            )));
        }
        Ok(fields)
    }

    /// Tells the server that we go. Without it the server logs that we were lost.
    pub async fn close(mut self) {
        frontend::terminate(&mut self.output);
        // Whoever does not hear it notices the end of the connection.
        let _ = self.send().await;
    }

    /// Whether it is in a transaction that has failed.
    pub(super) fn has_failed(&self) -> bool {
        self.status == b'E'
    }

    /// Begins a request; its answer must be read to the end.
    pub(super) fn begin(&mut self) -> Result<()> {
        if self.busy {
            let config = &self.config;
            return Err(Error::connection(format!(
                "{config}: the connection was left in the middle of an answer"
            )));
        }
        self.busy = true;
        self.output.clear();
        Ok(())
    }

    /// A message into what is to be sent.
    pub(super) fn put(
        &mut self,
        message: impl FnOnce(&mut BytesMut) -> io::Result<()>,
    ) -> Result<()> {
        message(&mut self.output).map_err(|error| {
            self.busy = false; // nothing was sent
            let config = &self.config;
            Error::refused(format!("{config}: it can't be sent to the server")).because(error)
        })
    }

    /// A statement with parameters as text, whose result comes in a format: 0 text, 1 binary.
    pub(super) fn put_statement(
        &mut self,
        sql: &str,
        parameters: &[&str],
        format: i16,
    ) -> Result<()> {
        self.put(|output| {
            frontend::parse("", sql, [], output)?;
            let write = |value: &&str, buffer: &mut BytesMut| {
                buffer.put_slice(value.as_bytes());
                Ok(IsNull::No)
            };
            let bound = frontend::bind("", "", [], parameters, write, [format], output);
            bound.map_err(|error| match error {
                frontend::BindError::Serialization(error) => io::Error::other(error),
                frontend::BindError::Conversion(error) => io::Error::other(error),
            })?;
            frontend::execute("", 0, output)
        })?;
        frontend::sync(&mut self.output);
        Ok(())
    }

    /// Sends what was put.
    pub(super) async fn send(&mut self) -> Result<()> {
        let sent = self.socket.write_all_buf(&mut self.output).await;
        sent.map_err(|error| self.broken(error))?;
        self.socket.flush().await.map_err(|error| self.broken(error))
    }

    /// The rows of an answer, to its end.
    async fn rows(&mut self) -> Result<Vec<TextRow>> {
        let mut rows = Vec::new();
        let read = self.read_answer(|message| {
            match message {
                Message::DataRow(body) => rows.push(read_row(&body)?),
                Message::CopyInResponse(_) | Message::CopyOutResponse(_) => {
                    return Err(io::Error::other("COPY where rows were expected"));
                }
                _ => {}
            }
            Ok(())
        });
        read.await?;
        Ok(rows)
    }

    /// Reads an answer to its end; an error where the server said one on the way.
    pub(super) async fn read_answer(
        &mut self,
        mut take: impl FnMut(Message) -> io::Result<()>,
    ) -> Result<()> {
        let mut fault = None;
        loop {
            match self.message().await? {
                Message::ErrorResponse(body) => fault = Some(Fault::read(body.fields())),
                Message::ReadyForQuery(body) => {
                    self.ready(body.status());
                    return fault.map_or(Ok(()), |fault| Err(self.said(fault)));
                }
                message => take(message).map_err(|error| self.odd(error))?,
            }
        }
    }

    /// The next message that says something.
    pub(super) async fn message(&mut self) -> Result<Message> {
        loop {
            let header = Header::parse(&self.input).map_err(|error| self.odd(error))?;
            let bytes = header.map_or(0, |header| header.len() as usize);
            if header.is_some_and(|header| header.tag() == ERROR) && bytes > ERROR_BYTES_MAX {
                self.shorten(bytes).await?;
            } else if bytes > MESSAGE_BYTES_MAX {
                return Err(self.odd(io::Error::other("a message longer than any there is")));
            }
            let message = Message::parse(&mut self.input).map_err(|error| self.odd(error))?;
            match message {
                None => self.receive().await?,
                Some(
                    Message::NoticeResponse(_)
                    | Message::ParameterStatus(_)
                    | Message::NotificationResponse(_),
                ) => {}
                Some(message) => {
                    if let Message::ErrorResponse(body) = &message {
                        self.complaint = Some(Fault::read(body.fields()).line());
                    }
                    return Ok(message);
                }
            }
        }
    }

    /// Drops the end of an error that has so many bytes behind its tag.
    async fn shorten(&mut self, bytes: usize) -> Result<()> {
        while self.input.len() < 1 + ERROR_BYTES_MAX {
            self.receive().await?;
        }
        let mut head = self.input.split_to(1 + ERROR_BYTES_MAX);
        let mut left = bytes - ERROR_BYTES_MAX;
        while left > 0 {
            if self.input.is_empty() {
                self.receive().await?;
            }
            let dropped = left.min(self.input.len());
            self.input.advance(dropped);
            left -= dropped;
        }
        // Of the value that was cut off, and of all.
        head.put_slice(&[0, 0]);
        if let (Some(place), Ok(length)) = (head.get_mut(1..5), u32::try_from(ERROR_BYTES_MAX + 2))
        {
            place.copy_from_slice(&length.to_be_bytes());
        }
        head.unsplit(self.input.split());
        self.input = head;
        Ok(())
    }

    /// Receives what there is; waits where there is nothing.
    pub(super) async fn receive(&mut self) -> Result<()> {
        self.wake_at(1);
        self.read().await
    }

    /// Receives once so many bytes have come, or what has come where the rest is late.
    pub(super) async fn receive_much(&mut self, bytes: usize) -> Result<()> {
        self.wake_at(bytes);
        match timeout(LATE, self.read()).await {
            Ok(read) => read,
            Err(_) => self.receive().await,
        }
    }

    fn wake_at(&mut self, bytes: usize) {
        if self.woken_at.is_some_and(|at| at != bytes) {
            let set = self.socket.tcp().and_then(|tcp| wake_at(tcp, bytes).ok());
            self.woken_at = set.map(|()| bytes);
        }
    }

    async fn read(&mut self) -> Result<()> {
        if self.input.capacity() - self.input.len() < READ_BYTES / 4 {
            self.input.reserve(READ_BYTES);
        }
        match self.socket.read_buf(&mut self.input).await {
            Ok(0) => Err(self.broken(io::ErrorKind::UnexpectedEof.into())),
            Ok(_) => Ok(()),
            Err(error) => Err(self.broken(error)),
        }
    }

    /// The answer is over.
    pub(super) fn ready(&mut self, status: u8) {
        self.status = status;
        self.busy = false;
        self.complaint = None;
    }

    pub(super) fn said(&self, fault: Fault) -> Error {
        let error = fault.clone().into_error(&self.config);
        error.with_fault(fault)
    }

    pub(super) fn broken(&self, error: io::Error) -> Error {
        let config = &self.config;
        if let Some(complaint) = &self.complaint {
            return Error::connection(format!("{config}: the connection ended: {complaint}"));
        }
        match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                Error::connection(format!("{config}: the server closed the connection"))
            }
            _ => Error::connection(format!("{config}: the connection broke")).because(error),
        }
    }

    /// What no server should say. The connection is of no use any more.
    pub(super) fn odd(&self, error: io::Error) -> Error {
        let config = &self.config;
        Error::connection(format!("{config}: the server's answer makes no sense")).because(error)
    }
}

fn read_fields(body: &RowDescriptionBody) -> io::Result<Vec<Field>> {
    let fields = body.fields().map(|field| {
        Ok(Field {
            name: field.name().to_owned(),
            table: field.table_oid(),
            number: field.column_id(),
            type_id: field.type_oid(),
            modifier: field.type_modifier(),
        })
    });
    fields.collect()
}

fn read_row(body: &DataRowBody) -> io::Result<TextRow> {
    let buffer = body.buffer();
    let values = body.ranges().map(|range| {
        let value = range.and_then(|range| buffer.get(range));
        Ok(value.map(|value| String::from_utf8_lossy(value).into_owned()))
    });
    values.collect()
}
