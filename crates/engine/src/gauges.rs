//! What running components tell about themselves, as they run.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tidegate_flow::Meter;
use tidegate_model::Expected;

use crate::edge::EdgeGauge;
use crate::graph::Role;
use crate::route::StageCounts;
use crate::snapshot::{EdgeReading, Reading};

/// The numbers of a source or a sink.
pub(crate) struct Gauge {
    pub(crate) role: Role,
    pub(crate) name: Arc<str>,
    pub(crate) rows: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) skipped: AtomicU64,
    pub(crate) rejected: AtomicU64,
    pub(crate) ended: AtomicBool,
    pub(crate) expected: Expected,
    // Time that a source's task spent in transforms, which count it themselves.
    pub(crate) transforms_ns: AtomicU64,
    meter: Mutex<Option<Meter>>,
    trouble: Mutex<Option<String>>,
}

impl Gauge {
    pub(crate) fn new(role: Role, name: &Arc<str>) -> Arc<Self> {
        Arc::new(Self {
            role,
            name: Arc::clone(name),
            rows: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            skipped: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            expected: Expected::default(),
            transforms_ns: AtomicU64::new(0),
            meter: Mutex::new(None),
            trouble: Mutex::new(None),
        })
    }

    pub(crate) fn count(&self, rows: u64, bytes: u64) {
        self.rows.fetch_add(rows, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn set_meter(&self, meter: Meter) {
        *self.meter.lock().unwrap_or_else(PoisonError::into_inner) = Some(meter);
    }

    /// Says why the component waits before it tries again; `None` once it goes on. True where that
    /// is news.
    pub(crate) fn set_trouble(&self, trouble: Option<String>) -> bool {
        let mut now = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        let news = *now != trouble;
        *now = trouble;
        news
    }

    pub(crate) fn read(&self) -> Reading {
        let meter = self.meter.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let times = meter.map(|meter| meter.read()).unwrap_or_default();
        let transforms = Duration::from_nanos(self.transforms_ns.load(Ordering::Relaxed));
        Reading {
            role: self.role,
            name: Arc::clone(&self.name),
            rows: self.rows.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            idle: times.idle,
            busy: times.busy.saturating_sub(transforms),
            blocked: times.blocked,
            refused: self.refused.load(Ordering::Relaxed),
            skipped: self.skipped.load(Ordering::Relaxed),
            rejected: self.rejected.load(Ordering::Relaxed),
            reason: None,
            trouble: self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            ended: self.ended.load(Ordering::Relaxed),
        }
    }
}

impl StageCounts {
    pub(crate) fn read(&self, name: &Arc<str>, elapsed: Duration) -> Reading {
        let busy = Duration::from_nanos(self.busy_ns.load(Ordering::Relaxed));
        Reading {
            role: Role::Transform,
            name: Arc::clone(name),
            rows: self.rows.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            idle: elapsed.saturating_sub(busy),
            busy,
            blocked: Duration::ZERO,
            refused: 0,
            skipped: 0,
            rejected: self.rejected.load(Ordering::Relaxed),
            reason: self.reason.get().cloned(),
            trouble: None,
            ended: false,
        }
    }
}

/// An edge and what it joins.
pub(crate) struct NamedEdge {
    pub(crate) source: Arc<str>,
    pub(crate) input: Arc<str>,
    pub(crate) sink: Arc<str>,
    pub(crate) gauge: EdgeGauge,
}

impl NamedEdge {
    pub(crate) fn read(&self) -> EdgeReading {
        EdgeReading {
            source: Arc::clone(&self.source),
            input: Arc::clone(&self.input),
            sink: Arc::clone(&self.sink),
            queued_bytes: self.gauge.queued_bytes(),
            queue_bytes_max: self.gauge.queue_bytes_max(),
            dropped: self.gauge.dropped(),
        }
    }
}
