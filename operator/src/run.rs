//! The operator as a whole: it wins the lead, follows all objects, reconciles, and ends in order. Production and tests
//! call the same.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::join_all;
use kube::runtime::controller::{Config, Error as ControllerError, applier};
use kube::runtime::reflector::{ObjectRef, store::Writer};
use kube::runtime::watcher::Event;
use kube::{Api, Client};
use streampress_crds::lease::Times;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, info};

use crate::apply::applier::Applier;
use crate::apply::claim::InstallationClaim;
use crate::apply::election::{Election, Leadership};
use crate::apply::events::EventPublisher;
use crate::controller::{Context, after_failure, reconcile};
use crate::http::OperatorHealth;
use crate::http::metrics::OperatorMetrics;
use crate::resources::{ObjectKind, WorkerDefaults, names};
use crate::state::cache::ObjectCache;
use crate::state::pipeline::{PipelineKey, WatchedPipeline, resource};
use crate::state::transport_users::TransportUsers;
use crate::state::watch::{WatchHealth, follow};
use crate::transport::Provisioner;
use crate::transport::manager::{ManagerOptions, TransportManager};

/// Settings of an operator.
#[derive(Clone)]
pub struct OperatorOptions {
    /// The only namespace whose pipelines are run; all where left out.
    pub namespace: Option<String>,
    /// Namespace of the leader's Lease.
    pub lease_namespace: String,
    /// Its name.
    pub lease_name: String,
    /// Name of this process, unique among all operators.
    pub identity: String,
    /// Times of the election.
    pub times: Times,
    /// Another installation that has not led for so long is over.
    pub over_after: Duration,
    /// The operator's own settings for workers.
    pub defaults: WorkerDefaults,
    /// How the transport is maintained.
    pub transport: ManagerOptions,
    /// Pipelines reconciled at once.
    pub concurrency: u16,
    /// How long changes are gathered before a pipeline is reconciled.
    pub debounce: Duration,
}

/// The pipelines that are to be reconciled.
#[derive(Clone)]
struct Trigger(UnboundedSender<ObjectRef<WatchedPipeline>>);

impl Trigger {
    fn reconcile(&self, namespace: &str, name: &str) {
        // Fails when the operator is ending.
        let _ = self.0.send(ObjectRef::new(name).within(namespace));
    }

    fn reconcile_all(&self, pipelines: impl IntoIterator<Item = PipelineKey>) {
        for pipeline in pipelines {
            self.reconcile(&pipeline.namespace, &pipeline.name);
        }
    }
}

/// Runs until `shutdown`, or until the lead is lost.
pub async fn run(
    client: Client,
    provisioner: Arc<dyn Provisioner>,
    options: OperatorOptions,
    metrics: OperatorMetrics,
    health: OperatorHealth,
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
    let mut claim = InstallationClaim::new(
        client.clone(),
        options.namespace.clone(),
        (&options.lease_namespace, &options.lease_name),
        options.over_after,
    );
    tokio::select! {
        () = claim.win(&options.identity, |why| health.refused(why)) => {}
        () = election.keep() => return,
        () = shutdown.cancelled() => return election.release().await,
    }
    metrics.leads(true);
    let stop = shutdown.child_token();
    let working = work(
        client,
        provisioner,
        options,
        metrics.clone(),
        health.clone(),
        leadership,
        stop.clone(),
    );
    tokio::pin!(working);
    // While work ends in order after a shutdown, the lead is still kept.
    let lost = tokio::select! {
        () = &mut working => false,
        () = election.keep() => true,
    };
    metrics.leads(false);
    health.set(Vec::new());
    if lost {
        stop.cancel();
    } else {
        election.release().await;
        info!("Released the lead.");
    }
}

/// Follows and reconciles until `stop`; then lets the reconciles that have begun finish.
async fn work(
    client: Client,
    provisioner: Arc<dyn Provisioner>,
    options: OperatorOptions,
    metrics: OperatorMetrics,
    health: OperatorHealth,
    leadership: Leadership,
    stop: CancellationToken,
) {
    let (triggers, mut triggered) = unbounded_channel();
    let trigger = Trigger(triggers);
    let notify = trigger.clone();
    let notify = Arc::new(move |namespace: &str, name: &str| notify.reconcile(namespace, name));
    let cache = Arc::new(ObjectCache::default());
    let context = Arc::new(Context {
        applier: Applier::new(
            client.clone(),
            leadership.clone(),
            metrics.clone(),
            Arc::clone(&cache),
        ),
        cache,
        transport: TransportManager::new(
            provisioner,
            client.clone(),
            options.transport.clone(),
            notify,
        ),
        transport_users: TransportUsers::default(),
        events: EventPublisher::new(client.clone(), options.identity.clone(), leadership),
        metrics,
        defaults: options.defaults.clone(),
        memos: Default::default(),
        began: Instant::now(),
    });
    let writer = Writer::new(());
    let store = writer.as_reader();
    let watches = Watches {
        client,
        namespace: options.namespace.clone(),
        trigger,
        context: Arc::clone(&context),
    };
    let (mut tasks, mut objects) = (Vec::new(), Vec::new());
    for kind in ObjectKind::ALL.into_iter().chain([ObjectKind::Pod]) {
        let watch = WatchHealth::new(kind.resource().plural);
        objects.push(Arc::clone(&watch));
        tasks.push(spawn(watches.clone().objects(kind, watch)));
    }
    let watch = WatchHealth::new(format!("{}.{}", resource().plural, resource().group));
    health.set(
        objects
            .iter()
            .cloned()
            .chain([Arc::clone(&watch)])
            .collect(),
    );
    tasks.push(spawn(watches.pipelines(watch, writer)));
    // Pipelines are reconciled only when their objects are known: from a half-filled cache one would conclude that objects
    // are missing.
    tokio::select! {
        _ = join_all(objects.iter().map(|watch| watch.wait_until_listed())) => {}
        () = stop.cancelled() => return,
    }
    let queue = futures::stream::poll_fn(move |context| triggered.poll_recv(context))
        .take_until(stop.cancelled_owned())
        .map(Ok::<_, std::convert::Infallible>);
    let config = Config::default()
        .concurrency(options.concurrency)
        .debounce(options.debounce);
    applier(
        |pipeline, context| Box::pin(reconcile(pipeline, context)),
        after_failure,
        context,
        store,
        Box::pin(queue),
        config,
    )
    .for_each(|outcome| async move {
        match outcome {
            Ok(_) | Err(ControllerError::ReconcilerFailed(..)) => {}
            // It was deleted in the meantime.
            Err(error) => debug!(%error, "A pipeline was not reconciled."),
        }
    })
    .await;
    join_all(tasks.into_iter().map(|task| async move {
        task.abort();
        let _ = task.await;
    }))
    .await;
}

/// A task that ends with this operator.
fn spawn(task: impl Future<Output = ()> + Send + 'static) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(task))
}

/// What all watches need.
#[derive(Clone)]
struct Watches {
    client: Client,
    namespace: Option<String>,
    trigger: Trigger,
    context: Arc<Context>,
}

impl Watches {
    /// Follows one kind of a pipeline's objects.
    async fn objects(self, kind: ObjectKind, health: Arc<WatchHealth>) {
        let resource = kind.resource();
        let api = |client| match &self.namespace {
            Some(namespace) => Api::namespaced_with(client, namespace, &resource),
            None => Api::all_with(client, &resource),
        };
        let labels = format!("{}={}", names::MANAGED_BY, names::MANAGER);
        let (trigger, cache) = (self.trigger, &self.context.cache);
        follow(self.client, api, Some(&labels), health, |event| {
            trigger.reconcile_all(cache.watched(kind, event));
        })
        .await;
    }

    /// Follows the pipelines.
    async fn pipelines(self, health: Arc<WatchHealth>, mut writer: Writer<WatchedPipeline>) {
        let api = |client| match &self.namespace {
            Some(namespace) => Api::namespaced(client, namespace),
            None => Api::all(client),
        };
        let (trigger, context, store) = (self.trigger, &self.context, writer.as_reader());
        follow(self.client, api, None, health, |event| {
            // Before the pipeline can be reconciled.
            let users = &context.transport_users;
            let affected = match &event {
                Event::Apply(pipeline) | Event::InitApply(pipeline) => users.update(pipeline),
                Event::Delete(pipeline) => users.remove(pipeline.uid()),
                Event::Init | Event::InitDone => Vec::new(),
            };
            writer.apply_watcher_event(&event);
            trigger.reconcile_all(affected);
            match event {
                Event::Apply(pipeline) | Event::InitApply(pipeline) => {
                    trigger.reconcile_all([pipeline.key()]);
                }
                Event::Delete(pipeline) => context.forget(pipeline.uid()),
                Event::Init => {}
                Event::InitDone => {
                    let all = store.state();
                    let uids: HashSet<_> = all.iter().map(|pipeline| pipeline.uid()).collect();
                    users.retain(|uid| uids.contains(uid));
                    context.retain(|uid| uids.contains(uid));
                    trigger.reconcile_all(all.iter().map(|pipeline| pipeline.key()));
                }
            }
            context.metrics.pipelines(store.len());
        })
        .await;
    }
}
