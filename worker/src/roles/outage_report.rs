//! What the generator role reports of the services that it needs: in its slot, from which the operator makes conditions, and
//! in the metric `service_down`.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use crate::consume::ServiceOutage;
use crate::roles::announce::Announcer;
use crate::roles::probe;
use crate::runtime;
use crate::telemetry::metrics::Meter;
use streampress_transport::SlotGuard;

/// A part of the role that fails and succeeds on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Activity {
    /// Making files at the source.
    Making,
    /// Scanning the source.
    Scanning,
}

/// The outages of one holding of the slot.
pub(crate) struct OutageReport<'a> {
    slot: &'a SlotGuard,
    meter: &'a Meter,
    down: Mutex<BTreeMap<Activity, ServiceOutage>>,
}

impl<'a> OutageReport<'a> {
    /// Reports in this slot.
    pub(crate) fn new(slot: &'a SlotGuard, meter: &'a Meter) -> Self {
        Self {
            slot,
            meter,
            down: Mutex::default(),
        }
    }

    /// An activity failed: probes whether that is because of a service.
    pub(crate) async fn failed(&self, activity: Activity, announcer: &Announcer) {
        let source = match activity {
            Activity::Making => probe::writable_source(&announcer.source).await,
            Activity::Scanning => probe::source(&announcer.source, None).await.map(drop),
        };
        let probed = match source {
            Ok(()) => probe::queue(&*announcer.files_queue).await,
            down => down,
        };
        match probed {
            Err(outage) => self.is_down(activity, outage),
            // The failure is of a single file, or has passed.
            Ok(()) => self.is_up(activity),
        }
    }

    /// An activity succeeded.
    pub(crate) fn succeeded(&self, activity: Activity) {
        self.is_up(activity);
        let down = self.down.lock();
        // Written only where there is something to take back, also of a former holder: each write is one to the API server.
        if down.is_empty() && self.slot.health().outage.is_some() {
            let now = runtime::now_seconds();
            self.slot.change_health(|health| health.worked(now));
        }
    }

    /// A scan could not take so many files and folders. Written only where the number is another one.
    pub(crate) fn left_out(&self, count: u64) {
        if self.slot.health().left_out != count {
            self.slot.change_health(|health| health.left_out = count);
        }
    }

    /// An activity cannot go on, because of this.
    pub(crate) fn is_down(&self, activity: Activity, outage: ServiceOutage) {
        let now = runtime::now_seconds();
        self.slot.change_health(|health| {
            health.is_down(outage.service, outage.kind, &outage.cause, now);
        });
        self.meter.outage_began(outage.service);
        let before = self.down.lock().insert(activity, outage);
        self.ended(before);
    }

    fn is_up(&self, activity: Activity) {
        let before = self.down.lock().remove(&activity);
        self.ended(before);
    }

    fn ended(&self, outage: Option<ServiceOutage>) {
        if let Some(outage) = outage {
            self.meter.outage_ended(outage.service);
        }
    }
}

impl Drop for OutageReport<'_> {
    fn drop(&mut self) {
        for outage in std::mem::take(&mut *self.down.lock()).into_values() {
            self.meter.outage_ended(outage.service);
        }
    }
}
