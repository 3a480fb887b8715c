//! All talk with AWS, outside the reconcile path: one task per pipeline makes its transport, then looks at the depths
//! again and again. Reconciling only reads what was found last. Calls at once are bounded, each has a deadline, and what
//! hangs holds up nobody else.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use streampress_crds::pipeline::DeletionPolicy;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use super::{Credentials, Depths, Plan, Provisioner};
use crate::status::{TransportView, Trouble};

/// How the desk works.
#[derive(Clone, Debug)]
pub struct DeskOptions {
    /// Between two looks at depths while there is something to see.
    pub look_every: Duration,
    /// The same while nothing has changed for a while.
    pub look_rarely: Duration,
    /// How long making or looking may take.
    pub call_deadline: Duration,
    /// How long deleting may take before what is left is named and the pipeline goes.
    pub removal_deadline: Duration,
    /// Pipelines served at once.
    pub at_once: usize,
    /// Endpoints that the operator's own identity may be used with, besides AWS's own.
    pub own_identity_endpoints: Vec<String>,
}

impl Default for DeskOptions {
    fn default() -> Self {
        Self {
            look_every: Duration::from_secs(2),
            look_rarely: Duration::from_secs(10),
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
    turns: Semaphore,
    files: Mutex<HashMap<String, File>>,
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
        let turns = Semaphore::new(options.at_once);
        Self {
            inner: Arc::new(Inner {
                provisioner,
                client,
                options,
                notify,
                turns,
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

impl Inner {
    fn files(&self) -> std::sync::MutexGuard<'_, HashMap<String, File>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
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
    async fn credentials(&self, plan: &Plan) -> Result<Option<Credentials>, Trouble> {
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
        Credentials::of(&data).map(Some).map_err(bad)
    }

    async fn provide(
        &self,
        plan: &Plan,
    ) -> Result<
        (
            Option<Credentials>,
            streampress_crds::status::TransportStatus,
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

/// Makes the transport, with longer and longer waits while it fails, then looks at the depths for as long as the
/// pipeline is there.
async fn keep(inner: Arc<Inner>, plan: Arc<Plan>) {
    let mut pause = Duration::from_secs(1);
    let credentials = loop {
        let made = {
            let Ok(_turn) = inner.turns.acquire().await else {
                return;
            };
            // In a box of its own: the task stays for as long as its pipeline, at the size of all that is awaited in it.
            Box::pin(inner.provide(&plan)).await
        };
        match made {
            Ok((credentials, status)) => {
                info!(pipeline = %plan.pipeline(), "Queues and stream are there.");
                inner.note(&plan, |file| file.seen.view = TransportView::Ready(status));
                break credentials;
            }
            Err(trouble) => {
                warn!(pipeline = %plan.pipeline(), reason = %trouble.reason, "{}", trouble.message);
                inner.note(&plan, |file| {
                    file.seen.view = TransportView::Trouble(trouble);
                    file.seen.depths = Depths::default();
                });
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(60));
    };
    let mut quiet = 0_u32;
    let mut blind = 0_u32;
    loop {
        let depths = {
            let Ok(_turn) = inner.turns.acquire().await else {
                return;
            };
            timeout(
                inner.options.call_deadline,
                inner.provisioner.depths(&plan, credentials.as_ref()),
            )
            .await
            .unwrap_or_default()
        };
        blind = if depths == Depths::default() {
            blind + 1
        } else {
            0
        };
        if blind >= 3 {
            // Nothing can be read: the endpoint, the queues or the credentials have changed. Begin anew.
            inner.note(&plan, |file| {
                file.seen.depths = depths;
                file.seen.view = TransportView::Trouble(Trouble {
                    reason: "DepthUnknown".into(),
                    message:
                        "The queues could not be read three times in a row; looking for them again."
                            .into(),
                    lasting: false,
                });
            });
            return Box::pin(keep(inner, plan)).await;
        }
        let news = inner.note(&plan, |file| file.seen.depths = depths);
        quiet = if news { 0 } else { quiet.saturating_add(1) };
        // While something waits, what becomes of it is interesting; at rest a first message must be seen soon.
        let wait = if plan.eager || quiet < 30 {
            inner.options.look_every
        } else {
            inner.options.look_rarely
        };
        tokio::time::sleep(wait).await;
    }
}

async fn remove(inner: Arc<Inner>, plan: Arc<Plan>, policy: DeletionPolicy) {
    let names = || {
        let parts = &plan.parts;
        format!(
            "{}, {} and {}",
            parts.files_queue.name, parts.chunks_queue.name, parts.stream.name
        )
    };
    let work = async {
        let _turn = inner.turns.acquire().await.ok();
        let credentials = inner.credentials(&plan).await?;
        inner
            .provisioner
            .remove(&plan, policy, credentials.as_ref())
            .await
    };
    let left = match timeout(inner.options.removal_deadline, work).await {
        Ok(Ok(left)) => left,
        Ok(Err(trouble)) => vec![format!(
            "{} may be left behind: {}",
            names(),
            trouble.message
        )],
        Err(_) => {
            let trouble = no_answer(&plan, inner.options.removal_deadline);
            vec![format!(
                "{} may be left behind: {}",
                names(),
                trouble.message
            )]
        }
    };
    inner.note(&plan, |file| file.removal = Some(Removal::Done(left)));
}
