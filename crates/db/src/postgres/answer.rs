//! What a server answers to a statement with many rows, which are left where they came.

use std::collections::VecDeque;
use std::io;

use bytes::BytesMut;
use postgres_protocol::message::backend::{
    COPY_DATA_TAG, DATA_ROW_TAG, ERROR_RESPONSE_TAG, Header, Message, READY_FOR_QUERY_TAG,
};

use super::connection::Connection;
use super::fault::Fault;
use crate::{Error, Kind, Result};

/// A row has at most so many: 64 MiB.
const ROW_BYTES_MAX: usize = 64 << 20;

/// What `COPY … (FORMAT binary)` begins with, before flags and the length of what else there is.
const SIGNATURE: &[u8; 11] = b"PGCOPY\n\xff\r\n\0";

/// Where that much of a page is still to come, half of it is waited for: a server that wakes its
/// client for every 8 KiB has less time for rows.
const MUCH: usize = 256 << 10;

/// What came for a page.
pub(super) struct Answer {
    pub(super) bytes: BytesMut,
    pub(super) rows: VecDeque<(usize, usize)>,
    // Whether it was read to its end.
    pub(super) whole: bool,
}

impl Connection {
    /// Asks for a `COPY … TO STDOUT`.
    pub(super) async fn ask(&mut self, sql: &str) -> Result<()> {
        self.begin()?;
        self.put(|output| postgres_protocol::message::frontend::query(sql, output))?;
        self.send().await
    }

    /// Asks for rows in binary form.
    pub(super) async fn ask_with(&mut self, sql: &str, parameters: &[&str]) -> Result<()> {
        self.begin()?;
        self.put_statement(sql, parameters, 1)?;
        self.send().await
    }

    /// Reads the rows that were asked for to the end of the answer, or until they are more than so
    /// many bytes, and no fewer than so many.
    pub(super) async fn answer(
        &mut self,
        bytes_max: usize,
        asked: usize,
        rows_min: usize,
    ) -> Result<Answer> {
        let mut rows = VecDeque::new();
        let (mut at, mut fault) = (0, None);
        loop {
            let rest = self.input.get(at..).unwrap_or_default();
            let header = Header::parse(rest).map_err(|error| self.odd(error))?;
            let left = asked.saturating_sub(rows.len());
            let to_come = at.checked_div(rows.len()).map_or(0, |row| left.saturating_mul(row));
            let Some(header) = header else {
                self.receive_for(bytes_max, to_come).await?;
                continue;
            };
            let length = header.len() as usize + 1;
            if length > ROW_BYTES_MAX {
                return Err(self.too_long(length));
            }
            let (start, end) = (at + 5, at + length);
            if self.input.len() < end {
                if rows.len() >= rows_min && end > bytes_max {
                    let bytes = self.input.split_to(at);
                    return Ok(Answer { bytes, rows, whole: false });
                }
                self.input.reserve(end - self.input.len());
                self.receive_for(bytes_max, to_come).await?;
                continue;
            }
            match header.tag() {
                COPY_DATA_TAG => rows.extend(copied(&self.input, start, end)),
                DATA_ROW_TAG => rows.push_back((start, end)),
                ERROR_RESPONSE_TAG => fault = Some(self.fault_at(at, end)?),
                READY_FOR_QUERY_TAG => {
                    self.ready(self.input.get(start).copied().unwrap_or(b'E'));
                    let bytes = self.input.split_to(end);
                    return match fault {
                        None => Ok(Answer { bytes, rows, whole: true }),
                        Some(fault) => Err(self.said(fault)),
                    };
                }
                _ => {}
            }
            at = end;
        }
    }

    /// Receives, with room for what a page is likely to have, of which so much is likely to come.
    async fn receive_for(&mut self, bytes_max: usize, to_come: usize) -> Result<()> {
        if self.input.capacity() < bytes_max && self.input.len() > bytes_max / 16 {
            self.input.reserve(bytes_max - self.input.len());
        }
        if to_come < MUCH { self.receive().await } else { self.receive_much(MUCH / 2).await }
    }

    fn fault_at(&self, start: usize, end: usize) -> Result<Fault> {
        let mut message = BytesMut::from(self.input.get(start..end).unwrap_or_default());
        match Message::parse(&mut message).map_err(|error| self.odd(error))? {
            Some(Message::ErrorResponse(body)) => Ok(Fault::read(body.fields())),
            _ => Err(self.odd(io::Error::other("an error that is none"))),
        }
    }

    fn too_long(&self, bytes: usize) -> Error {
        let config = self.config();
        Error::new(
            Kind::Refused,
            format!(
                "{config}: a row has {bytes} bytes, more than the {ROW_BYTES_MAX} that one may have: \
                 leave its longest column out, or cut it in a query: left(column, 1000000)"
            ),
        )
    }
}

/// The row of a message of a `COPY`: behind the head of all in the first, and none in the last.
fn copied(input: &[u8], start: usize, end: usize) -> Option<(usize, usize)> {
    let data = input.get(start..end)?;
    let head = match data.strip_prefix(SIGNATURE).and_then(|rest| rest.split_first_chunk::<8>()) {
        // Flags, and how long is what follows, for later versions of the format.
        Some(([_, _, _, _, length @ ..], _)) => 19 + u32::from_be_bytes(*length) as usize,
        None => 0,
    };
    let row = data.get(head..)?;
    (row.len() > 2 || !row.is_empty() && row != [0xff, 0xff]).then_some((start + head, end))
}
