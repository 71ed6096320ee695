//! A pipeline in a program of one's own, with a source and a sink of one's own.

use arrow_array::{RecordBatch, StructArray, UInt64Array, cast::AsArray, types::UInt64Type};
use arrow_buffer::{Buffer, ToByteSlice};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use futures::{StreamExt, future::BoxFuture, stream};
use std::sync::{Arc, mpsc};
use tidegate::engine::{Pipeline, RunOptions, SinkOptions, Store};
use tidegate::model::*;

/// Counts to a thousand, a hundred numbers a batch. Each number is its own offset.
struct Numbers;

/// Numbers, and the bytes of the budget that they hold until the last view of them is gone.
struct Held(Vec<u64>, #[expect(dead_code, reason = "given back when dropped")] Permit);
impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        self.0.as_slice().to_byte_slice()
    }
}

impl Source for Numbers {
    fn schema(&self) -> Option<SchemaRef> {
        Some(Arc::new(Schema::new(vec![Field::new("number", DataType::UInt64, false)])))
    }
    fn replayable(&self) -> bool {
        true
    }
    fn bytes_min(&self) -> usize {
        800
    }
    fn open(&mut self, context: SourceContext) -> BoxFuture<'_, Result<SourceStream>> {
        let from = context.positions.first().map_or(0, |position| position.sequence);
        let starts = (from..1_000).step_by(100).map(move |start| (context.clone(), start));
        let batches = stream::iter(starts).then(async |(context, start)| {
            let permit = context.holder.acquire(800).await.map_err(|_| Error::fatal("no room"))?;
            let held = bytes::Bytes::from_owner(Held((start..start + 100).collect(), permit));
            let numbers = Arc::new(UInt64Array::new(Buffer::from(held).into(), None));
            let columns = context.columns.fields().iter().map(|_| numbers.clone() as _).collect();
            let rows = StructArray::new(context.columns.fields().clone(), columns, None).into();
            let (partition, sequence, state) = ("numbers".into(), start + 100, Default::default());
            let position = Position { partition, sequence, state };
            Ok(SourceBatch {
                rows,
                start,
                position,
                read_at: 0,
                bytes: 800,
                refused: 0,
                skipped: 0,
                told: None,
            })
        });
        Box::pin(async { Ok(batches.boxed()) })
    }
}

/// Adds up what it gets, and tells it.
struct Sum(mpsc::Sender<u64>);
impl Sink for Sum {
    fn commit_when(&self) -> Commit {
        Commit::EachWrite
    }
    fn open(&mut self, _: SinkContext) -> BoxFuture<'_, Result<Vec<Delivered>>> {
        Box::pin(async { Ok(Vec::new()) })
    }
    fn write<'a>(&'a mut self, rows: &'a RecordBatch) -> BoxFuture<'a, Result<Written>> {
        let _ = self.0.send(rows.column(0).as_primitive::<UInt64Type>().values().iter().sum());
        Box::pin(async { Ok(Written::default()) })
    }
    fn commit<'a>(&'a mut self, _: &'a [Delivered]) -> BoxFuture<'a, Result<()>> {
        Box::pin(async { Ok(()) })
    }
}

/// Runs the pipeline to its end: all numbers have arrived, and none twice.
#[tokio::main]
pub async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (tell, told) = mpsc::channel();
    let (numbers, sum): (Box<dyn Source>, Box<dyn Sink>) = (Box::new(Numbers), Box::new(Sum(tell)));
    let builder = Pipeline::builder().source("numbers", numbers);
    let builder = builder.sink("sum", &["numbers"], SinkOptions::default(), sum);
    let pipeline = builder.build().map_err(|mistakes| format!("{mistakes:?}"))?;
    let options = RunOptions { once: true, store: Some(Store::in_memory()?), ..Default::default() };
    pipeline.start(options).await?.finish().await.map_err(|failure| failure.error)?;
    assert_eq!(told.iter().sum::<u64>(), 499_500);
    Ok(())
}
