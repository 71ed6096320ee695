//! Rows into a table by `COPY … FROM STDIN`.

use std::io;

use postgres_protocol::message::backend::Message;
use postgres_protocol::message::frontend;
use tokio::io::AsyncWriteExt;

use super::connection::Connection;
use super::fault::Fault;
use crate::{Error, Result};

/// A `COPY` that takes data. It must be [finished](CopyIn::finish); one that is dropped leaves its
/// connection unusable, and nothing of it in the table.
#[must_use = "nothing is in the table before it is finished"]
#[derive(Debug)]
pub struct CopyIn<'c> {
    connection: &'c mut Connection,
}

impl Connection {
    /// Begins a `COPY … FROM STDIN`.
    ///
    /// # Errors
    ///
    /// What the server says, or that the connection broke.
    pub async fn copy_in(&mut self, sql: &str) -> Result<CopyIn<'_>> {
        self.begin()?;
        self.put(|output| frontend::query(sql, output))?;
        self.send().await?;
        let mut fault = None;
        loop {
            match self.message().await? {
                Message::CopyInResponse(_) => return Ok(CopyIn { connection: self }),
                Message::ErrorResponse(body) => fault = Some(Fault::read(body.fields())),
                Message::ReadyForQuery(body) => {
                    self.ready(body.status());
                    return Err(match fault {
                        Some(fault) => self.said(fault),
                        None => Error::refused(format!("{}: that is no COPY", self.config())),
                    });
                }
                _ => {}
            }
        }
    }
}

impl CopyIn<'_> {
    /// Sends data of the `COPY`'s format, cut wherever one likes: at best 64 KiB and more. It waits
    /// while the server does not read.
    ///
    /// # Errors
    ///
    /// That the connection broke. What the server has against the data is said by
    /// [`finish`](CopyIn::finish).
    pub async fn send(&mut self, data: &[u8]) -> Result<()> {
        for part in data.chunks(1 << 30) {
            let length = u32::try_from(part.len() + 4).unwrap_or(u32::MAX).to_be_bytes();
            let head = [b'd', length[0], length[1], length[2], length[3]];
            let socket = &mut self.connection.socket;
            let sent = match socket.write_all(&head).await {
                Ok(()) => socket.write_all(part).await,
                failed => failed,
            };
            if let Err(error) = sent {
                return Err(self.why(error).await);
            }
        }
        Ok(())
    }

    /// Ends the data; gives how many rows went in. In no transaction of its own, they are then there.
    ///
    /// # Errors
    ///
    /// What the server has against the rows: none of them went in; or that the connection broke.
    pub async fn finish(self) -> Result<u64> {
        let connection = self.connection;
        connection.put(|output| {
            frontend::copy_done(output);
            Ok(())
        })?;
        connection.send().await?;
        let mut rows = 0;
        let read = connection.read_answer(|message| {
            if let Message::CommandComplete(body) = message {
                let count = body.tag()?.rsplit(' ').next().and_then(|count| count.parse().ok());
                rows = count.unwrap_or(0);
            }
            Ok(())
        });
        read.await?;
        Ok(rows)
    }

    /// A server that goes says why, if one still hears it.
    async fn why(&mut self, error: io::Error) -> Error {
        while let Ok(message) = self.connection.message().await {
            if let Message::ErrorResponse(body) = message {
                return self.connection.said(Fault::read(body.fields()));
            }
        }
        self.connection.broken(error)
    }
}
