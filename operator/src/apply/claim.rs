//! Which installation of the operator runs the pipelines of a namespace, or of the cluster. Operators of one release choose
//! their leader by the release's Lease. Those of another release have another Lease, and would undo what these do: the first
//! that leads therefore claims the pipelines, in a Lease of a fixed name that is written once and names the release's Lease.
//! One that finds another's claim does nothing until that other has not led for a while. A claim is only ever taken from an
//! installation whose Lease is free, so that its operator has stopped writing.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{DeleteParams, ObjectMeta, PostParams, Preconditions};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Api, Client, Error, Resource};
use streampress_crds::lease::Times;
use streampress_transport::lease::Observation;
use tokio::time::{Instant, sleep};
use tracing::{debug, info, warn};

use crate::resources::names;

/// The claim's name.
const CLAIM: &str = "streampress-installation";
/// On the claim: namespace and name of the Lease of the installation whose it is.
const CLAIMANT: &str = "streampress.dev/installation";
/// Where the claim on the pipelines of all namespaces is: this one cannot be deleted.
const CLUSTER_NAMESPACE: &str = "default";
/// Between two checks of another's claim.
const INTERVAL: Duration = Duration::from_secs(5);
/// An installation that has not led for so long is over: a restart takes less.
pub(crate) const OVER_AFTER: Duration = Duration::from_secs(30);

/// An installation's claim.
pub(crate) struct InstallationClaim {
    client: Client,
    /// The only namespace whose pipelines are claimed.
    watched: Option<String>,
    /// Namespace and name of this installation's Lease.
    own: String,
    over_after: Duration,
    other: Option<OtherInstallation>,
}

/// The installation that has the claim, as it was seen.
struct OtherInstallation {
    name: String,
    lease: Observation,
    free_since: Option<Instant>,
}

/// How an attempt to claim ended.
enum ClaimAttempt {
    Claimed,
    /// Another wrote at the same time.
    Again,
    /// It is another's, whose claim this is.
    Refused(String, Box<Lease>),
}

impl InstallationClaim {
    /// Of the installation whose operators lead by the Lease `own`, a namespace and a name, on the pipelines of one namespace
    /// or of all.
    pub(crate) fn new(
        client: Client,
        watched: Option<String>,
        own: (&str, &str),
        over_after: Duration,
    ) -> Self {
        Self {
            client,
            watched,
            own: format!("{}/{}", own.0, own.1),
            over_after,
            other: None,
        }
    }

    /// Waits until the pipelines are this installation's; tells `refused` why they are not.
    pub(crate) async fn win(&mut self, identity: &str, refused: impl Fn(String)) {
        let mut told = None;
        loop {
            match self.attempt().await {
                Ok(ClaimAttempt::Claimed) => return,
                Ok(ClaimAttempt::Again) => continue,
                Ok(ClaimAttempt::Refused(other, claim)) if told.as_ref() != Some(&other) => {
                    let why = self.refusal(&other);
                    warn!("{why}");
                    refused(why.clone());
                    self.publish(&claim, identity, why).await;
                    told = Some(other);
                }
                Ok(ClaimAttempt::Refused(..)) => {}
                // A policy of the cluster may keep others out of the claim's namespace; pipelines must run all the same.
                Err(error) if is_forbidden(&error) && told.is_none() => {
                    warn!(
                        %error,
                        "Whose the pipelines are may not be read or written; an operator of another release is not noticed."
                    );
                    return;
                }
                Err(error) => {
                    warn!(%error, "Whose the pipelines are could not be read or written; trying again.");
                }
            }
            sleep(INTERVAL.min(self.over_after)).await;
        }
    }

    /// Another installation whose the pipelines are.
    pub(crate) async fn held_by_another(&self) -> Result<Option<String>, Error> {
        let claim = match self.claims().get_opt(CLAIM).await {
            Err(error) if is_forbidden(&error) => return Ok(None),
            claim => claim?,
        };
        let claimant = claim.as_ref().and_then(claimant);
        Ok(claimant.filter(|claimant| *claimant != self.own))
    }

    /// Gives the claim up, at the end of the installation.
    pub(crate) async fn release(&self) -> Result<(), Error> {
        let claim = match self.claims().get_opt(CLAIM).await {
            Err(error) if is_forbidden(&error) => None,
            claim => claim?,
        };
        let Some(claim) = claim else {
            return Ok(());
        };
        if claimant(&claim).as_ref() != Some(&self.own) {
            return Ok(());
        }
        let preconditions = Preconditions {
            resource_version: claim.metadata.resource_version,
            uid: claim.metadata.uid,
        };
        let params = DeleteParams::default().preconditions(preconditions);
        match self.claims().delete(CLAIM, &params).await {
            // It stays, and names an installation that is gone.
            Err(error) if is_forbidden(&error) => Ok(()),
            deleted => deleted.map(drop),
        }
    }

    async fn attempt(&mut self) -> Result<ClaimAttempt, Error> {
        let Some(mut claim) = self.claims().get_opt(CLAIM).await? else {
            let mut claim = Lease {
                metadata: ObjectMeta {
                    name: Some(CLAIM.into()),
                    ..ObjectMeta::default()
                },
                spec: None,
            };
            self.sign(&mut claim);
            let params = PostParams::default();
            return written(self.claims().create(&params, &claim).await);
        };
        match claimant(&claim) {
            Some(claimant) if claimant == self.own => return Ok(ClaimAttempt::Claimed),
            Some(other) if !self.has_ended(&other).await? => {
                return Ok(ClaimAttempt::Refused(other, Box::new(claim)));
            }
            Some(other) => info!(other, "Another installation has ended; taking its claim."),
            None => {}
        }
        self.sign(&mut claim);
        claim.metadata.managed_fields = None;
        // With the resource version that was read: of several only one succeeds.
        let params = PostParams::default();
        written(self.claims().replace(CLAIM, &params, &claim).await)
    }

    /// Whether another installation has not led for a while, or its Lease is gone.
    async fn has_ended(&mut self, other: &str) -> Result<bool, Error> {
        let Some((namespace, name)) = other.split_once('/') else {
            return Ok(true);
        };
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), namespace);
        let Some(lease) = leases.get_opt(name).await? else {
            return Ok(true);
        };
        let known = self.other.take().filter(|known| known.name == other);
        let mut seen = match known {
            Some(mut known) => {
                known.lease.update(lease);
                known
            }
            None => OtherInstallation {
                name: other.to_owned(),
                lease: Observation::new(lease),
                free_since: None,
            },
        };
        seen.free_since = match seen.lease.is_free(&Times::default()) {
            true => seen.free_since.or_else(|| Some(Instant::now())),
            false => None,
        };
        let free_since = seen.free_since;
        self.other = Some(seen);
        Ok(free_since.is_some_and(|since| since.elapsed() >= self.over_after))
    }

    fn sign(&self, claim: &mut Lease) {
        let annotations = claim.metadata.annotations.get_or_insert_default();
        annotations.insert(CLAIMANT.into(), self.own.clone());
    }

    fn claims(&self) -> Api<Lease> {
        let namespace = self.watched.as_deref().unwrap_or(CLUSTER_NAMESPACE);
        Api::namespaced(self.client.clone(), namespace)
    }

    fn refusal(&self, other: &str) -> String {
        let pipelines = match &self.watched {
            Some(namespace) => format!("The pipelines of namespace {namespace}"),
            None => "The pipelines of this cluster".to_owned(),
        };
        format!(
            "{pipelines} are run by the operator that leads by the Lease {other}, of another release. This one ({}) does nothing until that one has not led for {} s. Uninstall one of the two.",
            self.own,
            self.over_after.as_secs()
        )
    }

    /// An Event that cannot be written is no reason to stop: log and `/readyz` say the same.
    async fn publish(&self, claim: &Lease, identity: &str, why: String) {
        let reporter = Reporter {
            controller: names::MANAGER.into(),
            instance: Some(identity.to_owned()),
        };
        let event = Event {
            type_: EventType::Warning,
            reason: "AnotherOperator".into(),
            note: Some(why),
            action: "Claim".into(),
            secondary: None,
        };
        let recorder = Recorder::new(self.client.clone(), reporter);
        if let Err(error) = recorder.publish(&event, &claim.object_ref(&())).await {
            debug!(%error, "An Event could not be written.");
        }
    }
}

fn claimant(claim: &Lease) -> Option<String> {
    claim.metadata.annotations.as_ref()?.get(CLAIMANT).cloned()
}

fn written(result: Result<Lease, Error>) -> Result<ClaimAttempt, Error> {
    match result {
        Ok(_) => Ok(ClaimAttempt::Claimed),
        Err(Error::Api(status)) if status.code == 409 => Ok(ClaimAttempt::Again),
        Err(error) => Err(error),
    }
}

fn is_forbidden(error: &Error) -> bool {
    matches!(error, Error::Api(status) if status.code == 403)
}
