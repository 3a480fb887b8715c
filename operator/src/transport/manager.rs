//! All talk with AWS, outside the reconcile path: one task per pipeline makes its transport, looks at the depths again and
//! again, and every few minutes at all of it. Reconciling only reads what was found last. Calls at once are bounded for
//! each endpoint, each has a deadline, and what hangs holds up nobody elsewhere.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use streampress_crds::api::pipeline::DeletionPolicy;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use streampress_transport::aws::AwsCredentials;

use super::{Depths, Plan, Provisioner, credentials_of};
use crate::decide::status::{TransportView, Trouble};

/// The first pause after a failure; it doubles from one to the next.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// So many looks without an answer about a queue, and all of it is looked for again.
const BLIND: u32 = 3;

/// How the desk works.
#[derive(Clone, Debug)]
pub struct DeskOptions {
    /// Between two looks at depths while there is something to see.
    pub look_every: Duration,
    /// The same while nothing has changed for a while.
    pub look_rarely: Duration,
    /// Between two looks at all of it, in case somebody has taken a part away or changed it.
    pub verify_every: Duration,
    /// How long making or looking may take.
    pub call_deadline: Duration,
    /// How long deleting may take before what is left is named and the pipeline goes.
    pub removal_deadline: Duration,
    /// Pipelines of one endpoint that are served at once, and as many that are removed.
    pub at_once: usize,
    /// Endpoints that the operator's own identity may be used with, besides AWS's own.
    pub own_identity_endpoints: Vec<String>,
}

impl Default for DeskOptions {
    fn default() -> Self {
        Self {
            look_every: Duration::from_secs(2),
            look_rarely: Duration::from_secs(10),
            verify_every: Duration::from_secs(300),
            call_deadline: Duration::from_secs(30),
            removal_deadline: Duration::from_secs(20),
            at_once: 16,
            own_identity_endpoints: Vec::new(),
        }
    }
}

/// Called with namespace and name of a pipeline whose transport looks different now.
pub type Notify = Arc<dyn Fn(&str, &str) + Send + Sync>;

/// What is known of one pipeline's transport.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The queues and the stream.
    pub view: TransportView,
    /// What waits.
    pub depths: Depths,
}

/// How deleting went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removal {
    /// Still at it.
    Going,
    /// Done; what was left behind, a sentence each.
    Done(Vec<String>),
}

/// Keeps the pipelines' transports.
pub struct Desk {
    inner: Arc<Inner>,
}

struct Inner {
    provisioner: Arc<dyn Provisioner>,
    client: Client,
    options: DeskOptions,
    notify: Notify,
    turns: Mutex<HashMap<Turns, Arc<Semaphore>>>,
    files: Mutex<HashMap<String, File>>,
}

/// Whom a turn is waited for with: region and endpoint, and what for. Removing does not wait for what hangs in keeping.
type Turns = (String, Option<String>, Errand);

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Errand {
    Keep,
    Remove,
}

/// One pipeline's file on the desk.
struct File {
    plan: Arc<Plan>,
    seen: Seen,
    removal: Option<Removal>,
    _task: AbortOnDropHandle<()>,
}

impl Desk {
    /// An empty desk.
    pub fn new(
        provisioner: Arc<dyn Provisioner>,
        client: Client,
        options: DeskOptions,
        notify: Notify,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                provisioner,
                client,
                options,
                notify,
                turns: Mutex::default(),
                files: Mutex::default(),
            }),
        }
    }

    /// What is known of the transport; work on it begins, or begins anew when the plan is another.
    pub fn look(&self, plan: &Plan) -> Seen {
        let mut files = self.inner.files();
        match files.get(&plan.uid) {
            Some(file) if *file.plan == *plan && file.removal.is_none() => file.seen.clone(),
            before => {
                // What was there stays true until somebody looked again.
                let seen = before
                    .filter(|file| file.plan.parts == plan.parts)
                    .map(|file| file.seen.clone())
                    .unwrap_or_default();
                let plan = Arc::new(plan.clone());
                let task = tokio::spawn(keep(Arc::clone(&self.inner), Arc::clone(&plan)));
                let file = File {
                    plan: Arc::clone(&plan),
                    seen: seen.clone(),
                    removal: None,
                    _task: AbortOnDropHandle::new(task),
                };
                files.insert(plan.uid.clone(), file);
                seen
            }
        }
    }

    /// Begins to delete the transport, or says how it goes.
    pub fn remove(&self, plan: &Plan, policy: DeletionPolicy) -> Removal {
        let mut files = self.inner.files();
        if let Some(removal) = files.get(&plan.uid).and_then(|file| file.removal.clone()) {
            return removal;
        }
        let plan = Arc::new(plan.clone());
        let task = tokio::spawn(remove(Arc::clone(&self.inner), Arc::clone(&plan), policy));
        let seen = files
            .remove(&plan.uid)
            .map(|file| file.seen)
            .unwrap_or_default();
        let file = File {
            plan: Arc::clone(&plan),
            seen,
            removal: Some(Removal::Going),
            _task: AbortOnDropHandle::new(task),
        };
        files.insert(plan.uid.clone(), file);
        Removal::Going
    }

    /// Only these are still there.
    pub fn retain(&self, is_there: impl Fn(&str) -> bool) {
        self.inner.files().retain(|uid, _| is_there(uid));
    }
}

/// Nobody keeps a transport for an operator that is no more: the next one may be deleting it.
impl Drop for Desk {
    fn drop(&mut self) {
        self.inner.files().clear();
    }
}

impl Inner {
    fn files(&self) -> std::sync::MutexGuard<'_, HashMap<String, File>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until this pipeline may be served. Nothing when the operator ends.
    async fn turn(&self, plan: &Plan, errand: Errand) -> Option<OwnedSemaphorePermit> {
        let turns = {
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            // Endpoints that nobody uses any more.
            turns.retain(|_, turns| Arc::strong_count(turns) > 1);
            let place = (plan.region.clone(), plan.endpoint.clone(), errand);
            let new = || Arc::new(Semaphore::new(self.options.at_once));
            Arc::clone(turns.entry(place).or_insert_with(new))
        };
        turns.acquire_owned().await.ok()
    }

    /// Writes down what was seen; whether it is news.
    fn note(&self, plan: &Plan, change: impl FnOnce(&mut File)) -> bool {
        let news = self.files().get_mut(&plan.uid).is_some_and(|file| {
            let before = (
                file.seen.view.clone(),
                file.seen.depths,
                file.removal.clone(),
            );
            change(file);
            before
                != (
                    file.seen.view.clone(),
                    file.seen.depths,
                    file.removal.clone(),
                )
        });
        if news {
            (self.notify)(&plan.namespace, &plan.name);
        }
        news
    }

    /// The identity to use. Without a Secret it is the operator's own, and that goes only where it was allowed to.
    async fn credentials(&self, plan: &Plan) -> Result<Option<AwsCredentials>, Trouble> {
        let Some(name) = &plan.secret else {
            let allowed = plan.endpoint.as_ref().is_none_or(|endpoint| {
                self.options
                    .own_identity_endpoints
                    .iter()
                    .any(|allowed| allowed.trim_end_matches('/') == endpoint.trim_end_matches('/'))
            });
            return if allowed {
                Ok(None)
            } else {
                Err(Trouble {
                    reason: "EndpointNotAllowed".into(),
                    message: format!(
                        "The operator's own identity is not used with {}: name a Secret in spec.aws.credentialsSecretRef, or start the operator with this endpoint allowed.",
                        plan.endpoint.as_deref().unwrap_or_default()
                    ),
                    lasting: true,
                })
            };
        };
        let bad = |why: String| Trouble {
            reason: "CredentialsMissing".into(),
            message: format!(
                "The Secret {name} of spec.aws.credentialsSecretRef cannot be used: {why}."
            ),
            lasting: false,
        };
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &plan.namespace);
        let secret = secrets
            .get_opt(name)
            .await
            .map_err(|error| bad(error.to_string()))?;
        let data = secret
            .ok_or_else(|| bad("there is none of this name".into()))?
            .data
            .unwrap_or_default();
        let data = data
            .into_iter()
            .map(|(key, bytes)| (key, bytes.0))
            .collect();
        credentials_of(&data).map(Some).map_err(bad)
    }

    async fn provide(
        &self,
        plan: &Plan,
    ) -> Result<
        (
            Option<AwsCredentials>,
            streampress_crds::api::status::TransportStatus,
        ),
        Trouble,
    > {
        let work = async {
            let credentials = self.credentials(plan).await?;
            let status = self.provisioner.provide(plan, credentials.as_ref()).await?;
            Ok((credentials, status))
        };
        timeout(self.options.call_deadline, work)
            .await
            .unwrap_or_else(|_| Err(no_answer(plan, self.options.call_deadline)))
    }
}

fn no_answer(plan: &Plan, after: Duration) -> Trouble {
    let place = plan
        .endpoint
        .clone()
        .unwrap_or_else(|| format!("AWS in {}", plan.region));
    Trouble {
        reason: "EndpointUnreachable".into(),
        message: format!(
            "{place} did not answer within {} s; trying again. See spec.aws.endpointURL and region.",
            after.as_secs()
        ),
        lasting: false,
    }
}

/// A refusal stays one, and so do keys that are not there.
fn may_pass(trouble: &Trouble) -> bool {
    matches!(&*trouble.reason, "TransportFailed" | "EndpointUnreachable")
}

/// Makes the transport, with longer and longer waits while it fails, and looks at it for as long as the pipeline is there.
async fn keep(inner: Arc<Inner>, plan: Arc<Plan>) {
    let mut pause = PAUSE;
    let mut is_blind = false;
    let mut quiet = 0;
    loop {
        let made = {
            let Some(_turn) = inner.turn(&plan, Errand::Keep).await else {
                return;
            };
            // In a box of its own: the task stays for as long as its pipeline, at the size of all that is awaited in it.
            Box::pin(inner.provide(&plan)).await
        };
        match made {
            Ok((credentials, status)) => {
                let view = TransportView::Ready(status);
                // What is there and cannot be read is no better than before.
                if !is_blind && inner.note(&plan, |file| file.seen.view = view.clone()) {
                    info!(pipeline = %plan.pipeline(), "Queues and stream are there.");
                }
                is_blind = !look(&inner, &plan, credentials.as_ref(), view, &mut quiet).await;
                if !is_blind {
                    pause = PAUSE;
                    continue;
                }
                inner.note(&plan, |file| {
                    file.seen.view = TransportView::Trouble(Trouble {
                        reason: "DepthUnknown".into(),
                        message: format!(
                            "The queues could not be read {BLIND} times in a row; looking for them again. Is sqs:GetQueueAttributes allowed?"
                        ),
                        lasting: false,
                    });
                });
            }
            Err(trouble) => {
                warn!(pipeline = %plan.pipeline(), reason = %trouble.reason, "{}", trouble.message);
                inner.note(&plan, |file| {
                    file.seen.view = TransportView::Trouble(trouble);
                    file.seen.depths = Depths::default();
                });
            }
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Looks at the depths until all is to be looked at again. False when a queue could not be read several times in a row:
/// endpoint, queues or credentials have changed. `quiet` counts the looks in a row that brought no news.
async fn look(
    inner: &Inner,
    plan: &Plan,
    credentials: Option<&AwsCredentials>,
    view: TransportView,
    quiet: &mut u32,
) -> bool {
    let began = Instant::now();
    let mut blind = 0;
    while began.elapsed() < inner.options.verify_every {
        let depths = {
            let Some(_turn) = inner.turn(plan, Errand::Keep).await else {
                return true;
            };
            timeout(
                inner.options.call_deadline,
                inner.provisioner.depths(plan, credentials),
            )
            .await
            .unwrap_or_default()
        };
        let is_seen = depths.files.is_some() && depths.chunks.is_some();
        let news = inner.note(plan, |file| {
            file.seen.depths = depths;
            if is_seen {
                file.seen.view = view.clone();
            }
        });
        blind = if is_seen { 0 } else { blind + 1 };
        if blind >= BLIND {
            return false;
        }
        *quiet = if news { 0 } else { quiet.saturating_add(1) };
        // While something waits, what becomes of it is interesting; at rest a first message must be seen soon.
        let wait = if plan.eager || *quiet < 30 {
            inner.options.look_every
        } else {
            inner.options.look_rarely
        };
        sleep(wait).await;
    }
    true
}

async fn remove(inner: Arc<Inner>, plan: Arc<Plan>, policy: DeletionPolicy) {
    let names = || {
        let parts = &plan.parts;
        format!(
            "{}, {} and {}",
            parts.files_queue.name, parts.chunks_queue.name, parts.stream.name
        )
    };
    // Not within the deadline: hundreds may be deleted at once.
    let _turn = inner.turn(&plan, Errand::Remove).await;
    // A pipeline goes once: what AWS cannot do at the moment is tried until the deadline.
    let mut last = None;
    let work = async {
        let mut pause = PAUSE;
        loop {
            let tried = async {
                let credentials = inner.credentials(&plan).await?;
                inner
                    .provisioner
                    .remove(&plan, policy, credentials.as_ref())
                    .await
            };
            match tried.await {
                Err(trouble) if may_pass(&trouble) => last = Some(trouble),
                tried => return tried,
            }
            sleep(pause).await;
            pause *= 2;
        }
    };
    let left = match timeout(inner.options.removal_deadline, work).await {
        Ok(Ok(left)) => left,
        Ok(Err(trouble)) => vec![format!(
            "{} may be left behind: {}",
            names(),
            trouble.message
        )],
        Err(_) => {
            let trouble = last.unwrap_or_else(|| no_answer(&plan, inner.options.removal_deadline));
            vec![format!(
                "{} may be left behind: {}",
                names(),
                trouble.message
            )]
        }
    };
    inner.note(&plan, |file| file.removal = Some(Removal::Done(left)));
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use async_trait::async_trait;
    use streampress_crds::CheckedPipeline;
    use streampress_crds::api::pipeline::CompressionPipeline;
    use streampress_crds::api::status::TransportStatus;

    use super::*;
    use streampress_transport::Depth;

    /// Makes everything; answers about depths by what the endpoint is called.
    #[derive(Default)]
    struct Endpoints {
        provided: AtomicU64,
        removals: AtomicU64,
    }

    #[async_trait]
    impl Provisioner for Endpoints {
        async fn provide(
            &self,
            plan: &Plan,
            _: Option<&AwsCredentials>,
        ) -> Result<TransportStatus, Trouble> {
            if plan.endpoint.as_deref() == Some("http://dead") {
                std::future::pending::<()>().await;
            }
            self.provided.fetch_add(1, Ordering::Relaxed);
            Ok(TransportStatus::default())
        }

        async fn depths(&self, plan: &Plan, _: Option<&AwsCredentials>) -> Depths {
            let known = Some(Depth::default());
            match plan.endpoint.as_deref() {
                Some("http://dumb") => Depths::default(),
                Some("http://half") => Depths {
                    files: known,
                    ..Depths::default()
                },
                _ => Depths {
                    files: known,
                    chunks: known,
                    dead: Some(0),
                },
            }
        }

        async fn remove(
            &self,
            plan: &Plan,
            _: DeletionPolicy,
            _: Option<&AwsCredentials>,
        ) -> Result<Vec<String>, Trouble> {
            if plan.endpoint.as_deref() == Some("http://dead") {
                std::future::pending::<()>().await;
            }
            // One call after another.
            sleep(Duration::from_secs(5)).await;
            let tried = self.removals.fetch_add(1, Ordering::Relaxed);
            let (reason, fails) = match plan.endpoint.as_deref() {
                Some("http://busy") => ("TransportFailed", tried == 0),
                Some("http://broken") => ("TransportFailed", true),
                Some("http://closed") => ("AccessDenied", true),
                _ => ("", false),
            };
            if fails {
                return Err(Trouble {
                    reason: reason.into(),
                    message: "Deleting failed.".into(),
                    lasting: false,
                });
            }
            Ok(Vec::new())
        }
    }

    struct Office {
        desk: Desk,
        endpoints: Arc<Endpoints>,
        notes: Arc<AtomicU64>,
    }

    impl Office {
        fn open() -> Self {
            let (endpoints, notes) = (Arc::new(Endpoints::default()), Arc::default());
            let address = "http://127.0.0.1:1".parse().expect("an address");
            let client = Client::try_from(kube::Config::new(address)).expect("a client");
            let own = [
                "http://dead",
                "http://dumb",
                "http://half",
                "http://good",
                "http://busy",
                "http://broken",
                "http://closed",
            ];
            let options = DeskOptions {
                own_identity_endpoints: own.map(str::to_owned).into(),
                ..DeskOptions::default()
            };
            let counted: Arc<AtomicU64> = Arc::clone(&notes);
            let notify = Arc::new(move |_: &str, _: &str| {
                counted.fetch_add(1, Ordering::Relaxed);
            });
            Self {
                desk: Desk::new(endpoints.clone(), client, options, notify),
                endpoints,
                notes,
            }
        }
    }

    fn plan(name: &str, endpoint: &str) -> Plan {
        let pipeline: CompressionPipeline = serde_json::from_value(serde_json::json!({
            "apiVersion": "streampress.dev/v1alpha1", "kind": "CompressionPipeline",
            "metadata": {"name": name, "namespace": "n", "uid": name},
            "spec": {"aws": {"endpointURL": endpoint}, "volume": {"persistentVolumeClaim": {"claimName": "files"}}},
        }))
        .expect("a pipeline");
        let checked = CheckedPipeline::in_cluster(pipeline).expect("valid");
        Plan::of(checked.pipeline(), checked.resolved())
    }

    #[tokio::test(start_paused = true)]
    async fn queues_that_cannot_be_read_are_looked_for_again_for_ever_and_told_of_once() {
        for endpoint in ["http://dumb", "http://half"] {
            let office = Office::open();
            let plan = plan("a", endpoint);
            office.desk.look(&plan);
            sleep(Duration::from_secs(600)).await;
            let TransportView::Trouble(trouble) = office.desk.look(&plan).view else {
                panic!("{endpoint} is called ready");
            };
            assert_eq!(trouble.reason, "DepthUnknown");
            let told = office.notes.load(Ordering::Relaxed);
            sleep(Duration::from_secs(30 * 24 * 3600)).await;
            assert_eq!(office.notes.load(Ordering::Relaxed), told, "{endpoint}");
            // Every minute or so.
            let looked = office.endpoints.provided.load(Ordering::Relaxed);
            assert!((30_000..60_000).contains(&looked), "{looked} times");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn when_the_desk_goes_nothing_is_made_any_more() {
        let office = Office::open();
        office.desk.look(&plan("a", "http://dumb"));
        sleep(Duration::from_secs(600)).await;
        let made = || office.endpoints.provided.load(Ordering::Relaxed);
        let before = made();
        drop(office.desk);
        sleep(Duration::from_secs(600)).await;
        assert_eq!((before > 0, made()), (true, before));
    }

    #[tokio::test(start_paused = true)]
    async fn a_part_that_somebody_took_away_is_looked_for_again_within_minutes() {
        let office = Office::open();
        let plan = plan("a", "http://good");
        office.desk.look(&plan);
        sleep(Duration::from_secs(3600)).await;
        assert!(matches!(
            office.desk.look(&plan).view,
            TransportView::Ready(_)
        ));
        let looked = office.endpoints.provided.load(Ordering::Relaxed);
        assert!((11..=13).contains(&looked), "{looked} times in an hour");
    }

    #[tokio::test(start_paused = true)]
    async fn endpoints_that_hang_hold_up_neither_other_pipelines_nor_their_removal() {
        let office = Office::open();
        for number in 0..100 {
            office
                .desk
                .look(&plan(&format!("dead-{number}"), "http://dead"));
        }
        sleep(Duration::from_secs(1)).await;
        let good = plan("good", "http://good");
        office.desk.look(&good);
        sleep(Duration::from_secs(1)).await;
        assert!(matches!(
            office.desk.look(&good).view,
            TransportView::Ready(_)
        ));
        office.desk.remove(&good, DeletionPolicy::Delete);
        let dead = plan("dead-0", "http://dead");
        office.desk.remove(&dead, DeletionPolicy::Delete);
        sleep(Duration::from_secs(21)).await;
        assert_eq!(
            office.desk.remove(&good, DeletionPolicy::Delete),
            Removal::Done(Vec::new())
        );
        let Removal::Done(left) = office.desk.remove(&dead, DeletionPolicy::Delete) else {
            panic!("still waiting for an endpoint that hangs");
        };
        assert!(left[0].contains("may be left behind"), "{left:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_removal_that_fails_is_tried_until_its_deadline_and_one_that_is_refused_is_not() {
        let left = |what: &str| {
            Removal::Done(vec![format!(
                "n-{what}-{what}-files.fifo, n-{what}-{what}-chunks.fifo and n-{what}-{what}-stream may be left behind: Deleting failed."
            )])
        };
        for (what, after, wanted, tries) in [
            ("busy", 12, Removal::Done(Vec::new()), 2),
            ("broken", 21, left("broken"), 3),
            ("closed", 6, left("closed"), 1),
        ] {
            let office = Office::open();
            let plan = plan(what, &format!("http://{what}"));
            office.desk.remove(&plan, DeletionPolicy::Delete);
            sleep(Duration::from_secs(after)).await;
            assert_eq!(
                office.desk.remove(&plan, DeletionPolicy::Delete),
                wanted,
                "{what}"
            );
            assert_eq!(office.endpoints.removals.load(Ordering::Relaxed), tries);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn hundreds_that_are_removed_at_once_each_have_their_time() {
        let office = Office::open();
        let plans: Vec<Plan> = (0..200)
            .map(|number| plan(&format!("p{number}"), "http://good"))
            .collect();
        for plan in &plans {
            office.desk.remove(plan, DeletionPolicy::Delete);
        }
        sleep(Duration::from_secs(100)).await;
        for plan in &plans {
            assert_eq!(
                office.desk.remove(plan, DeletionPolicy::Delete),
                Removal::Done(Vec::new())
            );
        }
    }
}
