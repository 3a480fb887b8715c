//! The operator as a whole: wins the lead, follows everything, reconciles, and ends in order. What production calls
//! and tests call is the same.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::join_all;
use kube::api::DynamicObject;
use kube::runtime::controller::{Config, Error as ControllerError, applier};
use kube::runtime::reflector::{ObjectRef, store::Writer};
use kube::runtime::watcher::Event;
use kube::{Api, Client};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, info};

use crate::apply::applier::{Hands, pipelines, resource};
use crate::apply::election::{Election, Leadership, Times};
use crate::apply::events::Events;
use crate::controller::{Context, after_failure, folded, reconcile};
use crate::http::Pulses;
use crate::http::metrics::Metrics;
use crate::resources::Platform;
use crate::resources::names;
use crate::resources::owned_object::Kind;
use crate::state::cache::{Owner, Store, address};
use crate::state::watch::{Change, Pulse, follow};
use crate::transport::Provisioner;
use crate::transport::manager::{Desk, DeskOptions};

/// Everything an operator is told.
#[derive(Clone)]
pub struct Options {
    /// Only this namespace; all where left out.
    pub namespace: Option<String>,
    /// Where the leader's Lease is.
    pub lease_namespace: String,
    /// Its name.
    pub lease_name: String,
    /// This process, among all operators.
    pub identity: String,
    /// Times of the election.
    pub times: Times,
    /// What workers are made with.
    pub platform: Platform,
    /// How the transport is kept.
    pub desk: DeskOptions,
    /// Pipelines looked at once.
    pub at_once: u16,
    /// How long changes are gathered before a pipeline is looked at.
    pub debounce: Duration,
}

/// Runs until `shutdown` or until the lead is lost. Gives whether it may be started again in this process.
pub async fn run(
    client: Client,
    provisioner: Arc<dyn Provisioner>,
    options: Options,
    metrics: Metrics,
    pulses: Pulses,
    shutdown: CancellationToken,
) {
    let leadership = Leadership::default();
    let leases = Api::namespaced(client.clone(), &options.lease_namespace);
    let mut election = Election::new(
        leases,
        options.lease_name.clone(),
        options.identity.clone(),
        options.times,
        leadership.clone(),
    );
    tokio::select! {
        () = election.win() => {}
        () = shutdown.cancelled() => return,
    }
    metrics.leads(true);
    let work_done = shutdown.child_token();
    let stop = work_done.clone();
    let working = work(
        client,
        provisioner,
        options,
        metrics.clone(),
        pulses.clone(),
        leadership,
        stop,
    );
    tokio::pin!(working);
    // While work ends in order after a shutdown, the lead is still kept.
    let lost = tokio::select! {
        () = &mut working => false,
        () = election.keep() => true,
    };
    metrics.leads(false);
    pulses.set(Vec::new());
    if lost {
        work_done.cancel();
    } else {
        election.release().await;
        info!("Gave the lead up.");
    }
}

/// Follows and reconciles until `stop`; then lets what is in hand finish.
async fn work(
    client: Client,
    provisioner: Arc<dyn Provisioner>,
    options: Options,
    metrics: Metrics,
    pulses: Pulses,
    leadership: Leadership,
    stop: CancellationToken,
) {
    let (wake, woken) = unbounded_channel::<ObjectRef<DynamicObject>>();
    let notify = {
        let wake = wake.clone();
        Arc::new(move |namespace: &str, name: &str| {
            wake_up(&wake, &(namespace.into(), name.into()))
        })
    };
    let context = Arc::new(Context {
        hands: Hands::new(client.clone(), leadership.clone(), metrics.clone()),
        store: Store::default(),
        desk: Desk::new(provisioner, client.clone(), options.desk.clone(), notify),
        events: Events::new(client.clone(), options.identity.clone(), leadership),
        metrics: metrics.clone(),
        platform: options.platform.clone(),
        memories: Default::default(),
        began: Instant::now(),
    });
    let mut watches = Vec::new();
    let mut followed = Vec::new();
    for kind in Kind::ALL {
        let pulse = Pulse::new(resource(kind).plural);
        followed.push(Arc::clone(&pulse));
        watches.push(AbortOnDropHandle::new(tokio::spawn(follow_children(
            client.clone(),
            options.namespace.clone(),
            kind,
            pulse,
            Arc::clone(&context),
            wake.clone(),
        ))));
    }
    // Pipelines are looked at only when their objects are known: from a half-filled store one would conclude that
    // things are missing.
    let children = followed.clone();
    let pulse = Pulse::new("compressionpipelines.streampress.dev");
    followed.push(Arc::clone(&pulse));
    pulses.set(followed);
    let writer = Writer::new(pipelines());
    let store = writer.as_reader();
    let follow = follow_pipelines(
        client.clone(),
        options.namespace.clone(),
        pulse,
        writer,
        Arc::clone(&context),
        wake,
    );
    watches.push(AbortOnDropHandle::new(tokio::spawn(follow)));
    let all_listed = async {
        while !children.iter().all(|pulse| pulse.is_listed()) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        () = all_listed => {}
        () = stop.cancelled() => return,
    }
    let woken = futures::stream::unfold(woken, |mut woken| async move {
        woken.recv().await.map(|object| (object, woken))
    });
    let queue = woken
        .take_until(stop.cancelled_owned())
        .map(Ok::<_, std::convert::Infallible>);
    let config = Config::default()
        .concurrency(options.at_once)
        .debounce(options.debounce);
    let reconcile = |object, context| Box::pin(reconcile(object, context));
    let outcomes = applier(
        reconcile,
        after_failure,
        context,
        store,
        Box::pin(queue),
        config,
    );
    outcomes
        .for_each(|outcome| async move {
            match outcome {
                Ok(_) | Err(ControllerError::ReconcilerFailed(..)) => {}
                // It was deleted in the meantime.
                Err(error) => debug!(%error, "A pipeline was not looked at."),
            }
        })
        .await;
    join_all(watches.into_iter().map(|watch| async move {
        watch.abort();
        let _ = watch.await;
    }))
    .await;
}

fn wake_up(wake: &UnboundedSender<ObjectRef<DynamicObject>>, (namespace, name): &Owner) {
    // Nobody listens any more: the operator is ending.
    let _ = wake.send(ObjectRef::new_with(name, pipelines()).within(namespace));
}

fn api(
    client: Client,
    namespace: Option<&str>,
    resource: &kube::core::ApiResource,
) -> Api<DynamicObject> {
    match namespace {
        Some(namespace) => Api::namespaced_with(client, namespace, resource),
        None => Api::all_with(client, resource),
    }
}

async fn follow_children(
    client: Client,
    namespace: Option<String>,
    kind: Kind,
    pulse: Arc<Pulse>,
    context: Arc<Context>,
    wake: UnboundedSender<ObjectRef<DynamicObject>>,
) {
    let api = api(client, namespace.as_deref(), &resource(kind));
    let labels = format!("{}={}", names::MANAGED_BY, names::MANAGER);
    follow(api, Some(labels), pulse, move |change| {
        for owner in context.store.take(kind, change) {
            wake_up(&wake, &owner);
        }
    })
    .await;
}

async fn follow_pipelines(
    client: Client,
    namespace: Option<String>,
    pulse: Arc<Pulse>,
    mut writer: Writer<DynamicObject>,
    context: Arc<Context>,
    wake: UnboundedSender<ObjectRef<DynamicObject>>,
) {
    let api = api(client, namespace.as_deref(), &pipelines());
    let reader = writer.as_reader();
    follow(api, None, pulse, move |change| {
        let mut touched = Vec::new();
        let mut touch = |object: &mut DynamicObject| {
            object.metadata.managed_fields = None;
            touched.push(address(object));
        };
        match change {
            Change::Put(mut object) => {
                touch(&mut object);
                writer.apply_watcher_event(&Event::Apply(folded(object)));
            }
            Change::Gone(object) => {
                context.forget(object.metadata.uid.as_deref().unwrap_or_default());
                writer.apply_watcher_event(&Event::Delete(object));
            }
            Change::All(objects) => {
                writer.apply_watcher_event(&Event::Init);
                for mut object in objects {
                    touch(&mut object);
                    writer.apply_watcher_event(&Event::InitApply(folded(object)));
                }
                writer.apply_watcher_event(&Event::InitDone);
                let there: std::collections::HashSet<_> = reader
                    .state()
                    .iter()
                    .filter_map(|object| object.metadata.uid.clone())
                    .collect();
                context.retain(|uid| there.contains(uid));
            }
        }
        context.metrics.pipelines(reader.len());
        for owner in touched {
            wake_up(&wake, &owner);
        }
    })
    .await;
}
